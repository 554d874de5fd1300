/* SPDX-License-Identifier: Apache-2.0 */
/* Network, VMM, disk and guest without a kernel: what was made is counted, any call can fail. */
#ifndef TORPOR_TESTS_LIFE_FAKES_H
#define TORPOR_TESTS_LIFE_FAKES_H

#include <stdbool.h>
#include <stdint.h>

struct err;

enum fake_call {
    FAKE_NONE,
    FAKE_OVERLAY,
    FAKE_SLOT,
    FAKE_VMM,
    FAKE_READY,
    FAKE_INIT,
    FAKE_VMM_STOP,
    FAKE_SLOT_RELEASE,
    FAKE_PREPARE,
    FAKE_PAUSE,
    FAKE_SAVE_STATE,
    FAKE_SAVE_MEMORY,
    FAKE_SWAP,
    FAKE_RUN,
    FAKE_LOAD,
    FAKE_WAKE,
    FAKE_CAN_RESTORE,
    FAKE_CALL_COUNT
};

struct fakes {
    enum fake_call fail;     /* the call that fails, until changed */
    enum fake_call fail_too; /* another one */
    enum fake_call hang;     /* one that waits until its VMM is killed, or its guest closed */
    int slots_taken;
    int vmms_running;
    int slots_acquired_ever;
    int leftovers_ended; /* VMs that vmm_remove_leftovers ended, ever */
    int slots_kept;      /* at the last net_pool_open */
    bool vms_survive;    /* vmm_free without vmm_stop leaves the VM for vmm_adopt */
    bool slots_lost;     /* net_slot_adopt finds none whole */
    int stopped_fd;      /* eventfd: one more for each vmm_stop */
    int vcpus_stand;     /* VMs whose vCPUs stand still */
    int runs_ever;       /* vmm_run */
    int sets_collected;  /* 2: "fake" was not in use */
    int saves_committed;
    int restores_ever; /* vmm_start with a source */
    int boots_ever;    /* and without */
    int wakes_ever;
    bool save_waits;     /* vmm_save_memory returns when it is broken off */
    bool keeps_names;    /* the last guest_wake was told that the guest keeps its names */
    char secret[65];     /* of the last guest_prepare */
    char woken_with[65]; /* the secret of the last guest_wake */
    bool library_fails;  /* what vmm_try_memory finds out, */
    int trial_gate;      /* once a byte can be read here; -1: at once */
    int format;          /* of snapshots of the VM that was started last */
    int memory;          /* how that of the last restore comes back */
    /* Looks at an overlay or a layer that a VM is started with; NULL: nobody does. */
    int (*check_disk)(int fd, struct err *e);
    int vm_event_fd; /* of the newest VMM; write to it: the VMM has ended */
};
extern struct fakes fakes;

void fakes_reset(void);
/* Whether that call is to fail; then with an error whose text is the host's. */
bool fake_fails(enum fake_call call, struct err *e);
void fakes_kill_newest_vmm(void);
/* The host loses power: VMs and slots are gone. */
void fakes_power_cut(void);
/* After an agent in a forked process died: its VMs and slots are as it left them. No thread but the
 * caller's. */
void fakes_after_crash(void);
/* Those so far; when no thread can be in one. */
void fakes_forget_stops(void);
/* Waits for the next vmm_stop; -1 when none came within 5 s. */
int fakes_wait_stop(void);

#endif
