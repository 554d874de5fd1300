/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Creating a sandbox.
 *
 * Theory of operation
 * The row comes first (pending, with the id that we choose), then the host is asked, then the row
 * says how it ended. Nothing here looks at the client's connection: once begun, a create runs to
 * its end on the thread that began it, and the caller undoes it when nobody is there for the
 * answer. A create that fails is undone on the host, because its answer may have been lost on the
 * way. If this process dies in between, the row is still pending at the next start; then the
 * reconciler ends it, or shows it as running when the host has it.
 */
#include "control/service/service_int.h"

#define LOG_MODULE "service"
#include "base/arena.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/log.h"

enum {
    CREATE_MS = LIMIT_BOOT_MS + LIMIT_BOOT_QUEUE_MS + 15000,
    INFO_ARENA_BYTES = 64 * 1024, /* one SandboxInfo */
};

/* --- the row --- */

/* A snapshot is a machine: its size is its own, and it lies on one host. */
static int take_template(
    struct service *s, const struct template_entry *t, struct sandbox_row *row, struct err *e)
{
    memcpy(row->template, t->name, sizeof row->template);
    row->template_id = t->id;
    row->host = service_host(s); /* known by now: a base template is one of it */
    if (!t->is_snapshot)
        return 0;
    row->vcpus = t->vcpus;
    row->memory_mb = t->memory_mb;
    row->host = t->host;
    return service_check_host(s, row, e);
}

static int make_row(struct service *s, const struct principal *who, const struct create_params *p,
    const struct template_entry *t, struct arena *a, struct sandbox_row *ret, struct err *e)
{
    int64_t now = clock_real_ms();
    struct sandbox_row row = {
        .team = who->team,
        .status = SANDBOX_PENDING,
        .status_since_ms = now,
        .vcpus = p->vcpus,
        .memory_mb = p->memory_mb,
        .timeout_sec = p->timeout_sec,
        .created_at_ms = now,
        .last_active_at_ms = now,
        .last_updated_ms = now,
    };
    if (take_template(s, t, &row, e) < 0 ||
        metadata_apply(slice_of(NULL, 0), p->metadata, p->n_metadata, a, &row.metadata, e) < 0)
        return -1;
    sandbox_id_new(&row.id);
    *ret = row;
    return 0;
}

const char *service_public_message(const struct err *why)
{
    switch (why->kind) {
    case ERR_INTERNAL:
    case ERR_IO:
    case ERR_NOMEM:
    case ERR_PROTOCOL:
        return "internal error";
    case ERR_AGENT:
        return "the host agent failed";
    default:
        return why->msg;
    }
}

/* The row says why; what the host may have is removed. The caller's error stays as it is. */
static void record_failure(struct service *s, const struct sandbox_row *row, const struct err *why)
{
    struct sandbox_change change = {
        .status = SANDBOX_ERROR,
        .reason = REASON_CREATE_FAILED,
        .message = service_public_message(why),
        .at_ms = clock_real_ms(),
        .request_id = log_context_request_id(),
    };
    struct err e = {0};
    bool removed = service_destroy_on_host(s, &row->id, &e) == 0;
    if (s->store->ops->sandbox_change(s->store, &row->id, &change, &e) < 0) {
        log_err("a failed create is not recorded sandbox_id=%s error=\"%s\"", row->id.text, e.msg);
        __atomic_store_n(&s->want_full, 1, __ATOMIC_RELAXED); /* the row is still pending */
    } else if (!removed) {
        service_remove_later(s, &row->id);
    }
}

static int ask_host(struct service *s, const struct create_params *p,
    const struct template_entry *t, struct sandbox_row *row, struct err *e)
{
    CLEANUP(arena_done) struct arena arena = {0};
    char call_id[CALL_ID_MAX + 1];
    char message[ERR_MSG_MAX];
    char host_ip[HOST_IP_MAX + 1];
    struct agent_create_response resp = {0};
    struct sandbox_change change;
    struct agent_create_request req = {
        .template = slice_cstr(row->template),
        .vcpus = row->vcpus,
        .memory_mb = row->memory_mb,
        .timeout_sec = p->timeout_sec,
        .snapshot_id = t->is_snapshot ? slice_cstr(t->id.text) : slice_of(NULL, 0),
        .sandbox_id = slice_cstr(row->id.text),
        .env = {(void *)(uintptr_t)p->env, p->n_env},
        .request_id = {call_id, CALL_ID_MAX},
    };
    arena_init(&arena, INFO_ARENA_BYTES);
    call_id_new(call_id);
    if (agent_call(s->agent, AGENT_CREATE, &req, &resp, &arena, CREATE_MS, e) < 0)
        return -1;
    if (!resp.sandbox || !service_change_from_info(resp.sandbox, &change, message, host_ip) ||
        change.status != SANDBOX_RUNNING)
        return err_set(e, ERR_AGENT, "the agent's answer to a create is not a running sandbox");
    change.request_id = log_context_request_id();
    return s->store->ops->sandbox_change(s->store, &row->id, &change, e);
}

int service_create(struct service *s, const struct principal *who, const struct create_params *p,
    struct arena *a, struct sandbox_row *ret, struct err *e)
{
    struct sandbox_row row;
    struct template_entry template;
    AUTO_PIN pin = {0};
    AUTO_LOCK lock = {0};
    if (service_template_for_create(s, who, p->template, &pin, &template, e) < 0 ||
        make_row(s, who, p, &template, a, &row, e) < 0)
        return -1;
    if (lock_acquire(&s->locks, &row.id, 0, &lock, e) < 0)
        return -1;
    if (s->store->ops->sandbox_create(s->store, &row, log_context_request_id(), e) < 0)
        return -1;
    if (ask_host(s, p, &template, &row, e) < 0) {
        record_failure(s, &row, e);
        return -1;
    }
    activity_note(&s->activity, row.id.text, clock_real_ms());
    log_info(
        "sandbox runs sandbox_id=%s team=%s template=%s", row.id.text, row.team.text, row.template);
    return service_load(s, who, &row.id, a, ret, e);
}

void service_undo_create(struct service *s, const struct sandbox_id *id)
{
    struct sandbox_change change = {
        .status = SANDBOX_STOPPED,
        .reason = REASON_CLIENT_GONE,
        .message = "the client was gone when the create ended",
        .request_id = log_context_request_id(),
    };
    struct err e = {0};
    AUTO_LOCK lock = {0};
    if (lock_acquire(&s->locks, id, deadline_in_ms(s->config.lock_wait_ms), &lock, &e) < 0) {
        log_warn("a create is not undone sandbox_id=%s error=\"%s\"", id->text, e.msg);
        return;
    }
    /* The row first: a row that is over makes the reconciler destroy what the host still has. */
    change.at_ms = clock_real_ms();
    if (s->store->ops->sandbox_change(s->store, id, &change, &e) < 0) {
        log_err("a create is not undone sandbox_id=%s error=\"%s\"", id->text, e.msg);
    } else if (service_destroy_on_host(s, id, &e) < 0) {
        log_warn("a create is undone later sandbox_id=%s error=\"%s\"", id->text, e.msg);
        service_remove_later(s, id);
    } else {
        log_info("create undone, its client is gone sandbox_id=%s", id->text);
    }
}
