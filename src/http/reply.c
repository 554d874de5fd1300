/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The response of an exchange: whole, streamed with a length, chunked, or until the connection ends
 * (HTTP/1.0). A whole reply is one system call. Whether the connection is kept is decided when the
 * head is made, because the head says it.
 */
#include <assert.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/socket.h>
#include <time.h>

#include "base/clock.h"
#include "http/server_int.h"
#include "http/status.h"

enum {
    HEAD_MAX = 40 * 1024, /* what handlers may add, and our own lines */
    HEAD_USUAL = 256,
    CHUNK_LINE_MAX = 24,
    DATE_LINE_MAX = 64,
    NUMBER_CHARS_MAX = 20,
};

void http_reply_header(struct http_exchange *x, const char *name, const char *fmt, ...)
{
    struct buf *b = &x->headers;
    size_t start;
    va_list ap;
    int n;
    char *at;
    assert(x->reply == REPLY_NONE && http_is_token(slice_cstr(name)));
    va_start(ap, fmt);
    n = vsnprintf(NULL, 0, fmt, ap);
    va_end(ap);
    buf_printf(b, "%s: ", name);
    start = b->len;
    at = n < 0 ? NULL : buf_reserve(b, (size_t)n + 2);
    if (!at) {
        b->failed = true; /* the reply will fail */
        return;
    }
    va_start(ap, fmt);
    (void)vsnprintf(at, (size_t)n + 1, fmt, ap);
    va_end(ap);
    buf_commit(b, (size_t)n);
    assert(!memchr(b->p + start, '\r', (size_t)n) && !memchr(b->p + start, '\n', (size_t)n) &&
           !memchr(b->p + start, '\0', (size_t)n));
    buf_append(b, "\r\n", 2);
}

/* IMF-fixdate of RFC 9110 section 5.6.7. strftime would follow the locale. */
static void format_date(time_t now, char dst[DATE_LINE_MAX])
{
    static const char days[] = "SunMonTueWedThuFriSat";
    static const char months[] = "JanFebMarAprMayJunJulAugSepOctNovDec";
    struct tm tm;
    (void)gmtime_r(&now, &tm);
    (void)snprintf(dst, DATE_LINE_MAX, "Date: %.3s, %02d %.3s %04d %02d:%02d:%02d GMT\r\n",
        days + 3 * tm.tm_wday, tm.tm_mday, months + 3 * tm.tm_mon, tm.tm_year + 1900, tm.tm_hour,
        tm.tm_min, tm.tm_sec);
}

/* Each thread formats it once a second. */
static void append_date(struct buf *b)
{
    static _Thread_local char line[DATE_LINE_MAX];
    static _Thread_local time_t formatted = -1;
    time_t now = (time_t)(clock_real_ms() / 1000);
    if (now != formatted)
        format_date(now, line);
    formatted = now;
    buf_append_cstr(b, line);
}

static void append_number(struct buf *b, uint64_t v)
{
    char digits[NUMBER_CHARS_MAX];
    size_t at = sizeof digits;
    do {
        digits[--at] = (char)('0' + v % 10);
        v /= 10;
    } while (v > 0);
    buf_append(b, digits + at, sizeof digits - at);
}

static void append_length(struct buf *b, uint64_t length)
{
    buf_append_cstr(b, "Content-Length: ");
    append_number(b, length);
    buf_append(b, "\r\n", 2);
}

/* True when the connection cannot carry another request after this one. */
static bool must_close(const struct http_exchange *x)
{
    const struct http_body *b = &x->conn->body;
    if (x->close || x->until_close || !x->head.keep_alive || atomic_load(&x->server->stopping))
        return true;
    if (b->ended)
        return false;
    return x->continue_due || (b->framing == HTTP_BODY_LENGTH && b->left > SERVER_DRAIN_BYTES_MAX);
}

/* `length` as for http_reply_begin. */
static void choose_framing(struct http_exchange *x, int status, int64_t length)
{
    bool none = status == 204 || status == 304;
    assert(status >= 200 && status <= 599);
    x->bodiless = none || slice_is(x->head.method, "HEAD");
    x->chunked = length < 0 && !none && x->head.minor == 1;
    x->until_close = length < 0 && !none && !x->chunked;
    x->reply_left = length < 0 ? 0 : (uint64_t)length;
    x->close = must_close(x);
}

static void append_head(
    const struct http_exchange *x, struct buf *b, int status, const char *content_type)
{
    (void)buf_reserve(b, HEAD_USUAL + x->headers.len);
    buf_append_cstr(b, "HTTP/1.1 ");
    append_number(b, (uint64_t)status);
    buf_append_char(b, ' ');
    buf_append_cstr(b, http_status_phrase(status));
    buf_append(b, "\r\n", 2);
    append_date(b);
    if (content_type) {
        assert(http_is_field_value(slice_cstr(content_type)));
        buf_append_cstr(b, "Content-Type: ");
        buf_append_cstr(b, content_type);
        buf_append(b, "\r\n", 2);
    }
    buf_append_slice(b, buf_slice(&x->headers));
    if (x->chunked)
        buf_append_cstr(b, "Transfer-Encoding: chunked\r\n");
    else if (!x->until_close && status != 204 && status != 304)
        append_length(b, x->reply_left);
    if (x->close)
        buf_append_cstr(b, "Connection: close\r\n");
    else if (x->head.minor == 0)
        buf_append_cstr(b, "Connection: keep-alive\r\n");
    buf_append(b, "\r\n", 2);
    b->failed = b->failed || x->headers.failed;
}

static int broken(struct http_exchange *x, enum err_kind kind)
{
    x->reply = REPLY_BROKEN;
    x->broken_kind = kind;
    return -1;
}

static int send_reply(struct http_exchange *x, struct iovec *iov, size_t n, struct err *e)
{
    if (http_send_iov(x->conn->in.fd, iov, n, exchange_patience(x), e) < 0)
        return broken(x, e->kind);
    return 0;
}

/* The head and, in the same call, the start of the body. */
static int send_head(
    struct http_exchange *x, int status, const char *content_type, struct slice body, struct err *e)
{
    AUTO_BUF struct buf head = BUF_INIT(HEAD_MAX);
    append_head(x, &head, status, content_type);
    if (head.failed) {
        err_set(e, ERR_INTERNAL, "response headers too large");
        return broken(x, e->kind);
    }
    struct iovec iov[] = {{head.p, head.len}, {(void *)(uintptr_t)body.p, body.n}};
    return send_reply(x, iov, x->bodiless ? 1 : 2, e);
}

int http_reply(struct http_exchange *x, int status, const char *content_type, struct slice body)
{
    struct err e;
    assert(x->reply == REPLY_NONE);
    choose_framing(x, status, (int64_t)body.n);
    if (send_head(x, status, content_type, body, &e) < 0)
        return -1;
    x->reply = REPLY_DONE;
    return 0;
}

void reply_bare(struct http_exchange *x, int status)
{
    (void)http_reply(x, status, /* content_type= */ NULL, slice_of(NULL, 0));
}

int http_reply_begin(
    struct http_exchange *x, int status, const char *content_type, int64_t length, struct err *e)
{
    assert(x->reply == REPLY_NONE);
    choose_framing(x, status, length);
    if (send_head(x, status, content_type, slice_of(NULL, 0), e) < 0)
        return -1;
    x->reply = REPLY_STREAM;
    return 0;
}

static int still_open(const struct http_exchange *x, struct err *e)
{
    assert(x->reply == REPLY_STREAM || x->reply == REPLY_BROKEN);
    if (x->reply == REPLY_BROKEN)
        return err_set(e, x->broken_kind, "the reply was broken off before");
    return 0;
}

static int write_chunk(struct http_exchange *x, const void *p, size_t n, struct err *e)
{
    char line[CHUNK_LINE_MAX];
    int line_n = snprintf(line, sizeof line, "%zx\r\n", n);
    char crlf[] = "\r\n";
    struct iovec iov[] = {{line, (size_t)line_n}, {(void *)(uintptr_t)p, n}, {crlf, 2}};
    return send_reply(x, iov, 3, e);
}

int http_reply_write(struct http_exchange *x, const void *p, size_t n, struct err *e)
{
    struct iovec iov = {(void *)(uintptr_t)p, n};
    if (still_open(x, e) < 0)
        return -1;
    if (n == 0 || x->bodiless)
        return 0;
    if (x->chunked)
        return write_chunk(x, p, n, e);
    if (!x->until_close) {
        assert(n <= x->reply_left);
        x->reply_left -= n;
    }
    return send_reply(x, &iov, 1, e);
}

int http_reply_end(struct http_exchange *x, struct err *e)
{
    char last[] = "0\r\n\r\n";
    struct iovec iov = {last, sizeof last - 1};
    if (still_open(x, e) < 0)
        return -1;
    if (!x->bodiless && x->reply_left > 0) {
        http_reply_abort(x);
        return err_set(e, ERR_INTERNAL, "the reply ended before its declared length");
    }
    if (x->chunked && !x->bodiless && send_reply(x, &iov, 1, e) < 0)
        return -1;
    x->reply = REPLY_DONE;
    return 0;
}

void http_reply_abort(struct http_exchange *x)
{
    /* Only a reset tells "broken" from "ended" where the end of the connection ends the body. */
    const struct linger reset = {.l_onoff = 1, .l_linger = 0};
    if (x->until_close)
        (void)setsockopt(x->conn->in.fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
    else
        (void)shutdown(x->conn->in.fd, SHUT_RDWR);
    (void)broken(x, ERR_CANCELED);
}

bool http_reply_begun(const struct http_exchange *x)
{
    return x->reply != REPLY_NONE;
}
