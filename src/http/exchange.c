/* SPDX-License-Identifier: Apache-2.0 */
/* One exchange: running the handler, and the request as it sees it. */
#include <poll.h>
#include <stdlib.h>

#include "base/clock.h"
#include "http/server_int.h"
#include "http/status.h"

enum {
    HEADERS_ADDED_MAX = 32 * 1024,
    QUERY_NAME_MAX = 256,
};

void exchange_init(struct http_exchange *x, struct http_server *s, struct server_conn *c)
{
    *x = (struct http_exchange){
        .server = s, .conn = c, .headers = BUF_INIT(HEADERS_ADDED_MAX), .deadline = DEADLINE_NEVER};
    arena_init(&x->arena, s->config.arena_bytes_max);
}

void exchange_done(struct http_exchange *x)
{
    arena_done(&x->arena);
    buf_done(&x->headers);
}

/* What a handler left open: no reply is a 500, half a reply is cut off. */
static void complete(struct http_exchange *x)
{
    if (x->reply == REPLY_NONE)
        reply_bare(x, x->error_status ? x->error_status : 500);
    else if (x->reply == REPLY_STREAM)
        http_reply_abort(x);
}

static void answer_error(struct http_exchange *x, const struct err *why)
{
    const struct http_server_config *config = &x->server->config;
    if (config->on_error)
        config->on_error(x, why, config->ctx);
    if (x->reply == REPLY_NONE && why->kind == ERR_NO_CAPACITY)
        http_reply_header(x, "Retry-After", "%d", config->retry_after_sec);
    complete(x);
}

/* A full class: the connection stays, the client may come again. */
static void refuse_class(struct http_exchange *x, const struct err *why)
{
    x->error_status = http_status_from_kind(why->kind);
    x->close = x->conn->over;
    answer_error(x, why);
}

void exchange_run(struct http_exchange *x)
{
    struct http_server *s = x->server;
    struct err why;
    x->continue_due = x->head.expect_continue && http_input_unread(&x->conn->in).n == 0;
    x->close = x->conn->over;
    if (server_class_enter(x, &why) < 0) {
        refuse_class(x, &why);
        return;
    }
    server_pool_reserve(s);
    s->config.handler(x, s->config.ctx);
    complete(x);
    server_class_leave(x);
}

/* The statuses that belong to receiving a head, not to the error's kind. */
static int refusal_status(const struct err *why)
{
    if (why->kind == ERR_TIMEOUT)
        return 408;
    if (why->kind == ERR_TOO_LARGE)
        return 414;
    if (why->kind == ERR_UNSUPPORTED && strcmp(why->where, "version") == 0)
        return 505;
    return http_status_from_kind(why->kind);
}

void exchange_refuse(struct http_exchange *x, const struct err *why)
{
    x->close = true;
    x->error_status = refusal_status(why);
    answer_error(x, why);
}

const struct http_request_head *http_request(const struct http_exchange *x)
{
    return &x->head;
}

int http_error_status(const struct http_exchange *x)
{
    return x->error_status ? x->error_status : 500;
}

struct slice http_request_header(const struct http_exchange *x, const char *name)
{
    return http_header_find(x->head.headers, x->head.n_headers, name);
}

struct arena *http_arena(struct http_exchange *x)
{
    return &x->arena;
}

int http_fd(const struct http_exchange *x)
{
    return x->conn->in.fd;
}

/* Cuts the next "name=value" off `query`; false at its end. */
static bool next_pair(struct slice *query, struct slice *ret_name, struct slice *ret_value)
{
    const char *end;
    const char *equals;
    struct slice pair = *query;
    if (query->n == 0)
        return false;
    end = memchr(query->p, '&', query->n);
    if (end)
        pair.n = (size_t)(end - query->p);
    *query = end ? slice_of(end + 1, query->n - pair.n - 1) : slice_of(NULL, 0);
    equals = pair.n > 0 ? memchr(pair.p, '=', pair.n) : NULL;
    *ret_name = equals ? slice_of(pair.p, (size_t)(equals - pair.p)) : pair;
    *ret_value = equals ? slice_of(equals + 1, pair.n - ret_name->n - 1) : slice_of(NULL, 0);
    return true;
}

static bool name_matches(struct slice raw, const char *name)
{
    char decoded[QUERY_NAME_MAX + 1];
    size_t n;
    return raw.n <= QUERY_NAME_MAX && http_percent_decode(raw, /* is_query= */ true, decoded, &n) &&
           slice_is(slice_of(decoded, n), name);
}

bool http_request_query(struct http_exchange *x, const char *name, struct slice *ret)
{
    struct slice query = x->head.query;
    struct slice raw_name;
    struct slice raw;
    while (next_pair(&query, &raw_name, &raw)) {
        char *text;
        size_t n;
        if (!name_matches(raw_name, name))
            continue;
        text = arena_alloc(&x->arena, raw.n + 1);
        if (!text || !http_percent_decode(raw, /* is_query= */ true, text, &n))
            return false;
        *ret = slice_of(text, n);
        return true;
    }
    return false;
}

void http_set_deadline(struct http_exchange *x, int64_t deadline)
{
    x->deadline = deadline;
}

struct http_patience exchange_patience(const struct http_exchange *x)
{
    return HTTP_PROGRESS_UNTIL(x->server->config.io_timeout_ms, x->deadline);
}

static int send_continue(struct http_exchange *x, struct err *e)
{
    static const char text[] = "HTTP/1.1 100 Continue\r\n\r\n";
    struct iovec iov = {(void *)(uintptr_t)text, sizeof text - 1};
    if (!x->continue_due || x->conn->body.ended)
        return 0;
    if (x->reply != REPLY_NONE)
        return err_set(e, ERR_BAD_STATE, "the client was answered before it sent its body");
    x->continue_due = false;
    return http_send_iov(x->conn->in.fd, &iov, 1, exchange_patience(x), e);
}

/* A read that failed: where the body goes on is unknown, so the connection cannot be kept. */
static int read_failed(struct http_exchange *x, struct err *e)
{
    x->close = true;
    if (e->kind == ERR_PROTOCOL && atomic_load(&x->server->stopping))
        return err_set(e, ERR_CANCELED, "the server stops");
    return -1;
}

ssize_t http_body_read(struct http_exchange *x, void *dst, size_t n, struct err *e)
{
    ssize_t got;
    if (send_continue(x, e) < 0)
        return read_failed(x, e);
    got = http_body_pull(&x->conn->body, &x->conn->in, dst, n, exchange_patience(x), e);
    return got < 0 ? read_failed(x, e) : got;
}

int http_body_read_all(struct http_exchange *x, struct buf *dst, struct err *e)
{
    struct http_body *b = &x->conn->body;
    if (http_body_check_bound(b, dst, e) < 0)
        return -1;
    if (send_continue(x, e) < 0 ||
        http_body_pull_all(b, &x->conn->in, dst, exchange_patience(x), e) < 0)
        return read_failed(x, e);
    return 0;
}

bool http_peer_gone(const struct http_exchange *x)
{
    struct pollfd p = {.fd = x->conn->in.fd, .events = POLLRDHUP};
    return poll(&p, 1, /* timeout_ms= */ 0) > 0;
}
