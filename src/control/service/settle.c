/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the reconciler does about a reply: one sandbox after the other.
 *
 * decide.h says what follows. Each decision is made twice: first on the row as it lies there, and,
 * if that calls for something, again on a fresh row under the sandbox's lock. A sandbox whose lock
 * is taken is left for the next poll. What is to be destroyed goes to the remover, so nothing here
 * waits for the agent.
 */
#include "control/service/poll_int.h"

#include <stdio.h>

#define LOG_MODULE "reconcile"
#include "base/arena.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/log.h"

enum { ROW_ARENA_BYTES = 256 * 1024 }; /* one row with the largest metadata */

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
    lock_note_change(&p->s->locks);
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
    struct sandbox_row now;
    struct err e = {0};
    if (!service_change_from_info(info, &change, message, host_ip))
        return 0;
    if (change.revision < row->revision)
        change.revision = 0; /* the row's stays: what was seen never comes again */
    if (p->s->store->ops->sandbox_change(p->s->store, &row->id, &change, &e) < 0) {
        log_err("sandbox_id=%s is not updated error=\"%s\"", row->id.text, e.msg);
        return -1;
    }
    lock_note_change(&p->s->locks);
    log_info("sandbox_id=%s becomes %s reason=%s revision=%llu", row->id.text,
        sandbox_status_name(change.status), sandbox_reason_name(change.reason),
        (unsigned long long)change.revision);
    now = (struct sandbox_row){.status = change.status, .reason = change.reason};
    if (sandbox_row_is_over(&now)) /* a DELETE that the host did not end */
        service_remove_later(p->s, &row->id);
    return 0;
}

static int do_destroy(struct poll *p, const struct sandbox_id *id)
{
    return remover_add(&p->s->remover, id) ? 0 : -1;
}

static int do_action(struct poll *p, enum reconcile_action action, const struct sandbox_row *row,
    const struct agent_sandbox_info *info)
{
    switch (action) {
    case RECONCILE_APPLY:
        return do_apply(p, row, info);
    case RECONCILE_PAUSED:
        return do_change(p, row, SANDBOX_PAUSED, REASON_IDLE, NULL);
    case RECONCILE_LOST:
        return do_change(p, row, SANDBOX_STOPPED, REASON_LOST, "the host does not know it");
    case RECONCILE_FAIL:
        return do_change(p, row, SANDBOX_ERROR, REASON_CREATE_FAILED,
            "the control plane ended during the create");
    case RECONCILE_DESTROY:
        return do_destroy(p, &row->id);
    case RECONCILE_UNKNOWN:
    case RECONCILE_NOTHING:
    case RECONCILE_ACTION_COUNT:
        break;
    }
    return 0;
}

/* --- one sandbox --- */

/* The row without what the reconciler has no use for. */
static int load_row(
    struct poll *p, const struct sandbox_id *id, struct sandbox_row *ret, struct err *e)
{
    CLEANUP(arena_done) struct arena arena = {0};
    arena_init(&arena, ROW_ARENA_BYTES);
    if (service_load(p->s, NULL, id, &arena, ret, e) < 0)
        return -1;
    ret->metadata = slice_of(NULL, 0);
    return 0;
}

static const struct sandbox_row *find_before(const struct poll *p, const struct sandbox_id *id)
{
    const struct sandbox_row key = {.id = *id};
    return p->before.n == 0
               ? NULL
               : bsearch(&key, p->before.rows, p->before.n, sizeof key, poll_compare_rows);
}

static enum reconcile_action decide(
    struct poll *p, const struct sandbox_row *row, const struct reconcile_report *said)
{
    struct reconcile_report judged;
    const struct sandbox_row *was;
    if (!said || !row)
        return reconcile_decide(&p->reply, row, said);
    was = find_before(p, &row->id);
    judged = *said;
    judged.row_is_older = was && reconcile_row_same(was, row);
    return reconcile_decide(&p->reply, row, &judged);
}

/* The second decision, under the lock. `was` is the row before the question, NULL where that does
 * not matter: a report carries its revision. */
static int settle_locked(struct poll *p, const struct sandbox_id *id, const struct sandbox_row *was,
    const struct reconcile_report *said, const struct agent_sandbox_info *info)
{
    struct sandbox_row row;
    struct err e = {0};
    AUTO_LOCK lock = {0};
    if (lock_acquire(&p->s->locks, id, 0, &lock, &e) < 0)
        return -1;
    if (load_row(p, id, &row, &e) < 0)
        return e.kind == ERR_NOT_FOUND ? 0 : -1;
    if (was && !reconcile_row_same(was, &row))
        return 0;
    return do_action(p, decide(p, &row, said), &row, info);
}

static void note_unknown(struct poll *p, const struct sandbox_id *id)
{
    log_warn_limited("the host has a sandbox that the database has not sandbox_id=%s", id->text);
    if (p->n_unknown < UNKNOWN_MAX)
        memcpy(p->unknown[p->n_unknown], id->text, sizeof p->unknown[0]);
    p->n_unknown++;
    if (!p->reply.complete)
        catalog_add_unknown(&p->s->catalog, id->text);
}

static void settle_said(struct poll *p, const struct sandbox_id *id,
    const struct reconcile_report *said, const struct agent_sandbox_info *info)
{
    struct sandbox_row row;
    struct err e = {0};
    bool found = load_row(p, id, &row, &e) == 0;
    enum reconcile_action action;
    if (!found && e.kind != ERR_NOT_FOUND) {
        p->left_over = true;
        return;
    }
    action = decide(p, found ? &row : NULL, said);
    if (action == RECONCILE_UNKNOWN)
        note_unknown(p, id);
    else if (action == RECONCILE_DESTROY && do_destroy(p, id) < 0)
        p->left_over = true;
    else if (action != RECONCILE_NOTHING && action != RECONCILE_DESTROY &&
             settle_locked(p, id, NULL, said, info) < 0)
        p->left_over = true;
}

static void settle_reported(struct poll *p, const struct agent_sandbox_info *info)
{
    struct reconcile_report said = {.revision = info->revision};
    struct sandbox_id id;
    if (sandbox_id_parse(info->sandbox_id, &id) &&
        sandbox_status_parse(info->status, &said.status) &&
        sandbox_reason_parse(info->state_reason, &said.reason))
        settle_said(p, &id, &said, info);
    else
        log_warn_limited("the agent reports a sandbox in a way unknown here");
}

/* --- who is named, and who is not --- */

static int compare_slices(const void *a, const void *b)
{
    const struct slice *x = a;
    const struct slice *y = b;
    size_t n = x->n < y->n ? x->n : y->n;
    int order = n > 0 ? memcmp(x->p, y->p, n) : 0;
    return order != 0 ? order : (x->n > y->n) - (x->n < y->n);
}

/* Collects all ids of the reply and sorts them. */
static int collect_named(struct poll *p, struct err *e)
{
    struct agent_sandbox_info *const *infos = p->said.sandboxes.items;
    const struct slice *paused = p->said.auto_paused_sandbox_ids.items;
    size_t n = p->said.sandboxes.n + p->said.auto_paused_sandbox_ids.n;
    p->named = arena_calloc(p->arena, n + 1, sizeof *p->named);
    p->reported = arena_calloc(p->arena, p->said.sandboxes.n + 1, sizeof *p->reported);
    if (!p->named || !p->reported)
        return err_set(e, ERR_NOMEM, "out of memory");
    for (size_t i = 0; i < p->said.sandboxes.n; i++) {
        p->named[p->n_named++] = infos[i]->sandbox_id;
        p->reported[p->n_reported++] = infos[i]->sandbox_id;
    }
    for (size_t i = 0; i < p->said.auto_paused_sandbox_ids.n; i++)
        p->named[p->n_named++] = paused[i];
    qsort(p->named, p->n_named, sizeof *p->named, compare_slices);
    qsort(p->reported, p->n_reported, sizeof *p->reported, compare_slices);
    return 0;
}

static bool is_among(const struct slice *sorted, size_t n, const struct sandbox_id *id)
{
    struct slice key = slice_cstr(id->text);
    return n > 0 && bsearch(&key, sorted, n, sizeof key, compare_slices) != NULL;
}

int poll_compare_rows(const void *a, const void *b)
{
    return strcmp(
        ((const struct sandbox_row *)a)->id.text, ((const struct sandbox_row *)b)->id.text);
}

/* Rows of before the question that the full reply does not name. */
static void settle_absent(struct poll *p)
{
    for (size_t i = 0; i < p->before.n; i++) {
        const struct sandbox_row *was = &p->before.rows[i];
        if (reconcile_decide(&p->reply, was, NULL) != RECONCILE_NOTHING &&
            !is_among(p->named, p->n_named, &was->id) &&
            settle_locked(p, &was->id, was, NULL, NULL) < 0)
            p->left_over = true;
    }
}

/* --- auto-paused ones --- */

/* A name alone carries no revision: only rows that are as they were before the question count. A
 * lost one is not among those, but nobody resumes it behind our back. */
static void settle_auto_paused_id(struct poll *p, const struct sandbox_id *id)
{
    static const struct reconcile_report said = {.only_auto_paused = true};
    const struct sandbox_row *was;
    struct sandbox_row row;
    struct err e = {0};
    if (load_row(p, id, &row, &e) < 0)
        return;
    if (reconcile_decide(&p->reply, &row, &said) != RECONCILE_PAUSED)
        return;
    was = find_before(p, id);
    if (was ? !reconcile_row_same(was, &row) : row.status != SANDBOX_STOPPED)
        return;
    if (settle_locked(p, id, &row, &said, NULL) < 0)
        p->left_over = true;
}

/* The agent goes on naming them until the database has them as paused, or further. */
static void note_ack(struct poll *p, const struct sandbox_id *id)
{
    struct poll_state *st = &p->s->poll;
    struct sandbox_row row;
    struct err e = {0};
    if (st->n_acks == ACKS_MAX || load_row(p, id, &row, &e) < 0)
        return;
    if (strcmp(row.host.text, p->reply.host.text) != 0)
        return;
    if (row.status == SANDBOX_PAUSED || sandbox_row_is_over(&row))
        st->acks[st->n_acks++] = (struct ack){.id = row.id, .revision = row.revision};
    else if (!p->reply.complete)
        p->s->poll.full_mono_ms = 0; /* a doubt: everything is asked for */
}

static void settle_auto_paused(struct poll *p)
{
    const struct slice *ids = p->said.auto_paused_sandbox_ids.items;
    for (size_t i = 0; i < p->said.auto_paused_sandbox_ids.n; i++) {
        struct sandbox_id id;
        if (!sandbox_id_parse(ids[i], &id))
            continue;
        /* Where its state is said, too, that counts: it may have been resumed since. */
        if (!is_among(p->reported, p->n_reported, &id))
            settle_auto_paused_id(p, &id);
        note_ack(p, &id);
    }
}

/* --- the whole reply --- */

int poll_settle(struct poll *p, struct err *e)
{
    struct agent_sandbox_info *const *infos = p->said.sandboxes.items;
    if (strcmp(p->reply.cluster_id, p->reply.known_cluster_id) != 0) {
        log_warn_limited(
            "host=%s answers for another cluster, nothing is changed", p->reply.host.text);
        return 0;
    }
    if (collect_named(p, e) < 0)
        return -1;
    for (size_t i = 0; i < p->said.sandboxes.n; i++)
        settle_reported(p, infos[i]);
    settle_auto_paused(p);
    if (!p->reply.complete)
        return 0;
    settle_absent(p);
    catalog_set_unknown(&p->s->catalog, p->unknown, p->n_unknown);
    return 0;
}
