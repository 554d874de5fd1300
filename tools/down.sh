#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Stops what tools/up.sh started, and leaves nothing of it on the host: no process, no namespace, no
# network device, no rule. Data, logs and var/env stay. Run again, it finds nothing to do.
#
# usage: tools/down.sh        (make down)
#
#   TORPOR_DIR   the installation's folder, as for up.sh
set -euo pipefail
umask 022
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=tools/lib.sh
. "$here/lib.sh"

[ $# -eq 0 ] || die "usage: down.sh (settings are in the environment; see the head of $here/down.sh)"
need_root "it stops processes of root and removes network devices"

# `torpor` of the installation, which fits to what runs, else the one that was built here.
find_data
for torpor in "$data/bin/torpor" "$checkout/build/release/src/cli/torpor"; do
    [ ! -x "$torpor" ] || exec "$torpor" down
done
say "nothing was ever started in $home"
