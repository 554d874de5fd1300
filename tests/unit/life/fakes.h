/* SPDX-License-Identifier: Apache-2.0 */
/* Network, VMM, disk and guest without a kernel: what was made is counted, any call can fail. */
#ifndef TORPOR_TESTS_LIFE_FAKES_H
#define TORPOR_TESTS_LIFE_FAKES_H

#include <stdint.h>

enum fake_call {
    FAKE_NONE,
    FAKE_OVERLAY,
    FAKE_SLOT,
    FAKE_VMM,
    FAKE_READY,
    FAKE_INIT,
    FAKE_VMM_STOP,
    FAKE_SLOT_RELEASE,
    FAKE_CALL_COUNT
};

struct fakes {
    enum fake_call fail; /* the call that fails, until changed */
    int slots_taken;
    int vmms_running;
    int slots_acquired_ever;
    int leftovers_removed;
    int stopped_fd;  /* eventfd: one more for each vmm_stop */
    int vm_event_fd; /* of the newest VMM; write to it: the VMM has ended */
};
extern struct fakes fakes;

void fakes_reset(void);
void fakes_kill_newest_vmm(void);
/* Waits for the next vmm_stop; -1 when none came within 5 s. */
int fakes_wait_stop(void);

#endif
