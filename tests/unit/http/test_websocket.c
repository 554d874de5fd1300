/* SPDX-License-Identifier: Apache-2.0 */
/* WebSocket connections over loopback: our server against raw bytes and against our client. */
#include "peer.h"

#include <poll.h>
#include <pthread.h>

#include "base/sock.h"
#include "http/client.h"
#include "http/server.h"
#include "http/status.h"
#include "http/websocket.h"
#include "http/ws_int.h"

enum { MESSAGE_MAX = 1 << 20 };

#define KEY "dGhlIHNhbXBsZSBub25jZQ=="
#define HANDSHAKE                                                                                  \
    "GET /ws HTTP/1.1\r\nHost: x\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n"     \
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: " KEY "\r\n"

static struct http_server *server;
static uint16_t port;
static _Atomic int last_error; /* what ended the last handler's receiving */
static _Atomic unsigned last_code;

static int64_t soon(void)
{
    return deadline_in_ms(PEER_PATIENCE_MS);
}

static bool origin_allowed(struct slice origin, const struct http_exchange *x, void *ctx)
{
    return !origin.p || slice_is(origin, "https://good.example");
}

/* Echoes messages. "close" makes the server close with 4001. */
static void handle(struct http_exchange *x, void *ctx)
{
    struct ws_accept_options o = {
        .message_max = MESSAGE_MAX, .protocol = "echo", .origin_allowed = origin_allowed};
    struct err e = {0};
    struct ws_message m;
    struct ws *w = ws_accept(x, &o, &e);
    if (!w) {
        (void)http_reply(x, http_status_from_kind(e.kind), NULL, slice_cstr(e.where));
        return;
    }
    while (ws_recv(w, &m, soon(), &e) == 0 && m.type != WS_CLOSED) {
        if (slice_is(m.data, "close"))
            (void)ws_close(w, 4001, "paused", soon(), &e);
        else if (ws_send(w, m.type, m.data, soon(), &e) < 0)
            break;
    }
    last_code = m.type == WS_CLOSED ? m.code : 0;
    last_error = (int)e.kind;
    ws_free(w);
}

static int start(void **state)
{
    struct err e = {0};
    struct http_server_config config = {.handler = handle};
    config.listen_fd = sock_listen_tcp("127.0.0.1", 0, &e);
    port = sock_local_port(config.listen_fd);
    last_error = -1;
    last_code = 0;
    server = http_server_start(&config, &e);
    return server ? 0 : -1;
}

static int stop(void **state)
{
    http_server_stop(server);
    server = NULL;
    return 0;
}

static int dial(void)
{
    struct err e = {0};
    int fd = sock_connect_tcp("127.0.0.1", port, soon(), &e);
    assert_true(fd >= 0);
    return fd;
}

static int dial_ws(void)
{
    int fd = dial();
    peer_send(fd, HANDSHAKE "\r\n");
    peer_expect(fd, "\r\n\r\n", "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    return fd;
}

static struct ws *connect_ws(size_t message_max)
{
    struct err e = {0};
    struct http_conn *c = http_conn_new(dial(), &e);
    struct ws_connect_options o = {
        .target = "/ws", .host = "x", .protocol = "echo", .message_max = message_max};
    struct ws *w = ws_connect(c, &o, soon(), &e);
    if (!w)
        fail_msg("%s", e.msg);
    return w;
}

/* A frame with the mask 0, whose payload is therefore as it is. */
static void send_raw(int fd, unsigned char first, const char *payload, size_t n)
{
    unsigned char head[6] = {first, (unsigned char)(0x80 | n)};
    struct err e = {0};
    assert_true(n < 126);
    assert_int_equal(io_write_full(fd, head, sizeof head, soon(), &e), 0);
    assert_int_equal(io_write_full(fd, payload, n, soon(), &e), 0);
}

static void expect_raw(int fd, const char *bytes, size_t n)
{
    char got[256];
    struct err e = {0};
    assert_true(n <= sizeof got);
    assert_int_equal(io_read_full(fd, got, n, soon(), &e), 0);
    assert_memory_equal(got, bytes, n);
}

/* The server closes with that code, whatever the reason says, then the connection. */
static void expect_close(int fd, unsigned code)
{
    unsigned char head[4];
    char reason[WS_CONTROL_MAX];
    struct err e = {0};
    assert_int_equal(io_read_full(fd, head, sizeof head, soon(), &e), 0);
    assert_int_equal(head[0], 0x88);
    assert_true(head[1] >= 2 && head[1] <= WS_CONTROL_MAX);
    assert_int_equal(head[2] << 8 | head[3], code);
    if (head[1] > 2)
        assert_int_equal(io_read_full(fd, reason, head[1] - 2u, soon(), &e), 0);
    peer_expect_end(fd);
}

static void test_handshake_refused(void **state)
{
    static const struct {
        const char *request;
        const char *answer;
        const char *where;
    } rows[] = {
        {"GET / HTTP/1.1\r\nHost: x\r\n\r\n", "400", "Upgrade"},
        {"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
         "Sec-WebSocket-Version: 12\r\nSec-WebSocket-Key: " KEY "\r\n\r\n",
            "400", "Sec-WebSocket-Version"},
        {"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
         "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: short\r\n\r\n",
            "400", "Sec-WebSocket-Key"},
        {"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
         "Sec-WebSocket-Key: " KEY "\r\n\r\n",
            "400", "Upgrade"},
        {"POST / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
         "Content-Length: 0\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: " KEY "\r\n\r\n",
            "400", "method"},
        {"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
         "Content-Length: 2\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: " KEY "\r\n\r\nab",
            "400", "Upgrade"},
        {HANDSHAKE "Origin: https://evil.example\r\n\r\n", "403", ""},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        AUTO_CLOSE int fd = dial();
        peer_send(fd, rows[i].request);
        AUTO_FREE char *head = peer_recv(fd, "\r\n\r\n");
        if (strncmp(head + 9, rows[i].answer, 3) != 0)
            fail_msg("row %zu: %s", i, head);
        if (rows[i].where[0])
            peer_expect(fd, rows[i].where, rows[i].where);
    }
}

static void test_handshake_options(void **state)
{
    AUTO_CLOSE int fd = dial();
    peer_send(fd, HANDSHAKE "Origin: https://good.example\r\n"
                            "Sec-WebSocket-Extensions: permessage-deflate\r\n"
                            "Sec-WebSocket-Protocol: other, echo\r\n\r\n");
    AUTO_FREE char *head = peer_recv(fd, "\r\n\r\n");
    assert_non_null(strstr(head, "HTTP/1.1 101 "));
    assert_non_null(strstr(head, "Sec-WebSocket-Protocol: echo\r\n"));
    assert_null(strstr(head, "Extensions"));
}

static void test_early_bytes(void **state)
{
    /* the first frame comes in one packet with the handshake */
    static const char all[] = HANDSHAKE "\r\n\x81\x82\0\0\0\0hi";
    AUTO_CLOSE int fd = dial();
    struct err e = {0};
    assert_int_equal(io_write_full(fd, all, sizeof all - 1, soon(), &e), 0);
    peer_expect(fd, "\r\n\r\n", "101");
    expect_raw(fd, "\x81\x02hi", 4);
}

static void test_fragments(void **state)
{
    AUTO_CLOSE int fd = dial_ws();
    send_raw(fd, 0x01, "a\xe2", 2);
    send_raw(fd, 0x89, "ping", 4);
    expect_raw(fd, "\x8a\x04ping", 6); /* answered between the fragments */
    send_raw(fd, 0x00, "\x82", 1);
    send_raw(fd, 0x80, "\xac", 1);
    expect_raw(fd,
        "\x81\x04"
        "a\xe2\x82\xac",
        6);
    send_raw(fd, 0x02, "", 0);
    send_raw(fd, 0x80, "", 0);
    expect_raw(fd, "\x82\x00", 2);
}

static void test_violations(void **state)
{
    static const struct {
        unsigned char first;
        const char *payload;
        unsigned code;
    } rows[] = {
        {0x80, "x", 1002},        /* continuation of nothing */
        {0xc1, "x", 1002},        /* reserved bit */
        {0x83, "x", 1002},        /* opcode */
        {0x09, "x", 1002},        /* fragmented ping */
        {0x81, "\xff", 1007},     /* not UTF-8 */
        {0x81, "\xe2\x82", 1007}, /* cut */
        {0x88, "\x03", 1002},     /* half a code */
        {0x88, "\x03\xed", 1002}, /* 1005 */
        {0x88, "\x0f\xa1\xff", 1007},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        AUTO_CLOSE int fd = dial_ws();
        send_raw(fd, rows[i].first, rows[i].payload, strlen(rows[i].payload));
        expect_close(fd, rows[i].code);
    }
    AUTO_CLOSE int fd = dial_ws();
    peer_send(fd, "\x81\x02hi"); /* not masked */
    expect_close(fd, 1002);
}

static void test_too_long(void **state)
{
    AUTO_CLOSE int fd = dial_ws();
    struct err e = {0};
    /* announces 2^40 bytes: refused by the header, nothing is allocated */
    assert_int_equal(io_write_full(fd, "\x82\xff\0\0\x01\0\0\0\0\0\0\0\0\0", 14, soon(), &e), 0);
    expect_close(fd, 1009);
}

static void test_peer_closes(void **state)
{
    AUTO_CLOSE int fd = dial_ws();
    send_raw(fd, 0x88,
        "\x03\xe8"
        "bye",
        5);
    expect_raw(fd, "\x88\x02\x03\xe8", 4);
    peer_expect_end(fd);
    AUTO_CLOSE int empty = dial_ws();
    send_raw(empty, 0x88, "", 0);
    expect_raw(empty, "\x88\x00", 2);
    peer_expect_end(empty);
}

static void test_server_closes(void **state)
{
    AUTO_CLOSE int fd = dial_ws();
    send_raw(fd, 0x81, "close", 5);
    expect_raw(fd, "\x88\x08\x0f\xa1paused", 10);
    send_raw(fd, 0x81, "late", 4);
    send_raw(fd, 0x88, "\x0f\xa1", 2);
    peer_expect_end(fd);
}

static void test_echo_sizes(void **state)
{
    static const size_t sizes[] = {0, 1, 125, 126, 4095, 65535, 65536, 500000, MESSAGE_MAX};
    struct ws *w = connect_ws(MESSAGE_MAX);
    AUTO_FREE char *data = malloc(MESSAGE_MAX);
    struct err e = {0};
    for (size_t i = 0; i < MESSAGE_MAX; i++)
        data[i] = (char)(i * 7 + i / 251);
    for (size_t i = 0; i < ARRAY_LEN(sizes); i++) {
        struct ws_message m;
        assert_int_equal(ws_send(w, WS_BINARY, slice_of(data, sizes[i]), soon(), &e), 0);
        if (ws_recv(w, &m, soon(), &e) < 0)
            fail_msg("%zu: %s", sizes[i], e.msg);
        assert_int_equal(m.type, WS_BINARY);
        assert_true(slice_eq(m.data, slice_of(data, sizes[i])));
    }
    assert_int_equal(ws_ping(w, SLICE_LIT("x"), soon(), &e), 0);
    assert_int_equal(ws_send(w, WS_TEXT, SLICE_LIT("t"), soon(), &e), 0);
    struct ws_message m;
    assert_int_equal(ws_recv(w, &m, soon(), &e), 0);
    assert_int_equal(m.type, WS_TEXT);
    assert_int_equal(ws_pongs(w), 1);
    assert_int_equal(ws_send(w, WS_TEXT, SLICE_LIT("\xff"), soon(), &e), -1);
    assert_int_equal(e.kind, ERR_INVALID);
    assert_int_equal(ws_send(w, WS_TEXT, SLICE_LIT("close"), soon(), &e), 0);
    assert_int_equal(ws_recv(w, &m, soon(), &e), 0);
    assert_int_equal(m.type, WS_CLOSED);
    assert_int_equal(m.code, 4001);
    assert_true(slice_is(m.data, "paused"));
    assert_int_equal(ws_send(w, WS_TEXT, SLICE_LIT("x"), soon(), &e), -1);
    assert_int_equal(e.kind, ERR_CANCELED);
    assert_int_equal(ws_recv(w, &m, soon(), &e), -1);
    ws_free(w);
}

/* A receive that ran into its deadline goes on where it was, in the middle of everything. */
static void test_timeout_resumes(void **state)
{
    static const char bytes[] = "\x01\x03"
                                "a\xe2\x82"
                                "\x8a\x01p"
                                "\x80\x01\xac";
    struct err e = {0};
    struct ws_message m = {0};
    int sv[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv), 0);
    struct ws_open open = {.fd = sv[0], .owns_fd = true, .is_client = true, .message_max = 100};
    struct ws *w = ws_new(&open, &e);
    assert_non_null(w);
    for (size_t i = 0; i < sizeof bytes - 1; i++) {
        assert_int_equal(ws_recv(w, &m, deadline_in_ms(0), &e), -1);
        assert_int_equal(e.kind, ERR_TIMEOUT);
        assert_int_equal(write(sv[1], bytes + i, 1), 1);
    }
    assert_int_equal(ws_recv(w, &m, soon(), &e), 0);
    assert_int_equal(m.type, WS_TEXT);
    assert_true(slice_is(m.data, "a\xe2\x82\xac"));
    assert_int_equal(ws_pongs(w), 1);
    ws_free(w);
    (void)close(sv[1]);
}

/* A sender whose peer takes nothing: the receiver still answers nothing late and waits for nothing;
 * the pong goes out behind the frame. */
static void *send_big(void *arg)
{
    AUTO_FREE char *data = calloc(1, 4 << 20);
    struct err e = {0};
    return ws_send(arg, WS_BINARY, slice_of(data, 4 << 20), soon(), &e) < 0 ? arg : NULL;
}

static void test_pong_behind_frame(void **state)
{
    static char sink[4 << 20];
    struct err e = {0};
    struct ws_message m = {0};
    pthread_t sender;
    void *failed;
    int sv[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv), 0);
    struct ws_open open = {.fd = sv[0], .owns_fd = true, .message_max = 100};
    struct ws *w = ws_new(&open, &e);
    assert_int_equal(pthread_create(&sender, NULL, send_big, w), 0);
    expect_raw(sv[1], "\x82\x7f\0\0\0\0\0\x40\0\0", 10); /* it is in the middle of its frame */
    send_raw(sv[1], 0x89, "one", 3);
    send_raw(sv[1], 0x89, "two", 3);
    send_raw(sv[1], 0x81, "text", 4);
    assert_int_equal(ws_recv(w, &m, soon(), &e), 0);
    assert_true(slice_is(m.data, "text"));
    assert_int_equal(io_read_full(sv[1], sink, sizeof sink, soon(), &e), 0);
    expect_raw(sv[1], "\x8a\x03two", 5); /* only the last ping is answered */
    assert_int_equal(pthread_join(sender, &failed), 0);
    assert_null(failed);
    ws_free(w);
    (void)close(sv[1]);
}

/* A frame that did not go out whole: nothing can follow it. */
static void test_send_timeout(void **state)
{
    AUTO_FREE char *data = calloc(1, 4 << 20);
    struct err e = {0};
    int sv[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv), 0);
    struct ws_open open = {.fd = sv[0], .owns_fd = true, .is_client = true, .message_max = 100};
    struct ws *w = ws_new(&open, &e);
    assert_int_equal(ws_send(w, WS_BINARY, slice_of(data, 4 << 20), deadline_in_ms(20), &e), -1);
    assert_int_equal(e.kind, ERR_TIMEOUT);
    assert_int_equal(ws_send(w, WS_TEXT, SLICE_LIT("x"), soon(), &e), -1);
    assert_int_equal(e.kind, ERR_CANCELED);
    ws_free(w);
    (void)close(sv[1]);
}

/* A server whose handshake is wrong. */
static void test_wrong_accept(void **state)
{
    struct err e = {0};
    int sv[2];
    struct ws_connect_options o = {.target = "/", .host = "x"};
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv), 0);
    peer_send(sv[1], "HTTP/1.1 101 x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
                     "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n");
    assert_null(ws_connect(http_conn_new(sv[0], &e), &o, soon(), &e));
    assert_int_equal(e.kind, ERR_PROTOCOL);
    AUTO_FREE char *request = peer_recv(sv[1], "\r\n\r\n");
    assert_non_null(strstr(request, "Sec-WebSocket-Version: 13\r\n"));
    assert_non_null(strstr(request, "Upgrade: websocket\r\n"));
    (void)close(sv[1]);
}

static void test_refusal_status(void **state)
{
    struct err e = {0};
    int status = 0;
    const struct http_header origin = {SLICE_LIT("Origin"), SLICE_LIT("https://evil.example")};
    struct ws_connect_options o = {
        .target = "/ws", .host = "x", .headers = &origin, .n_headers = 1, .ret_status = &status};
    assert_null(ws_connect(http_conn_new(dial(), &e), &o, soon(), &e));
    assert_int_equal(e.kind, ERR_UNAVAILABLE);
    assert_int_equal(status, 403);
}

static void *send_many(void *arg)
{
    struct ws *w = arg;
    struct err e = {0};
    char text[2000];
    memset(text, 'x', sizeof text);
    for (int i = 0; i < 2000; i++)
        if (ws_send(w, WS_TEXT, slice_of(text, sizeof text), soon(), &e) < 0)
            return (void *)1;
    return NULL;
}

/* One thread sends what the other one receives; pings come in between; nobody waits for ever. */
static void test_two_threads(void **state)
{
    struct ws *w = connect_ws(0);
    struct err e = {0};
    struct ws_message m;
    pthread_t sender;
    void *failed;
    assert_int_equal(pthread_create(&sender, NULL, send_many, w), 0);
    for (int i = 0; i < 2000; i++) {
        if (ws_recv(w, &m, soon(), &e) < 0)
            fail_msg("message %d: %s", i, e.msg);
        assert_int_equal(m.data.n, 2000);
    }
    assert_int_equal(pthread_join(sender, &failed), 0);
    assert_null(failed);
    ws_finish(w, WS_CODE_NORMAL, "done", soon());
    ws_free(w);
}

/* A stopping server wakes the handler, and the peer sees the end. */
static void test_server_stops(void **state)
{
    AUTO_CLOSE int fd = dial_ws();
    send_raw(fd, 0x81, "x", 1);
    expect_raw(fd, "\x81\x01x", 3);
    http_server_stop(server);
    server = NULL;
    peer_expect_end(fd);
    assert_int_equal(last_error, ERR_CANCELED);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, start, stop)
    const struct CMUnitTest tests[] = {
        T(test_handshake_refused),
        T(test_handshake_options),
        T(test_early_bytes),
        T(test_fragments),
        T(test_violations),
        T(test_too_long),
        T(test_peer_closes),
        T(test_server_closes),
        T(test_echo_sizes),
        T(test_timeout_resumes),
        T(test_pong_behind_frame),
        T(test_send_timeout),
        T(test_wrong_accept),
        T(test_refusal_status),
        T(test_two_threads),
        T(test_server_stops),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
