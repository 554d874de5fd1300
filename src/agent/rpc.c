/* SPDX-License-Identifier: Apache-2.0 */
/*
 * RPC handlers: messages in, life/ called, messages out. What is the host's own failure is logged
 * here with its details and answered without them: callers never see host paths.
 */
#define LOG_MODULE "rpc"
#include "agent/rpc.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "agent/guest/guest.h"
#include "agent/life/templates.h"
#include "agent/rpc_int.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/sock.h"
#include "http/server.h"
#include "http/status.h"
#include "proto/limits.h"

enum {
    THREADS_MAX = 512, /* an exec holds one for as long as it runs */
    CONNECTIONS_MAX = 2048,
    LIST_WAIT_MS_MAX = 30000,
    ARENA_BYTES_MAX = 320 << 20, /* a unary file beside its encoded form */
};

struct agent_rpc {
    struct life *life;
    struct http_server *server;
    char *path;
    uid_t control_uid;
};

struct slice rpc_copy(struct arena *a, const char *s)
{
    size_t n = strlen(s);
    char *p = arena_strndup(a, s, n);
    return slice_of(p, p ? n : 0);
}

struct agent_sandbox_info *rpc_sandbox_message(struct arena *a, const struct life_info *info)
{
    struct agent_sandbox_info *m = arena_alloc(a, sizeof *m);
    const struct journal_entry *s = &info->entry;
    if (!m)
        return NULL;
    *m = (struct agent_sandbox_info){.sandbox_id = rpc_copy(a, s->id.text),
        .status = slice_cstr(sandbox_status_name(s->state.status)),
        .template = rpc_copy(a, s->template),
        .vcpus = s->vcpus,
        .memory_mb = s->memory_mb,
        .host_ip = rpc_copy(a, info->host_ip),
        .created_at_ms = s->created_at_ms,
        .last_active_at_ms = s->last_active_at_ms,
        .timeout_sec = s->timeout_sec,
        .state_reason = slice_cstr(sandbox_reason_name(s->state.reason)),
        .state_message = rpc_copy(a, s->message),
        .revision = s->state.revision,
        .started_at_ms = s->started_at_ms,
        .status_since_ms = s->status_since_ms,
        .generation_id = rpc_copy(a, s->generation),
        .snapshot_id = rpc_copy(a, s->snapshot_id)};
    return m;
}

int rpc_take_sandbox_id(struct slice text, struct sandbox_id *ret, struct err *e)
{
    return sandbox_id_parse(text, ret) ? 0 : err_field(e, "sandbox_id", "not a sandbox id");
}

int rpc_no_memory(struct err *e)
{
    return err_set(e, ERR_NOMEM, "out of memory");
}

static int create_sandbox(struct rpc_call *call, const void *req, void *resp, struct err *e)
{
    const struct agent_create_request *r = req;
    struct agent_create_response *out = resp;
    struct life_create c = {.template = r->template,
        .snapshot_id = r->snapshot_id,
        .request_id = r->request_id,
        .vcpus = r->vcpus,
        .memory_mb = r->memory_mb,
        .timeout_sec = r->timeout_sec,
        .env = r->env.items,
        .n_env = r->env.n};
    struct life_info info;
    if (rpc_take_sandbox_id(r->sandbox_id, &c.id, e) < 0)
        return -1;
    log_context_set(log_context_request_id(), c.id.text);
    if (life_create(call->ctx, &c, &info, e) < 0)
        return -1;
    out->sandbox = rpc_sandbox_message(call->arena, &info);
    return out->sandbox ? 0 : rpc_no_memory(e);
}

static int destroy_sandbox(struct rpc_call *call, const void *req, void *resp, struct err *e)
{
    const struct agent_destroy_request *r = req;
    struct agent_destroy_response *out = resp;
    struct sandbox_id id;
    if (rpc_take_sandbox_id(r->sandbox_id, &id, e) < 0)
        return -1;
    log_context_set(log_context_request_id(), id.text);
    return life_destroy(call->ctx, &id, r->expected_revision, &out->revision, e);
}

void *rpc_lister_add(struct rpc_lister *l)
{
    if (l->list->n == l->cap) {
        size_t cap = l->cap ? l->cap * 2 : 16;
        char *items = arena_calloc(l->arena, cap, l->item_size);
        if (!items) {
            l->failed = true;
            return NULL;
        }
        if (l->list->n > 0)
            memcpy(items, l->list->items, l->list->n * l->item_size);
        l->list->items = items;
        l->cap = cap;
    }
    return (char *)l->list->items + l->item_size * l->list->n++;
}

struct sandbox_lister {
    struct rpc_lister sandboxes;
    struct rpc_lister auto_paused;
};

static void list_sandbox(void *ctx, const struct life_info *info)
{
    struct sandbox_lister *l = ctx;
    struct agent_sandbox_info *m = rpc_sandbox_message(l->sandboxes.arena, info);
    struct agent_sandbox_info **at = m ? rpc_lister_add(&l->sandboxes) : NULL;
    struct slice *id;
    if (!at) {
        l->sandboxes.failed = true;
        return;
    }
    *at = m;
    if (info->auto_paused && (id = rpc_lister_add(&l->auto_paused)))
        *id = m->sandbox_id;
}

static void take_acks(struct life *life, const struct rpc_list *acks)
{
    struct agent_acknowledged *const *items = acks->items;
    struct sandbox_id id;
    for (size_t i = 0; i < acks->n; i++)
        if (sandbox_id_parse(items[i]->id, &id))
            life_acknowledge(life, &id, items[i]->revision);
}

/* Names that a create may name, and beside them all that is known of each. */
struct template_lister {
    struct rpc_lister names;
    struct rpc_lister infos;
};

static struct agent_template_info *template_message(struct arena *a, const struct host_template *t)
{
    struct agent_template_info *m = arena_alloc(a, sizeof *m);
    if (m)
        *m = (struct agent_template_info){.name = rpc_copy(a, t->name),
            .size_bytes = t->allocated_bytes,
            .default_user = rpc_copy(a, t->default_user),
            .building = t->building,
            .created_at_ms = t->created_at_ms,
            .digest = rpc_copy(a, t->digest)};
    return m;
}

static void list_template(void *ctx, const struct host_template *template)
{
    struct template_lister *l = ctx;
    struct agent_template_info *m = template_message(l->infos.arena, template);
    struct agent_template_info **info = m ? rpc_lister_add(&l->infos) : NULL;
    struct slice *name = info ? rpc_lister_add(&l->names) : NULL;
    if (!name) {
        l->infos.failed = true;
        return;
    }
    *info = m;
    *name = m->name;
}

static int list_templates(struct rpc_call *call, struct agent_list_response *out, struct err *e)
{
    struct template_lister l = {
        .names = {.arena = call->arena, .list = &out->templates, .item_size = sizeof(struct slice)},
        .infos = {.arena = call->arena,
            .list = &out->base_templates,
            .item_size = sizeof(struct agent_template_info *)}};
    if (life_templates(call->ctx, list_template, &l, e) < 0)
        return -1;
    return l.names.failed || l.infos.failed ? rpc_no_memory(e) : 0;
}

static void fill_summary(
    struct arena *a, const struct life_summary *s, struct agent_list_response *out)
{
    out->host_id = rpc_copy(a, s->host_id);
    out->cluster_id = rpc_copy(a, s->cluster_id);
    out->agent_epoch = s->epoch;
    out->host_revision = s->host_revision;
    out->capacity = arena_alloc(a, sizeof *out->capacity);
    if (out->capacity)
        *out->capacity = (struct agent_capacity){.memory_mb_total = s->memory_mb_total,
            .memory_mb_used = s->memory_mb_used,
            .slots_total = (int32_t)s->slots_total,
            .slots_used = (int32_t)s->slots_used,
            .disk_free_bytes = s->disk_free_bytes};
}

static int list_sandboxes(struct rpc_call *call, const void *req, void *resp, struct err *e)
{
    const struct agent_list_request *r = req;
    struct agent_list_response *out = resp;
    struct life_summary summary;
    struct sandbox_lister l = {.sandboxes = {.arena = call->arena,
                                   .list = &out->sandboxes,
                                   .item_size = sizeof(struct agent_sandbox_info *)},
        .auto_paused = {.arena = call->arena,
            .list = &out->auto_paused_sandbox_ids,
            .item_size = sizeof(struct slice)}};
    take_acks(call->ctx, &r->ack_auto_paused);
    if (r->since_revision > 0 && r->wait_ms > 0)
        life_wait_change(call->ctx, r->since_revision,
            deadline_in_ms(r->wait_ms < LIST_WAIT_MS_MAX ? r->wait_ms : LIST_WAIT_MS_MAX));
    if (life_list(call->ctx, r->since_revision, list_sandbox, &l, &summary, e) < 0 ||
        list_templates(call, out, e) < 0 || rpc_list_histograms(call, out, e) < 0)
        return -1;
    fill_summary(call->arena, &summary, out);
    out->full = summary.full;
    return l.sandboxes.failed || l.auto_paused.failed || !out->capacity ? rpc_no_memory(e) : 0;
}

static int ping_sandbox(struct rpc_call *call, const void *req, void *resp, struct err *e)
{
    const struct agent_ping_request *r = req;
    struct agent_ping_response *out = resp;
    struct sandbox_id id;
    if (rpc_take_sandbox_id(r->sandbox_id, &id, e) < 0)
        return -1;
    return life_ping(call->ctx, &id, &out->last_active_at_ms, e);
}

static int update_sandbox(struct rpc_call *call, const void *req, void *resp, struct err *e)
{
    const struct agent_update_request *r = req;
    struct agent_update_response *out = resp;
    struct sandbox_id id;
    struct life_info info;
    if (rpc_take_sandbox_id(r->sandbox_id, &id, e) < 0)
        return -1;
    if (!r->has_timeout_sec)
        return err_field(e, "timeout_sec", "missing");
    if (life_set_timeout(call->ctx, &id, r->timeout_sec, &info, e) < 0)
        return -1;
    out->sandbox = rpc_sandbox_message(call->arena, &info);
    return out->sandbox ? 0 : rpc_no_memory(e);
}

/* Copies bytes into the call's arena, whose life is the answer's. */
static int to_arena(struct arena *a, struct slice from, struct slice *ret, struct err *e)
{
    char *p = from.n > 0 ? arena_strndup(a, from.p, from.n) : NULL;
    if (from.n > 0 && !p)
        return rpc_no_memory(e);
    *ret = slice_of(p, from.n);
    return 0;
}

static int exec_in(struct rpc_call *call, const void *req, void *resp, struct err *e)
{
    const struct agent_exec_request *r = req;
    struct agent_exec_response *out = resp;
    AUTO_BUF struct buf out_stdout = BUF_INIT(LIMIT_EXEC_OUTPUT_BYTES);
    AUTO_BUF struct buf out_stderr = BUF_INIT(LIMIT_EXEC_OUTPUT_BYTES);
    struct sandbox_id id;
    if (rpc_take_sandbox_id(r->sandbox_id, &id, e) < 0 ||
        life_exec(call->ctx, &id, r, &out_stdout, &out_stderr, out, e) < 0)
        return -1;
    /* The tag of a command that a pause met is in one of the buffers too, behind the output. */
    if (to_arena(call->arena, out->stdout_bytes, &out->stdout_bytes, e) < 0 ||
        to_arena(call->arena, out->stderr_bytes, &out->stderr_bytes, e) < 0)
        return -1;
    return to_arena(call->arena, out->tag, &out->tag, e);
}

static int read_file(struct rpc_call *call, const void *req, void *resp, struct err *e)
{
    const struct agent_read_file_request *r = req;
    struct agent_read_file_response *out = resp;
    AUTO_BUF struct buf content = BUF_INIT(LIMIT_FILE_UNARY_BYTES);
    struct sandbox_id id;
    if (rpc_take_sandbox_id(r->sandbox_id, &id, e) < 0 ||
        life_read_file(call->ctx, &id, r->path, r->user, &content, e) < 0)
        return -1;
    return to_arena(call->arena, buf_slice(&content), &out->content, e);
}

static int write_file(struct rpc_call *call, const void *req, void *resp, struct err *e)
{
    const struct agent_write_file_request *r = req;
    const struct guest_write w = {.path = r->path,
        .user = r->user,
        .content = r->content,
        .has_mode = r->has_mode,
        .mode = r->mode};
    struct sandbox_id id;
    if (rpc_take_sandbox_id(r->sandbox_id, &id, e) < 0)
        return -1;
    return life_write_file(call->ctx, &id, &w, e);
}

static const struct rpc_method methods[] = {
    {AGENT_V1_PATH("CreateSandbox"), &agent_create_request_message, &agent_create_response_message,
        .unary = create_sandbox},
    {AGENT_V1_PATH("DestroySandbox"), &agent_destroy_request_message,
        &agent_destroy_response_message, .unary = destroy_sandbox},
    {AGENT_V1_PATH("ListSandboxes"), &agent_list_request_message, &agent_list_response_message,
        .unary = list_sandboxes},
    {AGENT_V1_PATH("PingSandbox"), &agent_ping_request_message, &agent_ping_response_message,
        .unary = ping_sandbox},
    {AGENT_V1_PATH("UpdateSandbox"), &agent_update_request_message, &agent_update_response_message,
        .unary = update_sandbox},
    {AGENT_V1_PATH("PauseSandbox"), &agent_pause_request_message, &agent_pause_response_message,
        .unary = rpc_pause_sandbox},
    {AGENT_V1_PATH("ResumeSandbox"), &agent_resume_request_message, &agent_resume_response_message,
        .unary = rpc_resume_sandbox},
    {AGENT_V1_PATH("CreateSnapshot"), &agent_create_snapshot_request_message,
        &agent_create_snapshot_response_message, .unary = rpc_create_snapshot},
    {AGENT_V1_PATH("DeleteSnapshot"), &agent_delete_snapshot_request_message,
        &agent_delete_snapshot_response_message, .unary = rpc_delete_snapshot},
    {AGENT_V1_PATH("Exec"), &agent_exec_request_message, &agent_exec_response_message,
        .unary = exec_in},
    {AGENT_V1_PATH("ReadFile"), &agent_read_file_request_message, &agent_read_file_response_message,
        .unary = read_file},
    {AGENT_V1_PATH("WriteFile"), &agent_write_file_request_message,
        &agent_write_file_response_message, .unary = write_file},
};

static void handle(struct http_exchange *x, void *ctx)
{
    struct agent_rpc *r = ctx;
    char request_id[LIMIT_REQUEST_ID_MAX + 1] = "";
    (void)slice_copy_cstr(http_request_header(x, "X-Request-Id"), request_id, sizeof request_id);
    log_context_set(request_id, NULL);
    if (!rpc_serve(x, methods, ARRAY_LEN(methods), LIMIT_RPC_MESSAGE_BYTES, r->life))
        (void)http_reply(x, http_status_from_kind(ERR_NOT_FOUND), NULL, (struct slice){0});
    log_context_set(NULL, NULL);
}

static bool peer_allowed(int fd, void *ctx)
{
    const struct agent_rpc *r = ctx;
    struct sock_peer peer;
    struct err e = {0};
    if (sock_peer_get(fd, &peer, &e) == 0 && (peer.uid == 0 || peer.uid == r->control_uid))
        return true;
    log_warn_limited("refused a caller uid=%d", (int)peer.uid);
    return false;
}

struct agent_rpc *agent_rpc_start(
    struct life *l, const char *path, uid_t control_uid, struct err *e)
{
    struct agent_rpc *r = calloc(1, sizeof *r);
    int fd;
    if (!r || !(r->path = strdup(path))) {
        (void)rpc_no_memory(e);
        free(r);
        return NULL;
    }
    r->life = l;
    r->control_uid = control_uid;
    fd = sock_listen_unix(path, 0600, e);
    if (fd >= 0 && chown(path, control_uid, (gid_t)-1) < 0)
        (void)err_sys(e, errno, "chown %s", path);
    else if (fd >= 0)
        r->server = http_server_start(&(struct http_server_config){.listen_fd = fd,
                                          .handler = handle,
                                          .accept_filter = peer_allowed,
                                          .ctx = r,
                                          .threads_max = THREADS_MAX,
                                          .connections_max = CONNECTIONS_MAX,
                                          .arena_bytes_max = ARENA_BYTES_MAX},
            e);
    if (r->server)
        return r;
    if (fd >= 0)
        (void)close(fd);
    agent_rpc_stop(r);
    return NULL;
}

void agent_rpc_stop(struct agent_rpc *r)
{
    if (!r)
        return;
    http_server_stop(r->server);
    (void)unlink(r->path);
    free(r->path);
    free(r);
}
