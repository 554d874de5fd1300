#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# PID 1 of the lab. Prepares the machine, runs the programs of /lab that the kernel's command line
# names (lab.tests=a,b), writes what came of them to the result disk, powers off.
#
# The result disk (/dev/vdb) holds a tar file, written anew after each program, so that a machine
# that hangs later leaves what it had:
#   results.jsonl   one object a line, of two kinds:
#                     {"program":…,"test":…,"result":"pass|fail|skip"}   a single test
#                     {"program":…,"exit":…,"ms":…,"announced":…}        the end of a program
#   log/<program>   what it printed; log/dmesg, log/doctor; and what programs put into $LAB_OUT
# Lines on the console that begin with "lab: " say how far it is.
#
# busybox' sh: no shell of Debian's is here.
export PATH=/usr/sbin:/usr/bin
export CMOCKA_MESSAGE_OUTPUT=tap
export TORPOR_TEST_DATA=/data
export LAB_OUT=/run/lab/log

# A program that takes longer hangs.
program_seconds=300

uptime_ms() {
    awk '{ printf "%d\n", $1 * 1000 }' /proc/uptime
}

prepare() {
    mount -t proc proc /proc
    mount -t sysfs sys /sys
    mkdir -p /dev/pts /dev/shm
    mount -t devpts pts /dev/pts
    mount -t tmpfs shm /dev/shm
    mount -t tmpfs -o mode=0755 run /run
    mount -t cgroup2 cgroup /sys/fs/cgroup
    mount -t tracefs tracing /sys/kernel/tracing 2>/dev/null
    mkdir -p $LAB_OUT
    hostname lab
    ip link set lo up
    for module in kvm-amd dm-mod dm-snapshot loop tun veth nf_tables; do
        modprobe $module || echo "lab: no module $module"
    done
    # Without udev nobody else makes it.
    [ -e /dev/mapper/control ] || { mkdir -p /dev/mapper && mknod /dev/mapper/control c 10 236; }
}

# tap_to_json PROGRAM: its TAP lines as objects. Names of tests are identifiers or plain words; what
# would need escaping is dropped.
tap_to_json() {
    awk -v program="$1" '
        /^(not )?ok [0-9]+/ {
            result = $1 == "ok" ? "pass" : "fail"
            if ($0 ~ /# SKIP/) result = "skip"
            name = $0
            sub(/^(not )?ok [0-9]+( - )?/, "", name)
            sub(/ *# SKIP */, "", name)
            gsub(/[^A-Za-z0-9_ .,:()\047\/-]/, "", name)
            printf "{\"program\":\"%s\",\"test\":\"%s\",\"result\":\"%s\"}\n", program, name, result
        }'
}

announced() {
    awk '/^1\.\.[0-9]+/ { sub(/^1\.\./, ""); n += $1 } END { print n + 0 }'
}

save() {
    dmesg >$LAB_OUT/dmesg
    tar -C /run/lab -cf /dev/vdb .
    sync
}

run() {
    log=$LAB_OUT/$1
    began=$(uptime_ms)
    echo "lab: run $1"
    timeout -s KILL $program_seconds "/lab/$1" >"$log" 2>&1 </dev/null
    status=$?
    took=$(($(uptime_ms) - began))
    echo "lab: $1 ended with $status after $took ms"
    {
        tap_to_json "$1" <"$log"
        echo "{\"program\":\"$1\",\"exit\":$status,\"ms\":$took,\"announced\":$(announced <"$log")}"
    } >>/run/lab/results.jsonl
    save
}

prepare
for name in $(sed -n 's/.*lab\.tests=\([^ ]*\).*/\1/p' /proc/cmdline | tr ',' ' '); do
    run "$name"
done
# For people: what our doctor says of a machine like this.
[ ! -x /lab/torpor ] || timeout -s KILL 20 /lab/torpor doctor >$LAB_OUT/doctor 2>&1 </dev/null
save
echo "lab: done"
poweroff -f
