/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Connect protocol, server side (connectrpc.com/docs/protocol).
 *
 * Theory of operation. One call is one exchange on one thread: look the path up, check method and
 * headers, read and decode the request, run the handler, answer. What is wrong before the content
 * type is known to be ours is answered in plain HTTP (405, 415); afterwards errors go the
 * protocol's way: unary with the code's HTTP status and a JSON body, streams with status 200 and an
 * end envelope. A stream's reply begins with its first message, or with its end.
 *
 * The deadline that the client gave is the exchange's for reading and writing, so nobody waits for
 * a client longer than it waits for us. Only the error that tells it so may take the server's usual
 * time to go out.
 */
#include "rpc/server.h"

#include <assert.h>
#include <errno.h>
#include <poll.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "http/server.h"
#include "http/status.h"
#include "proto/limits.h"
#include "rpc/rpc_int.h"
#include "rpc/server_int.h"
#include "rpc/wire_int.h"

enum {
    TIMEOUT_DIGITS_MAX = 10, /* the protocol's own bound */
    HTTP_METHOD_NOT_ALLOWED = 405,
    HTTP_UNSUPPORTED_MEDIA_TYPE = 415
};

/* --- errors --- */

/* The exact kind and field, beside what the protocol itself carries. The field may have come from
 * the request, so it only goes into a header when it is safe there. */
static void add_error_headers(struct http_exchange *x, const struct err *why)
{
    http_reply_header(x, RPC_HEADER_KIND, "%s", err_kind_name(why->kind));
    if (why->where[0] && rpc_is_header_safe(why->where))
        http_reply_header(x, RPC_HEADER_FIELD, "%s", why->where);
}

static void reply_unary_error(struct http_exchange *x, const struct err *why)
{
    AUTO_BUF struct buf body = BUF_INIT(RPC_ERROR_BYTES_MAX);
    struct json_writer w;
    http_set_deadline(x, DEADLINE_NEVER);
    json_writer_init(&w, &body);
    rpc_error_write(&w, why);
    add_error_headers(x, why);
    (void)http_reply(x, rpc_http_status_from_code(rpc_code_from_kind(why->kind)),
        rpc_content_type(RPC_CODEC_JSON, /* is_stream= */ false), buf_slice(&body));
}

static void write_metadata(struct json_writer *w, const char *name, const char *value)
{
    json_key(w, name);
    json_array_begin(w);
    json_cstr(w, value);
    json_array_end(w);
}

/* {} or {"error":{...},"metadata":{...}}. */
static void write_end(struct json_writer *w, const struct err *why)
{
    json_object_begin(w);
    if (why) {
        json_key(w, "error");
        rpc_error_write(w, why);
        json_key(w, "metadata");
        json_object_begin(w);
        write_metadata(w, RPC_HEADER_KIND, err_kind_name(why->kind));
        if (why->where[0])
            write_metadata(w, RPC_HEADER_FIELD, why->where);
        json_object_end(w);
    }
    json_object_end(w);
}

static int begin_stream(struct rpc_call *call, struct err *e)
{
    if (http_reply_begun(call->x))
        return 0;
    return http_reply_begin(call->x, HTTP_OK, rpc_content_type(call->codec, /* is_stream= */ true),
        /* length= */ -1, e);
}

/* Ends the stream; `why` is NULL when all went well. When even that cannot be sent, the connection
 * is cut, so that the client sees a broken stream. */
static void end_stream(struct rpc_call *call, const struct err *why)
{
    AUTO_BUF struct buf out = BUF_INIT(RPC_ERROR_BYTES_MAX);
    struct json_writer w;
    struct err ignored = {0};
    size_t start = rpc_envelope_begin(&out, RPC_FLAG_END);
    http_set_deadline(call->x, DEADLINE_NEVER);
    json_writer_init(&w, &out);
    write_end(&w, why);
    if (rpc_envelope_end(&out, start, &ignored) < 0 || begin_stream(call, &ignored) < 0 ||
        http_reply_write(call->x, out.p, out.len, &ignored) < 0 ||
        http_reply_end(call->x, &ignored) < 0)
        http_reply_abort(call->x);
}

static int deadline_passed(struct err *e)
{
    return err_set(e, ERR_TIMEOUT, "the call's deadline has passed");
}

/* Whether the call's messages are in envelopes, both ways. */
static bool is_stream(const struct rpc_method *m)
{
    return !m->unary;
}

static void reply_error(struct rpc_call *call, const struct err *why)
{
    if (is_stream(call->method))
        end_stream(call, why);
    else
        reply_unary_error(call->x, why);
}

/* --- the request --- */

static int parse_timeout(struct slice s, int64_t *ret_deadline, struct err *e)
{
    uint64_t ms;
    if (!s.p)
        return 0;
    if (s.n > TIMEOUT_DIGITS_MAX || !slice_parse_u64(s, &ms) || ms == 0)
        return err_set(e, ERR_INVALID, "Connect-Timeout-Ms must be 1 to %d digits, not zero",
            TIMEOUT_DIGITS_MAX);
    *ret_deadline = deadline_in_ms((int64_t)ms);
    return 0;
}

static int check_headers(struct rpc_call *call, struct err *e)
{
    struct slice version = http_request_header(call->x, "Connect-Protocol-Version");
    struct slice encoding = http_request_header(
        call->x, is_stream(call->method) ? "Connect-Content-Encoding" : "Content-Encoding");
    if (version.p && !slice_is(version, "1"))
        return err_set(e, ERR_INVALID, "Connect-Protocol-Version must be 1");
    if (encoding.p && !slice_eq_nocase(encoding, SLICE_LIT("identity")))
        return err_set(e, ERR_UNSUPPORTED, "compression is not supported, only identity");
    return parse_timeout(http_request_header(call->x, "Connect-Timeout-Ms"), &call->deadline, e);
}

/* --- the call --- */

static int run_unary(struct rpc_call *call, const void *req, struct buf *body, struct err *e)
{
    const struct rpc_method *m = call->method;
    void *resp = arena_alloc(call->arena, m->response->size);
    if (!resp)
        return rpc_arena_full(e);
    if (m->unary(call, req, resp, e) < 0)
        return -1;
    return rpc_encode(m->response, call->codec, resp, body, e);
}

static void serve_unary(struct rpc_call *call, const void *req)
{
    AUTO_BUF struct buf body = BUF_INIT(LIMIT_RPC_MESSAGE_BYTES);
    struct err e = {0};
    if (run_unary(call, req, &body, &e) < 0)
        reply_unary_error(call->x, &e);
    else
        (void)http_reply(call->x, HTTP_OK, rpc_content_type(call->codec, /* is_stream= */ false),
            buf_slice(&body));
}

static int run_client_stream(struct rpc_call *call, struct err *e)
{
    const struct rpc_method *m = call->method;
    void *resp = arena_alloc(call->arena, m->response->size);
    if (!resp)
        return rpc_arena_full(e);
    if (m->client_stream(call, resp, e) < 0)
        return -1;
    return rpc_send(call, m->response, resp, e);
}

/* What comes before a unary or a server stream's handler. */
static int receive_request(struct rpc_call *call, void **ret, struct err *e)
{
    if (rpc_receive_only(call, ret, e) < 0)
        return -1;
    return clock_mono_ms() < call->deadline ? 0 : deadline_passed(e);
}

void rpc_set_deadline(struct rpc_call *call, int64_t deadline)
{
    call->deadline = deadline;
    http_set_deadline(call->x, deadline);
}

static void serve_call(struct rpc_call *call)
{
    const struct rpc_method *m = call->method;
    struct err e = {0};
    void *req = NULL;
    if (check_headers(call, &e) < 0) {
        reply_error(call, &e);
        return;
    }
    rpc_set_deadline(call, call->deadline);
    if (m->client_stream)
        end_stream(call, run_client_stream(call, &e) < 0 ? &e : NULL);
    else if (receive_request(call, &req, &e) < 0)
        reply_error(call, &e);
    else if (m->stream)
        end_stream(call, m->stream(call, req, &e) < 0 ? &e : NULL);
    else
        serve_unary(call, req);
}

static const struct rpc_method *find_method(
    const struct http_exchange *x, const struct rpc_method *methods, size_t n_methods)
{
    struct slice path = http_request(x)->path;
    for (size_t i = 0; i < n_methods; i++)
        if (slice_is(path, methods[i].path))
            return &methods[i];
    return NULL;
}

static void refuse_media_type(struct http_exchange *x, const struct rpc_method *m)
{
    http_reply_header(x, "Accept-Post", "%s, %s", rpc_content_type(RPC_CODEC_JSON, is_stream(m)),
        rpc_content_type(RPC_CODEC_PROTO, is_stream(m)));
    (void)http_reply(x, HTTP_UNSUPPORTED_MEDIA_TYPE, /* content_type= */ NULL, SLICE_LIT(""));
}

bool rpc_serve(struct http_exchange *x, const struct rpc_method *methods, size_t n_methods,
    size_t max_bytes, void *ctx)
{
    const struct rpc_method *m = find_method(x, methods, n_methods);
    struct rpc_call call = {.x = x,
        .arena = http_arena(x),
        .ctx = ctx,
        .deadline = DEADLINE_NEVER,
        .method = m,
        .message = BUF_INIT(max_bytes)};
    bool streams;
    if (!m)
        return false;
    assert(!!m->unary + !!m->stream + !!m->client_stream == 1);
    if (!slice_is(http_request(x)->method, "POST")) {
        http_reply_header(x, "Allow", "POST");
        (void)http_reply(x, HTTP_METHOD_NOT_ALLOWED, /* content_type= */ NULL, SLICE_LIT(""));
    } else if (!rpc_content_type_parse(
                   http_request_header(x, "Content-Type"), &call.codec, &streams) ||
               streams != is_stream(m)) {
        refuse_media_type(x, m);
    } else {
        serve_call(&call);
    }
    buf_done(&call.message);
    return true;
}

int rpc_send(struct rpc_call *call, const struct rpc_message *m, const void *msg, struct err *e)
{
    AUTO_BUF struct buf out = BUF_INIT(LIMIT_RPC_MESSAGE_BYTES);
    size_t start = rpc_envelope_begin(&out, /* flags= */ 0);
    if (clock_mono_ms() >= call->deadline)
        return deadline_passed(e);
    if (rpc_encode(m, call->codec, msg, &out, e) < 0 || rpc_envelope_end(&out, start, e) < 0 ||
        begin_stream(call, e) < 0)
        return -1;
    return http_reply_write(call->x, out.p, out.len, e);
}

int rpc_check(const struct rpc_call *call, struct err *e)
{
    if (http_peer_gone(call->x))
        return err_set(e, ERR_CANCELED, "the client is gone");
    return clock_mono_ms() < call->deadline ? 0 : deadline_passed(e);
}

int rpc_wait(const struct rpc_call *call, int fd, short events, int64_t deadline, struct err *e)
{
    struct pollfd p[] = {
        {.fd = fd, .events = events}, {.fd = http_fd(call->x), .events = POLLRDHUP}};
    int64_t until = deadline < call->deadline ? deadline : call->deadline;
    int n;
    do
        n = poll(p, ARRAY_LEN(p), deadline_poll_ms(until));
    while ((n < 0 && errno == EINTR) || (n == 0 && clock_mono_ms() < until));
    if (n < 0)
        return err_sys(e, errno, "poll");
    if (p[0].revents)
        return p[0].revents;
    if (p[1].revents)
        return err_set(e, ERR_CANCELED, "the client is gone");
    return clock_mono_ms() < call->deadline ? 0 : deadline_passed(e);
}
