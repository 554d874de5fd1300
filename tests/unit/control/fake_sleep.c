/* SPDX-License-Identifier: Apache-2.0 */
/* The faked agent: pausing, resuming, snapshots. */
#include "fake_agent_int.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#include "base/cleanup.h"

/* Behind what was done: how it ends for the caller. */
static int leave(struct fake_agent *a, enum agent_method m, struct err *e)
{
    return a->lose[m] ? err_set(e, ERR_UNAVAILABLE, "the answer is lost") : 0;
}

char *fake_find_snapshot(struct fake_agent *a, struct slice id)
{
    for (size_t i = 0; i < FAKE_SNAPSHOTS_MAX; i++)
        if (slice_is(id, a->snapshots[i]))
            return a->snapshots[i];
    return NULL;
}

static struct rpc_list some_phases(struct arena *arena)
{
    static struct agent_phase phases[] = {
        {SLICE_LIT("quiesce"), 1200}, {SLICE_LIT("bad name"), 1}, {SLICE_LIT("save"), 34567}};
    struct agent_phase **list = arena_calloc(arena, 3, sizeof *list);
    for (size_t i = 0; i < 3; i++)
        list[i] = &phases[i];
    return (struct rpc_list){list, 3};
}

/* One transition of two steps: on the way, and there. */
static int move(struct fake_agent *a, struct slice id, const char *status, const char *reason,
    struct fake_sandbox **ret, struct err *e)
{
    struct fake_sandbox *b = fake_find(a, id);
    if (!b)
        return err_set(e, ERR_NOT_FOUND, "no sandbox");
    (void)snprintf(b->status, sizeof b->status, "%s", status);
    (void)snprintf(b->reason, sizeof b->reason, "%s", reason);
    b->revision++;
    fake_changed(a, b);
    *ret = b;
    return 0;
}

int fake_on_pause(struct rpc_call *call, const void *req, void *resp, struct err *e)
{
    struct fake_agent *a = call->ctx;
    const struct agent_pause_request *r = req;
    struct agent_pause_response *out = resp;
    struct fake_sandbox *b;
    MUTEX_GUARD(&a->mutex);
    if (fake_enter(a, call, AGENT_PAUSE, e) < 0 ||
        move(a, r->sandbox_id, "paused", "requested", &b, e) < 0)
        return -1;
    out->sandbox = fake_info(call->arena, b);
    out->phases = some_phases(call->arena);
    return leave(a, AGENT_PAUSE, e);
}

int fake_on_resume(struct rpc_call *call, const void *req, void *resp, struct err *e)
{
    struct fake_agent *a = call->ctx;
    const struct agent_resume_request *r = req;
    struct agent_resume_response *out = resp;
    struct fake_sandbox *b;
    MUTEX_GUARD(&a->mutex);
    (void)snprintf(a->resume_seen, sizeof a->resume_seen, "%d|%.*s|%.*s",
        r->has_timeout_sec ? r->timeout_sec : -1, (int)r->from.n, r->from.n ? r->from.p : "",
        (int)r->mode.n, r->mode.n ? r->mode.p : "");
    if (fake_enter(a, call, AGENT_RESUME, e) < 0 ||
        move(a, r->sandbox_id, "running", "", &b, e) < 0)
        return -1;
    b->timeout_sec = r->timeout_sec;
    out->sandbox = fake_info(call->arena, b);
    out->phases = some_phases(call->arena);
    return leave(a, AGENT_RESUME, e);
}

int fake_on_create_snapshot(struct rpc_call *call, const void *req, void *resp, struct err *e)
{
    struct fake_agent *a = call->ctx;
    const struct agent_create_snapshot_request *r = req;
    struct agent_create_snapshot_response *out = resp;
    struct fake_sandbox *b;
    char *at;
    MUTEX_GUARD(&a->mutex);
    (void)slice_copy_cstr(r->snapshot_id, a->snapshot_id, sizeof a->snapshot_id);
    if (fake_enter(a, call, AGENT_CREATE_SNAPSHOT, e) < 0)
        return -1;
    b = fake_find(a, r->sandbox_id);
    at = fake_find_snapshot(a, SLICE_LIT(""));
    if (!b || !at)
        return err_set(e, ERR_NOT_FOUND, "no sandbox, or no room");
    (void)slice_copy_cstr(r->snapshot_id, at, ID_TEXT_MAX + 1);
    (void)pthread_cond_broadcast(&a->changed);
    out->snapshot = arena_alloc(call->arena, sizeof *out->snapshot);
    *out->snapshot = (struct agent_snapshot_info){
        .snapshot_id = fake_text(call->arena, at),
        .generation_id = SLICE_LIT("0f8fad5b-d9cb-469f-a165-70867728950e"),
        .vcpus = a->bad_snapshot ? 0 : 3,
        .memory_mb = 768,
        .size_bytes = 123456,
        .default_user = SLICE_LIT("user"),
        .created_at_ms = 1,
    };
    out->sandbox = fake_info(call->arena, b);
    out->phases = some_phases(call->arena);
    return leave(a, AGENT_CREATE_SNAPSHOT, e);
}

int fake_on_delete_snapshot(struct rpc_call *call, const void *req, void *resp, struct err *e)
{
    struct fake_agent *a = call->ctx;
    const struct agent_delete_snapshot_request *r = req;
    char *at;
    MUTEX_GUARD(&a->mutex);
    if (fake_enter(a, call, AGENT_DELETE_SNAPSHOT, e) < 0)
        return -1;
    at = fake_find_snapshot(a, r->snapshot_id);
    if (at)
        at[0] = '\0';
    (void)pthread_cond_broadcast(&a->changed);
    return leave(a, AGENT_DELETE_SNAPSHOT, e);
}

void fake_lose(struct fake_agent *a, enum agent_method m, bool lose)
{
    MUTEX_GUARD(&a->mutex);
    a->lose[m] = lose;
}

bool fake_has_snapshot(struct fake_agent *a, const char *id)
{
    MUTEX_GUARD(&a->mutex);
    return fake_find_snapshot(a, slice_cstr(id)) != NULL;
}

static size_t count_snapshots(const struct fake_agent *a)
{
    size_t n = 0;
    for (size_t i = 0; i < FAKE_SNAPSHOTS_MAX; i++)
        n += a->snapshots[i][0] != '\0';
    return n;
}

size_t fake_count_snapshots(struct fake_agent *a)
{
    MUTEX_GUARD(&a->mutex);
    return count_snapshots(a);
}

void fake_wait_snapshots(struct fake_agent *a, size_t n)
{
    struct timespec until = fake_patience();
    MUTEX_GUARD(&a->mutex);
    while (count_snapshots(a) != n)
        if (pthread_cond_timedwait(&a->changed, &a->mutex, &until) != 0) {
            print_error("the host has %zu snapshots, not %zu\n", count_snapshots(a), n);
            abort();
        }
}
