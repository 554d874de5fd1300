#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Makes the kernel's own headers visible to musl-gcc, and nothing of glibc.
#
# usage: tools/kernel-headers.sh <folder>
#
# musl ships no <linux/...> headers and musl-gcc looks at no folder of the system, so <folder> gets
# symbolic links to exactly the three folders that linux-libc-dev installs. Adding /usr/include
# itself would put glibc's headers in reach, which compile and then misbehave.
set -euo pipefail

folder=${1:?usage: kernel-headers.sh <folder>}
system=/usr/include
# Debian's multiarch folder for asm/; other systems keep it beside linux/.
arch_include=$system/$(gcc -print-multiarch)
[ -d "$arch_include/asm" ] || arch_include=$system

if [ ! -d "$system/linux" ] || [ ! -d "$arch_include/asm" ]; then
    echo "kernel-headers.sh: no kernel headers below $system (Debian: linux-libc-dev)" >&2
    exit 1
fi
mkdir -p "$folder"
ln -sfn "$system/linux" "$folder/linux"
ln -sfn "$system/asm-generic" "$folder/asm-generic"
ln -sfn "$arch_include/asm" "$folder/asm"
