/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Client streams over a real server of ours, and the ends that any call may come to: its deadline,
 * a client that leaves, a server that stops. What a handler saw is in `seen`; tests wait for it
 * there.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <cmocka.h>
#include <poll.h>
#include <pthread.h>
#include <sys/socket.h>
#include <time.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/io.h"
#include "base/sock.h"
#include "http/client.h"
#include "http/server.h"
#include "json/json.h"
#include "rpc/client.h"
#include "rpc/server.h"
#include "sample.h"

enum {
    MAX_BYTES = 64 * 1024,
    PATIENCE_MS = 20000,
    SHORT_MS = 250,                  /* deadlines that are meant to pass */
    MESSAGE_ARENA_BYTES = 128 << 10, /* of one message in a handler */
    ANSWER_BYTES_MAX = 1 << 20,
    SOCKET_BYTES_MAX = 64 << 20, /* more than two socket buffers ever hold */
};

static struct {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    int ended; /* handlers */
    bool released;
    enum err_kind kind; /* how the last one ended */
    int messages;
} seen = {.lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER};

static uint16_t port;
static struct http_server *server;
static struct arena arena;

/* --- the service --- */

static void note_end(int messages, const struct err *e)
{
    MUTEX_GUARD(&seen.lock);
    seen.ended++;
    seen.messages = messages;
    seen.kind = e ? e->kind : ERR_NONE;
    pthread_cond_broadcast(&seen.changed);
}

static void wait_for_release(void)
{
    MUTEX_GUARD(&seen.lock);
    while (!seen.released)
        pthread_cond_wait(&seen.changed, &seen.lock);
}

/* Takes one message; 1 to go on, 0 to answer, -1. */
static int take(struct rpc_call *call, struct arena *a, struct sample *out, struct err *e)
{
    struct sample in;
    int rc = rpc_receive(call, a, &in, e);
    if (rc <= 0)
        return rc;
    out->int32 += in.int32;
    out->uint32++;
    out->uint64 += in.bytes.n;
    if (slice_is(in.text, "refuse")) {
        err_set(e, ERR_NO_SPACE, "the disk is full");
        (void)snprintf(e->where, sizeof e->where, "bytes");
        return -1;
    }
    if (slice_is(in.text, "hold"))
        wait_for_release();
    return !slice_is(in.text, "enough");
}

/* Adds up what comes: int32, the number of messages (uint32), the length of bytes (uint64). */
static int sum(struct rpc_call *call, void *resp, struct err *e)
{
    struct sample *out = resp;
    struct arena a;
    int rc;
    arena_init(&a, MESSAGE_ARENA_BYTES);
    do {
        rc = take(call, &a, out, e);
        arena_done(&a);
    } while (rc > 0);
    note_end((int)out->uint32, rc < 0 ? e : NULL);
    return rc;
}

/* Sends messages until that fails. */
static int pump(struct rpc_call *call, const void *req, struct err *e)
{
    static const char filler[MAX_BYTES / 2];
    struct sample out = {.bytes = {filler, sizeof filler}};
    (void)req;
    while (rpc_send(call, &sample_message, &out, e) == 0)
        out.int32++;
    note_end(out.int32, e);
    return -1;
}

/* Sends one message, then waits for the call's end. */
static int linger(struct rpc_call *call, const void *req, struct err *e)
{
    struct sample out = {0};
    int rc = rpc_send(call, &sample_message, &out, e);
    (void)req;
    if (rc == 0)
        rc = rpc_wait(call, /* fd= */ -1, /* events= */ 0, deadline_in_ms(PATIENCE_MS), e);
    if (rc >= 0)
        err_set(e, ERR_INTERNAL, "nothing ended the call");
    else if (rpc_check(call, e) == 0)
        err_set(e, ERR_INTERNAL, "the call goes on all the same");
    note_end(1, e);
    return -1;
}

/* Waits until its own time of int32 milliseconds is over. */
static int nap(struct rpc_call *call, const void *req, void *resp, struct err *e)
{
    const struct sample *in = req;
    struct sample *out = resp;
    out->int32 = rpc_wait(call, /* fd= */ -1, /* events= */ 0, deadline_in_ms(in->int32), e);
    return out->int32 < 0 ? -1 : 0;
}

static const struct rpc_method methods[] = {
    {.path = "/test.Service/Sum",
        .request = &sample_message,
        .response = &sample_message,
        .client_stream = sum},
    {.path = "/test.Service/Pump",
        .request = &sample_message,
        .response = &sample_message,
        .stream = pump},
    {.path = "/test.Service/Linger",
        .request = &sample_message,
        .response = &sample_message,
        .stream = linger},
    {.path = "/test.Service/Nap",
        .request = &sample_message,
        .response = &sample_message,
        .unary = nap},
};

static void handle(struct http_exchange *x, void *ctx)
{
    assert_true(rpc_serve(x, methods, ARRAY_LEN(methods), MAX_BYTES, ctx));
}

static int start(void **state)
{
    struct err e = {0};
    struct http_server_config config = {.handler = handle};
    (void)state;
    config.listen_fd = sock_listen_tcp("127.0.0.1", 0, &e);
    if (config.listen_fd < 0)
        return -1;
    port = sock_local_port(config.listen_fd);
    server = http_server_start(&config, &e);
    arena_init(&arena, 4 * ANSWER_BYTES_MAX);
    seen.ended = 0;
    seen.released = false;
    return server ? 0 : -1;
}

static int stop(void **state)
{
    (void)state;
    http_server_stop(server);
    server = NULL;
    arena_done(&arena);
    return 0;
}

/* Waits until one handler has ended; false when none has in time. */
static bool wait_for_end(enum err_kind *ret)
{
    MUTEX_GUARD(&seen.lock);
    struct timespec until;
    (void)clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += PATIENCE_MS / 1000;
    while (seen.ended == 0)
        if (pthread_cond_timedwait(&seen.changed, &seen.lock, &until) != 0)
            return false;
    *ret = seen.kind;
    return true;
}

/* Checks outside of the lock how it ended: a failed check never comes back. */
static void expect_end(enum err_kind kind)
{
    enum err_kind got = ERR_NONE;
    if (!wait_for_end(&got))
        fail_msg("the handler has not ended");
    if (got != kind)
        fail_msg("the handler ended with %s", err_kind_name(got));
}

static void release(void)
{
    MUTEX_GUARD(&seen.lock);
    seen.released = true;
    pthread_cond_broadcast(&seen.changed);
}

static int dial_raw(void)
{
    struct err e = {0};
    int fd = sock_connect_tcp("127.0.0.1", port, deadline_in_ms(PATIENCE_MS), &e);
    if (fd < 0)
        fail_msg("%s", e.msg);
    return fd;
}

static struct http_conn *dial(void)
{
    struct err e = {0};
    struct http_conn *c = http_conn_new(dial_raw(), &e);
    assert_non_null(c);
    return c;
}

static void hang_up(struct http_conn **c)
{
    *c = http_conn_free(*c);
}
#define AUTO_CONN CLEANUP(hang_up)

static struct rpc_request request_of(const char *path, enum rpc_codec codec)
{
    static const struct sample nothing;
    return (struct rpc_request){.path = path,
        .request = &sample_message,
        .response = &sample_message,
        .msg = &nothing,
        .codec = codec,
        .deadline = deadline_in_ms(PATIENCE_MS),
        .max_bytes = ANSWER_BYTES_MAX};
}

static void begin(struct rpc_stream *s, struct http_conn *c, const struct rpc_request *r)
{
    struct err e = {0};
    if (rpc_stream_start(s, c, r, &e) < 0)
        fail_msg("%s", e.msg);
}

static void send_one(struct rpc_stream *s, const struct sample *msg)
{
    struct err e = {0};
    if (rpc_stream_send(s, msg, &e) != 1)
        fail_msg("not sent: %s", e.msg);
}

/* Waits until the server has answered. */
static void wait_for_answer(struct http_conn *c)
{
    struct err e = {0};
    if (io_wait(http_conn_fd(c), POLLIN, deadline_in_ms(PATIENCE_MS), &e) < 0)
        fail_msg("%s", e.msg);
}

/* --- client streams --- */

static void any_number_of_messages_is_summed_up(void **state)
{
    AUTO_CONN struct http_conn *c = dial();
    (void)state;
    for (int i = 0; i < 8; i++) {
        struct rpc_request r = request_of("/test.Service/Sum", (enum rpc_codec)(i % 2));
        struct rpc_stream s;
        struct sample got;
        struct err e = {0};
        begin(&s, c, &r);
        for (int n = 0; n < i / 2; n++)
            send_one(&s, &(struct sample){.int32 = 10 + n, .bytes = SLICE_LIT("abc")});
        if (rpc_stream_finish(&s, &arena, &got, &e) < 0)
            fail_msg("%s", e.msg);
        assert_int_equal(got.uint32, i / 2);
        assert_int_equal(got.uint64, 3 * (i / 2));
        assert_int_equal(got.int32, i / 2 * (i / 2 - 1) / 2 + 10 * (i / 2));
        rpc_stream_done(&s);
        assert_true(http_conn_reusable(c));
    }
}

/* The handler's arena holds one such message, the stream has 400. */
static void long_streams_need_the_memory_of_one_message(void **state)
{
    static const char filler[MAX_BYTES - 64];
    struct sample msg = {.bytes = {filler, sizeof filler}};
    struct rpc_request r = request_of("/test.Service/Sum", RPC_CODEC_PROTO);
    AUTO_CONN struct http_conn *c = dial();
    struct rpc_stream s;
    struct sample got;
    struct err e = {0};
    (void)state;
    begin(&s, c, &r);
    for (int i = 0; i < 400; i++)
        send_one(&s, &msg);
    assert_int_equal(rpc_stream_finish(&s, &arena, &got, &e), 0);
    assert_int_equal(got.uint64, 400 * sizeof filler);
    rpc_stream_done(&s);
}

static void a_slow_handler_holds_the_client_back(void **state)
{
    static const char filler[MAX_BYTES - 64];
    struct sample msg = {.bytes = {filler, sizeof filler}};
    struct rpc_request r = request_of("/test.Service/Sum", RPC_CODEC_PROTO);
    AUTO_CONN struct http_conn *c = dial();
    struct rpc_stream s;
    struct err e = {0};
    size_t sent = 0;
    int rc;
    (void)state;
    begin(&s, c, &r);
    send_one(&s, &(struct sample){.text = SLICE_LIT("hold")});
    r.deadline = deadline_in_ms(4 * SHORT_MS);
    while ((rc = rpc_stream_send(&s, &msg, &e)) == 1 && sent < SOCKET_BYTES_MAX)
        sent += sizeof filler;
    release();
    assert_int_equal(rc, -1);
    assert_int_equal(e.kind, ERR_TIMEOUT);
    assert_true(sent < SOCKET_BYTES_MAX);
    rpc_stream_done(&s);
    c = http_conn_free(c);
    expect_end(ERR_CANCELED);
}

static void the_server_may_refuse_before_the_end(void **state)
{
    (void)state;
    for (int codec = 0; codec < 2; codec++) {
        struct rpc_request r = request_of("/test.Service/Sum", (enum rpc_codec)codec);
        AUTO_CONN struct http_conn *c = dial();
        struct rpc_stream s;
        struct sample got;
        struct err e = {0};
        begin(&s, c, &r);
        send_one(&s, &(struct sample){.text = SLICE_LIT("refuse")});
        wait_for_answer(c);
        assert_int_equal(rpc_stream_send(&s, &(struct sample){0}, &e), 0);
        assert_int_equal(rpc_stream_send(&s, &(struct sample){0}, &e), 0);
        assert_int_equal(rpc_stream_finish(&s, &arena, &got, &e), -1);
        assert_int_equal(e.kind, ERR_NO_SPACE);
        assert_string_equal(e.where, "bytes");
        assert_string_equal(e.msg, "the disk is full");
        assert_false(http_conn_reusable(c));
        rpc_stream_done(&s);
    }
}

static void the_server_may_have_enough_before_the_end(void **state)
{
    struct rpc_request r = request_of("/test.Service/Sum", RPC_CODEC_PROTO);
    AUTO_CONN struct http_conn *c = dial();
    struct rpc_stream s;
    struct sample got;
    struct err e = {0};
    (void)state;
    begin(&s, c, &r);
    send_one(&s, &(struct sample){.int32 = 7, .text = SLICE_LIT("enough")});
    wait_for_answer(c);
    assert_int_equal(rpc_stream_send(&s, &(struct sample){.int32 = 1}, &e), 0);
    assert_int_equal(rpc_stream_finish(&s, &arena, &got, &e), 0);
    assert_int_equal(got.int32, 7);
    rpc_stream_done(&s);
}

static void bad_messages_are_not_sent(void **state)
{
    struct rpc_request r = request_of("/test.Service/Sum", RPC_CODEC_JSON);
    AUTO_CONN struct http_conn *c = dial();
    struct rpc_stream s;
    struct sample got;
    struct err e = {0};
    (void)state;
    begin(&s, c, &r);
    assert_int_equal(rpc_stream_send(&s, &(struct sample){.text = SLICE_LIT("\xff")}, &e), -1);
    assert_int_equal(e.kind, ERR_INVALID);
    assert_int_equal(rpc_stream_finish(&s, &arena, &got, &e), 0);
    assert_int_equal(got.uint32, 0);
    rpc_stream_done(&s);
}

/* --- raw requests --- */

/* Sends `body` as a whole client stream and appends the answer's body. */
static void ask(struct slice body, struct buf *answer)
{
    AUTO_CONN struct http_conn *c = dial();
    struct http_header type = {SLICE_LIT("Content-Type"), SLICE_LIT("application/connect+json")};
    struct http_call call = {.method = "POST",
        .target = "/test.Service/Sum",
        .host = "localhost",
        .headers = &type,
        .n_headers = 1,
        .body = body,
        .body_length = HTTP_BODY_IS_SLICE};
    const struct http_response_head *head = NULL;
    int64_t deadline = deadline_in_ms(PATIENCE_MS);
    struct err e = {0};
    if (http_send(c, &call, deadline, &e) < 0 || http_recv_head(c, &head, deadline, &e) < 0)
        fail_msg("%s", e.msg);
    assert_int_equal(head->status, 200);
    if (http_recv_body_all(c, answer, deadline, &e) < 0)
        fail_msg("%s", e.msg);
}

static void raw_streams_are_judged(void **state)
{
#define EMPTY "\0\0\0\0\2{}"
#define OK_END "\2\0\0\0\2{}"
    static const struct {
        struct slice body;
        struct slice answer; /* its start */
    } cases[] = {
        {SLICE_LIT(""), SLICE_LIT("\0\0\0\0\2{}" OK_END)},
        {SLICE_LIT(EMPTY EMPTY), SLICE_LIT("\0\0\0\0\x0c{\"uint32\":2}" OK_END)},
        {SLICE_LIT(EMPTY "\0\0\0"), SLICE_LIT("\2\0\0\0\0{\"error\":{\"code\":\"invalid_arg")},
        {SLICE_LIT(EMPTY "\0\0\0\0\3{}"), SLICE_LIT("\2\0\0\0\0{\"error\":{\"code\":\"inva")},
        {SLICE_LIT(EMPTY "\2\0\0\0\2{}"), SLICE_LIT("\2\0\0\0\0{\"error\":{\"code\":\"inva")},
        {SLICE_LIT("\1\0\0\0\2{}"), SLICE_LIT("\2\0\0\0\0{\"error\":{\"code\":\"internal\"")},
        {SLICE_LIT(EMPTY "\0\0\1\0\1{}"), SLICE_LIT("\2\0\0\0\0{\"error\":{\"code\":\"resou")},
        {SLICE_LIT("\0\xff\xff\xff\xff"), SLICE_LIT("\2\0\0\0\0{\"error\":{\"code\":\"resou")},
        {SLICE_LIT(EMPTY "\0\0\0\0\2[]"), SLICE_LIT("\2\0\0\0\0{\"error\":{\"code\":\"inval")},
    };
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        AUTO_BUF struct buf got = BUF_INIT(ANSWER_BYTES_MAX);
        size_t n = cases[i].answer.n;
        ask(cases[i].body, &got);
        /* Past the length of an error's envelope, which follows from its text. */
        if (got.len < n || got.p[0] != cases[i].answer.p[0] ||
            memcmp(got.p + 5, cases[i].answer.p + 5, n - 5) != 0)
            fail_msg("case %zu: %.*s", i, (int)got.len - 5, got.p + 5);
    }
}

#define STREAM_HEAD                                                                                \
    "POST /test.Service/Sum HTTP/1.1\r\nHost: x\r\nContent-Type: application/connect+json\r\n"
#define CHUNKED STREAM_HEAD "Transfer-Encoding: chunked\r\n\r\n"

static void send_raw(int fd, struct slice bytes)
{
    struct err e = {0};
    if (io_write_full(fd, bytes.p, bytes.n, deadline_in_ms(PATIENCE_MS), &e) < 0)
        fail_msg("%s", e.msg);
}

static void a_client_that_leaves_cancels_its_stream(void **state)
{
    static const struct slice parts[] = {
        SLICE_LIT(CHUNKED),                                    /* before the first message */
        SLICE_LIT(CHUNKED "7\r\n\0\0\0\0\2{}\r\n"),            /* between two */
        SLICE_LIT(CHUNKED "7\r\n\0\0\0\0\x09{}\r\n"),          /* inside a message */
        SLICE_LIT(CHUNKED "2\r\n\0\0\r\n"),                    /* inside an envelope's head */
        SLICE_LIT(STREAM_HEAD "Content-Length: 50\r\n\r\n\0"), /* before a declared length */
    };
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(parts); i++) {
        AUTO_CLOSE int fd = dial_raw();
        seen.ended = 0;
        send_raw(fd, parts[i]);
        (void)close(TAKE_FD(fd));
        expect_end(ERR_CANCELED);
        assert_int_equal(seen.messages, i == 1);
    }
}

/* --- deadlines and cancellation --- */

static void the_deadline_ends_a_silent_client_stream(void **state)
{
    struct rpc_request r = request_of("/test.Service/Sum", RPC_CODEC_PROTO);
    AUTO_CONN struct http_conn *c = dial();
    struct rpc_stream s;
    struct sample got;
    struct err e = {0};
    (void)state;
    r.timeout_ms = SHORT_MS;
    begin(&s, c, &r);
    send_one(&s, &(struct sample){0});
    wait_for_answer(c);
    assert_int_equal(rpc_stream_finish(&s, &arena, &got, &e), -1);
    assert_int_equal(e.kind, ERR_TIMEOUT);
    expect_end(ERR_TIMEOUT);
    rpc_stream_done(&s);
}

static void the_deadline_ends_a_busy_client_stream(void **state)
{
    struct rpc_request r = request_of("/test.Service/Sum", RPC_CODEC_PROTO);
    AUTO_CONN struct http_conn *c = dial();
    struct rpc_stream s;
    struct sample got;
    struct err e = {0};
    int rc;
    (void)state;
    r.timeout_ms = SHORT_MS;
    begin(&s, c, &r);
    do
        rc = rpc_stream_send(&s, &(struct sample){0}, &e);
    while (rc == 1);
    assert_int_equal(rc, 0);
    assert_int_equal(rpc_stream_finish(&s, &arena, &got, &e), -1);
    assert_int_equal(e.kind, ERR_TIMEOUT);
    expect_end(ERR_TIMEOUT);
    rpc_stream_done(&s);
}

static void the_deadline_ends_an_unread_server_stream(void **state)
{
    struct rpc_request r = request_of("/test.Service/Pump", RPC_CODEC_PROTO);
    AUTO_CONN struct http_conn *c = dial();
    struct rpc_stream s;
    struct err e = {0};
    (void)state;
    r.timeout_ms = SHORT_MS;
    assert_int_equal(rpc_stream_open(&s, c, &r, &e), 0);
    expect_end(ERR_TIMEOUT);
    rpc_stream_done(&s);
}

static void the_deadline_ends_a_server_stream_that_is_read(void **state)
{
    struct rpc_request r = request_of("/test.Service/Pump", RPC_CODEC_PROTO);
    AUTO_CONN struct http_conn *c = dial();
    struct rpc_stream s;
    struct err e = {0};
    int rc;
    (void)state;
    r.timeout_ms = SHORT_MS;
    assert_int_equal(rpc_stream_open(&s, c, &r, &e), 0);
    do {
        struct sample got;
        rc = rpc_stream_next(&s, &arena, &got, &e);
        arena_done(&arena);
    } while (rc == 1);
    assert_int_equal(rc, -1);
    /* Where the deadline passes while a message waits to be read, the stream is cut. */
    assert_true(e.kind == ERR_TIMEOUT || e.kind == ERR_PROTOCOL);
    expect_end(ERR_TIMEOUT);
    rpc_stream_done(&s);
}

static void the_deadline_ends_a_request_that_does_not_come(void **state)
{
    AUTO_CLOSE int fd = dial_raw();
    char text[1024] = "";
    struct err e = {0};
    (void)state;
    send_raw(fd, SLICE_LIT("POST /test.Service/Nap HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n"
                           "Content-Type: application/json\r\nConnect-Timeout-Ms: 250\r\n\r\n{"));
    assert_true(io_read(fd, text, sizeof text - 1, deadline_in_ms(PATIENCE_MS), &e) > 0);
    assert_ptr_equal(strstr(text, "HTTP/1.1 504 "), text);
    assert_non_null(strstr(text, "{\"code\":\"deadline_exceeded\""));
}

static void the_deadline_ends_a_wait(void **state)
{
    struct rpc_request r = request_of("/test.Service/Nap", RPC_CODEC_JSON);
    AUTO_CONN struct http_conn *c = dial();
    struct sample msg = {.int32 = PATIENCE_MS};
    struct sample got;
    struct err e = {0};
    (void)state;
    r.msg = &msg;
    r.timeout_ms = SHORT_MS;
    assert_int_equal(rpc_call_unary(c, &r, &arena, &got, &e), -1);
    assert_int_equal(e.kind, ERR_TIMEOUT);
    assert_true(http_conn_reusable(c));
    msg.int32 = 1;
    r.timeout_ms = PATIENCE_MS;
    assert_int_equal(rpc_call_unary(c, &r, &arena, &got, &e), 0);
    assert_int_equal(got.int32, 0);
}

static void a_client_that_leaves_ends_a_wait(void **state)
{
    struct rpc_request r = request_of("/test.Service/Linger", RPC_CODEC_PROTO);
    struct http_conn *c = dial();
    struct rpc_stream s;
    struct sample got;
    struct err e = {0};
    (void)state;
    assert_int_equal(rpc_stream_open(&s, c, &r, &e), 0);
    assert_int_equal(rpc_stream_next(&s, &arena, &got, &e), 1);
    http_conn_free(c);
    rpc_stream_done(&s);
    expect_end(ERR_CANCELED);
}

static void a_client_that_leaves_ends_a_server_stream(void **state)
{
    struct rpc_request r = request_of("/test.Service/Pump", RPC_CODEC_PROTO);
    struct http_conn *c = dial();
    struct rpc_stream s;
    struct sample got;
    struct err e = {0};
    (void)state;
    assert_int_equal(rpc_stream_open(&s, c, &r, &e), 0);
    assert_int_equal(rpc_stream_next(&s, &arena, &got, &e), 1);
    http_conn_free(c);
    rpc_stream_done(&s);
    expect_end(ERR_CANCELED);
}

static void a_server_that_stops_ends_a_wait(void **state)
{
    struct rpc_request r = request_of("/test.Service/Linger", RPC_CODEC_PROTO);
    AUTO_CONN struct http_conn *c = dial();
    struct rpc_stream s;
    struct sample got;
    struct err e = {0};
    (void)state;
    assert_int_equal(rpc_stream_open(&s, c, &r, &e), 0);
    assert_int_equal(rpc_stream_next(&s, &arena, &got, &e), 1);
    http_server_stop(server);
    server = NULL;
    expect_end(ERR_CANCELED);
    assert_int_equal(rpc_stream_next(&s, &arena, &got, &e), -1);
    rpc_stream_done(&s);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, start, stop)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(any_number_of_messages_is_summed_up),
        TEST(long_streams_need_the_memory_of_one_message),
        TEST(a_slow_handler_holds_the_client_back),
        TEST(the_server_may_refuse_before_the_end),
        TEST(the_server_may_have_enough_before_the_end),
        TEST(bad_messages_are_not_sent),
        TEST(raw_streams_are_judged),
        TEST(a_client_that_leaves_cancels_its_stream),
        TEST(the_deadline_ends_a_silent_client_stream),
        TEST(the_deadline_ends_a_busy_client_stream),
        TEST(the_deadline_ends_an_unread_server_stream),
        TEST(the_deadline_ends_a_server_stream_that_is_read),
        TEST(the_deadline_ends_a_request_that_does_not_come),
        TEST(the_deadline_ends_a_wait),
        TEST(a_client_that_leaves_ends_a_wait),
        TEST(a_client_that_leaves_ends_a_server_stream),
        TEST(a_server_that_stops_ends_a_wait),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
