/* SPDX-License-Identifier: Apache-2.0 */
/* The host's side of a guest: what a good, a bad and a vanishing guest agent make of calls. */
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <cmocka.h>

#include "agent/guest/guest.h"
#include "base/clock.h"
#include "calls.h"
#include "json/json.h"
#include "proto/limits.h"
#include "rpc/agent_v1.h"

static void ready_at_once(void **state)
{
    struct err e = {0};
    int never = eventfd(0, EFD_CLOEXEC);
    assert_int_equal(guest_wait_ready(g, never, deadline_in_ms(5000), &e), 0);
    (void)close(never);
}

static void ready_gives_up_when_the_vm_ends(void **state)
{
    struct err e = {0};
    int ended = eventfd(1, EFD_CLOEXEC);
    fake.health_status = 503;
    assert_int_equal(guest_wait_ready(g, ended, deadline_in_ms(30000), &e), -1);
    assert_int_equal(e.kind, ERR_UNAVAILABLE);
    (void)close(ended);
}

static void ready_gives_up_at_the_deadline(void **state)
{
    struct err e = {0};
    int never = eventfd(0, EFD_CLOEXEC);
    fake.health_status = 503;
    assert_int_equal(guest_wait_ready(g, never, deadline_in_ms(100), &e), -1);
    assert_int_equal(e.kind, ERR_TIMEOUT);
    (void)close(never);
}

static void init_tells_everything(void **state)
{
    const struct rpc_entry env[] = {{SLICE_LIT("NAME"), SLICE_LIT("va\"lue")}};
    const struct guest_identity identity = {.sandbox_id = "sbaaaaaaaaaaaaaaaaaaaa",
        .template = "minimal",
        .default_user = "root",
        .env = env,
        .n_env = 1};
    static const char *const members[] = {"accessToken", "timestamp", "entropy", "hostname",
        "machineId", "sandboxId", "templateId", "defaultUser"};
    const struct json_value *v = NULL;
    struct arena arena;
    struct err e = {0};
    arena_init(&arena, 1 << 20);
    assert_int_equal(guest_init(g, &identity, deadline_in_ms(5000), &e), 0);
    assert_int_equal(json_parse(slice_cstr(fake.last_body), &arena, &v, &e), 0);
    for (size_t i = 0; i < sizeof members / sizeof *members; i++) {
        const struct json_value *m = json_get(v, members[i]);
        if (!m || m->type != JSON_STRING || m->string.n == 0)
            fail_msg("%s is missing", members[i]);
    }
    assert_true(slice_is(json_get(json_get(v, "envVars"), "NAME")->string, "va\"lue"));
    assert_string_equal(fake.last_token, token);
    arena_done(&arena);
}

static void init_that_fails_says_why(void **state)
{
    const struct guest_identity identity = {
        .sandbox_id = "sb", .template = "t", .default_user = "root"};
    struct err e = {0};
    fake.init_status = 500;
    assert_int_equal(guest_init(g, &identity, deadline_in_ms(5000), &e), -1);
    assert_non_null(strstr(e.msg, "no clock"));
}

static void exec_collects_output(void **state)
{
    struct run r = run_exec(START_ECHO, &hello);
    assert_int_equal(r.rc, 0);
    assert_true(slice_is(r.resp.stdout_bytes, "hello"));
    assert_true(slice_is(r.resp.stderr_bytes, "input"));
    assert_int_equal(r.resp.exit_code, 3);
    assert_false(r.resp.truncated || r.resp.timed_out);
    assert_string_equal(fake.last_user_header, "");
    run_done(&r);
}

static void exec_names_its_user(void **state)
{
    struct agent_exec_request req = hello;
    struct run r;
    req.user = SLICE_LIT("user");
    r = run_exec(START_ECHO, &req);
    assert_int_equal(r.rc, 0);
    assert_string_equal(fake.last_user_header, "Basic dXNlcjo=");
    run_done(&r);
}

static void exec_reports_signals_and_deadlines(void **state)
{
    struct run r = run_exec(START_SIGNALLED, &hello);
    assert_int_equal(r.rc, 0);
    assert_int_equal(r.resp.exit_code, 128 + SIGSEGV);
    assert_true(slice_is(r.resp.signal, "SIGSEGV"));
    run_done(&r);
    r = run_exec(START_TIMED_OUT, &hello);
    assert_int_equal(r.rc, 0);
    assert_true(r.resp.timed_out);
    assert_int_equal(r.resp.exit_code, 124);
    assert_true(slice_is(r.resp.stdout_bytes, "so far"));
    run_done(&r);
}

static void exec_bounds_output(void **state)
{
    struct run r = run_exec(START_LARGE, &hello);
    assert_int_equal(r.rc, 0);
    assert_true(r.resp.truncated);
    assert_int_equal(r.resp.stdout_bytes.n, LIMIT_EXEC_OUTPUT_BYTES);
    assert_int_equal(r.resp.exit_code, 0);
    run_done(&r);
}

static void exec_that_breaks_or_is_refused(void **state)
{
    static const struct {
        enum fake_start how;
        enum err_kind kind;
        const char *where;
    } bad[] = {{START_NO_END, ERR_PROTOCOL, ""}, {START_BAD_CWD, ERR_INVALID, "cwd"},
        {START_BAD_USER, ERR_INVALID, "user"}};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct run r = run_exec(bad[i].how, &hello);
        assert_int_equal(r.rc, -1);
        assert_int_equal(r.e.kind, bad[i].kind);
        assert_string_equal(r.e.where, bad[i].where);
        run_done(&r);
    }
}

static void kept_connection_that_was_closed_is_replaced(void **state)
{
    struct run r;
    fake.close_after_each = true;
    for (int i = 0; i < 5; i++) {
        r = run_exec(START_ECHO, &hello);
        assert_int_equal(r.rc, 0);
        run_done(&r);
    }
    assert_int_equal(fake.requests, 5);
}

static void exec_that_a_pause_meets(void **state)
{
    struct run r = run_exec(START_PAUSED, &hello);
    assert_int_equal(r.rc, 0);
    assert_true(r.resp.paused);
    assert_int_equal(r.resp.pid, 7);
    assert_true(slice_is(r.resp.tag, fake.last_tag));
    assert_true(r.resp.tag.n > 0);
    assert_true(slice_is(r.resp.stdout_bytes, "hello"));
    assert_int_equal(r.resp.stderr_bytes.n, 0);
    assert_int_equal(r.e.kind, ERR_NONE);
    run_done(&r);
    r = run_exec(START_ECHO, &hello);
    assert_false(r.resp.paused);
    assert_int_equal(r.resp.pid, 0);
    run_done(&r);
}

static bool init_has(const char *member)
{
    const struct json_value *v = NULL;
    struct arena arena;
    struct err e = {0};
    bool has;
    arena_init(&arena, 1 << 20);
    assert_int_equal(json_parse(slice_cstr(fake.last_body), &arena, &v, &e), 0);
    has = json_get(v, member) != NULL;
    arena_done(&arena);
    return has;
}

static void prepared_guest_takes_no_calls(void **state)
{
    struct buf dst = BUF_INIT(1000);
    struct err e = {0};
    struct run r;
    int before;
    assert_int_equal(
        guest_prepare(g, sleeper.secret, /* keep= */ false, deadline_in_ms(5000), &e), 0);
    assert_non_null(strstr(fake.last_body, sleeper.secret));
    assert_string_equal(fake.last_token, token);
    before = fake.requests;
    r = run_exec(START_ECHO, &hello);
    assert_int_equal(r.rc, -1);
    assert_int_equal(r.e.kind, ERR_UNAVAILABLE);
    assert_string_equal(r.e.msg, "the sandbox is being paused");
    run_done(&r);
    assert_int_equal(guest_read_file(g, SLICE_LIT("/f"), (struct slice){0}, &dst, &e), -1);
    assert_string_equal(e.msg, "the sandbox is being paused");
    assert_int_equal(fake.requests, before);
    assert_int_equal(guest_init(g, &sleeper, deadline_in_ms(5000), &e), 0);
    assert_string_equal(fake.last_secret, sleeper.secret);
    assert_false(init_has("wake"));
    r = run_exec(START_ECHO, &hello);
    assert_int_equal(r.rc, 0);
    run_done(&r);
    buf_done(&dst);
}

static void prepare_that_fails_changes_nothing(void **state)
{
    struct err e = {0};
    struct run r;
    fake.prepare_status = 504;
    assert_int_equal(
        guest_prepare(g, sleeper.secret, /* keep= */ false, deadline_in_ms(5000), &e), -1);
    assert_int_equal(e.kind, ERR_TIMEOUT);
    assert_non_null(strstr(e.msg, "busy"));
    r = run_exec(START_ECHO, &hello);
    assert_int_equal(r.rc, 0);
    run_done(&r);
}

static void wakes_with_one_request(void **state)
{
    struct err e = {0};
    int never = eventfd(0, EFD_CLOEXEC);
    assert_int_equal(guest_wake(g, &sleeper, never, deadline_in_ms(5000), &e), 0);
    assert_int_equal(fake.requests, 1);
    assert_string_equal(fake.last_target, "/init");
    assert_string_equal(fake.last_secret, sleeper.secret);
    assert_true(init_has("wake") && init_has("entropy") && init_has("timestamp"));
    assert_false(init_has("envVars") || init_has("hostname") || init_has("machineId"));
    assert_int_equal(
        guest_init(g,
            &(struct guest_identity){.sandbox_id = "sb", .template = "t", .default_user = "root"},
            deadline_in_ms(5000), &e),
        0);
    assert_string_equal(fake.last_secret, "");
    assert_true(init_has("envVars") && init_has("hostname") && init_has("machineId"));
    (void)close(never);
}

/* Nothing listens: refused again and again. */
static void wake_gives_up(void **state)
{
    struct guest *nobody = guest_new("127.77.255.254", token);
    struct err e = {0};
    int never = eventfd(0, EFD_CLOEXEC);
    int ended = eventfd(1, EFD_CLOEXEC);
    assert_int_equal(guest_wake(nobody, &sleeper, never, deadline_in_ms(50), &e), -1);
    assert_int_equal(e.kind, ERR_TIMEOUT);
    assert_int_equal(guest_wake(nobody, &sleeper, ended, deadline_in_ms(30000), &e), -1);
    assert_int_equal(e.kind, ERR_UNAVAILABLE);
    (void)guest_free(nobody);
    (void)close(never);
    (void)close(ended);
}

static void *wake_thread(void *arg)
{
    struct err *e = arg;
    int never = eventfd(0, EFD_CLOEXEC);
    int rc = guest_wake(g, &sleeper, never, deadline_in_ms(20000), e);
    (void)close(never);
    return rc == 0 ? g : NULL;
}

/* The listener comes while we try. */
static void wake_waits_for_the_guest(void **state)
{
    struct err e = {0};
    void *woke = NULL;
    char ip[16];
    pthread_t t;
    fake_stop();
    assert_int_equal(pthread_create(&t, NULL, wake_thread, &e), 0);
    fake_start(ip);
    assert_int_equal(pthread_join(t, &woke), 0);
    if (!woke)
        fail_msg("%s", e.msg);
    assert_int_equal(fake.requests, 1);
}

static void closing_ends_calls_under_way(void **state)
{
    struct exec_call call;
    struct run after;
    begin_exec(&call, START_HANGS);
    assert_int_equal(fake_wait_hanging(), 0);
    guest_close(g);
    assert_int_equal(pthread_join(call.thread, NULL), 0);
    assert_int_equal(call.run.rc, -1);
    run_done(&call.run);
    after = run_exec(START_ECHO, &hello);
    assert_int_equal(after.rc, -1);
    assert_int_equal(after.e.kind, ERR_UNAVAILABLE);
    run_done(&after);
}

static void files_targets_are_encoded(void **state)
{
    const struct guest_write w = {.path = SLICE_LIT("/a b/\xc3\xa9&x=1"),
        .user = SLICE_LIT("me"),
        .content = SLICE_LIT("x"),
        .has_mode = true,
        .mode = 0640};
    struct err e = {0};
    assert_int_equal(guest_write_file(g, &w, &e), 0);
    assert_string_equal(fake.last_target, "/files?path=/a%20b/%C3%A9%26x%3D1&username=me&mode=640");
}

static void files_errors_name_their_field(void **state)
{
    static const struct {
        int status;
        enum err_kind kind;
        const char *where;
    } bad[] = {{404, ERR_NOT_FOUND, ""}, {400, ERR_INVALID, "path"}, {401, ERR_INVALID, "user"},
        {507, ERR_NO_SPACE, ""}};
    struct buf dst = BUF_INIT(1000);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct err e = {0};
        fake.files_status = bad[i].status;
        assert_int_equal(guest_read_file(g, SLICE_LIT("/f"), (struct slice){0}, &dst, &e), -1);
        assert_int_equal(e.kind, bad[i].kind);
        assert_string_equal(e.where, bad[i].where);
        assert_string_equal(e.msg, "as told");
    }
    buf_done(&dst);
}

/* The guest has answered and hung up before it has read the whole of it. */
static void files_error_of_a_large_upload(void **state)
{
    static char content[16 << 20];
    const struct guest_write w = {
        .path = SLICE_LIT("/f"), .content = slice_of(content, sizeof content)};
    struct err e = {0};
    fake.files_status = 507;
    assert_int_equal(guest_write_file(g, &w, &e), -1);
    assert_int_equal(e.kind, ERR_NO_SPACE);
    assert_string_equal(e.msg, "as told");
}

static void files_are_bounded(void **state)
{
    struct buf dst = BUF_INIT(1000);
    struct err e = {0};
    fake.files_bytes = 1000;
    assert_int_equal(guest_read_file(g, SLICE_LIT("/f"), (struct slice){0}, &dst, &e), 0);
    assert_int_equal(dst.len, 1000);
    buf_reset(&dst);
    fake.files_bytes = 1001;
    assert_int_equal(guest_read_file(g, SLICE_LIT("/f"), (struct slice){0}, &dst, &e), -1);
    assert_int_equal(e.kind, ERR_TOO_LARGE);
    buf_done(&dst);
}

#define GUEST_TEST(t) cmocka_unit_test_setup_teardown(t, calls_set_up, calls_tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        GUEST_TEST(ready_at_once),
        GUEST_TEST(ready_gives_up_when_the_vm_ends),
        GUEST_TEST(ready_gives_up_at_the_deadline),
        GUEST_TEST(init_tells_everything),
        GUEST_TEST(init_that_fails_says_why),
        GUEST_TEST(exec_collects_output),
        GUEST_TEST(exec_names_its_user),
        GUEST_TEST(exec_reports_signals_and_deadlines),
        GUEST_TEST(exec_bounds_output),
        GUEST_TEST(exec_that_breaks_or_is_refused),
        GUEST_TEST(kept_connection_that_was_closed_is_replaced),
        GUEST_TEST(exec_that_a_pause_meets),
        GUEST_TEST(prepared_guest_takes_no_calls),
        GUEST_TEST(prepare_that_fails_changes_nothing),
        GUEST_TEST(wakes_with_one_request),
        GUEST_TEST(wake_gives_up),
        GUEST_TEST(wake_waits_for_the_guest),
        GUEST_TEST(closing_ends_calls_under_way),
        GUEST_TEST(files_targets_are_encoded),
        GUEST_TEST(files_errors_name_their_field),
        GUEST_TEST(files_error_of_a_large_upload),
        GUEST_TEST(files_are_bounded),
    };
    return cmocka_run_group_tests_name("guest", tests, NULL, NULL);
}
