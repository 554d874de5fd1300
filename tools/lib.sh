# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0
#
# What up.sh and down.sh share: where an installation is, and its two processes. Sourced, never run.
#
# An installation is a folder, $home: TORPOR_DIR, by default var/ of the checkout. In it:
#   env          TORPOR_URL and TORPOR_API_KEY for people and programs, mode 0600
#   log/         what the programs write to standard error
#   run/         one file for each process, and the lock that keeps two of these scripts apart
#   location     the path of the data folder, $data, where that is another one
# and in $data, which is $home unless the control plane's user cannot get there:
#   kernels/ images/ sandboxes/ ...   the agent's
#   control/     the control plane's: database, first API key
#   bin/         the programs as they were installed; nothing runs from the build folders
#
# A process is known by its pid, its start time and the boot it belongs to. A pid alone would sooner
# or later be a stranger's.

checkout=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
script=$(basename "$0" .sh)
# Both are only folders here; whether they can be used is found out by up.sh.
home=$(realpath -m "${TORPOR_DIR:-$checkout/var}")
data=$home
# Who the control plane runs as. Made by up.sh when missing.
user=${TORPOR_USER:-torpor}

say() {
    printf '%s: %s\n' "$script" "$*"
}

die() {
    printf '%s: %s\n' "$script" "$*" >&2
    exit 1
}

# What nobody foresaw is not silent either.
set -E
trap 'echo "$script: failed: ${BASH_SOURCE[0]##*/} line $LINENO: $BASH_COMMAND" >&2' ERR

need_root() {
    [ "$(id -u)" -eq 0 ] || die "make $script needs root ($1). Run as root: make -C $checkout $script"
}

# One of these scripts at a time for an installation. The daemons get no copy of the descriptor.
lock_home() {
    mkdir -p "$home/run"
    exec 9>"$home/run/lock"
    flock -n 9 || { say "waiting for another make up or make down" && flock 9; }
}

# find_data: sets `data` to where an earlier up.sh put it.
find_data() {
    if [ -e "$home/location" ]; then
        data=$(cat "$home/location")
    fi
}

boot_id() {
    cat /proc/sys/kernel/random/boot_id
}

# start_time PID: clock ticks since boot, the 22nd field of stat; the name before may hold anything,
# so fields are counted behind its closing bracket. Empty when there is no such process.
start_time() {
    local stat
    stat=$(cat "/proc/$1/stat" 2>/dev/null) || return 0
    # 22 minus the two fields before.
    read -r -a fields <<<"${stat##*) }"
    echo "${fields[19]}"
}

# note_process NAME PID [WORD...]: remembers a process, and words about it.
note_process() {
    local name=$1 pid=$2
    shift 2
    echo "$pid $(start_time "$pid") $(boot_id) $*" >"$home/run/$name.new"
    mv -f "$home/run/$name.new" "$home/run/$name"
}

# read_process NAME: sets pid, started, boot and words from what was noted; fails when nothing was.
# shellcheck disable=SC2034 # they are for those who source this
read_process() {
    pid='' started='' boot='' words=''
    [ -e "$home/run/$1" ] && read -r pid started boot words <"$home/run/$1" && [ -n "$boot" ]
}

# process_lives NAME: true when the noted process is running; sets pid, started, boot, words.
process_lives() {
    read_process "$1" && [ "$boot" = "$(boot_id)" ] && [ "$(start_time "$pid")" = "$started" ] &&
        # A process that has ended and whose parent does not care is still listed.
        [ "$(sed 's/.*) //; s/ .*//' "/proc/$pid/stat" 2>/dev/null)" != Z ]
}

forget_process() {
    rm -f "$home/run/$1"
}

# wait_for_end PID SECONDS: true when it has ended in time. Not our child, so there is no event to
# be had in a script; tail looks ten times a second.
wait_for_end() {
    timeout "$2" tail --pid="$1" -s 0.1 -f /dev/null
}

# stop_process NAME SECONDS: asks the noted process to end, and kills it when it does not.
# True when it ended by itself, 1 when it had to be killed or was gone already.
stop_process() {
    local name=$1 seconds=$2
    if ! process_lives "$name"; then
        say "torpor-$name is not running"
        return 1
    fi
    say "stopping torpor-$name (pid $pid)"
    kill -TERM "$pid" 2>/dev/null || true
    wait_for_end "$pid" "$seconds" && return 0
    # Only if it is still the same process.
    if process_lives "$name"; then
        say "torpor-$name has not ended in $seconds s: killing it"
        kill -KILL "$pid" 2>/dev/null || true
        wait_for_end "$pid" 10 || die "torpor-$name (pid $pid) cannot be killed"
        return 1
    fi
}

# clean_environment: sets `environment` to a command that starts a daemon with our settings and
# nothing else of the shell that ran make.
clean_environment() {
    local name
    environment=(env -i "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin" LANG=C.UTF-8)
    for name in $(compgen -e TORPOR_ || true); do
        case $name in
        TORPOR_URL | TORPOR_API_KEY | TORPOR_PROGRAMS | TORPOR_USER) ;;
        *) environment+=("$name=${!name}") ;;
        esac
    done
}

# start_daemon NAME SECONDS COMMAND...: starts `COMMAND --ready-fd 3` in the background, in a session
# of its own, and waits for the line that says it serves. Sets `ready` to that line. False when the
# program ended or was not ready in time; then it is not running any more.
start_daemon() {
    local name=$1 seconds=$2 fd status=0
    shift 2
    mkdir -p "$home/log"
    # `exec`, and a process group of another leader: so the pid is the program's own. The pipe has
    # no other writer than the program: its end is seen at once.
    exec {fd}< <(exec 3>&1 >>"$home/log/$name.log" 2>&1 </dev/null 9>&- &&
        cd / && exec setsid "$@" --ready-fd 3)
    note_process "$name" $!
    read -r -t "$seconds" -u "$fd" ready || status=$?
    exec {fd}<&-
    [ "$status" -eq 0 ] && [ "${ready%% *}" = ready ] && return 0
    [ "$status" -le 128 ] || say "torpor-$name was not ready in $seconds s"
    stop_process "$name" 10 >/dev/null || true
    forget_process "$name"
    return 1
}

# start_agent: sets `ready`, and notes instance and socket with the process.
start_agent() {
    local agent_pid
    clean_environment
    start_daemon agent 60 "${environment[@]}" TORPOR_DIR="$data" TORPOR_CONTROL_UID="$(id -u "$user")" \
        TORPOR_SHIM="$data/bin/torpor-shim" "$data/bin/torpor-agent" || return 1
    read_process agent
    agent_pid=$pid
    note_process agent "$agent_pid" "${ready#ready }"
}

# log_tail NAME: the end of its log, for a person who wants to know why.
log_tail() {
    echo "The end of $home/log/$1.log:" >&2
    tail -n 15 "$home/log/$1.log" 2>/dev/null | sed 's/^/    /' >&2
}
