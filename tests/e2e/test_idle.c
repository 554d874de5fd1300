/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sandboxes that nobody uses fall asleep by themselves: who does, who does not, how soon, and who
 * needs one of them meanwhile.
 */
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

#include <cmocka.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "sleep.h"

enum {
    TIMEOUT_MS = 2000,
    LOOK_MS = 2000,      /* how often the agent looks for idle ones */
    PAUSE_MS = 2000,     /* one pause here, many times over */
    RECONCILE_MS = 5000, /* until the database says so, at the latest */
    BUSY_MS = 5000,
    IDLE = 3,
};

static struct stack stack;
static const char *unavailable;
static unsigned seed;

static int setup(void **state)
{
    unavailable = stack_unavailable();
    if (unavailable)
        return 0;
    seed = test_seed();
    stack_start(&stack);
    return 0;
}

static int teardown(void **state)
{
    if (!unavailable)
        stack_stop(&stack);
    return 0;
}

#define NEEDS_STACK()                                                                              \
    do {                                                                                           \
        if (unavailable) {                                                                         \
            print_message("skip: %s\n", unavailable);                                              \
            skip();                                                                                \
        }                                                                                          \
    } while (0)

static void set_timeout(const char *id, int sec)
{
    AUTO_REPLY struct reply r = {0};
    char path[128];
    char body[64];
    (void)snprintf(path, sizeof path, "/v1/sandboxes/%s", id);
    (void)snprintf(body, sizeof body, "{\"timeout_sec\":%d}", sec);
    api(&stack, "PATCH", path, body, &r);
    assert_int_equal(r.status, 200);
    assert_int_equal(reply_int(&r, "timeout_sec"), sec);
}

static void assert_timeout(const char *id, int sec)
{
    AUTO_REPLY struct reply r = {0};
    char path[128];
    (void)snprintf(path, sizeof path, "/v1/sandboxes/%s", id);
    api(&stack, "GET", path, NULL, &r);
    assert_int_equal(reply_int(&r, "timeout_sec"), sec);
}

static void is_running(const char *id)
{
    char status[16];
    char reason[32];
    look(&stack, id, status, reason);
    assert_string_equal(status, "running");
}

/* The API's answers along the way are no activity. */
static void falls_asleep(const char *id)
{
    wait_status(&stack, id, "paused", "idle", TIMEOUT_MS + LOOK_MS + PAUSE_MS + RECONCILE_MS);
}

/* A command that takes a while, in a thread of its own. */
struct busy {
    const char *id;
    const char *body;
    struct reply reply;
    pthread_t thread;
};

static void *run_busy(void *arg)
{
    struct busy *b = arg;
    act(&stack, b->id, "exec", b->body, &b->reply);
    return NULL;
}

static void busy_start(struct busy *b)
{
    assert_int_equal(pthread_create(&b->thread, NULL, run_busy, b), 0);
}

static void busy_end(struct busy *b)
{
    (void)pthread_join(b->thread, NULL);
    if (b->reply.status != 200)
        stack_show_logs(&stack);
    assert_int_equal(b->reply.status, 200);
    assert_int_equal(reply_int(&b->reply, "exit_code"), 0);
    reply_done(&b->reply);
}

static void idle_ones_sleep_and_busy_ones_do_not(void **state)
{
    char idle[IDLE][32];
    char line[IDLE][HOLD_LINE];
    char executing[32];
    char pinged[32];
    char patient[32];
    struct busy busy = {.id = executing, .body = "{\"cmd\":\"sleep\",\"args\":[\"5\"]}"};
    int64_t began;
    NEEDS_STACK();
    create_sandbox(&stack, "{\"memory_mb\":128,\"timeout_sec\":2}", executing);
    busy_start(&busy);
    create_sandbox(&stack, "{\"memory_mb\":128}", pinged);
    create_sandbox(&stack, "{\"memory_mb\":128}", patient);
    for (int i = 0; i < IDLE; i++) {
        create_sandbox(&stack, "{\"memory_mb\":128}", idle[i]);
        hold_start(&stack, idle[i], 2);
        hold_check(&stack, idle[i], line[i]);
    }
    for (int i = 0; i < IDLE; i++)
        set_timeout(idle[i], 2);
    set_timeout(pinged, 2);
    began = clock_mono_ms();
    while (clock_mono_ms() < began + BUSY_MS) {
        AUTO_REPLY struct reply r = {0};
        act(&stack, pinged, "ping", NULL, &r);
        assert_int_equal(r.status, 204);
    }
    is_running(pinged);
    busy_end(&busy);               /* however long it had no other use */
    for (int i = 0; i < IDLE; i++) /* all at once: none waits for the one before */
        wait_status(&stack, idle[i], "paused", "idle",
            LOOK_MS + TIMEOUT_MS + PAUSE_MS + RECONCILE_MS - BUSY_MS);
    is_running(patient);
    falls_asleep(pinged);
    falls_asleep(executing);
    set_timeout(pinged, 0); /* while it sleeps; its resume carries it */
    for (int i = 0; i < IDLE; i++) {
        resume_sandbox(&stack, idle[i]);
        hold_is(&stack, idle[i], line[i]);
        assert_timeout(idle[i], 2);
    }
    resume_sandbox(&stack, pinged);
    for (int i = 0; i < IDLE; i++) /* the timeout has survived */
        falls_asleep(idle[i]);
    is_running(pinged);
    is_running(patient);
    for (int i = 0; i < IDLE; i++)
        delete_sandbox(&stack, idle[i]);
    delete_sandbox(&stack, executing);
    delete_sandbox(&stack, pinged);
    delete_sandbox(&stack, patient);
}

/* Not before its time, and it does not begin anew. */
static void inactivity_survives_the_agent(void **state)
{
    enum { LONG_MS = 8000, RESTART_MS = 5000 };
    char id[32];
    int64_t began;
    NEEDS_STACK();
    create_sandbox(&stack, "{\"memory_mb\":128,\"timeout_sec\":8}", id);
    began = clock_mono_ms();
    stays(&stack, id, "running", RESTART_MS);
    restart_agent(&stack);
    is_running(id);
    wait_status(&stack, id, "paused", "idle", LONG_MS + RECONCILE_MS);
    assert_true(clock_mono_ms() - began >= LONG_MS - 1000);
    assert_true(clock_mono_ms() - began < LONG_MS + RESTART_MS);
    delete_sandbox(&stack, id);
}

/* The agent stops in the middle of a pause that nobody asked for, until somebody has called. */
static void call_breaks_an_auto_pause_off(void **state)
{
    static const char *const steps[] = {
        "pause/quiesce/stop", "pause/stop/stop", "pause/state/stop", "pause/memory/stop"};
    char id[32];
    char line[HOLD_LINE];
    siginfo_t info = {0};
    struct busy busy = {.id = id, .body = "{\"cmd\":\"/tmp/guest-hold\",\"args\":[\"check\"]}"};
    NEEDS_STACK();
    stack.crash = steps[seed % ARRAY_LEN(steps)];
    restart_agent(&stack);
    stack.crash = NULL;
    create_sandbox(&stack, "{\"memory_mb\":256}", id);
    hold_start(&stack, id, 64);
    hold_check(&stack, id, line);
    set_timeout(id, 3);
    assert_int_equal(waitid(P_PID, (id_t)stack.agent, &info, WEXITED | WSTOPPED), 0);
    assert_int_equal(info.si_code, CLD_STOPPED);
    busy_start(&busy);
    for (int i = 0; i < 50; i++) { /* answers of the control plane alone, which has sent the call */
        char status[16];
        char reason[32];
        look(&stack, id, status, reason);
    }
    (void)kill(stack.agent, SIGCONT);
    busy_end(&busy);
    wait_status(&stack, id, "running", "", RECONCILE_MS);
    hold_is(&stack, id, line);
    falls_asleep(id); /* it was no failure: there is no waiting for another try */
    resume_sandbox(&stack, id);
    hold_is(&stack, id, line);
    delete_sandbox(&stack, id);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(idle_ones_sleep_and_busy_ones_do_not),
        cmocka_unit_test(inactivity_survives_the_agent),
        cmocka_unit_test(call_breaks_an_auto_pause_off),
    };
    cmocka_set_test_filter(getenv("TORPOR_TEST")); /* one test, by its name */
    return cmocka_run_group_tests_name("e2e/idle", tests, setup, teardown);
}
