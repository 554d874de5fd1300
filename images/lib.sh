# shellcheck shell=bash disable=SC2154
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

# work_folder PARENT [LOCK]: a lock (descriptor 9 on the file LOCK in PARENT) until this script ends,
# then an empty folder in PARENT for unfinished work, of the same file system. Sets `work`. What a
# killed run left there goes first, and what this one leaves when it ends. Its name is new each time:
# programs that outlive a killed run still write into theirs.
work_folder() {
    local lock=${2:-.lock} prefix=$1/.work${2:+-$2}.
    mkdir -p "$1"
    exec 9>"$1/$lock"
    flock 9
    rm -rf --one-file-system "$prefix"* || say "remains of an older run are left in $1"
    work=$(mktemp -d "${prefix}XXXXXX")
    # For those who give up being root for a part of the work, as apt does.
    chmod 0755 "$work"
    trap 'rm -rf --one-file-system "$work"' EXIT
}

# digest: SHA-256 of what comes in, as bare hex.
digest() {
    sha256sum | cut -d' ' -f1
}

# stamp FILE TEXT: makes FILE hold TEXT. A new file each time: copies of a data folder may share files
# with it by hard links.
stamp() {
    echo "$2" >"$1.new-$$"
    mv -f "$1.new-$$" "$1"
}

# link_replace TARGET LINK: points LINK at TARGET; whoever looks finds the old or the new one.
link_replace() {
    ln -sfn "$1" "$2.new-$$"
    mv -Tf "$2.new-$$" "$2"
}

# --- Images: what minimal.sh and base.sh share ----------------------------------------------------
# Such a script sets `here` (its folder), `name` (the template's) and `tree` (what is to be in the
# image) before it calls these.

# Bytes, names and addresses that a guest finds in every image; frozen into snapshots of it.
guest_abi=1
disk_gb=${TORPOR_DISK_GB:-8}

# image_check: the settings and the programs that image_publish needs.
image_check() {
    [[ $disk_gb =~ ^[1-9][0-9]{0,3}$ ]] || die "TORPOR_DISK_GB=$disk_gb: a whole number of GiB, 1 to 9999"
    [ "$(id -u)" -eq 0 ] || die "needs root: the files in an image belong to root and to its user"
    need_programs mke2fs dumpe2fs debugfs tar
}

# image_inputs WORD...: digest of what the image `name` follows from: the scripts, the size, the
# tool, and the words.
image_inputs() {
    cat "$here/$name.sh" "$here/lib.sh" <(echo "$* $disk_gb"; mke2fs -V 2>&1) | digest
}

# image_current OUT INPUTS: true when the image `name` is there and was made from these.
image_current() {
    [ -e "$1/images/$name/rootfs.img" ] && [ "$(cat "$1/images/.$name.inputs" 2>/dev/null)" = "$2" ]
}

# put PATH [MODE]: what comes in becomes that file of the tree.
put() {
    rm -f "$tree/$1"
    cat >"$tree/$1"
    chmod "${2:-0644}" "$tree/$1"
}

# put_network: the address is the host's side of the link, guest ABI 1. Name, hosts and machine-id
# are the guest agent's to set; these are what a guest has until then.
put_network() {
    put etc/resolv.conf <<<"nameserver 169.254.0.22"
    put etc/hostname <<<"sandbox"
    put etc/hosts <<'END'
127.0.0.1 localhost
127.0.1.1 sandbox
END
    put etc/machine-id </dev/null
}

# tree_digest: of all that image_make puts in.
tree_digest() {
    {
        echo "$name $disk_gb $guest_abi"
        mke2fs -V 2>&1 | sed -n 1p
        cat "$here/$name.sh" "$here/lib.sh"
        tar --sort=name --numeric-owner --format=posix --xattrs --xattrs-include='*' \
            --pax-option=delete=atime,delete=ctime -cf - -C "$tree" .
    } | digest
}

# fix_change_times FILE: the kernel sets the change time of the tree's files and mke2fs copies it:
# write a fixed one into every inode in use, so that equal trees give equal images. Inodes are
# numbered from 1 without gaps.
fix_change_times() {
    local file=$1 total free
    total=$(dumpe2fs -h "$file" 2>/dev/null | sed -n 's/^Inode count: *//p')
    free=$(dumpe2fs -h "$file" 2>/dev/null | sed -n 's/^Free inodes: *//p')
    seq -f 'set_inode_field <%.0f> ctime @1' $((total - free)) |
        E2FSPROGS_FAKE_TIME=1 debugfs -w -f - "$file" >/dev/null 2>&1
}

# image_make DIGEST FILE: the tree as an ext4 file system, with its owners, setuid bits and file
# capabilities. The file stays sparse: a new file reads as zeros, so neither inode tables nor journal
# are written (assume_storage_prezeroed), not now and not by the guest's kernel later, into its own
# layer.
image_make() {
    local id=$1 file=$2 uuid
    uuid=${id:0:8}-${id:8:4}-${id:12:4}-${id:16:4}-${id:20:12}
    truncate -s "${disk_gb}G" "$file"
    E2FSPROGS_FAKE_TIME=1 mke2fs -q -F -t ext4 -L "$name" -U "$uuid" \
        -E "hash_seed=$uuid,root_owner=0:0,assume_storage_prezeroed=1" -d "$tree" "$file"
    fix_change_times "$file"
}

# image_publish OUT INPUTS USER: makes an image of the tree unless its digest is there, points the
# link `name` at it, and only then notes what it was made from. Images of older digests stay:
# sandboxes run on them.
image_publish() {
    local out=$1 inputs=$2 default_user=$3 id
    id=$(tree_digest)
    if [ ! -e "$out/images/$id" ]; then
        say "making a disk of $disk_gb GiB"
        mkdir "$work/image"
        image_make "$id" "$work/image/rootfs.img"
        printf '{"name":"%s","digest":"%s","size_bytes":%s,"default_user":"%s","guest_abi":%s}\n' \
            "$name" "$id" "$(stat -c %s "$work/image/rootfs.img")" "$default_user" "$guest_abi" \
            >"$work/image/manifest.json"
        chmod 0444 "$work/image/rootfs.img"
        sync "$work/image/rootfs.img" "$work/image/manifest.json"
        mv -T "$work/image" "$out/images/$id"
    fi
    link_replace "$id" "$out/images/$name"
    stamp "$out/images/.$name.inputs" "$inputs"
    say "ready: $out/images/$id"
}
