/* SPDX-License-Identifier: Apache-2.0 */
/*
 * WebSocket connections (RFC 6455, version 13), server and client: whole messages of bounded size,
 * blocking with deadlines. permessage-deflate is declined.
 *
 * Threads: one may receive (ws_recv, ws_finish) while another one sends (ws_send, ws_ping,
 * ws_close); two must not do the same. ws_close may come from either. Opening and ws_free: when
 * nobody else uses it. Pings are answered by whoever receives, so somebody should be receiving.
 */
#ifndef TORPOR_HTTP_WEBSOCKET_H
#define TORPOR_HTTP_WEBSOCKET_H

#include "base/slice.h"
#include "http/ws_frame.h"

struct http_conn;
struct http_exchange;
struct http_header;
struct ws;

/* Decides by the Origin header (p == NULL: absent, so no browser) whether the page may connect. */
typedef bool ws_origin_check(struct slice origin, const struct http_exchange *x, void *ctx);

struct ws_accept_options {
    size_t message_max;   /* bytes of one received message; 0: 1 MiB */
    const char *protocol; /* subprotocol that we speak; used where the client offers it */
    ws_origin_check *origin_allowed; /* NULL: everyone */
    void *ctx;
};

/* Checks the handshake and answers 101. On -1 nothing was answered (but when the client was gone):
 * the handler replies with the error's status. ERR_INVALID for a bad handshake (`where`
 * "Sec-WebSocket-Version": answer 426 with that header set to 13), ERR_FORBIDDEN for the origin.
 * The connection is used until the handler returns; free the WebSocket before. */
struct ws *ws_accept(
    struct http_exchange *x, const struct ws_accept_options *options, struct err *e);

struct ws_connect_options {
    const char *target;
    const char *host;
    const struct http_header *headers; /* further ones */
    size_t n_headers;
    const char *protocol; /* subprotocol to ask for; NULL: none */
    size_t message_max;   /* as above */
    int *ret_status;      /* NULL, or gets the status of a refusal */
};
/* Takes over the connection, also on failure. ERR_UNAVAILABLE when the server answers something
 * else (`ret_status` says what), ERR_PROTOCOL when its 101 is wrong. */
struct ws *ws_connect(
    struct http_conn *c, const struct ws_connect_options *options, int64_t deadline, struct err *e);

/* Frees; closes the descriptor where the WebSocket owns it (a client's). NULL is fine. Returns
 * NULL.
 */
struct ws *ws_free(struct ws *w);

enum ws_type { WS_TEXT, WS_BINARY, WS_CLOSED };
struct ws_message {
    enum ws_type type;
    struct slice data; /* of a close: the reason. Lives until the next ws_recv */
    unsigned code;     /* of a close */
};
/* Receives one message. Pings are answered, pongs are noted. After WS_CLOSED (answered already) or
 * an error other than ERR_TIMEOUT nothing more comes. ERR_TIMEOUT loses nothing: the next call goes
 * on. ERR_PROTOCOL, ERR_INVALID (text that is not UTF-8), ERR_TOO_LARGE: the peer was told with the
 * code for it. ERR_CANCELED: the connection ended without a close. */
int ws_recv(struct ws *w, struct ws_message *ret, int64_t deadline, struct err *e);
/* True when ws_recv has bytes that poll(2) does not know of. Receiving thread. */
bool ws_has_buffered(const struct ws *w);
int ws_fd(const struct ws *w); /* for poll(2) */
/* Number of pongs that have come. Receiving thread. */
uint64_t ws_pongs(const struct ws *w);

/* Sends a whole message, unfragmented. Text must be UTF-8 (ours: asserted by the caller's tests,
 * refused here with ERR_INVALID). ERR_CANCELED when the peer is gone or a close was sent,
 * ERR_TIMEOUT; after a timeout within a frame the connection is of no more use for sending. */
int ws_send(struct ws *w, enum ws_type type, struct slice data, int64_t deadline, struct err *e);
/* `data` at most WS_CONTROL_MAX bytes. */
int ws_ping(struct ws *w, struct slice data, int64_t deadline, struct err *e);
/* Sends a close frame, once; a second one does nothing. Reasons longer than WS_REASON_MAX are cut.
 * Receiving goes on until the peer's close comes. WS_CODE_NO_STATUS sends an empty one. */
int ws_close(struct ws *w, unsigned code, const char *reason, int64_t deadline, struct err *e);
/* ws_close, then throws away what comes until the peer's close or the deadline. One thread. */
void ws_finish(struct ws *w, unsigned code, const char *reason, int64_t deadline);

#endif
