#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Lists the project's own files of a kind below a folder, NUL-separated and sorted.
#
# usage: tools/source-files.sh ROOT c|sh|all
#
# What was built, downloaded or is a sandbox's data is never listed.
set -euo pipefail
root=${1:?usage: source-files.sh ROOT c|sh|all}

c=(-name '*.c' -o -name '*.h')
sh=(-name '*.sh' -o -path '*/.ci/run')
case ${2:-} in
c) kind=("${c[@]}") ;;
sh) kind=("${sh[@]}") ;;
all) kind=("${c[@]}" -o "${sh[@]}" -o -name '*.proto' -o -name '*.sql' -o -name Makefile) ;;
*)
    echo "usage: source-files.sh ROOT c|sh|all" >&2
    exit 2
    ;;
esac
cd "$root"
find . \( -path ./build -o -path ./var -o -path ./.git -o -name node_modules \) -prune -o \
    -type f \( "${kind[@]}" \) -printf '%P\0' | LC_ALL=C sort -z
