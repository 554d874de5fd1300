/* SPDX-License-Identifier: Apache-2.0 */
/*
 * process.Process/Start: from the request to a started process.
 *
 * Theory of operation. A Start runs on its handler's thread to the end (run.c), so the number of
 * processes is bounded by a count below the server's threads, and other requests always find one.
 * All that a process needs is prepared before it is started; a start that fails is answered before
 * any event was sent, and leaves nothing.
 */
#include "envd/process.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/io.h"
#include "envd/access.h"
#include "envd/command.h"
#include "envd/envd_int.h"
#include "envd/run.h"
#include "envd/users.h"
#include "http/server.h"
#include "rpc/process_v1.h"
#include "rpc/server.h"

enum {
    START_BYTES_MAX = 4 << 20, /* 1 MiB of input in base64, arguments and environment */
    KEEPALIVE_SEC_DEFAULT = 90,
    KEEPALIVE_SEC_MAX = 3600,
    FIRST_FREE_FD = 3
};

/* What handlers get. */
struct start_context {
    struct envd *d;
    struct gate_pass *pass;
};

/* Both ends of a process's input and outputs; -1 where there is none. */
struct stdio {
    int ours[3];
    int theirs[3];
};

static void stdio_done(struct stdio *s)
{
    for (int i = 0; i < 3; i++) {
        if (s->ours[i] >= 0)
            (void)close(s->ours[i]);
        if (s->theirs[i] >= 0)
            (void)close(s->theirs[i]);
    }
}

/* The child's ends must not lie where they are going (spawn.h); they never do but in a process that
 * was started with one of 0, 1, 2 closed. */
static int stdio_check(const struct stdio *s, struct err *e)
{
    for (int i = 0; i < 3; i++)
        if (s->theirs[i] < FIRST_FREE_FD)
            return err_set(e, ERR_INTERNAL, "descriptor %d is taken by a pipe", s->theirs[i]);
    return 0;
}

static int open_pipe(int *ret_read, int *ret_write, struct err *e)
{
    int fds[2];
    if (pipe2(fds, O_CLOEXEC) < 0)
        return err_sys(e, errno, "pipe");
    *ret_read = fds[0];
    *ret_write = fds[1];
    return 0;
}

/* `stdin` false, and no data: an input that is at its end. */
static int stdio_open(
    struct envd *d, const struct process_start_request *req, struct stdio *s, struct err *e)
{
    bool empty = !req->has_stdin_data && req->has_stdin_open && !req->stdin_open;
    if (empty) {
        s->theirs[0] = fcntl(d->null_fd, F_DUPFD_CLOEXEC, FIRST_FREE_FD);
        if (s->theirs[0] < 0)
            return err_sys(e, errno, "duplicate /dev/null");
    } else if (open_pipe(&s->theirs[0], &s->ours[0], e) < 0) {
        return -1;
    }
    if (req->has_stdin_data && io_set_nonblock(s->ours[0], /* on= */ 1, e) < 0)
        return -1;
    if (open_pipe(&s->ours[1], &s->theirs[1], e) < 0 ||
        open_pipe(&s->ours[2], &s->theirs[2], e) < 0)
        return -1;
    return stdio_check(s, e);
}

/* Says what the caller did wrong, where it is the caller's fault. */
static int explain_failure(enum spawn_step step, const struct command *c, struct err *e)
{
    int errnum = e->errnum;
    if (step == SPAWN_EXEC && (errnum == ENOENT || errnum == ENOTDIR))
        return err_field(e, "cmd", "cmd '%s' not found", c->argv[0]);
    if (step == SPAWN_EXEC && (errnum == EACCES || errnum == ENOEXEC))
        return err_field(e, "cmd", "cmd '%s' is not executable", c->argv[0]);
    if (step == SPAWN_EXEC && errnum == E2BIG)
        return err_field(e, "args", "arguments and environment are too long");
    if (step == SPAWN_CWD && (errnum == ENOENT || errnum == ENOTDIR))
        return err_field(e, "cwd", "cwd '%s' does not exist", c->cwd);
    if (step == SPAWN_CWD && errnum == EACCES)
        return err_field(e, "cwd", "cwd '%s' is not accessible", c->cwd);
    return err_wrap(e, "start '%s'", c->argv[0]);
}

static int spawn(const struct user *u, const struct command *c, struct stdio *s,
    struct spawned *ret, struct err *e)
{
    const struct spawn_request request = {
        .user = u,
        .programs = c->programs,
        .argv = c->argv,
        .envp = c->envp,
        .cwd = c->cwd,
        .cwd_else = c->cwd_else,
        .fds = {s->theirs[0], s->theirs[1], s->theirs[2]},
    };
    enum spawn_step step;
    if (spawn_process(&request, ret, &step, e) < 0)
        return explain_failure(step, c, e);
    for (int i = 0; i < 3; i++) {
        int fd = TAKE_FD(s->theirs[i]);
        (void)close(fd);
    }
    return 0;
}

static int keepalive_ms(struct http_exchange *x)
{
    uint64_t sec;
    if (!slice_parse_u64(http_request_header(x, "Keepalive-Ping-Interval"), &sec) || sec == 0 ||
        sec > KEEPALIVE_SEC_MAX)
        sec = KEEPALIVE_SEC_DEFAULT;
    return (int)sec * 1000;
}

static int start_and_follow(
    struct envd *d, struct rpc_call *call, const struct process_start_request *req, struct err *e)
{
    const struct start_context *context = call->ctx;
    CLEANUP(stdio_done) struct stdio s = {{-1, -1, -1}, {-1, -1, -1}};
    struct run_params run = {
        .input = req->stdin_data,
        .has_input = req->has_stdin_data,
        .keepalive_ms = keepalive_ms(call->x),
        .pass = context->pass,
        .chunk = arena_alloc(call->arena, RUN_CHUNK_BYTES),
    };
    struct command command = {0};
    struct user user;
    if (!run.chunk)
        return err_set(e, ERR_NOMEM, "no memory for the output");
    if (!req->process)
        return err_field(e, "process", "process is missing");
    if (access_rpc_user(d, call->x, &user, e) < 0 ||
        command_build(req->process, &user, d->settings, call->arena, &command, e) < 0 ||
        stdio_open(d, req, &s, e) < 0 || spawn(&user, &command, &s, &run.process, e) < 0)
        return -1;
    run.stdin_fd = TAKE_FD(s.ours[0]);
    run.stdout_fd = TAKE_FD(s.ours[1]);
    run.stderr_fd = TAKE_FD(s.ours[2]);
    return run_follow(call, &run, e);
}

static int handle_start(struct rpc_call *call, const void *req, struct err *e)
{
    const struct start_context *context = call->ctx;
    struct envd *d = context->d;
    int rc;
    if (atomic_fetch_add(&d->processes, 1) >= d->processes_max)
        rc = err_set(e, ERR_NO_CAPACITY, "%d processes run already", d->processes_max);
    else
        rc = start_and_follow(d, call, req, e);
    (void)atomic_fetch_sub(&d->processes, 1);
    return rc;
}

bool process_serve(struct envd *d, struct http_exchange *x, struct gate_pass *pass)
{
    struct start_context context = {.d = d, .pass = pass};
    static const struct rpc_method methods[] = {
        {.path = PROCESS_V1_PATH("Start"),
            .request = &process_start_request_message,
            .response = &process_start_response_message,
            .stream = handle_start},
    };
    return rpc_serve(x, methods, ARRAY_LEN(methods), START_BYTES_MAX, &context);
}
