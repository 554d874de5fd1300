/* SPDX-License-Identifier: Apache-2.0 */
/*
 * HTTP/1.1 client over one connected descriptor.
 *
 * Theory of operation: one exchange at a time, in two halves that overlap: sending (`unsent`) and
 * receiving (`stage`). A server may answer before it has read the whole body. So while a send would
 * block, arriving bytes are taken in too; a final answer of 300 and more ends the sending, a lower
 * one (a server that streams both ways) does not. The connection can be used again when both halves
 * have ended, the server keeps it and nothing unasked has come.
 */
#include "http/client.h"

#include <assert.h>
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/io.h"
#include "http/http_int.h"

enum {
    REQUEST_HEAD_MAX = HTTP_HEAD_BYTES_MAX,
    INFORMATIONAL_MAX = 16, /* 1xx responses before the final one */
    CHUNK_LINE_MAX = 24,
};

enum stage { STAGE_IDLE, STAGE_HEAD, STAGE_BODY, STAGE_BROKEN };
enum unsent { UNSENT_NOTHING, UNSENT_LENGTH, UNSENT_CHUNKS };

struct http_conn {
    struct http_input in;
    struct http_response_head head; /* valid in STAGE_BODY and until the next exchange */
    struct http_body body;
    enum stage stage;
    enum unsent unsent;
    uint64_t unsent_bytes;
    int n_informational;
    bool method_is_head;
    bool upgrade; /* 101 is an answer */
    bool keep;
};

struct http_conn *http_conn_new(int fd, struct err *e)
{
    struct http_conn *c = calloc(1, sizeof *c);
    if (!c) {
        (void)close(fd);
        err_set(e, ERR_NOMEM, "out of memory");
        return NULL;
    }
    http_input_init(&c->in, fd);
    http_body_init(&c->body, HTTP_BODY_NONE, 0);
    c->keep = true;
    return c;
}

struct http_conn *http_conn_free(struct http_conn *c)
{
    if (c) {
        (void)close(c->in.fd);
        http_input_done(&c->in);
        free(c);
    }
    return NULL;
}

int http_conn_fd(const struct http_conn *c)
{
    return c->in.fd;
}

/* Both halves of the exchange have ended and the connection goes on. */
static bool is_idle(const struct http_conn *c)
{
    bool ended = c->stage == STAGE_IDLE || (c->stage == STAGE_BODY && c->body.ended);
    return ended && c->keep && c->unsent == UNSENT_NOTHING && http_input_unread(&c->in).n == 0;
}

bool http_conn_reusable(const struct http_conn *c)
{
    struct pollfd p = {.fd = c->in.fd, .events = POLLIN | POLLRDHUP};
    return is_idle(c) && poll(&p, 1, /* timeout_ms= */ 0) == 0;
}

static bool visible_ascii(const char *s)
{
    if (!s || !*s)
        return false;
    for (; *s; s++)
        if (*s < '!' || *s > '~')
            return false;
    return true;
}

/* Headers that http_send makes itself. */
static bool is_ours(struct slice name)
{
    static const char *const ours[] = {
        "Host", "Connection", "Content-Length", "Transfer-Encoding", "Upgrade"};
    for (size_t i = 0; i < ARRAY_LEN(ours); i++)
        if (slice_eq_nocase(name, slice_cstr(ours[i])))
            return true;
    return false;
}

static int check_call(const struct http_call *call, struct err *e)
{
    if (!call->method || !http_is_token(slice_cstr(call->method)))
        return err_set(e, ERR_INVALID, "bad request method");
    if (!visible_ascii(call->target))
        return err_set(e, ERR_INVALID, "bad request target");
    if (!visible_ascii(call->host))
        return err_set(e, ERR_INVALID, "bad host");
    for (size_t i = 0; i < call->n_headers; i++) {
        const struct http_header *h = &call->headers[i];
        if (!http_is_token(h->name) || !http_is_field_value(h->value) || is_ours(h->name))
            return err_set(e, ERR_INVALID, "bad request header");
    }
    if (call->upgrade && (!http_is_field_value(slice_cstr(call->upgrade)) ||
                             call->body_length > 0 || call->body_length == HTTP_BODY_STREAM))
        return err_set(e, ERR_INVALID, "bad upgrade");
    if (call->body_length < HTTP_BODY_STREAM ||
        (call->body_length >= 0 && call->body.n > (uint64_t)call->body_length))
        return err_set(e, ERR_INVALID, "request body longer than its length");
    return 0;
}

/* GET, HEAD and DELETE usually have no body, and then say nothing about it. */
static bool says_no_length(const struct http_call *call)
{
    return call->body.n == 0 && call->body_length <= 0 &&
           (strcmp(call->method, "GET") == 0 || strcmp(call->method, "HEAD") == 0 ||
               strcmp(call->method, "DELETE") == 0);
}

static void append_header(struct buf *b, struct slice name, struct slice value)
{
    buf_append_slice(b, name);
    buf_append(b, ": ", 2);
    buf_append_slice(b, value);
    buf_append(b, "\r\n", 2);
}

static void append_head(const struct http_call *call, struct buf *b)
{
    uint64_t length = call->body_length >= 0 ? (uint64_t)call->body_length : call->body.n;
    buf_append_cstr(b, call->method);
    buf_append_char(b, ' ');
    buf_append_cstr(b, call->target);
    buf_append_cstr(b, " HTTP/1.1\r\n");
    append_header(b, SLICE_LIT("Host"), slice_cstr(call->host));
    for (size_t i = 0; i < call->n_headers; i++)
        append_header(b, call->headers[i].name, call->headers[i].value);
    if (call->upgrade)
        buf_printf(b, "Connection: Upgrade\r\nUpgrade: %s\r\n", call->upgrade);
    if (call->body_length == HTTP_BODY_STREAM)
        buf_append_cstr(b, "Transfer-Encoding: chunked\r\n");
    else if (!says_no_length(call))
        buf_printf(b, "Content-Length: %llu\r\n", (unsigned long long)length);
    buf_append(b, "\r\n", 2);
}

/* A connection that failed can only be freed, after http_recv_head was tried. */
static int sending_failed(struct http_conn *c, struct err *e)
{
    c->keep = false;
    if (e->kind == ERR_CANCELED)
        e->kind = ERR_UNAVAILABLE;
    return -1;
}

/* Parses what has come. 1: a final head, 0: needs more, -1. */
static int parse_head(struct http_conn *c, struct err *e)
{
    for (;;) {
        struct slice have = http_input_unread(&c->in);
        ssize_t n = 0;
        if (http_input_has_line(&c->in))
            n = http_parse_response(have.p, have.n, &c->head, e);
        if (n < 0) {
            c->stage = STAGE_BROKEN;
            e->kind = ERR_PROTOCOL;
            return err_wrap(e, "malformed response");
        }
        if (n == 0)
            return 0;
        c->in.at += (size_t)n;
        if (c->head.status >= 200 || (c->head.status == 101 && c->upgrade))
            return 1;
        http_input_next(&c->in);
        if (c->head.status == 101 || ++c->n_informational > INFORMATIONAL_MAX) {
            c->stage = STAGE_BROKEN;
            return err_set(e, ERR_PROTOCOL, "unexpected %d response", c->head.status);
        }
    }
}

/* The final head is there: its body comes next. */
static void begin_body(struct http_conn *c)
{
    c->in.keep = c->in.at;
    http_body_init(
        &c->body, c->method_is_head ? HTTP_BODY_NONE : c->head.framing, c->head.content_length);
    c->keep = c->keep && c->head.keep_alive;
    c->stage = STAGE_BODY;
    if (c->head.status == 101)
        c->keep = false;
}

static int head_ended_early(struct http_conn *c, int errnum, struct err *e)
{
    bool nothing = c->in.buf.len == 0 && c->n_informational == 0;
    c->stage = STAGE_BROKEN;
    if (errnum != 0 && errnum != ECONNRESET && errnum != EPIPE)
        return err_sys(e, errnum, "recv");
    return err_set(e, nothing ? ERR_UNAVAILABLE : ERR_PROTOCOL,
        nothing ? "the server closed the connection" : "the response ended inside its head");
}

/* One recv of head bytes. 1: the final head is complete, 0: would block or needs more, -1. */
static int take_head_bytes(struct http_conn *c, struct err *e)
{
    ssize_t got = http_input_fill(&c->in);
    int rc;
    if (got < 0 && errno == EAGAIN)
        return 0;
    if (got <= 0)
        return head_ended_early(c, got < 0 ? errno : 0, e);
    rc = parse_head(c, e);
    if (rc > 0)
        begin_body(c);
    return rc;
}

/* Waits until the socket takes more, taking in what the server says meanwhile. */
static int wait_writable(struct http_conn *c, int64_t deadline, struct err *e)
{
    for (;;) {
        short events = c->stage == STAGE_HEAD ? POLLOUT | POLLIN : POLLOUT;
        int got = io_wait(c->in.fd, events, deadline, e);
        if (got < 0)
            return -1;
        if (events & got & POLLIN && take_head_bytes(c, e) < 0)
            return -1;
        if (c->stage == STAGE_BODY && c->head.status >= 300)
            return err_set(e, ERR_UNAVAILABLE, "the server answered before the end of the request");
        if (got & ~POLLIN)
            return 0;
    }
}

static int send_all(
    struct http_conn *c, struct iovec *iov, size_t n, int64_t deadline, struct err *e)
{
    while (n > 0) {
        ssize_t put = http_send_some(c->in.fd, &iov, &n, e);
        if (put < 0 || (n > 0 && wait_writable(c, deadline, e) < 0))
            return sending_failed(c, e);
    }
    return 0;
}

static void begin_exchange(struct http_conn *c, const struct http_call *call)
{
    http_input_done(&c->in);
    c->stage = STAGE_HEAD;
    c->n_informational = 0;
    c->upgrade = call->upgrade != NULL;
    c->method_is_head = strcmp(call->method, "HEAD") == 0;
    c->unsent = UNSENT_NOTHING;
    c->unsent_bytes = 0;
    if (call->body_length == HTTP_BODY_STREAM) {
        c->unsent = UNSENT_CHUNKS;
    } else if (call->body_length > 0 && (uint64_t)call->body_length > call->body.n) {
        c->unsent = UNSENT_LENGTH;
        c->unsent_bytes = (uint64_t)call->body_length - call->body.n;
    }
}

int http_send(struct http_conn *c, const struct http_call *call, int64_t deadline, struct err *e)
{
    AUTO_BUF struct buf head = BUF_INIT(REQUEST_HEAD_MAX);
    char line[CHUNK_LINE_MAX] = "";
    char crlf[] = "\r\n";
    bool chunk;
    if (check_call(call, e) < 0)
        return -1;
    if (!is_idle(c))
        return err_set(e, ERR_UNAVAILABLE, "the connection's last exchange has not ended");
    append_head(call, &head);
    if (head.failed)
        return err_set(e, ERR_INVALID, "request head too large");
    begin_exchange(c, call);
    chunk = c->unsent == UNSENT_CHUNKS && call->body.n > 0;
    if (chunk)
        (void)snprintf(line, sizeof line, "%zx\r\n", call->body.n);
    struct iovec iov[] = {{head.p, head.len}, {line, strlen(line)},
        {(void *)(uintptr_t)call->body.p, call->body.n}, {crlf, chunk ? 2 : 0}};
    return send_all(c, iov, ARRAY_LEN(iov), deadline, e);
}

int http_send_body(struct http_conn *c, const void *p, size_t n, int64_t deadline, struct err *e)
{
    char line[CHUNK_LINE_MAX];
    char crlf[] = "\r\n";
    struct iovec body = {(void *)(uintptr_t)p, n};
    if (n == 0)
        return 0;
    if (c->unsent == UNSENT_LENGTH) {
        if (n > c->unsent_bytes)
            return err_set(e, ERR_INVALID, "request body longer than its length");
        c->unsent_bytes -= n;
        if (c->unsent_bytes == 0)
            c->unsent = UNSENT_NOTHING;
        return send_all(c, &body, 1, deadline, e);
    }
    if (c->unsent != UNSENT_CHUNKS)
        return err_set(e, ERR_INVALID, "this request has no streamed body");
    (void)snprintf(line, sizeof line, "%zx\r\n", n);
    struct iovec iov[] = {{line, strlen(line)}, body, {crlf, 2}};
    return send_all(c, iov, ARRAY_LEN(iov), deadline, e);
}

int http_send_end(struct http_conn *c, int64_t deadline, struct err *e)
{
    char last[] = "0\r\n\r\n";
    struct iovec iov = {last, sizeof last - 1};
    bool chunks = c->unsent == UNSENT_CHUNKS;
    if (c->unsent == UNSENT_LENGTH)
        return err_set(e, ERR_INVALID, "request body shorter than its length");
    if (chunks && send_all(c, &iov, 1, deadline, e) < 0)
        return -1;
    c->unsent = UNSENT_NOTHING;
    return 0;
}

int http_recv_head(
    struct http_conn *c, const struct http_response_head **ret, int64_t deadline, struct err *e)
{
    if (c->stage == STAGE_IDLE)
        return err_set(e, ERR_INVALID, "no request was sent");
    if (c->stage == STAGE_BROKEN)
        return err_set(e, ERR_UNAVAILABLE, "the connection is broken");
    while (c->stage == STAGE_HEAD)
        if (io_wait(c->in.fd, POLLIN, deadline, e) < 0 || take_head_bytes(c, e) < 0)
            return -1;
    *ret = &c->head;
    return 0;
}

int http_conn_take(struct http_conn *c, struct buf *early, struct err *e)
{
    struct slice unread = http_input_unread(&c->in);
    int fd = c->in.fd;
    assert(c->stage == STAGE_BODY && c->head.status == 101);
    if (unread.n > early->max - early->len)
        return err_set(e, ERR_TOO_LARGE, "more than %zu early bytes", early->max);
    buf_append_slice(early, unread);
    if (early->failed)
        return err_set(e, ERR_NOMEM, "out of memory");
    http_input_done(&c->in);
    free(c);
    return fd;
}

static int receiving_failed(struct http_conn *c, struct err *e)
{
    c->keep = false;
    if (e->kind == ERR_INVALID)
        e->kind = ERR_PROTOCOL;
    return -1;
}

ssize_t http_recv_body(struct http_conn *c, void *dst, size_t n, int64_t deadline, struct err *e)
{
    ssize_t got;
    if (c->stage != STAGE_BODY)
        return err_set(e, ERR_INVALID, "no response head was received");
    got = http_body_pull(&c->body, &c->in, dst, n, HTTP_UNTIL(deadline), e);
    return got < 0 ? receiving_failed(c, e) : got;
}

int http_recv_body_all(struct http_conn *c, struct buf *dst, int64_t deadline, struct err *e)
{
    if (c->stage != STAGE_BODY)
        return err_set(e, ERR_INVALID, "no response head was received");
    if (http_body_pull_all(&c->body, &c->in, dst, HTTP_UNTIL(deadline), e) < 0)
        return receiving_failed(c, e);
    return 0;
}
