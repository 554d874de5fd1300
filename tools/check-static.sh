#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Fails unless each program is static: it names no interpreter and needs no library. What runs in a
# guest finds no libc of ours there.
#
# usage: tools/check-static.sh PROGRAM...
set -euo pipefail

bad=0
for program in "$@"; do
    if [ ! -x "$program" ]; then
        echo "check-static: $program was not built" >&2
        bad=1
    elif grep -qE 'INTERP|NEEDED' < <(readelf -ldW "$program"); then
        echo "check-static: $program is not static" >&2
        bad=1
    fi
done
exit $bad
