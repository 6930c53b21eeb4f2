#!/usr/bin/env bash
# Compiles {cpu,gpu,dev,uv}.in to {cpu,gpu,dev,uv}.txt with hashes. Needs uv and a network to the package registry.
# usage: requirements/compile.sh [--upgrade]     without --upgrade the pins that are there are kept where they fit
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

case "${1:-}" in
  "" | --upgrade) ;;
  *) echo "usage: requirements/compile.sh [--upgrade]" >&2; exit 2 ;;
esac
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# A user's own index, links or uv settings must not leak into the pins.
unset UV_INDEX UV_INDEX_URL UV_EXTRA_INDEX_URL UV_FIND_LINKS UV_DEFAULT_INDEX UV_OVERRIDE UV_CONSTRAINT

# compile_one NAME SEED [ARG…]: SEED's pins are preferred, so that the sets agree wherever they can
compile_one() {
  local name=$1 seed=$2
  shift 2
  if [[ -f $seed && $upgrade != --upgrade ]]; then cp "$seed" "$work/$name.txt"; fi
  uv pip compile "$name.in" --quiet --no-config --generate-hashes --no-header \
    --python-version 3.12 --python-platform x86_64-manylinux_2_28 "$@" --output-file "$work/$name.txt"
  { printf '# Compiled from requirements/%s.in by requirements/compile.sh; do not edit.\n' "$name"
    cat "$work/$name.txt"; } > "$work/$name.out"
}

upgrade=${1:-}
compile_one uv uv.txt
compile_one cpu cpu.txt --override overrides.txt
for name in uv cpu; do mv "$work/$name.out" "$name.txt"; done
dev_seed=dev.txt   # its own pins stay, unless all are to move; cpu.txt binds in both cases
if [[ $upgrade == --upgrade ]]; then dev_seed=cpu.txt; fi
upgrade=""   # from here on the seed is the cpu.txt just made
compile_one gpu cpu.txt --override overrides.txt
compile_one dev "$dev_seed" --constraint cpu.txt --override dev_overrides.txt
for name in gpu dev; do mv "$work/$name.out" "$name.txt"; done
