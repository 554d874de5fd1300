/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Following a process.
 *
 * Theory of operation. One thread, the one that started the process, polls its two outputs, its
 * input while there is something to write, and its pidfd; nothing else is needed and nothing is
 * handed between threads. The process is over for us when both outputs are at their end and the
 * pidfd says that it has ended: a child that keeps an output open keeps the stream open. It is
 * reaped last, so that until then its pid and group are its own (spawn.c).
 *
 * A slow client slows the process down: output is read only when the client's socket can take more.
 * A client that takes nothing for CLIENT_STALL_MS counts as gone and is cut. A client that is gone
 * does not end the process; its output is then read and dropped, so that it does not block.
 *
 * A pause ends the stream, not the process: the client is told, the connection ends, the request
 * counts as over, and the process is followed on as one whose client is gone. Where a live snapshot
 * wakes, the client is the one of the former life, which nobody hears: it is told what its socket
 * takes at once.
 *
 * At the call's deadline the whole group is killed. What the pipes hold by then is still sent, up
 * to DRAIN_BYTES_MAX each; what processes write that left the group is not waited for.
 */
#include "envd/run.h"

#include <assert.h>
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/io.h"
#include "envd/gate.h"
#include "http/server.h"
#include "rpc/process_v1.h"
#include "rpc/server.h"

enum {
    DRAIN_BYTES_MAX = 1024 * 1024, /* the largest pipe an unprivileged process can make */
    CLIENT_STALL_MS = 60000,
    KILL_WAIT_MS = 10000, /* a killed process that is stuck in the kernel longer is left behind */
    STATUS_TEXT_MAX = 64
};

enum { OUT, ERR, IN, EXIT, WATCHED };
enum { PAUSE = WATCHED, POLLED }; /* the gate's descriptor beside them */

struct run {
    struct rpc_call *call;
    int64_t deadline; /* of the process: what the client gave for the call */
    pid_t pid;
    int fds[WATCHED]; /* -1: over, or not there */
    struct slice input;
    bool writes_input;
    bool client_gone;
    int keepalive_ms;
    int64_t keepalive_at;
    char *chunk; /* RUN_CHUNK_BYTES */
    struct gate_pass *pass;
};

static void close_fd(struct run *r, int which)
{
    if (r->fds[which] >= 0)
        (void)close(r->fds[which]);
    r->fds[which] = -1;
}

static void lose_client(struct run *r)
{
    r->client_gone = true;
    http_reply_abort(r->call->x);
    gate_leave(r->pass);
}

/* Ends the stream with what tells a pause from everything else. After the end of the reply the
 * abort only closes the connection. */
static void pause_client(struct run *r)
{
#define PAUSED                                                                                     \
    "{\"error\":{\"code\":\"aborted\",\"message\":\"paused\"},"                                    \
    "\"metadata\":{\"Torpor-Error\":[\"conflict\"]}}"
    static const char end[] = "\x02\0\0\0\x58" PAUSED; /* flag "end", length, JSON */
    struct err ignored = {0};
    static_assert(sizeof PAUSED - 1 == 0x58, "the length of the envelope");
    http_set_deadline(r->call->x, gate_words_until(r->pass->gate));
    if (http_reply_write(r->call->x, end, sizeof end - 1, &ignored) == 0)
        (void)http_reply_end(r->call->x, &ignored);
    lose_client(r);
}

static void send_event(struct run *r, struct process_event *event)
{
    const struct process_start_response message = {.event = event};
    struct err e = {0};
    if (r->client_gone)
        return;
    if (rpc_send(r->call, &process_start_response_message, &message, &e) < 0)
        lose_client(r);
    r->keepalive_at = deadline_in_ms(r->keepalive_ms);
}

static void send_start(struct run *r)
{
    struct process_start_event start = {.pid = (uint32_t)r->pid};
    send_event(r, &(struct process_event){.start = &start, .has_start = true});
}

static void send_data(struct run *r, int which, struct slice bytes)
{
    struct process_data_event data = {0};
    if (which == OUT) {
        data.stdout_bytes = bytes;
        data.has_stdout = true;
    } else {
        data.stderr_bytes = bytes;
        data.has_stderr = true;
    }
    send_event(r, &(struct process_event){.data = &data, .has_data = true});
}

static void send_keepalive(struct run *r)
{
    struct process_keepalive keepalive = {0};
    send_event(r, &(struct process_event){.keepalive = &keepalive, .has_keepalive = true});
}

/* "exit status 1", "signal: killed": the words of Go's os.ProcessState, which E2B's clients see. */
static void describe_status(int status, char dst[STATUS_TEXT_MAX])
{
    if (!WIFSIGNALED(status)) {
        (void)snprintf(dst, STATUS_TEXT_MAX, "exit status %d", WEXITSTATUS(status));
        return;
    }
    (void)snprintf(dst, STATUS_TEXT_MAX, "signal: %s", strsignal(WTERMSIG(status)));
    for (char *p = dst; *p; p++)
        if (*p >= 'A' && *p <= 'Z')
            *p = (char)(*p + 32);
}

static void send_end(struct run *r, int status, bool timed_out)
{
    char text[STATUS_TEXT_MAX];
    bool signaled = WIFSIGNALED(status);
    struct process_end_event end = {
        .exit_code = signaled ? -1 : WEXITSTATUS(status),
        .exited = !signaled,
        .signal = signaled ? (uint32_t)WTERMSIG(status) : 0,
        .timed_out = timed_out,
    };
    describe_status(status, text);
    end.status = slice_cstr(text);
    if (status != 0) {
        end.error = end.status;
        end.has_error = true;
    }
    send_event(r, &(struct process_event){.end = &end, .has_end = true});
}

/* Waits until the client's socket takes more, at most until `deadline`. False when that passed. */
static bool wait_for_client(struct run *r, int64_t deadline)
{
    int64_t stalled = deadline_in_ms(CLIENT_STALL_MS);
    int64_t until = deadline < stalled ? deadline : stalled;
    struct pollfd p[] = {{.fd = http_fd(r->call->x), .events = POLLOUT},
        {.fd = gate_evict_fd(r->pass->gate), .events = POLLIN}};
    if (r->client_gone)
        return true;
    while (poll(p, ARRAY_LEN(p), deadline_poll_ms(until)) <= 0)
        if (clock_mono_ms() >= until) {
            if (deadline < stalled)
                return false;
            lose_client(r);
            return true;
        }
    if (!p[0].revents)
        pause_client(r);
    return true;
}

/* Reads one readable output once and sends what it got. Returns the count, 0 when the output is at
 * its end (and closed) or the deadline passed first. */
static size_t pump(struct run *r, int which, int64_t deadline)
{
    ssize_t got;
    if (!wait_for_client(r, deadline))
        return 0;
    do
        got = read(r->fds[which], r->chunk, RUN_CHUNK_BYTES);
    while (got < 0 && errno == EINTR);
    if (got <= 0) {
        close_fd(r, which);
        return 0;
    }
    send_data(r, which, slice_of(r->chunk, (size_t)got));
    return (size_t)got;
}

/* Writes input as long as the pipe takes it; closes it behind the last byte, or when the process
 * does not want more. */
static void feed(struct run *r)
{
    while (r->input.n > 0) {
        ssize_t put = write(r->fds[IN], r->input.p, r->input.n);
        if (put < 0 && errno == EAGAIN)
            return;
        if (put < 0 && errno != EINTR)
            break; /* EPIPE */
        if (put > 0)
            r->input = slice_of(r->input.p + put, r->input.n - (size_t)put);
    }
    r->writes_input = false;
    close_fd(r, IN);
}

/* The next moment at which something must happen even if nothing is ready. */
static int64_t next_moment(const struct run *r)
{
    if (!r->client_gone && r->keepalive_at < r->deadline)
        return r->keepalive_at;
    return r->deadline;
}

static void fill_poll(const struct run *r, bool ended, struct pollfd p[POLLED])
{
    for (int i = 0; i < WATCHED; i++)
        p[i] = (struct pollfd){.fd = r->fds[i], .events = POLLIN};
    p[IN].events = POLLOUT;
    if (!r->writes_input)
        p[IN].fd = -1; /* merely kept open */
    if (ended)
        p[EXIT].fd = -1;
    p[PAUSE] =
        (struct pollfd){.fd = r->client_gone ? -1 : gate_evict_fd(r->pass->gate), .events = POLLIN};
}

/* One round of waiting and serving. `ended` becomes true when the process has. */
static void serve_once(struct run *r, bool *ended)
{
    struct pollfd p[POLLED];
    int n;
    fill_poll(r, *ended, p);
    n = poll(p, POLLED, deadline_poll_ms(next_moment(r)));
    if (n == 0 && !r->client_gone && clock_mono_ms() >= r->keepalive_at)
        send_keepalive(r);
    if (n <= 0)
        return;
    if (p[IN].revents)
        feed(r);
    if (p[OUT].revents)
        (void)pump(r, OUT, r->deadline);
    if (p[ERR].revents)
        (void)pump(r, ERR, r->deadline);
    if (p[EXIT].revents)
        *ended = true;
    if (p[PAUSE].revents && !r->client_gone)
        pause_client(r);
}

/* Serves until the process is over. False when the deadline came first. */
static bool serve(struct run *r)
{
    bool ended = false;
    while (!ended || r->fds[OUT] >= 0 || r->fds[ERR] >= 0) {
        if (r->deadline != DEADLINE_NEVER && clock_mono_ms() >= r->deadline)
            return false;
        serve_once(r, &ended);
    }
    return true;
}

static bool is_readable(int fd)
{
    struct pollfd p = {.fd = fd, .events = POLLIN};
    return fd >= 0 && poll(&p, 1, /* timeout= */ 0) > 0;
}

static void drain(struct run *r, int which)
{
    size_t sum = 0;
    while (sum < DRAIN_BYTES_MAX && is_readable(r->fds[which])) {
        size_t got = pump(r, which, DEADLINE_NEVER);
        if (got == 0)
            return;
        sum += got;
    }
}

/* Ends the process group at the deadline, and the stream whatever happens. */
static void kill_and_end(struct run *r)
{
    struct err e = {0};
    int status = SIGKILL; /* as waitpid(2) would say it */
    bool dead;
    (void)kill(-r->pid, SIGKILL);
    dead = io_wait(r->fds[EXIT], POLLIN, deadline_in_ms(KILL_WAIT_MS), &e) > 0;
    drain(r, OUT);
    drain(r, ERR);
    if (dead)
        (void)spawn_reap(r->pid, &status, &e);
    send_end(r, status, /* timed_out= */ true);
    if (!dead)
        (void)spawn_reap(r->pid, &status, &e);
}

static int follow(struct run *r, struct err *e)
{
    int status = 0;
    send_start(r);
    if (r->writes_input)
        feed(r);
    if (!serve(r)) {
        kill_and_end(r);
        return err_set(e, ERR_TIMEOUT, "the process ran into its timeout and was killed");
    }
    if (spawn_reap(r->pid, &status, e) < 0)
        return -1;
    send_end(r, status, /* timed_out= */ false);
    return r->client_gone ? err_set(e, ERR_CANCELED, "the client went away") : 0;
}

int run_follow(struct rpc_call *call, const struct run_params *p, struct err *e)
{
    struct run r = {
        .call = call,
        .deadline = call->deadline,
        .pid = p->process.pid,
        .fds = {p->stdout_fd, p->stderr_fd, p->stdin_fd, p->process.pidfd},
        .input = p->input,
        .writes_input = p->has_input,
        .keepalive_ms = p->keepalive_ms,
        .chunk = p->chunk,
        .pass = p->pass,
    };
    int rc;
    /* At the client's deadline the process is killed here, and the client is told of its end. */
    rpc_set_deadline(call, DEADLINE_NEVER);
    rc = follow(&r, e);
    for (int i = 0; i < WATCHED; i++)
        close_fd(&r, i);
    return rc;
}
