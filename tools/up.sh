#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Brings Torpor up on this machine: installs, builds, makes kernel and image, and runs `torpor up`,
# which starts the agent (as root) and the control plane (as an unprivileged user) in the background
# and runs a command in a first sandbox. Run again, it leaves alone what runs and has not changed.
#
# usage: tools/up.sh [OPTION OF torpor up]...        (make up)
#
#   TORPOR_DIR       the installation's folder, default var/ of the checkout
#   TORPOR_PROGRAMS  a folder with the programs; nothing is built then
#   `torpor up --help` says what else there is.
#
# Any number of installations can be up on one machine: each has its folder and its port, and the
# agents agree on numbers for what they make of the host's.
set -euo pipefail
umask 022
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=tools/lib.sh
. "$here/lib.sh"

programs=(torpor torpor-agent torpor-control torpor-shim torpor-memory.so torpor-init torpor-envd)

# One of these at a time for an installation; torpor up and down have a lock of their own.
lock_build() {
    mkdir -p "$home/run"
    exec 9>"$home/run/build.lock"
    flock -n 9 || { say "waiting for another make up" && flock 9; }
}

# stage_programs: builds, or takes TORPOR_PROGRAMS; copies all into `staged`.
stage_programs() {
    local from=("$checkout"/build/release/src/{cli/torpor,agent/torpor-agent,control/torpor-control,shim/torpor-shim,preload/torpor-memory.so}
        "$checkout"/build/guest/src/{guestinit/torpor-init,envd/torpor-envd})
    if [ -n "${TORPOR_PROGRAMS:-}" ]; then
        from=("${programs[@]/#/$TORPOR_PROGRAMS/}")
    else
        say "building"
        env -u MAKEFLAGS -u MAKELEVEL make --no-print-directory -f "$checkout/Makefile" build 9>&-
    fi
    staged=$home/run/programs.new
    rm -rf "$staged"
    mkdir "$staged"
    cp "${from[@]}" "$staged/" || die "the programs are not all there"
    chmod 0755 "$staged"/*
    export TORPOR_PROGRAMS=$staged
}

# make_images: what sandboxes boot, and the scripts for more of it (torpor template build).
make_images() {
    "$checkout/images/kernel.sh" "$data" "$staged/torpor-init" "$staged/torpor-envd" 9>&-
    "$checkout/images/minimal.sh" "$data" 9>&-
    mkdir -p "$data/libexec/images"
    cp "$checkout"/images/*.sh "$data/libexec/images/"
}

need_root "it makes network devices and starts VMs under users of their own"
mkdir -p "$home"
"$here/setup.sh" build run
lock_build
stage_programs
data=$("$staged/torpor" up --prepare 9>&-)
make_images
status=0
"$staged/torpor" up "$@" 9>&- || status=$?
rm -rf "$staged"
exit "$status"
