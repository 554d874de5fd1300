#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# make up and make down on this machine, with real programs and a real VM, in a folder of their own:
# up, up again, an agent killed, up, down, down again; then the host must be as it was.
#
# usage: test_up_down.sh <checkout>        Prints TAP. Exit status 77: cannot run here.
set -euo pipefail
checkout=${1:?usage: test_up_down.sh <checkout>}
data=$checkout/build/data # kernel and image that make test has made

skip() {
    echo "skip: $1"
    exit 77
}
[ "$(id -u)" -eq 0 ] || skip "make up needs root"
[ -c /dev/net/tun ] || skip "no /dev/net/tun"
[ -e "$data/kernels/current/initrd" ] || skip "no guest kernel in $data (make test-data)"

home=$checkout/build/up-test
rm -rf "$home"
mkdir -p "$home"
# Links instead of copies: the scripts replace files, they never write into them.
cp -al "$data/kernels" "$data/images" "$home/"
export TORPOR_DIR=$home
unset TORPOR_LISTEN TORPOR_PROGRAMS TORPOR_URL TORPOR_API_KEY
# Wherever this script ends.
trap '"$checkout/tools/down.sh" >/dev/null 2>&1 || true; rm -rf "$home"' EXIT

tests=0 failures=0
log=$home/output
# check NAME COMMAND...
check() {
    local name=$1
    shift
    tests=$((tests + 1))
    if "$@" >"$log" 2>&1; then
        echo "ok $tests - $name"
    else
        failures=$((failures + 1))
        echo "not ok $tests - $name"
        sed 's/^/# /' "$log"
    fi
}

# What a run of Torpor could leave on a host. Other installations may come and go meanwhile, so only
# what belongs to this one's number is compared with nothing.
instance=none
remains() {
    ip -o link show | grep -E "^[0-9]+: tp$instance-" || true
    ip netns list | grep -E "^tp$instance-" || true
    nft list tables | grep -E "(tp|torpor)$instance\$" || true
    find /run/torpor -path "*/torpor/$instance/*" 2>/dev/null || true
    pgrep -af "$home/bin/" || true
}
nothing_remains() {
    remains
    [ "$instance" != none ] && [ -z "$(remains)" ]
}

setting() {
    sed -n "s/^$1=//p" "$home/env"
}
setting_is() {
    echo "$1=$(setting "$1"), expected $2"
    [ "$(setting "$1")" = "$2" ]
}
is_private() {
    [ "$(stat -c %a "$home/env")" = 600 ]
}
# The control plane runs as nobody of importance, the agent as root.
runs_as() {
    [ "$(stat -c %U "/proc/$(cut -d ' ' -f 1 "$home/run/$1")")" = "$2" ]
}
api_lists_sandboxes() {
    curl -sS --fail --max-time 10 -H "X-API-Key: $(setting TORPOR_API_KEY)" \
        "$(setting TORPOR_URL)/v1/sandboxes"
}
kill_agent() {
    local pid
    pid=$(cut -d ' ' -f 1 "$home/run/agent")
    kill -KILL "$pid" && timeout 10 tail --pid="$pid" -s 0.1 -f /dev/null
}

cd / # from anywhere
check "up" "$checkout/tools/up.sh"
cp "$log" "$home/first-output"
check "its first sandbox answered" grep "Hello from" "$home/first-output"
instance=$(sed -nE 's/.*instance=([0-9]+).*/\1/p' "$home/run/agent")
url=$(setting TORPOR_URL)
key=$(setting TORPOR_API_KEY)
check "env is for its owner only" is_private
check "the agent is root" runs_as agent root
check "the control plane is not" runs_as control torpor
check "address and key work" api_lists_sandboxes
check "up again" "$checkout/tools/up.sh"
cp "$log" "$home/second-output"
check "what ran was left alone" grep "torpor-agent is running" "$home/second-output"
check "down" "$checkout/tools/down.sh"
check "nothing remains" nothing_remains
check "up once more" "$checkout/tools/up.sh"
check "at the same address" setting_is TORPOR_URL "$url"
check "with the same key" setting_is TORPOR_API_KEY "$key"
check "the agent is killed" kill_agent
check "down clears up after it" "$checkout/tools/down.sh"
check "nothing remains either" nothing_remains
check "down with nothing to do" "$checkout/tools/down.sh"

echo "1..$tests"
[ "$failures" -eq 0 ]
