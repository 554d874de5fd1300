/* SPDX-License-Identifier: Apache-2.0 */
/* Work inside a sandbox: exec and whole files. One database read and one call each. */
#include "control/service/service_int.h"

#include "base/arena.h"
#include "base/cleanup.h"
#include "base/clock.h"

enum {
    EXEC_GRACE_MS = 20000, /* over the command's own time: to kill its group and carry the output */
    FILE_MS = 120000,
    ROW_ARENA_BYTES = 256 * 1024,
};

int service_check_running(const struct sandbox_row *row, struct err *e)
{
    const char *status = sandbox_status_name(row->status);
    if (row->status == SANDBOX_RUNNING)
        return 0;
    err_field(e, status, "sandbox is %s, not running", status);
    e->kind = ERR_BAD_STATE;
    return -1;
}

static int load(struct service *s, const struct principal *who, const struct sandbox_id *id,
    struct sandbox_row *ret, struct err *e)
{
    CLEANUP(arena_done) struct arena arena = {0};
    arena_init(&arena, ROW_ARENA_BYTES);
    if (service_load(s, who, id, &arena, ret, e) < 0)
        return -1;
    ret->metadata = slice_of(NULL, 0);
    return 0;
}

int service_await_running(
    struct service *s, const struct principal *who, const struct sandbox_id *id, struct err *e)
{
    AUTO_LOCK lock = {0};
    struct sandbox_row row;
    if (load(s, who, id, &row, e) < 0)
        return -1;
    if (row.status == SANDBOX_PAUSING && row.reason == REASON_IDLE)
        return 0;
    if ((row.status == SANDBOX_PAUSING || row.status == SANDBOX_RESUMING) &&
        service_lock_settled(s, who, id, &lock, &row, e) < 0)
        return -1;
    return service_check_running(&row, e);
}

/* The sandbox may be anywhere between falling asleep and being awake again; what is said is never
 * that it runs. */
static int met_by_pause(
    struct service *s, const struct principal *who, const struct sandbox_id *id, struct err *e)
{
    CLEANUP(arena_done) struct arena arena = {0};
    struct sandbox_row row;
    const char *status;
    arena_init(&arena, ROW_ARENA_BYTES);
    if (service_load(s, who, id, &arena, &row, e) < 0)
        return -1;
    status = sandbox_status_name(row.status == SANDBOX_RUNNING ? SANDBOX_PAUSED : row.status);
    err_field(e, status, "a pause met the command; it goes on when the sandbox is resumed");
    e->kind = ERR_BAD_STATE;
    return -1;
}

int service_exec(struct service *s, const struct principal *who, const struct sandbox_id *id,
    struct agent_exec_request *req, struct arena *a, struct agent_exec_response *ret, struct err *e)
{
    int64_t timeout_ms = (int64_t)req->timeout_sec * 1000 + EXEC_GRACE_MS;
    struct agent_exec_response resp = {0};
    if (service_await_running(s, who, id, e) < 0)
        return -1;
    req->sandbox_id = slice_cstr(id->text);
    activity_note(&s->activity, id->text, clock_real_ms());
    if (agent_call(s->agent, AGENT_EXEC, req, &resp, a, timeout_ms, e) < 0)
        return -1;
    activity_note(&s->activity, id->text, clock_real_ms());
    *ret = resp;
    return resp.paused ? met_by_pause(s, who, id, e) : 0;
}

int service_write_file(struct service *s, const struct principal *who, const struct sandbox_id *id,
    const struct write_file_params *p, struct err *e)
{
    CLEANUP(arena_done) struct arena arena = {0};
    struct agent_write_file_response resp = {0};
    struct agent_write_file_request req = {
        .sandbox_id = slice_cstr(id->text),
        .path = p->path,
        .content = p->content,
        .user = p->user,
        .mode = p->mode,
        .has_mode = p->has_mode,
    };
    arena_init(&arena, 4096);
    if (service_await_running(s, who, id, e) < 0 ||
        agent_call(s->agent, AGENT_WRITE_FILE, &req, &resp, &arena, FILE_MS, e) < 0)
        return -1;
    activity_note(&s->activity, id->text, clock_real_ms());
    return 0;
}

int service_read_file(struct service *s, const struct principal *who, const struct sandbox_id *id,
    struct slice path, struct arena *a, struct slice *ret, struct err *e)
{
    struct agent_read_file_response resp = {0};
    struct agent_read_file_request req = {.sandbox_id = slice_cstr(id->text), .path = path};
    if (service_await_running(s, who, id, e) < 0 ||
        agent_call(s->agent, AGENT_READ_FILE, &req, &resp, a, FILE_MS, e) < 0)
        return -1;
    activity_note(&s->activity, id->text, clock_real_ms());
    *ret = resp.content;
    return 0;
}
