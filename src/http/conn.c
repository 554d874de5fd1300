/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Connections between epoll and the workers.
 *
 * Theory of operation: a connection is parked (armed one-shot in epoll, in a timer list, without
 * memory unless a head or a drained body is half there) or it belongs to one worker. The worker
 * reads without waiting: an incomplete head goes back to epoll with the deadline it started with,
 * so a client that drips bytes costs no thread. A complete one is run as an exchange; then the rest
 * of its body is thrown away, also from epoll, and the next request follows.
 *
 * A connection that we end while the client may still be sending is half closed and drained for a
 * moment (CONN_LINGER): closing it at once would make the kernel send a reset, which can destroy
 * the reply before the client has read it (RFC 9112 section 9.6).
 *
 * A connection is freed only by the worker that owns it: it is disarmed then, so no event can name
 * it any more, even if a child process still holds the descriptor for a moment.
 */
#include <errno.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "http/server_int.h"

enum {
    ACCEPT_BATCH = 64,
    ACCEPT_PAUSE_MS = 100, /* when out of descriptors or memory */
    REFUSED_MAX = 64,      /* connections beyond the limit that get a 503 at once */
    LINGER_MS = 2000,
    LINGER_BYTES_MAX = 1 << 20,
    SCRATCH_BYTES = 4096,
};

/* What becomes of a connection after a step. */
enum conn_next { NEXT_AGAIN, NEXT_PARK, NEXT_CLOSE };

static struct server_conn *conn_new(struct http_server *s, int fd)
{
    struct server_conn *c = calloc(1, sizeof *c);
    if (!c)
        return NULL;
    c->server = s;
    http_input_init(&c->in, fd);
    http_body_init(&c->body, HTTP_BODY_NONE, 0);
    return c;
}

static void list_remove(struct http_server *s, struct server_conn *c)
{
    MUTEX_GUARD(&s->lock);
    server_timer_remove_locked(s, c);
    *(c->all.prev ? &c->all.prev->all.next : &s->conns.first) = c->all.next;
    *(c->all.next ? &c->all.next->all.prev : &s->conns.last) = c->all.prev;
    s->n_conns--;
}

void server_conn_free(struct http_server *s, struct server_conn *c)
{
    list_remove(s, c);
    if (c->in.fd >= 0)
        (void)close(c->in.fd);
    http_input_done(&c->in);
    free(c);
}

void server_conn_take_locked(struct http_server *s, struct server_conn *c)
{
    server_timer_remove_locked(s, c);
    if (c->timer == TIMER_IDLE)
        c->deadline = 0;
}

/* Gives the connection a deadline; the one of a half-received thing stays what it was. */
static void set_deadline(struct http_server *s, struct server_conn *c, enum conn_timer *ret_timer)
{
    bool idle = c->phase == CONN_HEAD && c->in.buf.len == 0 && !c->over;
    int64_t ms = s->config.head_timeout_ms;
    *ret_timer = TIMER_HEAD;
    if (idle) {
        *ret_timer = TIMER_IDLE;
        ms = s->config.idle_timeout_ms;
    } else if (c->phase == CONN_LINGER) {
        *ret_timer = TIMER_LINGER;
        ms = LINGER_MS;
    }
    if (c->deadline == 0)
        c->deadline = deadline_in_ms(ms);
}

/* Back to epoll; from here on the connection is no longer the caller's. */
static void park(struct http_server *s, struct server_conn *c)
{
    struct epoll_event ev = {.events = EPOLLIN | EPOLLRDHUP | EPOLLONESHOT, .data.ptr = c};
    int op = c->registered ? EPOLL_CTL_MOD : EPOLL_CTL_ADD;
    enum conn_timer timer;
    set_deadline(s, c, &timer);
    c->registered = true;
    {
        /* Armed under the lock that every taker needs: nobody can end it before this is done. */
        MUTEX_GUARD(&s->lock);
        server_timer_add_locked(s, c, timer);
        if (epoll_ctl(s->epoll_fd, op, c->in.fd, &ev) == 0)
            return;
        server_timer_remove_locked(s, c);
    }
    server_conn_free(s, c); /* not armed, no timer: nobody else can have it */
}

/* The whole head at the front of what was received. > 0: its length, 0: would wait, -1: refused
 * with `e`, -2: the client left. */
static ssize_t read_head(struct server_conn *c, struct http_request_head *ret, struct err *e)
{
    const struct buf *b = &c->in.buf;
    for (;;) {
        ssize_t rc = 0;
        if (http_input_has_line(&c->in))
            rc = http_parse_request(b->p, b->len, ret, e);
        if (rc != 0)
            return rc;
        rc = http_input_fill(&c->in);
        if (rc <= 0)
            return rc < 0 && errno == EAGAIN ? 0 : -2;
    }
}

/* Throws away the rest of the body. */
static enum conn_next drain(struct server_conn *c)
{
    char scratch[SCRATCH_BYTES];
    struct err e;
    while (!c->body.ended) {
        ssize_t got = http_body_pull(&c->body, &c->in, scratch, sizeof scratch, HTTP_NO_WAIT, &e);
        if (got < 0)
            return e.kind == ERR_TIMEOUT ? NEXT_PARK : NEXT_CLOSE;
        c->drained += (size_t)got;
        if (c->drained > SERVER_DRAIN_BYTES_MAX)
            return NEXT_CLOSE;
    }
    c->phase = CONN_HEAD;
    c->deadline = 0;
    http_input_next(&c->in);
    return c->in.buf.len > 0 ? NEXT_AGAIN : NEXT_PARK;
}

/* Throws away whatever comes. */
static enum conn_next discard(struct server_conn *c)
{
    char scratch[SCRATCH_BYTES];
    for (;;) {
        ssize_t got = recv(c->in.fd, scratch, sizeof scratch, MSG_DONTWAIT);
        if (got < 0 && errno == EAGAIN)
            return NEXT_PARK;
        if (got <= 0)
            return NEXT_CLOSE;
        c->drained += (size_t)got;
        if (c->drained > LINGER_BYTES_MAX)
            return NEXT_CLOSE;
    }
}

static enum conn_next linger(struct server_conn *c)
{
    (void)shutdown(c->in.fd, SHUT_WR);
    http_input_done(&c->in);
    c->phase = CONN_LINGER;
    c->drained = 0;
    return discard(c);
}

static enum conn_next after_exchange(const struct http_exchange *x)
{
    struct server_conn *c = x->conn;
    if (x->reply == REPLY_BROKEN || x->reply == REPLY_TAKEN)
        return NEXT_CLOSE;
    if (x->reply == REPLY_UPGRADED)
        return linger(c);
    if (x->close) {
        bool all_read = c->body.ended && http_input_unread(&c->in).n == 0 && x->error_status == 0;
        return all_read ? NEXT_CLOSE : linger(c);
    }
    c->phase = CONN_DRAIN;
    c->drained = 0;
    return drain(c);
}

static enum conn_next serve_one(struct http_server *s, struct server_conn *c)
{
    struct http_exchange x;
    struct err e;
    enum conn_next next;
    ssize_t len;
    exchange_init(&x, s, c);
    len = read_head(c, &x.head, &e);
    if (len == 0 || len == -2)
        return len == 0 ? NEXT_PARK : NEXT_CLOSE;
    c->deadline = 0;
    if (len > 0) {
        c->in.keep = c->in.at = (size_t)len;
        http_body_init(&c->body, x.head.framing, x.head.content_length);
        exchange_run(&x);
    } else {
        x.head = (struct http_request_head){0};
        exchange_refuse(&x, &e);
    }
    next = after_exchange(&x);
    exchange_done(&x);
    return next;
}

/* A request refused for a reason that lies outside it; the connection ends. */
static enum conn_next refuse(struct http_server *s, struct server_conn *c, const struct err *why)
{
    struct http_exchange x;
    enum conn_next next;
    exchange_init(&x, s, c);
    exchange_refuse(&x, why);
    next = after_exchange(&x);
    exchange_done(&x);
    return next;
}

static enum conn_next expire(struct http_server *s, struct server_conn *c)
{
    struct err why;
    if (c->phase != CONN_HEAD || c->in.buf.len == 0)
        return NEXT_CLOSE;
    err_set(&why, ERR_TIMEOUT, "the request's head was not complete in time");
    (void)refuse(s, c, &why);
    return NEXT_CLOSE;
}

static enum conn_next advance(struct http_server *s, struct server_conn *c)
{
    enum conn_next next = NEXT_AGAIN;
    if (c->expired)
        return expire(s, c);
    if (c->phase == CONN_LINGER)
        return discard(c);
    if (c->phase == CONN_DRAIN)
        next = drain(c);
    while (next == NEXT_AGAIN)
        next = serve_one(s, c);
    return next;
}

void server_conn_serve(struct http_server *s, struct server_conn *c)
{
    if (advance(s, c) == NEXT_PARK && !atomic_load(&s->stopping))
        park(s, c);
    else
        server_conn_free(s, c);
}

/* Counts a fresh connection in. False when there are too many even to be told so. */
static bool list_add(struct http_server *s, struct server_conn *c, bool *ret_over)
{
    MUTEX_GUARD(&s->lock);
    if (s->n_conns >= s->config.connections_max + REFUSED_MAX)
        return false;
    *ret_over = s->n_conns >= s->config.connections_max;
    c->all.prev = s->conns.last;
    *(c->all.prev ? &c->all.prev->all.next : &s->conns.first) = c;
    s->conns.last = c;
    s->n_conns++;
    return true;
}

/* Takes over `fd`. */
static void adopt(struct http_server *s, int fd)
{
    const struct http_server_config *config = &s->config;
    AUTO_CLOSE int owned = fd;
    struct server_conn *c;
    struct err why;
    bool over;
    if (config->accept_filter && !config->accept_filter(fd, config->ctx))
        return;
    c = conn_new(s, fd);
    if (!c)
        return;
    if (!list_add(s, c, &over)) {
        free(c);
        return;
    }
    (void)TAKE_FD(owned);
    c->over = over;
    if (over && !config->classify) {
        err_set(&why, ERR_NO_CAPACITY, "too many connections");
        if (refuse(s, c, &why) == NEXT_CLOSE) {
            server_conn_free(s, c);
            return;
        }
    }
    park(s, c);
}

static void pause_accepting(struct http_server *s)
{
    MUTEX_GUARD(&s->lock);
    s->accept_again_at = deadline_in_ms(ACCEPT_PAUSE_MS);
    server_timer_arm_locked(s, s->accept_again_at);
}

static bool out_of_resources(int errnum)
{
    return errnum == EMFILE || errnum == ENFILE || errnum == ENOBUFS || errnum == ENOMEM;
}

void server_accept(struct http_server *s)
{
    struct epoll_event ev = {.events = EPOLLIN | EPOLLONESHOT, .data.ptr = &s->config.listen_fd};
    for (int i = 0; i < ACCEPT_BATCH && !atomic_load(&s->stopping); i++) {
        int fd = accept4(s->config.listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
        if (fd >= 0) {
            adopt(s, fd);
        } else if (errno == EAGAIN) {
            break;
        } else if (out_of_resources(errno)) {
            pause_accepting(s);
            return;
        }
    }
    (void)epoll_ctl(s->epoll_fd, EPOLL_CTL_MOD, s->config.listen_fd, &ev);
}

void server_conns_shutdown(struct http_server *s, int how)
{
    MUTEX_GUARD(&s->lock);
    for (struct server_conn *c = s->conns.first; c; c = c->all.next)
        (void)shutdown(c->in.fd, c->parked ? SHUT_RDWR : how);
}
