/* SPDX-License-Identifier: Apache-2.0 */
/* Calls into the fake guest. */
#include "calls.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "proto/limits.h"

const char token[GUEST_TOKEN_CHARS + 1] =
    "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
static char ip[16];
struct guest *g;

int calls_set_up(void **state)
{
    fake_start(ip);
    g = guest_new(ip, token);
    return 0;
}

int calls_tear_down(void **state)
{
    fake_stop();
    g = guest_free(g);
    return 0;
}

void run_done(struct run *r)
{
    buf_done(&r->out);
    buf_done(&r->err_out);
}

struct run run_exec(enum fake_start how, const struct agent_exec_request *req)
{
    struct run r = {
        .out = BUF_INIT(LIMIT_EXEC_OUTPUT_BYTES), .err_out = BUF_INIT(LIMIT_EXEC_OUTPUT_BYTES)};
    fake.start = how;
    r.rc = guest_exec(g, req, &r.out, &r.err_out, &r.resp, &r.e);
    return r;
}

const struct agent_exec_request hello = {
    .cmd = {"hello", 5}, .stdin_bytes = {"input", 5}, .timeout_sec = 5};

const struct guest_identity sleeper = {.sandbox_id = "sb",
    .template = "t",
    .default_user = "root",
    .keeps_env = true,
    .keeps_machine = true,
    .secret = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"};

static void *exec_thread(void *arg)
{
    struct exec_call *call = arg;
    call->run = run_exec(call->how, &hello);
    return NULL;
}

void begin_exec(struct exec_call *call, enum fake_start how)
{
    *call = (struct exec_call){.how = how};
    assert_int_equal(pthread_create(&call->thread, NULL, exec_thread, call), 0);
}
