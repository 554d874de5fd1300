/* SPDX-License-Identifier: Apache-2.0 */
/*
 * usage: torpor-soak          needs root, and kernel and image as the tests of real VMs do
 *
 * TORPOR_SOAK_SECONDS (1800), TORPOR_SOAK_WORKERS (one more than cores), TORPOR_SEED. Exit status
 * 0: nothing grew, no sandbox was lost, no error is unexplained.
 */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>
#include <poll.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "soak.h"

enum {
    SECONDS = 1800,
    WORKERS_MAX = 16,
    CHECKPOINTS = 6,
    KILLS_UNTIL = 2,       /* checkpoints; afterwards what grows must be seen to grow */
    FIRST_COMPARED = 3,    /* with the last one; caches and pools are full by then */
    KILL_EVERY_MS = 75000, /* agent or control plane */
    TICK_MS = 200,
    STILL_MS = 240000, /* a round's end */
    GONE_MS = 60000,   /* the bytes of what was deleted */
};

static struct soak *soak;
static pid_t workers[WORKERS_MAX];
static unsigned n_workers;

static unsigned number_of(const char *name, unsigned otherwise)
{
    const char *text = getenv(name);
    return text ? (unsigned)strtoul(text, NULL, 10) : otherwise;
}

static void start_workers(unsigned seed)
{
    for (unsigned i = 0; i < n_workers; i++) {
        workers[i] = fork();
        assert_true(workers[i] >= 0);
        if (workers[i] > 0)
            continue;
        churn(soak, i, seed);
        _exit(0);
    }
}

/* A worker that has ended by itself is one of ours that broke. */
static void check_workers(void)
{
    for (unsigned i = 0; i < n_workers; i++)
        if (waitpid(workers[i], NULL, WNOHANG) != 0)
            fail_msg("worker %u has ended", i);
}

/* --- disturbances --- */

static void kill_one(unsigned *random)
{
    struct stack *s = &soak->stack;
    bool agent = rand_r(random) % 2 == 0;
    atomic_store(&soak->dead_since_ms, clock_mono_ms());
    (void)stack_end(agent ? &s->agent : &s->control, SIGKILL);
    if (agent)
        stack_start_agent(s);
    else
        stack_start_control(s);
    atomic_store(&soak->alive_since_ms, clock_mono_ms());
    atomic_store(&soak->dead_since_ms, 0);
    printf("# %s was killed and started again\n", agent ? "agent" : "control plane");
    (void)fflush(stdout);
}

/* --- checkpoints --- */

static void delete_all(const char *list, const char *one, const char *name)
{
    AUTO_REPLY struct reply r = {0};
    api(&soak->stack, "GET", list, NULL, &r);
    assert_int_equal(r.status, 200);
    for (const struct json_value *v = r.json->first; v; v = v->next) {
        char path[128];
        struct slice text = json_get(v, name)->string;
        const struct json_value *type = json_get(v, "type");
        if (type && !slice_is(type->string, "snapshot"))
            continue;
        (void)snprintf(path, sizeof path, "%s/%.*s", one, (int)text.n, text.p);
        (void)api_try(&soak->stack, "DELETE", path, NULL);
    }
}

/* Workers stand, everything is deleted, what goes in the background has gone. */
static void checkpoint(int64_t second, struct measured *ret)
{
    int64_t deadline = deadline_in_ms(STILL_MS);
    atomic_store(&soak->stand_still, 1);
    while (atomic_load(&soak->standing) < (int)n_workers && clock_mono_ms() < deadline) {
        check_workers();
        (void)poll(NULL, 0, TICK_MS);
    }
    assert_int_equal(atomic_load(&soak->standing), n_workers);
    delete_all("/v1/sandboxes?limit=100", "/v1/sandboxes", "id");
    delete_all("/v1/snapshots?limit=100", "/v1/snapshots", "name");
    deadline = deadline_in_ms(GONE_MS);
    do {
        measure(&soak->stack, ret);
        (void)poll(NULL, 0, TICK_MS);
    } while (ret->disk.files > 0 && clock_mono_ms() < deadline);
    measure_print(second, ret);
    atomic_store(&soak->stand_still, 0);
}

static void report(void)
{
    for (int i = 0; i < OP_COUNT; i++)
        printf("%lld %s%s", (long long)atomic_load(&soak->n[i]), soak_op_names[i],
            i + 1 < OP_COUNT ? ", " : "\n");
    printf("errors: %lld explained by a killed program, %lld unexplained; sandboxes lost: %lld\n",
        (long long)atomic_load(&soak->explained), (long long)atomic_load(&soak->unexplained),
        (long long)atomic_load(&soak->lost));
}

static void soak_run(void **state)
{
    int64_t seconds = number_of("TORPOR_SOAK_SECONDS", SECONDS);
    unsigned seed = test_seed();
    unsigned random = seed;
    int64_t began;
    int64_t next_kill;
    struct measured first;
    struct measured last;
    (void)state;
    stack_start(&soak->stack);
    start_workers(seed);
    began = clock_mono_ms();
    next_kill = began + KILL_EVERY_MS;
    measure_print_head();
    for (int i = 1; i <= CHECKPOINTS; i++) {
        while (clock_mono_ms() < began + seconds * 1000 * i / CHECKPOINTS) {
            check_workers();
            (void)poll(NULL, 0, TICK_MS);
            if (i > KILLS_UNTIL || clock_mono_ms() < next_kill)
                continue;
            kill_one(&random);
            next_kill = clock_mono_ms() + KILL_EVERY_MS;
        }
        checkpoint((clock_mono_ms() - began) / 1000, i <= FIRST_COMPARED ? &first : &last);
    }
    atomic_store(&soak->ending, 1);
    for (unsigned i = 0; i < n_workers; i++)
        (void)waitpid(workers[i], NULL, 0);
    report();
    assert_int_equal(measure_compare(&first, &last), 0);
    assert_int_equal(atomic_load(&soak->unexplained), 0);
    assert_int_equal(atomic_load(&soak->lost), 0);
    stack_stop(&soak->stack);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(soak_run)};
    const char *why = stack_unavailable();
    if (why) {
        printf("torpor-soak cannot run: %s\n", why);
        return 1;
    }
    soak = mmap(NULL, sizeof *soak, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (soak == MAP_FAILED)
        return 1;
    soak->stack.warm = true;
    n_workers = number_of("TORPOR_SOAK_WORKERS", (unsigned)sysconf(_SC_NPROCESSORS_ONLN) + 1);
    if (n_workers < 1 || n_workers > WORKERS_MAX)
        n_workers = WORKERS_MAX;
    return cmocka_run_group_tests_name("soak", tests, NULL, NULL);
}
