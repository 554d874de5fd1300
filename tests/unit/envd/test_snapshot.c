/* SPDX-License-Identifier: Apache-2.0 */
/* Preparing for a snapshot and waking, over the wire, with real processes. */
#include "harness.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/io.h"

#define SECRET "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
#define OTHER "1123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
#define WITH_SECRET "X-Snapshot-Secret: " SECRET "\r\n"

enum { STANDSTILL_MS = 500 };

static int prepare(struct harness *h, const char *headers, const char *json)
{
    AUTO_ANSWER struct answer a =
        harness_ask(h, "POST", "/snapshot/prepare", headers, slice_cstr(json));
    return a.status;
}

static int prepare_well(struct harness *h)
{
    return prepare(h, WITH_TOKEN, "{\"secret\":\"" SECRET "\"}");
}

static int prepare_and_keep(struct harness *h)
{
    return prepare(h, WITH_TOKEN, "{\"secret\":\"" SECRET "\",\"keep\":true}");
}

static int get(struct harness *h, const char *target, const char *headers)
{
    AUTO_ANSWER struct answer a = harness_ask(h, "GET", target, headers, (struct slice){0});
    return a.status;
}

static void test_only_the_secret_opens(void **state)
{
    struct harness *h = *state;
    assert_int_equal(prepare_well(h), 204);
    assert_int_equal(h->machine.syncs, 1);
    assert_int_equal(get(h, "/health", NULL), 503);
    assert_int_equal(get(h, "/files?path=x", WITH_TOKEN), 503);
    assert_int_equal(get(h, "/files?path=x", WITH_SECRET), 503);
    assert_int_equal(get(h, "/nowhere", NULL), 503);
    assert_int_equal(prepare_well(h), 409);
    assert_int_equal(harness_init(h, "{}", NULL), 401);
    assert_int_equal(harness_init(h, "{}", WITH_TOKEN), 401);
    assert_int_equal(harness_init(h, "{}", WITH_TOKEN "X-Snapshot-Secret: " OTHER "\r\n"), 401);
    assert_int_equal(harness_init(h, "{}", "X-Snapshot-Secret: 0123\r\n"), 401);
    assert_int_equal(get(h, "/health", NULL), 503);
    assert_int_equal(harness_init(h, "{}", WITH_SECRET), 204);
    assert_int_equal(h->machine.drops, 0); /* it was never away */
    assert_int_equal(get(h, "/health", NULL), 204);
    assert_int_equal(get(h, "/files?path=x", WITH_TOKEN), 404); /* the token is what it was */
    assert_int_equal(harness_init(h, "{}", WITH_SECRET), 401);  /* once */
}

static void test_who_may_prepare(void **state)
{
    struct harness *h = *state;
    static const char *const bad[] = {"", "{}", "[]", "{\"secret\":5}", "{\"secret\":\"\"}",
        "{\"secret\":\"" SECRET "0\"}",
        "{\"secret\":\"Z123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef\"}",
        "{\"keep\":true}", "{\"secret\":\"" SECRET "\",\"keep\":1}"};
    assert_int_equal(prepare(h, NULL, "{\"secret\":\"" SECRET "\"}"), 401);
    assert_int_equal(prepare(h, "X-Access-Token: no\r\n", "{\"secret\":\"" SECRET "\"}"), 401);
    assert_int_equal(get(h, "/snapshot/prepare", WITH_TOKEN), 405);
    for (size_t i = 0; i < ARRAY_LEN(bad); i++)
        assert_int_equal(prepare(h, WITH_TOKEN, bad[i]), 400);
    assert_int_equal(get(h, "/health", NULL), 204);
    assert_int_equal(h->machine.syncs, 0);
}

static void test_wakes_as_another(void **state)
{
    struct harness *h = *state;
    assert_int_equal(prepare_well(h), 204);
    assert_int_equal(
        harness_init(h,
            "{\"wake\":true,\"accessToken\":\"new\",\"timestamp\":\"1700000000000000000\","
            "\"entropy\":\"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\",\"hostname\":\"h2\","
            "\"machineId\":\"0123456789abcdef0123456789abcdef\"}",
            WITH_SECRET),
        204);
    assert_int_equal(h->machine.drops, 1);
    assert_int_equal(h->machine.entropy_len, 32);
    assert_int_equal(h->machine.real_ns, 1700000000000000000);
    assert_string_equal(h->machine.hostname, "h2");
    assert_int_equal(get(h, "/files?path=x", WITH_TOKEN), 401);
    assert_int_equal(get(h, "/files?path=x", "X-Access-Token: new\r\n"), 404);
    /* outside of a wake nothing is dropped */
    assert_int_equal(harness_init(h, "{\"wake\":true}", "X-Access-Token: new\r\n"), 204);
    assert_int_equal(h->machine.drops, 1);
}

static void test_a_wake_that_fails_may_be_repeated(void **state)
{
    struct harness *h = *state;
    assert_int_equal(prepare_well(h), 204);
    assert_int_equal(harness_init(h, "{\"wake\":1}", WITH_SECRET), 400);
    h->machine.fails = "clock";
    assert_int_equal(
        harness_init(
            h, "{\"accessToken\":\"new\",\"timestamp\":\"1700000000000000000\"}", WITH_SECRET),
        500);
    assert_int_equal(get(h, "/health", NULL), 503);
    h->machine.fails = "drop"; /* a kernel that cannot */
    assert_int_equal(harness_init(h, "{\"wake\":true}", WITH_SECRET), 204);
    assert_int_equal(get(h, "/files?path=x", WITH_TOKEN), 404); /* and no half of the first one */
}

/* Reads until `want` has come. */
static void read_until(int fd, struct buf *b, const char *want)
{
    for (;;) {
        struct err e = {0};
        char *p = buf_reserve(b, 4097);
        ssize_t got;
        assert_non_null(p);
        got = io_read(fd, p, 4096, deadline_in_ms(TEST_DEADLINE_MS), &e);
        if (got <= 0)
            fail_msg("no %s in %.*s", want, (int)b->len, b->p);
        buf_commit(b, (size_t)got);
        if (memmem(b->p, b->len, want, strlen(want)))
            return;
    }
}

static void make_fifo(struct harness *h, const char *name, char path[TEXT_MAX])
{
    (void)snprintf(path, TEXT_MAX, "%s/%s", h->home, name);
    assert_int_equal(mkfifo(path, 0666), 0);
}

static int start_process(struct harness *h, const char *json)
{
    AUTO_BUF struct buf request = BUF_INIT(1 << 16);
    unsigned char head[5] = {
        0, 0, 0, (unsigned char)(strlen(json) >> 8), (unsigned char)strlen(json)};
    int fd = harness_connect(h);
    buf_printf(&request,
        "POST /process.Process/Start HTTP/1.1\r\nHost: guest\r\n" WITH_TOKEN
        "Content-Type: application/connect+json\r\nContent-Length: %zu\r\n\r\n",
        strlen(json) + sizeof head);
    buf_append(&request, head, sizeof head);
    buf_append_cstr(&request, json);
    harness_send(fd, buf_slice(&request));
    return fd;
}

/* The stream ends well formed and says why; the process neither notices nor blocks. */
static void test_a_process_goes_on(void **state)
{
    struct harness *h = *state;
    AUTO_BUF struct buf said = BUF_INIT(1 << 16);
    char go[TEXT_MAX];
    char done[TEXT_MAX];
    char answer[8] = "";
    struct err e = {0};
    make_fifo(h, "go", go);
    make_fifo(h, "done", done);
    AUTO_CLOSE int done_fd = open(done, O_RDWR | O_CLOEXEC);
    AUTO_CLOSE int go_fd = open(go, O_RDWR | O_CLOEXEC);
    AUTO_CLOSE int fd = start_process(h,
        "{\"process\":{\"cmd\":\"/bin/sh\",\"args\":[\"-c\",\"trap 'echo HUP >done' HUP TERM PIPE; "
        "read x <go; head -c 1000000 /dev/zero && head -c 300000 /dev/zero >&2 && echo $x "
        ">done\"]}}");
    read_until(fd, &said, "\"start\"");
    assert_int_equal(prepare_well(h), 204);
    read_until(fd, &said, "\r\n0\r\n\r\n");
    assert_non_null(memmem(said.p, said.len,
        "\x02\0\0\0\x58{\"error\":{\"code\":\"aborted\",\"message\":\"paused\"}", 46));
    assert_int_equal(io_read(fd, answer, 1, deadline_in_ms(TEST_DEADLINE_MS), &e), 0);
    assert_int_equal(io_write_full(go_fd, "well\n", 5, deadline_in_ms(TEST_DEADLINE_MS), &e), 0);
    assert_int_equal(io_read_full(done_fd, answer, 5, deadline_in_ms(TEST_DEADLINE_MS), &e), 0);
    assert_string_equal(answer, "well\n");
    assert_int_equal(harness_init(h, "{}", WITH_SECRET), 204);
}

/* Kept and half-sent ones. */
static void test_connections_end(void **state)
{
    static const char upload[] = "POST /files?path=half HTTP/1.1\r\nHost: guest\r\n" WITH_TOKEN
                                 "Content-Type: application/octet-stream\r\n"
                                 "Content-Length: 10\r\n\r\nhalf";
    struct harness *h = *state;
    AUTO_BUF struct buf said = BUF_INIT(1 << 16);
    struct err e = {0};
    char byte;
    AUTO_CLOSE int kept = harness_connect(h);
    AUTO_CLOSE int half = harness_connect(h);
    harness_send(kept, SLICE_LIT("GET /health HTTP/1.1\r\nHost: guest\r\n\r\n"));
    read_until(kept, &said, "\r\n\r\n");
    harness_send(half, slice_cstr(upload));
    assert_int_equal(prepare_well(h), 204);
    assert_int_equal(io_read(kept, &byte, 1, deadline_in_ms(TEST_DEADLINE_MS), &e), 0);
    for (int n = 1; n > 0;) /* perhaps a last word */
        n = (int)io_read(half, &byte, 1, deadline_in_ms(TEST_DEADLINE_MS), &e);
    assert_int_not_equal(e.kind, ERR_TIMEOUT);
    assert_int_equal(harness_init(h, "{}", WITH_SECRET), 204);
    assert_int_equal(get(h, "/files?path=half", WITH_TOKEN), 404);
    assert_int_equal(harness_count(h, "home"), 0);
}

/* A process that says "one", waits for a line in `go`, says "two" and exits with 3, and its stream,
 * which has begun. */
static int start_two_words(struct harness *h, int *ret_go_fd, struct buf *said)
{
    char go[TEXT_MAX];
    int fd;
    make_fifo(h, "go", go);
    *ret_go_fd = open(go, O_RDWR | O_CLOEXEC);
    assert_true(*ret_go_fd >= 0);
    fd = start_process(h, "{\"process\":{\"cmd\":\"/bin/sh\",\"args\":[\"-c\","
                          "\"echo one; read x <go; echo two >&2; exit 3\"]}}");
    read_until(fd, said, "b25lCg=="); /* one */
    return fd;
}

static void say_go(int go_fd)
{
    struct err e = {0};
    assert_int_equal(io_write_full(go_fd, "go\n", 3, deadline_in_ms(TEST_DEADLINE_MS), &e), 0);
}

/* The machine went on: one stream that outlives the closed gate, one that ends meanwhile. */
static void test_kept_streams_go_on(void **state)
{
    struct harness *h = *state;
    AUTO_BUF struct buf said = BUF_INIT(1 << 16);
    AUTO_BUF struct buf idle = BUF_INIT(1 << 16);
    AUTO_CLOSE int go_fd = -1;
    AUTO_CLOSE int fd = start_two_words(h, &go_fd, &said);
    AUTO_CLOSE int kept = harness_connect(h);
    harness_send(kept, SLICE_LIT("GET /health HTTP/1.1\r\nHost: guest\r\n\r\n"));
    read_until(kept, &idle, "HTTP/1.1 204");
    assert_int_equal(prepare_and_keep(h), 204);
    assert_int_equal(h->machine.syncs, 1);
    assert_int_equal(get(h, "/health", NULL), 503);
    assert_int_equal(get(h, "/files?path=x", WITH_TOKEN), 503);
    assert_int_equal(prepare_and_keep(h), 409);
    assert_int_equal(harness_init(h, "{}", WITH_SECRET), 204);
    assert_int_equal(h->machine.drops, 0);
    say_go(go_fd);
    read_until(fd, &said, "\r\n0\r\n\r\n");
    assert_non_null(memmem(said.p, said.len, "dHdvCg==", 8)); /* two */
    assert_non_null(memmem(said.p, said.len, "exit status 3", 13));
    assert_null(memmem(said.p, said.len, "paused", 6));
    harness_send(
        kept, SLICE_LIT("GET /files?path=x HTTP/1.1\r\nHost: guest\r\n" WITH_TOKEN "\r\n"));
    read_until(kept, &idle, "HTTP/1.1 404");
}

static void test_kept_streams_end_behind_the_gate(void **state)
{
    struct harness *h = *state;
    AUTO_BUF struct buf said = BUF_INIT(1 << 16);
    AUTO_CLOSE int go_fd = -1;
    AUTO_CLOSE int fd = start_two_words(h, &go_fd, &said);
    assert_int_equal(prepare_and_keep(h), 204);
    say_go(go_fd);
    read_until(fd, &said, "\r\n0\r\n\r\n");
    assert_non_null(memmem(said.p, said.len, "dHdvCg==", 8));
    assert_non_null(memmem(said.p, said.len, "exit status 3", 13));
    assert_int_equal(harness_init(h, "{}", WITH_SECRET), 204);
}

/* The machine woke from the snapshot: the same as when a pause does it, and afterwards all is new.
 */
static void test_kept_streams_end_in_a_wake(void **state)
{
    struct harness *h = *state;
    AUTO_BUF struct buf said = BUF_INIT(1 << 16);
    AUTO_BUF struct buf idle = BUF_INIT(1 << 16);
    char done[TEXT_MAX];
    char answer[8] = "";
    struct err e = {0};
    make_fifo(h, "go", done);
    AUTO_CLOSE int go_fd = open(done, O_RDWR | O_CLOEXEC);
    make_fifo(h, "done", done);
    AUTO_CLOSE int done_fd = open(done, O_RDWR | O_CLOEXEC);
    AUTO_CLOSE int fd =
        start_process(h, "{\"process\":{\"cmd\":\"/bin/sh\",\"args\":[\"-c\","
                         "\"read x <go; head -c 1000000 /dev/zero && echo $x >done\"]}}");
    AUTO_CLOSE int kept = harness_connect(h);
    harness_send(kept, SLICE_LIT("GET /health HTTP/1.1\r\nHost: guest\r\n\r\n"));
    read_until(kept, &idle, "HTTP/1.1 204");
    read_until(fd, &said, "\"start\"");
    assert_int_equal(prepare_and_keep(h), 204);
    h->machine.fails = "clock"; /* a wake that comes to nothing */
    assert_int_equal(
        harness_init(h, "{\"wake\":true,\"timestamp\":\"1700000000000000000\"}", WITH_SECRET), 500);
    assert_int_equal(harness_init(h, "{\"wake\":true}", WITH_SECRET), 204);
    assert_int_equal(h->machine.drops, 1);
    read_until(fd, &said, "\r\n0\r\n\r\n");
    assert_non_null(memmem(said.p, said.len,
        "\x02\0\0\0\x58{\"error\":{\"code\":\"aborted\",\"message\":\"paused\"}", 46));
    assert_int_equal(io_read(fd, answer, 1, deadline_in_ms(TEST_DEADLINE_MS), &e), 0);
    idle.len = 0;
    assert_int_equal(io_read(kept, answer, 1, deadline_in_ms(TEST_DEADLINE_MS), &e), 0);
    assert_int_equal(io_write_full(go_fd, "well\n", 5, deadline_in_ms(TEST_DEADLINE_MS), &e), 0);
    assert_int_equal(io_read_full(done_fd, answer, 5, deadline_in_ms(TEST_DEADLINE_MS), &e), 0);
    assert_string_equal(answer, "well\n");
    assert_int_equal(get(h, "/health", NULL), 204);
}

/* Takes what the process says of its progress until it gets no further. */
static void wait_for_standstill(int progress_fd)
{
    struct err e = {0};
    char bytes[256];
    while (io_read(progress_fd, bytes, sizeof bytes, deadline_in_ms(STANDSTILL_MS), &e) > 0)
        ;
    assert_int_equal(e.kind, ERR_TIMEOUT);
}

/* Peers that neither read nor write: a stream whose socket is full, a half-sent upload. Before the
 * gate opens both have ended; the process has somebody who drains it. */
static void test_a_wake_waits_for_no_peer(void **state)
{
    static const char upload[] = "POST /files?path=half HTTP/1.1\r\nHost: guest\r\n" WITH_TOKEN
                                 "Content-Type: application/octet-stream\r\n"
                                 "Content-Length: 10\r\n\r\nhalf";
    struct harness *h = *state;
    char path[TEXT_MAX];
    char answer[8] = "";
    struct err e = {0};
    int64_t began;
    make_fifo(h, "progress", path);
    AUTO_CLOSE int progress_fd = open(path, O_RDWR | O_CLOEXEC);
    make_fifo(h, "done", path);
    AUTO_CLOSE int done_fd = open(path, O_RDWR | O_CLOEXEC);
    AUTO_CLOSE int half = harness_connect(h);
    AUTO_CLOSE int fd = start_process(h, "{\"process\":{\"cmd\":\"/bin/sh\",\"args\":[\"-c\","
                                         "\"for i in $(seq 500); do head -c 60000 /dev/zero; echo "
                                         ">progress; done; echo well >done\"]}}");
    harness_send(half, slice_cstr(upload));
    wait_for_standstill(progress_fd);
    assert_int_equal(prepare_and_keep(h), 204);
    assert_true(fd >= 0);
    began = clock_mono_ms();
    assert_int_equal(harness_init(h, "{\"wake\":true}", WITH_SECRET), 204);
    assert_true(clock_mono_ms() - began < 2000); /* below every patience with a client */
    assert_int_equal(io_read_full(done_fd, answer, 5, deadline_in_ms(TEST_DEADLINE_MS), &e), 0);
    assert_string_equal(answer, "well\n");
    assert_int_equal(get(h, "/files?path=half", WITH_TOKEN), 404);
    assert_int_equal(harness_count(h, "home"), 2); /* the pipes */
}

#define SNAPSHOT_TEST(t)                                                                           \
    cmocka_unit_test_setup_teardown(t, harness_set_up_initialised, harness_tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        SNAPSHOT_TEST(test_only_the_secret_opens),
        SNAPSHOT_TEST(test_who_may_prepare),
        SNAPSHOT_TEST(test_wakes_as_another),
        SNAPSHOT_TEST(test_a_wake_that_fails_may_be_repeated),
        SNAPSHOT_TEST(test_a_process_goes_on),
        SNAPSHOT_TEST(test_connections_end),
        SNAPSHOT_TEST(test_kept_streams_go_on),
        SNAPSHOT_TEST(test_kept_streams_end_behind_the_gate),
        SNAPSHOT_TEST(test_kept_streams_end_in_a_wake),
        SNAPSHOT_TEST(test_a_wake_waits_for_no_peer),
    };
    return cmocka_run_group_tests_name("envd snapshot", tests, NULL, NULL);
}
