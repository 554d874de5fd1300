#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Brings Torpor up on this machine: installs, builds, makes kernel and image, starts the agent (as
# root) and the control plane (as an unprivileged user) in the background, and runs a command in a
# first sandbox. Run again, it leaves what runs alone and starts what does not.
#
# usage: tools/up.sh        (make up)
#
#   TORPOR_DIR       the installation's folder, default var/ of the checkout; tools/lib.sh says what is in it
#   TORPOR_LISTEN    host:port of the API; default: a free port of 127.0.0.1, kept from then on
#   TORPOR_USER      whom the control plane runs as, default torpor
#   TORPOR_PROGRAMS  a folder with the five programs; nothing is built then
#   All other TORPOR_ settings are handed to the programs.
#
# Any number of installations can be up on one machine: each has its folder and its port, and the
# agents agree on numbers for what they make of the host's.
set -euo pipefail
umask 022
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=tools/lib.sh
. "$here/lib.sh"

[ $# -eq 0 ] || die "usage: up.sh (settings are in the environment; see the head of $here/up.sh)"
programs=(torpor-agent torpor-control torpor-shim torpor-init torpor-envd)

# --- Programs -------------------------------------------------------------------------------------

# build_programs: builds, or takes TORPOR_PROGRAMS; copies all five into `staged`.
build_programs() {
    local from=("$checkout"/build/release/src/{agent/torpor-agent,control/torpor-control,shim/torpor-shim}
        "$checkout"/build/guest/src/{guestinit/torpor-init,envd/torpor-envd})
    if [ -n "${TORPOR_PROGRAMS:-}" ]; then
        from=("${programs[@]/#/$TORPOR_PROGRAMS/}")
    else
        say "building"
        env -u MAKEFLAGS -u MAKELEVEL make --no-print-directory -f "$checkout/Makefile" build 9>&-
    fi
    staged=$home/run/programs.new
    rm -rf "$staged"
    mkdir "$staged"
    cp "${from[@]}" "$staged/" || die "the programs are not all there"
    chmod 0755 "$staged"/*
}

# install_programs: the staged programs become $data/bin. Not under the feet of a running agent: it
# starts the shim from there, and the two belong together.
install_programs() {
    local name changed=0
    mkdir -p "$data/bin"
    for name in "${programs[@]}"; do
        cmp -s "$staged/$name" "$data/bin/$name" || changed=1
    done
    if [ "$changed" -eq 1 ] && { process_lives agent || process_lives control; }; then
        say "the programs have changed since they were started; make down and make up run the new ones"
        changed=0
    fi
    if [ "$changed" -eq 1 ]; then
        for name in "${programs[@]}"; do
            cp "$staged/$name" "$data/bin/$name.new"
            mv -f "$data/bin/$name.new" "$data/bin/$name"
        done
    fi
    rm -rf "$staged"
}

# --- Places and people ----------------------------------------------------------------------------

make_user() {
    id -u "$user" >/dev/null 2>&1 && return 0
    say "making the system user $user for the control plane"
    useradd --system --user-group --no-create-home --home-dir /nonexistent \
        --shell /usr/sbin/nologin "$user"
}

# as_user COMMAND...: without any privilege, and without a way to get one.
as_user() {
    setpriv --reuid "$user" --regid "$user" --clear-groups --no-new-privs \
        --inh-caps=-all --bounding-set=-all "$@"
}

# choose_data: the folder of the installation, or one in /var/lib/torpor where the control plane's
# user (and the VMMs' users, which have no more rights) cannot get there, as below a /root that is
# closed. The choice is kept.
choose_data() {
    find_data
    if [ ! -e "$home/location" ] && ! as_user test -x "$home"; then
        data=/var/lib/torpor/$(basename "$(dirname "$home")")-$(sha256sum <<<"$home" | cut -c 1-10)
        say "the user $user cannot reach $home: the data is in $data"
        echo "$data" >"$home/location"
    fi
    mkdir -p "$data"
    as_user test -x "$data" || die "the user $user cannot reach $data either"
    install -d -m 0700 -o "$user" -g "$user" "$data/control"
}

# --- The two daemons ------------------------------------------------------------------------------

agent_up() {
    if process_lives agent; then
        say "torpor-agent is running (pid $pid)"
        return
    fi
    say "starting torpor-agent"
    start_agent || { log_tail agent && die "torpor-agent did not start"; }
}

# word NAME TEXT: the value of NAME=value in a line of such words.
word() {
    tr ' ' '\n' <<<"$2" | sed -n "s/^$1=//p"
}

# kept_listen: host:port of the last time, empty when there was none.
kept_listen() {
    [ ! -e "$home/env" ] || sed -n 's,^TORPOR_URL=http://\(.*\)$,\1,p' "$home/env"
}

# port_taken HOST:PORT: true when somebody serves there.
port_taken() {
    (exec 3<>"/dev/tcp/${1%:*}/${1##*:}") 2>/dev/null
}

# start_control LISTEN: sets `ready`.
start_control() {
    read_process agent
    clean_environment
    start_daemon control 30 "${environment[@]}" TORPOR_DIR="$data/control" TORPOR_LISTEN="$1" \
        TORPOR_AGENT_SOCKET="$(word socket "$words")" \
        setpriv --reuid "$user" --regid "$user" --clear-groups --no-new-privs \
        --inh-caps=-all --bounding-set=-all "$data/bin/torpor-control" || return 1
    read_process control
    note_process control "$pid" "${ready#ready }"
}

control_up() {
    local listen=${TORPOR_LISTEN:-} kept
    kept=$(kept_listen)
    if process_lives control; then
        say "torpor-control is running (pid $pid)"
        return
    fi
    say "starting torpor-control as $user"
    if ! start_control "${listen:-${kept:-127.0.0.1:0}}"; then
        if [ -z "$listen" ] && [ -n "$kept" ] && port_taken "$kept"; then
            say "$kept is taken by another program: using another port"
            start_control 127.0.0.1:0 && return
        fi
        log_tail control
        die "torpor-control did not start. torpor-agent runs; make down stops it"
    fi
}

# write_env: address and key, for `. var/env`.
write_env() {
    read_process control
    url=$(word url "$words")
    key=$(cat "$data/control/api-key") || die "torpor-control left no API key in $data/control"
    (umask 077 && printf 'TORPOR_URL=%s\nTORPOR_API_KEY=%s\n' "$url" "$key" >"$home/env.new")
    mv -f "$home/env.new" "$home/env"
}

# --- The first sandbox ----------------------------------------------------------------------------

# api METHOD PATH [BODY]: the answer's body on standard output; false for any other status than 2xx,
# then with the body on standard error. The key is not on a command line, where everybody could read it.
api() {
    local answer status
    answer=$(curl -sS --max-time 180 -X "$1" ${3:+--data "$3"} -w '\n%{http_code}' \
        --config <(printf 'header = "X-API-Key: %s"\nheader = "Content-Type: application/json"\n' "$key") \
        "$url$2") || return 1
    status=${answer##*$'\n'}
    answer=${answer%$'\n'*}
    case $status in
    2??) printf '%s' "$answer" ;;
    *)
        echo "$1 $2: $status $answer" >&2
        return 1
        ;;
    esac
}

# first_failed TEXT: what runs keeps running, so that a person can look.
first_failed() {
    log_tail agent
    log_tail control
    die "$1. Torpor is running; make down stops it"
}

first_sandbox() {
    local id result began=$EPOCHREALTIME took
    # The script is for the guest's shell.
    # shellcheck disable=SC2016
    local hello='echo "Hello from $(hostname): $(uname -srm), $(id -un), $(nproc) CPU"'
    say "creating a first sandbox (a real VM; without usable KVM this takes some seconds)"
    result=$(api POST /v1/sandboxes '{"template":"minimal"}') || first_failed "the first sandbox was not created"
    id=$(jq -r .id <<<"$result")
    took=$(((${EPOCHREALTIME/./} - ${began/./}) / 1000))
    say "  $id is $(jq -r .status <<<"$result") after $took ms"
    result=$(api POST "/v1/sandboxes/$id/exec" \
        "$(jq -nc --arg script "$hello" '{cmd: "/bin/sh", args: ["-c", $script]}')") ||
        first_failed "the first command was not run"
    say "  it ran: $hello"
    jq -r '.stdout, .stderr | select(. != "")' <<<"$result" | sed '/^$/d; s/^/      /'
    [ "$(jq -r .exit_code <<<"$result")" = 0 ] || first_failed "the first command failed: $result"
    api DELETE "/v1/sandboxes/$id" || first_failed "the first sandbox was not destroyed"
    say "  destroyed it"
}

# --- All of it ------------------------------------------------------------------------------------

need_root "it makes network devices and starts VMs under users of their own"
mkdir -p "$home"
"$here/setup.sh" build run
lock_home
build_programs
make_user
choose_data
install_programs
"$checkout/images/kernel.sh" "$data" "$data/bin/torpor-init" "$data/bin/torpor-envd" 9>&-
"$checkout/images/minimal.sh" "$data" 9>&-
agent_up
control_up
write_env
first_sandbox
cat <<EOF

Torpor is up.
  address  $url
  API key  $key
  both in  $home/env   (. $home/env; curl -H "X-API-Key: \$TORPOR_API_KEY" "\$TORPOR_URL/v1/sandboxes")
  logs     $home/log/agent.log, $home/log/control.log
  data     $data
make down stops it and keeps the data.
EOF
