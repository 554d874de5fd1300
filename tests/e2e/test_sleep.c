/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a guest sees of its sleep: every page, the file without a name, the timer, the connections,
 * the clock, who it is. Memory is compared in both ways in which it comes back (TORPOR_MEMORY), and
 * with the old way of finding written pages (TORPOR_PAGEMAP).
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
#include <unistd.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "probe.h"
#include "sleep.h"

enum {
    HOLD_MIB = 48,
    ROUNDS_MAX = 3,
    ASLEEP_MS = 2500,
    SETTLE_MS = 30000,
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

/* The bytes of deleted templates go a moment later. */
static void assert_nothing_left(void)
{
    AUTO_BUF struct buf now = BUF_INIT(1 << 20);
    struct disk_use use;
    int64_t deadline = deadline_in_ms(SETTLE_MS);
    host_picture(&stack, &now);
    if (now.p && (strstr(now.p, "process ") || strstr(now.p, "/sandboxes/")))
        fail_msg("left on the host:\n%s", now.p);
    do {
        buf_reset(&now);
        disk_use(&stack, &use, &now);
    } while (use.files > 0 && clock_mono_ms() < deadline);
    if (use.files > 0)
        stack_show_logs(&stack);
    if (use.files > 0)
        fail_msg("left in the data folder:\n%s", now.p);
}

/* --- memory --- */

static void tell(const char *id, const char *format, unsigned a, unsigned b, unsigned c)
{
    char command[64];
    char answer[HOLD_LINE];
    (void)snprintf(command, sizeof command, format, a, b, c);
    hold(&stack, id, command, answer);
    assert_string_equal(answer, "done");
}

/* Writes some pages, empties some in both ways: others in each round, and some again. */
static void change_some(const char *id, unsigned round)
{
    tell(id, "change %u %u %u", round + 2, round, 5);
    tell(id, "zero %u %u", round, 11, 0);
    tell(id, "drop %u %u", round + 3, 13, 0);
}

/* A spawn has what the snapshot had, changes it for itself, and sleeps as well. */
static void spawn_is(const char *template, const char *expected)
{
    char id[32];
    char line[HOLD_LINE];
    spawn_from(&stack, template, id);
    hold_is(&stack, id, expected);
    change_some(id, 40);
    hold_check(&stack, id, line);
    pause_sandbox(&stack, id);
    resume_sandbox(&stack, id);
    hold_is(&stack, id, line);
    delete_sandbox(&stack, id);
}

/* Each round: sleep and wake, change, a live snapshot, change again. */
static void every_page(const char *memory, const char *pagemap, unsigned rounds)
{
    char id[32];
    char now[HOLD_LINE];
    char name[ROUNDS_MAX][32];
    char at_snapshot[ROUNDS_MAX][HOLD_LINE];
    stack.memory = memory;
    stack.pagemap = pagemap;
    restart_agent(&stack);
    create_sandbox(&stack, "{\"memory_mb\":256}", id);
    hold_start(&stack, id, HOLD_MIB);
    tell(id, "fill %u", 1, 0, 0);
    hold_check(&stack, id, now);
    for (unsigned round = 0; round < rounds; round++) {
        pause_sandbox(&stack, id);
        resume_sandbox(&stack, id);
        hold_is(&stack, id, now);
        change_some(id, round);
        hold_check(&stack, id, at_snapshot[round]);
        (void)snprintf(name[round], sizeof name[round], "round-%u", round);
        make_snapshot(&stack, id, name[round], "");
        hold_is(&stack, id, at_snapshot[round]);
        change_some(id, round + 20);
        hold_check(&stack, id, now);
    }
    for (unsigned round = 0; round < rounds; round++)
        spawn_is(name[round], at_snapshot[round]);
    hold_is(&stack, id, now);
    delete_sandbox(&stack, id);
    for (unsigned round = 0; round < rounds; round++)
        delete_snapshot(&stack, name[round]);
    stack.memory = stack.pagemap = NULL;
}

static void every_page_mapped(void **state)
{
    NEEDS_STACK();
    every_page("file", NULL, ROUNDS_MAX);
}

static void every_page_by_faults(void **state)
{
    NEEDS_STACK();
    every_page("uffd", NULL, ROUNDS_MAX);
}

static void every_page_found_the_old_way(void **state)
{
    NEEDS_STACK();
    every_page(seed & 1 ? "uffd" : "file", "old", 2);
}

/* --- all the rest --- */

/* How far the guest's clock is from the host's; also what else it says of time. */
static long long clock_of(const char *id, unsigned long *ret_ticks, unsigned long *ret_gap_ms)
{
    char answer[HOLD_LINE];
    long long guest_ms;
    long long before = clock_real_ms();
    long long after;
    hold(&stack, id, "clock", answer);
    after = clock_real_ms();
    assert_int_equal(sscanf(answer, "%lld %lu %lu", &guest_ms, ret_ticks, ret_gap_ms), 3);
    if (guest_ms < before)
        return before - guest_ms;
    return guest_ms > after ? guest_ms - after : 0;
}

static const char who[] = "hostname; cat /etc/machine-id; cat /proc/sys/kernel/random/boot_id; "
                          "pidof guest-hold; echo $GREETING";

/* Of what everything_else_comes_back creates. */
static void assert_same_shape(const char *id)
{
    AUTO_REPLY struct reply r = {0};
    char path[96];
    (void)snprintf(path, sizeof path, "/v1/sandboxes/%s", id);
    api(&stack, "GET", path, NULL, &r);
    assert_int_equal(reply_int(&r, "vcpus"), 2);
    assert_int_equal(reply_int(&r, "memory_mb"), 256);
    assert_int_equal(reply_int(&r, "timeout_sec"), 600);
    assert_string_equal(reply_text(&r, "template"), "minimal");
    assert_string_not_equal(reply_text(&r, "host_ip"), "");
}

static void everything_else_comes_back(void **state)
{
    AUTO_CLOSE int listener = -1;
    AUTO_REPLY struct reply before = {0};
    AUTO_REPLY struct reply after = {0};
    char id[32];
    char line[HOLD_LINE];
    char answer[HOLD_LINE];
    unsigned long ticks;
    unsigned long ticks_later;
    unsigned long gap_ms;
    NEEDS_STACK();
    restart_agent(&stack);
    internet_init(PROBE_PUBLIC);
    listener = internet_listen(PROBE_PORT);
    create_sandbox(&stack,
        "{\"env\":{\"GREETING\":\"hello\"},\"vcpus\":2,\"memory_mb\":256,\"timeout_sec\":600}", id);
    hold_start(&stack, id, 4);
    tell(id, "fill %u", 1, 0, 0);
    hold(&stack, id, "connect " PROBE_PUBLIC " 4242", answer);
    assert_string_equal(answer, "open");
    hold_check(&stack, id, line);
    sh_in(&stack, id, who, &before);
    (void)clock_of(id, &ticks, &gap_ms);
    pause_sandbox(&stack, id);
    stays(&stack, id, "paused", ASLEEP_MS);
    resume_sandbox(&stack, id);
    assert_true(clock_of(id, &ticks_later, &gap_ms) < 1000);
    assert_true(ticks_later > ticks); /* the timer goes on, and for it no time has passed */
    assert_true(gap_ms < ASLEEP_MS);
    hold_is(&stack, id, line);
    sh_in(&stack, id, who, &after);
    assert_string_equal(reply_text(&before, "stdout"), reply_text(&after, "stdout"));
    assert_non_null(strstr(reply_text(&after, "stdout"), "hello\n"));
    assert_same_shape(id);
    hold(&stack, id, "connection", answer); /* the one that listens is what hold talks to */
    assert_string_equal(answer, "closed");
    delete_sandbox(&stack, id);
    internet_done();
}

static void spawns_differ(void **state)
{
    AUTO_REPLY struct reply from = {0};
    struct reply r[2] = {0};
    char id[32];
    char spawned[2][32];
    char random[3][HOLD_LINE];
    NEEDS_STACK();
    create_sandbox(&stack, "{}", id);
    hold_start(&stack, id, 4);
    make_snapshot(&stack, id, "twins", "");
    hold(&stack, id, "random", random[2]);
    sh_in(&stack, id, "cat /etc/machine-id", &from);
    for (int i = 0; i < 2; i++) {
        char expected[64];
        spawn_from(&stack, "twins", spawned[i]);
        hold(&stack, spawned[i], "random", random[i]);
        sh_in(&stack, spawned[i], "hostname; grep -c $(hostname) /etc/hosts; cat /etc/machine-id",
            &r[i]);
        (void)snprintf(expected, sizeof expected, "%s\n1\n", spawned[i]);
        assert_int_equal(strncmp(reply_text(&r[i], "stdout"), expected, strlen(expected)), 0);
        assert_null(strstr(reply_text(&r[i], "stdout"), reply_text(&from, "stdout")));
    }
    assert_string_not_equal(reply_text(&r[0], "stdout") + 22, reply_text(&r[1], "stdout") + 22);
    assert_string_not_equal(random[0], random[1]);
    assert_string_not_equal(random[0], random[2]);
    assert_string_not_equal(random[1], random[2]);
    for (int i = 0; i < 2; i++)
        delete_sandbox(&stack, spawned[i]);
    reply_done(&r[0]);
    reply_done(&r[1]);
    delete_sandbox(&stack, id);
    delete_snapshot(&stack, "twins");
}

/* --- exec --- */

struct exec_call {
    const char *id;
    const char *script;
    struct reply reply;
};

static void *run_exec(void *arg)
{
    struct exec_call *c = arg;
    char body[256];
    (void)snprintf(body, sizeof body, "{\"cmd\":\"sh\",\"args\":[\"-c\",\"%s\"]}", c->script);
    act(&stack, c->id, "exec", body, &c->reply);
    return NULL;
}

/* What the command has written into a file of the guest, when it has. */
static long long wait_number(const char *id, const char *path)
{
    int64_t deadline = deadline_in_ms(SETTLE_MS);
    char script[96];
    (void)snprintf(script, sizeof script, "cat %s 2>/dev/null", path);
    do {
        AUTO_REPLY struct reply r = {0};
        long long n;
        sh_in(&stack, id, script, &r);
        n = strtoll(reply_text(&r, "stdout"), NULL, 10);
        if (n > 0)
            return n;
    } while (clock_mono_ms() < deadline);
    fail_msg("%s does not appear", path);
    return 0;
}

static void exec_met_by_a_pause_goes_on(void **state)
{
    struct exec_call c = {.script = "echo $$ > /tmp/met; exec sleep 1000"};
    AUTO_REPLY struct reply r = {0};
    char id[32];
    char script[96];
    long long pid;
    pthread_t t;
    NEEDS_STACK();
    create_sandbox(&stack, "{}", id);
    c.id = id;
    assert_int_equal(pthread_create(&t, NULL, run_exec, &c), 0);
    pid = wait_number(id, "/tmp/met");
    pause_sandbox(&stack, id);
    (void)pthread_join(t, NULL);
    if (c.reply.status != 409)
        stack_show_logs(&stack);
    assert_int_equal(c.reply.status, 409);
    assert_int_equal(reply_int(&c.reply, "error.details.pid"), pid);
    assert_string_not_equal(reply_text(&c.reply, "error.details.tag"), "");
    resume_sandbox(&stack, id);
    (void)snprintf(script, sizeof script, "tr '\\0' ' ' < /proc/%lld/cmdline", pid);
    sh_in(&stack, id, script, &r);
    assert_string_equal(reply_text(&r, "stdout"), "sleep 1000 ");
    reply_done(&c.reply);
    delete_sandbox(&stack, id);
}

static void exec_outlasts_a_snapshot(void **state)
{
    struct exec_call c = {
        .script = "echo $$ > /tmp/met; until test -e /tmp/go; do sleep 0.1; done; echo survived"};
    AUTO_REPLY struct reply go = {0};
    char id[32];
    pthread_t t;
    NEEDS_STACK();
    create_sandbox(&stack, "{}", id);
    c.id = id;
    assert_int_equal(pthread_create(&t, NULL, run_exec, &c), 0);
    (void)wait_number(id, "/tmp/met");
    make_snapshot(&stack, id, "under-way", "");
    sh_in(&stack, id, "touch /tmp/go", &go);
    (void)pthread_join(t, NULL);
    assert_int_equal(c.reply.status, 200);
    assert_string_equal(reply_text(&c.reply, "stdout"), "survived\n");
    reply_done(&c.reply);
    delete_sandbox(&stack, id);
    delete_snapshot(&stack, "under-way");
}

static void nothing_is_left(void **state)
{
    NEEDS_STACK();
    assert_nothing_left();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_page_mapped),
        cmocka_unit_test(every_page_by_faults),
        cmocka_unit_test(every_page_found_the_old_way),
        cmocka_unit_test(everything_else_comes_back),
        cmocka_unit_test(spawns_differ),
        cmocka_unit_test(exec_met_by_a_pause_goes_on),
        cmocka_unit_test(exec_outlasts_a_snapshot),
        cmocka_unit_test(nothing_is_left),
    };
    cmocka_set_test_filter(getenv("TORPOR_TEST")); /* one test, by its name */
    return cmocka_run_group_tests_name("e2e/sleep", tests, setup, teardown);
}
