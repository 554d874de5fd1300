/* SPDX-License-Identifier: Apache-2.0 */
/* Transitions of one sandbox. */
#include "agent/life/machine.h"

static void move(struct machine_state *s, enum sandbox_status status, enum sandbox_reason reason)
{
    s->status = status;
    s->reason = reason;
    s->revision++;
}

static bool has_vm(enum sandbox_status s)
{
    return s == SANDBOX_RUNNING || s == SANDBOX_PAUSING || s == SANDBOX_RESUMING;
}

bool machine_next(struct machine_state *s, enum machine_event event, struct machine_actions *ret)
{
    *ret = (struct machine_actions){0};
    switch (event) {
    case EVENT_CREATED:
        if (s->status != SANDBOX_PENDING)
            return false;
        move(s, SANDBOX_RUNNING, REASON_NONE);
        return true;
    case EVENT_CREATE_FAILED:
        if (s->status != SANDBOX_PENDING)
            return false;
        move(s, SANDBOX_ERROR, REASON_CREATE_FAILED);
        *ret = (struct machine_actions){.release_host = true, .remove_files = true, .forget = true};
        return true;
    case EVENT_VM_EXITED:
        if (!has_vm(s->status))
            return false;
        move(s, SANDBOX_STOPPED, REASON_VM_EXITED);
        *ret = (struct machine_actions){.release_host = true, .write_journal = true};
        return true;
    case EVENT_AGENT_STARTED:
        if (s->status == SANDBOX_STOPPED || s->status == SANDBOX_PAUSED)
            return false;
        /* Others may have seen newer revisions than the journal's; this one must win. */
        s->revision += MACHINE_UNJOURNALLED_MAX;
        move(s, SANDBOX_STOPPED, REASON_VM_EXITED);
        *ret = (struct machine_actions){.write_journal = true};
        return true;
    case EVENT_DESTROY:
        move(s, SANDBOX_STOPPED, REASON_DESTROYED);
        *ret = (struct machine_actions){.release_host = true, .remove_files = true, .forget = true};
        return true;
    case MACHINE_EVENT_COUNT:
        break;
    }
    return false;
}
