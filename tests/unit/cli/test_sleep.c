/* SPDX-License-Identifier: Apache-2.0 */
/* Pause, resume and snapshots against a scripted server. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "fake_api.h"
#include "run.h"

#define ID1 "sbaaaaaaaaaaaaaaaaaaaa"
#define RUNNING(id) "{\"id\":\"" id "\",\"status\":\"running\"}"
#define API_ERROR(code, rest)                                                                      \
    "{\"error\":{\"code\":\"" code "\",\"message\":\"it is so\",\"request_id\":\"req1\"" rest "}}"

/* Runs `torpor ...` against these answers. */
#define RUN(r, input, tty, ...)                                                                    \
    run_torpor(&(r), (const char *const[]){__VA_ARGS__, NULL}, input, tty)
#define SERVE(...)                                                                                 \
    const struct fake_answer answers[] = {__VA_ARGS__};                                            \
    fake_api_start(answers, sizeof answers / sizeof answers[0])

static int teardown(void **state)
{
    fake_api_timing(NULL);
    fake_api_stop();
    return 0;
}

static void assert_status(const struct run *r, int status)
{
    if (r->status != status)
        fail_msg("exit status %d instead of %d: %s", r->status, status, r->err);
}

static void assert_has(const char *text, const char *part)
{
    if (!strstr(text, part))
        fail_msg("'%s' is not in: %s", part, text);
}

/* --- pause, resume --- */

static void a_pause_says_nothing_but_its_phases(void **state)
{
    AUTO_RUN struct run quiet = {0};
    AUTO_RUN struct run r = {0};
    AUTO_RUN struct run none = {0};
    SERVE({.request = "POST /v1/sandboxes/" ID1 "/pause", .status = 200, .body = RUNNING(ID1)},
        {.request = "POST /v1/sandboxes/" ID1 "/pause", .status = 200, .body = RUNNING(ID1)},
        {.request = "POST /v1/sandboxes/" ID1 "/pause", .status = 200, .body = RUNNING(ID1)});
    RUN(quiet, NULL, false, "pause", ID1);
    assert_status(&quiet, 0);
    assert_string_equal(quiet.out, "");
    fake_api_timing("quiesce;dur=1.200, odd, ;dur=1, write_pages;dur=1234.5");
    RUN(r, NULL, false, "pause", "-v", ID1);
    assert_status(&r, 0);
    assert_string_equal(r.out, "PHASE               MS\n"
                               "quiesce          1.200\n"
                               "write_pages   1234.500\n");
    fake_api_timing(NULL);
    RUN(none, NULL, false, "pause", "-v", ID1);
    assert_string_equal(none.out, "");
}

static void resume_asks_for_what_was_said(void **state)
{
    AUTO_RUN struct run plain = {0};
    AUTO_RUN struct run all = {0};
    SERVE({.request = "POST /v1/sandboxes/" ID1 "/resume", .status = 200, .body = RUNNING(ID1)},
        {.request = "POST /v1/sandboxes/" ID1 "/resume", .status = 200, .body = RUNNING(ID1)});
    RUN(plain, NULL, false, "resume", ID1);
    assert_status(&plain, 0);
    fake_api_timing("load;dur=2");
    RUN(all, NULL, true, "resume", ID1, "--from-last-generation", "--disk-only", "--verbose");
    assert_status(&all, 0);
    assert_string_equal(all.out, "PHASE         MS\nload       2.000\n");
    assert_string_equal(fake_api_log(),
        "POST /v1/sandboxes/" ID1 "/resume\n{}\n"
        "POST /v1/sandboxes/" ID1 "/resume\n{\"from\":\"last_generation\",\"mode\":\"disk\"}\n");
}

static void the_wrong_state_is_an_error(void **state)
{
    AUTO_RUN struct run r = {0};
    SERVE({"POST /v1/sandboxes/" ID1 "/resume", 409,
        API_ERROR("invalid_state", ",\"details\":{\"status\":\"running\"}"), NULL, false});
    RUN(r, NULL, false, "resume", ID1);
    assert_status(&r, 1);
    assert_string_equal(r.err, "torpor resume: it is so\n");
}

static void exec_says_how_to_wake_a_sleeper(void **state)
{
    AUTO_RUN struct run paused = {0};
    AUTO_RUN struct run stopped = {0};
    SERVE({"POST /v1/sandboxes/" ID1 "/exec", 409,
              API_ERROR("invalid_state", ",\"details\":{\"status\":\"paused\"}"), NULL, false},
        {"POST /v1/sandboxes/" ID1 "/exec", 409,
            API_ERROR("invalid_state", ",\"details\":{\"status\":\"stopped\"}"), NULL, false});
    RUN(paused, NULL, false, "exec", ID1, "true");
    assert_status(&paused, 1);
    assert_string_equal(paused.err, "torpor exec: it is so; wake it with: torpor resume " ID1 "\n");
    RUN(stopped, NULL, false, "exec", ID1, "true");
    assert_string_equal(stopped.err, "torpor exec: it is so\n");
}

/* --- snapshot --- */

static void a_snapshot_is_made(void **state)
{
    static const char made[] = "{\"snapshot_id\":\"snap2\",\"name\":\"mine\"}";
    AUTO_RUN struct run r = {0};
    AUTO_RUN struct run over = {0};
    AUTO_RUN struct run taken = {0};
    SERVE({.request = "POST /v1/snapshots", .status = 201, .body = made},
        {.request = "POST /v1/snapshots?overwrite=true", .status = 201, .body = made},
        {"POST /v1/snapshots", 409, API_ERROR("already_exists", ""), NULL, false});
    RUN(r, NULL, false, "snapshot", "create", ID1);
    assert_status(&r, 0);
    assert_string_equal(r.out, "mine\n");
    fake_api_timing("freeze;dur=3");
    RUN(over, NULL, false, "snapshot", "create", ID1, "--name", "mine", "--overwrite", "-o", "json",
        "-v");
    assert_status(&over, 0);
    assert_has(over.out, made);
    assert_has(over.out, "freeze      3.000\n");
    RUN(taken, NULL, false, "snapshot", "create", ID1, "--name", "mine");
    assert_status(&taken, 1);
    assert_string_equal(fake_api_log(),
        "POST /v1/snapshots\n{\"sandbox_id\":\"" ID1 "\"}\n"
        "POST /v1/snapshots?overwrite=true\n{\"sandbox_id\":\"" ID1 "\",\"name\":\"mine\"}\n"
        "POST /v1/snapshots\n{\"sandbox_id\":\"" ID1 "\",\"name\":\"mine\"}\n");
}

static void snapshots_are_listed_over_pages(void **state)
{
    AUTO_RUN struct run r = {0};
    AUTO_RUN struct run json = {0};
    AUTO_RUN struct run none = {0};
    SERVE({"GET /v1/snapshots?limit=1000&type=snapshot", 200, "[{\"name\":\"a\"}]", "5.x", false},
        {"GET /v1/snapshots?limit=1000&type=snapshot&cursor=5.x", 200, "[{\"name\":\"b\"}]", NULL,
            false},
        {"GET /v1/snapshots?limit=1000&type=snapshot", 200, "[{\"name\":\"a\"},{\"name\":\"b\"}]",
            NULL, false},
        {"GET /v1/snapshots?limit=1000&type=snapshot", 200, "[]", NULL, false});
    RUN(r, NULL, true, "snapshot", "ls", "-o", "id");
    assert_status(&r, 0);
    assert_string_equal(r.out, "a\nb\n");
    RUN(json, NULL, false, "snapshot", "ls");
    assert_string_equal(json.out, "[{\"name\":\"a\"},\n {\"name\":\"b\"}]\n");
    RUN(none, NULL, true, "snapshot", "ls");
    assert_string_equal(none.out, "");
    assert_string_equal(none.err, "No snapshots.\n");
}

static void a_snapshot_is_deleted(void **state)
{
    AUTO_RUN struct run r = {0};
    AUTO_RUN struct run gone = {0};
    AUTO_RUN struct run base = {0};
    SERVE({"DELETE /v1/snapshots/mine", 204, "", NULL, false},
        {"DELETE /v1/snapshots/mine", 404, API_ERROR("not_found", ""), NULL, false},
        {"DELETE /v1/snapshots/base", 403, API_ERROR("forbidden", ""), NULL, false});
    RUN(r, NULL, false, "snapshot", "rm", "mine");
    assert_status(&r, 0);
    RUN(gone, NULL, false, "snapshot", "rm", "mine");
    assert_status(&gone, 3);
    RUN(base, NULL, false, "snapshot", "rm", "base");
    assert_status(&base, 1);
}

#define WITH(f) cmocka_unit_test_teardown(f, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        WITH(a_pause_says_nothing_but_its_phases),
        WITH(resume_asks_for_what_was_said),
        WITH(the_wrong_state_is_an_error),
        WITH(exec_says_how_to_wake_a_sleeper),
        WITH(a_snapshot_is_made),
        WITH(snapshots_are_listed_over_pages),
        WITH(a_snapshot_is_deleted),
    };
    return cmocka_run_group_tests_name("cli/sleep", tests, NULL, NULL);
}
