/* SPDX-License-Identifier: Apache-2.0 */
/* The faked agent. */
#include "fake_agent_int.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <time.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "base/sock.h"
#include "http/server.h"
#include "proto/limits.h"
#include "rpc/server.h"

enum { PATIENCE_SEC = 20 };

struct timespec fake_patience(void)
{
    struct timespec ts;
    (void)clock_gettime(CLOCK_REALTIME, &ts);
    ts.tv_sec += PATIENCE_SEC;
    return ts;
}

struct fake_sandbox *fake_find(struct fake_agent *a, struct slice id)
{
    for (size_t i = 0; i < FAKE_SANDBOXES_MAX; i++)
        if (a->boxes[i].id[0] && slice_is(id, a->boxes[i].id))
            return &a->boxes[i];
    return NULL;
}

static struct fake_sandbox *add(struct fake_agent *a, struct slice id)
{
    for (size_t i = 0; i < FAKE_SANDBOXES_MAX; i++)
        if (!a->boxes[i].id[0]) {
            a->boxes[i] = (struct fake_sandbox){.status = "running"};
            (void)slice_copy_cstr(id, a->boxes[i].id, sizeof a->boxes[i].id);
            return &a->boxes[i];
        }
    abort();
}

void fake_changed(struct fake_agent *a, struct fake_sandbox *b)
{
    b->revision++;
    b->changed_at = ++a->host_revision;
    (void)pthread_cond_broadcast(&a->changed);
}

/* Counts the call, waits while it is held, fails as scripted. The mutex is held. */
int fake_enter(struct fake_agent *a, struct rpc_call *call, enum agent_method m, struct err *e)
{
    (void)slice_copy_cstr(
        http_request_header(call->x, "X-Request-Id"), a->request_id, sizeof a->request_id);
    a->calls[m]++;
    a->waiting[m]++;
    (void)pthread_cond_broadcast(&a->changed);
    while (a->held[m] && a->passes[m] == 0)
        (void)pthread_cond_wait(&a->changed, &a->mutex);
    if (a->held[m])
        a->passes[m]--;
    a->waiting[m]--;
    (void)pthread_cond_broadcast(&a->changed);
    if (a->fail[m].kind == ERR_NONE)
        return 0;
    *e = a->fail[m];
    return -1;
}

struct slice fake_text(struct arena *arena, const char *s)
{
    return slice_of(arena_strndup(arena, s, strlen(s)), strlen(s));
}

struct agent_sandbox_info *fake_info(struct arena *arena, const struct fake_sandbox *b)
{
    struct agent_sandbox_info *info = arena_alloc(arena, sizeof *info);
    *info = (struct agent_sandbox_info){
        .sandbox_id = fake_text(arena, b->id),
        .status = fake_text(arena, b->status),
        .state_reason = fake_text(arena, b->reason),
        .template = SLICE_LIT("minimal"),
        .vcpus = b->vcpus,
        .memory_mb = b->memory_mb,
        .timeout_sec = b->timeout_sec,
        .host_ip = SLICE_LIT("10.11.0.2"),
        .created_at_ms = 1000,
        .started_at_ms = 2000,
        .status_since_ms = 3000,
        .revision = b->revision,
    };
    return info;
}

static int on_create(struct rpc_call *call, const void *req, void *resp, struct err *e)
{
    struct fake_agent *a = call->ctx;
    const struct agent_create_request *r = req;
    struct agent_create_response *out = resp;
    const struct rpc_entry *env = r->env.items;
    struct fake_sandbox *b;
    size_t n = 0;
    MUTEX_GUARD(&a->mutex);
    (void)slice_copy_cstr(r->sandbox_id, a->created_id, sizeof a->created_id);
    a->created_env[0] = '\0';
    for (size_t i = 0; i < r->env.n; i++)
        n += (size_t)snprintf(a->created_env + n, sizeof a->created_env - n, "%.*s=%.*s;",
            (int)env[i].key.n, env[i].key.p, (int)env[i].value.n, env[i].value.p);
    (void)snprintf(a->created_from, sizeof a->created_from, "%.*s|%.*s|%d|%d", (int)r->template.n,
        r->template.p, (int)r->snapshot_id.n, r->snapshot_id.n ? r->snapshot_id.p : "", r->vcpus,
        r->memory_mb);
    if (fake_enter(a, call, AGENT_CREATE, e) < 0)
        return -1;
    if (r->snapshot_id.n > 0 && !fake_find_snapshot(a, r->snapshot_id))
        return err_set(e, ERR_NOT_FOUND, "no snapshot");
    b = add(a, r->sandbox_id);
    b->vcpus = r->vcpus;
    b->memory_mb = r->memory_mb;
    b->timeout_sec = r->timeout_sec;
    fake_changed(a, b);
    out->sandbox = fake_info(call->arena, b);
    return 0;
}

static int on_destroy(struct rpc_call *call, const void *req, void *resp, struct err *e)
{
    struct fake_agent *a = call->ctx;
    const struct agent_destroy_request *r = req;
    struct fake_sandbox *b;
    MUTEX_GUARD(&a->mutex);
    if (fake_enter(a, call, AGENT_DESTROY, e) < 0)
        return -1;
    b = fake_find(a, r->sandbox_id);
    if (b)
        b->id[0] = '\0';
    a->host_revision++;
    (void)pthread_cond_broadcast(&a->changed);
    return 0;
}

static void take_acks(struct fake_agent *a, const struct agent_list_request *r)
{
    struct agent_acknowledged *const *acks = r->ack_auto_paused.items;
    for (size_t i = 0; i < r->ack_auto_paused.n; i++)
        if (slice_is(acks[i]->id, a->auto_paused)) {
            a->auto_paused[0] = '\0';
            a->acked_revision = acks[i]->revision;
        }
}

static void wait_for_change(struct fake_agent *a, const struct agent_list_request *r)
{
    struct timespec until;
    (void)clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += r->wait_ms / 1000;
    until.tv_nsec += (long)(r->wait_ms % 1000) * 1000000;
    until.tv_sec += until.tv_nsec / 1000000000;
    until.tv_nsec %= 1000000000;
    a->wait_ms = r->wait_ms;
    a->in_wait++;
    (void)pthread_cond_broadcast(&a->changed);
    while (a->waits && !a->stopping && a->host_revision <= r->since_revision)
        if (pthread_cond_timedwait(&a->changed, &a->mutex, &until) != 0)
            break;
    a->in_wait--;
}

static void fill_templates(
    struct fake_agent *a, struct arena *arena, struct agent_list_response *out)
{
    struct agent_template_info **list = arena_calloc(arena, 2, sizeof *list);
    struct agent_template_info *infos = arena_calloc(arena, 2, sizeof *infos);
    infos[0] = (struct agent_template_info){.name = SLICE_LIT("minimal"),
        .size_bytes = 4096,
        .default_user = SLICE_LIT("root"),
        .created_at_ms = 1000};
    infos[1] = (struct agent_template_info){.name = SLICE_LIT("base"),
        .size_bytes = 8192,
        .default_user = SLICE_LIT("user"),
        .created_at_ms = 2000,
        .building = a->building};
    list[0] = &infos[0];
    list[1] = &infos[1];
    out->base_templates = (struct rpc_list){list, 2};
}

static void fill_auto_paused(
    struct fake_agent *a, struct arena *arena, struct agent_list_response *out)
{
    struct slice *one = arena_alloc(arena, sizeof *one);
    *one = fake_text(arena, a->auto_paused);
    out->auto_paused_sandbox_ids = (struct rpc_list){one, a->auto_paused[0] ? 1 : 0};
}

static void fill_histograms(
    struct fake_agent *a, struct arena *arena, struct agent_list_response *out)
{
    static uint64_t buckets[] = {0, 0, 1, 1, 1, 2, 2, 2, 2, 2, 2, 2, 2, 2};
    static struct agent_histogram all[] = {
        {SLICE_LIT("pause"), SLICE_LIT("save"), {buckets, 14}, 1500000, 2},
        {SLICE_LIT("resume"), SLICE_LIT("load"), {buckets, 14}, 5, 2},
        {SLICE_LIT("pause"), SLICE_LIT("quiesce"), {buckets, 14}, 7, 2},
        {SLICE_LIT("pause"), SLICE_LIT("a\"b"), {buckets, 14}, 7, 2},
        {SLICE_LIT("pause"), SLICE_LIT("short"), {buckets, 13}, 7, 2},
    };
    struct agent_histogram **list = arena_calloc(arena, ARRAY_LEN(all), sizeof *list);
    for (size_t i = 0; i < ARRAY_LEN(all); i++)
        list[i] = &all[i];
    out->histograms = (struct rpc_list){list, a->histograms ? ARRAY_LEN(all) : 0};
}

static int on_list(struct rpc_call *call, const void *req, void *resp, struct err *e)
{
    static const struct slice names[] = {SLICE_LIT("minimal"), SLICE_LIT("base")};
    static struct agent_capacity capacity = {4096, 1024, 16, 2, 1 << 30};
    struct fake_agent *a = call->ctx;
    const struct agent_list_request *r = req;
    struct agent_list_response *out = resp;
    struct agent_sandbox_info **infos =
        arena_calloc(call->arena, FAKE_SANDBOXES_MAX, sizeof *infos);
    MUTEX_GUARD(&a->mutex);
    if (fake_enter(a, call, AGENT_LIST, e) < 0)
        return -1;
    take_acks(a, r);
    wait_for_change(a, r);
    for (size_t i = 0; i < FAKE_SANDBOXES_MAX; i++)
        if (a->boxes[i].id[0] && a->boxes[i].changed_at > r->since_revision)
            infos[out->sandboxes.n++] = fake_info(call->arena, &a->boxes[i]);
    out->sandboxes.items = infos;
    out->host_id = fake_text(call->arena, a->host_id);
    out->cluster_id = fake_text(call->arena, a->cluster_id);
    out->agent_epoch = a->epoch;
    out->host_revision = a->host_revision;
    out->full = r->since_revision == 0 && !a->incomplete;
    out->capacity = &capacity;
    fill_templates(a, call->arena, out);
    fill_auto_paused(a, call->arena, out);
    fill_histograms(a, call->arena, out);
    out->templates = (struct rpc_list){(void *)(uintptr_t)names, a->building ? 1 : 2};
    return 0;
}

static int on_ping(struct rpc_call *call, const void *req, void *resp, struct err *e)
{
    struct fake_agent *a = call->ctx;
    struct agent_ping_response *out = resp;
    MUTEX_GUARD(&a->mutex);
    out->last_active_at_ms = 4102444800000; /* 2100-01-01 */
    return fake_enter(a, call, AGENT_PING, e);
}

static int on_update(struct rpc_call *call, const void *req, void *resp, struct err *e)
{
    struct fake_agent *a = call->ctx;
    const struct agent_update_request *r = req;
    struct agent_update_response *out = resp;
    struct fake_sandbox *b;
    MUTEX_GUARD(&a->mutex);
    if (fake_enter(a, call, AGENT_UPDATE, e) < 0)
        return -1;
    b = fake_find(a, r->sandbox_id);
    if (!b)
        return err_set(e, ERR_NOT_FOUND, "no sandbox");
    b->timeout_sec = r->timeout_sec;
    out->sandbox = fake_info(call->arena, b);
    return 0;
}

static int on_exec(struct rpc_call *call, const void *req, void *resp, struct err *e)
{
    struct fake_agent *a = call->ctx;
    const struct agent_exec_request *r = req;
    const struct slice *args = r->args.items;
    size_t n;
    MUTEX_GUARD(&a->mutex);
    n = (size_t)snprintf(
        a->exec_seen, sizeof a->exec_seen, "%.*s|", (int)r->cmd.n, r->cmd.n ? r->cmd.p : "");
    for (size_t i = 0; i < r->args.n; i++)
        n += (size_t)snprintf(a->exec_seen + n, sizeof a->exec_seen - n, "%.*s|", (int)args[i].n,
            args[i].n ? args[i].p : "");
    (void)snprintf(a->exec_seen + n, sizeof a->exec_seen - n, "%.*s|%.*s|%.*s|%d", (int)r->cwd.n,
        r->cwd.n ? r->cwd.p : "", (int)r->user.n, r->user.n ? r->user.p : "", (int)r->stdin_bytes.n,
        r->stdin_bytes.n ? r->stdin_bytes.p : "", r->timeout_sec);
    if (fake_enter(a, call, AGENT_EXEC, e) < 0)
        return -1;
    *(struct agent_exec_response *)resp = a->exec_answer;
    return 0;
}

static int on_read(struct rpc_call *call, const void *req, void *resp, struct err *e)
{
    struct fake_agent *a = call->ctx;
    const struct agent_read_file_request *r = req;
    struct agent_read_file_response *out = resp;
    MUTEX_GUARD(&a->mutex);
    if (fake_enter(a, call, AGENT_READ_FILE, e) < 0)
        return -1;
    if (!slice_is(r->path, a->file_path))
        return err_set(e, ERR_NOT_FOUND, "no such file");
    out->content = slice_of(arena_strndup(call->arena, a->file.p, a->file.len), a->file.len);
    return 0;
}

static int on_write(struct rpc_call *call, const void *req, void *resp, struct err *e)
{
    struct fake_agent *a = call->ctx;
    const struct agent_write_file_request *r = req;
    MUTEX_GUARD(&a->mutex);
    if (fake_enter(a, call, AGENT_WRITE_FILE, e) < 0)
        return -1;
    (void)slice_copy_cstr(r->path, a->file_path, sizeof a->file_path);
    (void)slice_copy_cstr(r->user, a->file_user, sizeof a->file_user);
    a->file_mode = r->has_mode ? (int)r->mode : -1;
    buf_reset(&a->file);
    buf_append_slice(&a->file, r->content);
    return 0;
}

#define METHOD(rpc, kind, fn)                                                                      \
    {                                                                                              \
        .path = AGENT_V1_PATH(rpc), .request = &agent_##kind##_request_message,                    \
        .response = &agent_##kind##_response_message, .unary = (fn)                                \
    }
static const struct rpc_method methods[] = {
    METHOD("CreateSandbox", create, on_create),
    METHOD("DestroySandbox", destroy, on_destroy),
    METHOD("ListSandboxes", list, on_list),
    METHOD("PingSandbox", ping, on_ping),
    METHOD("UpdateSandbox", update, on_update),
    METHOD("PauseSandbox", pause, fake_on_pause),
    METHOD("ResumeSandbox", resume, fake_on_resume),
    METHOD("CreateSnapshot", create_snapshot, fake_on_create_snapshot),
    METHOD("DeleteSnapshot", delete_snapshot, fake_on_delete_snapshot),
    METHOD("Exec", exec, on_exec),
    METHOD("ReadFile", read_file, on_read),
    METHOD("WriteFile", write_file, on_write),
};

static void serve(struct http_exchange *x, void *ctx)
{
    (void)rpc_serve(x, methods, ARRAY_LEN(methods), LIMIT_RPC_MESSAGE_BYTES, ctx);
}

void fake_agent_listen(struct fake_agent *a)
{
    struct err e = {0};
    struct http_server_config config = {
        .listen_fd = sock_listen_unix(a->path, 0600, &e),
        .handler = serve,
        .ctx = a,
        .arena_bytes_max = (size_t)2 * LIMIT_RPC_MESSAGE_BYTES,
    };
    a->stopping = false;
    a->server = config.listen_fd < 0 ? NULL : http_server_start(&config, &e);
    if (!a->server)
        fail_msg("%s", e.msg);
}

void fake_agent_start(struct fake_agent *a, const char *socket_path)
{
    struct host_id host;
    *a = (struct fake_agent){.cluster_id = "c1", .epoch = 1, .host_revision = 1, .file_mode = -1};
    a->file = BUF_INIT(LIMIT_FILE_UNARY_BYTES);
    host_id_new(&host);
    memcpy(a->host_id, host.text, sizeof a->host_id);
    (void)snprintf(a->path, sizeof a->path, "%s", socket_path);
    (void)pthread_mutex_init(&a->mutex, NULL);
    (void)pthread_cond_init(&a->changed, NULL);
    fake_agent_listen(a);
}

void fake_agent_close(struct fake_agent *a)
{
    {
        MUTEX_GUARD(&a->mutex);
        a->stopping = true;
        (void)pthread_cond_broadcast(&a->changed);
    }
    http_server_stop(a->server);
    a->server = NULL;
    (void)unlink(a->path);
}

void fake_agent_done(struct fake_agent *a)
{
    fake_agent_close(a);
    buf_done(&a->file);
    (void)pthread_cond_destroy(&a->changed);
    (void)pthread_mutex_destroy(&a->mutex);
}

void fake_fail(struct fake_agent *a, enum agent_method m, enum err_kind kind, const char *where)
{
    MUTEX_GUARD(&a->mutex);
    a->fail[m] = (struct err){0};
    if (kind != ERR_NONE)
        (void)err_field(&a->fail[m], where, "said by the agent");
    a->fail[m].kind = kind;
}

void fake_hold(struct fake_agent *a, enum agent_method m, bool held)
{
    MUTEX_GUARD(&a->mutex);
    a->held[m] = held;
    (void)pthread_cond_broadcast(&a->changed);
}

void fake_pass_one(struct fake_agent *a, enum agent_method m)
{
    MUTEX_GUARD(&a->mutex);
    a->passes[m]++;
    (void)pthread_cond_broadcast(&a->changed);
}

static void wait_for(struct fake_agent *a, const int *value, int n, const char *what)
{
    struct timespec until = fake_patience();
    MUTEX_GUARD(&a->mutex);
    while (*value < n)
        if (pthread_cond_timedwait(&a->changed, &a->mutex, &until) != 0) {
            print_error("waited for %d %s, there were %d\n", n, what, *value);
            abort();
        }
}

void fake_wait_held(struct fake_agent *a, enum agent_method m, int n)
{
    wait_for(a, &a->waiting[m], n, "held calls");
}

void fake_wait_waiting(struct fake_agent *a)
{
    wait_for(a, &a->in_wait, 1, "lists that wait");
}

void fake_wait_calls(struct fake_agent *a, enum agent_method m, int n)
{
    wait_for(a, &a->calls[m], n, "calls");
}

int fake_calls(struct fake_agent *a, enum agent_method m)
{
    MUTEX_GUARD(&a->mutex);
    return a->calls[m];
}

/* Polls come one after another, so the third from now means that the second, which began after now,
 * is done. */
void fake_wait_polled(struct fake_agent *a)
{
    fake_wait_calls(a, AGENT_LIST, fake_calls(a, AGENT_LIST) + 3);
}

void fake_set(struct fake_agent *a, const char *id, const char *status, const char *reason)
{
    struct fake_sandbox *b;
    MUTEX_GUARD(&a->mutex);
    b = fake_find(a, slice_cstr(id));
    if (!b)
        b = add(a, slice_cstr(id));
    (void)snprintf(b->status, sizeof b->status, "%s", status);
    (void)snprintf(b->reason, sizeof b->reason, "%s", reason);
    fake_changed(a, b);
}

void fake_forget(struct fake_agent *a, const char *id)
{
    struct fake_sandbox *b;
    MUTEX_GUARD(&a->mutex);
    b = fake_find(a, slice_cstr(id));
    if (b)
        b->id[0] = '\0';
    a->host_revision++;
}

void fake_wait_gone(struct fake_agent *a, const char *id)
{
    struct timespec until = fake_patience();
    MUTEX_GUARD(&a->mutex);
    while (fake_find(a, slice_cstr(id)))
        if (pthread_cond_timedwait(&a->changed, &a->mutex, &until) != 0) {
            print_error("the host still has %s\n", id);
            abort();
        }
}

bool fake_has(struct fake_agent *a, const char *id)
{
    MUTEX_GUARD(&a->mutex);
    return fake_find(a, slice_cstr(id)) != NULL;
}
