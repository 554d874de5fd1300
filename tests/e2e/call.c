/* SPDX-License-Identifier: Apache-2.0 */
/* Calls to the public API and what tests read of the answers. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/sock.h"
#include "http/client.h"
#include "stack.h"

enum { CALL_MS = 120000, BODY_MAX = 200 << 20, ARENA_MAX = 400 << 20 };

void reply_done(struct reply *r)
{
    buf_done(&r->body);
    arena_done(&r->arena);
}

static void keep_header(
    const struct http_response_head *head, const char *name, char *dst, size_t n)
{
    struct slice v = http_header_find(head->headers, head->n_headers, name);
    (void)snprintf(dst, n, "%.*s", (int)v.n, v.p ? v.p : "");
}

static int keep_answer(struct http_conn *c, int64_t deadline, struct reply *ret, struct err *e)
{
    const struct http_response_head *head;
    if (http_recv_head(c, &head, deadline, e) < 0)
        return -1;
    *ret = (struct reply){.status = head->status, .body = BUF_INIT(BODY_MAX)};
    arena_init(&ret->arena, ARENA_MAX);
    keep_header(head, "Retry-After", ret->retry_after, sizeof ret->retry_after);
    keep_header(head, "Allow", ret->allow, sizeof ret->allow);
    keep_header(head, "X-Request-Id", ret->request_id, sizeof ret->request_id);
    keep_header(head, "X-Next-Cursor", ret->next_cursor, sizeof ret->next_cursor);
    if (http_recv_body_all(c, &ret->body, deadline, e) < 0)
        return -1;
    if (json_parse(buf_slice(&ret->body), &ret->arena, &ret->json, e) < 0)
        ret->json = NULL;
    return 0;
}

static struct http_conn *send_request(
    const struct stack *s, const struct api_request *q, int64_t deadline, struct err *e)
{
    struct http_header headers[3];
    size_t n = 0;
    int fd = sock_connect_tcp("127.0.0.1", (uint16_t)s->port, deadline, e);
    struct http_conn *c = fd < 0 ? NULL : http_conn_new(fd, e);
    if (!c)
        return NULL;
    if (q->key)
        headers[n++] = (struct http_header){SLICE_LIT("X-API-Key"), slice_cstr(q->key)};
    if (q->content_type)
        headers[n++] = (struct http_header){SLICE_LIT("Content-Type"), slice_cstr(q->content_type)};
    if (http_send(c,
            &(struct http_call){.method = q->method,
                .target = q->path,
                .host = "127.0.0.1",
                .headers = headers,
                .n_headers = n,
                .body = q->body,
                .body_length = HTTP_BODY_IS_SLICE},
            deadline, e) < 0)
        return http_conn_free(c);
    return c;
}

int api_ask(const struct stack *s, const struct api_request *q, struct reply *ret, struct err *e)
{
    int64_t deadline = deadline_in_ms(CALL_MS);
    struct http_conn *c = send_request(s, q, deadline, e);
    int rc = c ? keep_answer(c, deadline, ret, e) : -1;
    (void)http_conn_free(c);
    return rc;
}

void api_send(const struct stack *s, const struct api_request *q, struct reply *ret)
{
    struct err e = {0};
    if (api_ask(s, q, ret, &e) < 0)
        fail_msg("%s %s: %s", q->method, q->path, e.msg);
}

int api_try(const struct stack *s, const char *method, const char *path, const char *body)
{
    const struct http_response_head *head;
    struct err e = {0};
    int64_t deadline = deadline_in_ms(CALL_MS);
    struct http_conn *c = send_request(s,
        &(struct api_request){.method = method,
            .path = path,
            .key = s->key,
            .content_type = body ? "application/json" : NULL,
            .body = slice_cstr(body)},
        deadline, &e);
    int status = c && http_recv_head(c, &head, deadline, &e) == 0 ? head->status : 0;
    (void)http_conn_free(c);
    return status;
}

void api(const struct stack *s, const char *method, const char *path, const char *body,
    struct reply *ret)
{
    api_send(s,
        &(struct api_request){.method = method,
            .path = path,
            .key = s->key,
            .content_type = body ? "application/json" : NULL,
            .body = slice_cstr(body)},
        ret);
}

static const struct json_value *reply_value(const struct reply *r, const char *path)
{
    const struct json_value *v = r->json;
    char part[64];
    while (v && *path) {
        size_t n = strcspn(path, ".");
        (void)snprintf(part, sizeof part, "%.*s", (int)n, path);
        v = json_get(v, part);
        path += n + (path[n] == '.');
    }
    return v;
}

const char *reply_text(struct reply *r, const char *path)
{
    const struct json_value *v = reply_value(r, path);
    const char *p =
        v && v->type == JSON_STRING ? arena_strndup(&r->arena, v->string.p, v->string.n) : NULL;
    return p ? p : "";
}

long long reply_int(struct reply *r, const char *path)
{
    const struct json_value *v = reply_value(r, path);
    return v && v->type == JSON_INT ? v->integer : -999999;
}

void create_sandbox(const struct stack *s, const char *body, char ret_id[32])
{
    AUTO_REPLY struct reply r = {0};
    api(s, "POST", "/v1/sandboxes", body, &r);
    if (r.status != 201)
        fail_msg("create answered %d: %.*s", r.status, (int)r.body.len, r.body.p);
    (void)snprintf(ret_id, 32, "%s", reply_text(&r, "id"));
}

void delete_sandbox(const struct stack *s, const char *id)
{
    AUTO_REPLY struct reply r = {0};
    char path[96];
    (void)snprintf(path, sizeof path, "/v1/sandboxes/%s", id);
    api(s, "DELETE", path, NULL, &r);
    if (r.status != 204)
        fail_msg("delete answered %d: %.*s", r.status, (int)r.body.len, r.body.p);
}

void exec_in(const struct stack *s, const char *id, const char *body, struct reply *ret)
{
    char path[96];
    (void)snprintf(path, sizeof path, "/v1/sandboxes/%s/exec", id);
    api(s, "POST", path, body, ret);
    if (ret->status != 200)
        fail_msg("exec answered %d: %.*s", ret->status, (int)ret->body.len, ret->body.p);
}

void write_file(const struct stack *s, const char *id, const char *path, struct slice content)
{
    AUTO_REPLY struct reply r = {0};
    AUTO_BUF struct buf body = BUF_INIT(BODY_MAX);
    char url[96];
    (void)snprintf(url, sizeof url, "/v1/sandboxes/%s/files/write", id);
    buf_printf(&body,
        "--e2e\r\nContent-Disposition: form-data; name=\"path\"\r\n\r\n%s\r\n"
        "--e2e\r\nContent-Disposition: form-data; name=\"file\"; filename=\"f\"\r\n\r\n",
        path);
    buf_append_slice(&body, content);
    buf_append_cstr(&body, "\r\n--e2e--\r\n");
    api_send(s,
        &(struct api_request){.method = "POST",
            .path = url,
            .key = s->key,
            .content_type = "multipart/form-data; boundary=e2e",
            .body = buf_slice(&body)},
        &r);
    if (r.status != 204)
        fail_msg("files/write answered %d: %.*s", r.status, (int)r.body.len, r.body.p);
}
