/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An honest guest with a real network stack: a namespace whose only link is joined, frame by frame,
 * to the TAP of a slot. Sockets opened inside speak as a VM's would.
 */
#ifndef TORPOR_TESTS_NET_MACHINE_H
#define TORPOR_TESTS_NET_MACHINE_H

#include <pthread.h>

struct machine {
    int ns_fd;
    int tap;  /* the slot's */
    int link; /* the guest's own */
    int stop;
    pthread_t thread;
};

/* Boots on the slot's TAP; fails the test when it is held. */
void machine_start(struct machine *m, const char *netns);
/* Powers off: the TAP is free again. */
void machine_stop(struct machine *m);
/* Enters the guest for opening sockets; world_leave comes back. */
int machine_enter(const struct machine *m);

#endif
