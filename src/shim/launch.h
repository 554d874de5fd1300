/* SPDX-License-Identifier: Apache-2.0 */
/* Starting the VMM. */
#ifndef TORPOR_SHIM_LAUNCH_H
#define TORPOR_SHIM_LAUNCH_H

#include "base/proc.h"
#include "shim/memory.h"

struct launched {
    struct proc_id vmm;
    int pidfd;     /* readable when the VMM has ended */
    int serial_fd; /* what the guest writes to its serial port */
    int output_fd; /* the VMM's standard output and error */
};

/* Enters the plan's network namespace, opens the TAP and starts the confined VMM as a child.
 * Its memory is prepared in `m`. Returns when its exec has succeeded and `m` is attached to it;
 * after a failure the child is gone and reaped. `agent_fd` is the socket the plan came over: that
 * its other end closes is a failure (ERR_CANCELED). The process must be single-threaded. The
 * descriptors are non-blocking and the caller's. */
int launch_vmm(
    const struct plan *p, struct memory *m, int agent_fd, struct launched *ret, struct err *e);

/* Kills the VMM and reaps it. Leaves the descriptors alone. */
void launch_end(const struct launched *l);

#endif
