/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Connect protocol, client side. The connection is the caller's: after a call that was read to its
 * end it may be used again (http_conn_reusable says so), after any other it may not.
 */
#include "rpc/client.h"

#include <assert.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>

#include "http/client.h"
#include "http/status.h"
#include "proto/limits.h"
#include "rpc/wire_int.h"

enum { OWN_HEADERS = 3, TIMEOUT_MS_MAX_DIGITS = 10, READ_CHUNK_BYTES = 64 * 1024 };

/* The protocol allows ten digits; longer patience is none. */
#define TIMEOUT_MS_MAX INT64_C(9999999999)

/* --- the request --- */

struct headers {
    struct http_header list[HTTP_HEADERS_MAX];
    size_t n;
    char timeout[TIMEOUT_MS_MAX_DIGITS + 1];
};

static void add_header(struct headers *h, const char *name, const char *value)
{
    h->list[h->n++] = (struct http_header){slice_cstr(name), slice_cstr(value)};
}

static int collect_headers(
    struct headers *h, const struct rpc_request *r, bool is_stream, struct err *e)
{
    int n;
    h->n = 0;
    if (r->n_headers > HTTP_HEADERS_MAX - OWN_HEADERS)
        return err_set(e, ERR_INVALID, "too many headers: %zu", r->n_headers);
    add_header(h, "Content-Type", rpc_content_type(r->codec, is_stream));
    add_header(h, "Connect-Protocol-Version", "1");
    if (r->timeout_ms > 0 && r->timeout_ms <= TIMEOUT_MS_MAX) {
        n = snprintf(h->timeout, sizeof h->timeout, "%" PRId64, r->timeout_ms);
        assert(n > 0 && (size_t)n < sizeof h->timeout);
        add_header(h, "Connect-Timeout-Ms", h->timeout);
    }
    for (size_t i = 0; i < r->n_headers; i++)
        h->list[h->n++] = r->headers[i];
    return 0;
}

/* `length` as for http_call. */
static int send_request(struct http_conn *c, const struct rpc_request *r, bool is_stream,
    struct slice body, int64_t length, struct err *e)
{
    struct headers h;
    struct http_call call = {.method = "POST",
        .target = r->path,
        .host = "localhost",
        .body = body,
        .body_length = length};
    if (collect_headers(&h, r, is_stream, e) < 0)
        return -1;
    call.headers = h.list;
    call.n_headers = h.n;
    return http_send(c, &call, r->deadline, e);
}

static int encode_request(
    const struct rpc_request *r, const void *msg, bool is_stream, struct buf *body, struct err *e)
{
    size_t start = is_stream ? rpc_envelope_begin(body, /* flags= */ 0) : 0;
    if (rpc_encode(r->request, r->codec, msg, body, e) < 0)
        return -1;
    return is_stream ? rpc_envelope_end(body, start, e) : 0;
}

/* Sends the request and waits for the head of the reply. */
static int start_call(struct http_conn *c, const struct rpc_request *r, bool is_stream,
    const struct http_response_head **ret, struct err *e)
{
    AUTO_BUF struct buf body = BUF_INIT(LIMIT_RPC_MESSAGE_BYTES);
    if (encode_request(r, r->msg, is_stream, &body, e) < 0 ||
        send_request(c, r, is_stream, buf_slice(&body), HTTP_BODY_IS_SLICE, e) < 0)
        return -1;
    return http_recv_head(c, ret, r->deadline, e);
}

/* --- the reply --- */

static struct slice header(const struct http_response_head *head, const char *name)
{
    return http_header_find(head->headers, head->n_headers, name);
}

static bool is_expected(
    const struct http_response_head *head, const struct rpc_request *r, bool is_stream)
{
    enum rpc_codec codec;
    bool streams;
    return head->status == HTTP_OK &&
           rpc_content_type_parse(header(head, "Content-Type"), &codec, &streams) &&
           codec == r->codec && streams == is_stream;
}

/* The kind for a reply that is not of this protocol, as the protocol maps statuses to codes. */
static enum err_kind kind_from_status(int status)
{
    switch (status) {
    case 200:
    case 400:
        return ERR_PROTOCOL;
    case 401:
        return ERR_UNAUTHORIZED;
    case 403:
        return ERR_FORBIDDEN;
    case 404:
        return ERR_UNSUPPORTED;
    case 429:
    case 502:
    case 503:
    case 504:
        return ERR_UNAVAILABLE;
    default:
        return ERR_AGENT;
    }
}

/* Copies a header's value, which dies with the next read; too long ones are as good as absent. */
static void keep_header(
    const struct http_response_head *head, const char *name, char *dst, size_t size)
{
    dst[0] = '\0';
    (void)slice_copy_cstr(header(head, name), dst, size);
}

/* Turns a reply that is no success into `e`. Returns -1. */
static int read_error(struct http_conn *c, const struct rpc_request *r,
    const struct http_response_head *head, struct err *e)
{
    AUTO_BUF struct buf body = BUF_INIT(RPC_ERROR_BYTES_MAX);
    const struct json_value *v = NULL;
    char kind[ERR_WHERE_MAX];
    char field[ERR_WHERE_MAX];
    struct err ignored = {0};
    struct arena arena;
    int status = head->status;
    keep_header(head, RPC_HEADER_KIND, kind, sizeof kind);
    keep_header(head, RPC_HEADER_FIELD, field, sizeof field);
    if (http_recv_body_all(c, &body, r->deadline, &ignored) < 0)
        return err_set(e, kind_from_status(status), "%s: status %d", r->path, status);
    arena_init(&arena, 16 * (size_t)RPC_ERROR_BYTES_MAX);
    if (json_parse(buf_slice(&body), &arena, &v, &ignored) == 0 && json_get(v, "code"))
        rpc_error_read(v, slice_cstr(kind), slice_cstr(field), kind_from_status(status), e);
    else
        err_set(e, kind_from_status(status), "%s: status %d", r->path, status);
    arena_done(&arena);
    return -1;
}

/* A reply that we cannot read is the peer's fault and not ours. */
static int decode_reply(
    const struct rpc_request *r, struct slice bytes, struct arena *arena, void *resp, struct err *e)
{
    if (rpc_decode(r->response, r->codec, bytes, arena, resp, e) == 0)
        return 0;
    if (e->kind == ERR_INVALID)
        e->kind = ERR_PROTOCOL;
    return err_wrap(e, "reply of %s", r->path);
}

int rpc_call_unary(struct http_conn *c, const struct rpc_request *r, struct arena *arena,
    void *resp, struct err *e)
{
    AUTO_BUF struct buf body = BUF_INIT(r->max_bytes);
    const struct http_response_head *head;
    if (start_call(c, r, /* is_stream= */ false, &head, e) < 0)
        return -1;
    if (!is_expected(head, r, /* is_stream= */ false))
        return read_error(c, r, head, e);
    if (http_recv_body_all(c, &body, r->deadline, e) < 0)
        return -1;
    return decode_reply(r, buf_slice(&body), arena, resp, e);
}

/* --- streams --- */

int rpc_stream_open(
    struct rpc_stream *s, struct http_conn *c, const struct rpc_request *r, struct err *e)
{
    const struct http_response_head *head;
    *s = (struct rpc_stream){.conn = c, .request = r, .message = BUF_INIT(r->max_bytes)};
    if (start_call(c, r, /* is_stream= */ true, &head, e) < 0)
        return -1;
    return is_expected(head, r, /* is_stream= */ true) ? 0 : read_error(c, r, head, e);
}

static int broken_stream(const struct rpc_stream *s, struct err *e)
{
    return err_set(e, ERR_PROTOCOL, "%s: the stream broke off", s->request->path);
}

/* Appends `n` bytes to the message; memory grows with what has come. */
static int read_exactly(struct rpc_stream *s, size_t n, struct err *e)
{
    while (n > 0) {
        size_t want = n < READ_CHUNK_BYTES ? n : READ_CHUNK_BYTES;
        char *at = buf_reserve(&s->message, want);
        ssize_t got;
        if (!at)
            return err_set(e, ERR_NOMEM, "no memory for a message");
        got = http_recv_body(s->conn, at, want, s->request->deadline, e);
        if (got <= 0)
            return got < 0 ? -1 : broken_stream(s, e);
        buf_commit(&s->message, (size_t)got);
        n -= (size_t)got;
    }
    return 0;
}

/* Reads one envelope; its contents are then in `s->message`. */
static int read_envelope(struct rpc_stream *s, struct rpc_envelope *ret, struct err *e)
{
    unsigned char head[RPC_ENVELOPE_BYTES];
    struct rpc_envelope env;
    size_t max;
    buf_reset(&s->message);
    s->message.max = sizeof head;
    if (read_exactly(s, sizeof head, e) < 0)
        return -1;
    memcpy(head, s->message.p, sizeof head);
    env = rpc_envelope_parse(head);
    max = env.flags == RPC_FLAG_END ? RPC_ERROR_BYTES_MAX : s->request->max_bytes;
    if (env.flags != 0 && env.flags != RPC_FLAG_END)
        return err_set(e, ERR_PROTOCOL, "unknown envelope flags 0x%02x", env.flags);
    if (env.length > max)
        return err_set(e, ERR_TOO_LARGE, "message of %u bytes is larger than %zu", env.length, max);
    buf_reset(&s->message);
    s->message.max = max;
    if (read_exactly(s, env.length, e) < 0)
        return -1;
    *ret = env;
    return 0;
}

/* First value of a name in the end envelope's metadata. */
static struct slice metadata(const struct json_value *end, const char *name)
{
    const struct json_value *list = json_get(json_get(end, "metadata"), name);
    if (!list || list->type != JSON_ARRAY || !list->first || list->first->type != JSON_STRING)
        return SLICE_LIT("");
    return list->first->string;
}

static int read_end(const struct rpc_stream *s, struct arena *a, struct err *e)
{
    const struct json_value *end;
    const struct json_value *error;
    struct err ignored = {0};
    if (json_parse(buf_slice(&s->message), a, &end, &ignored) < 0 || end->type != JSON_OBJECT)
        return err_set(e, ERR_PROTOCOL, "%s: malformed end of the stream", s->request->path);
    error = json_get(end, "error");
    if (!error || error->type == JSON_NULL)
        return 0;
    return rpc_error_read(
        error, metadata(end, RPC_HEADER_KIND), metadata(end, RPC_HEADER_FIELD), ERR_INTERNAL, e);
}

/* The body must end with the end envelope; reading that far makes the connection reusable. */
static int finish_body(const struct rpc_stream *s, struct err *e)
{
    char more;
    ssize_t got = http_recv_body(s->conn, &more, 1, s->request->deadline, e);
    if (got > 0)
        return err_set(e, ERR_PROTOCOL, "%s: bytes behind the end", s->request->path);
    return (int)got;
}

static int end_of_stream(const struct rpc_stream *s, struct err *e)
{
    struct arena arena;
    int rc;
    if (finish_body(s, e) < 0)
        return -1;
    arena_init(&arena, 16 * (size_t)RPC_ERROR_BYTES_MAX);
    rc = read_end(s, &arena, e);
    arena_done(&arena);
    return rc;
}

int rpc_stream_next(struct rpc_stream *s, struct arena *arena, void *resp, struct err *e)
{
    struct rpc_envelope env = {0};
    if (read_envelope(s, &env, e) < 0)
        return -1;
    if (env.flags == RPC_FLAG_END)
        return end_of_stream(s, e);
    return decode_reply(s->request, buf_slice(&s->message), arena, resp, e) < 0 ? -1 : 1;
}

void rpc_stream_done(struct rpc_stream *s)
{
    buf_done(&s->message);
}

/* --- client streams --- */

int rpc_stream_start(
    struct rpc_stream *s, struct http_conn *c, const struct rpc_request *r, struct err *e)
{
    *s = (struct rpc_stream){.conn = c, .request = r, .message = BUF_INIT(r->max_bytes)};
    return send_request(c, r, /* is_stream= */ true, SLICE_LIT(""), HTTP_BODY_STREAM, e);
}

/* Nothing may come before the request has ended but the answer, or the end of the connection. */
static bool server_speaks(const struct rpc_stream *s)
{
    struct pollfd p = {.fd = http_conn_fd(s->conn), .events = POLLIN | POLLRDHUP};
    return poll(&p, 1, /* timeout_ms= */ 0) > 0;
}

int rpc_stream_send(struct rpc_stream *s, const void *msg, struct err *e)
{
    AUTO_BUF struct buf body = BUF_INIT(LIMIT_RPC_MESSAGE_BYTES);
    const struct rpc_request *r = s->request;
    if (encode_request(r, msg, /* is_stream= */ true, &body, e) < 0)
        return -1;
    s->is_answered = s->is_answered || server_speaks(s);
    if (s->is_answered)
        return 0;
    if (http_send_body(s->conn, body.p, body.len, r->deadline, e) == 0)
        return 1;
    s->is_answered = e->kind == ERR_UNAVAILABLE;
    return s->is_answered ? 0 : -1;
}

/* The rest of a body that nobody reads is not sent: the connection ends with this call. */
static int end_request(struct rpc_stream *s, struct err *e)
{
    if (s->is_answered || http_send_end(s->conn, s->request->deadline, e) == 0 ||
        e->kind == ERR_UNAVAILABLE)
        return 0;
    return -1;
}

/* The end envelope behind the one message; `resp` is decoded already and stays. */
static int expect_end(struct rpc_stream *s, struct err *e)
{
    struct rpc_envelope env = {0};
    if (read_envelope(s, &env, e) < 0)
        return -1;
    if (env.flags != RPC_FLAG_END)
        return err_set(e, ERR_PROTOCOL, "%s: more than one answer", s->request->path);
    return end_of_stream(s, e);
}

int rpc_stream_finish(struct rpc_stream *s, struct arena *arena, void *resp, struct err *e)
{
    const struct rpc_request *r = s->request;
    const struct http_response_head *head;
    int rc;
    if (end_request(s, e) < 0 || http_recv_head(s->conn, &head, r->deadline, e) < 0)
        return -1;
    if (!is_expected(head, r, /* is_stream= */ true))
        return read_error(s->conn, r, head, e);
    rc = rpc_stream_next(s, arena, resp, e);
    if (rc == 0)
        return err_set(e, ERR_PROTOCOL, "%s: no answer", r->path);
    return rc < 0 ? -1 : expect_end(s, e);
}
