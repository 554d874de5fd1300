/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Something is killed at each step of create and destroy, and at some of pause, resume and
 * snapshot, on real VMs. Afterwards there is no half sandbox and no leak, what had been reported is
 * there, with its memory, and the next create works. The victim of each step is drawn by a seed,
 * which is printed; TORPOR_CRASH_SEED repeats it, and TORPOR_CRASH_ALL=1 takes every victim at
 * every step.
 */
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/io.h"
#include "sleep.h"

enum { SETTLE_MS = 90000, HOLD_MIB = 8, DRAWS = 2 };

static struct stack stack;
static const char *unavailable;
static unsigned seed;

static const char *const create_steps[] = {"sandbox folder", "disk", "capacity", "network slot",
    "boot place", "virtual machine", "journal", "guest", "noted"};
static const char *const undo_steps[] = {
    "guest", "virtual machine", "boot place", "network slot", "capacity", "sandbox folder"};
static const char *const victims[] = {"agent", "stop", "vmm", "shim"};
enum { VICTIM_AGENT, VICTIM_CONTROL, VICTIM_COUNT = 4 };

static int setup(void **state)
{
    const char *text = getenv("TORPOR_CRASH_SEED");
    unavailable = stack_unavailable();
    if (unavailable)
        return 0;
    seed = text ? (unsigned)strtoul(text, NULL, 10) : (unsigned)clock_real_ms();
    print_message("# TORPOR_CRASH_SEED=%u\n", seed);
    srandom(seed);
    stack_start(&stack);
    return 0;
}

static int teardown(void **state)
{
    if (!unavailable)
        stack_stop(&stack);
    return 0;
}

/* Calls that may be cut off by a crash; the answer's status, 0 for none. */
struct call {
    const char *method;
    char path[96];
    const char *body;
    int status;
};

static void *run_call(void *arg)
{
    struct call *c = arg;
    c->status = api_try(&stack, c->method, c->path, c->body);
    return NULL;
}

static void restart_with(const char *crash)
{
    if (stack.agent > 0)
        assert_int_equal(stack_end(&stack.agent, SIGTERM), 0);
    stack.crash = crash;
    stack_start_agent(&stack);
    stack.crash = NULL;
}

/* Waits until the agent has died or stopped itself at its crash point, and does what follows. */
static void at_crash_point(int victim)
{
    siginfo_t info = {0};
    if (victim != VICTIM_AGENT && victim != VICTIM_CONTROL)
        return;
    assert_int_equal(waitid(P_PID, (id_t)stack.agent, &info, WEXITED | WSTOPPED), 0);
    if (victim == VICTIM_AGENT) {
        assert_int_equal(info.si_code, CLD_KILLED);
        stack.agent = 0;
        stack_start_agent(&stack);
    } else {
        assert_int_equal(info.si_code, CLD_STOPPED);
        (void)stack_end(&stack.control, SIGKILL);
        (void)kill(stack.agent, SIGCONT);
        stack_start_control(&stack);
    }
}

/* True when no sandbox is between two states. Those that run must answer; all are then removed. */
static bool is_settled(struct reply *list)
{
    for (const struct json_value *v = list->json->first; v; v = v->next) {
        const struct json_value *status = json_get(v, "status");
        if (!slice_is(status->string, "running") && !slice_is(status->string, "stopped") &&
            !slice_is(status->string, "error"))
            return false;
    }
    return true;
}

static void remove_all(struct reply *list)
{
    for (const struct json_value *v = list->json->first; v; v = v->next) {
        char id[32];
        (void)snprintf(
            id, sizeof id, "%.*s", (int)json_get(v, "id")->string.n, json_get(v, "id")->string.p);
        if (slice_is(json_get(v, "status")->string, "running") && find_vmm(id) == 0)
            continue; /* its end is being noticed */
        if (slice_is(json_get(v, "status")->string, "running")) {
            AUTO_REPLY struct reply r = {0};
            exec_in(&stack, id, "{\"cmd\":\"true\"}", &r);
        }
        delete_sandbox(&stack, id);
    }
}

static bool host_is_clean(struct buf *now)
{
    buf_reset(now);
    host_picture(&stack, now);
    return !now->p || (!strstr(now->p, "process ") && !strstr(now->p, "/sandboxes/") &&
                          !strstr(now->p, ".shim") && !strstr(now->p, ".json"));
}

/* Everything comes to rest: no half sandbox in the database, nothing of a VM on the host. */
static void settle(const char *what)
{
    int64_t deadline = deadline_in_ms(SETTLE_MS);
    AUTO_BUF struct buf now = BUF_INIT(1 << 20);
    bool settled = false;
    do {
        AUTO_REPLY struct reply list = {0};
        api(&stack, "GET", "/v1/sandboxes?status=pending,running,stopped,error&limit=1000", NULL,
            &list);
        assert_int_equal(list.status, 200);
        settled = is_settled(&list);
        if (settled)
            remove_all(&list);
    } while ((!settled || !host_is_clean(&now)) && clock_mono_ms() < deadline);
    if (!settled || !host_is_clean(&now))
        stack_show_logs(&stack);
    if (!settled)
        fail_msg("%s: a sandbox stays between two states", what);
    if (!host_is_clean(&now))
        fail_msg("%s: left on the host:\n%s", what, now.p);
}

static void next_create_works(void)
{
    AUTO_REPLY struct reply r = {0};
    char id[32];
    create_sandbox(&stack, "{\"memory_mb\":128}", id);
    exec_in(&stack, id, "{\"cmd\":\"true\"}", &r);
    assert_int_equal(reply_int(&r, "exit_code"), 0);
    delete_sandbox(&stack, id);
}

static void crash_create(const char *step, int victim)
{
    char crash[96];
    struct call c = {.method = "POST", .path = "/v1/sandboxes", .body = "{\"memory_mb\":128}"};
    pthread_t t;
    (void)snprintf(crash, sizeof crash, "create/%s/%s", step, victims[victim]);
    restart_with(crash);
    assert_int_equal(pthread_create(&t, NULL, run_call, &c), 0);
    at_crash_point(victim);
    (void)pthread_join(t, NULL);
    settle(crash);
    next_create_works();
    settle(crash);
}

static void crash_destroy(const char *step, int victim)
{
    char crash[96];
    char id[32];
    struct call c = {.method = "DELETE"};
    pthread_t t;
    (void)snprintf(crash, sizeof crash, "undo/%s/%s", step, victims[victim]);
    restart_with(crash);
    create_sandbox(&stack, "{\"memory_mb\":128}", id);
    (void)snprintf(c.path, sizeof c.path, "/v1/sandboxes/%s", id);
    assert_int_equal(pthread_create(&t, NULL, run_call, &c), 0);
    at_crash_point(victim);
    (void)pthread_join(t, NULL);
    delete_sandbox(&stack, id);
    settle(crash);
    next_create_works();
    settle(crash);
}

/* VMM and shim can only die while there is one: not before they are started, not after they ended.
 */
static bool has_vm(const char *const *steps, size_t i)
{
    return steps == create_steps ? i >= 5 : i == 0;
}

static void sweep(const char *const *steps, size_t n, void (*crash)(const char *step, int victim))
{
    bool all = getenv("TORPOR_CRASH_ALL") != NULL;
    for (size_t i = 0; i < n; i++) {
        int victim_count = has_vm(steps, i) ? VICTIM_COUNT : 2;
        int drawn = (int)(random() % victim_count);
        for (int v = 0; v < victim_count; v++)
            if (all || v == drawn)
                crash(steps[i], v);
    }
}

/* --- sleep --- */

/* Steps of an operation on a sandbox that runs or sleeps; VMM and shim are there for some. */
struct operation {
    const char *name;
    const char *const *steps;
    size_t n;
    size_t vm_from; /* after these steps there is a VM: [vm_from, vm_to) */
    size_t vm_to;
};

static const char *const pause_steps[] = {
    "quiesce", "stop", "state", "memory", "durable", "commit", "release"};
static const char *const resume_steps[] = {"disk", "capacity", "generation", "network slot",
    "boot place", "virtual machine", "journal", "guest", "noted"};
static const char *const snapshot_steps[] = {
    "quiesce", "stop", "state", "memory", "run", "durable"};
static const struct operation pausing = {"pause", pause_steps, ARRAY_LEN(pause_steps), 0, 6};
static const struct operation resuming = {"resume", resume_steps, ARRAY_LEN(resume_steps), 5, 9};
static const struct operation snapshotting = {
    "snapshot", snapshot_steps, ARRAY_LEN(snapshot_steps), 0, 6};

/* A sandbox whose last generation holds `ret_last`, and whose memory is `ret_now`. */
static void make_sleeper(char id[32], char ret_last[HOLD_LINE], char ret_now[HOLD_LINE])
{
    char answer[HOLD_LINE];
    create_sandbox(&stack, "{\"memory_mb\":128}", id);
    hold_start(&stack, id, HOLD_MIB);
    hold_check(&stack, id, ret_last);
    pause_sandbox(&stack, id);
    resume_sandbox(&stack, id);
    hold(&stack, id, "change 2 0 5", answer);
    hold_check(&stack, id, ret_now);
}

/* Until it is in none of the states between, and what ended has been noticed. */
static void wait_settled(const char *id, char status[16])
{
    int64_t deadline = deadline_in_ms(SETTLE_MS);
    char reason[32];
    bool settled;
    do {
        look(&stack, id, status, reason);
        settled = strcmp(status, "paused") == 0 || strcmp(status, "stopped") == 0 ||
                  (strcmp(status, "running") == 0 && find_vmm(id) != 0);
    } while (!settled && clock_mono_ms() < deadline);
    if (!settled) {
        stack_show_logs(&stack);
        fail_msg("it stays %s (%s)", status, reason);
    }
}

/* Wakes it as far as it does not run; it must be what it was, and sleep again. */
static void check_sleeper(const char *id, const char *last, const char *now)
{
    char status[16];
    wait_settled(id, status);
    print_message("#   it is %s\n", status);
    if (strcmp(status, "paused") == 0)
        resume_sandbox(&stack, id);
    if (strcmp(status, "stopped") == 0) {
        AUTO_REPLY struct reply r = {0};
        act(&stack, id, "resume", "{\"from\":\"last_generation\"}", &r);
        if (r.status != 200)
            fail_msg("resume answered %d: %.*s", r.status, (int)r.body.len, r.body.p);
        now = last;
    }
    hold_is(&stack, id, now);
    pause_sandbox(&stack, id);
    resume_sandbox(&stack, id);
    hold_is(&stack, id, now);
}

static void assert_no_files(const char *what)
{
    AUTO_BUF struct buf names = BUF_INIT(1 << 20);
    int64_t deadline = deadline_in_ms(SETTLE_MS);
    struct disk_use use;
    do {
        buf_reset(&names);
        disk_use(&stack, &use, &names);
    } while (use.files > 0 && clock_mono_ms() < deadline);
    if (use.files > 0)
        fail_msg("%s: left in the data folder:\n%s", what, names.p);
}

/* By hand, with no agent there. */
static void forget_templates(void)
{
    char path[160];
    struct err e = {0};
    assert_int_equal(stack_end(&stack.agent, SIGTERM), 0);
    (void)snprintf(path, sizeof path, "%s/templates", stack.dir);
    assert_int_equal(io_remove_tree(AT_FDCWD, path, &e), 0);
    stack_start_agent(&stack);
}

static void crash_sleeper(const struct operation *op, size_t step, int victim)
{
    char crash[96];
    char id[32];
    char last[HOLD_LINE];
    char now[HOLD_LINE];
    char body[96];
    bool live = op == &snapshotting;
    struct call c = {.method = "POST", .body = live ? body : NULL};
    pthread_t t;
    (void)snprintf(crash, sizeof crash, "%s/%s/%s", op->name, op->steps[step], victims[victim]);
    print_message("# %s\n", crash);
    make_sleeper(id, last, now);
    if (op == &resuming) {
        pause_sandbox(&stack, id);
        memcpy(last, now, sizeof last);
    }
    restart_with(crash);
    if (live)
        (void)snprintf(c.path, sizeof c.path, "/v1/snapshots");
    else
        (void)snprintf(c.path, sizeof c.path, "/v1/sandboxes/%s/%s", id, op->name);
    (void)snprintf(body, sizeof body, "{\"sandbox_id\":\"%s\",\"name\":\"crash\"}", id);
    assert_int_equal(pthread_create(&t, NULL, run_call, &c), 0);
    at_crash_point(victim);
    (void)pthread_join(t, NULL);
    check_sleeper(id, last, now);
    delete_sandbox(&stack, id);
    if (live)
        (void)api_try(&stack, "DELETE", "/v1/snapshots/crash", NULL);
    settle(crash);
    if (live && victim == VICTIM_CONTROL)
        forget_templates(); /* the control plane asks for that, but only when it is sure */
    assert_no_files(crash);
}

static void sweep_sleep(const struct operation *op)
{
    bool all = getenv("TORPOR_CRASH_ALL") != NULL;
    for (size_t i = 0; !all && i < DRAWS; i++) {
        size_t step = (size_t)random() % op->n;
        bool vm = step >= op->vm_from && step < op->vm_to;
        crash_sleeper(op, step, (int)(random() % (vm ? VICTIM_COUNT : 2)));
    }
    for (size_t step = 0; all && step < op->n; step++)
        for (int v = 0; v < (step >= op->vm_from && step < op->vm_to ? VICTIM_COUNT : 2); v++)
            crash_sleeper(op, step, v);
}

#define NEEDS_STACK()                                                                              \
    do {                                                                                           \
        if (unavailable) {                                                                         \
            print_message("skip: %s\n", unavailable);                                              \
            skip();                                                                                \
        }                                                                                          \
    } while (0)

static void each_step_of_create(void **state)
{
    NEEDS_STACK();
    sweep(create_steps, ARRAY_LEN(create_steps), crash_create);
}

static void each_step_of_destroy(void **state)
{
    NEEDS_STACK();
    sweep(undo_steps, ARRAY_LEN(undo_steps), crash_destroy);
}

static void steps_of_pause(void **state)
{
    NEEDS_STACK();
    sweep_sleep(&pausing);
}

static void steps_of_resume(void **state)
{
    NEEDS_STACK();
    sweep_sleep(&resuming);
}

static void steps_of_snapshot(void **state)
{
    NEEDS_STACK();
    sweep_sleep(&snapshotting);
}

/* Before the control plane has ever heard of its host by itself. */
static void control_killed_in_its_first_create(void **state)
{
    NEEDS_STACK();
    crash_create(create_steps[0], VICTIM_CONTROL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(control_killed_in_its_first_create),
        cmocka_unit_test(each_step_of_create),
        cmocka_unit_test(each_step_of_destroy),
        cmocka_unit_test(steps_of_pause),
        cmocka_unit_test(steps_of_resume),
        cmocka_unit_test(steps_of_snapshot),
    };
    cmocka_set_test_filter(getenv("TORPOR_TEST")); /* one test, by its name */
    return cmocka_run_group_tests_name("e2e/crash", tests, setup, teardown);
}
