#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Installs the Debian packages that are missing, and nothing else.
#
# usage: tools/setup.sh LIST...      lists: build, run, image, test
#
# Asks apt only for what is not there. Without anything to install it needs no root and no network,
# and takes some milliseconds. Where something is missing and we are not root, it says which command
# to run as root, and fails.
set -euo pipefail

# Compiling the programs, and making kernel and images.
packages_build="build-essential binutils meson ninja-build pkg-config musl-tools linux-libc-dev
    libssl-dev libsqlite3-dev libsodium-dev libmnl-dev libcap-ng-dev libseccomp-dev
    apt cpio e2fsprogs gzip lz4 xz-utils zstd"
# Running sandboxes on this machine.
packages_run="qemu-system-x86 qemu-system-data nftables iproute2 procps curl jq"
# Making the image "base"; minimal needs nothing beyond what building does.
packages_image="mmdebstrap debian-archive-keyring e2fsprogs tar"
# Testing and checking: the second compiler, format, scripts, and clients that prove the protocols
# (npm fetches those that Debian does not have).
packages_test="libcmocka-dev protobuf-compiler qemu-utils clang clang-format shellcheck jq curl
    git chromium npm busybox-static cpio dmsetup kmod libjansson4"

if [ "$(dpkg --print-architecture 2>/dev/null)" != amd64 ]; then
    echo "setup: this needs Debian 12 (or a relative of it) on amd64" >&2
    exit 1
fi

wanted=()
for list in "$@"; do
    case $list in
    build) read -r -d '' -a names <<<"$packages_build" || true ;;
    image) read -r -d '' -a names <<<"$packages_image" || true ;;
    run) read -r -d '' -a names <<<"$packages_run" || true ;;
    test) read -r -d '' -a names <<<"$packages_test" || true ;;
    *)
        echo "usage: setup.sh build|run|image|test..." >&2
        exit 2
        ;;
    esac
    wanted+=("${names[@]}")
done

# A package may be on several lists.
mapfile -t wanted < <(printf '%s\n' "${wanted[@]}" | sort -u)
# Prints a package and "installed" for each that is.
installed=$(dpkg-query -W -f '${Package} ${db:Status-Status}\n' "${wanted[@]}" 2>/dev/null || true)
missing=()
for name in "${wanted[@]}"; do
    # An npm that came another way will do, and Debian's could not be installed beside it.
    [ "$name" != npm ] || ! command -v npm >/dev/null || continue
    grep -qx "$name installed" <<<"$installed" || missing+=("$name")
done
[ ${#missing[@]} -gt 0 ] || exit 0

if [ "$(id -u)" -ne 0 ]; then
    {
        echo "setup: packages are missing, and installing them needs root. Run as root:"
        echo "  apt-get update && apt-get install -y --no-install-recommends ${missing[*]}"
    } >&2
    exit 1
fi

echo "setup: installing ${missing[*]}"
export DEBIAN_FRONTEND=noninteractive
install_missing() {
    apt-get install -y -qq --no-install-recommends "${missing[@]}" </dev/null
}
# What apt knows may be missing or too old: then ask once for news, and once more for the packages.
if ! log=$(install_missing 2>&1); then
    echo "setup: apt-get update"
    apt-get update -qq
    log=$(install_missing 2>&1) || {
        printf '%s\nsetup: apt-get could not install the packages above\n' "$log" >&2
        exit 1
    }
fi
