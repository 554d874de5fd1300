#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Makes the image "minimal": a root file system with busybox and nothing else. It is made in a second
# and needs one package of 1 MB; tests and first steps use it.
#
# usage: images/minimal.sh <out>
#
#   The result is <out>/images/<digest>/{rootfs.img,manifest.json}, and <out>/images/minimal is a
#   link to that folder. TORPOR_DISK_GB sets the size of the disk (default 8; the file is sparse).
#
# The digest is that of everything the image is made of: the tree of files with owners and modes, the
# size, the version of mke2fs. The image follows from these bit by bit (fixed times, identifiers and
# hash seed), so equal digests are equal images. Does nothing when an image of this digest is there;
# otherwise it is made aside and renamed. Images of older digests stay: sandboxes run on them.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=images/lib.sh
. "$here/lib.sh"

name=minimal
guest_abi=1
disk_gb=${TORPOR_DISK_GB:-8}

[ $# -eq 1 ] || die "usage: minimal.sh <out>"
[[ $disk_gb =~ ^[1-9][0-9]{0,3}$ ]] || die "TORPOR_DISK_GB=$disk_gb: a whole number of GiB, 1 to 9999"
[ "$(id -u)" -eq 0 ] || die "needs root: the files in an image belong to root and to its user"
out=$1
need_programs apt-get apt-cache dpkg-deb mke2fs dumpe2fs debugfs tar

# --- What is in it --------------------------------------------------------------------------------

# put PATH: what comes in becomes that file of the tree.
put() {
    cat >"$tree/$1"
    chmod 0644 "$tree/$1"
}

make_folders() {
    mkdir -p "$tree"/{dev,etc,home,mnt,opt,proc,root,run,srv,sys,tmp}
    mkdir -p "$tree"/usr/{bin,lib,local/bin,share} "$tree"/var/{log,lib,spool,tmp}
    # One folder of programs, under all the names that scripts use for it.
    ln -s usr/bin "$tree/bin"
    ln -s usr/bin "$tree/sbin"
    ln -s bin "$tree/usr/sbin"
    ln -s usr/lib "$tree/lib"
    ln -s ../run "$tree/var/run"
    chmod 1777 "$tree/tmp" "$tree/var/tmp"
    chmod 0700 "$tree/root"
}

make_users() {
    put etc/passwd <<'EOF'
root:x:0:0:root:/root:/bin/sh
nobody:x:65534:65534:nobody:/nonexistent:/bin/false
user:x:1000:1000:user:/home/user:/bin/sh
EOF
    put etc/group <<'EOF'
root:x:0:
tty:x:5:
nogroup:x:65534:
user:x:1000:
EOF
    # "*": no password opens these accounts, but root may become each of them.
    put etc/shadow <<'EOF'
root:*:19000:0:99999:7:::
nobody:*:19000:0:99999:7:::
user:*:19000:0:99999:7:::
EOF
    chmod 0600 "$tree/etc/shadow"
    mkdir -m 0755 "$tree/home/user"
}

# The address is the host's side of the link, guest ABI 1. Name and hosts are the guest agent's to
# set; these are what a guest has until then.
make_network() {
    put etc/resolv.conf <<<"nameserver 169.254.0.22"
    put etc/hostname <<<"sandbox"
    put etc/hosts <<'EOF'
127.0.0.1 localhost
127.0.1.1 sandbox
EOF
}

make_system_files() {
    put etc/machine-id </dev/null
    put etc/profile <<<'export PATH=/usr/local/bin:/usr/bin:/bin'
    put etc/shells <<<"/bin/sh"
    put etc/os-release <<'EOF'
ID=torpor-minimal
NAME="Torpor minimal"
PRETTY_NAME="Torpor minimal (busybox)"
EOF
    ln -s /proc/self/mounts "$tree/etc/mtab"
}

# add_busybox FILE: the program and a link for each of its commands.
add_busybox() {
    local applet
    install -m 0755 "$1" "$tree/usr/bin/busybox"
    for applet in $("$1" --list); do
        [ "$applet" = busybox ] || ln -s busybox "$tree/usr/bin/$applet"
    done
}

# --- The image ------------------------------------------------------------------------------------

# tree_digest: of all that make_image puts in.
tree_digest() {
    {
        echo "$name $disk_gb $guest_abi"
        mke2fs -V 2>&1 | sed -n 1p
        cat "$here/minimal.sh"
        tar --sort=name --mtime=@0 --numeric-owner --format=posix \
            --pax-option=delete=atime,delete=ctime -cf - -C "$tree" .
    } | digest
}

# The kernel sets the change time of the tree's files and mke2fs copies it: write a fixed one into
# every inode in use, so that equal trees give equal images. Inodes are numbered from 1 without gaps.
fix_change_times() {
    local file=$1 total free
    total=$(dumpe2fs -h "$file" 2>/dev/null | sed -n 's/^Inode count: *//p')
    free=$(dumpe2fs -h "$file" 2>/dev/null | sed -n 's/^Free inodes: *//p')
    seq -f 'set_inode_field <%.0f> ctime @1' $((total - free)) |
        E2FSPROGS_FAKE_TIME=1 debugfs -w -f - "$file" >/dev/null 2>&1
}

# make_image DIGEST FILE
# The file stays sparse: a new file reads as zeros, so neither inode tables nor journal are written
# (assume_storage_prezeroed), not now and not by the guest's kernel later, into its own layer.
make_image() {
    local id=$1 file=$2 uuid
    uuid=${id:0:8}-${id:8:4}-${id:12:4}-${id:16:4}-${id:20:12}
    find "$tree" -exec touch -h -d @0 {} +
    truncate -s "${disk_gb}G" "$file"
    E2FSPROGS_FAKE_TIME=1 mke2fs -q -F -t ext4 -L "$name" -U "$uuid" \
        -E "hash_seed=$uuid,root_owner=0:0,assume_storage_prezeroed=1" -d "$tree" "$file"
    fix_change_times "$file"
}

need_package busybox-static
work_folder "$out/images"
tree=$work/tree

# What the tree follows from; lets a run without changes end here, without a download.
inputs=$(cat "$here/minimal.sh" "$here/lib.sh" <(echo "$version $disk_gb"; mke2fs -V 2>&1) | digest)
stamp=$out/images/.$name.inputs
if [ -e "$out/images/$name/rootfs.img" ] && [ "$(cat "$stamp" 2>/dev/null)" = "$inputs" ]; then
    say "ready: $(readlink -f "$out/images/$name")"
    exit 0
fi

package_unpack busybox-static "$version" "$work/package"
make_folders
make_users
make_network
make_system_files
add_busybox "$work/package/bin/busybox"
chown -hR 0:0 "$tree"
chown -R 1000:1000 "$tree/home/user"

id=$(tree_digest)
if [ ! -e "$out/images/$id" ]; then
    say "making a disk of $disk_gb GiB with busybox $version"
    mkdir "$work/image"
    make_image "$id" "$work/image/rootfs.img"
    printf '{"name":"%s","digest":"%s","size_bytes":%s,"default_user":"root","guest_abi":%s}\n' \
        "$name" "$id" "$(stat -c %s "$work/image/rootfs.img")" "$guest_abi" >"$work/image/manifest.json"
    chmod 0444 "$work/image/rootfs.img"
    sync "$work/image/rootfs.img" "$work/image/manifest.json"
    mv -T "$work/image" "$out/images/$id"
fi
link_replace "$id" "$out/images/$name"
echo "$inputs" >"$stamp"
say "ready: $out/images/$id"
