/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Our WebSocket client against an echo server that others wrote: sends messages of many sizes and
 * compares what comes back, then lets the server close.
 *
 * usage: conformance_ws_client PORT TARGET
 *
 * Prints "echoed N" for every message, "closed CODE REASON", or "error KIND MESSAGE".
 */
#include <stdio.h>
#include <stdlib.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/sock.h"
#include "http/client.h"
#include "http/websocket.h"

enum { PATIENCE_MS = 20000, MESSAGE_MAX = 1 << 20 };

static int64_t patience(void)
{
    return deadline_in_ms(PATIENCE_MS);
}

static int echo_one(struct ws *w, enum ws_type type, struct slice data, struct err *e)
{
    struct ws_message got;
    if (ws_send(w, type, data, patience(), e) < 0 || ws_recv(w, &got, patience(), e) < 0)
        return -1;
    if (got.type != type || !slice_eq(got.data, data))
        return err_set(e, ERR_INTERNAL, "%zu bytes came back as others", data.n);
    (void)printf("echoed %zu\n", data.n);
    return 0;
}

static int echo_all(struct ws *w, struct err *e)
{
    static const size_t sizes[] = {0, 1, 125, 126, 65535, 65536, 500000};
    AUTO_BUF struct buf b = BUF_INIT(MESSAGE_MAX);
    for (size_t i = 0; i < ARRAY_LEN(sizes); i++) {
        buf_reset(&b);
        while (b.len < sizes[i])
            buf_append_char(&b, (char)('a' + b.len % 26));
        if (echo_one(w, WS_TEXT, buf_slice(&b), e) < 0 ||
            echo_one(w, WS_BINARY, buf_slice(&b), e) < 0)
            return -1;
    }
    return 0;
}

/* The server closes when it is told "bye". */
static int say_bye(struct ws *w, struct err *e)
{
    struct ws_message got;
    if (ws_ping(w, SLICE_LIT("ping"), patience(), e) < 0 ||
        ws_send(w, WS_TEXT, SLICE_LIT("bye"), patience(), e) < 0 ||
        ws_recv(w, &got, patience(), e) < 0)
        return -1;
    if (got.type != WS_CLOSED || ws_pongs(w) != 1)
        return err_set(e, ERR_INTERNAL, "%llu pongs before the close, type %d",
            (unsigned long long)ws_pongs(w), (int)got.type);
    (void)printf("closed %u %.*s\n", got.code, (int)got.data.n, got.data.n ? got.data.p : "");
    return 0;
}

static int run(uint16_t port, const char *target, struct err *e)
{
    struct ws_connect_options options = {
        .target = target, .host = "127.0.0.1", .protocol = "echo.v1", .message_max = MESSAGE_MAX};
    int fd = sock_connect_tcp("127.0.0.1", port, patience(), e);
    struct http_conn *c = fd < 0 ? NULL : http_conn_new(fd, e);
    struct ws *w = c ? ws_connect(c, &options, patience(), e) : NULL;
    int rc = w ? echo_all(w, e) : -1;
    if (rc == 0)
        rc = say_bye(w, e);
    (void)ws_free(w);
    return rc;
}

int main(int argc, char **argv)
{
    struct err e = {0};
    if (argc != 3) {
        (void)fprintf(stderr, "usage: %s PORT TARGET\n", argv[0]);
        return 2;
    }
    if (run((uint16_t)strtoul(argv[1], NULL, 10), argv[2], &e) < 0)
        (void)printf("error %s %s\n", err_kind_name(e.kind), e.msg);
    return 0;
}
