/* SPDX-License-Identifier: Apache-2.0 */
/* Commands against a scripted server: what they ask, what they print, how they exit. */
#include <dirent.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "base/io.h"
#include "fake_api.h"
#include "run.h"

#define ID1 "sbaaaaaaaaaaaaaaaaaaaa"
#define ID2 "sbabbbbbbbbbbbbbbbbbbb"
#define RUNNING(id)                                                                                \
    "{\"id\":\"" id "\",\"status\":\"running\",\"template\":\"minimal\",\"vcpus\":2,"              \
    "\"memory_mb\":512,\"metadata\":{\"a\":\"b\"},\"created_at\":\"2020-01-02T03:04:05.678Z\"}"
#define LIST "GET /v1/sandboxes?limit=1000"
#define ALL                                                                                        \
    "GET /v1/"                                                                                     \
    "sandboxes?limit=1000&status=pending,running,pausing,paused,resuming,stopped,error"
#define RESULT(out, err, code, encoding)                                                           \
    "{\"sandbox_id\":\"" ID1 "\",\"cmd\":\"x\",\"stdout\":\"" out "\",\"stderr\":\"" err           \
    "\",\"exit_code\":" code ",\"duration_ms\":1500,\"encoding\":\"" encoding                      \
    "\",\"timed_out\":false,\"truncated\":false}"
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

/* --- ls --- */

static void ls_follows_cursors(void **state)
{
    AUTO_RUN struct run r = {0};
    SERVE({LIST, 200, "[" RUNNING(ID1) "]", "17.x", false},
        {LIST "&cursor=17.x", 200, "[" RUNNING(ID2) "]", NULL, false});
    RUN(r, NULL, false, "ls");
    assert_status(&r, 0);
    assert_string_equal(r.out, "[" RUNNING(ID1) ",\n " RUNNING(ID2) "]\n");
}

static void ls_is_a_table_on_a_terminal(void **state)
{
    AUTO_RUN struct run r = {0};
    SERVE({LIST, 200, "[" RUNNING(ID1) "]", NULL, false});
    RUN(r, NULL, true, "ls");
    assert_status(&r, 0);
    assert_has(r.out, "ID                      STATUS   TEMPLATE  CPU  MEMORY");
    assert_has(r.out, ID1 "  running  minimal   2    512 MiB");
    assert_has(r.out, "a=b\n");
}

static void ls_prints_ids_and_filters(void **state)
{
    AUTO_RUN struct run r = {0};
    SERVE({LIST "&status=paused&metadata.k%20y=v%261", 200, "[" RUNNING(ID1) "," RUNNING(ID2) "]",
        NULL, false});
    RUN(r, NULL, true, "ls", "-o", "id", "--status", "paused", "--metadata", "k y=v&1");
    assert_status(&r, 0);
    assert_string_equal(r.out, ID1 "\n" ID2 "\n");
}

static void ls_of_nothing(void **state)
{
    AUTO_RUN struct run r = {0};
    AUTO_RUN struct run table = {0};
    SERVE({LIST, 200, "[]", NULL, false}, {LIST, 200, "[]", NULL, false});
    RUN(r, NULL, false, "ls");
    assert_string_equal(r.out, "[]\n");
    RUN(table, NULL, true, "ls");
    assert_string_equal(table.out, "");
    assert_string_equal(table.err, "No sandboxes.\n");
}

/* --- create --- */

static void create_says_what_was_asked(void **state)
{
    AUTO_RUN struct run r = {0};
    SERVE({"POST /v1/sandboxes", 201, RUNNING(ID1), NULL, false});
    RUN(r, NULL, false, "create", "-t", "base", "--vcpus", "2", "--memory", "1G", "--timeout", "5m",
        "-e", "A=1", "-e", "A=2", "--metadata", "k=v=w");
    assert_status(&r, 0);
    assert_string_equal(r.out, ID1 "\n");
    assert_string_equal(fake_api_log(),
        "POST /v1/sandboxes\n{\"template\":\"base\",\"vcpus\":2,\"memory_mb\":1024,"
        "\"timeout_sec\":300,\"env\":{\"A\":\"2\"},\"metadata\":{\"k\":\"v=w\"}}\n");
}

static void errors_have_exit_statuses(void **state)
{
    static const struct {
        int status, exit;
        const char *body, *says;
    } cases[] = {
        {400, 1,
            API_ERROR(
                "invalid_request", ",\"details\":{\"field\":\"vcpus\",\"allowed\":\"1..32\"}"),
            "torpor create: it is so (field vcpus, allowed: 1..32)\n"},
        {404, 3, API_ERROR("not_found", ",\"details\":{\"field\":\"template\"}"),
            "torpor create: it is so (field template)\n"},
        {503, 4, API_ERROR("no_capacity", ""), "torpor create: it is so [request req1]\n"},
        {503, 4, API_ERROR("agent_unavailable", ""), "torpor create: it is so [request req1]\n"},
        {504, 124, API_ERROR("timeout", ""), "torpor create: it is so [request req1]\n"},
        {502, 1, API_ERROR("agent_error", ""), "torpor create: it is so [request req1]\n"},
        {503, 4, "no json", "torpor create: the server answered 503 Service Unavailable\n"},
    };
    struct fake_answer answers[ARRAY_LEN(cases)];
    for (size_t i = 0; i < ARRAY_LEN(cases); i++)
        answers[i] =
            (struct fake_answer){"POST /v1/sandboxes", cases[i].status, cases[i].body, NULL, false};
    fake_api_start(answers, ARRAY_LEN(cases));
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        AUTO_RUN struct run r = {0};
        RUN(r, NULL, false, "create");
        assert_status(&r, cases[i].exit);
        assert_string_equal(r.err, cases[i].says);
        assert_int_equal(r.n_out, 0);
    }
}

static void no_server_is_unavailable(void **state)
{
    AUTO_RUN struct run r = {0};
    SERVE({LIST, 200, "[]", NULL, false});
    (void)setenv("TORPOR_URL", "http://127.0.0.1:1", 1);
    RUN(r, NULL, false, "ls");
    assert_status(&r, 4);
    assert_has(r.err, "no server at 127.0.0.1:1");
}

/* --- ids --- */

static void a_unique_start_of_an_id_is_enough(void **state)
{
    AUTO_RUN struct run r = {0};
    SERVE({LIST, 200, "[" RUNNING(ID1) "," RUNNING(ID2) "]", NULL, false},
        {"POST /v1/sandboxes/" ID2 "/ping", 204, "", NULL, false});
    RUN(r, NULL, false, "ping", "sbab");
    assert_status(&r, 0);
}

static void a_shared_start_is_refused(void **state)
{
    AUTO_RUN struct run r = {0};
    SERVE({LIST, 200, "[" RUNNING(ID1) "," RUNNING(ID2) "]", NULL, false});
    RUN(r, NULL, false, "ping", "sba");
    assert_status(&r, 1);
    assert_string_equal(r.err, "torpor ping: 2 sandboxes have ids that begin with sba\n");
}

static void stopped_ones_are_found_last(void **state)
{
    AUTO_RUN struct run r = {0};
    AUTO_RUN struct run none = {0};
    SERVE({LIST, 200, "[]", NULL, false}, {ALL, 200, "[" RUNNING(ID1) "]", NULL, false},
        {"DELETE /v1/sandboxes/" ID1, 204, "", NULL, false}, {LIST, 200, "[]", NULL, false},
        {ALL, 200, "[]", NULL, false});
    RUN(r, NULL, false, "rm", "sbaa");
    assert_status(&r, 0);
    assert_string_equal(r.out, ID1 "\n");
    RUN(none, NULL, false, "ping", "sbaa");
    assert_status(&none, 3);
}

static void rm_goes_on(void **state)
{
    AUTO_RUN struct run r = {0};
    SERVE({"DELETE /v1/sandboxes/" ID1, 404, API_ERROR("not_found", ""), NULL, false},
        {"DELETE /v1/sandboxes/" ID2, 204, "", NULL, false});
    RUN(r, NULL, false, "rm", ID1, "bogus", ID2);
    assert_status(&r, 3);
    assert_string_equal(r.out, ID2 "\n");
    assert_has(r.err, "torpor rm: " ID1 ": it is so\n");
    assert_has(r.err, "torpor rm: bogus: ");
}

/* --- exec --- */

static void exec_becomes_the_command(void **state)
{
    AUTO_RUN struct run r = {0};
    SERVE({"POST /v1/sandboxes/" ID1 "/exec", 200, RESULT("out\\u0000\\n", "err", "7", "utf-8"),
        NULL, false});
    RUN(r, "in\n\"put", false, "exec", ID1, "--timeout", "1m", "-e", "A=b", "--cwd", "/tmp", "-u",
        "root", "--", "cat", "-n");
    assert_status(&r, 7);
    assert_int_equal(r.n_out, 5);
    assert_memory_equal(r.out, "out\0\n", 5);
    assert_string_equal(r.err, "err");
    assert_has(fake_api_log(),
        "{\"cmd\":\"cat\",\"args\":[\"-n\"],\"cwd\":\"/tmp\",\"user\":\"root\",\"timeout_sec\":60,"
        "\"env\":{\"A\":\"b\"},\"stdin\":\"in\\n\\\"put\"}");
}

static void exec_output_is_binary_safe(void **state)
{
    AUTO_RUN struct run r = {0};
    SERVE({"POST /v1/sandboxes/" ID1 "/exec", 200, RESULT("//4A", "/w==", "0", "base64"), NULL,
        false});
    RUN(r, NULL, false, "exec", ID1, "x");
    assert_status(&r, 0);
    assert_int_equal(r.n_out, 3);
    assert_memory_equal(r.out, "\xff\xfe\0", 3);
    assert_string_equal(r.err, "\xff");
    assert_null(strstr(fake_api_log(), "stdin")); /* it is a terminal */
}

static void exec_input_has_bounds(void **state)
{
    AUTO_RUN struct run r = {0};
    AUTO_RUN struct run big = {0};
    AUTO_RUN struct run ignored = {0};
    AUTO_RUN struct run escaped = {0};
    char *input = calloc(1, (2 << 20) + 1);
    SERVE({"POST /v1/sandboxes/" ID1 "/exec", 200, RESULT("", "", "0", "utf-8"), NULL, false});
    assert_non_null(input);
    memset(input, 'x', 2 << 20);
    RUN(big, input, false, "exec", ID1, "x");
    assert_status(&big, 1);
    assert_has(big.err, "larger than 1 MiB");
    memset(input, '\n', 900000);
    input[900000] = '\0';
    RUN(escaped, input, false, "exec", ID1, "x"); /* two characters for each, as JSON */
    assert_status(&escaped, 1);
    assert_has(escaped.err, "larger than the 1 MiB of a request");
    RUN(r, "\xff", false, "exec", ID1, "x");
    assert_status(&r, 1);
    assert_has(r.err, "not UTF-8");
    assert_string_equal(fake_api_log(), "");
    RUN(ignored, "\xff", false, "exec", ID1, "-n", "x");
    assert_status(&ignored, 0);
    free(input);
}

static void exec_out_of_time(void **state)
{
    AUTO_RUN struct run r = {0};
    SERVE({"POST /v1/sandboxes/" ID1 "/exec", 200,
        "{\"stdout\":\"so far\",\"stderr\":\"\",\"exit_code\":124,\"duration_ms\":1500,"
        "\"encoding\":\"utf-8\",\"timed_out\":true,\"truncated\":true}",
        NULL, false});
    RUN(r, NULL, false, "exec", ID1, "x");
    assert_status(&r, 124);
    assert_string_equal(r.out, "so far");
    assert_has(r.err, "out of time after 1.5 s");
    assert_has(r.err, "was cut");
}

/* --- cp --- */

static char dir[] = "/tmp/torpor-cp-XXXXXX";

static int setup_dir(void **state)
{
    (void)memcpy(dir + strlen(dir) - 6, "XXXXXX", 6);
    assert_non_null(mkdtemp(dir));
    return chdir(dir);
}

static int teardown_dir(void **state)
{
    struct err e = {0};
    fake_api_stop();
    assert_int_equal(chdir("/"), 0);
    return io_remove_tree(AT_FDCWD, dir, &e);
}

static void assert_file(const char *path, const char *expected)
{
    AUTO_BUF struct buf text = BUF_INIT(1 << 20);
    struct err e = {0};
    if (io_read_file(AT_FDCWD, path, &text, &e) < 0)
        fail_msg("%s", e.msg);
    assert_string_equal(text.p ? text.p : "", expected);
}

static void put_file(const char *path, const char *text, mode_t mode)
{
    struct err e = {0};
    assert_int_equal(io_replace_file(AT_FDCWD, path, text, strlen(text), mode, &e), 0);
}

/* Files in the folder, also those whose names begin with a dot. */
static size_t count_files(void)
{
    DIR *d = opendir(".");
    const struct dirent *ent;
    size_t n = 0;
    assert_non_null(d);
    while ((ent = readdir(d)))
        n += strcmp(ent->d_name, ".") != 0 && strcmp(ent->d_name, "..") != 0;
    (void)closedir(d);
    return n;
}

static void cp_into_a_sandbox(void **state)
{
    AUTO_RUN struct run r = {0};
    AUTO_RUN struct run stream = {0};
    SERVE({"POST /v1/sandboxes/" ID1 "/files/write", 204, "", NULL, false},
        {"POST /v1/sandboxes/" ID1 "/files/write", 204, "", NULL, false});
    put_file("run.sh", "#!/bin/sh\n", 0755);
    RUN(r, NULL, false, "cp", "run.sh", ID1 ":/root/", "--user", "bob");
    assert_status(&r, 0);
    assert_has(fake_api_body()->p, "name=\"path\"\r\n\r\n/root/run.sh\r\n");
    assert_has(fake_api_body()->p, "name=\"user\"\r\n\r\nbob\r\n");
    assert_has(fake_api_body()->p, "name=\"mode\"\r\n\r\n0755\r\n");
    assert_has(fake_api_body()->p, "\r\n\r\n#!/bin/sh\n\r\n--");
    RUN(stream, "from a pipe", false, "cp", "-", ID1 ":a");
    assert_status(&stream, 0);
    assert_has(fake_api_body()->p, "name=\"path\"\r\n\r\na\r\n");
    assert_has(fake_api_body()->p, "\r\n\r\nfrom a pipe\r\n--");
}

static void cp_into_a_sandbox_fails(void **state)
{
    AUTO_RUN struct run none = {0};
    AUTO_RUN struct run folder = {0};
    AUTO_RUN struct run unnamed = {0};
    AUTO_RUN struct run refused = {0};
    SERVE({"POST /v1/sandboxes/" ID1 "/files/write", 507, API_ERROR("insufficient_storage", ""),
        NULL, false});
    RUN(none, NULL, false, "cp", "nothing", ID1 ":a");
    assert_status(&none, 1);
    assert_has(none.err, "nothing: No such file");
    RUN(folder, NULL, false, "cp", ".", ID1 ":a");
    assert_has(folder.err, "is a folder");
    RUN(unnamed, "x", false, "cp", "-", ID1 ":/root/");
    assert_has(unnamed.err, "a name is needed");
    RUN(refused, "x", false, "cp", "-", ID1 ":a");
    assert_status(&refused, 1);
    assert_has(refused.err, "it is so");
}

static void cp_out_of_a_sandbox(void **state)
{
    AUTO_RUN struct run r = {0};
    AUTO_RUN struct run again = {0};
    AUTO_RUN struct run standard = {0};
    struct stat st;
    SERVE({"POST /v1/sandboxes/" ID1 "/files/read", 200, "the bytes", NULL, false},
        {"POST /v1/sandboxes/" ID1 "/files/read", 200, "new", NULL, false},
        {"POST /v1/sandboxes/" ID1 "/files/read", 200, "streamed", NULL, false});
    RUN(r, NULL, false, "cp", ID1 ":/etc/out", ".");
    assert_status(&r, 0);
    assert_file("out", "the bytes");
    assert_has(fake_api_log(), "{\"path\":\"/etc/out\"}");
    assert_int_equal(chmod("out", 0640), 0);
    RUN(again, NULL, false, "cp", ID1 ":/etc/other", "out");
    assert_status(&again, 0);
    assert_file("out", "new");
    assert_int_equal(stat("out", &st), 0);
    assert_int_equal(st.st_mode & 07777, 0640);
    RUN(standard, NULL, false, "cp", ID1 ":x", "-");
    assert_string_equal(standard.out, "streamed");
}

static void a_broken_transfer_changes_nothing(void **state)
{
    AUTO_RUN struct run broken = {0};
    AUTO_RUN struct run missing = {0};
    SERVE({"POST /v1/sandboxes/" ID1 "/files/read", 200, "half", NULL, true},
        {"POST /v1/sandboxes/" ID1 "/files/read", 404, API_ERROR("not_found", ""), NULL, false});
    put_file("out", "old", 0644);
    RUN(broken, NULL, false, "cp", ID1 ":x", "out");
    assert_status(&broken, 1);
    assert_has(broken.err, "the transfer broke");
    assert_file("out", "old");
    RUN(missing, NULL, false, "cp", ID1 ":x", "a");
    assert_status(&missing, 3);
    assert_int_equal(count_files(), 1);
}

/* --- template --- */

static void templates_are_listed(void **state)
{
    AUTO_RUN struct run table = {0};
    AUTO_RUN struct run ids = {0};
    static const char body[] =
        "[{\"snapshot_id\":\"snap1\",\"name\":\"minimal\",\"type\":\"base\",\"size_bytes\":1572864}"
        ","
        "{\"snapshot_id\":\"snap2\",\"name\":\"mine\",\"type\":\"snapshot\",\"vcpus\":2,"
        "\"memory_mb\":512,\"size_bytes\":1024}]";
    SERVE({"GET /v1/snapshots?limit=1000", 200, body, NULL, false},
        {"GET /v1/snapshots?limit=1000", 200, body, NULL, false});
    RUN(table, NULL, true, "template", "ls");
    assert_status(&table, 0);
    assert_has(table.out, "minimal  base      -    -        1.5 MiB  -    snap1\n");
    assert_has(table.out, "mine     snapshot  2    512 MiB  1 KiB    -    snap2\n");
    RUN(ids, NULL, true, "template", "ls", "-o", "id");
    assert_string_equal(ids.out, "minimal\nmine\n");
}

#define WITH(f) cmocka_unit_test_teardown(f, teardown)
#define IN_DIR(f) cmocka_unit_test_setup_teardown(f, setup_dir, teardown_dir)

int main(void)
{
    const struct CMUnitTest tests[] = {
        WITH(ls_follows_cursors),
        WITH(ls_is_a_table_on_a_terminal),
        WITH(ls_prints_ids_and_filters),
        WITH(ls_of_nothing),
        WITH(create_says_what_was_asked),
        WITH(errors_have_exit_statuses),
        WITH(no_server_is_unavailable),
        WITH(a_unique_start_of_an_id_is_enough),
        WITH(a_shared_start_is_refused),
        WITH(stopped_ones_are_found_last),
        WITH(rm_goes_on),
        WITH(exec_becomes_the_command),
        WITH(exec_output_is_binary_safe),
        WITH(exec_input_has_bounds),
        WITH(exec_out_of_time),
        IN_DIR(cp_into_a_sandbox),
        IN_DIR(cp_into_a_sandbox_fails),
        IN_DIR(cp_out_of_a_sandbox),
        IN_DIR(a_broken_transfer_changes_nothing),
        WITH(templates_are_listed),
    };
    return cmocka_run_group_tests_name("cli/commands", tests, NULL, NULL);
}
