/* SPDX-License-Identifier: Apache-2.0 */
/* Classes of work, and connections that leave HTTP. */
#include "fixture.h"

#include <poll.h>

#include "base/sock.h"
#include "http/client.h"
#include "http/tunnel.h"

static struct tunnel_pump *pump;

static int classify(const struct http_request_head *h, void *ctx)
{
    if (slice_is(h->path, "/hello"))
        return HTTP_CLASS_RESERVED;
    return slice_is(h->path, "/block") ? 1 : 0;
}

static const struct http_class classes[] = {{"requests", 0}, {"streams", 2}};

static void start_classes(struct http_server_config config)
{
    config.classify = classify;
    config.classes = classes;
    config.n_classes = ARRAY_LEN(classes);
    start(config);
}

static void test_class_bound(void **state)
{
    start_classes((struct http_server_config){.retry_after_sec = 7});
    AUTO_CLOSE int a = dial();
    AUTO_CLOSE int b = dial();
    AUTO_CLOSE int c = dial();
    peer_send(a, "GET /block" HOST "\r\n");
    peer_send(b, "GET /block" HOST "\r\n");
    wait_for(&fx.blocked, 2);
    assert_int_equal(http_server_class_busy(fx.server, 1), 2);
    peer_send(c, "GET /block" HOST "\r\n");
    AUTO_FREE char *refused = peer_recv(c, "\r\n\r\n");
    assert_non_null(strstr(refused, "HTTP/1.1 503 "));
    assert_non_null(strstr(refused, "Retry-After: 7\r\n"));
    assert_null(strstr(refused, "Connection: close"));
    /* the same connection goes on, with another class */
    peer_send(c, "POST /echo" HOST "Content-Length: 2\r\n\r\nok");
    peer_expect(c, "\r\n\r\nok", "200");
    release();
    peer_expect(a, "late", "200");
    peer_expect(b, "late", "200");
    peer_send(c, "GET /block" HOST "\r\n");
    peer_expect(c, "late", "200");
}

static void test_reserved_worker(void **state)
{
    start_classes((struct http_server_config){.threads_max = 3});
    AUTO_CLOSE int a = dial();
    AUTO_CLOSE int b = dial();
    AUTO_CLOSE int c = dial();
    peer_send(a, "GET /block" HOST "\r\n");
    peer_send(b, "GET /block" HOST "\r\n");
    wait_for(&fx.blocked, 2);
    /* two of three workers are taken: other work is refused, a health check is answered */
    peer_send(c, "POST /echo" HOST "Content-Length: 2\r\n\r\nno");
    peer_expect(c, "\r\n\r\n", "503");
    peer_send(c, "GET /hello" HOST "\r\n");
    peer_expect(c, "hello", "200");
}

static void test_reserved_connection(void **state)
{
    start_classes((struct http_server_config){.connections_max = 1});
    AUTO_CLOSE int a = dial();
    peer_send(a, "POST /echo" HOST "Content-Length: 2\r\n\r\nok");
    peer_expect(a, "\r\n\r\nok", "200");
    AUTO_CLOSE int b = dial();
    peer_send(b, "GET /hello" HOST "\r\n");
    peer_expect(b, NULL, "Connection: close\r\n\r\nhello");
    AUTO_CLOSE int c = dial();
    peer_send(c, "POST /echo" HOST "Content-Length: 2\r\n\r\nno");
    peer_expect(c, NULL, "HTTP/1.1 503 ");
    peer_send(a, "GET /hello" HOST "\r\n");
    peer_expect(a, "hello", "200");
}

/* --- upgrades --- */

/* Hands the client to the pump, whose other end is a socket pair in fx's place. */
static int far_end = -1;

static void handle_upgrade(struct http_exchange *x, void *ctx)
{
    struct err e = {0};
    int sv[2];
    assert_true(http_wants_upgrade(x, "raw"));
    assert_false(http_wants_upgrade(x, "websocket"));
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv), 0);
    http_reply_header(x, "X-Mine", "1");
    if (http_reply_upgrade(x, "raw", &e) < 0) {
        (void)close(sv[0]);
        (void)close(sv[1]);
        (void)http_reply(x, 400, NULL, slice_cstr(e.where));
        note(&fx.errors);
        return;
    }
    far_end = sv[1];
    struct tunnel_spec spec = {.a = http_take_fd(x), .b = sv[0], .a_early = http_early_bytes(x)};
    assert_int_equal(http_fd(x), -1);
    assert_int_equal(tunnel_add(pump, &spec, &e), 0);
    note(&fx.gone);
}

static void start_upgrades(void)
{
    struct http_server_config config = {.handler = handle_upgrade};
    struct tunnel_pump_config pump_config = {0};
    struct err e = {0};
    fixture_reset();
    config.listen_fd = sock_listen_tcp("127.0.0.1", 0, &e);
    fx.port = sock_local_port(config.listen_fd);
    fx.server = http_server_start(&config, &e);
    pump = tunnel_pump_start(&pump_config, &e);
    assert_true(fx.server && pump);
}

static void stop_upgrades(void)
{
    stop();
    tunnel_pump_stop(pump);
    pump = NULL;
    if (far_end >= 0)
        (void)close(far_end);
    far_end = -1;
}

static void test_taken_by_pump(void **state)
{
    start_upgrades();
    AUTO_CLOSE int fd = dial();
    peer_send(fd, "GET /" HOST "Connection: Upgrade\r\nUpgrade: raw\r\n\r\nearly ");
    AUTO_FREE char *head = peer_recv(fd, "\r\n\r\n");
    assert_string_equal(head, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n"
                              "Upgrade: raw\r\nX-Mine: 1\r\n\r\n");
    wait_for(&fx.gone, 1);
    peer_send(fd, "bytes.");
    peer_expect(far_end, ".", "early bytes.");
    /* the tunnel outlives the server, but not the pump */
    stop();
    peer_send(far_end, "still.");
    peer_expect(fd, ".", "still.");
    tunnel_pump_stop(pump);
    pump = NULL;
    peer_expect_end(fd);
    (void)close(far_end);
    far_end = -1;
}

static void test_upgrade_with_body(void **state)
{
    start_upgrades();
    AUTO_CLOSE int fd = dial();
    peer_send(
        fd, "POST /" HOST "Connection: Upgrade\r\nUpgrade: raw\r\nContent-Length: 1\r\n\r\nx");
    peer_expect(fd, "Upgrade", "400");
    stop_upgrades();
}

static void test_client_upgrade(void **state)
{
    struct err e = {0};
    struct http_call call = {.method = "GET",
        .target = "/",
        .host = "x",
        .body_length = HTTP_BODY_IS_SLICE,
        .upgrade = "raw"};
    const struct http_response_head *head;
    AUTO_BUF struct buf early = BUF_INIT(1 << 16);
    int64_t deadline = deadline_in_ms(PEER_PATIENCE_MS);
    start_upgrades();
    struct http_conn *c = http_conn_new(dial(), &e);
    assert_int_equal(http_send(c, &call, deadline, &e), 0);
    assert_int_equal(http_recv_head(c, &head, deadline, &e), 0);
    assert_int_equal(head->status, 101);
    assert_false(http_conn_reusable(c));
    AUTO_CLOSE int fd = http_conn_take(c, &early, &e);
    assert_true(fd >= 0);
    assert_int_equal(early.len, 0);
    peer_send(fd, "hi.");
    wait_for(&fx.gone, 1);
    peer_expect(far_end, ".", "hi.");
    stop_upgrades();
}

/* 101 without having been asked is a protocol error; with a body the call is refused. */
static void test_client_upgrade_refused(void **state)
{
    struct err e = {0};
    int64_t deadline = deadline_in_ms(PEER_PATIENCE_MS);
    const struct http_response_head *head;
    int sv[2];
    struct http_call call = {.method = "POST",
        .target = "/",
        .host = "x",
        .body = SLICE_LIT("b"),
        .body_length = 1,
        .upgrade = "raw"};
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv), 0);
    struct http_conn *c = http_conn_new(sv[0], &e);
    assert_int_equal(http_send(c, &call, deadline, &e), -1);
    assert_int_equal(e.kind, ERR_INVALID);
    call.upgrade = NULL;
    assert_int_equal(http_send(c, &call, deadline, &e), 0);
    peer_send(sv[1], "HTTP/1.1 101 Switching Protocols\r\n\r\n");
    assert_int_equal(http_recv_head(c, &head, deadline, &e), -1);
    assert_int_equal(e.kind, ERR_PROTOCOL);
    http_conn_free(c);
    (void)close(sv[1]);
}

int main(void)
{
#define T(f) cmocka_unit_test_teardown(f, stop_if_running)
    const struct CMUnitTest tests[] = {
        T(test_class_bound),
        T(test_reserved_worker),
        T(test_reserved_connection),
        T(test_taken_by_pump),
        T(test_upgrade_with_body),
        T(test_client_upgrade),
        T(test_client_upgrade_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
