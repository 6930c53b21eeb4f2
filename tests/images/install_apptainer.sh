#!/usr/bin/env bash
# Apptainer in a folder of its own, from Debian's unstable release, which alone carries it; the system and its libc stay
# as they are. Needs apt and, installed from this machine's own release:
#   squashfs-tools squashfuse fuse-overlayfs uidmap patchelf
# Debian's unstable moves on: the last line says which version it was.
#
#   install_apptainer.sh PREFIX       then: PREFIX/usr/bin/apptainer
set -euo pipefail
(($# == 1)) || {
  sed -n '2,7s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" >&2
  exit 2
}
for tool in mksquashfs squashfuse fuse-overlayfs newuidmap patchelf; do
  command -v "$tool" >/dev/null || {
    echo "$tool is missing: apt-get install squashfs-tools squashfuse fuse-overlayfs uidmap patchelf" >&2
    exit 1
  }
done
mkdir -p "$1"
prefix=$(cd "$1" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# The mirror that this machine uses already.
mirror=$(awk '/^URIs:/ { print $2; exit }' /etc/apt/sources.list.d/debian.sources 2>/dev/null ||
  awk '$1 == "deb" { print $(NF > 3 && $2 ~ /^\[/ ? 3 : 2); exit }' /etc/apt/sources.list)
mkdir -p "$work"/{lists/partial,cache/archives/partial,parts}
for suite in sid trixie; do
  echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror $suite main"
done >"$work/sources.list"
options=(
  -o Dir::Etc::sourcelist="$work/sources.list" -o Dir::Etc::sourceparts="$work/parts"
  -o Dir::State::lists="$work/lists" -o Dir::Cache="$work/cache" -o APT::Sandbox::User=root
  -o Acquire::Languages=none
)
cd "$work"
apt-get "${options[@]}" -qq update
# Its libc comes along, and the programs are told to load that one.
apt-get "${options[@]}" -qq download apptainer libc6/trixie
dpkg-deb -x apptainer_*.deb "$prefix"
dpkg-deb -x libc6_*.deb "$prefix/libc"
libc=$prefix/libc/usr/lib/x86_64-linux-gnu
for program in "$prefix/usr/bin/apptainer" "$prefix/usr/lib/x86_64-linux-gnu/apptainer/bin/starter"; do
  patchelf --set-interpreter "$libc/ld-linux-x86-64.so.2" \
    --set-rpath "$libc:/lib/x86_64-linux-gnu:/usr/lib/x86_64-linux-gnu" "$program"
done
# Where a relocated Apptainer looks, given Debian's library folder.
cp -a "$prefix/etc" "$prefix/usr/etc"
mkdir -p "$prefix/usr/var/lib/apptainer/mnt/session"
ln -sfn ../etc "$prefix/usr/lib/etc"
ln -sfn ../var "$prefix/usr/lib/var"
"$prefix/usr/bin/apptainer" --version
