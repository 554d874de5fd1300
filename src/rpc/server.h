/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Connect protocol, server side: unary and server-streaming calls over an http exchange, JSON and
 * protobuf by content type. Errors of a unary call carry two headers beside Connect's body, so that
 * a caller of ours gets the exact kind back: Torpor-Error (kind name) and Torpor-Field.
 */
#ifndef TORPOR_RPC_SERVER_H
#define TORPOR_RPC_SERVER_H

#include "rpc/message.h"

struct http_exchange;

struct rpc_call {
    struct http_exchange *x;
    struct arena *arena; /* of the exchange */
    void *ctx;
    int64_t deadline; /* from Connect-Timeout-Ms; DEADLINE_NEVER without */
    enum rpc_codec codec;
};

/* Fills `resp` (zeroed) in call->arena. Returns 0, or -1 with the error to answer. */
typedef int rpc_unary_handler(struct rpc_call *call, const void *req, void *resp, struct err *e);
/* Sends any number of messages with rpc_send. Returns 0, or -1 with the error that ends the stream.
 */
typedef int rpc_stream_handler(struct rpc_call *call, const void *req, struct err *e);

struct rpc_method {
    const char *path; /* "/package.Service/Method" */
    const struct rpc_message *request;
    const struct rpc_message *response;
    rpc_unary_handler *unary; /* exactly one of these two */
    rpc_stream_handler *stream;
};

/* Answers the exchange when its path is one of the methods: true, also for errors. False, with
 * nothing sent, for any other path. `max_bytes` bounds a request message. */
bool rpc_serve(struct http_exchange *x, const struct rpc_method *methods, size_t n_methods,
    size_t max_bytes, void *ctx);

/* Sends one message of a stream; goes out at once. -1 when the client is gone. */
int rpc_send(struct rpc_call *call, const struct rpc_message *m, const void *msg, struct err *e);

#endif
