#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Makes the kernel and the initramfs that guests boot with.
#
# usage: images/kernel.sh <out> <init> <agent>
#
#   <out>    the installation's folder; the result is <out>/kernels/<version>/{vmlinux,initrd}, and
#            <out>/kernels/current is a link to the folder that new sandboxes use
#   <init>   torpor-init, a static program: /init of the initramfs
#   <agent>  torpor-envd, a static program: the initramfs carries it (src/guestinit/root.c says why)
#
# The kernel is Debian's, of the package linux-image-cloud-amd64, unpacked and not installed. The
# package holds a bzImage; guests are booted by its PVH entry point, from the ELF file inside, which
# is a third faster than letting the guest decompress it (and what Firecracker wants).
#
# Does nothing when neither the package nor the two programs have changed. Each file is made
# aside and renamed, and the link is set last, so a reader always finds a whole kernel. A new version gets a folder of its own; older
# ones stay for those who use them.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=images/lib.sh
. "$here/lib.sh"

meta_package=linux-image-cloud-amd64

# What a guest's devices need (the rest is in the kernel). Dependencies are found, not listed.
# virtio_mmio: the bus of QEMU's microvm and of Firecracker; then disk, network, entropy; tcp_diag
# lets envd end the connections of a former life (src/envd/tcp.c).
wanted_modules="virtio_mmio virtio_blk virtio_net virtio-rng tcp_diag"

[ $# -eq 3 ] || die "usage: kernel.sh <out> <init> <agent>"
out=$1 init=$2 agent=$3
[ -f "$init" ] || die "$init: no such file"
[ -f "$agent" ] || die "$agent: no such file"
need_programs apt-get apt-cache dpkg-deb cpio objcopy strip readelf od lz4 xz zstd

# --- The kernel out of a bzImage ------------------------------------------------------------------

# u32 FILE OFFSET: the little-endian number there.
u32() {
    od -A n -t u4 --endian=little -j "$2" -N 4 "$1" | tr -d ' '
}

# cut_bytes FILE OFFSET LENGTH: these bytes on standard output.
cut_bytes() {
    dd if="$1" iflag=skip_bytes,count_bytes skip="$2" count="$3" bs=1M status=none
}

# extract_vmlinux BZIMAGE RESULT
# Offsets are of the Linux/x86 boot protocol, version 2.08 and later: at 0x1f1 the number of 512-byte
# setup sectors (one more precedes them), at 0x202 "HdrS", at 0x248 offset and length of the
# compressed payload behind them. The payload ends with the plain size in 4 bytes; gzip has that
# number in its own format, all others have it appended.
extract_vmlinux() {
    local image=$1 result=$2 setup start length magic plain
    [ "$(cut_bytes "$image" $((0x202)) 4)" = HdrS ] || die "$image is not a bzImage"
    setup=$(od -A n -t u1 -j $((0x1f1)) -N 1 "$image" | tr -d ' ')
    start=$(((setup + 1) * 512 + $(u32 "$image" $((0x248)))))
    length=$(u32 "$image" $((0x24c)))
    plain=$(u32 "$image" $((start + length - 4)))
    magic=$(od -A n -t x1 -j "$start" -N 4 "$image" | tr -d ' ')
    case $magic in
    1f8b*) cut_bytes "$image" "$start" "$length" | gzip -dc ;;
    02214c18) cut_bytes "$image" "$start" $((length - 4)) | lz4 -dc ;;
    28b52ffd) cut_bytes "$image" "$start" $((length - 4)) | zstd -dc ;;
    fd377a58) cut_bytes "$image" "$start" $((length - 4)) | xz -dc ;;
    *) die "$image is compressed in a way this script does not know (magic $magic)" ;;
    esac >"$result"
    [ "$(stat -c %s "$result")" -eq "$plain" ] || die "$image: the kernel in it has the wrong size"
    [ "$(cut_bytes "$result" 1 3)" = ELF ] || die "$image: what is in it is not an ELF file"
    # Note 18 of owner "Xen" is the PVH entry point; without it no VMM of ours boots this file.
    grep -q '(0x00000012)' < <(readelf -n "$result" 2>/dev/null) || die "$image: no PVH entry point"
}

# --- Its modules ----------------------------------------------------------------------------------

# module_file TREE NAME: the path of the module below TREE, empty when it is not there.
# Names count "-" and "_" as one; files use either.
module_file() {
    find "$1/lib/modules" -name "${2//[-_]/[-_]}.ko"
}

# module_depends FILE: the names it needs, one a line, from the module's own section.
module_depends() {
    local info=$work/modinfo
    objcopy -O binary --only-section=.modinfo "$1" "$info"
    tr '\0' '\n' <"$info" | sed -n 's/^depends=//p' | tr ',' '\n' | sed '/^$/d'
}

# collect_module TREE NAME FOLDER: puts the module and, before it, what it needs into FOLDER and
# into FOLDER/order. Debug information is cut off; nothing in a guest can read it.
collect_module() {
    local tree=$1 name=$2 folder=$3 file needed
    file=$(module_file "$tree" "$name")
    [ -n "$file" ] || die "the kernel package has no module $name"
    [ ! -e "$folder/$(basename "$file")" ] || return 0
    for needed in $(module_depends "$file"); do
        collect_module "$tree" "$needed" "$folder"
    done
    strip --strip-debug -o "$folder/$(basename "$file")" "$file"
    basename "$file" >>"$folder/order"
}

# --- The two results ------------------------------------------------------------------------------

# make_kernel PACKAGE VERSION FOLDER: FOLDER/vmlinux and FOLDER/modules.
make_kernel() {
    local package=$1 version=$2 folder=$3 name
    say "downloading $package $version"
    mkdir "$work/modules"
    package_unpack "$package" "$version" "$work/tree"
    say "extracting vmlinux"
    extract_vmlinux "$(find "$work/tree/boot" -name 'vmlinuz-*')" "$work/vmlinux"
    for name in $wanted_modules; do
        collect_module "$work/tree" "$name" "$work/modules"
    done
    mkdir -p "$folder"
    rm -rf "$folder/modules"
    mv -T "$work/modules" "$folder/modules"
    mv -f "$work/vmlinux" "$folder/vmlinux"
}

# make_initrd FOLDER: packs FOLDER/modules, init and agent into FOLDER/initrd. Uncompressed: it is
# half a megabyte, and the guest would have to unpack it. Owners, order and times are fixed, so that
# equal inputs give equal bytes.
make_initrd() {
    local folder=$1
    mkdir -p "$work/root/dev"
    cp -R "$folder/modules" "$work/root/modules"
    strip -o "$work/root/init" "$init"
    strip -o "$work/root/torpor-envd" "$agent"
    chmod 0755 "$work/root/init" "$work/root/torpor-envd"
    find "$work/root" -exec touch -h -d @0 {} +
    (cd "$work/root" && find . -mindepth 1 | LC_ALL=C sort |
        cpio --quiet --reproducible -o -H newc -R 0:0) >"$work/initrd"
    mv -f "$work/initrd" "$folder/initrd"
}

# up_to_date FILE INPUTS: true when FILE was made from these.
up_to_date() {
    [ -e "$1" ] && [ "$(cat "$1.inputs" 2>/dev/null)" = "$2" ]
}

need_package "$meta_package"
package=$(apt-cache depends "$meta_package" | sed -n 's/^  Depends: \(linux-image-.*\)/\1/p')
need_package "$package"

# The release, "6.1.0-56-cloud-amd64", stays the same over some updates; the version does not.
[[ $package =~ ^linux-image-[0-9.]+-[0-9]+-(.+)$ ]] || die "$package is not named as expected"
folder=$out/kernels/$version-${BASH_REMATCH[1]}

work_folder "$out/kernels"
inputs=$(cat "$here/kernel.sh" "$here/lib.sh" <(echo "$package $version") | digest)
if ! up_to_date "$folder/vmlinux" "$inputs"; then
    make_kernel "$package" "$version" "$folder"
    stamp "$folder/vmlinux.inputs" "$inputs"
fi
inputs=$(cat "$folder/vmlinux.inputs" "$init" "$agent" | digest)
if ! up_to_date "$folder/initrd" "$inputs"; then
    say "packing the initramfs"
    make_initrd "$folder"
    stamp "$folder/initrd.inputs" "$inputs"
fi
link_replace "$(basename "$folder")" "$out/kernels/current"
say "ready: $folder"
