/* SPDX-License-Identifier: Apache-2.0 */
/* Clock, chance, tasks and messages of the simulation. */
#include "sim.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

enum { CALL_TIMEOUT_MS = 5000, MESSAGE_MS = 40 };

/* xorshift64*, by S. Vigna. */
static uint64_t next_random(struct sim *sim)
{
    sim->random ^= sim->random >> 12;
    sim->random ^= sim->random << 25;
    sim->random ^= sim->random >> 27;
    return sim->random * 0x2545F4914F6CDD1DULL;
}

uint32_t sim_below(struct sim *sim, uint32_t n)
{
    return (uint32_t)((next_random(sim) >> 32) * n >> 32);
}

bool sim_fault(struct sim *sim, uint32_t n)
{
    return !sim->calm && sim_below(sim, n) == 0;
}

void sim_init(struct sim *sim, uint64_t seed)
{
    bool tracing = sim->tracing;
    memset(sim, 0, sizeof *sim);
    sim->tracing = tracing;
    sim->random = (seed + 1) * 0x9E3779B97F4A7C15ULL | 1;
}

void sim_fail(struct sim *sim, const char *format, ...)
{
    va_list args;
    if (sim->failed)
        return;
    sim->failed = true;
    va_start(args, format);
    (void)vsnprintf(sim->failure, sizeof sim->failure, format, args);
    va_end(args);
}

void sim_trace(struct sim *sim, const char *format, ...)
{
    char *line;
    int n;
    va_list args;
    if (!sim->tracing)
        return;
    line = sim->trace[sim->n_trace++ % TRACE_LINES];
    n = snprintf(line, TRACE_CHARS, "%7lld ms  ", (long long)sim->now_ms);
    va_start(args, format);
    (void)vsnprintf(line + n, (size_t)(TRACE_CHARS - n), format, args);
    va_end(args);
}

/* --- tasks --- */

uint32_t sim_life(const struct sim *sim, enum owner owner)
{
    return owner == OWNER_AGENT ? sim->host.life : owner == OWNER_CONTROL ? sim->control.life : 0;
}

struct task *sim_task(struct sim *sim, enum owner owner, task_step *run, int box)
{
    for (size_t i = 0; i < TASKS; i++) {
        struct task *t = &sim->tasks[i];
        if (t->run)
            continue;
        t->run = run;
        t->id = ++sim->last_id;
        t->due_ms = sim->now_ms;
        t->owner = owner;
        t->life = sim_life(sim, owner);
        t->stage = 0;
        t->box = box;
        t->idle = t->full = false;
        t->caller = t->call = 0;
        t->generation = -1;
        t->gives_up_ms = 0;
        return t;
    }
    sim_fail(sim, "more than %d tasks", TASKS);
    return NULL;
}

void sim_wait(struct sim *sim, struct task *t, int64_t ms)
{
    t->due_ms = sim->now_ms + ms;
}

void sim_park(struct task *t)
{
    t->due_ms = INT64_MAX;
}

void sim_end(struct task *t)
{
    t->run = NULL;
}

struct task *sim_find(struct sim *sim, uint32_t id)
{
    for (size_t i = 0; id != 0 && i < TASKS; i++)
        if (sim->tasks[i].run && sim->tasks[i].id == id)
            return &sim->tasks[i];
    return NULL;
}

void sim_kill_tasks(struct sim *sim, enum owner owner)
{
    for (size_t i = 0; i < TASKS; i++)
        if (sim->tasks[i].run && sim->tasks[i].owner == owner)
            sim_end(&sim->tasks[i]);
}

/* Two that are due at once run in any order. */
static struct task *pick(struct sim *sim, int64_t until_ms)
{
    struct task *best = NULL;
    uint32_t equal = 1;
    for (size_t i = 0; i < TASKS; i++) {
        struct task *t = &sim->tasks[i];
        if (!t->run || t->due_ms > until_ms || (best && t->due_ms > best->due_ms))
            continue;
        equal = best && t->due_ms == best->due_ms ? equal + 1 : 1;
        if (equal == 1 || sim_below(sim, equal) == 0)
            best = t;
    }
    return best;
}

void sim_run(struct sim *sim, int64_t until_ms)
{
    struct task *t;
    while (!sim->failed && (t = pick(sim, until_ms))) {
        if (t->due_ms > sim->now_ms)
            sim->now_ms = t->due_ms;
        sim->events++;
        t->run(sim, t);
    }
    sim->now_ms = until_ms;
}

/* --- messages --- */

/* An answer reaches the task that waits for it, if that is still there. */
static void arrive(struct sim *sim, struct task *t)
{
    struct task *caller = sim_find(sim, t->caller);
    if (caller && caller->due_ms == INT64_MAX && caller->call == t->call) {
        caller->answer = t->answer;
        sim_wait(sim, caller, 0);
    }
    sim_end(t);
}

static void send_answer(struct sim *sim, const struct task *from, uint32_t caller,
    const struct answer *answer, int64_t after_ms)
{
    struct task *t = sim_task(sim, OWNER_WORLD, arrive, 0);
    if (!t)
        return;
    t->caller = caller;
    t->call = from->call;
    t->answer = *answer;
    sim_wait(sim, t, after_ms);
}

void sim_answer(struct sim *sim, struct task *t, enum outcome outcome)
{
    t->answer.outcome = outcome;
    if (t->wish != WISH_LIST)
        sim_trace(sim, "agent: %s of %d answers %d", wish_name(t->wish), t->box, outcome);
    if (t->caller != 0 && !sim_fault(sim, 30))
        send_answer(sim, t, t->caller, &t->answer, 1 + sim_below(sim, MESSAGE_MS));
    sim_end(t);
}

/* A request reaches the agent, or nobody. */
static void reach(struct sim *sim, struct task *t)
{
    struct task *at;
    if (sim->host.up && (at = sim_task(sim, OWNER_AGENT, host_step(t->wish), t->box))) {
        at->wish = t->wish;
        at->idle = t->idle;
        at->caller = t->caller;
        at->call = t->call;
        at->since = t->since;
        memcpy(at->acks, t->acks, sizeof at->acks);
        memset(&at->answer, 0, sizeof at->answer);
    }
    sim_end(t);
}

void sim_call(struct sim *sim, struct task *t, enum wish wish, bool idle)
{
    const struct answer none = {.outcome = UNKNOWN};
    struct task *m;
    sim_park(t);
    t->call++;
    if (!sim_fault(sim, 30) && (m = sim_task(sim, OWNER_WORLD, reach, t->box))) {
        m->wish = wish;
        m->idle = idle;
        m->caller = t->id;
        m->call = t->call;
        m->since = t->since;
        memcpy(m->acks, t->acks, sizeof m->acks);
        sim_wait(sim, m, 1 + sim_below(sim, MESSAGE_MS));
    }
    send_answer(sim, t, t->id, &none, CALL_TIMEOUT_MS); /* too late for who has one by then */
}

void sim_break_calls(struct sim *sim)
{
    const struct answer none = {.outcome = UNKNOWN};
    for (size_t i = 0; i < TASKS; i++) {
        struct task *t = &sim->tasks[i];
        if (t->run && t->due_ms == INT64_MAX)
            send_answer(sim, t, t->id, &none, 1 + sim_below(sim, MESSAGE_MS));
    }
}
