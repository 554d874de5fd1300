/* SPDX-License-Identifier: Apache-2.0 */
/* The opening handshake of a WebSocket, both sides (RFC 6455 section 4). */
#include <errno.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/io.h"
#include "base/rand.h"
#include "http/client.h"
#include "http/http_int.h"
#include "http/server.h"
#include "http/ws_int.h"

enum { MESSAGE_DEFAULT = 1 << 20, EARLY_MAX = HTTP_INPUT_MAX, EXTRA_HEADERS_MAX = 16 };

static size_t message_max(size_t asked)
{
    return asked ? asked : MESSAGE_DEFAULT;
}

static int check_request(const struct http_exchange *x, struct slice *ret_key, struct err *e)
{
    struct slice key = http_request_header(x, "Sec-WebSocket-Key");
    if (!slice_is(http_request(x)->method, "GET"))
        return err_field(e, "method", "a WebSocket begins with GET");
    if (!http_wants_upgrade(x, "websocket"))
        return err_field(e, "Upgrade", "the request asks for no WebSocket");
    if (!slice_is(http_request_header(x, "Sec-WebSocket-Version"), "13"))
        return err_field(e, "Sec-WebSocket-Version", "only version 13 is supported");
    if (!ws_key_valid(key))
        return err_field(e, "Sec-WebSocket-Key", "not 16 bytes in base64");
    *ret_key = key;
    return 0;
}

struct ws *ws_accept(struct http_exchange *x, const struct ws_accept_options *o, struct err *e)
{
    const struct http_request_head *h = http_request(x);
    struct ws_open open = {.fd = http_fd(x), .message_max = message_max(o->message_max)};
    char accept[WS_ACCEPT_CHARS + 1];
    struct slice key;
    if (check_request(x, &key, e) < 0)
        return NULL;
    if (o->origin_allowed && !o->origin_allowed(http_request_header(x, "Origin"), x, o->ctx)) {
        err_set(e, ERR_FORBIDDEN, "pages of this origin may not connect");
        return NULL;
    }
    ws_accept_value(key, accept);
    http_reply_header(x, "Sec-WebSocket-Accept", "%s", accept);
    if (o->protocol &&
        http_header_has(h->headers, h->n_headers, "Sec-WebSocket-Protocol", o->protocol))
        http_reply_header(x, "Sec-WebSocket-Protocol", "%s", o->protocol);
    if (http_reply_upgrade(x, "websocket", e) < 0)
        return NULL;
    open.early = http_early_bytes(x);
    return ws_new(&open, e);
}

/* Whatever was not asked for must not be agreed on (section 4.1). */
static int check_response(const struct http_response_head *h, struct slice key,
    const struct ws_connect_options *o, struct err *e)
{
    char accept[WS_ACCEPT_CHARS + 1];
    struct slice protocol = http_header_find(h->headers, h->n_headers, "Sec-WebSocket-Protocol");
    if (o->ret_status)
        *o->ret_status = h->status;
    if (h->status != 101)
        return err_set(e, ERR_UNAVAILABLE, "WebSocket: the server answered %d", h->status);
    ws_accept_value(key, accept);
    if (!http_header_has(h->headers, h->n_headers, "Connection", "upgrade") ||
        !slice_eq_nocase(
            http_header_find(h->headers, h->n_headers, "Upgrade"), SLICE_LIT("websocket")) ||
        !slice_is(http_header_find(h->headers, h->n_headers, "Sec-WebSocket-Accept"), accept))
        return err_set(e, ERR_PROTOCOL, "WebSocket: the server's handshake is wrong");
    if (http_header_find(h->headers, h->n_headers, "Sec-WebSocket-Extensions").p)
        return err_set(e, ERR_PROTOCOL, "WebSocket: an extension that was not asked for");
    if (protocol.p && (!o->protocol || !slice_is(protocol, o->protocol)))
        return err_set(e, ERR_PROTOCOL, "WebSocket: a subprotocol that was not asked for");
    return 0;
}

static void make_key(char key[WS_KEY_CHARS])
{
    unsigned char bytes[16];
    rand_bytes(bytes, sizeof bytes);
    base64_encode(bytes, sizeof bytes, key);
}

/* Sends the request and checks the answer. */
static int shake_hands(
    struct http_conn *c, const struct ws_connect_options *o, int64_t deadline, struct err *e)
{
    struct http_header headers[EXTRA_HEADERS_MAX + 3];
    const struct http_response_head *answer;
    char key[WS_KEY_CHARS];
    size_t n = 0;
    if (o->n_headers > EXTRA_HEADERS_MAX)
        return err_set(e, ERR_INVALID, "more than %d headers", EXTRA_HEADERS_MAX);
    make_key(key);
    headers[n++] = (struct http_header){SLICE_LIT("Sec-WebSocket-Version"), SLICE_LIT("13")};
    headers[n++] = (struct http_header){SLICE_LIT("Sec-WebSocket-Key"), slice_of(key, sizeof key)};
    if (o->protocol)
        headers[n++] =
            (struct http_header){SLICE_LIT("Sec-WebSocket-Protocol"), slice_cstr(o->protocol)};
    for (size_t i = 0; i < o->n_headers; i++)
        headers[n++] = o->headers[i];
    struct http_call call = {.method = "GET",
        .target = o->target,
        .host = o->host,
        .headers = headers,
        .n_headers = n,
        .body_length = HTTP_BODY_IS_SLICE,
        .upgrade = "websocket"};
    if (http_send(c, &call, deadline, e) < 0 || http_recv_head(c, &answer, deadline, e) < 0)
        return -1;
    return check_response(answer, slice_of(key, sizeof key), o, e);
}

struct ws *ws_connect(
    struct http_conn *c, const struct ws_connect_options *o, int64_t deadline, struct err *e)
{
    AUTO_BUF struct buf early = BUF_INIT(EARLY_MAX);
    struct ws_open open = {
        .owns_fd = true, .is_client = true, .message_max = message_max(o->message_max)};
    struct ws *w;
    if (shake_hands(c, o, deadline, e) < 0 || (open.fd = http_conn_take(c, &early, e)) < 0) {
        http_conn_free(c);
        return NULL;
    }
    open.early = buf_slice(&early);
    w = io_set_nonblock(open.fd, /* on= */ 1, e) < 0 ? NULL : ws_new(&open, e);
    if (!w)
        (void)close(open.fd);
    return w;
}
