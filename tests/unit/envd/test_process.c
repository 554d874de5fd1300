/* SPDX-License-Identifier: Apache-2.0 */
/* process.Process/Start, over the wire, with real processes. */
#include "harness.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/io.h"
#include "envd/reaper.h"
#include "json/json.h"
#include "rpc/process_v1.h"

#define START_HEADERS                                                                              \
    WITH_TOKEN "Content-Type: application/connect+json\r\nConnect-Protocol-Version: 1\r\n"

/* What a stream said. */
struct outcome {
    struct arena arena;
    struct answer answer;
    uint32_t pid;
    struct buf out;
    struct buf err;
    size_t keepalives;
    bool has_end; /* the end event, not the end envelope */
    struct process_end_event end;
    struct slice code; /* of the error in the end envelope; empty when it is {} */
    struct slice message;
    struct slice field;
    bool has_end_envelope;
};

static void outcome_done(struct outcome *o)
{
    arena_done(&o->arena);
    answer_done(&o->answer);
    buf_done(&o->out);
    buf_done(&o->err);
}
#define AUTO_OUTCOME __attribute__((cleanup(outcome_done)))

static void take_event(struct outcome *o, const struct process_event *event)
{
    assert_non_null(event);
    assert_false(o->has_end);
    if (event->has_start) {
        assert_int_equal(o->pid, 0);
        o->pid = event->start->pid;
    }
    assert_int_not_equal(o->pid, 0); /* start comes first */
    if (event->has_data && event->data->has_stdout)
        buf_append_slice(&o->out, event->data->stdout_bytes);
    if (event->has_data && event->data->has_stderr)
        buf_append_slice(&o->err, event->data->stderr_bytes);
    if (event->has_data)
        assert_true(event->data->stdout_bytes.n + event->data->stderr_bytes.n <= 32768);
    o->keepalives += event->has_keepalive;
    if (event->has_end) {
        o->has_end = true;
        o->end = *event->end;
    }
}

static void take_end(struct outcome *o, struct slice text)
{
    const struct json_value *v;
    const struct json_value *error;
    struct err e = {0};
    assert_int_equal(json_parse(text, &o->arena, &v, &e), 0);
    error = json_get(v, "error");
    if (error) {
        o->code = json_get(error, "code")->string;
        o->message = json_get(error, "message")->string;
        v = json_get(json_get(v, "metadata"), "Torpor-Field");
        if (v)
            o->field = v->first->string;
    }
    o->has_end_envelope = true;
}

static void parse_stream(struct outcome *o)
{
    const char *p = o->answer.body.p;
    size_t n = o->answer.body.len;
    while (n >= 5 && !o->has_end_envelope) {
        const unsigned char *u = (const unsigned char *)p;
        size_t len = (size_t)u[1] << 24 | (size_t)u[2] << 16 | (size_t)u[3] << 8 | u[4];
        struct process_start_response *message = arena_alloc(&o->arena, sizeof *message);
        struct err e = {0};
        if (len > n - 5)
            return;
        if (u[0] == 2) {
            take_end(o, slice_of(p + 5, len));
        } else {
            assert_int_equal(u[0], 0);
            if (rpc_decode(&process_start_response_message, RPC_CODEC_JSON, slice_of(p + 5, len),
                    &o->arena, message, &e) < 0)
                fail_msg("%s", e.msg);
            take_event(o, message->event);
        }
        p += 5 + len;
        n -= 5 + len;
    }
    if (o->has_end_envelope)
        assert_int_equal(n, 0);
}

static void compose(struct buf *request, const char *headers, struct slice json)
{
    unsigned char head[5] = {0, (unsigned char)(json.n >> 24), (unsigned char)(json.n >> 16),
        (unsigned char)(json.n >> 8), (unsigned char)json.n};
    buf_printf(request,
        "POST /process.Process/Start HTTP/1.1\r\nHost: guest\r\nConnection: close\r\n" START_HEADERS
        "%sContent-Length: %zu\r\n\r\n",
        headers ? headers : "", json.n + 5);
    buf_append(request, head, sizeof head);
    buf_append_slice(request, json);
    assert_false(request->failed);
}

/* Sends a Start and leaves the answer on the connection. */
static int begin(struct harness *h, const char *headers, struct slice json)
{
    AUTO_BUF struct buf request = BUF_INIT(8 << 20);
    int fd = harness_connect(h);
    compose(&request, headers, json);
    harness_send(fd, buf_slice(&request));
    return fd;
}

static struct outcome finish(int fd)
{
    struct outcome o = {.out = BUF_INIT(ANSWER_BYTES_MAX), .err = BUF_INIT(ANSWER_BYTES_MAX)};
    arena_init(&o.arena, 512 << 20);
    o.answer = harness_answer(fd);
    (void)close(fd);
    parse_stream(&o);
    return o;
}

static struct outcome start(struct harness *h, const char *headers, const char *json)
{
    return finish(begin(h, headers, slice_cstr(json)));
}

/* A Start of `sh -c script`. */
static struct outcome shell_with(
    struct harness *h, const char *headers, const char *script, const char *more)
{
    AUTO_BUF struct buf json = BUF_INIT(1 << 20);
    struct json_writer w;
    buf_append_cstr(&json, "{\"process\":{\"cmd\":\"/bin/sh\",\"args\":[\"-c\",");
    json_writer_init(&w, &json);
    json_cstr(&w, script);
    buf_printf(&json, "]%s}", more);
    return start(h, headers, json.p);
}

static struct outcome shell(struct harness *h, const char *script)
{
    return shell_with(h, NULL, script, "}");
}

static void assert_text(const struct buf *got, const char *want)
{
    if (!slice_is(buf_slice(got), want))
        fail_msg("got \"%.*s\", want \"%s\"", (int)got->len, got->p ? got->p : "", want);
}

static void assert_ended(const struct outcome *o, int exit_code)
{
    if (!o->has_end)
        fail_msg("no end: %.*s", (int)o->answer.raw.len, o->answer.raw.p);
    assert_int_equal(o->end.exit_code, exit_code);
    assert_true(o->end.exited);
    assert_int_equal(o->end.signal, 0);
    assert_false(o->end.timed_out);
    assert_true(o->has_end_envelope);
    assert_int_equal(o->code.n, 0);
    assert_true(o->answer.complete);
}

static void assert_refused(const struct outcome *o, const char *code, const char *message)
{
    assert_int_equal(o->answer.status, 200);
    assert_int_equal(o->pid, 0);
    assert_false(o->has_end);
    assert_true(o->has_end_envelope);
    if (!slice_is(o->code, code) || !slice_is(o->message, message))
        fail_msg("got %.*s \"%.*s\", want %s \"%s\"", (int)o->code.n, o->code.p, (int)o->message.n,
            o->message.p, code, message);
}

static void test_output_and_exit_code(void **state)
{
    AUTO_OUTCOME struct outcome o = shell(*state, "printf out; printf err >&2; exit 7");
    assert_text(&o.out, "out");
    assert_text(&o.err, "err");
    assert_ended(&o, 7);
    assert_true(slice_is(o.end.status, "exit status 7"));
    assert_true(o.end.has_error);
    assert_true(slice_is(o.end.error, "exit status 7"));
}

static void test_success(void **state)
{
    AUTO_OUTCOME struct outcome o = start(*state, NULL, "{\"process\":{\"cmd\":\"true\"}}");
    assert_ended(&o, 0);
    assert_true(slice_is(o.end.status, "exit status 0"));
    assert_false(o.end.has_error);
    assert_int_equal(o.out.len + o.err.len, 0);
}

static void test_arguments_are_not_a_shell(void **state)
{
    AUTO_OUTCOME struct outcome o = start(*state, NULL,
        "{\"process\":{\"cmd\":\"printf\",\"args\":[\"<%s>\",\"$HOME; a b\",\"\",\"\\u00e4\"]}}");
    assert_text(&o.out, "<$HOME; a b><><\xc3\xa4>");
    assert_ended(&o, 0);
}

static void test_pid_and_session(void **state)
{
    AUTO_OUTCOME struct outcome o = shell(*state, "echo $$; cut -d' ' -f5,6 /proc/$$/stat");
    char want[64];
    (void)snprintf(want, sizeof want, "%u\n%u %u\n", o.pid, o.pid, o.pid);
    assert_text(&o.out, want);
    assert_ended(&o, 0);
}

static void test_signals(void **state)
{
    static const struct {
        const char *script;
        unsigned signal;
        const char *status;
    } cases[] = {
        {"kill -KILL $$", SIGKILL, "signal: killed"},
        {"kill -TERM $$", SIGTERM, "signal: terminated"},
        {"kill -PIPE $$", SIGPIPE, "signal: broken pipe"}, /* and none is blocked or ignored */
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        AUTO_OUTCOME struct outcome o = shell(*state, cases[i].script);
        assert_true(o.has_end);
        assert_int_equal(o.end.exit_code, -1);
        assert_false(o.end.exited);
        assert_false(o.end.timed_out);
        assert_int_equal(o.end.signal, cases[i].signal);
        assert_true(slice_is(o.end.status, cases[i].status));
        assert_int_equal(o.code.n, 0);
    }
}

static void test_clean_signal_state(void **state)
{
    unsigned long long blocked;
    unsigned long long ignored;
    AUTO_OUTCOME struct outcome o = start(*state, NULL,
        "{\"process\":{\"cmd\":\"grep\",\"args\":[\"^Sig[BI]\",\"/proc/self/status\"]}}");
    assert_int_equal(sscanf(o.out.p, "SigBlk: %llx SigIgn: %llx", &blocked, &ignored), 2);
    assert_int_equal(blocked, 0);
    /* Without 32 and 33, which are libc's own: what glibc's posix_spawn started ignores them. */
    assert_int_equal(ignored & ~(3ULL << 31), 0);
}

static void test_only_three_descriptors(void **state)
{
    AUTO_OUTCOME struct outcome o =
        start(*state, NULL, "{\"process\":{\"cmd\":\"ls\",\"args\":[\"/proc/self/fd\"]}}");
    assert_text(&o.out, "0\n1\n2\n3\n"); /* 3 is the folder that ls reads */
}

static void test_environment(void **state)
{
    struct harness *h = *state;
    char want[TEXT_MAX];
    AUTO_OUTCOME struct outcome o = {0};
    assert_int_equal(harness_init(h,
                         "{\"sandboxId\":\"s1\",\"templateId\":\"t1\",\"envVars\":"
                         "{\"A\":\"sandbox\",\"B\":\"sandbox\",\"HOME\":\"/h\"}}",
                         WITH_TOKEN),
        204);
    o = start(h, NULL,
        "{\"process\":{\"cmd\":\"/usr/bin/env\",\"envs\":{\"B\":\"request\",\"C\":\"\"}}}");
    (void)snprintf(want, sizeof want,
        "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\nHOME=/h\nUSER=me\n"
        "LOGNAME=me\nSHELL=/bin/sh\nE2B_SANDBOX=true\nE2B_SANDBOX_ID=s1\nE2B_TEMPLATE_ID=t1\n"
        "A=sandbox\nB=request\nC=\n");
    assert_text(&o.out, want);
}

static void test_bad_environment(void **state)
{
    AUTO_OUTCOME struct outcome o =
        start(*state, NULL, "{\"process\":{\"cmd\":\"true\",\"envs\":{\"A=B\":\"x\"}}}");
    assert_refused(&o, "invalid_argument", "env has a key that no variable may have");
    assert_true(slice_is(o.field, "env"));
}

static void test_cwd(void **state)
{
    struct harness *h = *state;
    char want[TEXT_MAX];
    AUTO_OUTCOME struct outcome home = start(h, NULL, "{\"process\":{\"cmd\":\"pwd\"}}");
    AUTO_OUTCOME struct outcome relative =
        start(h, NULL, "{\"process\":{\"cmd\":\"pwd\",\"cwd\":\"../etc\"}}");
    AUTO_OUTCOME struct outcome missing =
        start(h, NULL, "{\"process\":{\"cmd\":\"pwd\",\"cwd\":\"nowhere\"}}");
    AUTO_OUTCOME struct outcome file =
        start(h, NULL, "{\"process\":{\"cmd\":\"pwd\",\"cwd\":\"/etc/passwd\"}}");
    (void)snprintf(want, sizeof want, "%s\n", h->home);
    assert_text(&home.out, want);
    (void)snprintf(want, sizeof want, "%s\n", h->etc);
    assert_text(&relative.out, want);
    (void)snprintf(want, sizeof want, "cwd '%s/nowhere' does not exist", h->home);
    assert_refused(&missing, "invalid_argument", want);
    assert_true(slice_is(missing.field, "cwd"));
    assert_refused(&file, "invalid_argument", "cwd '/etc/passwd' does not exist");
}

static void test_default_cwd(void **state)
{
    AUTO_OUTCOME struct outcome set = {0};
    AUTO_OUTCOME struct outcome gone = {0};
    assert_int_equal(harness_init(*state, "{\"defaultWorkdir\":\"/usr\"}", WITH_TOKEN), 204);
    set = start(*state, NULL, "{\"process\":{\"cmd\":\"pwd\"}}");
    assert_text(&set.out, "/usr\n");
    assert_int_equal(harness_init(*state, "{\"defaultWorkdir\":\"/nowhere\"}", WITH_TOKEN), 204);
    gone = start(*state, NULL, "{\"process\":{\"cmd\":\"pwd\"}}");
    assert_text(&gone.out, "/\n"); /* nobody asked for it, so it is no error */
}

static void test_command_not_startable(void **state)
{
    struct harness *h = *state;
    AUTO_OUTCOME struct outcome missing =
        start(h, NULL, "{\"process\":{\"cmd\":\"no-such-command\"}}");
    AUTO_OUTCOME struct outcome path = start(h, NULL, "{\"process\":{\"cmd\":\"/no/such\"}}");
    AUTO_OUTCOME struct outcome empty = start(h, NULL, "{\"process\":{\"cmd\":\"\"}}");
    AUTO_OUTCOME struct outcome none = start(h, NULL, "{}");
    AUTO_OUTCOME struct outcome nul = start(h, NULL, "{\"process\":{\"cmd\":\"a\\u0000\"}}");
    AUTO_OUTCOME struct outcome plain = {0};
    harness_write(h, "home/plain", "no program");
    plain = start(h, NULL, "{\"process\":{\"cmd\":\"./plain\"}}");
    assert_refused(&missing, "invalid_argument", "cmd 'no-such-command' not found");
    assert_true(slice_is(missing.field, "cmd"));
    assert_refused(&path, "invalid_argument", "cmd '/no/such' not found");
    assert_refused(&empty, "invalid_argument", "cmd is empty, too long or has a NUL byte");
    assert_refused(&none, "invalid_argument", "process is missing");
    assert_refused(&nul, "invalid_argument", "cmd is empty, too long or has a NUL byte");
    assert_refused(&plain, "invalid_argument", "cmd './plain' is not executable");
}

static void test_path_of_the_process(void **state)
{
    struct harness *h = *state;
    char path[TEXT_MAX];
    char json[2 * TEXT_MAX];
    AUTO_OUTCOME struct outcome o = {0};
    harness_write(h, "home/tool", "#!/bin/sh\necho mine\n");
    (void)snprintf(path, sizeof path, "%s/tool", h->home);
    assert_int_equal(chmod(path, 0755), 0);
    (void)snprintf(json, sizeof json,
        "{\"process\":{\"cmd\":\"tool\",\"envs\":{\"PATH\":\"/none:%s:/bin\"}}}", h->home);
    o = start(h, NULL, json);
    assert_text(&o.out, "mine\n");
    assert_ended(&o, 0);
}

static void test_unknown_user(void **state)
{
    AUTO_OUTCOME struct outcome unknown = start(*state, "Authorization: Basic Z2hvc3Q6\r\n",
        "{\"process\":{\"cmd\":\"true\"}}"); /* ghost: */
    AUTO_OUTCOME struct outcome garbage =
        start(*state, "Authorization: Bearer x\r\n", "{\"process\":{\"cmd\":\"true\"}}");
    assert_refused(&unknown, "unauthenticated", "invalid username: 'ghost'");
    assert_refused(
        &garbage, "unauthenticated", "the Authorization header is not Basic user:password");
}

static void test_other_user(void **state)
{
    AUTO_OUTCOME struct outcome o = {0};
    if (geteuid() != 0)
        skip_because("only root can act as another user");
    o = shell_with(*state, "Authorization: Basic dXNlcjo=\r\n",
        "id -u; id -g; grep ^Groups: /proc/self/status; grep ^CapEff /proc/self/status; "
        "echo $USER; cat /proc/self/oom_score_adj",
        "}");
    assert_text(&o.out, "1000\n1000\nGroups:\t50 60 1000 \nCapEff:\t0000000000000000\nuser\n100\n");
}

static void test_big_output_on_both(void **state)
{
    AUTO_OUTCOME struct outcome o =
        shell(*state, "(head -c 3000000 /dev/zero | tr '\\0' o) & "
                      "(head -c 2000000 /dev/zero | tr '\\0' e) >&2; wait");
    assert_int_equal(o.out.len, 3000000);
    assert_int_equal(o.err.len, 2000000);
    assert_null(memchr(o.out.p, 'e', o.out.len));
    assert_null(memchr(o.err.p, 'o', o.err.len));
    assert_ended(&o, 0);
}

static void test_binary_output(void **state)
{
    AUTO_OUTCOME struct outcome o = shell(*state, "printf '\\000\\377\\012'");
    assert_int_equal(o.out.len, 3);
    assert_memory_equal(o.out.p, "\0\xff\n", 3);
}

/* 1 MiB through cat: neither side's pipe is large enough, so reading and writing must interleave.
 */
static void test_stdin_data(void **state)
{
    const size_t n = 1 << 20;
    AUTO_FREE char *bytes = malloc(n);
    AUTO_BUF struct buf json = BUF_INIT(4 << 20);
    AUTO_OUTCOME struct outcome o = {0};
    size_t len = base64_encoded_len(n);
    char *p;
    assert_non_null(bytes);
    for (size_t i = 0; i < n; i++)
        bytes[i] = (char)(i * 31 + i / 257);
    buf_append_cstr(&json, "{\"process\":{\"cmd\":\"cat\"},\"stdinData\":\"");
    p = buf_reserve(&json, len);
    assert_non_null(p);
    base64_encode(bytes, n, p);
    buf_commit(&json, len);
    buf_append_cstr(&json, "\"}");
    o = finish(begin(*state, NULL, buf_slice(&json)));
    assert_ended(&o, 0);
    assert_int_equal(o.out.len, n);
    assert_memory_equal(o.out.p, bytes, n);
}

static void test_stdin_not_read(void **state)
{
    AUTO_BUF struct buf json = BUF_INIT(4 << 20);
    AUTO_OUTCOME struct outcome o = {0};
    buf_append_cstr(&json, "{\"process\":{\"cmd\":\"true\"},\"stdinData\":\"");
    for (int i = 0; i < 400000; i++)
        buf_append_cstr(&json, "AAAA");
    buf_append_cstr(&json, "\"}");
    o = finish(begin(*state, NULL, buf_slice(&json)));
    assert_ended(&o, 0);
}

static void test_stdin_forms(void **state)
{
    struct harness *h = *state;
    AUTO_OUTCOME struct outcome closed =
        start(h, NULL, "{\"process\":{\"cmd\":\"cat\"},\"stdin\":false}");
    AUTO_OUTCOME struct outcome empty =
        start(h, NULL, "{\"process\":{\"cmd\":\"cat\"},\"stdinData\":\"\"}");
    AUTO_OUTCOME struct outcome open =
        start(h, "Connect-Timeout-Ms: 100\r\n", "{\"process\":{\"cmd\":\"cat\"}}");
    AUTO_OUTCOME struct outcome asked =
        start(h, "Connect-Timeout-Ms: 100\r\n", "{\"process\":{\"cmd\":\"cat\"},\"stdin\":true}");
    assert_ended(&closed, 0);
    assert_ended(&empty, 0);
    assert_true(open.end.timed_out);
    assert_true(asked.end.timed_out);
}

static bool is_alive(const char *pid_text)
{
    return kill((pid_t)atoi(pid_text), 0) == 0;
}

/* The shell, its child and grandchild are of one group; all die, what they wrote is kept. */
static void test_timeout_kills_the_group(void **state)
{
    int64_t before = clock_mono_ms();
    AUTO_OUTCOME struct outcome o = shell_with(*state, "Connect-Timeout-Ms: 300\r\n",
        "printf before; printf oops >&2; sh -c 'sleep 1000 & wait' & wait", "}");
    assert_true(clock_mono_ms() - before < 10000);
    assert_text(&o.out, "before");
    assert_text(&o.err, "oops");
    assert_true(o.has_end);
    assert_true(o.end.timed_out);
    assert_int_equal(o.end.signal, SIGKILL);
    assert_int_equal(o.end.exit_code, -1);
    assert_true(slice_is(o.end.status, "signal: killed"));
    assert_true(slice_is(o.code, "deadline_exceeded"));
    while (waitpid(-(pid_t)o.pid, NULL, __WNOTHREAD) > 0)
        ; /* the group's orphans are ours now, and end */
    assert_int_equal(kill(-(pid_t)o.pid, 0), -1);
    assert_int_equal(errno, ESRCH);
}

/* A child in a session of its own keeps the pipes open; the deadline does not wait for it. */
static void test_timeout_with_escaped_child(void **state)
{
    struct harness *h = *state;
    int64_t before = clock_mono_ms();
    AUTO_FREE char *pid = NULL;
    AUTO_OUTCOME struct outcome o = shell_with(h, "Connect-Timeout-Ms: 500\r\n",
        "setsid sh -c 'echo $$ > escaped; exec sleep 1000' & echo started; wait", "}");
    assert_true(clock_mono_ms() - before < 10000);
    assert_text(&o.out, "started\n");
    assert_true(o.end.timed_out);
    assert_true(slice_is(o.code, "deadline_exceeded"));
    pid = harness_read(h, "home/escaped");
    assert_non_null(pid);
    assert_true(is_alive(pid));
    assert_int_equal(kill((pid_t)atoi(pid), SIGKILL), 0);
}

/* The pid in a start event, 0 when the text has none yet. */
static pid_t find_pid(const struct buf *text)
{
    const char *key = "{\"pid\":";
    const char *at = text->p ? memmem(text->p, text->len, key, strlen(key)) : NULL;
    return at && strchr(at, '}') ? (pid_t)atoi(at + strlen(key)) : 0;
}

/* Reads the answer up to the start event, so that the process runs. Returns its pid. */
static pid_t wait_for_start(int fd)
{
    AUTO_BUF struct buf text = BUF_INIT(65536);
    int64_t deadline = deadline_in_ms(TEST_DEADLINE_MS);
    while (find_pid(&text) == 0) {
        struct err e = {0};
        char chunk[512];
        ssize_t got = io_read(fd, chunk, sizeof chunk, deadline, &e);
        assert_true(got > 0);
        buf_append(&text, chunk, (size_t)got);
    }
    return find_pid(&text);
}

/* A client that does not read slows the process down, but does not save it. */
static void test_timeout_with_stalled_client(void **state)
{
    struct err e = {0};
    AUTO_CLOSE int pidfd = -1;
    AUTO_CLOSE int fd = begin(*state, "Connect-Timeout-Ms: 1000\r\n",
        SLICE_LIT("{\"process\":{\"cmd\":\"cat\",\"args\":[\"/dev/zero\"]}}"));
    pidfd = (int)syscall(SYS_pidfd_open, wait_for_start(fd), 0);
    assert_true(pidfd >= 0);
    assert_true(io_wait(pidfd, POLLIN, deadline_in_ms(TEST_DEADLINE_MS), &e) > 0);
}

static int make_fifo(struct harness *h, const char *name, char path[PATH_MAX])
{
    (void)snprintf(path, PATH_MAX, "%s/%s", h->home, name);
    return mkfifo(path, 0600);
}

static void test_end_waits_for_output(void **state)
{
    struct harness *h = *state;
    char path[PATH_MAX];
    AUTO_OUTCOME struct outcome o = {0};
    AUTO_CLOSE int fifo = -1;
    int fd;
    assert_int_equal(make_fifo(h, "fifo", path), 0);
    /* The shell leaves at once; its child still has the output and says something later. */
    fd = begin(h, NULL,
        SLICE_LIT("{\"process\":{\"cmd\":\"/bin/sh\",\"args\":[\"-c\","
                  "\"(cat fifo; echo late) & exit 3\"]}}"));
    fifo = open(path, O_WRONLY | O_CLOEXEC); /* waits for cat */
    assert_true(fifo >= 0);
    (void)close(TAKE_FD(fifo));
    o = finish(fd);
    assert_text(&o.out, "late\n");
    assert_ended(&o, 3);
}

static void test_keepalive(void **state)
{
    AUTO_OUTCOME struct outcome o = shell_with(*state,
        "Keepalive-Ping-Interval: 1\r\nConnect-Timeout-Ms: 1500\r\n", "exec sleep 1000", "}");
    assert_int_equal(o.keepalives, 1);
    assert_true(o.end.timed_out);
}

/* The process outlives its client, and its output does not block it. */
static void test_client_gone(void **state)
{
    struct harness *h = *state;
    char go[PATH_MAX];
    char done[PATH_MAX];
    char line[16] = "";
    struct err e = {0};
    AUTO_CLOSE int go_fd = -1;
    AUTO_CLOSE int done_fd = -1;
    int fd;
    assert_int_equal(make_fifo(h, "go", go), 0);
    assert_int_equal(make_fifo(h, "done", done), 0);
    fd = begin(h, NULL,
        SLICE_LIT("{\"process\":{\"cmd\":\"/bin/sh\",\"args\":[\"-c\","
                  "\"read word < go; head -c 1000000 /dev/zero; echo $word > done\"]}}"));
    (void)wait_for_start(fd);
    (void)close(fd);
    done_fd = open(done, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    assert_true(done_fd >= 0);
    go_fd = open(go, O_WRONLY | O_CLOEXEC);
    assert_true(go_fd >= 0);
    assert_int_equal(write(go_fd, "on\n", 3), 3);
    assert_true(io_wait(done_fd, POLLIN, deadline_in_ms(TEST_DEADLINE_MS), &e) > 0);
    assert_int_equal(read(done_fd, line, sizeof line), 3);
    assert_string_equal(line, "on\n");
}

/* An orphan comes to the first thread, which reaps it; the process itself is its own thread's. */
static void test_orphans_are_reaped(void **state)
{
    struct harness *h = *state;
    AUTO_FREE char *pid_text = NULL;
    AUTO_CLOSE int pidfd = -1;
    struct err e = {0};
    AUTO_OUTCOME struct outcome o =
        shell(h, "(sh -c 'echo $$ > orphan; exec sleep 1000' >/dev/null 2>&1 &) ; "
                 "until test -s orphan; do :; done; exit 5");
    assert_ended(&o, 5);
    pid_text = harness_read(h, "home/orphan");
    assert_non_null(pid_text);
    pidfd = (int)syscall(SYS_pidfd_open, atoi(pid_text), 0);
    assert_true(pidfd >= 0);
    (void)reaper_sweep(); /* it lives, so that does nothing to it */
    assert_true(is_alive(pid_text));
    assert_int_equal(kill((pid_t)atoi(pid_text), SIGKILL), 0);
    assert_true(io_wait(pidfd, POLLIN, deadline_in_ms(TEST_DEADLINE_MS), &e) > 0);
    assert_true(reaper_sweep() >= 1); /* the zombie, and maybe orphans of other tests */
    assert_false(is_alive(pid_text));
}

/* Sweeping while processes end takes nobody's exit status. */
static void test_reaper_steals_nothing(void **state)
{
    for (int i = 0; i < 20; i++) {
        int fd = begin(*state, NULL,
            SLICE_LIT("{\"process\":{\"cmd\":\"/bin/sh\",\"args\":[\"-c\",\"exit 9\"]}}"));
        struct pollfd p = {.fd = fd, .events = POLLRDHUP};
        while (poll(&p, 1, /* timeout= */ 0) == 0)
            (void)reaper_sweep();
        AUTO_OUTCOME struct outcome o = finish(fd);
        assert_ended(&o, 9);
    }
}

static void test_bounded_processes(void **state)
{
    int fds[8];
    pid_t pids[8];
    AUTO_OUTCOME struct outcome o = {0};
    for (size_t i = 0; i < ARRAY_LEN(fds); i++) {
        fds[i] =
            begin(*state, NULL, SLICE_LIT("{\"process\":{\"cmd\":\"sleep\",\"args\":[\"1000\"]}}"));
        pids[i] = wait_for_start(fds[i]);
    }
    o = start(*state, NULL, "{\"process\":{\"cmd\":\"true\"}}");
    assert_refused(&o, "unavailable", "8 processes run already");
    assert_true(harness_init(*state, "{}", WITH_TOKEN) == 204); /* others are served */
    for (size_t i = 0; i < ARRAY_LEN(fds); i++) {
        AUTO_OUTCOME struct outcome killed = {0};
        assert_int_equal(kill(pids[i], SIGKILL), 0);
        killed = finish(fds[i]);
        assert_true(killed.answer.raw.len > 0);
    }
}

static void test_hostile_requests(void **state)
{
    static const char *const bad[] = {"", "{", "[]", "\"x\"", "{\"process\":5}",
        "{\"process\":{\"cmd\":[]}}", "{\"process\":{\"cmd\":\"x\",\"args\":{}}}",
        "{\"process\":{\"cmd\":\"x\",\"envs\":[]}}", "{\"process\":{\"cmd\":\"\xff\"}}",
        "{\"process\":{\"cmd\":\"true\"},\"stdinData\":\"?\"}",
        "{\"process\":{\"cmd\":\"true\",\"args\":[\"a\\u0000b\"]}}",
        "{\"process\":{\"cmd\":\"true\",\"cwd\":\"a\\u0000b\"}}"};
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        AUTO_OUTCOME struct outcome o = start(*state, NULL, bad[i]);
        if (o.pid != 0 || !slice_is(o.code, "invalid_argument"))
            fail_msg("%s: %.*s", bad[i], (int)o.answer.raw.len, o.answer.raw.p);
    }
    AUTO_OUTCOME struct outcome after = start(*state, NULL, "{\"process\":{\"cmd\":\"true\"}}");
    assert_ended(&after, 0);
}

static void test_too_many_arguments(void **state)
{
    AUTO_BUF struct buf json = BUF_INIT(1 << 20);
    AUTO_OUTCOME struct outcome o = {0};
    buf_append_cstr(&json, "{\"process\":{\"cmd\":\"true\",\"args\":[\"a\"");
    for (int i = 0; i < 1024; i++)
        buf_append_cstr(&json, ",\"a\"");
    buf_append_cstr(&json, "]}}");
    o = start(*state, NULL, json.p);
    assert_refused(&o, "invalid_argument", "more than 1024 arguments");
}

#define WITH_SERVICE(test)                                                                         \
    cmocka_unit_test_setup_teardown(test, harness_set_up_initialised, harness_tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_SERVICE(test_output_and_exit_code),
        WITH_SERVICE(test_success),
        WITH_SERVICE(test_arguments_are_not_a_shell),
        WITH_SERVICE(test_pid_and_session),
        WITH_SERVICE(test_signals),
        WITH_SERVICE(test_clean_signal_state),
        WITH_SERVICE(test_only_three_descriptors),
        WITH_SERVICE(test_environment),
        WITH_SERVICE(test_bad_environment),
        WITH_SERVICE(test_cwd),
        WITH_SERVICE(test_default_cwd),
        WITH_SERVICE(test_command_not_startable),
        WITH_SERVICE(test_path_of_the_process),
        WITH_SERVICE(test_unknown_user),
        WITH_SERVICE(test_other_user),
        WITH_SERVICE(test_big_output_on_both),
        WITH_SERVICE(test_binary_output),
        WITH_SERVICE(test_stdin_data),
        WITH_SERVICE(test_stdin_not_read),
        WITH_SERVICE(test_stdin_forms),
        WITH_SERVICE(test_timeout_kills_the_group),
        WITH_SERVICE(test_timeout_with_escaped_child),
        WITH_SERVICE(test_timeout_with_stalled_client),
        WITH_SERVICE(test_end_waits_for_output),
        WITH_SERVICE(test_keepalive),
        WITH_SERVICE(test_client_gone),
        WITH_SERVICE(test_orphans_are_reaped),
        WITH_SERVICE(test_reaper_steals_nothing),
        WITH_SERVICE(test_bounded_processes),
        WITH_SERVICE(test_hostile_requests),
        WITH_SERVICE(test_too_many_arguments),
    };
    /* Orphans of our processes come to us, as they would to PID 1, and as there nothing is
     * inherited from whoever started the test (nohup ignores signals). */
    for (int sig = 1; sig < 32; sig++)
        (void)signal(sig, SIG_DFL);
    if (syscall(SYS_close_range, 3, ~0u, 0) < 0 || prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) < 0)
        return 1;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
