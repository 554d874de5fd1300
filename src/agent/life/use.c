/* SPDX-License-Identifier: Apache-2.0 */
/* What is done in and with a sandbox that changes no state: exec, files, ping, timeout, lists. */
#include "agent/life/life_int.h"

#include <errno.h>
#include <string.h>
#include <time.h>

#include "agent/guest/guest.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "proto/limits.h"
#include "rpc/agent_v1.h"

enum {
    NOTE_EVERY_MS = 5000,
    TRANSITIONS_MAX = 4, /* that a call waits for, one after the other */
};

/* Activity is noted in the run folder now and then, so that it survives the agent. A note that
 * fails, or that a transition under way makes anyway, costs at most that much. */
static void touch(struct sandbox *s)
{
    struct err ignored = {0};
    bool due;
    {
        MUTEX_GUARD(&s->life->lock);
        s->entry.last_active_at_ms = clock_real_ms();
        due = s->entry.last_active_at_ms - s->noted_at_ms >= NOTE_EVERY_MS;
        if (due)
            s->noted_at_ms = s->entry.last_active_at_ms;
    }
    if (due && sandbox_trylock(s)) {
        if (s->has_slot)
            (void)sandbox_note(s, &ignored);
        sandbox_unlock(s);
    }
}

/* Counts a call into a sandbox that runs; the count keeps it awake, and its guest allocated. */
static enum sandbox_status count_call(struct sandbox *s)
{
    MUTEX_GUARD(&s->life->lock);
    if (s->entry.state.status == SANDBOX_RUNNING)
        s->calls++;
    return s->entry.state.status;
}

/* On its way to another state; a pause that nobody asked for is broken off. */
static int await_transition(struct sandbox *s, struct err *e)
{
    sandbox_cancel_pause(s);
    if (sandbox_lock(s, e) < 0)
        return -1;
    sandbox_unlock(s);
    return 0;
}

static int enter_running(struct sandbox *s, struct err *e)
{
    enum sandbox_status status = count_call(s);
    for (int i = 0;
         i < TRANSITIONS_MAX && (status == SANDBOX_PAUSING || status == SANDBOX_RESUMING); i++) {
        if (await_transition(s, e) < 0)
            return -1;
        status = count_call(s);
    }
    if (status == SANDBOX_RUNNING)
        return 0;
    return sandbox_bad_state(status, "running", e);
}

/* The running sandbox, with a reference: its `guest` may be used until leave. */
static struct sandbox *enter(struct life *l, const struct sandbox_id *id, struct err *e)
{
    struct sandbox *s = registry_find(l, id, e);
    if (!s)
        return NULL;
    if (enter_running(s, e) < 0) {
        sandbox_unref(s);
        return NULL;
    }
    touch(s);
    return s;
}

static void uncount_call(struct sandbox *s)
{
    MUTEX_GUARD(&s->life->lock);
    if (--s->calls == 0)
        (void)pthread_cond_broadcast(&s->life->transition_ended);
}

/* A call that broke because the sandbox went away under it is reported as what the sandbox has
 * become; one that broke by itself says only that: addresses of the host are nobody's business. */
static int leave(struct sandbox *s, int rc, struct err *e)
{
    struct life_info now;
    touch(s);
    uncount_call(s);
    sandbox_info(s, &now);
    sandbox_unref(s);
    if (rc == 0 || (e->kind != ERR_IO && e->kind != ERR_PROTOCOL && e->kind != ERR_UNAVAILABLE))
        return rc;
    if (now.entry.state.status != SANDBOX_RUNNING)
        return sandbox_bad_state(now.entry.state.status, "running", e);
    return err_set(e, ERR_AGENT, "the guest agent did not answer as it should");
}

int life_exec(struct life *l, const struct sandbox_id *id, const struct agent_exec_request *req,
    struct buf *out_stdout, struct buf *out_stderr, struct agent_exec_response *resp, struct err *e)
{
    struct agent_exec_request checked = *req;
    struct sandbox *s;
    if (req->cmd.n == 0 || req->cmd.n > LIMIT_PATH_MAX || memchr(req->cmd.p, '\0', req->cmd.n))
        return err_field(e, "cmd", "must be 1 to %d bytes without NUL", LIMIT_PATH_MAX);
    if (req->args.n > LIMIT_EXEC_ARGS_MAX)
        return err_field(e, "args", "more than %d", LIMIT_EXEC_ARGS_MAX);
    if (req->timeout_sec < 0 || req->timeout_sec > LIMIT_EXEC_TIMEOUT_SEC_MAX)
        return err_field(e, "timeout_sec", "must be between 1 and %d", LIMIT_EXEC_TIMEOUT_SEC_MAX);
    if (checked.timeout_sec == 0)
        checked.timeout_sec = LIMIT_EXEC_TIMEOUT_SEC_DEFAULT;
    s = enter(l, id, e);
    if (!s)
        return -1;
    return leave(s, guest_exec(s->guest, &checked, out_stdout, out_stderr, resp, e), e);
}

static int check_path(struct slice path, struct err *e)
{
    if (path.n == 0 || path.n > LIMIT_PATH_MAX || memchr(path.p, '\0', path.n))
        return err_field(e, "path", "must be 1 to %d bytes without NUL", LIMIT_PATH_MAX);
    return 0;
}

int life_read_file(struct life *l, const struct sandbox_id *id, struct slice path,
    struct slice user, struct buf *dst, struct err *e)
{
    struct sandbox *s;
    if (check_path(path, e) < 0 || !(s = enter(l, id, e)))
        return -1;
    return leave(s, guest_read_file(s->guest, path, user, dst, e), e);
}

int life_write_file(
    struct life *l, const struct sandbox_id *id, const struct guest_write *w, struct err *e)
{
    struct sandbox *s;
    if (check_path(w->path, e) < 0 || !(s = enter(l, id, e)))
        return -1;
    return leave(s, guest_write_file(s->guest, w, e), e);
}

int life_ping(
    struct life *l, const struct sandbox_id *id, int64_t *ret_last_active_ms, struct err *e)
{
    struct sandbox *s = enter(l, id, e);
    if (!s)
        return -1;
    {
        MUTEX_GUARD(&l->lock);
        *ret_last_active_ms = s->entry.last_active_at_ms;
    }
    uncount_call(s);
    sandbox_unref(s);
    return 0;
}

int life_set_timeout(struct life *l, const struct sandbox_id *id, int32_t timeout_sec,
    struct life_info *ret, struct err *e)
{
    struct sandbox *s;
    if (timeout_sec < 0 || timeout_sec > LIMIT_TIMEOUT_SEC_MAX)
        return err_field(e, "timeout_sec", "must be between 0 and %d", LIMIT_TIMEOUT_SEC_MAX);
    s = registry_find(l, id, e);
    if (!s)
        return -1;
    {
        MUTEX_GUARD(&l->lock);
        s->entry.timeout_sec = timeout_sec;
        s->noted_at_ms = 0;
        registry_changed_locked(l, s);
    }
    touch(s);
    sandbox_info(s, ret);
    sandbox_unref(s);
    return 0;
}

static bool is_auto_paused(const struct sandbox *s)
{
    return s->entry.state.status == SANDBOX_PAUSED && s->entry.state.reason == REASON_IDLE &&
           s->acknowledged < s->entry.state.revision;
}

void life_acknowledge(struct life *l, const struct sandbox_id *id, uint64_t revision)
{
    struct err ignored = {0};
    struct sandbox *s = registry_find(l, id, &ignored);
    if (!s)
        return;
    {
        MUTEX_GUARD(&l->lock);
        if (s->acknowledged < revision)
            s->acknowledged = revision;
    }
    sandbox_unref(s);
}

int life_list(struct life *l, uint64_t since, void (*each)(void *ctx, const struct life_info *info),
    void *ctx, struct life_summary *ret, struct err *e)
{
    int64_t spare;
    if (host_disk_spare(&l->host, &spare, &ret->disk_free_bytes, e) < 0)
        return -1;
    net_pool_usage(l->net, &ret->slots_total, &ret->slots_used);
    ret->host_id = l->host.id.text;
    ret->cluster_id = l->host.cluster_id.text;
    ret->epoch = l->host.epoch;
    ret->memory_mb_total = l->admission.memory_mb_total;
    {
        MUTEX_GUARD(&l->admission.lock);
        ret->memory_mb_used = l->admission.memory_mb_used;
    }
    MUTEX_GUARD(&l->lock);
    ret->host_revision = l->host_revision;
    if (since < l->last_forgotten)
        since = 0;
    ret->full = since == 0;
    for (size_t b = 0; b < REGISTRY_BUCKETS; b++)
        for (struct sandbox *s = l->buckets[b]; s; s = s->next) {
            struct life_info info = {.entry = s->entry, .auto_paused = is_auto_paused(s)};
            if (s->host_revision <= since)
                continue;
            memcpy(info.host_ip, s->host_ip, sizeof info.host_ip);
            each(ctx, &info);
        }
    return 0;
}

void life_wait_change(struct life *l, uint64_t since, int64_t deadline)
{
    const struct timespec until = {
        .tv_sec = (time_t)(deadline / 1000), .tv_nsec = deadline % 1000 * 1000000};
    MUTEX_GUARD(&l->lock);
    while (l->host_revision <= since && !l->closing)
        if (pthread_cond_timedwait(&l->changed, &l->lock, &until) == ETIMEDOUT)
            return;
}

int life_templates(struct life *l, void (*each)(void *ctx, const struct host_template *template),
    void *ctx, struct err *e)
{
    return host_templates_each(&l->host, each, ctx, e);
}

unsigned life_instance(const struct life *l)
{
    return l->host.instance;
}

const char *life_run_dir(const struct life *l)
{
    return l->host.run_dir;
}
