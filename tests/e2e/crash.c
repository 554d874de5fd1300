/* SPDX-License-Identifier: Apache-2.0 */
/* Letting something die, and looking at what is left. */
#include "crash.h"

#include <errno.h>
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
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/io.h"
#include "host.h"

enum { SETTLE_MS = 90000, REACH_MS = 120000, HOLD_MIB = 8, SOCKETS_KEPT = 12, LOG_MAX = 64 << 20 };

struct sweep sweep;

static const char *const victims[VICTIM_COUNT] = {"agent", "stop", "all", "vmm", "shim"};
static const char *const victim_names[VICTIM_COUNT] = {
    "agent", "control plane", "all", "VMM", "shim"};

void sweep_needs_stack(void)
{
    if (!sweep.unavailable)
        return;
    print_message("skip: %s\n", sweep.unavailable);
    skip();
}

/* --- the crash --- */

static void *run_call(void *arg)
{
    struct crash *c = arg;
    c->status = api_try(&sweep.stack, c->method, c->path, c->body[0] ? c->body : NULL);
    return NULL;
}

void crash_name(struct crash *c, const char *at, enum victim victim)
{
    *c = (struct crash){.at = at, .victim = victim};
    (void)snprintf(c->text, sizeof c->text, "%s/%s", at, victims[victim]);
    print_message("# at %s dies: %s\n", at, victim_names[victim]);
    sweep.crashes++;
}

/* Ends the agent and starts one that has `c` before it. */
static void arm(const struct crash *c)
{
    sweep.stack.crash = c->text;
    restart_agent(&sweep.stack);
    sweep.stack.crash = NULL;
}

/* True when an agent has said that it was there. */
static bool was_reached(const struct crash *c)
{
    char path[160];
    char line[128];
    AUTO_BUF struct buf text = BUF_INIT(LOG_MAX);
    struct err e = {0};
    (void)snprintf(path, sizeof path, "%s/agent.log", sweep.stack.root);
    (void)snprintf(line, sizeof line, "crash point at=\"%s\" victim=%s", c->at, victims[c->victim]);
    if (io_read_file(AT_FDCWD, path, &text, &e) < 0)
        fail_msg("%s", e.msg);
    return text.p && strstr(text.p, line);
}

static void *wait_agent(void *arg)
{
    siginfo_t *info = arg;
    (void)waitid(P_PID, (id_t)sweep.stack.agent, info, WEXITED | WSTOPPED);
    return NULL;
}

/* Joins a thread that should soon be done. */
static void join_or_fail(pthread_t t, const struct crash *c, const char *what)
{
    struct timespec until;
    (void)clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += REACH_MS / 1000;
    if (pthread_timedjoin_np(t, NULL, &until) == 0)
        return;
    stack_show_logs(&sweep.stack);
    fail_msg("%s: %s", c->text, what);
}

void crash_wait(struct crash *c)
{
    siginfo_t info = {0};
    pthread_t t;
    if (c->victim >= VICTIMS_WITHOUT_VM)
        return; /* nothing that is ours to see */
    assert_int_equal(pthread_create(&t, NULL, wait_agent, &info), 0);
    join_or_fail(t, c, "the crash point is not reached");
    assert_int_equal(info.si_code, c->victim == VICTIM_AGENT ? CLD_KILLED : CLD_STOPPED);
    if (c->victim != VICTIM_AGENT)
        (void)stack_end(&sweep.stack.control, SIGKILL);
    if (c->victim == VICTIM_CONTROL) {
        (void)kill(sweep.stack.agent, SIGCONT);
    } else if (c->victim == VICTIM_ALL) {
        (void)stack_end(&sweep.stack.agent, SIGKILL);
    } else {
        sweep.stack.agent = 0;
    }
}

void crash_start_again(void)
{
    if (sweep.stack.agent == 0)
        stack_start_agent(&sweep.stack);
    if (sweep.stack.control == 0)
        stack_start_control(&sweep.stack);
}

/* The call and its crash; afterwards all programs serve again. */
static void meet_crash(struct crash *c)
{
    pthread_t t;
    arm(c);
    assert_int_equal(pthread_create(&t, NULL, run_call, c), 0);
    crash_wait(c);
    join_or_fail(t, c, "the call gets no answer");
    crash_start_again();
}

bool crash_kills_vm(const struct crash *c)
{
    return c->victim >= VICTIM_ALL;
}

/* --- coming to rest --- */

static void rest_picture(struct buf *ret)
{
    struct disk_use use;
    buf_reset(ret);
    host_picture(&sweep.stack, ret);
    host_kernel_picture(&sweep.stack, ret);
    disk_use(&sweep.stack, &use, ret);
}

/* True when no sandbox is between two states. */
static bool are_settled(void)
{
    AUTO_REPLY struct reply r = {0};
    api(&sweep.stack, "GET", "/v1/sandboxes?status=pending,pausing,resuming&limit=1000", NULL, &r);
    assert_int_equal(r.status, 200);
    return !r.json->first;
}

/* Templates whose making was never answered are removed by the control plane when they can no
 * longer be in the making, in ten minutes. Here that is done by hand, with no agent there. */
static void forget_unknown_templates(void)
{
    AUTO_REPLY struct reply r = {0};
    char path[160];
    assert_int_equal(stack_end(&sweep.stack.agent, SIGTERM), 0);
    api(&sweep.stack, "GET", "/v1/snapshots?limit=1000", NULL, &r);
    assert_int_equal(r.status, 200);
    (void)snprintf(path, sizeof path, "%s/templates", sweep.stack.dir);
    remove_unlisted(path, &r.body);
    stack_start_agent(&sweep.stack);
}

static void fail_at_rest(const struct crash *c, struct buf *now)
{
    stack_show_logs(&sweep.stack);
    if (!are_settled())
        fail_msg("%s: a sandbox stays between two states", c->text);
    print_difference(sweep.at_rest.p, now->p);
    fail_msg("%s: the host is not what it was", c->text);
}

/* The agent that was there in the end, before it may be ended: all it holds it held before, but for
 * connections that are kept for the next call. */
static void check_descriptors(const struct crash *c)
{
    int64_t deadline = deadline_in_ms(SETTLE_MS);
    AUTO_BUF struct buf now = BUF_INIT(1 << 20);
    size_t n = agent_sockets(&sweep.stack);
    do {
        buf_reset(&now);
        agent_descriptors(&sweep.stack, &now);
    } while (strcmp(now.p, sweep.descriptors.p) != 0 && clock_mono_ms() < deadline);
    if (strcmp(now.p, sweep.descriptors.p) != 0) {
        print_difference(sweep.descriptors.p, now.p);
        fail_msg("%s: the agent holds what it did not", c->text);
    }
    if (n > sweep.sockets + SOCKETS_KEPT)
        fail_msg("%s: the agent had %zu sockets, and has %zu", c->text, sweep.sockets, n);
}

static void settle(const struct crash *c)
{
    int64_t deadline = deadline_in_ms(SETTLE_MS);
    AUTO_BUF struct buf now = BUF_INIT(1 << 20);
    bool lost = strncmp(c->at, "snapshot/", 9) == 0 && c->status != 201;
    bool rests = false;
    if (lost)
        forget_unknown_templates();
    do {
        rests = are_settled();
        rest_picture(&now);
        rests = rests && strcmp(now.p, sweep.at_rest.p) == 0;
    } while (!rests && clock_mono_ms() < deadline);
    if (!rests)
        fail_at_rest(c, &now);
}

static bool is_bystander(const char *id)
{
    return strcmp(id, sweep.runs.id) == 0 || strcmp(id, sweep.sleeps.id) == 0;
}

/* False while the end of its VM is not known yet. */
static bool remove_one(const struct crash *c, const char *id, struct slice status)
{
    if (slice_is(status, "running") && find_vmm(id) == 0)
        return false;
    if (slice_is(status, "running")) {
        AUTO_REPLY struct reply r = {0};
        exec_in(&sweep.stack, id, "{\"cmd\":\"true\"}", &r);
    } else if (!slice_is(status, "stopped") && !slice_is(status, "error")) {
        return false;
    }
    if (slice_is(status, "stopped") && c->status == 201 && !crash_kills_vm(c))
        fail_msg("%s: it was said to run, and is stopped", c->text);
    delete_sandbox(&sweep.stack, id);
    return true;
}

void crash_remove_others(const struct crash *c)
{
    int64_t deadline = deadline_in_ms(SETTLE_MS);
    bool done;
    do {
        AUTO_REPLY struct reply r = {0};
        api(&sweep.stack, "GET", "/v1/sandboxes?status=pending,running,stopped,error&limit=1000",
            NULL, &r);
        assert_int_equal(r.status, 200);
        done = true;
        for (const struct json_value *v = r.json->first; v; v = v->next) {
            char id[32];
            (void)slice_copy_cstr(json_get_text(v, "id"), id, sizeof id);
            if (!is_bystander(id))
                done = remove_one(c, id, json_get_text(v, "status")) && done;
        }
    } while (!done && clock_mono_ms() < deadline);
}

static void check_bystanders(void)
{
    char status[16];
    char reason[32];
    hold_is(&sweep.stack, sweep.runs.id, sweep.runs.line);
    look(&sweep.stack, sweep.sleeps.id, status, reason);
    assert_string_equal(status, "paused");
}

void crash_check_rest(const struct crash *c)
{
    if (!was_reached(c))
        fail_msg("%s: the crash point was not reached", c->text);
    check_descriptors(c);
    settle(c);
    check_bystanders();
}

/* --- sleepers --- */

void crash_make_sleeper(struct crash *c)
{
    char answer[HOLD_LINE];
    struct stack *s = &sweep.stack;
    spawn_from(s, CRASH_HELD, c->id);
    hold(s, c->id, "change 4 0 5", answer);
    hold_check(s, c->id, c->last);
    pause_sandbox(s, c->id);
    resume_sandbox(s, c->id);
    hold(s, c->id, "change 5 1 9", answer);
    hold_check(s, c->id, c->now);
}

void crash_wait_settled(const struct crash *c, char status[16])
{
    int64_t deadline = deadline_in_ms(SETTLE_MS);
    char reason[32];
    bool settled;
    do {
        look(&sweep.stack, c->id, status, reason);
        settled = strcmp(status, "paused") == 0 || strcmp(status, "stopped") == 0 ||
                  (strcmp(status, "running") == 0 && find_vmm(c->id) != 0);
    } while (!settled && clock_mono_ms() < deadline);
    if (!settled) {
        stack_show_logs(&sweep.stack);
        fail_msg("%s: it stays %s (%s)", c->text, status, reason);
    }
}

static void resume_last(const struct crash *c)
{
    AUTO_REPLY struct reply r = {0};
    if (!crash_kills_vm(c))
        fail_msg("%s: it is stopped, though nobody killed its VM", c->text);
    act(&sweep.stack, c->id, "resume", "{\"from\":\"last_generation\"}", &r);
    if (r.status != 200)
        fail_msg("%s: resume answered %d: %.*s", c->text, r.status, (int)r.body.len, r.body.p);
}

void crash_check_sleeper(const struct crash *c)
{
    char status[16];
    const char *expected = c->now;
    crash_wait_settled(c, status);
    print_message("#   it is %s\n", status);
    if (strcmp(status, "paused") == 0) {
        resume_sandbox(&sweep.stack, c->id);
    } else if (strcmp(status, "stopped") == 0) {
        resume_last(c);
        expected = c->last;
    }
    hold_is(&sweep.stack, c->id, expected);
    pause_sandbox(&sweep.stack, c->id);
    resume_sandbox(&sweep.stack, c->id);
    hold_is(&sweep.stack, c->id, expected);
}

/* --- what there is before anything dies --- */

/* A guest with a known memory, asleep; its template is what everything here is spawned from. */
static void make_template(void)
{
    struct stack *s = &sweep.stack;
    char id[32];
    char line[HOLD_LINE];
    create_sandbox(s, "{\"memory_mb\":128}", id);
    hold_start(s, id, HOLD_MIB);
    hold(s, id, "fill 1", line);
    hold_check(s, id, line);
    pause_sandbox(s, id);
    make_snapshot(s, id, CRASH_HELD, "");
    delete_sandbox(s, id);
}

static void make_bystander(struct bystander *b, const char *change)
{
    char answer[HOLD_LINE];
    spawn_from(&sweep.stack, CRASH_HELD, b->id);
    hold(&sweep.stack, b->id, change, answer);
    hold_check(&sweep.stack, b->id, b->line);
}

/* The control plane dies in the first create, before it has heard of its host by itself. */
static void kill_control_in_first_create(void)
{
    struct crash c;
    crash_name(&c, crash_create.steps[0], VICTIM_CONTROL);
    crash_create.prepare(&c);
    meet_crash(&c);
    crash_remove_others(&c);
}

int sweep_setup(void **state)
{
    const char *text = getenv("TORPOR_CRASH_SEED");
    unsigned seed = text ? (unsigned)strtoul(text, NULL, 10) : (unsigned)clock_real_ms();
    sweep.unavailable = stack_unavailable();
    if (sweep.unavailable)
        return 0;
    print_message("# TORPOR_CRASH_SEED=%u\n", seed);
    srandom(seed);
    /* All of so few are prepared ahead: the host is the same whenever it is at rest. */
    sweep.stack.slots = "6";
    stack_start(&sweep.stack);
    kill_control_in_first_create();
    make_template();
    crash_make_deep();
    make_bystander(&sweep.runs, "change 2 0 3");
    make_bystander(&sweep.sleeps, "change 3 0 7");
    pause_sandbox(&sweep.stack, sweep.sleeps.id);
    restart_agent(&sweep.stack);
    sweep.at_rest = BUF_INIT(1 << 20);
    rest_picture(&sweep.at_rest);
    sweep.descriptors = BUF_INIT(1 << 20);
    agent_descriptors(&sweep.stack, &sweep.descriptors);
    sweep.sockets = agent_sockets(&sweep.stack);
    return 0;
}

int sweep_teardown(void **state)
{
    if (sweep.unavailable)
        return 0;
    print_message("# %u crash points, %u crashes\n", sweep.points, sweep.crashes);
    buf_done(&sweep.at_rest);
    buf_done(&sweep.descriptors);
    stack_stop(&sweep.stack);
    return 0;
}

/* --- the sweep --- */

static void crash_once(const struct operation *op, const char *at, enum victim victim)
{
    struct crash c;
    crash_name(&c, at, victim);
    op->prepare(&c);
    meet_crash(&c);
    op->check(&c);
    crash_check_rest(&c);
}

void crash_check_sleeping(void)
{
    sweep_needs_stack();
    resume_sandbox(&sweep.stack, sweep.sleeps.id);
    hold_is(&sweep.stack, sweep.sleeps.id, sweep.sleeps.line);
}

void sweep_operation(const struct operation *op)
{
    bool all = getenv("TORPOR_CRASH_ALL") != NULL;
    sweep_needs_stack();
    for (size_t i = 0; op->steps[i]; i++) {
        bool vm = i >= op->vm_from && i < op->vm_to;
        int n = vm ? VICTIM_COUNT : VICTIMS_WITHOUT_VM;
        int drawn = (int)(random() % n);
        sweep.points++;
        for (int v = 0; v < n; v++)
            if (all || v == drawn)
                crash_once(op, op->steps[i], (enum victim)v);
    }
}
