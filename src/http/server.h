/* SPDX-License-Identifier: Apache-2.0 */
/*
 * HTTP/1.1 server over a listening descriptor (TCP or unix).
 *
 * One epoll set; connections are armed one-shot. A worker reads the head without blocking, then
 * runs the handler as straight-line blocking code with deadlines. The pool grows when the last
 * waiting worker is taken and shrinks when idle. Idle connections own neither thread nor buffer.
 * What the handler did not read of a body is drained up to a bound, else the connection is closed.
 */
#ifndef TORPOR_HTTP_SERVER_H
#define TORPOR_HTTP_SERVER_H

#include "base/arena.h"
#include "base/buf.h"
#include "http/parse.h"

struct http_server;
struct http_exchange; /* one request and its response; valid inside the handler only */

typedef void http_handler(struct http_exchange *x, void *ctx);
/* Answers a request that never reached the handler (malformed head, too many connections...), with
 * http_error_status(x) and a body of its choice; what it leaves unanswered gets a bare status. The
 * request may be unknown: http_request(x) may have empty fields. The connection is closed
 * afterwards. */
typedef void http_error_handler(struct http_exchange *x, const struct err *why, void *ctx);
/* Decides whether a fresh connection is served, e.g. by SO_PEERCRED. False closes it. */
typedef bool http_accept_filter(int fd, void *ctx);

/* A kind of work with a bound of its own, e.g. requests, streams, tunnels. A request is in its
 * class for as long as its handler runs. */
struct http_class {
    const char *name; /* for the refusal; outlives the server */
    size_t max;       /* requests in their handlers at once; 0: no bound */
};
enum { HTTP_CLASSES_MAX = 8, HTTP_CLASS_RESERVED = -1 };
/* The index of the request's class. HTTP_CLASS_RESERVED: never refused, for health checks; such
 * handlers must not block. */
typedef int http_classifier(const struct http_request_head *h, void *ctx);

struct http_server_config {
    int listen_fd; /* the server owns it once started */
    http_handler *handler;
    http_error_handler *on_error;      /* NULL: a bare status */
    http_accept_filter *accept_filter; /* NULL: everyone */
    void *ctx;
    /* With `classify`, what is beyond a class's bound, or would take the last of threads_max
     * workers from the reserved class, goes to on_error with ERR_NO_CAPACITY: 503, with a
     * Retry-After of its own or, in a bare status, ours. The connection is kept. NULL: no classes,
     * no bounds. */
    http_classifier *classify;
    const struct http_class *classes; /* copied; at most HTTP_CLASSES_MAX */
    size_t n_classes;
    int retry_after_sec;    /* of a bare 503; 0: 1 */
    size_t threads_max;     /* 0: 64 */
    size_t connections_max; /* 0: 4096; beyond, new ones get 503 */
    size_t stack_bytes;     /* 0: 256 KiB */
    size_t arena_bytes_max; /* of one exchange; 0: 4 MiB */
    int head_timeout_ms;    /* a started head must be complete; 0: 10000 */
    int idle_timeout_ms;    /* between requests; 0: 60000 */
    int io_timeout_ms;      /* without progress on a body, either way; 0: 30000 */
};

/* Starts the workers. Handlers may run on any of them, several at once. */
struct http_server *http_server_start(const struct http_server_config *config, struct err *e);
/* Stops accepting, wakes idle connections and handlers that read bodies or poll http_fd for
 * POLLRDHUP, waits for the handlers, frees. What still sends after 5 s is cut. NULL is fine. Not
 * from a handler. */
void http_server_stop(struct http_server *s);
/* How many requests of that class are in their handlers. Any thread. */
size_t http_server_class_busy(struct http_server *s, size_t class);

/* --- inside a handler; all of one exchange on the handler's thread --- */

const struct http_request_head *http_request(const struct http_exchange *x);
/* In an error handler: the status to answer, which the error's kind alone does not tell (408, 414,
 * 505 are not what a handler's own timeout, size or version error would be). 500 elsewhere. */
int http_error_status(const struct http_exchange *x);
/* The first header of that name; p == NULL when absent. */
struct slice http_request_header(const struct http_exchange *x, const char *name);
/* Decoded value of the first query parameter of that name; false when absent or malformed. The text
 * lives in the exchange's arena. */
bool http_request_query(struct http_exchange *x, const char *name, struct slice *ret);
struct arena *http_arena(struct http_exchange *x);
int http_fd(const struct http_exchange *x); /* for SO_PEERCRED, SO_ERROR; stays the server's */

/* Reads and writes of this exchange that wait for the client fail with ERR_TIMEOUT at `deadline`,
 * beside io_timeout_ms. DEADLINE_NEVER, as at its start, takes that back. */
void http_set_deadline(struct http_exchange *x, int64_t deadline);

/* Reads body bytes: > 0, 0 at the end, -1 (ERR_TIMEOUT, ERR_PROTOCOL when the client leaves,
 * ERR_INVALID chunking, ERR_CANCELED when the server stops). Sends 100 Continue first where the
 * client waits for it. */
ssize_t http_body_read(struct http_exchange *x, void *dst, size_t n, struct err *e);
/* Appends the whole body; beyond the buffer's bound ERR_TOO_LARGE (a declared length is checked
 * before anything is read). */
int http_body_read_all(struct http_exchange *x, struct buf *dst, struct err *e);

/* Adds a response header. Names and values are ours or validated: CR, LF and NUL assert. Must come
 * before the reply begins. Date, Content-Length, Transfer-Encoding and Connection are the server's.
 */
void http_reply_header(struct http_exchange *x, const char *name, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
/* Whole reply. `content_type` NULL sends none. A second reply to one exchange asserts.
 * -1 when the client is gone; callers may ignore it. */
int http_reply(struct http_exchange *x, int status, const char *content_type, struct slice body);
/* Streamed reply: `length` bytes, or chunked when negative. Head and each write go out at once. A
 * handler that returns without http_reply_end cuts the connection. Errors: ERR_CANCELED when the
 * client is gone, ERR_TIMEOUT when it does not read; later writes fail the same way. */
int http_reply_begin(
    struct http_exchange *x, int status, const char *content_type, int64_t length, struct err *e);
int http_reply_write(struct http_exchange *x, const void *p, size_t n, struct err *e);
int http_reply_end(struct http_exchange *x, struct err *e);
/* Cuts the connection, so that a reply that broke half-way is visibly broken. */
void http_reply_abort(struct http_exchange *x);
bool http_reply_begun(const struct http_exchange *x);

/* --- leaving HTTP (upgrade.c) --- */

/* True when the client asks for that protocol: Connection: upgrade and Upgrade name it. */
bool http_wants_upgrade(const struct http_exchange *x, const char *protocol);
/* Answers 101 with the headers added before. From here on http_fd speaks that protocol, the handler
 * reads and writes it directly (it does not block; use deadlines), and no other reply is possible.
 * A stopping server shuts it down for reading. The connection ends when the handler returns, after
 * what was sent has been taken by the client. ERR_INVALID (unanswered) for a request with a body.
 */
int http_reply_upgrade(struct http_exchange *x, const char *protocol, struct err *e);
/* After http_reply_upgrade: what the client sent behind its head. Lives as long as the handler. */
struct slice http_early_bytes(const struct http_exchange *x);
/* After http_reply_upgrade: the descriptor becomes the caller's (non-blocking); the server forgets
 * it, also when it stops. http_fd is -1 then; http_early_bytes still answers. */
int http_take_fd(struct http_exchange *x);

/* True once the client has closed its end (also while the handler is busy elsewhere), or the server
 * stops. A handler that waits can poll http_fd for POLLRDHUP: it reports both. */
bool http_peer_gone(const struct http_exchange *x);

#endif
