#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# Runs inside the lab: the machine is what the other tests rely on. Prints TAP.
tests=0 failures=0

# check NAME COMMAND...
check() {
    name=$1
    shift
    tests=$((tests + 1))
    if output=$("$@" 2>&1); then
        echo "ok $tests - $name"
    else
        failures=$((failures + 1))
        echo "not ok $tests - $name"
        echo "$output" | sed 's/^/# /'
    fi
}

kernel_is_debians() {
    case $(uname -r) in
    6.1.*cloud*) ;;
    *) uname -r && return 1 ;;
    esac
}
cpu_has_svm() {
    grep -q '^flags.* svm' /proc/cpuinfo
}
kvm_opens() {
    true <>/dev/kvm
}
cgroup_has_controllers() {
    for controller in cpu memory pids; do
        grep -qw "$controller" /sys/fs/cgroup/cgroup.controllers || { echo "no $controller" && return 1; }
    done
}

# A write goes to the copy-on-write file and leaves the base alone, as disks of sandboxes will do it.
dm_snapshot_copies_on_write() {
    truncate -s 4M /tmp/dm-base && truncate -s 4M /tmp/dm-cow || return 1
    base=$(losetup -f) && losetup -r "$base" /tmp/dm-base || return 1
    cow=$(losetup -f) && losetup "$cow" /tmp/dm-cow || return 1
    dmsetup create lab-dm --noudevsync --table "0 8192 snapshot $base $cow P 8" && dmsetup mknodes || return 1
    echo written | dd of=/dev/mapper/lab-dm conv=fsync 2>/dev/null || return 1
    [ "$(head -c 7 /dev/mapper/lab-dm)" = written ] || return 1
    [ "$(tr -d '\000' </tmp/dm-base | wc -c)" = 0 ] || return 1
    dmsetup status lab-dm && dmsetup remove --noudevsync lab-dm && losetup -d "$base" && losetup -d "$cow"
}

check "the kernel is Debian's 6.1" kernel_is_debians
check "the processor has svm" cpu_has_svm
check "/dev/kvm opens" kvm_opens
check "cgroup v2 has its controllers" cgroup_has_controllers
check "device-mapper snapshots copy on write" dm_snapshot_copies_on_write
check "tun is there" test -c /dev/net/tun
echo "1..$tests"
[ "$failures" -eq 0 ]
