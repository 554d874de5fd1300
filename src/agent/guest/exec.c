/* SPDX-License-Identifier: Apache-2.0 */
/* Exec: one process.Process/Start stream, collected to its end, or until a pause meets it. */
#include "agent/guest/guest_int.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/rand.h"
#include "proto/limits.h"
#include "rpc/agent_v1.h"
#include "rpc/client.h"
#include "rpc/process_v1.h"

enum {
    EXIT_TIMED_OUT = 124,       /* as timeout(1) */
    EXIT_SIGNAL_BASE = 128,     /* as a shell reports it */
    MESSAGE_BYTES = 256 * 1024, /* one event: 32 KiB of output in base64 with room */
    GRACE_MS = 10000,           /* the guest ends the process; this long for saying so */
    AUTH_MAX = 256,
    TAG_MAX = 24,
    TAG_RANDOM_BYTES = 8,
};

struct exec_run {
    struct buf *out_stdout;
    struct buf *out_stderr;
    struct agent_exec_response *resp;
    bool started;
    bool ended;
    uint32_t pid;
    char tag[TAG_MAX]; /* by which the process is found again */
};

/* Appends what still fits under the bound of both streams together. */
static void collect(struct exec_run *run, struct buf *dst, struct slice bytes)
{
    size_t room = LIMIT_EXEC_OUTPUT_BYTES - run->out_stdout->len - run->out_stderr->len;
    if (bytes.n > room) {
        run->resp->truncated = true;
        bytes.n = room;
    }
    buf_append_slice(dst, bytes);
    if (dst->failed)
        run->resp->truncated = true;
}

/* sigabbrev_np gives "KILL"; its strings are static, so the answer needs a table of our own form.
 */
static struct slice signal_name(uint32_t number)
{
    static const char *const names[] = {[SIGHUP] = "SIGHUP",
        [SIGINT] = "SIGINT",
        [SIGQUIT] = "SIGQUIT",
        [SIGILL] = "SIGILL",
        [SIGTRAP] = "SIGTRAP",
        [SIGABRT] = "SIGABRT",
        [SIGBUS] = "SIGBUS",
        [SIGFPE] = "SIGFPE",
        [SIGKILL] = "SIGKILL",
        [SIGUSR1] = "SIGUSR1",
        [SIGSEGV] = "SIGSEGV",
        [SIGUSR2] = "SIGUSR2",
        [SIGPIPE] = "SIGPIPE",
        [SIGALRM] = "SIGALRM",
        [SIGTERM] = "SIGTERM",
        [SIGSTKFLT] = "SIGSTKFLT",
        [SIGCHLD] = "SIGCHLD",
        [SIGCONT] = "SIGCONT",
        [SIGSTOP] = "SIGSTOP",
        [SIGTSTP] = "SIGTSTP",
        [SIGTTIN] = "SIGTTIN",
        [SIGTTOU] = "SIGTTOU",
        [SIGURG] = "SIGURG",
        [SIGXCPU] = "SIGXCPU",
        [SIGXFSZ] = "SIGXFSZ",
        [SIGVTALRM] = "SIGVTALRM",
        [SIGPROF] = "SIGPROF",
        [SIGWINCH] = "SIGWINCH",
        [SIGIO] = "SIGIO",
        [SIGPWR] = "SIGPWR",
        [SIGSYS] = "SIGSYS"};
    if (number < ARRAY_LEN(names) && names[number])
        return slice_cstr(names[number]);
    return SLICE_LIT("SIGRT");
}

static void take_end(struct exec_run *run, const struct process_end_event *end)
{
    struct agent_exec_response *r = run->resp;
    run->ended = true;
    r->timed_out = end->timed_out;
    if (end->signal > 0 && end->signal <= 64) {
        r->signal = signal_name(end->signal);
        r->exit_code = EXIT_SIGNAL_BASE + (int32_t)end->signal;
    } else {
        r->exit_code = end->exit_code;
    }
    if (end->timed_out)
        r->exit_code = EXIT_TIMED_OUT;
}

static void take_event(struct exec_run *run, const struct process_event *event)
{
    if (!event)
        return;
    if (event->start) {
        run->started = true;
        run->pid = event->start->pid;
    }
    if (event->data && event->data->has_stdout)
        collect(run, run->out_stdout, event->data->stdout_bytes);
    if (event->data && event->data->has_stderr)
        collect(run, run->out_stderr, event->data->stderr_bytes);
    if (event->end)
        take_end(run, event->end);
}

/* Reads events to the end of the stream. */
static int collect_events(struct rpc_stream *s, struct exec_run *run, struct err *e)
{
    for (;;) {
        struct process_start_response message = {0};
        struct arena arena;
        int rc;
        arena_init(&arena, MESSAGE_BYTES * 2);
        rc = rpc_stream_next(s, &arena, &message, e);
        if (rc > 0)
            take_event(run, message.event);
        arena_done(&arena);
        if (rc <= 0)
            return rc;
    }
}

/* Names the request's field that a refused start is about. */
static int start_error(struct err *e)
{
    if (e->kind == ERR_UNAUTHORIZED) {
        e->kind = ERR_INVALID;
        (void)snprintf(e->where, sizeof e->where, "user");
    } else if (e->kind == ERR_INVALID && !e->where[0]) {
        (void)snprintf(e->where, sizeof e->where, "cmd");
    }
    return -1;
}

/* "Basic base64(user:)", how envd is told the user of a call. */
static void basic_auth(struct slice user, char dst[AUTH_MAX])
{
    char plain[128];
    int n = snprintf(plain, sizeof plain, "%.*s:", (int)user.n, user.p);
    memcpy(dst, "Basic ", 6);
    base64_encode(plain, (size_t)n, dst + 6);
    dst[6 + base64_encoded_len((size_t)n)] = '\0';
}

static void start_request(const struct agent_exec_request *req, const char *tag,
    struct process_config *config, struct process_start_request *ret)
{
    *config = (struct process_config){.cmd = req->cmd,
        .args = req->args,
        .envs = req->env,
        .cwd = req->cwd,
        .has_cwd = req->cwd.n > 0};
    *ret = (struct process_start_request){.process = config,
        .tag = slice_cstr(tag),
        .has_tag = true,
        .stdin_data = req->stdin_bytes,
        .has_stdin_data = req->stdin_bytes.n > 0,
        .has_stdin_open = true};
}

/* What is left of the command's time: waiting for the guest is part of it. */
static void set_timeout(struct rpc_request *request)
{
    int64_t left = request->deadline - GRACE_MS - clock_mono_ms();
    if (request->timeout_ms > 0)
        request->timeout_ms = left > 0 ? left : 1;
}

/* Opens the stream; a kept connection that turns out closed is replaced once, and a call that a
 * live snapshot kept out is repeated. */
static struct http_conn *open_stream(struct guest *g, struct rpc_stream *s,
    struct rpc_request *request, struct guest_patience *patience, struct err *e)
{
    bool replaced = false;
    for (;;) {
        bool reused = false;
        bool refused;
        bool again;
        struct http_conn *c = guest_conn_acquire(g, &reused, request->deadline, e);
        if (!c)
            return NULL;
        set_timeout(request);
        if (rpc_stream_open(s, c, request, e) == 0)
            return c;
        rpc_stream_done(s);
        refused = guest_has_refused(c);
        guest_conn_release(g, c);
        again = refused ? guest_may_repeat(g, patience)
                        : reused && !replaced && e->kind == ERR_UNAVAILABLE;
        if (!again)
            return NULL;
        replaced = replaced || !refused;
    }
}

static void make_tag(char dst[TAG_MAX])
{
    unsigned char bytes[TAG_RANDOM_BYTES];
    rand_bytes(bytes, sizeof bytes);
    memcpy(dst, "exec-", 5);
    hex_encode(bytes, sizeof bytes, dst + 5);
}

/* A stream that began and ends as a conflict is one that a pause met; so is one that it cut. */
static bool is_paused(
    const struct guest *g, const struct exec_run *run, int rc, const struct err *e)
{
    return run->started && ((rc < 0 && e->kind == ERR_CONFLICT) || guest_is_pausing(g));
}

/* The tag lives behind the shorter output, which has room: the bound is for both together. */
static void take_pause(struct exec_run *run)
{
    struct buf *out =
        run->out_stdout->len < run->out_stderr->len ? run->out_stdout : run->out_stderr;
    size_t at = out->len;
    buf_append_cstr(out, run->tag);
    if (!out->failed)
        run->resp->tag = slice_of(out->p + at, out->len - at);
    run->resp->stdout_bytes = slice_of(run->out_stdout->p, run->resp->stdout_bytes.n);
    run->resp->stderr_bytes = slice_of(run->out_stderr->p, run->resp->stderr_bytes.n);
    run->resp->paused = true;
    run->resp->pid = (int32_t)run->pid;
}

static int stream_error(const struct guest *g, const struct exec_run *run, int rc, struct err *e)
{
    if (rc == 0)
        return err_set(e, ERR_PROTOCOL, "the guest agent ended the stream early");
    if (guest_explain(g, e) < 0 && run->started)
        return -1;
    return start_error(e);
}

int guest_exec(struct guest *g, const struct agent_exec_request *req, struct buf *out_stdout,
    struct buf *out_stderr, struct agent_exec_response *resp, struct err *e)
{
    char auth[AUTH_MAX];
    struct http_header headers[2] = {{SLICE_LIT("X-Access-Token"), slice_cstr(guest_token(g))}};
    struct process_config config;
    struct process_start_request start;
    struct rpc_stream stream = {0};
    struct exec_run run = {.out_stdout = out_stdout, .out_stderr = out_stderr, .resp = resp};
    int64_t began = clock_mono_us();
    int64_t timeout_ms = (int64_t)req->timeout_sec * 1000;
    struct rpc_request request = {.path = PROCESS_V1_PATH("Start"),
        .request = &process_start_request_message,
        .response = &process_start_response_message,
        .msg = &start,
        .codec = RPC_CODEC_JSON,
        .headers = headers,
        .n_headers = 1,
        .timeout_ms = timeout_ms,
        .deadline = deadline_in_ms(timeout_ms + GRACE_MS),
        .max_bytes = MESSAGE_BYTES};
    struct guest_patience patience;
    struct http_conn *c;
    int rc;
    if (req->user.n > 64)
        return err_field(e, "user", "longer than 64 bytes");
    if (req->user.n > 0) {
        basic_auth(req->user, auth);
        headers[request.n_headers++] =
            (struct http_header){SLICE_LIT("Authorization"), slice_cstr(auth)};
    }
    if (guest_begin(g, &patience, request.deadline - (timeout_ms > 0 ? GRACE_MS : 0), e) < 0)
        return -1;
    make_tag(run.tag);
    start_request(req, run.tag, &config, &start);
    c = open_stream(g, &stream, &request, &patience, e);
    if (!c)
        return guest_explain(g, e);
    rc = collect_events(&stream, &run, e);
    rpc_stream_done(&stream);
    guest_conn_release(g, c);
    resp->stdout_bytes = buf_slice(out_stdout);
    resp->stderr_bytes = buf_slice(out_stderr);
    if (!run.ended && is_paused(g, &run, rc, e)) {
        take_pause(&run);
        *e = (struct err){0};
    } else if (!run.ended) {
        return stream_error(g, &run, rc, e);
    }
    resp->duration_ms = (clock_mono_us() - began) / 1000;
    return 0;
}
