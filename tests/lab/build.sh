#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Makes the disk and the initramfs of the lab: a machine in which QEMU runs guests on KVM and the
# kernel has device-mapper, whatever the machine around it has. run.sh boots it.
#
# usage: tests/lab/build.sh <out> <build> <data>
#
#   <out>    gets modules/ (of the kernel), lab.img, initrd, and tests, their names
#   <build>  a meson build folder in which lab-programs has been built
#   <data>   guest kernel and image "minimal", as images/ makes them; the lab runs this kernel too
#
# What it runs beside ours comes from this machine's Debian packages, with the shared objects that
# ldd names. The tests keep their paths: agent and shim are where the build folder has them.
#
# Does nothing when none of the inputs has changed.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
checkout=$(cd "$here/../.." && pwd)
# shellcheck source=images/lib.sh
. "$checkout/images/lib.sh"

[ $# -eq 3 ] || die "usage: build.sh <out> <build> <data>"
mkdir -p "$1"
out=$(realpath "$1") build=$(realpath "$2") data=$(realpath "$3")
[ "$(id -u)" -eq 0 ] || die "needs root: the files of the lab belong to root"
need_programs apt-cache dpkg-deb depmod mke2fs cpio ldd busybox

# Sparse. Agents want 2 GiB of the disk left for pauses.
disk_size=8G
# The build says what is to be run, and with which programs.
mapfile -t tests < <(sed -n 's/^test //p' "$build/tests/lab/programs")
mapfile -t ours < <(sed -n 's/^program //p' "$build/tests/lab/programs")
theirs=(/usr/bin/qemu-system-x86_64 /usr/bin/setpriv /usr/sbin/nft /usr/sbin/ip /usr/sbin/dmsetup)
# Found by name, so ldd does not say them.
modules=(/usr/lib/x86_64-linux-gnu/qemu/accel-tcg-x86_64.so)
firmware=(/usr/share/qemu/{qboot.rom,pvh.bin,linuxboot_dma.bin,kvmvapic.bin})
# Of the kernel's tree; all else a machine like this never loads.
module_folders=(arch crypto lib net virt drivers/block drivers/md drivers/virtio)
# What the initramfs needs to find the disk, in this order.
disk_modules=(virtio_ring virtio virtio_mmio virtio_blk)

# The command line, in builds that have one.
[ ! -e "$build/src/cli/torpor" ] || ours+=("$build/src/cli/torpor")

# --- The kernel's modules -------------------------------------------------------------------------

# get_modules: out/modules/lib/modules/<release>, of the package that the guest kernel is from. The
# folder is named by the package's version and kept as long as that is the current one.
get_modules() {
    local package folder from
    [ "$(cat "$out/modules/version" 2>/dev/null)" != "$kernel" ] || return 0
    need_package linux-image-cloud-amd64
    package=$(apt-cache depends linux-image-cloud-amd64 | sed -n 's/^  Depends: \(linux-image-.*\)/\1/p')
    need_package "$package"
    [[ $kernel == "$version"-* ]] ||
        die "the kernel in $data is $kernel, apt has $version: run make test-data first"
    say "getting the modules of $package $version"
    package_unpack "$package" "$version" "$work/package"
    from=$(echo "$work"/package/lib/modules/*)
    folder=$work/modules/lib/modules/$(basename "$from")
    mkdir -p "$folder/kernel/drivers/net"
    (cd "$from/kernel" && cp -R --parents "${module_folders[@]}" "$folder/kernel/" &&
        cp drivers/net/*.ko "$folder/kernel/drivers/net/")
    cp "$from"/modules.{builtin,builtin.modinfo,order} "$folder/"
    # It warns of what was left out; what is used is proven by the tests.
    depmod -b "$work/modules" "$(basename "$from")" 2>/dev/null
    echo "$kernel" >"$work/modules/version"
    rm -rf "$out/modules"
    mv -T "$work/modules" "$out/modules"
}

# --- The disk -------------------------------------------------------------------------------------

# add FILE...: to the same place in the tree, with its content where it is a link.
add() {
    local file
    for file in "$@"; do
        [ ! -e "$tree$file" ] || continue
        mkdir -p "$tree$(dirname "$file")"
        cp -L "$file" "$tree$file"
    done
}

# add_program FILE...: with the shared objects it is linked to.
add_program() {
    local file
    for file in "$@"; do
        add "$file"
        # Static programs have none.
        # shellcheck disable=SC2046 # a list of paths
        add $(ldd "$file" 2>/dev/null | grep -oE '/[^ )]+' || true)
    done
}

make_folders() {
    local applet
    mkdir -p "$tree"/{dev,etc,lab,proc,root,run,sys,tmp} "$tree"/usr/{bin,sbin,lib,lib64,share} "$tree/var"
    for applet in bin sbin lib lib64; do
        ln -s "usr/$applet" "$tree/$applet"
    done
    ln -s ../run "$tree/var/run"
    chmod 1777 "$tree/tmp"
    echo 'root:x:0:0:root:/root:/bin/sh' >"$tree/etc/passwd"
    echo 'root:x:0:' >"$tree/etc/group"
    echo 'nameserver 198.51.100.53' >"$tree/etc/resolv.conf"
    echo '127.0.0.1 localhost' >"$tree/etc/hosts"
}

# Real programs first: busybox' applets of the same names do not replace them.
add_busybox() {
    local applet busybox
    busybox=$(command -v busybox)
    cp "$busybox" "$tree/usr/bin/busybox"
    for applet in $("$busybox" --list); do
        [ -e "$tree/usr/bin/$applet" ] || [ -e "$tree/usr/sbin/$applet" ] || ln -s busybox "$tree/usr/bin/$applet"
    done
    # The kernel calls it by this path when it wants a module.
    ln -s ../bin/busybox "$tree/usr/sbin/modprobe"
}

# lab_name FILE: what run.sh calls this test.
lab_name() {
    local base=${1##*/}
    echo "${base#test_}"
}

# add_data: kernel and image, under the names that they have in an installation.
add_data() {
    local image
    image=$(basename "$(readlink -f "$data/images/minimal")")
    mkdir -p "$tree/data/kernels/$kernel" "$tree/data/images/$image"
    cp "$data"/kernels/current/{vmlinux,initrd} "$tree/data/kernels/$kernel/"
    cp --sparse=always "$data"/images/minimal/{rootfs.img,manifest.json} "$tree/data/images/$image/"
    ln -s "$kernel" "$tree/data/kernels/current"
    ln -s "$image" "$tree/data/images/minimal"
}

make_disk() {
    local file
    make_folders
    add_program "${theirs[@]}" "${modules[@]}" "${ours[@]}" "${tests[@]}"
    add "${firmware[@]}"
    add_busybox
    cp -R "$out/modules/lib/modules" "$tree/lib/"
    for file in "${tests[@]}"; do
        ln -s "$file" "$tree/lab/$(lab_name "$file")"
    done
    [ ! -e "$build/src/cli/torpor" ] || ln -s "$build/src/cli/torpor" "$tree/lab/torpor"
    install -m 0755 "$here/test_machine.sh" "$tree/lab/machine"
    install -m 0755 "$here/init.sh" "$tree/usr/sbin/lab-init"
    add_data
    truncate -s "$disk_size" "$work/lab.img"
    mke2fs -q -F -t ext4 -L lab -O ^has_journal -E root_owner=0:0,assume_storage_prezeroed=1 \
        -d "$tree" "$work/lab.img"
}

# --- The initramfs --------------------------------------------------------------------------------

make_initrd() {
    local module folder=$work/initramfs
    mkdir -p "$folder"/{bin,dev,modules,newroot}
    cp "$(command -v busybox)" "$folder/bin/busybox"
    for module in "${disk_modules[@]}"; do
        cp "$(find "$out/modules" -name "$module.ko")" "$folder/modules/"
        echo "$module.ko" >>"$folder/modules/order"
    done
    cat >"$folder/init" <<'END'
#!/bin/busybox sh
/bin/busybox mount -t devtmpfs dev /dev
while read -r module; do /bin/busybox insmod "/modules/$module"; done </modules/order
/bin/busybox mount -t ext4 /dev/vda /newroot && /bin/busybox mount -o move /dev /newroot/dev &&
    exec /bin/busybox switch_root /newroot /usr/sbin/lab-init
echo "lab: cannot mount the disk"
/bin/busybox poweroff -f
END
    chmod 0755 "$folder/init"
    (cd "$folder" && find . -mindepth 1 | LC_ALL=C sort | cpio --quiet -o -H newc -R 0:0) >"$work/initrd"
}

# --- All of it ------------------------------------------------------------------------------------

# input_files: everything that the disk is made of but Debian's shared objects, which change with
# the programs' packages.
input_files() {
    printf '%s\n' "$here"/{build,init,test_machine}.sh "$build/tests/lab/programs" "${ours[@]}" "${tests[@]}" \
        "${theirs[@]}" "${modules[@]}" "$data"/kernels/current/{vmlinux,initrd} "$data/images/minimal/rootfs.img" \
        "$(command -v busybox)"
}

work_folder "$out"
tree=$work/tree
kernel=$(basename "$(readlink -f "$data/kernels/current")")
# By size and time: reading all of it would take longer than making the disk.
inputs=$(input_files | xargs stat -L -c '%n %s %Y %Z' | cat - <(echo "$kernel") | digest)
if [ "$(cat "$out/inputs" 2>/dev/null)" = "$inputs" ] && [ -e "$out/lab.img" ] && [ -e "$out/initrd" ]; then
    say "ready: $out/lab.img"
    exit 0
fi
get_modules
make_disk
make_initrd
mv -f "$work/lab.img" "$work/initrd" "$out/"
{
    echo machine
    for file in "${tests[@]}"; do
        lab_name "$file"
    done
} >"$out/tests"
echo "$inputs" >"$out/inputs"
say "ready: $out/lab.img ($(du -h "$out/lab.img" | cut -f1))"
