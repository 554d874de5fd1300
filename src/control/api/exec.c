/* SPDX-License-Identifier: Apache-2.0 */
/* POST /v1/sandboxes/{id}/exec. */
#include "control/api/body.h"

#include "json/json.h"
#include "rpc/agent_v1.h"

enum {
    /* Both outputs, each byte escaped as \u00NN at worst. */
    TAG_MAX = 256, /* what an answer carries of one */
    RESULT_BODY_MAX = 2 * 6 * LIMIT_EXEC_OUTPUT_BYTES + (1 << 20),
};

struct exec_body {
    struct slice cmd;
    struct body_list args;
    struct body_list env;
    struct slice cwd;
    struct slice user;
    struct slice stdin_text;
    int timeout_sec;
};

static bool check_arg(struct slice s)
{
    return s.n == 0 || !memchr(s.p, '\0', s.n);
}

static bool check_cwd(struct slice s)
{
    return s.n == 0 || check_path(s);
}

static const struct body_field exec_fields[] = {
    {.name = "cmd",
        .kind = BODY_STRING,
        .offset = offsetof(struct exec_body, cmd),
        .required = true,
        .valid = check_path,
        .allowed = path_allowed},
    {.name = "args",
        .kind = BODY_STRINGS,
        .offset = offsetof(struct exec_body, args),
        .valid = check_arg,
        .allowed = "no NUL",
        .count_max = LIMIT_EXEC_ARGS_MAX},
    {.name = "env",
        .kind = BODY_ENV,
        .offset = offsetof(struct exec_body, env),
        .count_max = LIMIT_ENV_MAX},
    {.name = "cwd",
        .kind = BODY_STRING,
        .offset = offsetof(struct exec_body, cwd),
        .valid = check_cwd,
        .allowed = path_allowed},
    {.name = "user",
        .kind = BODY_STRING,
        .offset = offsetof(struct exec_body, user),
        .valid = check_user,
        .allowed = user_pattern},
    {.name = "stdin", .kind = BODY_STRING, .offset = offsetof(struct exec_body, stdin_text)},
    {.name = "timeout_sec",
        .kind = BODY_INT,
        .offset = offsetof(struct exec_body, timeout_sec),
        .min = 1,
        .max = LIMIT_EXEC_TIMEOUT_SEC_MAX},
};

/* Output that was cut may end inside a character; that does not make it binary. */
static struct slice whole_characters(struct slice s, bool cut)
{
    return cut ? slice_of(s.p, utf8_complete_prefix(s.p, s.n)) : s;
}

static void write_output(struct json_writer *w, const char *key, struct slice bytes, bool is_text)
{
    json_key(w, key);
    if (is_text)
        json_string(w, bytes);
    else
        json_base64(w, bytes);
}

static void write_result(struct json_writer *w, const struct call *c, const struct exec_body *b,
    const struct agent_exec_response *r)
{
    bool cut = r->truncated || r->timed_out;
    struct slice out = whole_characters(r->stdout_bytes, cut);
    struct slice err = whole_characters(r->stderr_bytes, cut);
    bool is_text = utf8_valid(out.p, out.n) && utf8_valid(err.p, err.n);
    json_object_begin(w);
    json_key(w, "sandbox_id");
    json_cstr(w, c->id.text);
    json_key(w, "cmd");
    json_string(w, b->cmd);
    write_output(w, "stdout", is_text ? out : r->stdout_bytes, is_text);
    write_output(w, "stderr", is_text ? err : r->stderr_bytes, is_text);
    json_key(w, "exit_code");
    json_int(w, r->exit_code);
    if (r->signal.n > 0) {
        json_key(w, "signal");
        json_string(w, r->signal);
    }
    json_key(w, "duration_ms");
    json_int(w, r->duration_ms);
    json_key(w, "encoding");
    json_cstr(w, is_text ? "utf-8" : "base64");
    json_key(w, "timed_out");
    json_bool(w, r->timed_out);
    json_key(w, "truncated");
    json_bool(w, r->truncated);
    json_object_end(w);
}

/* The answer carries how to find it again; the tag outlives the exec's own arena. */
static int met_by_pause(struct call *c, const struct agent_exec_response *r)
{
    size_t n = utf8_valid(r->tag.p, r->tag.n) && r->tag.n <= TAG_MAX ? r->tag.n : 0;
    c->met_pid = r->pid;
    c->met_tag = slice_of(n ? arena_strndup(c->arena, r->tag.p, n) : NULL, n);
    if (!c->met_tag.p)
        c->met_tag.n = 0;
    return -1;
}

int exec_run(struct call *c, struct err *e)
{
    AUTO_BUF struct buf body = BUF_INIT(RESULT_BODY_MAX);
    CLEANUP(arena_done) struct arena arena = {0};
    struct exec_body b = {.timeout_sec = LIMIT_EXEC_TIMEOUT_SEC_DEFAULT};
    struct agent_exec_response result = {0};
    struct agent_exec_request req;
    struct json_writer w;
    arena_init(&arena, LIMIT_RPC_MESSAGE_BYTES);
    if (body_read(c, exec_fields, ARRAY_LEN(exec_fields), &b, e) < 0)
        return -1;
    req = (struct agent_exec_request){
        .cmd = b.cmd,
        .args = {b.args.items, b.args.n},
        .timeout_sec = b.timeout_sec,
        .env = {b.env.items, b.env.n},
        .cwd = b.cwd,
        .user = b.user,
        .stdin_bytes = b.stdin_text,
    };
    if (service_exec(c->service, &c->who, &c->id, &req, &arena, &result, e) < 0)
        return result.paused ? met_by_pause(c, &result) : -1;
    json_writer_init(&w, &body);
    write_result(&w, c, &b, &result);
    return reply_json(c, HTTP_OK, &body, e);
}
