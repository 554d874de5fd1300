/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The reconciler's decisions, swept: each combination of what can be said, against invariants; and
 * many lives of one sandbox under a simulated clock, with replies that are late, lost, doubled and
 * from elsewhere.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "control/service/decide.h"

#define HOST_A "hostaaaaaaaaaaaaaaaaaaaa"
#define HOST_B "hostbbbbbbbbbbbbbbbbbbbb"
static const struct host_id hosts[] = {{HOST_A}, {HOST_B}};

/* --- every combination --- */

struct combination {
    struct reconcile_reply reply;
    struct sandbox_row row;
    bool has_row, has_report;
    struct reconcile_report said;
};

static bool runs(enum sandbox_status s)
{
    return s == SANDBOX_RUNNING || s == SANDBOX_PAUSING || s == SANDBOX_RESUMING;
}

static bool is_unsettled(const struct sandbox_row *row)
{
    return row->status == SANDBOX_PAUSING || row->status == SANDBOX_RESUMING;
}

static bool is_lost(const struct sandbox_row *row)
{
    return row->status == SANDBOX_STOPPED && row->reason == REASON_LOST;
}

static bool concerns(const struct combination *c)
{
    return strcmp(c->reply.cluster_id, c->reply.known_cluster_id) == 0 &&
           (!c->has_row || strcmp(c->row.host.text, c->reply.host.text) == 0);
}

/* What an action may be an answer to; and what must not be overlooked. */
static void check_harm(const struct combination *c, enum reconcile_action action)
{
    if (!concerns(c))
        assert_int_equal(action, RECONCILE_NOTHING);
    if (action == RECONCILE_DESTROY)
        assert_true(c->has_row && sandbox_row_is_over(&c->row) && c->has_report);
    if (action == RECONCILE_LOST)
        assert_true(c->reply.complete && !c->has_report && runs(c->row.status));
    if (action == RECONCILE_FAIL)
        assert_true(c->reply.complete && !c->has_report && c->row.status == SANDBOX_PENDING);
    if (action == RECONCILE_UNKNOWN)
        assert_true(!c->has_row && c->has_report);
    if (action == RECONCILE_PAUSED)
        assert_true(c->said.only_auto_paused && c->reply.complete);
    if (action == RECONCILE_APPLY)
        assert_true(c->has_report && !c->said.only_auto_paused && !sandbox_row_is_over(&c->row));
    /* What is behind counts for a transition that the host has forgotten, and for nothing else. */
    if (action == RECONCILE_APPLY && c->said.revision < c->row.revision &&
        c->row.status != SANDBOX_PENDING)
        assert_true(is_unsettled(&c->row) && c->said.row_is_older && c->reply.complete);
    if (action == RECONCILE_APPLY && is_unsettled(&c->row))
        assert_true(c->said.revision > c->row.revision || c->said.row_is_older);
    if (!c->has_report && !c->reply.complete)
        assert_int_equal(action, RECONCILE_NOTHING);
}

static void check_progress(const struct combination *c, enum reconcile_action action)
{
    bool over = c->has_row && sandbox_row_is_over(&c->row);
    if (!concerns(c))
        return;
    if (!c->has_row) {
        assert_int_equal(action, c->has_report ? RECONCILE_UNKNOWN : RECONCILE_NOTHING);
        return;
    }
    if (c->has_report && over)
        assert_int_equal(action, RECONCILE_DESTROY);
    if (c->has_report && !over && !c->said.only_auto_paused && c->said.revision > c->row.revision &&
        !(c->row.status == SANDBOX_PENDING && c->said.status == SANDBOX_PENDING))
        assert_int_equal(action, RECONCILE_APPLY);
    if (c->has_report && is_lost(&c->row) && c->said.revision == c->row.revision &&
        !c->said.only_auto_paused)
        assert_int_equal(action, RECONCILE_APPLY);
    if (c->has_report && is_unsettled(&c->row) && c->said.revision == c->row.revision &&
        !c->said.only_auto_paused && c->said.row_is_older)
        assert_int_equal(action, RECONCILE_APPLY);
    if (!c->has_report && c->reply.complete && runs(c->row.status))
        assert_int_equal(action, RECONCILE_LOST);
    if (!c->has_report && (c->row.status == SANDBOX_PAUSED || c->row.status == SANDBOX_STOPPED ||
                              c->row.status == SANDBOX_ERROR))
        assert_int_equal(action, RECONCILE_NOTHING);
}

static size_t check(struct combination *c)
{
    enum reconcile_action action =
        reconcile_decide(&c->reply, c->has_row ? &c->row : NULL, c->has_report ? &c->said : NULL);
    check_harm(c, action);
    check_progress(c, action);
    return 1;
}

/* All that can be said about a row that is there. */
static size_t sweep_said(struct combination *c)
{
    size_t n = 0;
    c->has_report = false;
    c->said = (struct reconcile_report){.revision = 0};
    n += check(c);
    c->has_report = true;
    c->said.only_auto_paused = true;
    n += check(c);
    for (int status = 0; status < SANDBOX_STATUS_COUNT; status++)
        for (int reason = 0; reason < SANDBOX_REASON_COUNT; reason++)
            for (uint64_t i = 0; i < 6; i++) {
                c->said = (struct reconcile_report){.status = (enum sandbox_status)status,
                    .reason = (enum sandbox_reason)reason,
                    .revision = 4 + i / 2,
                    .row_is_older = i % 2};
                /* A row whose create has not answered has no revision. */
                c->row.revision = c->row.status == SANDBOX_PENDING ? 0 : 5;
                n += check(c);
            }
    return n;
}

static size_t sweep_rows(struct combination *c)
{
    size_t n = 0;
    c->has_row = false;
    n += sweep_said(c);
    c->has_row = true;
    for (int status = 0; status < SANDBOX_STATUS_COUNT; status++)
        for (int reason = 0; reason < SANDBOX_REASON_COUNT; reason++) {
            c->row = (struct sandbox_row){.host = {HOST_A},
                .status = (enum sandbox_status)status,
                .reason = (enum sandbox_reason)reason,
                .revision = 5};
            n += sweep_said(c);
        }
    return n;
}

static void every_combination_keeps_the_invariants(void **state)
{
    size_t n = 0;
    for (int i = 0; i < 8; i++) {
        struct combination c = {.reply = {.host = hosts[i & 1],
                                    .cluster_id = i & 2 ? "c2" : "c1",
                                    .known_cluster_id = "c1",
                                    .complete = i & 4}};
        n += sweep_rows(&c);
    }
    assert_int_equal(n, 8 * (1 + SANDBOX_STATUS_COUNT * SANDBOX_REASON_COUNT) *
                            (2 + SANDBOX_STATUS_COUNT * SANDBOX_REASON_COUNT * 6));
}

static void trust_is_only_given_to_the_same_life(void **state)
{
    const struct reconcile_seen before = {{HOST_A}, 3, 10};
    for (uint64_t epoch = 2; epoch <= 4; epoch++)
        for (uint64_t revision = 9; revision <= 11; revision++)
            for (int other = 0; other < 2; other++) {
                const struct reconcile_seen now = {hosts[other], epoch, revision};
                enum reconcile_trust want = other || epoch != 3 ? TRUST_NAMED
                                            : revision < 10     ? TRUST_OUTDATED
                                                                : TRUST_FULLY;
                assert_int_equal(reconcile_trust(&before, &now), want);
            }
}

/* --- lives under a simulated clock --- */

enum { LIVES = 3000, TICKS = 60, REPLIES_MAX = 256, DELAY_MAX = 6 };

struct sim_reply {
    int arrives_at;
    struct reconcile_seen seen;
    bool full, has, foreign;
    struct reconcile_report said;
    struct sandbox_row before; /* the row when the question was asked */
};

struct sim {
    uint64_t random;
    int now;
    /* the host */
    bool has, recovering;
    bool hidden; /* the agent's folder lacks it for now, and the agent does not know better */
    struct reconcile_report truth;
    uint64_t host_revision, epoch;
    /* the database */
    struct sandbox_row row;
    struct reconcile_seen seen;
    bool deleted; /* by its user */
    struct sim_reply replies[REPLIES_MAX];
    size_t n;
};

static int n_lost;

static unsigned roll(struct sim *s, unsigned n)
{
    s->random = s->random * 6364136223846793005ULL + 1442695040888963407ULL;
    return (unsigned)(s->random >> 33) % n;
}

static void host_moves(struct sim *s)
{
    static const enum sandbox_status next[] = {
        SANDBOX_RUNNING, SANDBOX_PAUSED, SANDBOX_STOPPED, SANDBOX_PAUSING, SANDBOX_RESUMING};
    if (!s->has)
        return;
    s->truth.status = next[roll(s, 5)];
    s->truth.reason = s->truth.status == SANDBOX_STOPPED  ? REASON_VM_EXITED
                      : s->truth.status == SANDBOX_PAUSED ? REASON_IDLE
                                                          : REASON_NONE;
    s->truth.revision++;
    s->host_revision++;
}

/* The agent answers a question of now; the answer takes its time. */
static void host_answers(struct sim *s, bool full, int delay)
{
    if (s->n == REPLIES_MAX)
        return;
    s->replies[s->n++] = (struct sim_reply){
        .arrives_at = s->now + delay,
        .seen = {{HOST_A}, s->epoch, s->host_revision},
        .full = full && !s->recovering,
        .has = s->has && !s->recovering && !s->hidden && (full || roll(s, 2)),
        .said = s->truth,
        .before = s->row,
        .foreign = roll(s, 8) == 0,
    };
}

static void apply(struct sim *s, enum reconcile_action action, const struct sim_reply *r)
{
    switch (action) {
    case RECONCILE_APPLY:
        assert_true(r->said.revision >= s->row.revision);
        s->row.status = r->said.status;
        s->row.reason = r->said.reason;
        s->row.revision = r->said.revision;
        break;
    case RECONCILE_LOST:
        s->row.status = SANDBOX_STOPPED;
        s->row.reason = REASON_LOST;
        break;
    case RECONCILE_FAIL:
        s->row.status = SANDBOX_ERROR;
        s->row.reason = REASON_CREATE_FAILED;
        break;
    case RECONCILE_DESTROY:
        assert_true(s->deleted); /* nothing else ever destroys */
        s->has = false;
        s->host_revision++;
        return;
    default:
        return;
    }
    n_lost += action == RECONCILE_LOST;
    s->row.status_since_ms = s->now;
}

static void reply_arrives(struct sim *s, const struct sim_reply *r)
{
    struct reconcile_seen now = r->seen;
    struct reconcile_reply reply = {.cluster_id = "c1", .known_cluster_id = "c1"};
    struct reconcile_report said = r->said;
    enum reconcile_trust trust;
    if (r->foreign)
        now.host = (struct host_id){HOST_B};
    trust = reconcile_trust(&s->seen, &now);
    reply.host = now.host;
    reply.complete = r->full && trust == TRUST_FULLY;
    if (!r->has && !reconcile_row_same(&r->before, &s->row))
        return;
    said.row_is_older = reconcile_row_same(&r->before, &s->row);
    apply(s, reconcile_decide(&reply, &s->row, r->has && !r->foreign ? &said : NULL), r);
    if (trust != TRUST_OUTDATED && !r->foreign)
        s->seen = now;
}

static void deliver(struct sim *s)
{
    for (size_t i = 0; i < s->n; i++) {
        struct sim_reply r = s->replies[i];
        if (r.arrives_at > s->now)
            continue;
        if (roll(s, 6) != 0) /* else it comes once more, later */
            s->replies[i--] = s->replies[--s->n];
        else
            s->replies[i].arrives_at = s->now + 1 + (int)roll(s, DELAY_MAX);
        if (roll(s, 6) != 0) /* else it is lost */
            reply_arrives(s, &r);
    }
}

/* A pause or resume that ends without an answer; whether the host ever hears of it is its affair.
 */
static void transition_is_lost(struct sim *s)
{
    if (s->row.status == SANDBOX_RUNNING)
        s->row.status = SANDBOX_PAUSING;
    else if (s->row.status == SANDBOX_PAUSED)
        s->row.status = SANDBOX_RESUMING;
    else
        return;
    s->row.status_since_ms = s->now;
}

static void tick(struct sim *s)
{
    if (!s->hidden && roll(s, 4) == 0)
        host_moves(s);
    if (!s->deleted && roll(s, 8) == 0)
        transition_is_lost(s);
    if (roll(s, 20) == 0) {
        s->epoch++;
        s->recovering = true;
        /* A create that is not there has failed, which is final: that is told to somebody. */
        s->hidden = s->row.status != SANDBOX_PENDING && roll(s, 3) == 0;
    } else if (s->recovering && roll(s, 3) == 0) {
        s->recovering = false;
    }
    if (!s->deleted && roll(s, 200) == 0) {
        s->deleted = true;
        s->row.status = SANDBOX_STOPPED;
        s->row.reason = REASON_DESTROYED;
    }
    host_answers(s, roll(s, 3) == 0, (int)roll(s, DELAY_MAX));
    deliver(s);
    s->now++;
}

/* Quiet: everything late arrives, then two full answers in time. */
static void settle(struct sim *s)
{
    s->recovering = false;
    s->n = 0;
    for (int i = 0; i < 3; i++) {
        struct sim_reply r = {.seen = {{HOST_A}, s->epoch, s->host_revision},
            .full = true,
            .has = s->has,
            .said = s->truth,
            .before = s->row};
        reply_arrives(s, &r);
        s->now++;
    }
}

static void live(uint64_t seed)
{
    static struct sim s; /* too large for a stack */
    s = (struct sim){
        .random = seed,
        .has = true,
        .truth = {.status = SANDBOX_RUNNING, .revision = 2},
        .host_revision = 2,
        .epoch = 1,
        .row = {.host = {HOST_A}, .status = seed % 2 ? SANDBOX_PENDING : SANDBOX_RUNNING},
        .seen = {{HOST_A}, 1, 0},
    };
    s.row.revision = s.row.status == SANDBOX_PENDING ? 0 : seed % 3;
    for (int i = 0; i < TICKS; i++)
        tick(&s);
    settle(&s);
    if (s.deleted) {
        assert_false(s.has);
        assert_true(sandbox_row_is_over(&s.row));
        return;
    }
    assert_true(s.has); /* nothing that lives was destroyed */
    assert_int_equal(s.row.status, s.truth.status);
    assert_int_equal(s.row.revision, s.truth.revision);
}

static void both_sides_agree_in_the_end(void **state)
{
    for (uint64_t seed = 1; seed <= LIVES; seed++)
        live(seed);
    assert_true(n_lost > 0); /* and they were found again */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_combination_keeps_the_invariants),
        cmocka_unit_test(trust_is_only_given_to_the_same_life),
        cmocka_unit_test(both_sides_agree_in_the_end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
