/* SPDX-License-Identifier: Apache-2.0 */
/*
 * /init of the guest's initramfs: loads the virtio drivers, mounts the root disk, becomes the guest
 * agent.
 *
 * It runs once, as PID 1, with nothing else in the machine. A guest that cannot come up is of no
 * use to anybody, so every failure is said on the console, which the host keeps, and the machine
 * powers off: the host sees its VMM end at once instead of waiting for an agent that never answers.
 */
#include <stdio.h>
#include <sys/reboot.h>
#include <unistd.h>

#include "base/clock.h"
#include "guestinit/modules.h"
#include "guestinit/root.h"
#include "guestinit/uevent.h"

#define MODULES_DIR "/modules"
#define ROOT_DEVICE "vda"
#define AGENT "torpor-envd" /* at the top of the initramfs; root.c says why there */

/* The disk is there as soon as its driver is; the rest is for a host that is very busy. */
enum { ROOT_DEVICE_WAIT_MS = 20000 };

/* Brings up the root and becomes the agent. Returns only on failure. */
static int boot(struct err *e)
{
    int events, initramfs;
    if (root_prepare_dev(e) < 0)
        return -1;
    events = uevent_open(e);
    if (events < 0 || modules_load(MODULES_DIR, e) < 0)
        return -1;
    if (uevent_wait_block(events, ROOT_DEVICE, deadline_in_ms(ROOT_DEVICE_WAIT_MS), e) < 0)
        return -1;
    (void)close(events);
    initramfs = root_enter("/dev/" ROOT_DEVICE, AGENT, e);
    return initramfs < 0 ? -1 : root_exec_agent(initramfs, AGENT, e);
}

int main(void)
{
    struct err e = {0};
    if (getpid() != 1) {
        fprintf(stderr, "torpor-init: runs as the first process of a guest only\n");
        return 2;
    }
    (void)boot(&e);
    fprintf(stderr, "torpor-init: cannot start this guest: %s\n", e.msg);
    sync();
    (void)reboot(RB_POWER_OFF);
    for (;;) /* a machine that has no power switch: PID 1 must not end */
        (void)pause();
}
