/* SPDX-License-Identifier: Apache-2.0 */
/* Calls that a live snapshot meets: they notice nothing but a delay. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/clock.h"
#include "calls.h"

static void assert_exec_is_well(struct exec_call *call)
{
    assert_int_equal(pthread_join(call->thread, NULL), 0);
    if (call->run.rc != 0)
        fail_msg("%s", call->run.e.msg);
    assert_true(slice_is(call->run.resp.stdout_bytes, "hello"));
    assert_int_equal(call->run.resp.exit_code, 3);
    assert_false(call->run.resp.paused);
    run_done(&call->run);
}

static void hold(void)
{
    struct err e = {0};
    if (guest_prepare(g, sleeper.secret, /* keep= */ true, deadline_in_ms(5000), &e) < 0)
        fail_msg("%s", e.msg);
}

static void go_on(void)
{
    struct err e = {0};
    if (guest_init(g, &sleeper, deadline_in_ms(5000), &e) < 0)
        fail_msg("%s", e.msg);
}

/* Calls under way, and the connections, which are as many as before. */
static void hold_keeps_what_is_open(void **state)
{
    struct exec_call call;
    struct run r = run_exec(START_ECHO, &hello); /* leaves an idle one */
    run_done(&r);
    begin_exec(&call, START_LATE);
    assert_int_equal(fake_wait_hanging(), 0);
    assert_int_equal(fake.connections, 1);
    hold();
    assert_non_null(strstr(fake.last_body, "\"keep\":true"));
    go_on();
    fake_release();
    assert_exec_is_well(&call);
    assert_int_equal(fake.connections, 2);
}

static void hold_keeps_calls_waiting(void **state)
{
    struct exec_call call;
    hold();
    begin_exec(&call, START_ECHO);
    go_on();
    assert_exec_is_well(&call);
}

/* Sent before the guest was held, refused by it; the refusal comes while it is held. */
static void refused_call_is_repeated(void **state)
{
    struct exec_call call;
    begin_exec(&call, START_REFUSED);
    assert_int_equal(fake_wait_hanging(), 0);
    hold();
    fake_release();
    go_on();
    assert_exec_is_well(&call);
    assert_int_equal(fake.requests, 4);
}

/* ... and when it is over already. */
static void refused_call_is_repeated_afterwards(void **state)
{
    struct exec_call call;
    begin_exec(&call, START_REFUSED);
    assert_int_equal(fake_wait_hanging(), 0);
    hold();
    go_on();
    fake_release();
    assert_exec_is_well(&call);
    assert_int_equal(fake.requests, 4);
}

static void *write_thread(void *arg)
{
    const struct guest_write w = {.path = SLICE_LIT("/f"), .content = SLICE_LIT("x")};
    return guest_write_file(g, &w, arg) == 0 ? g : NULL;
}

static void refused_file_is_repeated(void **state)
{
    struct err e = {0};
    void *wrote = NULL;
    pthread_t t;
    fake.files_status = 503;
    assert_int_equal(pthread_create(&t, NULL, write_thread, &e), 0);
    assert_int_equal(fake_wait_hanging(), 0);
    hold();
    fake_release();
    go_on();
    assert_int_equal(pthread_join(t, &wrote), 0);
    if (!wrote)
        fail_msg("%s", e.msg);
    assert_int_equal(fake.requests, 4);
}

static void refused_call_is_not_repeated_without_cause(void **state)
{
    struct run r;
    fake_release();
    r = run_exec(START_REFUSED, &hello);
    assert_int_equal(r.rc, -1);
    assert_int_equal(r.e.kind, ERR_UNAVAILABLE);
    assert_string_equal(r.e.msg, "the sandbox is being paused");
    assert_int_equal(fake.requests, 1);
    run_done(&r);
}

/* A pause follows the hold: nothing waits for that. */
static void refused_call_is_not_repeated_in_a_pause(void **state)
{
    struct exec_call call;
    struct err e = {0};
    begin_exec(&call, START_REFUSED);
    assert_int_equal(fake_wait_hanging(), 0);
    hold();
    go_on();
    assert_int_equal(
        guest_prepare(g, sleeper.secret, /* keep= */ false, deadline_in_ms(5000), &e), 0);
    fake_release();
    assert_int_equal(pthread_join(call.thread, NULL), 0);
    assert_int_equal(call.run.rc, -1);
    assert_int_equal(call.run.e.kind, ERR_UNAVAILABLE);
    assert_int_equal(fake.requests, 4);
    run_done(&call.run);
}

static void hold_does_not_outlast_the_timeout(void **state)
{
    struct agent_exec_request req = hello;
    struct run r;
    int64_t began = clock_mono_ms();
    req.timeout_sec = 1;
    hold();
    r = run_exec(START_ECHO, &req);
    assert_int_equal(r.rc, -1);
    assert_int_equal(r.e.kind, ERR_UNAVAILABLE);
    assert_string_equal(r.e.msg, "the sandbox is being paused");
    assert_true(clock_mono_ms() - began >= 1000);
    assert_int_equal(fake.requests, 1);
    run_done(&r);
}

static void hold_that_is_refused_is_none(void **state)
{
    struct err e = {0};
    struct run r;
    fake.prepare_status = 504;
    assert_int_equal(
        guest_prepare(g, sleeper.secret, /* keep= */ true, deadline_in_ms(5000), &e), -1);
    assert_int_equal(e.kind, ERR_TIMEOUT);
    r = run_exec(START_ECHO, &hello);
    assert_int_equal(r.rc, 0);
    run_done(&r);
}

static void closing_ends_waiting(void **state)
{
    struct exec_call call;
    hold();
    begin_exec(&call, START_ECHO);
    guest_close(g);
    assert_int_equal(pthread_join(call.thread, NULL), 0);
    assert_int_equal(call.run.rc, -1);
    assert_int_equal(call.run.e.kind, ERR_UNAVAILABLE);
    assert_int_equal(fake.requests, 1);
    run_done(&call.run);
}

#define HOLD_TEST(t) cmocka_unit_test_setup_teardown(t, calls_set_up, calls_tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        HOLD_TEST(hold_keeps_what_is_open),
        HOLD_TEST(hold_keeps_calls_waiting),
        HOLD_TEST(refused_call_is_repeated),
        HOLD_TEST(refused_call_is_repeated_afterwards),
        HOLD_TEST(refused_file_is_repeated),
        HOLD_TEST(refused_call_is_not_repeated_without_cause),
        HOLD_TEST(refused_call_is_not_repeated_in_a_pause),
        HOLD_TEST(hold_does_not_outlast_the_timeout),
        HOLD_TEST(hold_that_is_refused_is_none),
        HOLD_TEST(closing_ends_waiting),
    };
    return cmocka_run_group_tests_name("guest hold", tests, NULL, NULL);
}
