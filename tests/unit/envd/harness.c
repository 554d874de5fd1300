/* SPDX-License-Identifier: Apache-2.0 */
/* The service on a loopback port, and a client of raw bytes, so that nothing of ours but the parser
 * of answers stands between the test and the wire. */
#include "harness.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/io.h"
#include "base/sock.h"
#include "envd/envd.h"
#include "envd/system.h"
#include "http/parse.h"
#include "json/json.h"

static int fake(struct machine *m, const char *what, struct err *e)
{
    if (m->fails && strcmp(m->fails, what) == 0)
        return err_set(e, ERR_IO, "the fake fails");
    return 0;
}

static int fake_clock(void *ctx, int64_t real_ns, struct err *e)
{
    struct machine *m = ctx;
    m->real_ns = real_ns;
    return fake(m, "clock", e);
}

static int fake_entropy(void *ctx, struct slice bytes, struct err *e)
{
    struct machine *m = ctx;
    assert_true(bytes.n <= sizeof m->entropy);
    memcpy(m->entropy, bytes.p, bytes.n);
    m->entropy_len = bytes.n;
    return fake(m, "entropy", e);
}

static int fake_hostname(void *ctx, const char *name, struct err *e)
{
    struct machine *m = ctx;
    (void)snprintf(m->hostname, sizeof m->hostname, "%s", name);
    return fake(m, "hostname", e);
}

static void fake_sync(void *ctx)
{
    struct machine *m = ctx;
    m->syncs++;
}

static int fake_drop(void *ctx, struct err *e)
{
    struct machine *m = ctx;
    m->drops++;
    return fake(m, "drop", e);
}

static struct system_ops fake_system = {
    .sync = fake_sync,
    .drop_connections = fake_drop,
    .set_clock = fake_clock,
    .add_entropy = fake_entropy,
    .set_hostname = fake_hostname,
};

static void make_folder(const char *path, uid_t uid)
{
    assert_int_equal(mkdir(path, 0755), 0);
    if (geteuid() == 0)
        assert_int_equal(chown(path, uid, uid), 0);
}

static void make_tree(struct harness *h)
{
    const char *base = getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp";
    char text[1024];
    char user_home[SCRATCH_MAX];
    assert_true(snprintf(h->dir, 200, "%s/torpor-envd-XXXXXX", base) < 200);
    assert_non_null(mkdtemp(h->dir));
    assert_int_equal(chmod(h->dir, 0755), 0);
    (void)snprintf(h->etc, sizeof h->etc, "%.200s/etc", h->dir);
    (void)snprintf(h->home, sizeof h->home, "%.200s/home", h->dir);
    (void)snprintf(user_home, sizeof user_home, "%.200s/user", h->dir);
    make_folder(h->etc, 0);
    make_folder(h->home, geteuid());
    make_folder(user_home, 1000);
    (void)snprintf(text, sizeof text,
        "root:x:0:0:root:/root:/bin/sh\n"
        "user:x:1000:1000::%s:/bin/bash\n"
        "broken:x:many:0::/:\n"
        "me:x:%d:%d::%s:\n",
        user_home, (int)geteuid(), (int)getegid(), h->home);
    harness_write(h, "etc/passwd", text);
    harness_write(h, "etc/group",
        "root:x:0:\nstaff:x:50:user\nother:x:51:me2,users\n"
        "games:x:60:nobody,user\n");
}

int harness_set_up(void **state)
{
    struct harness *h = calloc(1, sizeof *h);
    struct err e = {0};
    struct envd_config config;
    assert_non_null(h);
    make_tree(h);
    fake_system.ctx = &h->machine;
    config = (struct envd_config){
        .listen_fd = sock_listen_tcp("127.0.0.1", 0, &e),
        .etc_dir = h->etc,
        .system = &fake_system,
        .processes_max = 8,
    };
    assert_true(config.listen_fd >= 0);
    h->port = sock_local_port(config.listen_fd);
    h->envd = envd_start(&config, &e);
    if (!h->envd)
        fail_msg("%s", e.msg);
    *state = h;
    return 0;
}

int harness_set_up_initialised(void **state)
{
    if (harness_set_up(state) != 0)
        return -1;
    return harness_init(*state, "{\"accessToken\":\"" TOKEN "\",\"defaultUser\":\"me\"}", NULL) ==
                   204
               ? 0
               : -1;
}

int harness_tear_down(void **state)
{
    struct harness *h = *state;
    struct err e = {0};
    envd_stop(h->envd);
    assert_int_equal(io_remove_tree(AT_FDCWD, h->dir, &e), 0);
    free(h);
    return 0;
}

static void path_in(struct harness *h, const char *name, char dst[PATH_MAX])
{
    assert_true(snprintf(dst, PATH_MAX, "%s/%s", h->dir, name) < PATH_MAX);
}

void harness_write(struct harness *h, const char *name, const char *text)
{
    char path[PATH_MAX];
    FILE *f;
    path_in(h, name, path);
    f = fopen(path, "we");
    assert_non_null(f);
    assert_int_equal(fwrite(text, 1, strlen(text), f), strlen(text));
    assert_int_equal(fclose(f), 0);
}

char *harness_read(struct harness *h, const char *name)
{
    struct buf text = BUF_INIT(ANSWER_BYTES_MAX);
    struct err e = {0};
    char path[PATH_MAX];
    path_in(h, name, path);
    if (io_read_file(AT_FDCWD, path, &text, &e) < 0)
        return NULL;
    return text.p ? text.p : calloc(1, 1);
}

size_t harness_count(struct harness *h, const char *name)
{
    char path[PATH_MAX];
    struct dirent *ent;
    size_t n = 0;
    DIR *d;
    path_in(h, name, path);
    d = opendir(path);
    assert_non_null(d);
    while ((ent = readdir(d)))
        n += strcmp(ent->d_name, ".") != 0 && strcmp(ent->d_name, "..") != 0;
    (void)closedir(d);
    return n;
}

void answer_done(struct answer *a)
{
    buf_done(&a->raw);
    buf_done(&a->body);
    buf_done(&a->head);
}

int harness_connect(struct harness *h)
{
    struct err e = {0};
    int fd = sock_connect_tcp("127.0.0.1", h->port, deadline_in_ms(TEST_DEADLINE_MS), &e);
    assert_true(fd >= 0);
    return fd;
}

void harness_send(int fd, struct slice bytes)
{
    struct err e = {0};
    if (io_write_full(fd, bytes.p, bytes.n, deadline_in_ms(TEST_DEADLINE_MS), &e) < 0 &&
        e.errnum != EPIPE && e.errnum != ECONNRESET) /* refused early: the answer says why */
        fail_msg("%s", e.msg);
}

static void read_all(int fd, struct buf *raw)
{
    int64_t deadline = deadline_in_ms(TEST_DEADLINE_MS);
    for (;;) {
        struct err e = {0};
        char *p = buf_reserve(raw, 64 * 1024);
        ssize_t got;
        assert_non_null(p);
        got = io_read(fd, p, 64 * 1024, deadline, &e);
        if (got < 0 && e.kind == ERR_TIMEOUT)
            fail_msg("no end of the answer: %.*s", (int)raw->len, raw->p);
        if (got <= 0)
            return;
        buf_commit(raw, (size_t)got);
    }
}

static void dechunk(struct answer *a, const char *p, size_t n)
{
    struct http_chunks chunks = {0};
    while (n > 0 && !a->complete) {
        struct err e = {0};
        struct slice data;
        ssize_t used = http_chunks_feed(&chunks, p, n, &data, &a->complete, &e);
        assert_true(used >= 0);
        if (used == 0)
            return;
        buf_append_slice(&a->body, data);
        p += used;
        n -= (size_t)used;
    }
}

struct answer harness_answer(int fd)
{
    struct answer a = {.raw = BUF_INIT(ANSWER_BYTES_MAX),
        .body = BUF_INIT(ANSWER_BYTES_MAX),
        .head = BUF_INIT(ANSWER_BYTES_MAX)};
    struct http_response_head *head = calloc(1, sizeof *head);
    struct err e = {0};
    ssize_t n;
    assert_non_null(head);
    read_all(fd, &a.raw);
    n = a.raw.len > 0 ? http_parse_response(a.raw.p, a.raw.len, head, &e) : 0;
    if (n > 0) {
        size_t left = a.raw.len - (size_t)n;
        a.status = head->status;
        buf_append(&a.head, a.raw.p, (size_t)n);
        if (head->framing == HTTP_BODY_CHUNKED) {
            dechunk(&a, a.raw.p + n, left);
        } else {
            buf_append(&a.body, a.raw.p + n, left);
            a.complete = left == head->content_length;
        }
    }
    free(head);
    return a;
}

struct answer harness_ask(struct harness *h, const char *method, const char *target,
    const char *headers, struct slice body)
{
    AUTO_BUF struct buf request = BUF_INIT(ANSWER_BYTES_MAX);
    AUTO_CLOSE int fd = harness_connect(h);
    buf_printf(&request, "%s %s HTTP/1.1\r\nHost: guest\r\nConnection: close\r\n%s", method, target,
        headers ? headers : "");
    if (body.p)
        buf_printf(&request, "Content-Length: %zu\r\n", body.n);
    buf_append_cstr(&request, "\r\n");
    buf_append_slice(&request, body);
    assert_false(request.failed);
    harness_send(fd, buf_slice(&request));
    return harness_answer(fd);
}

int harness_init(struct harness *h, const char *json, const char *headers)
{
    AUTO_ANSWER struct answer a = harness_ask(h, "POST", "/init", headers, slice_cstr(json));
    return a.status;
}

void assert_message(const struct answer *a, const char *want)
{
    struct arena arena;
    const struct json_value *v;
    const struct json_value *code;
    struct err e = {0};
    arena_init(&arena, 1 << 20);
    if (json_parse(buf_slice(&a->body), &arena, &v, &e) < 0)
        fail_msg("%s in %.*s", e.msg, (int)a->body.len, a->body.p);
    code = json_get(v, "code");
    assert_non_null(code);
    assert_int_equal(code->integer, a->status);
    v = json_get(v, "message");
    assert_non_null(v);
    assert_int_equal(v->type, JSON_STRING);
    if (!slice_is(v->string, want))
        fail_msg("got \"%.*s\", want \"%s\"", (int)v->string.n, v->string.p, want);
    arena_done(&arena);
}
