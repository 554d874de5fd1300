/* SPDX-License-Identifier: Apache-2.0 */
/*
 * HTTP/1.1 client over a connected descriptor. One thread at a time per connection. A connection
 * whose last exchange was read to its end may be used again (http_conn_reusable).
 */
#ifndef TORPOR_HTTP_CLIENT_H
#define TORPOR_HTTP_CLIENT_H

#include "base/buf.h"
#include "http/parse.h"

struct http_conn;

/* Takes over `fd` (also on failure). */
struct http_conn *http_conn_new(int fd, struct err *e);
/* Closes. NULL is fine. Returns NULL. */
struct http_conn *http_conn_free(struct http_conn *c);
int http_conn_fd(const struct http_conn *c);
/* True when the last exchange has ended, the server keeps the connection and has not closed it. */
bool http_conn_reusable(const struct http_conn *c);

struct http_call {
    const char *method;
    const char *target; /* already percent-encoded: bytes outside 0x21..0x7e are refused */
    const char *host;
    const struct http_header *headers; /* no framing headers; CR, LF, NUL are refused */
    size_t n_headers;
    struct slice body;   /* sent with the head */
    int64_t body_length; /* HTTP_BODY_IS_SLICE, or a length streamed later, or HTTP_BODY_STREAM */
    const char *upgrade; /* protocol to switch to, without a body; NULL: none */
};
#define HTTP_BODY_IS_SLICE                                                                         \
    (-1)                      /* Content-Length of `body`; none for a bodiless GET, HEAD, DELETE */
#define HTTP_BODY_STREAM (-2) /* chunked, by http_send_body until http_send_end */

/* Sends the head and `body`, which may be the first part of a longer body. Errors: ERR_INVALID for
 * a bad call, ERR_TIMEOUT, ERR_IO and ERR_UNAVAILABLE for the connection. ERR_UNAVAILABLE also says
 * that the server answered with an error, or closed, before it had read everything: stop sending;
 * http_recv_head still gives the answer if there is one. */
int http_send(struct http_conn *c, const struct http_call *call, int64_t deadline, struct err *e);
int http_send_body(struct http_conn *c, const void *p, size_t n, int64_t deadline, struct err *e);
int http_send_end(struct http_conn *c, int64_t deadline, struct err *e);

/* Receives the final response's head (1xx are skipped). It lives until the next http_send. May be
 * called while a streamed body is still being sent. ERR_PROTOCOL for a malformed one.
 * ERR_UNAVAILABLE when the server closed before its first byte: the request may be repeated on a
 * new connection if it is idempotent. */
int http_recv_head(
    struct http_conn *c, const struct http_response_head **ret, int64_t deadline, struct err *e);
/* After a head with status 101, which only comes to a call with `upgrade`: the descriptor becomes
 * the caller's, and the bytes that came behind the head are appended to `early`. The connection is
 * freed. ERR_NOMEM and ERR_TOO_LARGE (of `early`, at most 40 KiB) leave all as it was. */
int http_conn_take(struct http_conn *c, struct buf *early, struct err *e);
/* Body bytes: > 0, 0 at the end, -1. A body that ends early is ERR_PROTOCOL. */
ssize_t http_recv_body(struct http_conn *c, void *dst, size_t n, int64_t deadline, struct err *e);
/* Appends the rest of the body; ERR_TOO_LARGE beyond the buffer's bound. */
int http_recv_body_all(struct http_conn *c, struct buf *dst, int64_t deadline, struct err *e);

#endif
