/* SPDX-License-Identifier: Apache-2.0 */
/* The scripted server. One request at a time: the command line under test makes no others. */
#include "fake_api.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "base/sock.h"
#include "http/server.h"

enum { ANSWERS_MAX = 32, LOG_MAX = 8 << 20 };

static struct {
    struct http_server *server;
    const struct fake_answer *answers;
    size_t n;
    bool used[ANSWERS_MAX];
    struct buf log;
    struct buf body;
    const char *timing;
    pthread_mutex_t lock;
} fake = {.lock = PTHREAD_MUTEX_INITIALIZER};

static const struct fake_answer *take_answer(const char *request)
{
    for (size_t i = 0; i < fake.n; i++)
        if (!fake.used[i] && strcmp(fake.answers[i].request, request) == 0) {
            fake.used[i] = true;
            return &fake.answers[i];
        }
    return NULL;
}

static const struct fake_answer unauthorized = {.status = 401, .body = "{}"};
static const struct fake_answer unexpected = {.status = 500, .body = "{}"};

static void reply(struct http_exchange *x, const struct fake_answer *a, const char *timing)
{
    struct err e = {0};
    size_t n = strlen(a->body);
    if (a->next_cursor)
        http_reply_header(x, "X-Next-Cursor", "%s", a->next_cursor);
    if (timing)
        http_reply_header(x, "Server-Timing", "%s", timing);
    if (!a->breaks) {
        (void)http_reply(x, a->status, n ? "application/json" : NULL, slice_cstr(a->body));
        return;
    }
    (void)http_reply_begin(x, a->status, "application/octet-stream", (int64_t)n * 2, &e);
    (void)http_reply_write(x, a->body, n, &e);
    http_reply_abort(x);
}

static void handle(struct http_exchange *x, void *ctx)
{
    const struct http_request_head *head = http_request(x);
    char request[512];
    const struct fake_answer *a;
    const char *timing;
    struct err e = {0};
    (void)pthread_mutex_lock(&fake.lock);
    (void)snprintf(request, sizeof request, "%.*s %.*s", (int)head->method.n, head->method.p,
        (int)head->target.n, head->target.p);
    buf_reset(&fake.body);
    (void)http_body_read_all(x, &fake.body, &e);
    buf_printf(&fake.log, "%s\n", request);
    buf_append_slice(&fake.log, buf_slice(&fake.body));
    buf_append_char(&fake.log, '\n');
    a = take_answer(request);
    if (!slice_is(http_request_header(x, "X-API-Key"), "tpr_test"))
        a = &unauthorized;
    timing = fake.timing;
    (void)pthread_mutex_unlock(&fake.lock);
    reply(x, a ? a : &unexpected, timing);
}

void fake_api_start(const struct fake_answer *answers, size_t n)
{
    struct err e = {0};
    char url[64];
    struct http_server_config config = {.handler = handle};
    assert_true(n <= ANSWERS_MAX);
    fake.answers = answers;
    fake.n = n;
    memset(fake.used, 0, sizeof fake.used);
    fake.log = BUF_INIT(LOG_MAX);
    fake.body = BUF_INIT(LOG_MAX);
    config.listen_fd = sock_listen_tcp("127.0.0.1", 0, &e);
    assert_true(config.listen_fd >= 0);
    (void)snprintf(
        url, sizeof url, "http://127.0.0.1:%u", (unsigned)sock_local_port(config.listen_fd));
    (void)setenv("TORPOR_URL", url, 1);
    (void)setenv("TORPOR_API_KEY", "tpr_test", 1);
    fake.server = http_server_start(&config, &e);
    assert_non_null(fake.server);
}

void fake_api_stop(void)
{
    http_server_stop(fake.server);
    fake.server = NULL;
    buf_done(&fake.log);
    buf_done(&fake.body);
}

void fake_api_timing(const char *text)
{
    MUTEX_GUARD(&fake.lock);
    fake.timing = text;
}

const char *fake_api_log(void)
{
    MUTEX_GUARD(&fake.lock);
    return fake.log.p ? fake.log.p : "";
}

const struct buf *fake_api_body(void)
{
    return &fake.body;
}
