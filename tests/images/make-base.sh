#!/usr/bin/env bash
# A base image for the Dockerfile's target `cpu`, made on this machine alone: this machine's Debian release from its own
# mirror, with the Python 3.12 that runs the tests in /usr/local. It stands for python:3.12-slim where no image registry
# can be reached. Needs root and mmdebstrap.
#
#   make-base.sh OUT.tar PYTHON_PREFIX CA_BUNDLE
set -euo pipefail
(($# == 3)) || {
  sed -n '2,6s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" >&2
  exit 2
}
export PYTHON_PREFIX=$2 CA_BUNDLE=$3
# shellcheck source=/dev/null
codename=$(. /etc/os-release && echo "$VERSION_CODENAME")
mirror=$(awk '/^URIs:/ { print $2; exit }' /etc/apt/sources.list.d/debian.sources 2>/dev/null ||
  awk '$1 == "deb" { print $(NF > 3 && $2 ~ /^\[/ ? 3 : 2); exit }' /etc/apt/sources.list)

# What a Python that was built on this machine links to, and no more; the Dockerfile installs the rest.
libraries=libssl3,libffi8,libsqlite3-0,zlib1g,libbz2-1.0,liblzma5,libreadline8,libncursesw6,libuuid1,libexpat1

# The certificates lie beside those of the package ca-certificates, which would not have a stranger's file in its place.
# shellcheck disable=SC2016  # expands in the hook, where $1 is the new root
mmdebstrap --quiet --variant=apt --skip=output/mknod,output/dev --include="$libraries" \
  --customize-hook='tar -C "$PYTHON_PREFIX" --exclude=./lib/python3.12/test --exclude=./lib/python3.12/site-packages \
      --exclude=__pycache__ -cf - ./bin ./include ./lib | tar -C "$1/usr/local" --no-same-owner -xf -' \
  --customize-hook='install -m 644 "$CA_BUNDLE" "$1/usr/local/share/host-certificates.crt"' \
  --customize-hook='chroot "$1" ldconfig' \
  --customize-hook='chroot "$1" /usr/local/bin/python3.12 -c "import bz2, ctypes, ensurepip, lzma, sqlite3, ssl, venv"' \
  "$codename" "$1" "$mirror"
