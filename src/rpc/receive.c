/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The request of a call: one message as the whole body, one in an envelope, or one envelope after
 * the other.
 *
 * Theory of operation. A request stream has no end envelope: it ends with the HTTP body. One
 * message at a time is in memory, in call->message, and the next is only read when the handler asks
 * for it, so a client that sends faster than the handler works is held back by TCP. The size of a
 * message is checked before it is read, and memory grows with what has come, not with what was
 * announced.
 */
#include <assert.h>

#include "base/clock.h"
#include "http/server.h"
#include "rpc/rpc_int.h"
#include "rpc/server_int.h"
#include "rpc/wire_int.h"

enum { READ_CHUNK_BYTES = 64 * 1024 };

/* Reads up to `n` bytes; less only at the body's end. Returns the count or -1. */
static ssize_t read_some(struct rpc_call *call, void *dst, size_t n, struct err *e)
{
    size_t done = 0;
    while (done < n) {
        ssize_t got;
        /* A client that never pauses makes no read wait. */
        if (clock_mono_ms() >= call->deadline)
            return err_set(e, ERR_TIMEOUT, "the call's deadline has passed");
        got = http_body_read(call->x, (char *)dst + done, n - done, e);
        if (got < 0 && e->kind == ERR_PROTOCOL)
            return err_set(e, ERR_CANCELED, "the client left inside its request");
        if (got <= 0)
            return got < 0 ? -1 : (ssize_t)done;
        done += (size_t)got;
    }
    return (ssize_t)done;
}

static int read_announced(struct rpc_call *call, size_t n, struct err *e)
{
    struct buf *body = &call->message;
    while (body->len < n) {
        size_t left = n - body->len;
        size_t want = left < READ_CHUNK_BYTES ? left : READ_CHUNK_BYTES;
        char *at = buf_reserve(body, want);
        ssize_t got;
        if (!at)
            return err_set(e, ERR_NOMEM, "no memory for a message of %zu bytes", n);
        got = read_some(call, at, want, e);
        if (got < 0)
            return -1;
        if ((size_t)got < want)
            return err_set(e, ERR_INVALID, "the request's envelope is cut off");
        buf_commit(body, want);
    }
    return 0;
}

static int check_envelope(const struct rpc_envelope *env, size_t max_bytes, struct err *e)
{
    if (env->flags & RPC_FLAG_COMPRESSED)
        return err_set(e, ERR_PROTOCOL, "compressed message without an encoding");
    if (env->flags != 0)
        return err_set(e, ERR_INVALID, "unknown envelope flags 0x%02x", env->flags);
    if (env->length > max_bytes)
        return err_set(
            e, ERR_TOO_LARGE, "message of %u bytes is larger than %zu", env->length, max_bytes);
    return 0;
}

/* Reads one envelope into call->message. 1, 0 when the body ends instead, -1. */
static int read_envelope(struct rpc_call *call, struct err *e)
{
    unsigned char head[RPC_ENVELOPE_BYTES];
    struct rpc_envelope env;
    ssize_t got = read_some(call, head, sizeof head, e);
    if (got <= 0)
        return (int)got;
    if (got < RPC_ENVELOPE_BYTES)
        return err_set(e, ERR_INVALID, "the request's envelope is cut off");
    env = rpc_envelope_parse(head);
    buf_reset(&call->message);
    if (check_envelope(&env, call->message.max, e) < 0 || read_announced(call, env.length, e) < 0)
        return -1;
    return 1;
}

/* A server stream's request is exactly one envelope. */
static int read_only_envelope(struct rpc_call *call, struct err *e)
{
    char more;
    int rc = read_envelope(call, e);
    if (rc < 0)
        return -1;
    if (rc == 0)
        return err_set(e, ERR_UNSUPPORTED, "the request holds no message");
    rc = (int)read_some(call, &more, 1, e);
    if (rc > 0)
        return err_set(e, ERR_UNSUPPORTED, "the request holds more than one message");
    return rc;
}

int rpc_receive_only(struct rpc_call *call, void **ret, struct err *e)
{
    const struct rpc_method *m = call->method;
    void *req = arena_alloc(call->arena, m->request->size);
    int rc;
    if (!req)
        return rpc_arena_full(e);
    rc = m->stream ? read_only_envelope(call, e) : http_body_read_all(call->x, &call->message, e);
    if (rc < 0 ||
        rpc_decode(m->request, call->codec, buf_slice(&call->message), call->arena, req, e) < 0)
        return -1;
    *ret = req;
    return 0;
}

int rpc_receive(struct rpc_call *call, struct arena *arena, void *msg, struct err *e)
{
    const struct rpc_method *m = call->method;
    int rc;
    assert(m->client_stream);
    rc = read_envelope(call, e);
    if (rc <= 0)
        return rc;
    rc = rpc_decode(m->request, call->codec, buf_slice(&call->message), arena, msg, e);
    return rc < 0 ? -1 : 1;
}
