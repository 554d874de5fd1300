/* SPDX-License-Identifier: Apache-2.0 */
/* What the tests of guests share: a guest at the fake, and commands run in it. */
#ifndef TORPOR_TESTS_GUEST_CALLS_H
#define TORPOR_TESTS_GUEST_CALLS_H

#include <pthread.h>

#include "agent/guest/guest.h"
#include "fake_envd.h"
#include "rpc/agent_v1.h"

extern const char token[GUEST_TOKEN_CHARS + 1];
extern struct guest *g;
extern const struct agent_exec_request hello;
extern const struct guest_identity sleeper; /* wakes as itself, with its secret */

/* cmocka set-up and tear-down: the fake, and `g` that speaks to it. */
int calls_set_up(void **state);
int calls_tear_down(void **state);

struct run {
    struct agent_exec_response resp;
    struct buf out;
    struct buf err_out;
    struct err e;
    int rc;
};

/* Runs it to its end, with the fake behaving as told. The caller ends the result with run_done. */
struct run run_exec(enum fake_start how, const struct agent_exec_request *req);
void run_done(struct run *r);

struct exec_call {
    enum fake_start how;
    pthread_t thread;
    struct run run;
};

/* The same with `hello`, on a thread that the caller joins. */
void begin_exec(struct exec_call *call, enum fake_start how);

#endif
