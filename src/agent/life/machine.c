/* SPDX-License-Identifier: Apache-2.0 */
/* Transitions of one sandbox. */
#include "agent/life/machine.h"

static bool move(struct machine_state *s, enum sandbox_status status, enum sandbox_reason reason)
{
    s->status = status;
    s->reason = reason;
    s->revision++;
    return true;
}

static bool has_vm(enum sandbox_status s)
{
    return s == SANDBOX_RUNNING || s == SANDBOX_PAUSING || s == SANDBOX_RESUMING;
}

static bool next_of_create(
    struct machine_state *s, enum machine_event event, struct machine_actions *ret)
{
    if (s->status != SANDBOX_PENDING)
        return false;
    if (event == EVENT_CREATED)
        return move(s, SANDBOX_RUNNING, REASON_NONE);
    *ret = (struct machine_actions){.release_host = true, .remove_files = true, .forget = true};
    return move(s, SANDBOX_ERROR, REASON_CREATE_FAILED);
}

/* While it pauses, the reason is what it will be paused for. */
static bool next_of_pause(
    struct machine_state *s, enum machine_event event, struct machine_actions *ret)
{
    if (event == EVENT_PAUSE || event == EVENT_IDLE)
        return s->status == SANDBOX_RUNNING &&
               move(s, SANDBOX_PAUSING, event == EVENT_IDLE ? REASON_IDLE : REASON_REQUESTED);
    if (s->status != SANDBOX_PAUSING)
        return false;
    if (event == EVENT_PAUSED) {
        *ret = (struct machine_actions){.write_journal = true, .release_host = true};
        return move(s, SANDBOX_PAUSED, s->reason);
    }
    ret->write_journal = true;
    return move(
        s, SANDBOX_RUNNING, event == EVENT_PAUSE_FAILED ? REASON_PAUSE_FAILED : REASON_NONE);
}

/* A sandbox that never had a VM, or is over, has nothing to be restored from. */
static bool can_restore(const struct machine_state *s)
{
    return s->status == SANDBOX_STOPPED &&
           (s->reason == REASON_VM_EXITED || s->reason == REASON_LOST);
}

/* The reason says where a resume goes back to when it fails. */
static bool next_of_resume(
    struct machine_state *s, enum machine_event event, struct machine_actions *ret)
{
    bool restores = s->reason == REASON_RESTORED;
    if (event == EVENT_RESUME)
        return s->status == SANDBOX_PAUSED && move(s, SANDBOX_RESUMING, REASON_NONE);
    if (event == EVENT_RESTORE)
        return can_restore(s) && move(s, SANDBOX_RESUMING, REASON_RESTORED);
    if (s->status != SANDBOX_RESUMING)
        return false;
    if (event == EVENT_RESUMED)
        return move(s, SANDBOX_RUNNING, s->reason);
    *ret = (struct machine_actions){.write_journal = true, .release_host = true};
    return restores ? move(s, SANDBOX_STOPPED, REASON_VM_EXITED)
                    : move(s, SANDBOX_PAUSED, REASON_RESTORE_FAILED);
}

bool machine_next(struct machine_state *s, enum machine_event event, struct machine_actions *ret)
{
    *ret = (struct machine_actions){0};
    switch (event) {
    case EVENT_CREATED:
    case EVENT_CREATE_FAILED:
        return next_of_create(s, event, ret);
    case EVENT_PAUSE:
    case EVENT_IDLE:
    case EVENT_PAUSED:
    case EVENT_PAUSE_FAILED:
    case EVENT_PAUSE_CANCELED:
        return next_of_pause(s, event, ret);
    case EVENT_RESUME:
    case EVENT_RESTORE:
    case EVENT_RESUMED:
    case EVENT_RESUME_FAILED:
        return next_of_resume(s, event, ret);
    case EVENT_VM_EXITED:
        if (!has_vm(s->status))
            return false;
        *ret = (struct machine_actions){.write_journal = true, .release_host = true};
        return move(s, SANDBOX_STOPPED, REASON_VM_EXITED);
    case EVENT_AGENT_STARTED:
        if (s->status == SANDBOX_STOPPED || s->status == SANDBOX_PAUSED)
            return false;
        /* Others may have seen newer revisions than the journal's; this one must win. */
        s->revision += MACHINE_UNJOURNALLED_MAX;
        ret->write_journal = true;
        return move(s, SANDBOX_STOPPED, REASON_VM_EXITED);
    case EVENT_DESTROY:
        *ret = (struct machine_actions){.release_host = true, .remove_files = true, .forget = true};
        return move(s, SANDBOX_STOPPED, REASON_DESTROYED);
    case MACHINE_EVENT_COUNT:
        break;
    }
    return false;
}

enum recovery recover_decide(
    const struct machine_state *state, bool state_damaged, const struct machine_state *run)
{
    if (state_damaged)
        return RECOVER_DAMAGED;
    if (!state)
        return RECOVER_UNDO;
    if (state->status == SANDBOX_STOPPED || state->status == SANDBOX_PAUSED)
        return RECOVER_KEEP;
    if (!run)
        return RECOVER_STOP;
    if (run->status == SANDBOX_RESUMING)
        return RECOVER_BACK;
    return run->status == SANDBOX_PENDING ? RECOVER_UNDO : RECOVER_ADOPT;
}
