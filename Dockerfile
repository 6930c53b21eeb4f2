# Two images from one file: `docker build --target cpu .` and `docker build --target gpu .` (docs/containers.md).
# The bases need apt, the first one Python 3.12; any mirror or digest of them can be given with --build-arg.
#
# What the two have in common (user, environment, labels, entry point) stands here twice: a stage can take its settings
# from one base only, and these have two. tests/packaging/test_images.py holds them, and apptainer.def, equal.
#
# No VOLUME: it would leave runs, which hold clinical text, in volumes that nobody named and nobody finds.
ARG BASE_IMAGE=python:3.12-slim-bookworm
ARG GPU_BASE_IMAGE=nvidia/cuda:13.0.2-devel-ubuntu24.04

# ------------------------------------------------------------------------------------------------------- CPU
FROM ${BASE_IMAGE} AS cpu-base
# Unpinned on purpose: a base image's archive keeps one version of each, and it is the patched one.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates libnuma1 tini \
    && rm -rf /var/lib/apt/lists/*

FROM cpu-base AS cpu-packages
# The set-up of the README. This layer changes with the pins only. uv and what it downloads stay outside the image.
WORKDIR /opt/medserl/source
COPY bootstrap.py ./
COPY requirements requirements
RUN --mount=type=cache,target=/root/.cache/uv --mount=type=cache,id=uv-cpu,target=/opt/medserl/venv-tools \
    UV_LINK_MODE=copy python3.12 bootstrap.py --device cpu --venv /opt/medserl/venv setup --packages

FROM cpu-packages AS cpu
RUN --mount=type=bind,target=/opt/medserl/source,rw --mount=type=cache,id=uv-cpu,target=/opt/medserl/venv-tools \
    UV_LINK_MODE=copy python3.12 bootstrap.py --device cpu --venv /opt/medserl/venv --no-editable setup
RUN groupadd --gid 10001 medserl \
    && useradd --create-home --uid 10001 --gid 10001 medserl \
    && install -d -o medserl -g medserl /models \
    && install -d -m 1777 /cache
ENV PATH=/opt/medserl/venv/bin:/usr/local/cuda/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    PYTHONNOUSERSITE=1 \
    PYTHONUNBUFFERED=1 \
    TMPDIR=/tmp \
    HF_HOME=/models \
    HF_HUB_OFFLINE=1 \
    XDG_CACHE_HOME=/cache \
    TRITON_CACHE_DIR=/cache/triton \
    TORCHINDUCTOR_CACHE_DIR=/cache/inductor \
    FLASHINFER_WORKSPACE_BASE=/cache \
    RAY_USAGE_STATS_ENABLED=0
ARG VERSION=0.1.0
ARG REVISION
ARG SOURCE
LABEL org.opencontainers.image.title="medserl" \
      org.opencontainers.image.description="Self-play reinforcement learning for medical error detection" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.source="${SOURCE}"
USER 10001:10001
WORKDIR /home/medserl
HEALTHCHECK --interval=60s --timeout=20s --start-period=60s --retries=3 CMD ["medserl", "health"]
ENTRYPOINT ["tini", "-s", "-g", "--", "medserl"]
CMD ["selftest"]

# ------------------------------------------------------------------------------------------------------- GPU
FROM ${GPU_BASE_IMAGE} AS gpu-base
# The compiler and Python's headers stay in the image: Triton compiles at run time. libnuma-dev has the name libnuma.so
# by which verl looks for the library that binds a worker to the processors next to its GPU.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends \
       ca-certificates g++ libnuma-dev python3.12 python3.12-dev python3.12-venv tini \
    && rm -rf /var/lib/apt/lists/*

FROM gpu-base AS gpu-packages
WORKDIR /opt/medserl/source
COPY bootstrap.py ./
COPY requirements requirements
RUN --mount=type=cache,target=/root/.cache/uv --mount=type=cache,id=uv-gpu,target=/opt/medserl/venv-tools \
    UV_LINK_MODE=copy python3.12 bootstrap.py --device cuda --venv /opt/medserl/venv setup --packages

FROM gpu-packages AS gpu
RUN --mount=type=bind,target=/opt/medserl/source,rw --mount=type=cache,id=uv-gpu,target=/opt/medserl/venv-tools \
    UV_LINK_MODE=copy python3.12 bootstrap.py --device cuda --venv /opt/medserl/venv --no-editable setup
RUN groupadd --gid 10001 medserl \
    && useradd --create-home --uid 10001 --gid 10001 medserl \
    && install -d -o medserl -g medserl /models \
    && install -d -m 1777 /cache
ENV PATH=/opt/medserl/venv/bin:/usr/local/cuda/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    PYTHONNOUSERSITE=1 \
    PYTHONUNBUFFERED=1 \
    TMPDIR=/tmp \
    HF_HOME=/models \
    HF_HUB_OFFLINE=1 \
    XDG_CACHE_HOME=/cache \
    TRITON_CACHE_DIR=/cache/triton \
    TORCHINDUCTOR_CACHE_DIR=/cache/inductor \
    FLASHINFER_WORKSPACE_BASE=/cache \
    RAY_USAGE_STATS_ENABLED=0
ARG VERSION=0.1.0
ARG REVISION
ARG SOURCE
LABEL org.opencontainers.image.title="medserl" \
      org.opencontainers.image.description="Self-play reinforcement learning for medical error detection" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.source="${SOURCE}"
USER 10001:10001
WORKDIR /home/medserl
HEALTHCHECK --interval=60s --timeout=20s --start-period=60s --retries=3 CMD ["medserl", "health"]
ENTRYPOINT ["tini", "-s", "-g", "--", "medserl"]
CMD ["selftest"]
