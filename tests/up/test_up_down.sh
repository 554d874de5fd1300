#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# make up and make down on this machine, with real programs and a real VM, in a folder of their own:
# up, up again, a second copy beside it, changed programs, an agent killed, down, down again; then the
# host must be as it was.
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
other=$checkout/build/up-test-2
rm -rf "$home" "$other"
mkdir -p "$home" "$other"
# Links instead of copies: the scripts replace files, they never write into them.
cp -al "$data/kernels" "$data/images" "$home/"
cp -al "$data/kernels" "$data/images" "$other/"
export TORPOR_DIR=$home
unset TORPOR_LISTEN TORPOR_PROGRAMS TORPOR_URL TORPOR_API_KEY
# Wherever this script ends.
trap '"$checkout/tools/down.sh" >/dev/null 2>&1 || true
    TORPOR_DIR=$other "$checkout/tools/down.sh" >/dev/null 2>&1 || true
    rm -rf "$home" "$other"' EXIT

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

# One installation of two: what TORPOR_DIR says, without building again.
torpor_of() {
    local folder=$1
    shift
    TORPOR_DIR=$folder TORPOR_PROGRAMS=$home/bin "$home/bin/torpor" "$@"
}
fails_saying() {
    local text=$1 said
    shift
    if said=$("$@" 2>&1); then
        echo "did not fail: $said"
        return 1
    fi
    echo "$said"
    grep -F "$text" <<<"$said"
}
pid_of() {
    cut -d ' ' -f 1 "$1/run/$2"
}
note_pids() {
    pids="$(pid_of "$home" agent) $(pid_of "$home" control)"
}
pids_are_the_same() {
    echo "$pids"
    [ "$pids" = "$(pid_of "$home" agent) $(pid_of "$home" control)" ]
}
pid_changed() {
    ! grep -w "$(pid_of "$home" "$1")" <<<"$pids"
}
has_no_sandbox() {
    [ "$(torpor_of "$home" ls -o id)" = "" ]
}
# A program that differs and still works: a byte more at the end.
changed_control() {
    rm -rf "$home/changed"
    cp -a "$home/bin" "$home/changed"
    printf x >>"$home/changed/torpor-control"
    TORPOR_PROGRAMS=$home/changed "$home/changed/torpor" up --no-sandbox
}
as_nobody() {
    setpriv --reuid nobody --regid nogroup --clear-groups "$@"
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
note_pids
check "a second copy beside it" torpor_of "$other" up
check "does not touch the first" pids_are_the_same
check "and goes down alone" torpor_of "$other" down
check "the first one answers" api_lists_sandboxes
check "and still has its processes" pids_are_the_same
check "a port that is taken is said" fails_saying "is taken by another program" \
    env "TORPOR_LISTEN=${url#http://}" TORPOR_DIR="$other" TORPOR_PROGRAMS="$home/bin" \
    "$home/bin/torpor" up --no-sandbox
check "the second copy down again" torpor_of "$other" down
check "not root: up says so" fails_saying "needs root" as_nobody "$home/bin/torpor" up
check "not root: down says so" fails_saying "needs root" as_nobody "$home/bin/torpor" down
check "a changed control plane is restarted" changed_control
check "it alone" pid_changed control
check "nothing is left in it" has_no_sandbox
check "doctor is content" torpor_of "$home" doctor
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
