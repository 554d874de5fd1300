/* SPDX-License-Identifier: Apache-2.0 */
/* POST exec of `true` against the same call made straight to envd, in turns. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "agent/guest/guest.h"
#include "agent/life/host.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/io.h"
#include "base/sock.h"
#include "bench.h"
#include "http/client.h"
#include "rpc/agent_v1.h"

enum { WARM_RUNS = 20, CALL_MS = 30000 };

static void die(const char *what, const struct err *e)
{
    (void)fprintf(stderr, "bench: %s: %s\n", what, e->msg);
    exit(1);
}

/* A client that keeps its connection, as any real one does. */
static struct http_conn *connect_api(const struct stack *s)
{
    struct err e = {0};
    int fd = sock_connect_tcp("127.0.0.1", (uint16_t)s->port, deadline_in_ms(CALL_MS), &e);
    struct http_conn *c = fd < 0 ? NULL : http_conn_new(fd, &e);
    if (!c)
        die("connect", &e);
    return c;
}

static int64_t exec_by_api(const struct stack *s, struct http_conn *c, const char *path)
{
    const struct http_header headers[] = {
        {SLICE_LIT("X-API-Key"), slice_cstr(s->key)},
        {SLICE_LIT("Content-Type"), SLICE_LIT("application/json")},
    };
    const struct http_response_head *head;
    AUTO_BUF struct buf body = BUF_INIT(1 << 16);
    struct err e = {0};
    int64_t began = clock_mono_us();
    int64_t deadline = deadline_in_ms(CALL_MS);
    if (http_send(c,
            &(struct http_call){.method = "POST",
                .target = path,
                .host = "127.0.0.1",
                .headers = headers,
                .n_headers = ARRAY_LEN(headers),
                .body = SLICE_LIT("{\"cmd\":\"true\"}"),
                .body_length = HTTP_BODY_IS_SLICE},
            deadline, &e) < 0 ||
        http_recv_head(c, &head, deadline, &e) < 0 || head->status != 200 ||
        http_recv_body_all(c, &body, deadline, &e) < 0)
        die("exec by the API", &e);
    return clock_mono_us() - began;
}

static int64_t exec_straight(struct guest *g)
{
    const struct agent_exec_request req = {.cmd = SLICE_LIT("true"), .timeout_sec = 30};
    struct agent_exec_response resp = {0};
    AUTO_BUF struct buf out = BUF_INIT(1 << 16);
    AUTO_BUF struct buf err = BUF_INIT(1 << 16);
    struct err e = {0};
    int64_t began = clock_mono_us();
    if (guest_exec(g, &req, &out, &err, &resp, &e) < 0 || resp.exit_code != 0)
        die("exec straight", &e);
    return clock_mono_us() - began;
}

/* The sandbox's token, from the cluster's secret as root reads it. */
static void sandbox_token(const struct stack *s, const char *id, char ret[HOST_TOKEN_CHARS + 1])
{
    struct host host = {0};
    struct sandbox_id parsed;
    char path[160];
    AUTO_BUF struct buf secret = BUF_INIT(HOST_SECRET_BYTES);
    struct err e = {0};
    (void)snprintf(path, sizeof path, "%s/cluster-secret", s->dir);
    if (io_read_file(AT_FDCWD, path, &secret, &e) < 0 || secret.len != HOST_SECRET_BYTES ||
        !sandbox_id_parse(slice_cstr(id), &parsed))
        die("secret", &e);
    memcpy(host.secret, secret.p, HOST_SECRET_BYTES);
    if (host_token(&host, &parsed, 0, ret, &e) < 0)
        die("token", &e);
}

void bench_exec(const struct stack *s, size_t runs)
{
    static struct samples ours;
    static struct samples raw;
    char id[32];
    char path[96];
    char token[HOST_TOKEN_CHARS + 1];
    struct reply info = {0};
    struct http_conn *c;
    struct guest *g;
    create_sandbox(s, "{}", id);
    (void)snprintf(path, sizeof path, "/v1/sandboxes/%s", id);
    api(s, "GET", path, NULL, &info);
    sandbox_token(s, id, token);
    g = guest_new(reply_text(&info, "host_ip"), token);
    c = connect_api(s);
    (void)snprintf(path, sizeof path, "/v1/sandboxes/%s/exec", id);
    for (size_t i = 0; i < WARM_RUNS + runs; i++) {
        int64_t straight = exec_straight(g);
        int64_t by_api = exec_by_api(s, c, path);
        if (i < WARM_RUNS)
            continue;
        samples_add(&raw, straight);
        samples_add(&ours, by_api);
    }
    (void)http_conn_free(c);
    (void)guest_free(g);
    reply_done(&info);
    delete_sandbox(s, id);
    report_added("POST exec of `true`, against the same call straight to envd", &ours, &raw, 1.0);
}
