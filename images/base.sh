#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Makes the image "base": a small Debian 12 to work in, with shell, python3, git, curl, and a user
# who may become root. It takes about a minute and 300 MB from Debian's archive.
#
# usage: images/base.sh [--force] <out>
#
#   The result is <out>/images/<digest>/{rootfs.img,manifest.json}, and <out>/images/base is a link to
#   that folder. TORPOR_DISK_GB sets the size of the disk (default 8; the file is sparse).
#
# Does nothing when an image is there that was made from this script, this list of packages and this
# size: time alone makes no new image. --force makes one of Debian as it is today. It may run beside
# agents that use <out>: they find the old image or the new one.
#
# While this runs it holds the lock <out>/images/base.building (flock). Until there is a first image
# the agent says `template_building` as long as the lock is held, and `not_found` otherwise, so that a
# builder that was killed keeps nobody waiting.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=images/lib.sh
. "$here/lib.sh"

name=base
suite=bookworm
# Beside what Debian calls essential, and apt. libcap2-bin lets ping have a file capability instead
# of a setuid bit.
packages=(bash coreutils procps iproute2 iputils-ping libcap2-bin less ca-certificates python3
    python-is-python3 git curl sudo)
sources="deb http://deb.debian.org/debian $suite main
deb http://deb.debian.org/debian $suite-updates main
deb http://deb.debian.org/debian-security $suite-security main"
# Documentation and translations stay out, now and for what is installed in a guest later.
excluded=("/usr/share/man/*" "/usr/share/doc/*" "/usr/share/info/*" "/usr/share/locale/*")

force=0
if [ "${1:-}" = --force ]; then
    force=1
    shift
fi
[ $# -eq 1 ] || die "usage: base.sh [--force] <out>"
out=$1
image_check

# --- What is in it --------------------------------------------------------------------------------

# make_debian: Debian and the packages, into the tree. Its children do not get the lock: one that
# outlives this script must not look like a builder.
make_debian() {
    local options=() path log=$work/log
    for path in "${excluded[@]}"; do
        options+=("--dpkgopt=path-exclude=$path")
    done
    mmdebstrap --mode=root --variant=apt --architectures=amd64 --format=directory --quiet \
        --aptopt='APT::Install-Recommends "false"' "${options[@]}" \
        --dpkgopt='path-include=/usr/share/doc/*/copyright' \
        --include="$(IFS=, && echo "${packages[*]}")" "$suite" "$tree" - \
        <<<"$sources" >"$log" 2>&1 9>&- || {
        tail -n 20 "$log" >&2
        die "mmdebstrap failed (is there a network?)"
    }
}

# "*": no password opens the account; sudo and envd ask for none.
make_user() {
    echo 'user:x:1000:1000:user:/home/user:/bin/bash' >>"$tree/etc/passwd"
    echo 'user:x:1000:' >>"$tree/etc/group"
    echo 'user:*:19000:0:99999:7:::' >>"$tree/etc/shadow"
    echo 'user:!::' >>"$tree/etc/gshadow"
    cp -R "$tree/etc/skel" "$tree/home/user"
    chmod 0755 "$tree/home/user"
    chown -R 1000:1000 "$tree/home/user"
    put etc/sudoers.d/user 0440 <<<'user ALL=(ALL:ALL) NOPASSWD: ALL'
}

# What the making left behind: names of this machine, device files (a guest mounts devtmpfs),
# backups, logs.
clean_tree() {
    put etc/apt/sources.list <<<"$sources"
    find "$tree/dev" -mindepth 1 -delete
    find "$tree/var/log" -type f -delete
    find "$tree/run" -mindepth 1 -delete
    rm -f "$tree"/etc/{passwd,group,shadow,gshadow}- "$tree"/var/lib/dpkg/*-old \
        "$tree"/var/cache/debconf/*-old "$tree/var/lib/dbus/machine-id"
    ln -sf /proc/self/mounts "$tree/etc/mtab"
}

# --- The image ------------------------------------------------------------------------------------

work_folder "$out/images" "$name.building"
tree=$work/tree

inputs=$(image_inputs "")
if [ "$force" -eq 0 ] && image_current "$out" "$inputs"; then
    say "ready: $(readlink -f "$out/images/$name")"
    exit 0
fi

need_programs mmdebstrap
say "getting Debian $suite and ${#packages[@]} packages (about a minute)"
make_debian
make_user
put_network
clean_tree
image_publish "$out" "$inputs" user
