#!/usr/bin/env bash
# A C++ compiler for checks only: g++ without optimisation, and with torch's headers compiled once instead of once per
# file. Transformer Engine's torch half compiles in minutes with it instead of the better part of an hour on two cores.
# What comes out is the same interface and slow code: it shows that everything compiles, links and loads. Use as CXX.
#
#   QUICK_CXX_FOLDER   an empty folder for the compiled header
set -euo pipefail
: "${QUICK_CXX_FOLDER:?names no folder}"

arguments=()
flags=() # what must be the same for the header and for the files that use it
source=""
compiles=""
skip=""
for argument in "$@"; do
  case $argument in
    -O1 | -O2 | -O3) argument=-O0 ;;
    -g) continue ;;
  esac
  arguments+=("$argument")
  if [[ -n $skip ]]; then
    skip=""
    continue
  fi
  case $argument in
    -c) compiles=1 ;;
    -o | -MF | -MT | -MQ) skip=1 ;;
    -MMD | -MD | -MP) ;;
    *.cpp | *.cc) source=$argument ;;
    *) flags+=("$argument") ;;
  esac
done

# The sources lie in csrc/ and below, and nearly all of them include csrc/common.h first.
root=${source%/csrc/*}/csrc
if [[ -z $compiles || $source != */csrc/* || ! -f $root/common.h ]]; then
  exec g++ "${arguments[@]}"
fi
header=$QUICK_CXX_FOLDER/all.h
(
  flock 9
  if [[ ! -f $header.gch ]]; then
    echo "#include \"$root/common.h\"" >"$header"
    g++ "${flags[@]}" -x c++-header "$header" -o "$header.new"
    mv "$header.new" "$header.gch"
  fi
) 9>"$QUICK_CXX_FOLDER/lock"
exec g++ "${arguments[@]}" -include "$header" -Winvalid-pch
