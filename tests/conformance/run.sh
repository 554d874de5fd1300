#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Runs one file of conformance tests with the node of tools/node.sh, and prints TAP.
#
# usage: tests/conformance/run.sh FILE SERVER CLIENT WS_CLIENT DESCRIPTORS
#
# Exit status 77, with the reason, when node and its packages are not installed.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
home=$(cd "$here/../.." && pwd)/build/node

skip() {
    echo "skip: $1"
    exit 77
}

if [ ! -x "$home/bin/node" ]; then
    [ ! -s "$home/missing" ] || skip "$(cat "$home/missing")"
    skip "node and its packages are not installed: tools/node.sh"
fi
cmp -s "$here/package-lock.json" "$home/installed" ||
    skip "other packages are installed than package-lock.json names: tools/node.sh"

export TORPOR_NODE_HOME=$home TORPOR_TEST_SERVER=$2 TORPOR_TEST_CLIENT=$3 \
    TORPOR_TEST_WS_CLIENT=$4 TORPOR_TEST_DESCRIPTORS=$5
exec "$home/bin/node" --test --test-reporter=tap --test-timeout=60000 "$1"
