/* SPDX-License-Identifier: Apache-2.0 */
/* The tunnel pump between pairs of sockets. */
#include "peer.h"

#include <fcntl.h>
#include <poll.h>
#include <pthread.h>

#include "http/tunnel.h"

/* near <-> pump <-> far; what the pump says at the end is written to `told`. */
struct pair {
    int near;
    int far;
    int told[2];
};

static void on_end(void *ctx, const struct tunnel_result *result)
{
    const struct pair *p = ctx;
    ssize_t put = write(p->told[1], result, sizeof *result);
    assert_int_equal(put, sizeof *result);
}

static int64_t soon(void)
{
    return deadline_in_ms(PEER_PATIENCE_MS);
}

static struct tunnel_pump *start(int idle_timeout_ms, size_t tunnels_max)
{
    struct tunnel_pump_config config = {
        .idle_timeout_ms = idle_timeout_ms, .tunnels_max = tunnels_max};
    struct err e = {0};
    struct tunnel_pump *pump = tunnel_pump_start(&config, &e);
    assert_non_null(pump);
    return pump;
}

static void open_pair(struct tunnel_pump *pump, struct pair *p, struct slice early)
{
    int a[2];
    int b[2];
    struct err e = {0};
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, a), 0);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, b), 0);
    assert_int_equal(pipe2(p->told, O_CLOEXEC), 0);
    p->near = a[0];
    p->far = b[0];
    struct tunnel_spec spec = {.a = a[1], .b = b[1], .a_early = early, .on_end = on_end, .ctx = p};
    assert_int_equal(tunnel_add(pump, &spec, &e), 0);
}

static void close_pair(const struct pair *p)
{
    (void)close(p->near);
    (void)close(p->far);
    (void)close(p->told[0]);
    (void)close(p->told[1]);
}

static struct tunnel_result wait_end(const struct pair *p)
{
    struct tunnel_result r;
    struct err e = {0};
    assert_int_equal(io_read_full(p->told[0], &r, sizeof r, soon(), &e), 0);
    return r;
}

static void test_both_ways(void **state)
{
    struct tunnel_pump *pump = start(0, 0);
    struct pair p;
    open_pair(pump, &p, SLICE_LIT("early "));
    peer_send(p.near, "to far!");
    peer_expect(p.far, "!", "early to far!");
    peer_send(p.far, "back.");
    peer_expect(p.near, ".", "back.");
    assert_int_equal(tunnel_count(pump), 1);
    /* one direction ends, the other one goes on */
    assert_int_equal(shutdown(p.near, SHUT_WR), 0);
    peer_expect_end(p.far);
    peer_send(p.far, "more.");
    peer_expect(p.near, ".", "more.");
    assert_int_equal(shutdown(p.far, SHUT_WR), 0);
    peer_expect_end(p.near);
    struct tunnel_result r = wait_end(&p);
    assert_int_equal(r.why, TUNNEL_CLOSED);
    assert_int_equal(r.a_to_b, 13);
    assert_int_equal(r.b_to_a, 10);
    assert_int_equal(tunnel_count(pump), 0);
    tunnel_pump_stop(pump);
    close_pair(&p);
}

/* Bytes that still can be sent until the socket takes none, with nobody reading. */
static size_t stuff(int fd)
{
    static char block[65536];
    size_t total = 0;
    struct err e = {0};
    struct pollfd fds = {.fd = fd, .events = POLLOUT};
    assert_int_equal(io_set_nonblock(fd, 1, &e), 0);
    /* full for as long as the pump needs to be done: it takes what it can before we poll again */
    while (poll(&fds, 1, 200) > 0) {
        ssize_t put = send(fd, block, sizeof block, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (put > 0)
            total += (size_t)put;
    }
    return total;
}

static void test_back_pressure(void **state)
{
    struct tunnel_pump *pump = start(0, 0);
    struct pair p;
    size_t sent;
    size_t got = 0;
    static char block[65536];
    struct err e = {0};
    open_pair(pump, &p, slice_of(NULL, 0));
    sent = stuff(p.near);
    /* two socket buffers and one buffer of the pump */
    assert_true(sent > 65536 && sent < (4u << 20));
    /* the other direction is free meanwhile */
    peer_send(p.far, "free.");
    peer_expect(p.near, ".", "free.");
    assert_int_equal(shutdown(p.near, SHUT_WR), 0);
    for (;;) {
        ssize_t n = io_read(p.far, block, sizeof block, soon(), &e);
        assert_true(n >= 0);
        if (n == 0)
            break;
        got += (size_t)n;
    }
    assert_int_equal(got, sent);
    (void)close(p.far);
    struct tunnel_result r = wait_end(&p);
    assert_int_equal(r.a_to_b, sent);
    p.far = -1;
    tunnel_pump_stop(pump);
    close_pair(&p);
}

static void test_peer_vanishes(void **state)
{
    struct tunnel_pump *pump = start(0, 0);
    struct pair p;
    open_pair(pump, &p, slice_of(NULL, 0));
    (void)stuff(p.near);
    (void)close(p.far); /* with bytes unread */
    p.far = -1;
    (void)close(p.near);
    p.near = -1;
    assert_int_equal(wait_end(&p).why, TUNNEL_BROKEN);
    tunnel_pump_stop(pump);
    close_pair(&p);
}

static void test_idle(void **state)
{
    struct tunnel_pump *pump = start(30, 0);
    struct pair p;
    struct pair q;
    open_pair(pump, &p, slice_of(NULL, 0));
    open_pair(pump, &q, slice_of(NULL, 0));
    assert_int_equal(wait_end(&p).why, TUNNEL_IDLE);
    assert_int_equal(wait_end(&q).why, TUNNEL_IDLE);
    peer_expect_end(p.near);
    peer_expect_end(q.far);
    tunnel_pump_stop(pump);
    close_pair(&p);
    close_pair(&q);
}

static void test_limits_and_stop(void **state)
{
    struct tunnel_pump *pump = start(0, 1);
    struct pair p;
    int sv[2];
    struct err e = {0};
    open_pair(pump, &p, slice_of(NULL, 0));
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv), 0);
    struct tunnel_spec spec = {.a = sv[0], .b = dup(sv[0]), .on_end = on_end, .ctx = &p};
    assert_int_equal(tunnel_add(pump, &spec, &e), -1);
    assert_int_equal(e.kind, ERR_NO_CAPACITY);
    peer_expect_end(sv[1]); /* both were closed */
    (void)close(sv[1]);
    tunnel_pump_stop(pump);
    assert_int_equal(wait_end(&p).why, TUNNEL_STOPPED);
    peer_expect_end(p.near);
    peer_expect_end(p.far);
    close_pair(&p);
    tunnel_pump_stop(NULL);
}

/* Many at once by one thread, each echoing through its own far end. */
static void test_many(void **state)
{
    enum { N = 100 };
    static struct pair pairs[N];
    struct tunnel_pump *pump = start(0, 0);
    for (int i = 0; i < N; i++)
        open_pair(pump, &pairs[i], slice_of(NULL, 0));
    for (int round = 0; round < 3; round++) {
        for (int i = 0; i < N; i++)
            peer_send(pairs[i].near, "ping.");
        for (int i = 0; i < N; i++)
            peer_expect(pairs[i].far, ".", "ping.");
    }
    assert_int_equal(tunnel_count(pump), N);
    tunnel_pump_stop(pump);
    for (int i = 0; i < N; i++) {
        assert_int_equal(wait_end(&pairs[i]).a_to_b, 15);
        close_pair(&pairs[i]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_both_ways),
        cmocka_unit_test(test_back_pressure),
        cmocka_unit_test(test_peer_vanishes),
        cmocka_unit_test(test_idle),
        cmocka_unit_test(test_limits_and_stop),
        cmocka_unit_test(test_many),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
