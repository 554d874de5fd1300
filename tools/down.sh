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

# stop_agent: the agent alone leaves its VMs running, for the next agent. So it is run once more, to
# stop them and to remove everything of the host that it has made; also where it had crashed.
stop_agent() {
    stop_process agent 60 || true
    if [ "$boot" != "$(boot_id)" ]; then
        say "the machine was started anew since then: nothing can be left"
        return
    fi
    say "stopping the virtual machines"
    clean_environment
    "${environment[@]}" TORPOR_DIR="$data" TORPOR_SHIM="$data/bin/torpor-shim" \
        "$data/bin/torpor-agent" --stop-all >>"$home/log/agent.log" 2>&1 </dev/null ||
        { log_tail agent && die "what the agent made of this host is still there"; }
}

# remains INSTANCE: what is there under an instance's name, one thing a line.
remains() {
    ip -o link show | sed -nE "s/^[0-9]+: (tp$1-[^:@]*).*/network device \1/p"
    ip netns list | sed -nE "s/^(tp$1-[^ ]*).*/network namespace \1/p"
    nft list tables | sed -nE "s/^table (.* (tp|torpor)$1)\$/nftables table \1/p"
    pgrep -f "^[^ ]*/torpor-shim .*/torpor/$1/" | sed 's/^/process /' || true
}

need_root "it stops processes of root and removes network devices"
if [ ! -d "$home/run" ]; then
    say "nothing was ever started in $home"
    exit 0
fi
lock_home
find_data
if ! read_process control && ! read_process agent; then
    say "nothing is running; the data is in $data"
    exit 0
fi

if read_process control; then
    stop_process control 30 || true
    forget_process control
fi
if read_process agent; then
    instance=$(sed -nE 's/.*instance=([0-9]+).*/\1/p' <<<"$words")
    stop_agent
    forget_process agent
    left=$(remains "$instance")
    if [ -n "$left" ]; then
        log_tail agent
        die "these are still there:"$'\n'"$left"
    fi
fi
say "stopped; the data stays in $data"
