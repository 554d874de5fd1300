/* SPDX-License-Identifier: Apache-2.0 */
/* The control plane under test and its client. */
#include "api_fixture.h"

#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <sys/socket.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/sock.h"
#include "control/service/service.h"
#include "http/client.h"

enum { PATIENCE_MS = 30000, POLL_MS = 20, GAP_MS = 5, LOCK_WAIT_MS = 100 };

int fixture_full_every_ms = 1;
int fixture_poll_ms = POLL_MS;

void fixture_start_control(struct fixture *f)
{
    char socket_path[TMPDIR_PATH_MAX + 32];
    char data[TMPDIR_PATH_MAX + 32];
    char url[CONTROL_URL_MAX];
    unsigned port;
    struct err e = {0};
    struct control_config config = {
        .dir = tmpdir_file(&f->dir, "var", data),
        .agent_socket = tmpdir_file(&f->dir, "agent.sock", socket_path),
        .listen_ipv4 = "127.0.0.1",
        .poll_ms = fixture_poll_ms,
        .gap_ms = GAP_MS,
        .full_every_ms = fixture_full_every_ms,
        .lock_wait_ms = LOCK_WAIT_MS,
    };
    if (control_start(&config, &f->control, &e) < 0)
        fail_msg("%s", e.msg);
    control_url(f->control, url);
    assert_int_equal(sscanf(url, "http://127.0.0.1:%u", &port), 1);
    f->port = (uint16_t)port;
}

void fixture_stop_control(struct fixture *f)
{
    f->control = control_stop(f->control);
}

static void read_key(struct fixture *f)
{
    char path[TMPDIR_PATH_MAX + 32];
    struct err e = {0};
    AUTO_BUF struct buf text = BUF_INIT(64);
    if (io_read_file(AT_FDCWD, tmpdir_file(&f->dir, "var/api-key", path), &text, &e) < 0)
        fail_msg("%s", e.msg);
    assert_int_equal(text.len, KEY_TEXT_MAX + 1);
    text.p[KEY_TEXT_MAX] = '\0';
    (void)snprintf(f->default_key, sizeof f->default_key, "%s", text.p);
}

int fixture_setup(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);
    char path[TMPDIR_PATH_MAX + 32];
    log_set_level(LOG_ERR);
    tmpdir_make(&f->dir);
    fake_agent_start(&f->agent, tmpdir_file(&f->dir, "agent.sock", path));
    fixture_start_control(f);
    read_key(f);
    (void)snprintf(f->key, sizeof f->key, "%s", f->default_key);
    fake_wait_polled(&f->agent);
    *state = f;
    return 0;
}

int fixture_teardown(void **state)
{
    struct fixture *f = *state;
    for (int m = 0; m < AGENT_METHOD_COUNT; m++)
        fake_hold(&f->agent, (enum agent_method)m, false);
    fixture_stop_control(f);
    fake_agent_done(&f->agent);
    tmpdir_remove(&f->dir);
    free(f);
    return 0;
}

static struct store *open_beside(struct fixture *f)
{
    char path[TMPDIR_PATH_MAX + 32];
    struct store *store;
    struct err e = {0};
    if (sqlite_store_open(tmpdir_file(&f->dir, "var/control.db", path), &store, &e) < 0)
        fail_msg("%s", e.msg);
    return store;
}

void fixture_other_team(struct fixture *f, char ret_key[64], struct key_row *ret_row)
{
    struct store *store = open_beside(f);
    struct team_row team = {.name = "other", .created_at_ms = 1};
    struct err e = {0};
    team_id_new(&team.id);
    assert_int_equal(key_new(&team.id, "k", ret_row, ret_key, &e), 0);
    assert_int_equal(store->ops->team_create(store, &team, ret_row, &e), 0);
    (void)store_close(store);
}

void fixture_delete_key(struct fixture *f, const struct key_row *key)
{
    struct store *store = open_beside(f);
    struct err e = {0};
    assert_int_equal(store->ops->key_delete(store, &key->team, &key->id, &e), 0);
    (void)store_close(store);
}

/* --- requests --- */

int connect_raw(struct fixture *f)
{
    struct err e = {0};
    int fd = sock_connect_tcp("127.0.0.1", f->port, deadline_in_ms(PATIENCE_MS), &e);
    if (fd < 0)
        fail_msg("%s", e.msg);
    return fd;
}

static void copy_header(
    const struct http_response_head *head, const char *name, char *dst, size_t n)
{
    (void)slice_copy_cstr(http_header_find(head->headers, head->n_headers, name), dst, n);
}

static void take_head(const struct http_response_head *head, struct answer *a)
{
    a->status = head->status;
    copy_header(head, "Allow", a->allow, sizeof a->allow);
    copy_header(head, "Retry-After", a->retry_after, sizeof a->retry_after);
    copy_header(head, "X-Request-Id", a->request_id, sizeof a->request_id);
    copy_header(head, "X-Next-Cursor", a->next_cursor, sizeof a->next_cursor);
    copy_header(head, "Server-Timing", a->server_timing, sizeof a->server_timing);
    copy_header(head, "Content-Type", a->content_type, sizeof a->content_type);
}

static size_t make_headers(
    const struct fixture *f, const struct request *r, struct http_header headers[3])
{
    size_t n = 0;
    if (f->key[0])
        headers[n++] = (struct http_header){SLICE_LIT("X-API-Key"), slice_cstr(f->key)};
    if (r->body.p)
        headers[n++] = (struct http_header){SLICE_LIT("Content-Type"),
            slice_cstr(r->content_type ? r->content_type : "application/json")};
    if (r->extra_name)
        headers[n++] = (struct http_header){slice_cstr(r->extra_name), slice_cstr(r->extra_value)};
    return n;
}

/* What holds for every answer: an id, and one form for errors. */
static void check_answer(struct answer *a)
{
    struct err e = {0};
    arena_init(&a->arena, 256 << 20);
    if (strcmp(a->content_type, "application/json") == 0 &&
        json_parse(buf_slice(&a->body), &a->arena, &a->json, &e) < 0)
        fail_msg("the answer is no JSON: %s", e.msg);
    assert_true(a->request_id[0] != '\0');
    if (a->status < 400)
        return;
    assert_non_null(a->json);
    assert_string_equal(member(a, "error.request_id"), a->request_id);
    assert_true(member(a, "error.code")[0] != '\0');
    assert_true(member(a, "error.message")[0] != '\0');
    assert_null(strstr(a->body.p, "/tmp/"));
    assert_int_equal(a->status == 503 || a->status == 429, a->retry_after[0] != '\0');
}

void ask(struct fixture *f, const struct request *r, struct answer *ret)
{
    struct err e = {0};
    int64_t deadline = deadline_in_ms(PATIENCE_MS);
    struct http_header headers[3];
    const struct http_response_head *head;
    struct http_call call = {
        .method = r->method,
        .target = r->target,
        .host = "localhost",
        .headers = headers,
        .n_headers = make_headers(f, r, headers),
        .body = r->body,
        .body_length = HTTP_BODY_IS_SLICE,
    };
    struct http_conn *conn = http_conn_new(connect_raw(f), &e);
    struct err ignored = {0};
    *ret = (struct answer){.body = BUF_INIT(256u << 20)};
    assert_non_null(conn);
    /* A server that refuses early may stop reading; its answer counts. */
    (void)http_send(conn, &call, deadline, &ignored);
    if (http_recv_head(conn, &head, deadline, &e) < 0)
        fail_msg("%s %s: %s", r->method, r->target, e.msg);
    take_head(head, ret);
    if (http_recv_body_all(conn, &ret->body, deadline, &e) < 0)
        fail_msg("%s %s: %s", r->method, r->target, e.msg);
    (void)http_conn_free(conn);
    check_answer(ret);
}

void answer_done(struct answer *a)
{
    buf_done(&a->body);
    arena_done(&a->arena);
}

static void *run_asker(void *arg)
{
    struct asker *k = arg;
    ask(k->f, &k->request, &k->answer);
    return NULL;
}

void asker_start(struct asker *k, struct fixture *f, const struct request *r)
{
    *k = (struct asker){.f = f, .request = *r};
    (void)snprintf(k->target, sizeof k->target, "%s", r->target);
    k->request.target = k->target;
    assert_int_equal(pthread_create(&k->thread, NULL, run_asker, k), 0);
}

void asker_join(struct asker *k)
{
    (void)pthread_join(k->thread, NULL);
}

void get(struct fixture *f, const char *target, struct answer *ret)
{
    struct request r = {.method = "GET", .target = target};
    ask(f, &r, ret);
}

void post(struct fixture *f, const char *target, const char *body, struct answer *ret)
{
    struct request r = {.method = "POST", .target = target, .body = slice_cstr(body)};
    ask(f, &r, ret);
}

static const char *value_text(struct answer *a, const struct json_value *v)
{
    if (!v)
        return "";
    switch (v->type) {
    case JSON_STRING:
        return arena_strndup(&a->arena, v->string.p, v->string.n);
    case JSON_INT:
        return arena_printf(&a->arena, "%" PRId64, v->integer);
    case JSON_BOOL:
        return v->boolean ? "true" : "false";
    case JSON_NULL:
        return "null";
    default:
        return v->type == JSON_OBJECT ? "{}" : "[]";
    }
}

const char *member(struct answer *a, const char *path)
{
    const struct json_value *v = a->json;
    while (v && *path) {
        size_t n = strcspn(path, ".");
        const char *key = arena_strndup(&a->arena, path, n);
        v = json_get(v, key);
        path += path[n] == '.' ? n + 1 : n;
    }
    return value_text(a, v);
}

void assert_error(struct answer *a, int status, const char *code, const char *field)
{
    if (a->status != status)
        fail_msg("status %d instead of %d: %s", a->status, status, a->body.p);
    assert_string_equal(member(a, "error.code"), code);
    if (field)
        assert_string_equal(member(a, "error.details.field"), field);
}

void make_sandbox(struct fixture *f, char ret_id[ID_TEXT_MAX + 1])
{
    AUTO_ANSWER a;
    post(f, "/v1/sandboxes", "{}", &a);
    if (a.status != 201)
        fail_msg("create: %d %s", a.status, a.body.p);
    (void)snprintf(ret_id, ID_TEXT_MAX + 1, "%s", member(&a, "id"));
}

const char *at(const char *id, const char *tail)
{
    static _Thread_local char text[256];
    (void)snprintf(text, sizeof text, "/v1/sandboxes/%s%s", id, tail);
    return text;
}

int ask_raw(struct fixture *f, const char *bytes, size_t n, struct buf *ret_answer)
{
    struct err e = {0};
    int64_t deadline = deadline_in_ms(PATIENCE_MS);
    AUTO_CLOSE int fd = connect_raw(f);
    int status = 0;
    (void)io_write_full(fd, bytes, n, deadline, &e);
    (void)shutdown(fd, SHUT_WR);
    for (;;) {
        char chunk[4096];
        ssize_t got = io_read(fd, chunk, sizeof chunk, deadline, &e);
        if (got <= 0)
            break;
        buf_append(ret_answer, chunk, (size_t)got);
    }
    if (ret_answer->p)
        (void)sscanf(ret_answer->p, "HTTP/1.1 %d", &status);
    return status;
}
