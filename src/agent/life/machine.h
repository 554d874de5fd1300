/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What happens next, given a sandbox's state and an event, and what becomes of one that an earlier
 * agent left: pure functions. They decide; life/ does.
 *
 *   pending -> running <-> pausing -> paused -> resuming -> running
 *                 any with a VM -> stopped (vm_exited) -> resuming (restored) -> running
 */
#ifndef TORPOR_AGENT_LIFE_MACHINE_H
#define TORPOR_AGENT_LIFE_MACHINE_H

#include <stdbool.h>
#include <stdint.h>

#include "proto/sandbox.h"

/* How many changes may follow one that was journalled before the next is. A create, and a resume,
 * journal what they are about to report once, so that they cost one fsync: running, pausing and
 * the end of that pause may follow without. */
enum { MACHINE_UNJOURNALLED_MAX = 4 };

struct machine_state {
    enum sandbox_status status;
    enum sandbox_reason reason;
    uint64_t revision; /* grows with each change */
};

enum machine_event {
    EVENT_CREATED,        /* the guest has acknowledged its init */
    EVENT_CREATE_FAILED,  /* everything it made is undone */
    EVENT_PAUSE,          /* asked for */
    EVENT_IDLE,           /* a pause that nobody asked for */
    EVENT_PAUSED,         /* its generation is durable */
    EVENT_PAUSE_FAILED,   /* the guest runs on */
    EVENT_PAUSE_CANCELED, /* likewise; somebody needed it, or the agent ended meanwhile */
    EVENT_RESUME,         /* of a paused one */
    EVENT_RESTORE,        /* of a stopped one, from its last generation or its disk */
    EVENT_RESUMED,        /* the guest has acknowledged its init */
    EVENT_RESUME_FAILED,  /* everything it made is undone, its generation is as it was */
    EVENT_VM_EXITED,      /* the VMM or its shim has ended by itself, or does not answer */
    EVENT_AGENT_STARTED,  /* found on disk by a new agent, its VM is gone */
    EVENT_DESTROY,        /* asked for by a DELETE */
    MACHINE_EVENT_COUNT
};

/* What the caller must do, in this order, after a transition. */
struct machine_actions {
    bool write_journal; /* the change must outlive a power cut */
    bool release_host;  /* stop the VM, give back network and process; files stay */
    bool remove_files;  /* only ever because of a DELETE, or of a create that nobody was told of */
    bool forget;        /* leaves the registry */
};

/* Applies `event`: true with the new state and the actions, false (nothing changed) when the event
 * means nothing in that state, e.g. the exit of a VM that was destroyed already. */
bool machine_next(
    struct machine_state *state, enum machine_event event, struct machine_actions *ret);

/* What becomes of a sandbox, by what the two journals say of it. */
enum recovery {
    RECOVER_UNDO,    /* nobody was told of it: it goes, with its VM */
    RECOVER_ADOPT,   /* it was reported running: its VM is looked for */
    RECOVER_STOP,    /* it ran, and not on this boot, or nothing is known of its VM */
    RECOVER_KEEP,    /* it had ended, or sleeps: stays as it is */
    RECOVER_BACK,    /* a resume that nobody was told of: it sleeps on, its VM goes */
    RECOVER_DAMAGED, /* stays visible and untouched */
    RECOVERY_COUNT
};
/* `state` is what its durable journal says, `run` what the run folder's does: NULL when there is no
 * such file. */
enum recovery recover_decide(
    const struct machine_state *state, bool state_damaged, const struct machine_state *run);

#endif
