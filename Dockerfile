# Two images from one file: `docker build --target cpu .` and `docker build --target gpu .` (docs/containers.md).
# The bases need apt; any mirror or digest of them can be given with --build-arg.
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
WORKDIR /opt/medserl/source
COPY bootstrap.py ./
COPY requirements requirements
# The set-up of the README. This layer changes with the pins only.
RUN --mount=type=cache,target=/root/.cache/uv \
    UV_LINK_MODE=copy python3 bootstrap.py --device cpu --venv /opt/medserl/venv setup --packages \
    && rm -rf /opt/medserl/venv-tools

FROM cpu-packages AS cpu
RUN --mount=type=bind,target=/opt/medserl/source,rw \
    UV_LINK_MODE=copy python3 bootstrap.py --device cpu --venv /opt/medserl/venv --no-editable setup \
    && rm -rf /opt/medserl/venv-tools
RUN groupadd --gid 10001 medserl \
    && useradd --create-home --uid 10001 --gid 10001 medserl \
    && install -d -o medserl -g medserl /models
ENV PATH=/opt/medserl/venv/bin:/usr/local/cuda/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    PYTHONNOUSERSITE=1 \
    PYTHONUNBUFFERED=1 \
    HF_HOME=/models \
    HF_HUB_OFFLINE=1 \
    RAY_USAGE_STATS_ENABLED=0
LABEL org.opencontainers.image.title="medserl" \
      org.opencontainers.image.description="Self-play reinforcement learning for medical error detection" \
      org.opencontainers.image.licenses="Apache-2.0"
USER 10001:10001
WORKDIR /home/medserl
ENTRYPOINT ["tini", "-s", "-g", "--", "medserl"]
CMD ["train", "--max-rounds", "2"]

# ------------------------------------------------------------------------------------------------------- GPU
FROM ${GPU_BASE_IMAGE} AS gpu-base
# The compiler and Python's headers stay in the image: Triton compiles at run time.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends \
       ca-certificates g++ libnuma1 python3.12 python3.12-dev python3.12-venv tini \
    && rm -rf /var/lib/apt/lists/*

FROM gpu-base AS gpu-packages
WORKDIR /opt/medserl/source
COPY bootstrap.py ./
COPY requirements requirements
RUN --mount=type=cache,target=/root/.cache/uv \
    UV_LINK_MODE=copy python3 bootstrap.py --device cuda --venv /opt/medserl/venv setup --packages \
    && rm -rf /opt/medserl/venv-tools

FROM gpu-packages AS gpu
RUN --mount=type=bind,target=/opt/medserl/source,rw \
    UV_LINK_MODE=copy python3 bootstrap.py --device cuda --venv /opt/medserl/venv --no-editable setup \
    && rm -rf /opt/medserl/venv-tools
RUN groupadd --gid 10001 medserl \
    && useradd --create-home --uid 10001 --gid 10001 medserl \
    && install -d -o medserl -g medserl /models
ENV PATH=/opt/medserl/venv/bin:/usr/local/cuda/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    PYTHONNOUSERSITE=1 \
    PYTHONUNBUFFERED=1 \
    HF_HOME=/models \
    HF_HUB_OFFLINE=1 \
    RAY_USAGE_STATS_ENABLED=0
LABEL org.opencontainers.image.title="medserl" \
      org.opencontainers.image.description="Self-play reinforcement learning for medical error detection" \
      org.opencontainers.image.licenses="Apache-2.0"
USER 10001:10001
WORKDIR /home/medserl
ENTRYPOINT ["tini", "-s", "-g", "--", "medserl"]
CMD ["train", "--max-rounds", "2"]
