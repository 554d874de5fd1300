/* SPDX-License-Identifier: Apache-2.0 */
/* The fake's HTTP server. */
#include "fake_envd.h"

#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/io.h"
#include "base/sock.h"
#include "http/server.h"
#include "proto/limits.h"
#include "rpc/process_v1.h"
#include "rpc/server.h"

struct fake_envd fake;
static struct http_server *server;
static int hanging_fd = -1;
static int release_fd = -1;

static int send_event(struct rpc_call *call, const struct process_event *event, struct err *e)
{
    const struct process_start_response m = {.event = (struct process_event *)(uintptr_t)event};
    return rpc_send(call, &process_start_response_message, &m, e);
}

static int send_output(struct rpc_call *call, struct slice out, struct slice err_out, struct err *e)
{
    struct process_data_event first = {.stdout_bytes = out, .has_stdout = true};
    struct process_data_event second = {.stderr_bytes = err_out, .has_stderr = true};
    if (send_event(call, &(struct process_event){.data = &first, .has_data = true}, e) < 0)
        return -1;
    return send_event(call, &(struct process_event){.data = &second, .has_data = true}, e);
}

static int send_end(struct rpc_call *call, struct process_end_event end, struct err *e)
{
    return send_event(call, &(struct process_event){.end = &end, .has_end = true}, e);
}

static int send_large(struct rpc_call *call, struct err *e)
{
    static char chunk[32768];
    memset(chunk, 'x', sizeof chunk);
    for (size_t sent = 0; sent < 17u << 20; sent += sizeof chunk) {
        struct process_data_event d = {
            .stdout_bytes = slice_of(chunk, sizeof chunk), .has_stdout = true};
        if (send_event(call, &(struct process_event){.data = &d, .has_data = true}, e) < 0)
            return -1;
    }
    return send_end(call, (struct process_end_event){.exited = true}, e);
}

static int hang(struct err *e)
{
    (void)eventfd_write(hanging_fd, 1);
    return io_wait(release_fd, POLLIN, deadline_in_ms(20000), e) > 0 ? 0 : -1;
}

static void keep(char *dst, size_t n, struct slice s)
{
    (void)snprintf(dst, n, "%.*s", (int)s.n, s.p ? s.p : "");
}

static int start(struct rpc_call *call, const void *req, struct err *e)
{
    const struct process_start_request *r = req;
    struct process_start_event started = {.pid = 7};
    keep(fake.last_tag, sizeof fake.last_tag, r->tag);
    if (fake.start == START_BAD_CWD)
        return err_field(e, "cwd", "cwd '/x' does not exist");
    if (fake.start == START_BAD_USER)
        return err_set(e, ERR_UNAUTHORIZED, "invalid username: 'x'");
    if (fake.start == START_LATE && hang(e) < 0)
        return -1;
    if (send_event(call, &(struct process_event){.start = &started, .has_start = true}, e) < 0)
        return -1;
    switch (fake.start) {
    case START_ECHO:
    case START_LATE:
        return send_output(call, r->process->cmd, r->stdin_data, e) < 0
                   ? -1
                   : send_end(call, (struct process_end_event){.exit_code = 3, .exited = true}, e);
    case START_SIGNALLED:
        return send_end(call, (struct process_end_event){.exit_code = -1, .signal = SIGSEGV}, e);
    case START_TIMED_OUT:
        if (send_output(call, SLICE_LIT("so far"), SLICE_LIT(""), e) < 0 ||
            send_end(call,
                (struct process_end_event){.exit_code = -1, .signal = SIGKILL, .timed_out = true},
                e) < 0)
            return -1;
        return err_set(e, ERR_TIMEOUT, "the deadline passed");
    case START_LARGE:
        return send_large(call, e);
    case START_PAUSED:
        return send_output(call, r->process->cmd, SLICE_LIT(""), e) < 0
                   ? -1
                   : err_set(e, ERR_CONFLICT, "paused");
    case START_HANGS:
        return hang(e);
    default:
        return 0;
    }
}

static const struct rpc_method methods[] = {{PROCESS_V1_PATH("Start"),
    &process_start_request_message, &process_start_response_message, .stream = start}};

static void answer_files(struct http_exchange *x)
{
    static const struct slice error = SLICE_LIT("{\"code\":1,\"message\":\"as told\"}");
    AUTO_BUF struct buf body = BUF_INIT(200u << 20);
    if (fake.files_status != 200) {
        (void)http_reply(x, fake.files_status, "application/json", error);
        return;
    }
    for (size_t i = 0; i < fake.files_bytes; i++)
        buf_append_char(&body, 'f');
    (void)http_reply(x, 200, "application/octet-stream", buf_slice(&body));
}

/* As envd with its gate closed. */
static void refuse(struct http_exchange *x)
{
    struct err e = {0};
    (void)hang(&e);
    fake.start = START_ECHO;
    fake.files_status = 200;
    (void)http_reply(x, 503, "application/json",
        SLICE_LIT("{\"code\":503,\"message\":\"the sandbox is being paused\"}"));
}

static void handle(struct http_exchange *x, void *ctx)
{
    const struct http_request_head *h = http_request(x);
    struct err e = {0};
    AUTO_BUF struct buf body = BUF_INIT(sizeof fake.last_body - 1);
    fake.requests++;
    keep(fake.last_target, sizeof fake.last_target, h->target);
    keep(fake.last_token, sizeof fake.last_token, http_request_header(x, "X-Access-Token"));
    keep(fake.last_secret, sizeof fake.last_secret, http_request_header(x, "X-Snapshot-Secret"));
    keep(fake.last_user_header, sizeof fake.last_user_header,
        http_request_header(x, "Authorization"));
    if ((fake.start == START_REFUSED && slice_is(h->path, PROCESS_V1_PATH("Start"))) ||
        (fake.files_status == 503 && slice_is(h->path, "/files"))) {
        refuse(x);
    } else if (rpc_serve(x, methods, 1, 1 << 20, NULL)) {
        /* answered */
    } else if (slice_is(h->path, "/health")) {
        (void)http_reply(x, fake.health_status, NULL, (struct slice){0});
    } else if (slice_is(h->path, "/snapshot/prepare")) {
        (void)http_body_read_all(x, &body, &e);
        keep(fake.last_body, sizeof fake.last_body, buf_slice(&body));
        (void)http_reply(x, fake.prepare_status, "application/json",
            fake.prepare_status == 204 ? (struct slice){0}
                                       : SLICE_LIT("{\"code\":504,\"message\":\"busy\"}"));
    } else if (slice_is(h->path, "/init")) {
        (void)http_body_read_all(x, &body, &e);
        keep(fake.last_body, sizeof fake.last_body, buf_slice(&body));
        (void)http_reply(x, fake.init_status, "application/json",
            fake.init_status == 204 ? (struct slice){0}
                                    : SLICE_LIT("{\"code\":500,\"message\":\"no clock\"}"));
    } else {
        answer_files(x);
    }
    if (fake.close_after_each)
        (void)shutdown(http_fd(x), SHUT_RDWR);
}

static bool count_connection(int fd, void *ctx)
{
    (void)atomic_fetch_add(&fake.connections, 1);
    return true;
}

void fake_start(char ret_ip[16])
{
    struct err e = {0};
    unsigned pid = (unsigned)getpid();
    int fd;
    (void)snprintf(ret_ip, 16, "127.77.%u.%u", pid >> 8 & 255, pid & 255);
    fake = (struct fake_envd){
        .health_status = 204, .init_status = 204, .prepare_status = 204, .files_status = 200};
    hanging_fd = eventfd(0, EFD_CLOEXEC);
    release_fd = eventfd(0, EFD_CLOEXEC);
    fd = sock_listen_tcp(ret_ip, GUEST_ENVD_PORT, &e);
    if (fd < 0)
        fail_msg("%s", e.msg);
    server = http_server_start(
        &(struct http_server_config){
            .listen_fd = fd, .handler = handle, .accept_filter = count_connection},
        &e);
    assert_non_null(server);
}

void fake_stop(void)
{
    fake_release();
    http_server_stop(server);
    (void)close(hanging_fd);
    (void)close(release_fd);
}

void fake_release(void)
{
    (void)eventfd_write(release_fd, 1);
}

int fake_wait_hanging(void)
{
    struct err e = {0};
    return io_wait(hanging_fd, POLLIN, deadline_in_ms(5000), &e) > 0 ? 0 : -1;
}
