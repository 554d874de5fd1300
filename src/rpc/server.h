/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Connect protocol, server side: unary, server-streaming and client-streaming calls over an http
 * exchange, JSON and protobuf by content type. Streams are half-duplex, as HTTP/1.1 is: a client
 * stream is answered once, at its end or earlier. Errors of a unary call carry two headers beside
 * Connect's body, so that a caller of ours gets the exact kind back: Torpor-Error (kind name) and
 * Torpor-Field.
 */
#ifndef TORPOR_RPC_SERVER_H
#define TORPOR_RPC_SERVER_H

#include "rpc/message.h"

struct http_exchange;
struct rpc_method;

struct rpc_call {
    struct http_exchange *x;
    struct arena *arena; /* of the exchange */
    void *ctx;
    int64_t deadline; /* from Connect-Timeout-Ms; DEADLINE_NEVER without. Bounds every wait for the
                         client too */
    enum rpc_codec codec;
    const struct rpc_method *method;
    struct buf message; /* a request message as it came */
};

/* Fills `resp` (zeroed) in call->arena. Returns 0, or -1 with the error to answer. */
typedef int rpc_unary_handler(struct rpc_call *call, const void *req, void *resp, struct err *e);
/* Sends any number of messages with rpc_send. Returns 0, or -1 with the error that ends the stream.
 */
typedef int rpc_stream_handler(struct rpc_call *call, const void *req, struct err *e);
/* Takes the request's messages with rpc_receive, as many as it wants, and fills `resp` (zeroed) in
 * call->arena. Returns 0, or -1 with the error to answer. */
typedef int rpc_client_stream_handler(struct rpc_call *call, void *resp, struct err *e);

struct rpc_method {
    const char *path; /* "/package.Service/Method" */
    const struct rpc_message *request;
    const struct rpc_message *response;
    rpc_unary_handler *unary; /* exactly one of these three */
    rpc_stream_handler *stream;
    rpc_client_stream_handler *client_stream;
};

/* Answers the exchange when its path is one of the methods: true, also for errors. False, with
 * nothing sent, for any other path. `max_bytes` bounds a request message. */
bool rpc_serve(struct http_exchange *x, const struct rpc_method *methods, size_t n_methods,
    size_t max_bytes, void *ctx);

/* Sends one message of a stream; goes out at once, and waits while the client does not read. -1:
 * ERR_CANCELED when the client is gone, ERR_TIMEOUT when the call's deadline has passed. */
int rpc_send(struct rpc_call *call, const struct rpc_message *m, const void *msg, struct err *e);

/* The next message of a client stream, decoded into `msg` and `arena`; with arena_done between the
 * messages a stream of any length needs the memory of its largest one. 1: a message. 0: the stream
 * has ended. -1: ERR_CANCELED when the client is gone, ERR_TIMEOUT when the call's deadline has
 * passed or the client is silent for too long, ERR_TOO_LARGE, ERR_INVALID; no more can be received
 * then. */
int rpc_receive(struct rpc_call *call, struct arena *arena, void *msg, struct err *e);

/* Moves the call's deadline, for a handler that ends at the client's by itself and still has
 * something to say then. */
void rpc_set_deadline(struct rpc_call *call, int64_t deadline);

/* Whether anyone still waits for the answer: 0, or -1 with ERR_CANCELED when the client has closed
 * its end or the server stops, ERR_TIMEOUT when the call's deadline has passed. For handlers that
 * work for long without sending. */
int rpc_check(const struct rpc_call *call, struct err *e);
/* Waits for `events` on `fd` (negative: for nothing) as long as anyone waits for the answer.
 * Returns the events (> 0), 0 when `deadline` has passed, -1 as rpc_check. */
int rpc_wait(const struct rpc_call *call, int fd, short events, int64_t deadline, struct err *e);

#endif
