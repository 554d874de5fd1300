/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Our Connect client against a server that others wrote: makes one call and prints what came.
 *
 * usage: conformance_client PORT json|proto unary|repeat|collect TEXT COUNT CODE TIMEOUT_MS
 *
 * Prints "message INDEX TEXT SIZE" for each message, then "end", or "error KIND MESSAGE".
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/sock.h"
#include "echo.h"
#include "http/client.h"
#include "http/parse.h"
#include "rpc/client.h"

enum { PATIENCE_MS = 20000, MESSAGE_BYTES_MAX = 4 << 20, ARENA_BYTES = 16 << 20 };

static void print_message(const struct echo_response *m)
{
    (void)printf(
        "message %" PRId32 " %.*s %" PRId64 "\n", m->index, (int)m->text.n, m->text.p, m->size);
}

static int run_unary(struct http_conn *c, struct rpc_request *r, struct arena *a, struct err *e)
{
    struct echo_response got;
    r->path = ECHO_PATH("Unary");
    if (rpc_call_unary(c, r, a, &got, e) < 0)
        return -1;
    print_message(&got);
    return 0;
}

static int run_repeat(struct http_conn *c, struct rpc_request *r, struct arena *a, struct err *e)
{
    struct echo_response got;
    struct rpc_stream s;
    int rc;
    r->path = ECHO_PATH("Repeat");
    rc = rpc_stream_open(&s, c, r, e);
    if (rc == 0)
        while ((rc = rpc_stream_next(&s, a, &got, e)) > 0)
            print_message(&got);
    rpc_stream_done(&s);
    return rc;
}

static int send_all(struct rpc_stream *s, const struct echo_request *msg, struct err *e)
{
    int rc = 1;
    for (int i = 0; i < msg->count && rc > 0; i++)
        rc = rpc_stream_send(s, msg, e);
    return rc < 0 ? -1 : 0;
}

static int run_collect(struct http_conn *c, struct rpc_request *r, struct arena *a, struct err *e)
{
    struct echo_response got;
    struct rpc_stream s;
    int rc;
    r->path = ECHO_PATH("Collect");
    rc = rpc_stream_start(&s, c, r, e);
    if (rc == 0)
        rc = send_all(&s, r->msg, e);
    if (rc == 0)
        rc = rpc_stream_finish(&s, a, &got, e);
    if (rc == 0)
        print_message(&got);
    rpc_stream_done(&s);
    return rc;
}

static int run(uint16_t port, const char *call, struct rpc_request *r, struct err *e)
{
    int fd = sock_connect_tcp("127.0.0.1", port, r->deadline, e);
    struct http_conn *c = fd < 0 ? NULL : http_conn_new(fd, e);
    struct arena a;
    int rc;
    if (!c)
        return -1;
    arena_init(&a, ARENA_BYTES);
    if (strcmp(call, "unary") == 0)
        rc = run_unary(c, r, &a, e);
    else if (strcmp(call, "repeat") == 0)
        rc = run_repeat(c, r, &a, e);
    else
        rc = run_collect(c, r, &a, e);
    if (rc == 0 && !http_conn_reusable(c))
        rc = err_set(e, ERR_INTERNAL, "the connection is spent after a call that went well");
    arena_done(&a);
    http_conn_free(c);
    return rc;
}

int main(int argc, char **argv)
{
    struct http_header header = {SLICE_LIT("X-Echo"), SLICE_LIT("from C")};
    struct echo_request msg;
    struct rpc_request r = {.request = &echo_request_message,
        .response = &echo_response_message,
        .msg = &msg,
        .headers = &header,
        .n_headers = 1,
        .deadline = deadline_in_ms(PATIENCE_MS),
        .max_bytes = MESSAGE_BYTES_MAX};
    struct err e = {0};
    if (argc != 8) {
        (void)fprintf(stderr, "usage: %s PORT CODEC CALL TEXT COUNT CODE TIMEOUT_MS\n", argv[0]);
        return 2;
    }
    r.codec = strcmp(argv[2], "json") == 0 ? RPC_CODEC_JSON : RPC_CODEC_PROTO;
    msg = (struct echo_request){.text = slice_cstr(argv[4]),
        .data = slice_cstr(argv[4]),
        .count = atoi(argv[5]),
        .code = slice_cstr(argv[6])};
    r.timeout_ms = atoi(argv[7]);
    if (run((uint16_t)atoi(argv[1]), argv[3], &r, &e) < 0)
        (void)printf("error %s %s\n", err_kind_name(e.kind), e.msg);
    else
        (void)printf("end\n");
    return 0;
}
