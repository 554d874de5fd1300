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

enum { NOTE_EVERY_MS = 5000 };

/* Activity is noted in the run folder now and then, so that it survives the agent. A note that
 * fails costs at most that much. */
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
    if (due && sandbox_lock(s, &ignored) == 0) {
        if (s->has_slot)
            (void)sandbox_note(s, &ignored);
        sandbox_unlock(s);
    }
}

/* The running sandbox, with a reference: its `guest` may be used until sandbox_unref. */
static struct sandbox *enter(struct life *l, const struct sandbox_id *id, struct err *e)
{
    struct sandbox *s = registry_find(l, id, e);
    enum sandbox_status status;
    if (!s)
        return NULL;
    {
        MUTEX_GUARD(&l->lock);
        status = s->entry.state.status;
    }
    if (status != SANDBOX_RUNNING) {
        (void)err_set(e, ERR_BAD_STATE, "sandbox is %s, not running", sandbox_status_name(status));
        sandbox_unref(s);
        return NULL;
    }
    touch(s);
    return s;
}

/* A call that broke because the sandbox went away under it is reported as what the sandbox has
 * become; one that broke by itself says only that: addresses of the host are nobody's business. */
static int leave(struct sandbox *s, int rc, struct err *e)
{
    struct life_info now;
    touch(s);
    sandbox_info(s, &now);
    sandbox_unref(s);
    if (rc == 0 || (e->kind != ERR_IO && e->kind != ERR_PROTOCOL && e->kind != ERR_UNAVAILABLE))
        return rc;
    if (now.entry.state.status != SANDBOX_RUNNING)
        return err_set(e, ERR_BAD_STATE, "sandbox is %s, not running",
            sandbox_status_name(now.entry.state.status));
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
            struct life_info info = {.entry = s->entry};
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
