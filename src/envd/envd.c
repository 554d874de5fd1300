/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The service: its routes.
 *
 * Theory of operation. /health and /init are open (init.c looks at the token itself). Everything
 * else passes access_check first: before the first /init nothing is served, afterwards the token is
 * needed. It does so before a route is even looked for, so that a stranger learns nothing. Before
 * that comes the gate (gate.h): from a prepared snapshot to the /init that ends it nothing is
 * served, and the token that was in force opens nothing.
 */
#include "envd/envd.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>

#include "base/cleanup.h"
#include "base/sock.h"
#include "envd/access.h"
#include "envd/envd_int.h"
#include "envd/gate.h"
#include "envd/process.h"
#include "envd/settings.h"
#include "http/server.h"
#include "http/status.h"
#include "json/json.h"

enum {
    PROCESSES_MAX_DEFAULT = 256,
    OTHER_THREADS = 32,         /* beside one for each process: files, health, init */
    ARENA_BYTES_MAX = 12 << 20, /* a Start with 1 MiB of input: base64, JSON tree, bytes */
    ERROR_BYTES_MAX = 8 * ERR_MSG_MAX
};

static void reply_error(struct http_exchange *x, int status, const struct err *why)
{
    AUTO_BUF struct buf body = BUF_INIT(ERROR_BYTES_MAX);
    struct json_writer w;
    json_writer_init(&w, &body);
    json_object_begin(&w);
    json_key(&w, "code");
    json_int(&w, status);
    json_key(&w, "message");
    json_cstr(&w, why->msg);
    json_object_end(&w);
    (void)http_reply(x, status, "application/json; charset=utf-8", buf_slice(&body));
}

void envd_reply_error(struct http_exchange *x, const struct err *why)
{
    if (http_reply_begun(x))
        http_reply_abort(x);
    else
        reply_error(x, http_status_from_kind(why->kind), why);
}

static void handle_health(struct envd *d, struct http_exchange *x)
{
    struct slice method = http_request(x)->method;
    struct err e = {0};
    if (!slice_is(method, "GET") && !slice_is(method, "HEAD")) {
        err_set(&e, ERR_METHOD, "/health takes GET");
        http_reply_header(x, "Allow", "GET, HEAD");
        envd_reply_error(x, &e);
        return;
    }
    http_reply_header(x, "Cache-Control", "no-store");
    if (gate_is_open(d->gate)) {
        (void)http_reply(x, HTTP_NO_CONTENT, NULL, (struct slice){0});
        return;
    }
    err_set(&e, ERR_UNAVAILABLE, "the sandbox is being paused");
    envd_reply_error(x, &e);
}

static void handle_inside(struct envd *d, struct http_exchange *x, struct gate_pass *pass)
{
    struct err e = {0};
    if (access_check(d, x, &e) < 0) {
        envd_reply_error(x, &e);
    } else if (slice_is(http_request(x)->path, "/files")) {
        files_handle(d, x);
    } else if (!process_serve(d, x, pass)) {
        err_set(&e, ERR_NOT_FOUND, "no such route");
        envd_reply_error(x, &e);
    }
}

static void handle(struct http_exchange *x, void *ctx)
{
    struct envd *d = ctx;
    struct slice path = http_request(x)->path;
    struct gate_pass pass;
    struct err e = {0};
    if (slice_is(path, "/health")) {
        handle_health(d, x);
    } else if (slice_is(path, "/init")) {
        init_handle(d, x);
    } else if (slice_is(path, "/snapshot/prepare")) {
        snapshot_handle_prepare(d, x);
    } else if (gate_enter(d->gate, &pass, &e) < 0) {
        envd_reply_error(x, &e);
    } else {
        handle_inside(d, x, &pass);
        gate_leave(&pass);
    }
}

static void handle_bad_request(struct http_exchange *x, const struct err *why, void *ctx)
{
    reply_error(x, http_error_status(x), why);
}

static struct http_server *start_server(struct envd *d, int listen_fd, struct err *e)
{
    const struct http_server_config config = {
        .listen_fd = listen_fd,
        .handler = handle,
        .on_error = handle_bad_request,
        .ctx = d,
        .threads_max = (size_t)d->processes_max + OTHER_THREADS,
        .arena_bytes_max = ARENA_BYTES_MAX,
    };
    static const int own_faults[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT, SIGTRAP, SIGSYS};
    struct http_server *server;
    sigset_t all;
    sigset_t before;
    (void)sigfillset(&all);
    for (size_t i = 0; i < ARRAY_LEN(own_faults); i++)
        (void)sigdelset(&all, own_faults[i]);
    (void)pthread_sigmask(SIG_SETMASK, &all, &before);
    server = http_server_start(&config, e);
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
    return server;
}

static void free_envd(struct envd *d)
{
    if (d->null_fd >= 0)
        (void)close(d->null_fd);
    settings_free(d->settings);
    gate_free(d->gate);
    (void)pthread_mutex_destroy(&d->init_lock);
    free(d);
}

struct envd *envd_start(const struct envd_config *config, struct err *e)
{
    struct envd *d = calloc(1, sizeof *d);
    if (!d || pthread_mutex_init(&d->init_lock, NULL) != 0) {
        free(d);
        err_set(e, ERR_NOMEM, "no memory for the service");
        return NULL;
    }
    d->etc_dir = config->etc_dir;
    d->system = config->system;
    d->processes_max = config->processes_max > 0 ? config->processes_max : PROCESSES_MAX_DEFAULT;
    d->settings = settings_new();
    d->gate = gate_new();
    d->port = sock_local_port(config->listen_fd);
    d->null_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
    if (!d->settings || !d->gate)
        err_set(e, ERR_NOMEM, "no memory for the settings"); /* or no descriptor */
    else if (d->null_fd < 0)
        err_sys(e, errno, "open /dev/null");
    else if ((d->server = start_server(d, config->listen_fd, e)))
        return d;
    free_envd(d);
    return NULL;
}

void envd_stop(struct envd *d)
{
    if (!d)
        return;
    http_server_stop(d->server);
    free_envd(d);
}
