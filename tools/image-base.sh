#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Makes the image "base" for this installation, also while it runs; see images/base.sh.
#
# usage: tools/image-base.sh [--force]        (make image-base; TORPOR_DIR as for make up)
set -euo pipefail
umask 022
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=tools/lib.sh
. "$here/lib.sh"

need_root "the files in an image belong to root and to its user"
"$here/setup.sh" image
mkdir -p "$home"
find_data
"$checkout/images/base.sh" "$@" "$data"
