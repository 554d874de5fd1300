/* SPDX-License-Identifier: Apache-2.0 */
/* Destroying, changing and pinging sandboxes. */
#include "control/service/decide.h"
#include "control/service/service_int.h"

#define LOG_MODULE "service"
#include "base/arena.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/log.h"

enum {
    DESTROY_MS = 60000,
    SETTLE_MS = 2000, /* what is well ends meanwhile, mostly */
    UPDATE_MS = 10000,
    PING_MS = 5000,
    ROW_ARENA_BYTES = 1024 * 1024, /* one row with the largest metadata, read twice and merged */
};

int service_destroy_on_host(struct service *s, const struct sandbox_id *id, struct err *e)
{
    CLEANUP(arena_done) struct arena arena = {0};
    char call_id[CALL_ID_MAX + 1];
    struct agent_destroy_response resp = {0};
    struct agent_destroy_request req = {
        .sandbox_id = slice_cstr(id->text),
        .request_id = {call_id, CALL_ID_MAX},
    };
    arena_init(&arena, 4096);
    call_id_new(call_id);
    if (agent_call(s->agent, AGENT_DESTROY, &req, &resp, &arena, DESTROY_MS, e) == 0)
        return 0;
    if (e->kind != ERR_NOT_FOUND)
        return -1;
    *e = (struct err){0};
    return 0;
}

void service_remove_later(struct service *s, const struct sandbox_id *id)
{
    if (!remover_add(&s->remover, id))
        __atomic_store_n(&s->want_full, 1, __ATOMIC_RELAXED); /* the reconciler finds it again */
}

int service_check_host(struct service *s, const struct sandbox_row *row, struct err *e)
{
    struct host_id now = service_host(s);
    if (row->host.text[0] && now.text[0] && strcmp(row->host.text, now.text) != 0)
        return err_set(e, ERR_UNAVAILABLE, "the sandbox's host is away");
    return 0;
}

static int destroy_locked(struct service *s, const struct sandbox_row *row, struct err *e)
{
    struct sandbox_change change = {
        .status = SANDBOX_STOPPED,
        .reason = REASON_DESTROYED,
        .request_id = log_context_request_id(),
    };
    if (row->status == SANDBOX_STOPPED && row->reason == REASON_DESTROYED)
        return 0;
    if (!sandbox_row_is_over(row) && service_check_host(s, row, e) < 0)
        return -1;
    if (service_destroy_on_host(s, &row->id, e) < 0)
        return -1;
    change.at_ms = clock_real_ms();
    if (s->store->ops->sandbox_change(s->store, &row->id, &change, e) < 0)
        return -1;
    log_info("sandbox destroyed");
    return 0;
}

/* A pause, a resume or a snapshot that takes long, because a VM hangs or is large, is not waited
 * for: the host breaks it off when it is told to destroy, and then it ends here too. */
static int lock_to_destroy(
    struct service *s, const struct sandbox_row *row, struct lock_entry *ret, struct err *e)
{
    int64_t wait_ms = s->config.lock_wait_ms;
    int64_t settle_ms = wait_ms < SETTLE_MS ? wait_ms : SETTLE_MS;
    if (lock_acquire(&s->locks, &row->id, deadline_in_ms(settle_ms), ret, e) == 0)
        return 0;
    *e = (struct err){0};
    if (lock_breaks_off(&s->locks, &row->id) &&
        (service_check_host(s, row, e) < 0 || service_destroy_on_host(s, &row->id, e) < 0))
        return -1;
    return lock_acquire(&s->locks, &row->id, deadline_in_ms(wait_ms), ret, e);
}

int service_destroy(
    struct service *s, const struct principal *who, const struct sandbox_id *id, struct err *e)
{
    CLEANUP(arena_done) struct arena arena = {0};
    struct sandbox_row row;
    AUTO_LOCK lock = {0};
    arena_init(&arena, ROW_ARENA_BYTES);
    /* Not there (or another team's) is said at once, without waiting for anybody. */
    if (service_load(s, who, id, &arena, &row, e) < 0 || lock_to_destroy(s, &row, &lock, e) < 0 ||
        service_load(s, who, id, &arena, &row, e) < 0)
        return -1;
    return destroy_locked(s, &row, e);
}

static int update_on_host(
    struct service *s, const struct sandbox_id *id, int timeout_sec, struct err *e)
{
    CLEANUP(arena_done) struct arena arena = {0};
    char call_id[CALL_ID_MAX + 1];
    struct agent_update_response resp = {0};
    struct agent_update_request req = {
        .sandbox_id = slice_cstr(id->text),
        .timeout_sec = timeout_sec,
        .has_timeout_sec = true,
        .request_id = {call_id, CALL_ID_MAX},
    };
    arena_init(&arena, 64 * 1024);
    call_id_new(call_id);
    return agent_call(s->agent, AGENT_UPDATE, &req, &resp, &arena, UPDATE_MS, e);
}

/* The host knows the time-out of what runs; a resume tells it that of a sleeper, also of one that
 * fell asleep unknown to us. */
static int update_running(
    struct service *s, const struct sandbox_row *row, int timeout_sec, struct err *e)
{
    if (row->status != SANDBOX_RUNNING || update_on_host(s, &row->id, timeout_sec, e) == 0)
        return 0;
    if (e->kind != ERR_BAD_STATE || strcmp(e->where, sandbox_status_name(SANDBOX_PAUSED)) != 0)
        return -1;
    *e = (struct err){0};
    return 0;
}

static int update_locked(struct service *s, const struct sandbox_row *row,
    const struct update_params *p, struct arena *a, struct err *e)
{
    struct sandbox_patch patch = {
        .has_timeout_sec = p->has_timeout_sec,
        .timeout_sec = p->timeout_sec,
        .at_ms = clock_real_ms(),
    };
    if (p->n_metadata > 0 &&
        metadata_apply(row->metadata, p->metadata, p->n_metadata, a, &patch.metadata, e) < 0)
        return -1;
    if (p->has_timeout_sec && update_running(s, row, p->timeout_sec, e) < 0)
        return -1;
    return s->store->ops->sandbox_patch(s->store, &row->id, &patch, e);
}

int service_update(struct service *s, const struct principal *who, const struct sandbox_id *id,
    const struct update_params *p, struct arena *a, struct sandbox_row *ret, struct err *e)
{
    struct sandbox_row row;
    AUTO_LOCK lock = {0};
    if (service_lock_settled(s, who, id, &lock, &row, e) < 0 ||
        service_load(s, who, id, a, &row, e) < 0 || update_locked(s, &row, p, a, e) < 0)
        return -1;
    return service_load(s, who, id, a, ret, e);
}

int service_ping(
    struct service *s, const struct principal *who, const struct sandbox_id *id, struct err *e)
{
    CLEANUP(arena_done) struct arena arena = {0};
    struct agent_ping_request req = {.sandbox_id = slice_cstr(id->text)};
    struct agent_ping_response resp = {0};
    arena_init(&arena, ROW_ARENA_BYTES);
    if (service_await_running(s, who, id, e) < 0 ||
        agent_call(s->agent, AGENT_PING, &req, &resp, &arena, PING_MS, e) < 0)
        return -1;
    activity_note(&s->activity, id->text,
        resp.last_active_at_ms > 0 ? resp.last_active_at_ms : clock_real_ms());
    return 0;
}
