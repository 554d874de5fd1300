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

[ $# -eq 1 ] || die "usage: minimal.sh <out>"
out=$1
image_check
need_programs apt-get apt-cache dpkg-deb

# --- What is in it --------------------------------------------------------------------------------

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
    put etc/shadow 0600 <<'EOF'
root:*:19000:0:99999:7:::
nobody:*:19000:0:99999:7:::
user:*:19000:0:99999:7:::
EOF
    mkdir -m 0755 "$tree/home/user"
}

make_system_files() {
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

need_package busybox-static
work_folder "$out/images"
tree=$work/tree

# Lets a run without changes end here, without a download.
inputs=$(image_inputs "$version")
if image_current "$out" "$inputs"; then
    say "ready: $(readlink -f "$out/images/$name")"
    exit 0
fi

package_unpack busybox-static "$version" "$work/package"
make_folders
make_users
put_network
make_system_files
add_busybox "$work/package/bin/busybox"
chown -hR 0:0 "$tree"
chown -R 1000:1000 "$tree/home/user"

find "$tree" -exec touch -h -d @0 {} +
say "busybox $version"
image_publish "$out" "$inputs" root
