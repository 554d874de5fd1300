/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Nothing is lost in any order of events: what decides about a sandbox, in the agent and in the
 * control plane, is run against kills, power cuts, failing disks and lost messages, under a
 * simulated clock. TORPOR_SIM_SEEDS says how many seeds, TORPOR_SIM_FIRST the first of them; a
 * seed that fails is printed, and alone (TORPOR_SIM_SEEDS=1) it tells what happened in it.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "sim.h"

enum { SEEDS = 100000, STORMY_MS = 12000, CALM_MS = 9000, STEP_MS = 6000 };

/* Clients want something now and then. */
static void clients(struct sim *sim, struct task *t)
{
    static const enum wish wishes[] = {WISH_CREATE, WISH_PAUSE, WISH_PAUSE, WISH_RESUME,
        WISH_RESUME, WISH_LAST, WISH_EXEC, WISH_EXEC, WISH_EXEC, WISH_EXEC};
    int box = (int)sim_below(sim, BOXES);
    if (sim->calm) {
        sim_end(t);
        return;
    }
    sim_wait(sim, t, sim_below(sim, 400));
    if (sim_below(sim, 60) == 0)
        control_request(sim, box, WISH_DESTROY);
    else
        control_request(sim, box, wishes[sim_below(sim, sizeof wishes / sizeof wishes[0])]);
}

static bool is_over(const struct row *r)
{
    const struct sandbox_row row = {.status = r->state.status, .reason = r->state.reason};
    return sandbox_row_is_over(&row);
}

/* What must be so when nothing has happened for a while. */
static void check_box(struct sim *sim, int i)
{
    const struct sim_row *c = &sim->control.boxes[i];
    const struct sim_box *h = &sim->host.boxes[i];
    const struct machine_state row = c->row.state;
    enum sandbox_status status = h->entry.state.status;
    if (!c->has_row || is_over(&c->row)) {
        if (h->listed || h->folder || h->has_run || h->vm)
            sim_fail(sim, "%d is over and something of it is left", i);
        return;
    }
    if (!h->listed && c->delete_asked)
        return; /* the answer to a DELETE was lost; the next one finds nothing to do */
    if (!h->listed)
        sim_fail(sim, "%d is %s and the host has it not", i, sandbox_status_name(row.status));
    else if (row.status != status)
        sim_fail(sim, "the row of %d is %s, the host has it %s", i, sandbox_status_name(row.status),
            sandbox_status_name(status));
    else if (status != SANDBOX_RUNNING && status != SANDBOX_PAUSED && status != SANDBOX_STOPPED)
        sim_fail(sim, "%d is stuck: %s", i, sandbox_status_name(status));
    else if (h->vm != (status == SANDBOX_RUNNING) || h->vm_frozen)
        sim_fail(sim, "%d is %s, its VM is not", i, sandbox_status_name(status));
    else if (h->has_run != (status == SANDBOX_RUNNING))
        sim_fail(sim, "%d is %s and has a wrong run file", i, sandbox_status_name(status));
    else if (h->in_transition || c->locked)
        sim_fail(sim, "%d is locked for ever", i);
    else if (h->entry.generation >= 0 && !sim->host.exists[h->entry.generation])
        sim_fail(sim, "the generation of %d is gone", i);
    else if (status == SANDBOX_PAUSED && h->entry.generation < 0)
        sim_fail(sim, "%d sleeps nowhere", i);
}

static void check_leaks(struct sim *sim)
{
    for (int g = 0; g < GENERATIONS; g++) {
        bool named = false;
        for (size_t i = 0; i < BOXES; i++)
            named |= sim->host.boxes[i].listed && sim->host.boxes[i].entry.generation == g;
        if (sim->host.exists[g] && !named)
            sim_fail(sim, "generation %d is nobody's", g);
    }
}

static void check_all(struct sim *sim)
{
    for (int i = 0; i < BOXES; i++)
        check_box(sim, i);
    check_leaks(sim);
}

/* Whoever sleeps can be woken, whoever has a generation can be restored, everything can go. */
static void use_all(struct sim *sim)
{
    for (int i = 0; i < BOXES; i++) {
        const struct sim_box *h = &sim->host.boxes[i];
        enum sandbox_status status = h->entry.state.status;
        bool woken = h->listed && (status == SANDBOX_PAUSED ||
                                      (status == SANDBOX_STOPPED && h->entry.generation >= 0));
        if (!woken)
            continue;
        control_request(sim, i, status == SANDBOX_PAUSED ? WISH_RESUME : WISH_LAST);
        sim_run(sim, sim->now_ms + STEP_MS);
        if (!sim->failed && sim->control.boxes[i].row.state.status != SANDBOX_RUNNING)
            sim_fail(sim, "%d cannot be woken", i);
    }
    check_all(sim);
    for (int i = 0; i < BOXES; i++)
        control_request(sim, i, WISH_DESTROY);
    sim_run(sim, sim->now_ms + STEP_MS);
    for (int i = 0; i < BOXES && !sim->failed; i++)
        if (sim->control.boxes[i].has_row && !is_over(&sim->control.boxes[i].row))
            sim_fail(sim, "%d cannot be destroyed", i);
    check_all(sim);
}

static bool run_seed(struct sim *sim, uint64_t seed)
{
    sim_init(sim, seed);
    host_start(sim);
    control_start(sim);
    (void)sim_task(sim, OWNER_WORLD, clients, 0);
    (void)sim_task(sim, OWNER_WORLD, host_idle, 0);
    (void)sim_task(sim, OWNER_WORLD, host_faults, 0);
    (void)sim_task(sim, OWNER_WORLD, control_faults, 0);
    sim_run(sim, STORMY_MS);
    sim->calm = true;
    sim_run(sim, STORMY_MS + CALM_MS);
    if (!sim->failed)
        check_all(sim);
    if (!sim->failed)
        use_all(sim);
    return !sim->failed;
}

static uint64_t number_of(const char *name, uint64_t otherwise)
{
    const char *text = getenv(name);
    return text ? strtoull(text, NULL, 10) : otherwise;
}

static void show_trace(const struct sim *sim)
{
    unsigned first = sim->n_trace > TRACE_LINES ? sim->n_trace - TRACE_LINES : 0;
    for (unsigned i = first; i < sim->n_trace; i++)
        print_message("# %s\n", sim->trace[i % TRACE_LINES]);
}

static void every_seed_ends_well(void **state)
{
    static struct sim sim;
    uint64_t first = number_of("TORPOR_SIM_FIRST", 0);
    uint64_t n = number_of("TORPOR_SIM_SEEDS", SEEDS);
    uint64_t events = 0;
    (void)state;
    for (uint64_t seed = first; seed < first + n; seed++) {
        bool fine = run_seed(&sim, seed);
        events += sim.events;
        if (fine)
            continue;
        sim.tracing = true;
        sim.n_trace = 0;
        (void)run_seed(&sim, seed);
        show_trace(&sim);
        fail_msg(
            "TORPOR_SIM_FIRST=%llu TORPOR_SIM_SEEDS=1: %s", (unsigned long long)seed, sim.failure);
    }
    print_message("# %llu seeds from %llu, %llu events\n", (unsigned long long)n,
        (unsigned long long)first, (unsigned long long)events);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(every_seed_ends_well)};
    return cmocka_run_group_tests_name("sim", tests, NULL, NULL);
}
