/* SPDX-License-Identifier: Apache-2.0 */
/* Connect protocol, client side, over one http connection. One call at a time per connection. */
#ifndef TORPOR_RPC_CLIENT_H
#define TORPOR_RPC_CLIENT_H

#include "rpc/message.h"

struct http_conn;
struct http_header;

struct rpc_request {
    const char *path; /* "/package.Service/Method" */
    const struct rpc_message *request;
    const struct rpc_message *response;
    const void *msg;
    enum rpc_codec codec;
    const struct http_header *headers; /* further ones, e.g. X-Access-Token, X-Request-Id */
    size_t n_headers;
    int64_t timeout_ms; /* sent as Connect-Timeout-Ms when > 0 */
    int64_t deadline;   /* our own patience */
    size_t max_bytes;   /* of one response message */
};

/* Unary. The response is decoded into `resp` and `arena`. A Connect error becomes its kind (the
 * exact one where Torpor-Error says it) and message, with `where` from Torpor-Field. */
int rpc_call_unary(struct http_conn *c, const struct rpc_request *r, struct arena *arena,
    void *resp, struct err *e);

/* Server stream: open, then next until it returns 0 or -1.
 * Client stream: start, send any number of messages, then finish; done in any case. */
struct rpc_stream {
    struct http_conn *conn;
    const struct rpc_request *request; /* must outlive the stream */
    struct buf message;
    bool is_answered; /* before the request had ended */
};
int rpc_stream_open(
    struct rpc_stream *s, struct http_conn *c, const struct rpc_request *r, struct err *e);
/* 1: a message, decoded into `resp` and `arena`. 0: ended well. -1: ended with that error; a stream
 * without an end envelope is ERR_PROTOCOL. */
int rpc_stream_next(struct rpc_stream *s, struct arena *arena, void *resp, struct err *e);
void rpc_stream_done(struct rpc_stream *s);

/* Sends the head of a client stream; r->msg is not looked at. */
int rpc_stream_start(
    struct rpc_stream *s, struct http_conn *c, const struct rpc_request *r, struct err *e);
/* Sends one message, and waits while the server does not read. 1: it is on its way. 0: the server
 * has answered already or hung up, so send no more; rpc_stream_finish tells why. -1: an error. */
int rpc_stream_send(struct rpc_stream *s, const void *msg, struct err *e);
/* Ends the request and receives the answer, which is exactly one message or an error. */
int rpc_stream_finish(struct rpc_stream *s, struct arena *arena, void *resp, struct err *e);

#endif
