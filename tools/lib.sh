# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0
#
# What up.sh and down.sh share. Sourced, never run. What an installation is, and how its programs are
# started and stopped, is src/cli/'s (src/cli/home.h).

checkout=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
script=$(basename "$0" .sh)
# The installation's folder. Whether it can be used is found out by torpor up.
home=$(realpath -m "${TORPOR_DIR:-$checkout/var}")
export TORPOR_DIR=$home
data=$home

say() {
    printf '%s: %s\n' "$script" "$*"
}

die() {
    printf '%s: %s\n' "$script" "$*" >&2
    exit 1
}

# What nobody foresaw is not silent either.
set -E
trap 'echo "$script: failed: ${BASH_SOURCE[0]##*/} line $LINENO: $BASH_COMMAND" >&2' ERR

# find_data: sets `data` to where an earlier up.sh put it.
# shellcheck disable=SC2034 # it is for those who source this
find_data() {
    if [ -e "$home/location" ]; then
        data=$(cat "$home/location")
    fi
}

need_root() {
    [ "$(id -u)" -eq 0 ] || die "make $script needs root ($1). Run as root: make -C $checkout $script"
}
