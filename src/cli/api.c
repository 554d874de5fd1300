/* SPDX-License-Identifier: Apache-2.0 */
/* HTTP to the control plane, and its errors as ours. */
#include "cli/api.h"

#include <arpa/inet.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>

#include "base/clock.h"
#include "base/sock.h"
#include "cli/progress.h"
#include "http/status.h"

enum {
    CONNECT_MS = 10000,
    BODY_MAX = 96 << 20, /* exec's 16 MiB of output, escaped */
    ARENA_MAX = 384 << 20,
    ERROR_BODY_MAX = 64 * 1024,
};

int api_open(struct api *a, struct err *e)
{
    *a = (struct api){0};
    return settings_find(&a->settings, e);
}

void api_close(struct api *a)
{
    a->conn = http_conn_free(a->conn);
}

void api_answer_done(struct api_answer *a)
{
    buf_done(&a->body);
    arena_done(&a->arena);
}

/* The first IPv4 address of the host. */
static int resolve(const char *host, char dst[INET_ADDRSTRLEN], struct err *e)
{
    struct addrinfo hints = {.ai_family = AF_INET, .ai_socktype = SOCK_STREAM};
    struct addrinfo *found;
    int rc = getaddrinfo(host, NULL, &hints, &found);
    const struct sockaddr_in *in;
    if (rc != 0)
        return err_set(e, ERR_UNAVAILABLE, "cannot find %.100s: %s", host, gai_strerror(rc));
    in = (const struct sockaddr_in *)(const void *)found->ai_addr;
    (void)inet_ntop(AF_INET, &in->sin_addr, dst, INET_ADDRSTRLEN);
    freeaddrinfo(found);
    return 0;
}

static int connect_server(struct api *a, struct err *e)
{
    char address[INET_ADDRSTRLEN];
    int fd;
    if (a->conn && http_conn_reusable(a->conn))
        return 0;
    a->conn = http_conn_free(a->conn);
    if (resolve(a->settings.host, address, e) < 0)
        return -1;
    fd = sock_connect_tcp(address, a->settings.port, deadline_in_ms(CONNECT_MS), e);
    a->conn = fd < 0 ? NULL : http_conn_new(fd, e);
    if (a->conn)
        return 0;
    e->kind = ERR_UNAVAILABLE;
    return err_wrap(e, "no server at %s:%u (is it up? torpor up)", a->settings.host,
        (unsigned)a->settings.port);
}

int api_begin(struct api *a, const struct api_call *call, const char *content_type,
    struct slice first, int64_t body_length, struct err *e)
{
    char host[SETTINGS_HOST_MAX + 16];
    struct http_header headers[API_HEADERS_MAX];
    size_t n = 0;
    int64_t deadline = deadline_in_ms(call->timeout_ms ? call->timeout_ms : API_TIMEOUT_MS);
    headers[n++] = (struct http_header){SLICE_LIT("X-API-Key"), slice_cstr(a->settings.key)};
    headers[n++] =
        (struct http_header){SLICE_LIT("User-Agent"), SLICE_LIT("torpor/" TORPOR_VERSION)};
    if (content_type)
        headers[n++] = (struct http_header){SLICE_LIT("Content-Type"), slice_cstr(content_type)};
    (void)snprintf(host, sizeof host, "%s:%u", a->settings.host, (unsigned)a->settings.port);
    if (connect_server(a, e) < 0)
        return -1;
    return http_send(a->conn,
        &(struct http_call){.method = call->method,
            .target = call->target,
            .host = host,
            .headers = headers,
            .n_headers = n,
            .body = first,
            .body_length = body_length},
        deadline, e);
}

/* Waits for the answer's head, and moves the progress meanwhile. */
static int await_head(
    struct api *a, const struct http_response_head **ret, int64_t deadline, struct err *e)
{
    for (;;) {
        int64_t turn = a->progress ? progress_tick(a->progress) : DEADLINE_NEVER;
        if (http_recv_head(a->conn, ret, turn < deadline ? turn : deadline, e) == 0)
            return 0;
        if (e->kind != ERR_TIMEOUT)
            return -1;
        if (clock_mono_ms() >= deadline)
            return err_set(e, ERR_TIMEOUT, "the server did not answer in time");
    }
}

static struct slice json_text(const struct json_value *v, const char *key)
{
    const struct json_value *m = json_get(v, key);
    return m && m->type == JSON_STRING ? m->string : (struct slice){"", 0};
}

static void append(struct err *e, const char *before, struct slice text, const char *after)
{
    size_t len = strlen(e->msg);
    if (text.n > 0)
        (void)snprintf(
            e->msg + len, sizeof e->msg - len, "%s%.*s%s", before, (int)text.n, text.p, after);
}

/* Puts the parts of an error body into `e`. */
static int set_error(int status, const struct json_value *body, struct err *e)
{
    const struct json_value *error = json_get(body, "error");
    const struct json_value *details = json_get(error, "details");
    struct slice code = json_text(error, "code");
    struct slice message = json_text(error, "message");
    struct slice field = json_text(details, "field");
    enum err_kind kind = err_kind_from_name(code.p, code.n);
    if (kind == ERR_NONE)
        kind = http_kind_from_status(status);
    if (message.n == 0)
        return err_set(e, kind, "the server answered %d %s", status, http_status_phrase(status));
    (void)err_set(e, kind, "%.*s", (int)message.n, message.p);
    (void)slice_copy_cstr(
        field.n ? field : json_text(details, "status"), e->where, sizeof e->where);
    append(e, " (field ", field, json_text(details, "allowed").n ? "" : ")");
    append(e, field.n ? ", allowed: " : " (allowed: ", json_text(details, "allowed"), ")");
    if (status >= http_status_from_kind(ERR_INTERNAL))
        append(e, " [request ", json_text(error, "request_id"), "]");
    return -1;
}

static int receive_error(struct api *a, int status, int64_t deadline, struct err *e)
{
    AUTO_BUF struct buf body = BUF_INIT(ERROR_BODY_MAX);
    struct arena arena;
    const struct json_value *json = NULL;
    struct err ignored = {0};
    arena_init(&arena, ERROR_BODY_MAX * 4);
    if (http_recv_body_all(a->conn, &body, deadline, &ignored) == 0)
        (void)json_parse(buf_slice(&body), &arena, &json, &ignored);
    (void)set_error(status, json, e);
    arena_done(&arena);
    return -1;
}

int api_head(
    struct api *a, const struct http_response_head **ret, int64_t timeout_ms, struct err *e)
{
    int64_t deadline = deadline_in_ms(timeout_ms ? timeout_ms : API_TIMEOUT_MS);
    const struct http_response_head *head;
    bool success;
    if (await_head(a, &head, deadline, e) < 0)
        return -1;
    success = head->status / 100 == HTTP_OK / 100;
    if (!success)
        return receive_error(a, head->status, deadline, e);
    *ret = head;
    return 0;
}

static int receive(struct api *a, int64_t timeout_ms, struct api_answer *ret, struct err *e)
{
    const struct http_response_head *head;
    struct slice cursor, timing;
    if (api_head(a, &head, timeout_ms, e) < 0)
        return -1;
    cursor = http_header_find(head->headers, head->n_headers, "X-Next-Cursor");
    (void)slice_copy_cstr(cursor, ret->next_cursor, sizeof ret->next_cursor);
    timing = http_header_find(head->headers, head->n_headers, "Server-Timing");
    (void)slice_copy_cstr(timing, ret->server_timing, sizeof ret->server_timing);
    if (http_recv_body_all(a->conn, &ret->body, deadline_in_ms(API_TIMEOUT_MS), e) < 0)
        return -1;
    if (ret->body.len > 0 && json_parse(buf_slice(&ret->body), &ret->arena, &ret->json, e) < 0)
        return err_wrap(e, "the server's answer");
    return 0;
}

int api_call(struct api *a, const struct api_call *call, struct api_answer *ret, struct err *e)
{
    int rc;
    *ret = (struct api_answer){.body = BUF_INIT(BODY_MAX)};
    arena_init(&ret->arena, ARENA_MAX);
    rc = api_begin(
        a, call, call->json.n ? "application/json" : NULL, call->json, HTTP_BODY_IS_SLICE, e);
    if (rc == 0)
        rc = receive(a, call->timeout_ms, ret, e);
    return rc;
}

const char *api_text(struct api_answer *a, const struct json_value *v, const char *key)
{
    struct slice s = json_text(v, key);
    const char *p = arena_strndup(&a->arena, s.p, s.n);
    return p ? p : "";
}

int64_t api_int(const struct json_value *v, const char *key, int64_t fallback)
{
    const struct json_value *m = json_get(v, key);
    return m && m->type == JSON_INT ? m->integer : fallback;
}
