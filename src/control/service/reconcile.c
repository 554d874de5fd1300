/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The reconciler: looks at the agent and brings the database up to what the host says.
 *
 * Theory of operation
 * A poll asks for what changed since the host's last revision, and waits at the agent until
 * something has; or it asks for everything: at first, when the agent has started anew, after any
 * failure or doubt, and every few minutes. settle.c deals with the answer; what it cannot do now
 * makes the next poll ask from the same revision again, after a growing pause.
 *
 * Rows that may be missing from a full reply are read before the question is asked, and a row that
 * is not the same any more when it is judged was changed by somebody who knows better: a sandbox
 * that was made while the reply was on its way is never lost. A reply whose host revision is lower
 * than one that was seen before is a late one: absence in it says nothing.
 */
#include "control/service/poll_int.h"

#define LOG_MODULE "reconcile"
#include "base/arena.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/log.h"

enum {
    LIST_MS = 5000,
    NOTE_HOST_EVERY_MS = 60000,
    FRESH_MS = 1000, /* between two looks at a host that has had no sandbox yet */
    POLL_ARENA_BYTES = 512 * 1024 * 1024, /* only a bound: some 100,000 sandboxes, read and named */
};

/* --- the host itself --- */

/* Notes the host in the database: at first sight, after its restart, and now and then. */
int service_see_host(struct service *s, const struct host_id *id,
    const struct agent_list_response *said, struct host_row *ret_known, struct err *e)
{
    struct host_row host = {
        .id = *id,
        .address = s->config.agent_address ? s->config.agent_address : "",
        .last_seen_ms = clock_real_ms(),
        .agent_epoch = said->agent_epoch,
    };
    if (!slice_copy_cstr(said->cluster_id, host.cluster_id, sizeof host.cluster_id))
        return err_set(e, ERR_AGENT, "the agent's cluster id is malformed");
    return s->store->ops->host_see(s->store, &host, ret_known, e);
}

static int note_host(struct service *s, const struct host_id *id,
    const struct agent_list_response *said, struct err *e)
{
    struct poll_state *st = &s->poll;
    struct host_row known;
    int64_t now = clock_mono_ms();
    bool same = strcmp(st->host.text, id->text) == 0 && st->agent_epoch == said->agent_epoch;
    if (same && now - st->noted_mono_ms < NOTE_HOST_EVERY_MS)
        return 0;
    if (service_see_host(s, id, said, &known, e) < 0)
        return -1;
    if (!same) {
        st->host_revision = 0;
        st->full_mono_ms = 0;
        st->n_acks = 0;
    }
    st->host = *id;
    st->agent_epoch = said->agent_epoch;
    st->noted_mono_ms = now;
    memcpy(st->known_cluster_id, known.cluster_id, sizeof st->known_cluster_id);
    return 0;
}

/* --- one poll --- */

/* The acknowledgements of the last poll, in the form of the wire. */
static int put_acks(struct poll *p, struct agent_list_request *req, struct err *e)
{
    struct poll_state *st = &p->s->poll;
    struct agent_acknowledged *acks = arena_calloc(p->arena, st->n_acks + 1, sizeof *acks);
    struct agent_acknowledged **list = arena_calloc(p->arena, st->n_acks + 1, sizeof *list);
    if (!acks || !list)
        return err_set(e, ERR_NOMEM, "out of memory");
    for (size_t i = 0; i < st->n_acks; i++) {
        acks[i].id = slice_cstr(arena_strndup(p->arena, st->acks[i].id.text, ID_TEXT_MAX));
        acks[i].revision = st->acks[i].revision;
        list[i] = &acks[i];
    }
    req->ack_auto_paused = (struct rpc_list){list, st->n_acks};
    return 0;
}

static int call_agent(struct poll *p, uint64_t since, struct err *e)
{
    struct service *s = p->s;
    struct agent_list_request req = {.since_revision = since};
    if (put_acks(p, &req, e) < 0)
        return -1;
    if (since != 0 && s->config.poll_ms > s->poll.gap_ms)
        req.wait_ms = s->config.poll_ms - s->poll.gap_ms;
    if (agent_call(s->agent, AGENT_LIST, &req, &p->said, p->arena, LIST_MS + req.wait_ms, e) < 0)
        return -1;
    s->poll.n_acks = 0;
    return 0;
}

static int ask(struct poll *p, uint64_t since, struct err *e)
{
    struct service *s = p->s;
    struct host_id host, before;
    const char *cluster;
    int64_t asked = clock_mono_ms();
    if (call_agent(p, since, e) < 0)
        return -1;
    if (!host_id_parse(p->said.host_id, &host))
        return err_set(e, ERR_AGENT, "the agent's host id is malformed");
    if (note_host(s, &host, &p->said, e) < 0)
        return -1;
    /* The agent has forgotten something that changes cannot name: a create that failed there. */
    if (!p->asked_all && p->said.full)
        __atomic_store_n(&s->want_full, 1, __ATOMIC_RELAXED);
    cluster = arena_strndup(p->arena, p->said.cluster_id.p, p->said.cluster_id.n);
    if (!cluster)
        return err_set(e, ERR_NOMEM, "out of memory");
    before = service_host(s);
    catalog_fill(&s->catalog, &host, &p->said, asked);
    if (strcmp(before.text, host.text) != 0)
        discarder_kick(&s->discarder); /* there may be something of it to remove */
    p->reply = (struct reconcile_reply){
        .host = host,
        .cluster_id = cluster,
        .known_cluster_id = s->poll.known_cluster_id,
        .complete = p->asked_all && p->said.full,
    };
    return 0;
}

/* What the reply may be taken for, given what was known when it was asked for. */
static void doubt(struct poll *p, const struct reconcile_seen *before)
{
    struct poll_state *st = &p->s->poll;
    struct reconcile_seen now = {st->host, st->agent_epoch, p->said.host_revision};
    enum reconcile_trust trust = reconcile_trust(before, &now);
    if (trust != TRUST_FULLY)
        p->reply.complete = false;
    if (trust == TRUST_OUTDATED) {
        log_warn_limited("host=%s answers with an old revision", st->host.text);
        p->said.host_revision = before->host_revision;
        st->full_mono_ms = 0;
    }
}

/* The next poll comes after the gap, later while there is something that cannot be done. */
static void plan_next(struct poll *p, int64_t began)
{
    struct poll_state *st = &p->s->poll;
    const struct service_config *c = &p->s->config;
    if (p->left_over) {
        st->gap_ms = st->gap_ms * 2 < c->poll_ms ? st->gap_ms * 2 : c->poll_ms;
        return;
    }
    st->gap_ms = c->gap_ms;
    if (p->reply.complete)
        st->full_mono_ms = began;
    st->host_revision = p->said.host_revision;
    /* Nothing has ever changed there; asked for changes since 0, the agent cannot wait. */
    if (st->host_revision == 0)
        st->gap_ms = FRESH_MS < c->poll_ms ? FRESH_MS : c->poll_ms;
}

static int run_poll(struct poll *p, struct err *e)
{
    struct service *s = p->s;
    struct poll_state *st = &s->poll;
    const struct reconcile_seen before = {
        .host = st->host, .agent_epoch = st->agent_epoch, .host_revision = st->host_revision};
    int64_t began = clock_mono_ms();
    p->asked_all = __atomic_exchange_n(&s->want_full, 0, __ATOMIC_RELAXED) ||
                   st->full_mono_ms == 0 || began - st->full_mono_ms >= s->config.full_every_ms;
    if (p->asked_all && st->host.text[0] &&
        s->store->ops->sandbox_list_live(s->store, &st->host, p->arena, &p->before, e) < 0)
        return -1;
    if (p->before.n > 1)
        qsort(p->before.rows, p->before.n, sizeof *p->before.rows, poll_compare_rows);
    if (ask(p, p->asked_all ? 0 : st->host_revision, e) < 0)
        return -1;
    doubt(p, &before);
    if (poll_settle(p, e) < 0)
        return -1;
    plan_next(p, began);
    return 0;
}

int service_poll(struct service *s, struct err *e)
{
    CLEANUP(arena_done) struct arena arena = {0};
    struct poll p = {.s = s, .arena = &arena};
    arena_init(&arena, POLL_ARENA_BYTES);
    if (run_poll(&p, e) == 0)
        return 0;
    s->poll.full_mono_ms = 0; /* a reply may be lost: everything is asked for */
    catalog_note_down(&s->catalog);
    return -1;
}
