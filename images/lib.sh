# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0
#
# What the image scripts share: saying what they do, getting Debian packages without installing
# them, putting finished work in place. Sourced, never run.

# Prefix of every line, and of the folders that hold unfinished work.
script=$(basename "$0" .sh)
# To start over, see package_unpack.
script_args=("$@")

say() {
    printf '%s: %s\n' "$script" "$*"
}

die() {
    printf '%s: %s\n' "$script" "$*" >&2
    exit 1
}

# need_programs NAME...: stops with all that are missing, not with the first.
need_programs() {
    local name missing=()
    for name in "$@"; do
        command -v "$name" >/dev/null || missing+=("$name")
    done
    [ ${#missing[@]} -eq 0 ] || die "these programs are missing: ${missing[*]} (tools/setup.sh installs them)"
}

# package_version PACKAGE: the version that apt would install; empty when apt knows none.
package_version() {
    apt-cache policy "$1" 2>/dev/null | sed -n 's/^  Candidate: //p' | grep -v '^(none)$' || true
}

# refresh_apt: lets apt ask for news, where we may.
refresh_apt() {
    [ "$(id -u)" -eq 0 ] || return 1
    say "apt-get update"
    apt-get update -qq
}

# need_package PACKAGE: sets `version` to what apt would install.
need_package() {
    version=$(package_version "$1")
    [ -n "$version" ] || { refresh_apt && version=$(package_version "$1"); }
    [ -n "$version" ] || die "apt knows no $1 (run 'apt-get update' as root)"
}

# package_unpack PACKAGE VERSION FOLDER: downloads exactly this version and unpacks it into FOLDER.
# Nothing is installed and no script of the package runs.
package_unpack() {
    local package=$1 version=$2 folder=$3
    mkdir -p "$folder/.download"
    # Without the option apt warns that its own user cannot write into our folder.
    if ! (cd "$folder/.download" && apt-get download -qq -o APT::Sandbox::User=root "$package=$version"); then
        # What apt knows may be so old that the archive has this version no more: then everything
        # starts over, once, with the version of today.
        if [ -z "${TORPOR_APT_REFRESHED:-}" ] && refresh_apt; then
            exec 9>&-
            TORPOR_APT_REFRESHED=1 exec "$0" "${script_args[@]}"
        fi
        die "cannot download $package $version (is there a network? if so, run 'apt-get update' as root)"
    fi
    dpkg-deb -x "$folder/.download/"*.deb "$folder"
    rm -rf "$folder/.download"
}

# work_folder PARENT: a lock on PARENT until this script ends, then an empty folder in it for
# unfinished work, of the same file system. Sets `work`. What a killed run left there goes first, and
# what this one leaves when it ends.
work_folder() {
    mkdir -p "$1"
    exec 9>"$1/.lock"
    flock 9
    work=$1/.work
    rm -rf "$work"
    mkdir "$work"
    trap 'rm -rf "$work"' EXIT
}

# digest: SHA-256 of what comes in, as bare hex.
digest() {
    sha256sum | cut -d' ' -f1
}

# link_replace TARGET LINK: points LINK at TARGET; whoever looks finds the old or the new one.
link_replace() {
    ln -sfn "$1" "$2.new-$$"
    mv -Tf "$2.new-$$" "$2"
}
