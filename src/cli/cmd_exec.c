/* SPDX-License-Identifier: Apache-2.0 */
/*
 * torpor exec: runs a command in a sandbox and becomes what it was: its output, its exit status.
 *
 * The whole command is one request and one answer. Its input is read to the end first, when it is
 * no terminal, and travels as JSON text: it must be UTF-8 and fit into a body.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/io.h"
#include "cli/body.h"
#include "cli/output.h"
#include "cli/progress.h"
#include "cli/sandbox.h"
#include "proto/limits.h"

enum { READ_BYTES = 64 * 1024, EXEC_MARGIN_MS = 60000, STDIN_MAX = LIMIT_BODY_JSON_BYTES };

static int read_stdin(int fd, struct buf *dst, struct err *e)
{
    for (;;) {
        char chunk[READ_BYTES / 8];
        ssize_t n = io_read(fd, chunk, sizeof chunk, DEADLINE_NEVER, e);
        if (n < 0)
            return err_wrap(e, "standard input");
        if (n == 0)
            break;
        buf_append(dst, chunk, (size_t)n);
        if (dst->failed)
            return err_set(e, ERR_TOO_LARGE,
                "standard input is larger than 1 MiB; send a file with torpor cp");
    }
    if (!utf8_valid(dst->p ? dst->p : "", dst->len))
        return err_set(e, ERR_INVALID,
            "standard input is not UTF-8; send a file with torpor cp (or --no-stdin)");
    return 0;
}

static void write_command(const struct args *a, struct json_writer *w)
{
    body_write_text(w, "cmd", a->operands[1]);
    json_key(w, "args");
    json_array_begin(w);
    for (size_t i = 2; i < a->n_operands; i++)
        json_cstr(w, a->operands[i]);
    json_array_end(w);
    body_write_text(w, "cwd", args_value(a, "cwd"));
    body_write_text(w, "user", args_value(a, "user"));
}

static int check_utf8(const struct args *a, struct err *e)
{
    for (size_t i = 1; i < a->n_operands; i++)
        if (!utf8_valid(a->operands[i], strlen(a->operands[i])))
            return err_set(e, ERR_INVALID, "argument %zu of the command is not UTF-8", i - 1);
    return 0;
}

/* The request's body, and how long the command may take. */
static int write_exec(
    struct cli *c, const struct args *a, struct buf *body, int64_t *ret_sec, struct err *e)
{
    AUTO_BUF struct buf input = BUF_INIT(STDIN_MAX);
    struct json_writer w;
    int has_timeout = args_number(c, a, "timeout", "s=1 m=60 h=3600", ret_sec, e);
    json_writer_init(&w, body);
    json_object_begin(&w);
    if (has_timeout < 0 || check_utf8(a, e) < 0)
        return -1;
    write_command(a, &w);
    if (has_timeout > 0) {
        json_key(&w, "timeout_sec");
        json_int(&w, *ret_sec);
    }
    if (body_write_pairs(c, a, "env", "env", &w, e) < 0)
        return -1;
    if (!c->in_is_tty && !args_flag(a, "no-stdin")) {
        if (read_stdin(c->in_fd, &input, e) < 0)
            return -1;
        json_key(&w, "stdin");
        json_string(&w, buf_slice(&input));
    }
    json_object_end(&w);
    return body->failed ? err_set(e, ERR_TOO_LARGE,
                              "command and standard input are larger than the 1 MiB of a request; "
                              "send a file with torpor cp")
                        : 0;
}

/* One output as bytes. */
static int write_output(FILE *out, const struct json_value *v, bool base64, struct err *e)
{
    AUTO_FREE char *bytes = NULL;
    long n;
    if (!v || v->type != JSON_STRING)
        return err_set(e, ERR_PROTOCOL, "the server's answer lacks an output");
    if (!base64) {
        (void)fwrite(v->string.p, 1, v->string.n, out);
        return 0;
    }
    bytes = malloc(v->string.n / 4 * 3 + 3);
    if (!bytes)
        return err_set(e, ERR_NOMEM, "out of memory");
    n = base64_decode(v->string.p, v->string.n, bytes);
    if (n < 0)
        return err_set(e, ERR_PROTOCOL, "the server's base64 is malformed");
    (void)fwrite(bytes, 1, (size_t)n, out);
    return 0;
}

static bool is_true(const struct json_value *v, const char *key)
{
    const struct json_value *m = json_get(v, key);
    return m && m->type == JSON_BOOL && m->boolean;
}

static int show_result(struct cli *c, struct api_answer *answer, struct err *e)
{
    const struct json_value *v = answer->json;
    bool base64 = strcmp(api_text(answer, v, "encoding"), "base64") == 0;
    if (write_output(c->out, json_get(v, "stdout"), base64, e) < 0)
        return -1;
    (void)fflush(c->out);
    if (write_output(c->err, json_get(v, "stderr"), base64, e) < 0)
        return -1;
    if (is_true(v, "truncated"))
        (void)fprintf(c->err, "torpor exec: output beyond 16 MiB was cut\n");
    if (is_true(v, "timed_out"))
        (void)fprintf(c->err, "torpor exec: out of time after %.1f s, killed (--timeout)\n",
            (double)api_int(v, "duration_ms", 0) / 1000);
    return 0;
}

/* A sleeper is not woken unasked; who asks for it is told how. */
static int fail(const struct sandbox_id *id, struct err *e)
{
    size_t n = strlen(e->msg);
    if (e->kind == ERR_BAD_STATE &&
        (strcmp(e->where, sandbox_status_name(SANDBOX_PAUSED)) == 0 ||
            strcmp(e->where, sandbox_status_name(SANDBOX_PAUSING)) == 0))
        (void)snprintf(e->msg + n, sizeof e->msg - n, "; wake it with: torpor resume %s", id->text);
    return -1;
}

static int run_exec(struct cli *c, const struct args *a, struct err *e)
{
    AUTO_API struct api api = {0};
    AUTO_ANSWER struct api_answer answer = {0};
    AUTO_BUF struct buf body = BUF_INIT(LIMIT_BODY_JSON_BYTES);
    int64_t sec = LIMIT_EXEC_TIMEOUT_SEC_DEFAULT;
    struct sandbox_id id;
    char target[TARGET_MAX];
    if (write_exec(c, a, &body, &sec, e) < 0 || api_open(&api, e) < 0 ||
        sandbox_find(&api, a->operands[0], &id, e) < 0)
        return -1;
    if (sec > LIMIT_EXEC_TIMEOUT_SEC_MAX)
        sec = LIMIT_EXEC_TIMEOUT_SEC_MAX; /* the API will refuse it */
    sandbox_target(&id, "/exec", target);
    if (api_call(&api,
            &(struct api_call){.method = "POST",
                .target = target,
                .json = buf_slice(&body),
                .timeout_ms = sec * 1000 + EXEC_MARGIN_MS},
            &answer, e) < 0)
        return fail(&id, e);
    if (args_flag(a, "output")) {
        output_json(c->out, answer.json);
        (void)fprintf(c->out, "\n");
    } else if (show_result(c, &answer, e) < 0) {
        return -1;
    }
    return (int)api_int(answer.json, "exit_code", EXIT_ERROR) & 0xff;
}

static const struct cli_option exec_options[] = {
    {.name = "timeout",
        .value = "SEC",
        .help = "kill it after that time, default 30, e.g. 90 or 5m"},
    {.name = "env", .letter = 'e', .value = "KEY=VALUE", .many = true, .help = "set for it"},
    {.name = "cwd", .letter = 'w', .value = "PATH", .help = "its folder, default the user's home"},
    {.name = "user", .letter = 'u', .value = "NAME", .help = "who runs it, default the template's"},
    {.name = "no-stdin", .letter = 'n', .help = "do not read standard input"},
    {.name = "output",
        .letter = 'o',
        .value = "FORM",
        .choices = "json",
        .help = "json: the API's answer, with time and signal"},
    {0}};

const struct cli_command command_exec = {.name = "exec",
    .arguments = "ID [--] COMMAND [ARG]...",
    .summary = "run a command in a sandbox",
    .about =
        "Runs a command in a sandbox, without a shell, and waits for it. Standard input goes to "
        "it when it\nis no terminal (UTF-8, at most 1 MiB); its outputs come back as they were, "
        "when it has ended.\nOptions of torpor stand before COMMAND.",
    .example = "torpor exec sbq3 --timeout 2m -- sh -c 'echo $HOME; uname -r'",
    .exits = "  that of the command: 128 + n when signal n ended it, 124 when it ran out of time.\n"
             "  Before it could run: 1 the API or something else failed, 2 wrong command line,\n"
             "  3 no such sandbox, 4 no capacity or not available\n",
    .options = exec_options,
    .words = "@sandbox",
    .args_min = 2,
    .args_max = -1,
    .options_end = 2,
    .run = run_exec};
