/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The control plane: the order of steps of service/create.c, change.c, sleep.c, reconcile.c,
 * settle.c and remover.c. A change of that order there belongs here, too.
 */
#include <string.h>

#include "sim.h"

enum { LOCK_MS = 4000, GAP_MS = 300, FULL_EVERY = 8, RESTART_MS = 1500, RETRY_MS = 400 };

static const char cluster[] = "cluster";
static const struct host_id the_host = {.text = "host"};

const char *wish_name(enum wish wish)
{
    static const char *const names[] = {
        "create", "pause", "resume", "resume last", "exec", "destroy", "list"};
    return names[wish];
}

static struct sim_row *box_of(struct sim *sim, const struct task *t)
{
    return &sim->control.boxes[t->box];
}

static struct sandbox_row full_row(const struct row *r)
{
    return (struct sandbox_row){.host = the_host,
        .status = r->state.status,
        .reason = r->state.reason,
        .revision = r->state.revision,
        .status_since_ms = r->since_ms};
}

static bool is_over(const struct row *r)
{
    const struct sandbox_row full = full_row(r);
    return sandbox_row_is_over(&full);
}

static bool is_same(const struct row *a, const struct row *b)
{
    const struct sandbox_row x = full_row(a);
    const struct sandbox_row y = full_row(b);
    return reconcile_row_same(&x, &y);
}

static void check_change(struct sim *sim, int box, const struct machine_state *now)
{
    const struct sim_row *b = &sim->control.boxes[box];
    const struct row changed = {.state = *now};
    if (is_over(&b->row) && !is_over(&changed))
        sim_fail(sim, "%d was over and is %s", box, sandbox_status_name(now->status));
    if (b->created && !b->delete_asked && is_over(&changed))
        sim_fail(sim, "%d is over and nobody asked for it", box);
}

/* The store's sandbox_change; false when it knows a newer revision. Revision 0: as it was. */
static bool change_row(struct sim *sim, int box, const struct machine_state *now)
{
    struct row *row = &sim->control.boxes[box].row;
    uint64_t revision = row->state.revision;
    if (now->revision != 0 && now->revision < revision)
        return false;
    check_change(sim, box, now);
    row->state = *now;
    if (now->revision == 0)
        row->state.revision = revision;
    row->since_ms = sim->now_ms;
    sim_trace(sim, "control: row of %d is %s (%s) revision=%llu", box,
        sandbox_status_name(now->status), sandbox_reason_name(now->reason),
        (unsigned long long)row->state.revision);
    return true;
}

static void change_to(
    struct sim *sim, int box, enum sandbox_status status, enum sandbox_reason reason)
{
    const struct machine_state now = {status, reason, 0};
    (void)change_row(sim, box, &now);
}

/* --- requests --- */

/* `t` holds the sandbox's lock and lets go. */
static void finish(struct sim *sim, struct task *t)
{
    box_of(sim, t)->locked = false;
    sim_end(t);
}

/* True when `t` has the lock; else it tries again, or has given up. */
static bool lock(struct sim *sim, struct task *t, bool settled)
{
    struct sim_row *b = box_of(sim, t);
    enum sandbox_status status = b->row.state.status;
    bool unsettled = status == SANDBOX_PAUSING || status == SANDBOX_RESUMING;
    if (t->gives_up_ms == 0)
        t->gives_up_ms = sim->now_ms + LOCK_MS;
    if (b->has_row && !b->locked && !(settled && unsettled)) {
        b->locked = true;
        t->before = b->row;
        return true;
    }
    if (!b->has_row || sim->now_ms >= t->gives_up_ms)
        sim_end(t);
    else
        sim_wait(sim, t, 10 + sim_below(sim, 50));
    return false;
}

static void remove_later(struct sim *sim, int box);

static void create(struct sim *sim, struct task *t)
{
    struct sim_row *b = box_of(sim, t);
    switch (t->stage++) {
    case 0:
        if (b->has_row) {
            sim_end(t);
            return;
        }
        *b = (struct sim_row){.has_row = true, .locked = true};
        b->row = (struct row){{SANDBOX_PENDING, REASON_NONE, 0}, sim->now_ms};
        sim_call(sim, t, WISH_CREATE, false);
        return;
    case 1:
        if (t->answer.outcome == DONE && t->answer.state.status == SANDBOX_RUNNING &&
            change_row(sim, t->box, &t->answer.state)) {
            b->created = true;
            finish(sim, t);
            return;
        }
        sim_call(sim, t, WISH_DESTROY, false);
        return;
    default:
        change_to(sim, t->box, SANDBOX_ERROR, REASON_CREATE_FAILED);
        if (t->answer.outcome != DONE)
            remove_later(sim, t->box);
        finish(sim, t);
    }
}

static void destroy(struct sim *sim, struct task *t)
{
    struct sim_row *b = box_of(sim, t);
    if (t->stage == 0) {
        if (!lock(sim, t, /* settled= */ false))
            return;
        b->delete_asked = true;
        if (b->row.state.reason == REASON_DESTROYED) {
            finish(sim, t);
            return;
        }
        t->stage = 1;
        sim_call(sim, t, WISH_DESTROY, false);
        return;
    }
    if (t->answer.outcome == DONE)
        change_to(sim, t->box, SANDBOX_STOPPED, REASON_DESTROYED);
    finish(sim, t);
}

static bool can_begin(const struct task *t)
{
    const struct machine_state *s = &t->before.state;
    bool lost =
        s->status == SANDBOX_STOPPED && (s->reason == REASON_VM_EXITED || s->reason == REASON_LOST);
    if (t->wish == WISH_PAUSE)
        return s->status == SANDBOX_RUNNING;
    return t->wish == WISH_LAST ? lost : s->status == SANDBOX_PAUSED;
}

/* Refused: the row goes back. Unknown: it stays, and the reconciler settles it. */
static void not_done(struct sim *sim, struct task *t)
{
    enum outcome o = t->answer.outcome;
    const struct machine_state *was = &t->before.state;
    bool fell = o == FAILED && was->status != SANDBOX_STOPPED;
    if (o == UNKNOWN || o == NOT_FOUND)
        sim->control.want_full = true;
    if (o != UNKNOWN)
        change_to(sim, t->box, was->status,
            !fell                            ? was->reason
            : was->status == SANDBOX_RUNNING ? REASON_PAUSE_FAILED
                                             : REASON_RESTORE_FAILED);
}

static void move(struct sim *sim, struct task *t)
{
    if (t->stage == 0) {
        if (!lock(sim, t, /* settled= */ true))
            return;
        if (!can_begin(t)) {
            finish(sim, t);
            return;
        }
        change_to(sim, t->box, t->wish == WISH_PAUSE ? SANDBOX_PAUSING : SANDBOX_RESUMING,
            t->wish == WISH_PAUSE ? REASON_REQUESTED : REASON_NONE);
        t->stage = 1;
        sim_call(sim, t, t->wish, false);
        return;
    }
    if (t->answer.outcome != DONE)
        not_done(sim, t);
    else if (!change_row(sim, t->box, &t->answer.state))
        sim->control.want_full = true;
    finish(sim, t);
}

/* Takes no lock: an exec is no transition. */
static void exec(struct sim *sim, struct task *t)
{
    const struct sim_row *b = box_of(sim, t);
    if (t->stage++ == 0 && b->has_row && b->row.state.status == SANDBOX_RUNNING)
        sim_call(sim, t, WISH_EXEC, false);
    else
        sim_end(t);
}

void control_request(struct sim *sim, int box, enum wish wish)
{
    static task_step *const steps[] = {[WISH_CREATE] = create,
        [WISH_PAUSE] = move,
        [WISH_RESUME] = move,
        [WISH_LAST] = move,
        [WISH_EXEC] = exec,
        [WISH_DESTROY] = destroy};
    struct task *t;
    if (!sim->control.up)
        return;
    t = sim_task(sim, OWNER_CONTROL, steps[wish], box);
    if (t) {
        t->wish = wish;
        sim_trace(sim, "client: %s %d", wish_name(wish), box);
    }
}

/* --- the remover --- */

static void remove_on_host(struct sim *sim, struct task *t)
{
    struct sim_row *b = box_of(sim, t);
    if (t->stage == 0) {
        if (b->locked) {
            sim_wait(sim, t, 50);
            return;
        }
        if (!is_over(&b->row)) {
            b->removing = false;
            sim_end(t);
            return;
        }
        b->locked = true;
        t->stage = 1;
        sim_call(sim, t, WISH_DESTROY, false);
        return;
    }
    b->locked = false;
    t->stage = 0;
    if (t->answer.outcome != DONE) {
        sim_wait(sim, t, RETRY_MS);
        return;
    }
    b->removing = false;
    sim_end(t);
}

static void remove_later(struct sim *sim, int box)
{
    struct sim_row *b = &sim->control.boxes[box];
    if (!b->removing && sim_task(sim, OWNER_CONTROL, remove_on_host, box))
        b->removing = true;
}

/* --- the reconciler --- */

static void do_action(
    struct sim *sim, int box, enum reconcile_action action, const struct machine_state *said)
{
    struct machine_state now;
    switch (action) {
    case RECONCILE_APPLY:
        now = *said;
        if (now.revision < sim->control.boxes[box].row.state.revision)
            now.revision = 0;
        (void)change_row(sim, box, &now);
        if (is_over(&sim->control.boxes[box].row))
            remove_later(sim, box);
        break;
    case RECONCILE_PAUSED:
        change_to(sim, box, SANDBOX_PAUSED, REASON_IDLE);
        break;
    case RECONCILE_LOST:
        change_to(sim, box, SANDBOX_STOPPED, REASON_LOST);
        break;
    case RECONCILE_FAIL:
        change_to(sim, box, SANDBOX_ERROR, REASON_CREATE_FAILED);
        break;
    case RECONCILE_DESTROY:
        remove_later(sim, box);
        break;
    default:
        break;
    }
}

static enum reconcile_action decide(
    struct sim *sim, const struct task *t, int box, const struct reconcile_reply *reply)
{
    const struct sim_row *b = &sim->control.boxes[box];
    const struct said *said = &t->answer.said[box];
    const struct sandbox_row row = full_row(&b->row);
    struct reconcile_report report = {.status = said->state.status,
        .reason = said->state.reason,
        .revision = said->state.revision,
        .row_is_older = t->has_row[box] && is_same(&t->rows[box], &b->row)};
    return reconcile_decide(reply, b->has_row ? &row : NULL, said->named ? &report : NULL);
}

/* One sandbox of a reply: judged as it lies there, then again under the lock. False when that is
 * taken. */
static bool settle(
    struct sim *sim, const struct task *t, int box, const struct reconcile_reply *reply)
{
    struct sim_row *b = &sim->control.boxes[box];
    const struct said *said = &t->answer.said[box];
    enum reconcile_action action = decide(sim, t, box, reply);
    if (!said->named && (!t->has_row[box] || !reply->complete))
        return true; /* only rows of before the question can be missing */
    if (action == RECONCILE_UNKNOWN)
        sim_fail(sim, "the host has %d and the database has not", box);
    if (action == RECONCILE_NOTHING)
        return true;
    if (action != RECONCILE_DESTROY && b->locked)
        return false;
    if (!said->named && !is_same(&t->rows[box], &b->row))
        return true;
    do_action(sim, box, action, &said->state);
    return true;
}

static void note_acks(struct sim *sim, const struct task *t)
{
    struct sim_control *c = &sim->control;
    for (int i = 0; i < BOXES; i++) {
        const struct row *row = &c->boxes[i].row;
        if (t->answer.said[i].named && t->answer.said[i].auto_paused &&
            (row->state.status == SANDBOX_PAUSED || is_over(row)))
            c->acks[i] = row->state.revision;
    }
}

static void take_reply(struct sim *sim, struct task *t)
{
    struct sim_control *c = &sim->control;
    const struct answer *a = &t->answer;
    struct reconcile_seen before = c->seen;
    struct reconcile_seen now = {the_host, a->agent_epoch, a->host_revision};
    struct reconcile_reply reply = {the_host, cluster, cluster, .complete = t->full && a->full};
    bool left_over = false;
    if (!t->full && a->full)
        c->want_full = true;
    if (before.agent_epoch != now.agent_epoch) {
        c->want_full = true;
        memset(c->acks, 0, sizeof c->acks);
    }
    if (reconcile_trust(&before, &now) != TRUST_FULLY)
        reply.complete = false;
    if (reconcile_trust(&before, &now) == TRUST_OUTDATED) {
        now.host_revision = before.host_revision;
        c->want_full = true;
    }
    for (int i = 0; i < BOXES; i++)
        left_over |= !settle(sim, t, i, &reply);
    note_acks(sim, t);
    if (left_over) {
        now.host_revision = before.agent_epoch == now.agent_epoch ? before.host_revision : 0;
        c->want_full |= t->full;
    }
    c->seen = now;
}

static void poll(struct sim *sim, struct task *t)
{
    struct sim_control *c = &sim->control;
    if (t->stage == 0) {
        t->full = c->want_full || c->seen.agent_epoch == 0 || sim_below(sim, FULL_EVERY) == 0;
        c->want_full = false;
        t->since = t->full ? 0 : c->seen.host_revision;
        for (int i = 0; i < BOXES; i++) {
            t->rows[i] = c->boxes[i].row;
            t->has_row[i] = c->boxes[i].has_row && !is_over(&c->boxes[i].row);
            t->acks[i] = c->acks[i];
        }
        t->stage = 1;
        sim_call(sim, t, WISH_LIST, false);
        return;
    }
    if (t->answer.outcome == DONE)
        take_reply(sim, t);
    else
        c->want_full = true;
    t->stage = 0;
    sim_wait(sim, t, 1 + sim_below(sim, GAP_MS));
}

/* --- its life --- */

void control_start(struct sim *sim)
{
    struct sim_control *c = &sim->control;
    c->up = true;
    c->life++;
    c->want_full = true;
    c->seen = (struct reconcile_seen){0};
    memset(c->acks, 0, sizeof c->acks);
    for (int i = 0; i < BOXES; i++)
        c->boxes[i].locked = c->boxes[i].removing = false;
    sim_trace(sim, "control starts");
    (void)sim_task(sim, OWNER_CONTROL, poll, 0);
}

static void start_again(struct sim *sim, struct task *t)
{
    sim_end(t);
    control_start(sim);
}

void control_faults(struct sim *sim, struct task *t)
{
    struct task *again;
    if (sim->calm) {
        sim_end(t);
        return;
    }
    sim_wait(sim, t, 200 + sim_below(sim, 8000));
    if (!sim->control.up || sim_below(sim, 2) == 0)
        return;
    sim_trace(sim, "control dies");
    sim->control.up = false;
    sim_kill_tasks(sim, OWNER_CONTROL);
    again = sim_task(sim, OWNER_WORLD, start_again, 0);
    if (again)
        sim_wait(sim, again, 50 + sim_below(sim, RESTART_MS));
}
