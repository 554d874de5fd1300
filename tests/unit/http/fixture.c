/* SPDX-License-Identifier: Apache-2.0 */
/* The server fixture: handlers, starting and stopping. */
#include "fixture.h"

#include <poll.h>

#include "base/sock.h"
#include "http/status.h"

enum { BIG_BYTES = 8 << 20 };

struct fixture fx;

void note(int *counter)
{
    MUTEX_GUARD(&fx.lock);
    (*counter)++;
    (void)pthread_cond_broadcast(&fx.changed);
}

void wait_for(const int *counter, int at_least)
{
    int64_t end = deadline_in_ms(PEER_PATIENCE_MS);
    struct timespec until;
    (void)clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += PEER_PATIENCE_MS / 1000;
    MUTEX_GUARD(&fx.lock);
    while (*counter < at_least && clock_mono_ms() < end)
        (void)pthread_cond_timedwait(&fx.changed, &fx.lock, &until);
    assert_true(*counter >= at_least);
}

/* --- handlers --- */

static void handle_block(struct http_exchange *x)
{
    note(&fx.blocked);
    (void)pthread_mutex_lock(&fx.lock);
    while (!fx.released)
        (void)pthread_cond_wait(&fx.changed, &fx.lock);
    (void)pthread_mutex_unlock(&fx.lock);
    (void)http_reply(x, 200, NULL, SLICE_LIT("late"));
}

static void handle_echo(struct http_exchange *x)
{
    AUTO_BUF struct buf b = BUF_INIT(BODY_MAX);
    struct err e = {0};
    if (http_body_read_all(x, &b, &e) == 0) {
        (void)http_reply(x, 200, "text/plain", buf_slice(&b));
        return;
    }
    (void)pthread_mutex_lock(&fx.lock);
    fx.body_error = e.kind;
    (void)pthread_mutex_unlock(&fx.lock);
    (void)http_reply(x, http_status_from_kind(e.kind), NULL, slice_cstr(e.msg));
    note(&fx.errors);
}

static void handle_stream_echo(struct http_exchange *x)
{
    char block[7];
    struct err e = {0};
    ssize_t n;
    assert_int_equal(http_reply_begin(x, 200, "text/plain", -1, &e), 0);
    while ((n = http_body_read(x, block, sizeof block, &e)) > 0)
        if (http_reply_write(x, block, (size_t)n, &e) < 0)
            return;
    if (n == 0)
        (void)http_reply_end(x, &e);
}

static void handle_abort(struct http_exchange *x)
{
    struct err e = {0};
    assert_int_equal(http_reply_begin(x, 200, NULL, -1, &e), 0);
    assert_int_equal(http_reply_write(x, "half", 4, &e), 0);
    http_reply_abort(x);
    assert_int_equal(http_reply_write(x, "more", 4, &e), -1);
}

static void handle_short(struct http_exchange *x)
{
    struct err e = {0};
    assert_int_equal(http_reply_begin(x, 200, NULL, 10, &e), 0);
    assert_int_equal(http_reply_write(x, "abc", 3, &e), 0);
    assert_int_equal(http_reply_end(x, &e), -1);
}

static void handle_forgotten(struct http_exchange *x)
{
    struct err e = {0};
    assert_int_equal(http_reply_begin(x, 200, NULL, -1, &e), 0);
}

static void handle_wait_gone(struct http_exchange *x)
{
    struct err e = {0};
    assert_false(http_peer_gone(x));
    note(&fx.blocked);
    if (io_wait(http_fd(x), POLLRDHUP, deadline_in_ms(PEER_PATIENCE_MS), &e) > 0 &&
        http_peer_gone(x))
        note(&fx.gone);
}

static void handle_big(struct http_exchange *x)
{
    char *big = calloc(1, BIG_BYTES);
    if (http_reply(x, 200, NULL, slice_of(big, BIG_BYTES)) < 0)
        note(&fx.gone);
    free(big);
}

static void handle_query(struct http_exchange *x)
{
    struct slice v;
    bool found = http_request_query(x, "k\xc3\xa9", &v);
    http_reply_header(x, "X-Found", "%d", found);
    http_reply_header(x, "X-Path", "%.*s", (int)http_request(x)->path.n, http_request(x)->path.p);
    (void)http_reply(x, 200, NULL, found ? v : slice_of(NULL, 0));
}

static void handle_hello(struct http_exchange *x)
{
    (void)http_reply(x, 200, "text/plain", SLICE_LIT("hello"));
}

static void handle_nothing(struct http_exchange *x)
{
    assert_false(http_reply_begun(x));
}

static void handle_no_content(struct http_exchange *x)
{
    (void)http_reply(x, 204, NULL, slice_of(NULL, 0));
}

static const struct {
    const char *path;
    void (*run)(struct http_exchange *x);
} routes[] = {
    {"/hello", handle_hello},
    {"/block", handle_block},
    {"/echo", handle_echo},
    {"/stream-echo", handle_stream_echo},
    {"/abort", handle_abort},
    {"/short", handle_short},
    {"/forgotten", handle_forgotten},
    {"/wait-gone", handle_wait_gone},
    {"/big", handle_big},
    {"/query", handle_query},
    {"/nothing", handle_nothing},
    {"/no-content", handle_no_content},
};

void handle(struct http_exchange *x, void *ctx)
{
    for (size_t i = 0; i < ARRAY_LEN(routes); i++)
        if (slice_is(http_request(x)->path, routes[i].path)) {
            routes[i].run(x);
            return;
        }
    (void)http_reply(x, 404, NULL, SLICE_LIT("no such path"));
}

void handle_error(struct http_exchange *x, const struct err *why, void *ctx)
{
    note(&fx.errors);
    (void)http_reply(x, http_error_status(x), "text/plain", slice_cstr(err_kind_name(why->kind)));
}

/* --- fixture --- */

void fixture_reset(void)
{
    fx = (struct fixture){0};
    (void)pthread_mutex_init(&fx.lock, NULL);
    (void)pthread_cond_init(&fx.changed, NULL);
}

void start(struct http_server_config config)
{
    struct err e = {0};
    fixture_reset();
    config.listen_fd = sock_listen_tcp("127.0.0.1", 0, &e);
    assert_true(config.listen_fd >= 0);
    fx.port = sock_local_port(config.listen_fd);
    config.handler = handle;
    fx.server = http_server_start(&config, &e);
    assert_non_null(fx.server);
}

void release(void)
{
    MUTEX_GUARD(&fx.lock);
    fx.released = true;
    (void)pthread_cond_broadcast(&fx.changed);
}

void stop(void)
{
    release();
    http_server_stop(fx.server);
    fx.server = NULL;
}

int stop_if_running(void **state)
{
    if (fx.server)
        stop();
    return 0;
}

int dial(void)
{
    struct err e = {0};
    int fd = sock_connect_tcp("127.0.0.1", fx.port, deadline_in_ms(PEER_PATIENCE_MS), &e);
    if (fd < 0)
        fail_msg("%s", e.msg);
    return fd;
}
