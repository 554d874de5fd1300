/* SPDX-License-Identifier: Apache-2.0 */
/*
 * WebSockets of the conformance server: every message goes back as it came, but for these texts:
 *
 *   "!ping"        a ping with the payload "are you there" comes instead
 *   "!pongs"       the number of pongs that came, as text
 *   "!close CODE"  a close frame with that code and the reason "as asked"
 *
 * /ws takes everyone, /ws-same-origin only pages of this server and clients that are no browsers.
 */
#include "sockets.h"

#include <stdio.h>
#include <stdlib.h>

#include "base/clock.h"
#include "http/server.h"
#include "http/status.h"
#include "http/websocket.h"

enum { MESSAGE_MAX = 1 << 20, PATIENCE_MS = 20000, TEXT_MAX = 64 };

static int64_t patience(void)
{
    return deadline_in_ms(PATIENCE_MS);
}

static int send_pongs(struct ws *w, struct err *e)
{
    char text[TEXT_MAX];
    (void)snprintf(text, sizeof text, "%llu", (unsigned long long)ws_pongs(w));
    return ws_send(w, WS_TEXT, slice_cstr(text), patience(), e);
}

static int answer(struct ws *w, const struct ws_message *m, struct err *e)
{
    char text[TEXT_MAX] = "";
    if (m->type == WS_TEXT)
        (void)slice_copy_cstr(m->data, text, sizeof text);
    if (strcmp(text, "!ping") == 0)
        return ws_ping(w, SLICE_LIT("are you there"), patience(), e);
    if (strcmp(text, "!pongs") == 0)
        return send_pongs(w, e);
    if (strncmp(text, "!close ", 7) == 0)
        return ws_close(w, (unsigned)strtoul(text + 7, NULL, 10), "as asked", patience(), e);
    return ws_send(w, m->type, m->data, patience(), e);
}

static void echo_messages(struct ws *w)
{
    struct ws_message m;
    struct err e = {0};
    while (ws_recv(w, &m, patience(), &e) == 0 && m.type != WS_CLOSED)
        if (answer(w, &m, &e) < 0)
            break;
}

static bool is_same_origin(struct slice origin, const struct http_exchange *x, void *ctx)
{
    struct slice host = http_request_header(x, "Host");
    static const char scheme[] = "http://";
    size_t n = sizeof scheme - 1;
    (void)ctx;
    return !origin.p || (origin.n > n && memcmp(origin.p, scheme, n) == 0 &&
                            slice_eq(slice_of(origin.p + n, origin.n - n), host));
}

static void refuse(struct http_exchange *x, const struct err *why)
{
    bool is_version = strcmp(why->where, "Sec-WebSocket-Version") == 0;
    if (is_version)
        http_reply_header(x, "Sec-WebSocket-Version", "13");
    (void)http_reply(
        x, is_version ? 426 : http_status_from_kind(why->kind), "text/plain", slice_cstr(why->msg));
}

bool sockets_serve(struct http_exchange *x)
{
    struct ws_accept_options options = {.message_max = MESSAGE_MAX, .protocol = "echo.v1"};
    struct slice path = http_request(x)->path;
    struct err e = {0};
    struct ws *w;
    if (slice_is(path, "/ws-same-origin"))
        options.origin_allowed = is_same_origin;
    else if (!slice_is(path, "/ws"))
        return false;
    w = ws_accept(x, &options, &e);
    if (w)
        echo_messages(w);
    else if (!http_reply_begun(x))
        refuse(x, &e);
    (void)ws_free(w);
    return true;
}
