#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Boots the lab (build.sh makes it), waits until it has run its tests, and prints what came of them
# as TAP.
#
# usage: tests/lab/run.sh <lab> <data> <tsc_khz> [TEST...]
#
#   <lab>      lab.img and initrd; results.jsonl, serial.log and log/ of the run are left there
#   <data>     where kernels/current/vmlinux is
#   <tsc_khz>  a program that prints the frequency of this machine's TSC
#   TEST       default: all
#   LAB_SECONDS ends a run that hangs, default 600
#
# The machine is emulated (TCG), whatever this host can do: its processor has svm, its kernel is known,
# and nobody else's devices are in it. Exit status 77: cannot run here.
set -euo pipefail
lab=${1:?usage: run.sh <lab> <data> <tsc_khz> [TEST...]} data=${2:?} tsc_khz=${3:?}
shift 3
# The whole run; what runs inside has deadlines of its own.
deadline_seconds=${LAB_SECONDS:-600}
memory_mib=2048

skip() {
    echo "skip: $1"
    exit 77
}
[ -e "$lab/inputs" ] || skip "no lab in $lab (make lab makes it, as root)"
if [ $# -eq 0 ]; then
    mapfile -t all <"$lab/tests"
    set -- "${all[@]}"
fi
command -v qemu-system-x86_64 >/dev/null || skip "no qemu-system-x86_64"

# Two runs at once would share the result disk.
exec 9>"$lab/run.lock"
flock -n 9 || skip "another run of this lab is under way"
serial=$lab/serial.log
results=$lab/results.jsonl
rm -rf "$lab/log" "$results" "$serial" "$lab/results.img"
truncate -s 64M "$lab/results.img"

# An emulated machine on a busy host cannot find out its clock's frequency by itself.
kernel_arguments="console=ttyS0 quiet panic=-1 reboot=t tsc_early_khz=$("$tsc_khz") tsc=reliable
    no_timer_check cryptomgr.notests lab.tests=$(IFS=, && echo "$*")"

# One processor: with two the machine is no faster, and emulated ones may hang.
machine=(qemu-system-x86_64 -nodefaults -no-user-config -display none -no-reboot
    -M "microvm,acpi=on,isa-serial=on" -bios qboot.rom -accel tcg -cpu "max,+svm,+npt"
    -smp 1 -m "$memory_mib" -global virtio-mmio.force-legacy=false
    -kernel "$data/kernels/current/vmlinux" -initrd "$lab/initrd" -append "${kernel_arguments//$'\n'/ }"
    -drive "id=d0,if=none,format=raw,snapshot=on,cache=unsafe,file=$lab/lab.img" -device "virtio-blk-device,drive=d0"
    -drive "id=d1,if=none,format=raw,cache=unsafe,file=$lab/results.img" -device "virtio-blk-device,drive=d1"
    -serial stdio)

# stamp BEGAN: lines from the console, each with the milliseconds since BEGAN.
stamp() {
    local line now
    while IFS= read -r line || [ -n "$line" ]; do
        now=${EPOCHREALTIME/./}
        printf '[%6d ms] %s\n' $(((now - $1) / 1000)) "${line%$'\r'}"
    done
}

began=${EPOCHREALTIME/./}
status=0
# In the foreground: who ends this script's process group ends the machine too.
timeout --foreground -s KILL "$deadline_seconds" "${machine[@]}" </dev/null 2>&1 9>&- | stamp "$began" >"$serial" || status=$?
took=$(((${EPOCHREALTIME/./} - began) / 1000))

tar -C "$lab" -xf "$lab/results.img" 2>/dev/null || true
rm -f "$lab/results.img"
[ -e "$results" ] || : >"$results"
first=$(sed -nE 's/^\[ *([0-9]+) ms\] lab: run .*/\1/p' "$serial" | sed -n 1p)
echo "# the first test began after ${first:-?} ms, the whole run took $took ms"

# --- What came of it ------------------------------------------------------------------------------

tests=0 failures=0
# report ok|"not ok" TEXT
report() {
    tests=$((tests + 1))
    [ "$1" = ok ] || failures=$((failures + 1))
    echo "$1 $tests - $2"
}

# show FILE: the end of it, for people.
show() {
    tail -n 40 "$1" 2>/dev/null | sed 's/^/# /' || true
}

# single_tests PROGRAM: "result<tab>name" of each.
single_tests() {
    jq -r --arg p "$1" 'select(.program == $p and .test) | [.result, .test] | @tsv' "$results"
}

# Announced and counted must agree, and the exit status with the results.
ended_well() {
    jq -se --arg p "$1" '[.[] | select(.program == $p)] as $all
        | ($all | map(select(has("exit"))) | .[0]) as $finish
        | ($all | map(select(has("test"))) | length) as $counted
        | $finish.exit == 0 and $finish.announced == $counted and $counted > 0' "$results" >/dev/null
}

# report_program NAME
report_program() {
    local result name failed=0
    while IFS=$'\t' read -r result name; do
        case $result in
        pass) report ok "$1: $name" ;;
        skip)
            report ok "$1: $name # SKIP"
            grep -hE '^(# ?)?skip(ped)?: ' "$lab/log/$1" | sort -u || true
            ;;
        *) report "not ok" "$1: $name" && failed=1 ;;
        esac
    done < <(single_tests "$1")
    if [ "$failed" -eq 0 ] && ! ended_well "$1"; then
        failed=1
        report "not ok" "$1 ended as it should"
    fi
    [ "$failed" -eq 0 ] || show "$lab/log/$1"
}

for name in "$@"; do
    report_program "$name"
done
if [ -e "$lab/log/dmesg" ] && ! grep -E 'BUG:|Oops|Call Trace|Kernel panic' "$lab/log/dmesg" "$serial"; then
    report ok "the lab's kernel is content"
else
    report "not ok" "the lab's kernel is content (see $lab/log/dmesg)"
fi
if grep -q '\] lab: done' "$serial"; then
    report ok "the lab ran to its end"
else
    report "not ok" "the lab ran to its end (QEMU: $status, deadline $deadline_seconds s); its last lines:"
    show "$serial"
fi
echo "1..$tests"
[ "$failures" -eq 0 ]
