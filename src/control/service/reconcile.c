/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The reconciler: looks at the agent and brings the database up to what the host says.
 *
 * Theory of operation
 * A poll asks for what changed since the host's last revision, or for everything: at first, when
 * the agent has started anew, when something is left to do, and every few minutes. decide.h says
 * what follows. Each decision is made twice: first on the row as it lies there, and, if that calls
 * for something, again on a fresh row under the sandbox's lock. A sandbox whose lock is taken is
 * left for the next poll, which then asks from the same revision again.
 *
 * Rows that may be missing from a full reply are read before the question is asked, and a row that
 * is not the same any more when it is judged was changed by somebody who knows better: a sandbox
 * that was made while the reply was on its way is never lost.
 */
#include "control/service/decide.h"
#include "control/service/service_int.h"

#include <stdio.h>

#define LOG_MODULE "reconcile"
#include "base/arena.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/log.h"

enum {
    LIST_MS = 5000,
    NOTE_HOST_EVERY_MS = 60000,
    POLL_ARENA_BYTES = 64 * 1024 * 1024, /* some 100,000 sandboxes */
};

struct poll {
    struct service *s;
    struct arena *arena;
    bool asked_all;
    struct sandbox_list before; /* live rows of the host, read before the question */
    struct agent_list_response said;
    struct reconcile_reply reply;
    bool left_over; /* something could not be done now */
};

bool service_change_from_info(const struct agent_sandbox_info *info, struct sandbox_change *ret,
    char message[ERR_MSG_MAX], char host_ip[HOST_IP_MAX + 1])
{
    struct sandbox_change change = {
        .message = message,
        .revision = info->revision,
        .at_ms = info->status_since_ms > 0 ? info->status_since_ms : clock_real_ms(),
        .started_at_ms = info->started_at_ms,
        .last_active_at_ms = info->last_active_at_ms,
        .vcpus = info->vcpus,
        .memory_mb = info->memory_mb,
        .host_ip = host_ip,
    };
    size_t n = info->state_message.n;
    if (!sandbox_status_parse(info->status, &change.status) ||
        !sandbox_reason_parse(info->state_reason, &change.reason))
        return false;
    if (n >= ERR_MSG_MAX)
        n = utf8_complete_prefix(info->state_message.p, ERR_MSG_MAX - 1);
    (void)snprintf(message, ERR_MSG_MAX, "%.*s", (int)n, n ? info->state_message.p : "");
    if (!slice_copy_cstr(info->host_ip, host_ip, HOST_IP_MAX + 1))
        host_ip[0] = '\0';
    *ret = change;
    return true;
}

/* --- doing what was decided --- */

static int do_change(struct poll *p, const struct sandbox_row *row, enum sandbox_status status,
    enum sandbox_reason reason, const char *message)
{
    struct err e = {0};
    struct sandbox_change change = {
        .status = status,
        .reason = reason,
        .message = message,
        .at_ms = clock_real_ms(),
    };
    if (p->s->store->ops->sandbox_change(p->s->store, &row->id, &change, &e) < 0) {
        log_err("sandbox_id=%s is not updated error=\"%s\"", row->id.text, e.msg);
        return -1;
    }
    log_info("sandbox_id=%s becomes %s reason=%s", row->id.text, sandbox_status_name(status),
        sandbox_reason_name(reason));
    return 0;
}

static int do_apply(
    struct poll *p, const struct sandbox_row *row, const struct agent_sandbox_info *info)
{
    char message[ERR_MSG_MAX];
    char host_ip[HOST_IP_MAX + 1];
    struct sandbox_change change;
    struct err e = {0};
    if (!service_change_from_info(info, &change, message, host_ip))
        return 0;
    if (p->s->store->ops->sandbox_change(p->s->store, &row->id, &change, &e) < 0) {
        log_err("sandbox_id=%s is not updated error=\"%s\"", row->id.text, e.msg);
        return -1;
    }
    log_info("sandbox_id=%s becomes %s reason=%s revision=%llu", row->id.text,
        sandbox_status_name(change.status), sandbox_reason_name(change.reason),
        (unsigned long long)change.revision);
    return 0;
}

static int do_destroy(struct poll *p, const struct sandbox_row *row)
{
    struct err e = {0};
    if (service_destroy_on_host(p->s, &row->id, &e) < 0) {
        log_warn_limited("sandbox_id=%s is over but not removed error=\"%s\"", row->id.text, e.msg);
        return -1;
    }
    log_info("what the host still had of sandbox_id=%s is removed", row->id.text);
    return 0;
}

static int do_action(struct poll *p, enum reconcile_action action, const struct sandbox_row *row,
    const struct agent_sandbox_info *info)
{
    switch (action) {
    case RECONCILE_APPLY:
        return do_apply(p, row, info);
    case RECONCILE_LOST:
        return do_change(p, row, SANDBOX_STOPPED, REASON_LOST, "the host does not know it");
    case RECONCILE_FAIL:
        return do_change(p, row, SANDBOX_ERROR, REASON_CREATE_FAILED,
            "the control plane ended during the create");
    case RECONCILE_ABANDON:
        if (do_destroy(p, row) < 0)
            return -1;
        return do_change(p, row, SANDBOX_STOPPED, REASON_CLIENT_GONE,
            "the control plane ended during the create");
    case RECONCILE_DESTROY:
        return do_destroy(p, row);
    case RECONCILE_UNKNOWN:
    case RECONCILE_NOTHING:
        break;
    }
    return 0;
}

/* --- one sandbox --- */

/* The second decision, under the lock. `was` is the row before the question, for absent ones. */
static int settle_locked(struct poll *p, const struct sandbox_id *id, const struct sandbox_row *was,
    const struct reconcile_report *said, const struct agent_sandbox_info *info)
{
    struct sandbox_row row;
    struct err e = {0};
    AUTO_LOCK lock = {0};
    if (lock_acquire(&p->s->locks, id, 0, &lock, &e) < 0)
        return -1;
    if (service_load(p->s, NULL, id, p->arena, &row, &e) < 0)
        return e.kind == ERR_NOT_FOUND ? 0 : -1;
    if (was && !reconcile_row_same(was, &row))
        return 0;
    return do_action(p, reconcile_decide(&p->reply, &row, said), &row, info);
}

static void settle_reported(struct poll *p, const struct agent_sandbox_info *info)
{
    struct reconcile_report said = {.revision = info->revision};
    struct sandbox_id id;
    struct sandbox_row row;
    struct err e = {0};
    enum reconcile_action action;
    bool found;
    if (!sandbox_id_parse(info->sandbox_id, &id) ||
        !sandbox_status_parse(info->status, &said.status) ||
        !sandbox_reason_parse(info->state_reason, &said.reason)) {
        log_warn_limited("the agent reports a sandbox in a way unknown here");
        return;
    }
    found = service_load(p->s, NULL, &id, p->arena, &row, &e) == 0;
    if (!found && e.kind != ERR_NOT_FOUND) {
        p->left_over = true;
        return;
    }
    action = reconcile_decide(&p->reply, found ? &row : NULL, &said);
    if (action == RECONCILE_UNKNOWN)
        log_warn_limited("the host has a sandbox that the database has not sandbox_id=%s", id.text);
    else if (action != RECONCILE_NOTHING && settle_locked(p, &id, NULL, &said, info) < 0)
        p->left_over = true;
}

static bool is_reported(const struct poll *p, const struct sandbox_id *id)
{
    struct agent_sandbox_info *const *infos = p->said.sandboxes.items;
    for (size_t i = 0; i < p->said.sandboxes.n; i++)
        if (slice_is(infos[i]->sandbox_id, id->text))
            return true;
    return false;
}

static void settle_absent(struct poll *p)
{
    for (size_t i = 0; i < p->before.n; i++) {
        const struct sandbox_row *was = &p->before.rows[i];
        if (reconcile_decide(&p->reply, was, NULL) != RECONCILE_NOTHING &&
            !is_reported(p, &was->id) && settle_locked(p, &was->id, was, NULL, NULL) < 0)
            p->left_over = true;
    }
}

/* --- the host itself --- */

static void fill_catalog(
    struct service *s, const struct host_id *host, const struct agent_list_response *said)
{
    struct catalog *c = &s->catalog;
    const struct slice *names = said->templates.items;
    MUTEX_GUARD(&c->mutex);
    c->host = *host;
    c->n_templates = 0;
    for (size_t i = 0; i < said->templates.n && c->n_templates < CATALOG_MAX; i++)
        if (template_name_valid(names[i]) &&
            slice_copy_cstr(names[i], c->templates[c->n_templates], sizeof c->templates[0]))
            c->n_templates++;
    c->seen_mono_ms = clock_mono_ms();
}

/* Notes the host in the database: at first sight, after its restart, and now and then. */
static int note_host(struct service *s, const struct host_id *id,
    const struct agent_list_response *said, struct err *e)
{
    struct poll_state *st = &s->poll;
    struct host_row known;
    struct host_row host = {
        .id = *id,
        .address = s->config.agent_address ? s->config.agent_address : "",
        .last_seen_ms = clock_real_ms(),
        .agent_epoch = said->agent_epoch,
    };
    int64_t now = clock_mono_ms();
    bool same = strcmp(st->host.text, id->text) == 0 && st->agent_epoch == said->agent_epoch;
    if (same && now - st->noted_mono_ms < NOTE_HOST_EVERY_MS)
        return 0;
    if (!slice_copy_cstr(said->cluster_id, host.cluster_id, sizeof host.cluster_id))
        return err_set(e, ERR_AGENT, "the agent's cluster id is malformed");
    if (s->store->ops->host_see(s->store, &host, &known, e) < 0)
        return -1;
    if (!same) {
        st->host_revision = 0;
        st->full_mono_ms = 0;
    }
    st->host = *id;
    st->agent_epoch = said->agent_epoch;
    st->noted_mono_ms = now;
    memcpy(st->known_cluster_id, known.cluster_id, sizeof st->known_cluster_id);
    return 0;
}

/* --- one poll --- */

static int ask(struct poll *p, uint64_t since, struct err *e)
{
    struct agent_list_request req = {.since_revision = since};
    struct service *s = p->s;
    struct host_id host;
    const char *cluster;
    if (agent_call(s->agent, AGENT_LIST, &req, &p->said, p->arena, LIST_MS, e) < 0)
        return -1;
    if (!host_id_parse(p->said.host_id, &host))
        return err_set(e, ERR_AGENT, "the agent's host id is malformed");
    if (note_host(s, &host, &p->said, e) < 0)
        return -1;
    cluster = arena_strndup(p->arena, p->said.cluster_id.p, p->said.cluster_id.n);
    if (!cluster)
        return err_set(e, ERR_NOMEM, "out of memory");
    fill_catalog(s, &host, &p->said);
    p->reply = (struct reconcile_reply){
        .host = host,
        .cluster_id = cluster,
        .known_cluster_id = s->poll.known_cluster_id,
        .complete = p->asked_all && p->said.full,
    };
    return 0;
}

static void settle(struct poll *p)
{
    struct agent_sandbox_info *const *infos = p->said.sandboxes.items;
    if (strcmp(p->reply.cluster_id, p->reply.known_cluster_id) != 0) {
        log_warn_limited(
            "host=%s answers for another cluster, nothing is changed", p->reply.host.text);
        return;
    }
    for (size_t i = 0; i < p->said.sandboxes.n; i++)
        settle_reported(p, infos[i]);
    if (p->reply.complete)
        settle_absent(p);
}

static int poll_locked(struct service *s, struct arena *arena, struct err *e)
{
    struct poll_state *st = &s->poll;
    struct poll p = {.s = s, .arena = arena};
    struct host_id asked_host = st->host;
    uint64_t asked_epoch = st->agent_epoch;
    int64_t now = clock_mono_ms();
    p.asked_all = __atomic_exchange_n(&s->want_full, 0, __ATOMIC_RELAXED) ||
                  st->full_mono_ms == 0 || now - st->full_mono_ms >= s->config.full_every_ms;
    if (p.asked_all && st->host.text[0] &&
        s->store->ops->sandbox_list_live(s->store, &st->host, arena, &p.before, e) < 0)
        return -1;
    if (ask(&p, p.asked_all ? 0 : st->host_revision, e) < 0)
        return -1;
    /* Another host, or a new life of the agent: its revisions are others, and the rows read above
     * may be those of another host. What it reports counts, what it leaves out does not yet. */
    if (strcmp(asked_host.text, st->host.text) != 0 || asked_epoch != st->agent_epoch)
        p.reply.complete = false;
    settle(&p);
    if (p.left_over)
        return 0;
    if (p.asked_all && p.reply.complete)
        st->full_mono_ms = now;
    st->host_revision = p.said.host_revision;
    return 0;
}

int service_poll(struct service *s, int64_t began_ms, struct err *e)
{
    CLEANUP(arena_done) struct arena arena = {0};
    MUTEX_GUARD(&s->poll.mutex);
    {
        MUTEX_GUARD(&s->catalog.mutex);
        if (s->catalog.seen_mono_ms > began_ms)
            return 0;
    }
    arena_init(&arena, POLL_ARENA_BYTES);
    return poll_locked(s, &arena, e);
}
