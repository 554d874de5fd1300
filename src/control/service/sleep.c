/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Pausing and resuming.
 *
 * Theory of operation
 * The row says `pausing` or `resuming` before the host is asked, and afterwards what the host's
 * answer says, whose revision counts. A refusal turns the row back. When no answer came, nobody
 * here knows what became of it: the row stays as it is, and the reconciler settles it by what the
 * host reports. Both run to their end on the thread that began them, whatever the client does, and
 * nothing is undone when the client is gone: asking again says how it stands.
 *
 * The host is asked with any revision: the row may be behind it (an auto-pause that is not reported
 * yet), and the host's own state decides.
 */
#include "control/service/service_int.h"

#include <stdio.h>

#define LOG_MODULE "service"
#include "base/arena.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/log.h"

enum {
    PAUSE_MS = 300000,                                       /* 64 GiB to a slow disk */
    RESUME_MS = LIMIT_BOOT_MS + LIMIT_BOOT_QUEUE_MS + 15000, /* its disk alone may have to boot */
    INFO_ARENA_BYTES = 64 * 1024,
    ROW_ARENA_BYTES = 256 * 1024,
};

/* --- what all transitions share --- */

static int load_bare(struct service *s, const struct principal *who, const struct sandbox_id *id,
    struct sandbox_row *ret, struct err *e)
{
    CLEANUP(arena_done) struct arena arena = {0};
    arena_init(&arena, ROW_ARENA_BYTES);
    if (service_load(s, who, id, &arena, ret, e) < 0)
        return -1;
    ret->metadata = slice_of(NULL, 0);
    return 0;
}

int service_lock_settled(struct service *s, const struct principal *who,
    const struct sandbox_id *id, struct lock_entry *lock, struct sandbox_row *ret, struct err *e)
{
    int64_t deadline = deadline_in_ms(s->config.lock_wait_ms);
    /* Not there (or another team's) is said at once, without waiting for anybody. */
    if (load_bare(s, who, id, ret, e) < 0)
        return -1;
    for (;;) {
        if (lock_acquire(&s->locks, id, deadline, lock, e) < 0 || load_bare(s, who, id, ret, e) < 0)
            return -1;
        if (ret->status != SANDBOX_PAUSING && ret->status != SANDBOX_RESUMING) {
            lock_let_break_off(lock);
            return 0;
        }
        if (!lock_release_and_wait(lock, deadline))
            return err_set(e, ERR_CONFLICT, "another transition of the sandbox is under way");
    }
}

bool service_host_refused(const struct err *e)
{
    switch (e->kind) {
    case ERR_INVALID:
    case ERR_FORBIDDEN:
    case ERR_NOT_FOUND:
    case ERR_EXISTS:
    case ERR_BAD_STATE:
    case ERR_CONFLICT:
    case ERR_QUOTA:
    case ERR_NO_CAPACITY:
    case ERR_NO_SPACE:
    case ERR_AGENT:
        return true;
    default:
        return false;
    }
}

int service_bad_state(const struct sandbox_row *row, const char *wanted, struct err *e)
{
    const char *status = sandbox_status_name(row->status);
    err_field(e, status, "sandbox is %s, not %s", status, wanted);
    e->kind = ERR_BAD_STATE;
    return -1;
}

static bool is_phase_name(struct slice s)
{
    for (size_t i = 0; i < s.n; i++)
        if (!((s.p[i] >= 'a' && s.p[i] <= 'z') || (s.p[i] >= '0' && s.p[i] <= '9') ||
                s.p[i] == '_'))
            return false;
    return s.n > 0 && s.n <= PHASE_NAME_MAX;
}

void service_take_phases(const struct rpc_list *said, struct phase_list *ret)
{
    struct agent_phase *const *phases = said->items;
    *ret = (struct phase_list){.n = 0};
    for (size_t i = 0; i < said->n && ret->n < PHASES_MAX; i++) {
        struct phase_time *to = &ret->items[ret->n];
        if (!is_phase_name(phases[i]->name) || phases[i]->duration_us < 0)
            continue;
        (void)slice_copy_cstr(phases[i]->name, to->name, sizeof to->name);
        to->duration_us = phases[i]->duration_us;
        ret->n++;
    }
}

/* --- one transition --- */

static int begin(struct service *s, const struct sandbox_row *row, enum sandbox_status status,
    enum sandbox_reason reason, struct err *e)
{
    struct sandbox_change change = {
        .status = status,
        .reason = reason,
        .at_ms = clock_real_ms(),
        .request_id = log_context_request_id(),
    };
    return s->store->ops->sandbox_change(s->store, &row->id, &change, e);
}

/* True when it was tried and did not work, not only refused. */
static bool has_failed(const struct err *why)
{
    return why->kind == ERR_AGENT || why->kind == ERR_NO_SPACE;
}

/* The row goes back to what it was; a running or paused one says what failed. One that is stopped
 * keeps its reason, which decides whether it can be resumed. */
static void turn_back(struct service *s, const struct sandbox_row *row, const struct err *why)
{
    struct sandbox_change change = {
        .status = row->status,
        .reason = row->reason,
        .message = row->message,
        .at_ms = clock_real_ms(),
        .request_id = log_context_request_id(),
    };
    struct err e = {0};
    if (has_failed(why) && row->status != SANDBOX_STOPPED) {
        change.reason =
            row->status == SANDBOX_RUNNING ? REASON_PAUSE_FAILED : REASON_RESTORE_FAILED;
        change.message = service_public_message(why);
    }
    if (s->store->ops->sandbox_change(s->store, &row->id, &change, &e) < 0)
        log_err("a failed transition is not recorded error=\"%s\"", e.msg);
    lock_note_change(&s->locks);
}

/* The host was asked and did not do it, as far as is known. */
static int fail(struct service *s, const struct sandbox_row *row, struct err *e)
{
    if (service_host_refused(e))
        turn_back(s, row, e);
    else
        log_warn("the outcome of a transition is unknown error=\"%s\"", e->msg);
    if (!service_host_refused(e) || e->kind == ERR_NOT_FOUND)
        __atomic_store_n(&s->want_full, 1, __ATOMIC_RELAXED);
    if (e->kind == ERR_NOT_FOUND)
        return err_set(e, ERR_UNAVAILABLE, "the host does not know the sandbox");
    return -1;
}

/* The host's answer goes into the row. */
static int succeed(struct service *s, const struct sandbox_row *row,
    const struct agent_sandbox_info *info, enum sandbox_status want, struct err *e)
{
    char message[ERR_MSG_MAX];
    char host_ip[HOST_IP_MAX + 1];
    struct sandbox_change change;
    if (!info || !service_change_from_info(info, &change, message, host_ip)) {
        __atomic_store_n(&s->want_full, 1, __ATOMIC_RELAXED);
        return err_set(e, ERR_AGENT, "the agent's answer to a transition is no sandbox");
    }
    change.request_id = log_context_request_id();
    if (s->store->ops->sandbox_change(s->store, &row->id, &change, e) < 0) {
        __atomic_store_n(&s->want_full, 1, __ATOMIC_RELAXED);
        return -1;
    }
    lock_note_change(&s->locks);
    if (change.status != want)
        return err_set(e, ERR_AGENT, "the sandbox is %s after the transition",
            sandbox_status_name(change.status));
    log_info("sandbox is %s", sandbox_status_name(want));
    return 0;
}

/* --- pause --- */

static int pause_on_host(
    struct service *s, const struct sandbox_row *row, struct phase_list *phases, struct err *e)
{
    CLEANUP(arena_done) struct arena arena = {0};
    char call_id[CALL_ID_MAX + 1];
    struct agent_pause_response resp = {0};
    struct agent_pause_request req = {
        .sandbox_id = slice_cstr(row->id.text),
        .request_id = {call_id, CALL_ID_MAX},
    };
    arena_init(&arena, INFO_ARENA_BYTES);
    call_id_new(call_id);
    if (agent_call(s->agent, AGENT_PAUSE, &req, &resp, &arena, PAUSE_MS, e) < 0)
        return fail(s, row, e);
    service_take_phases(&resp.phases, phases);
    return succeed(s, row, resp.sandbox, SANDBOX_PAUSED, e);
}

int service_pause(struct service *s, const struct principal *who, const struct sandbox_id *id,
    struct arena *a, struct slept *ret, struct err *e)
{
    struct sandbox_row row;
    AUTO_LOCK lock = {0};
    if (service_lock_settled(s, who, id, &lock, &row, e) < 0 ||
        service_check_running(&row, e) < 0 || service_check_host(s, &row, e) < 0 ||
        begin(s, &row, SANDBOX_PAUSING, REASON_REQUESTED, e) < 0 ||
        pause_on_host(s, &row, &ret->phases, e) < 0)
        return -1;
    return service_load(s, who, id, a, &ret->row, e);
}

/* --- resume --- */

/* Stopped, but what it was is still on the host. */
static bool has_last_generation(const struct sandbox_row *row)
{
    return row->status == SANDBOX_STOPPED &&
           (row->reason == REASON_VM_EXITED || row->reason == REASON_LOST);
}

static int check_resumable(
    const struct sandbox_row *row, const struct resume_params *p, struct err *e)
{
    if (p->last_generation)
        return has_last_generation(row) ? 0 : service_bad_state(row, "stopped by accident", e);
    if (row->status == SANDBOX_PAUSED || (p->disk_only && has_last_generation(row)))
        return 0;
    return service_bad_state(row, "paused", e);
}

static int resume_on_host(struct service *s, const struct sandbox_row *row,
    const struct resume_params *p, struct phase_list *phases, struct err *e)
{
    CLEANUP(arena_done) struct arena arena = {0};
    char call_id[CALL_ID_MAX + 1];
    struct agent_resume_response resp = {0};
    struct agent_resume_request req = {
        .sandbox_id = slice_cstr(row->id.text),
        .timeout_sec = row->timeout_sec,
        .has_timeout_sec = true,
        .from = p->last_generation ? SLICE_LIT("last_generation") : slice_of(NULL, 0),
        .mode = p->disk_only ? SLICE_LIT("disk") : slice_of(NULL, 0),
        .request_id = {call_id, CALL_ID_MAX},
    };
    arena_init(&arena, INFO_ARENA_BYTES);
    call_id_new(call_id);
    if (agent_call(s->agent, AGENT_RESUME, &req, &resp, &arena, RESUME_MS, e) < 0)
        return fail(s, row, e);
    service_take_phases(&resp.phases, phases);
    return succeed(s, row, resp.sandbox, SANDBOX_RUNNING, e);
}

int service_resume(struct service *s, const struct principal *who, const struct sandbox_id *id,
    const struct resume_params *p, struct arena *a, struct slept *ret, struct err *e)
{
    struct sandbox_row row;
    AUTO_LOCK lock = {0};
    if (service_lock_settled(s, who, id, &lock, &row, e) < 0 || check_resumable(&row, p, e) < 0 ||
        service_check_host(s, &row, e) < 0 ||
        begin(s, &row, SANDBOX_RESUMING, REASON_NONE, e) < 0 ||
        resume_on_host(s, &row, p, &ret->phases, e) < 0)
        return -1;
    activity_note(&s->activity, id->text, clock_real_ms());
    return service_load(s, who, id, a, &ret->row, e);
}
