/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the tests of sleeping share: the calls, a program in the guest that knows whether it woke as
 * it was (guest_hold.c), and what the host spends on it. All fail the test when something answers
 * otherwise than it should.
 */
#ifndef TORPOR_TESTS_E2E_SLEEP_H
#define TORPOR_TESTS_E2E_SLEEP_H

#include "stack.h"

enum { HOLD_LINE = 256 };

/* Ends the agent, if it runs, by SIGTERM and starts it with what `s` says. */
void restart_agent(struct stack *s);
/* TORPOR_SEED, or one of the clock; printed. For what is drawn in a run. */
unsigned test_seed(void);
/* SIGKILL, and waits until it is gone. */
void kill_hard(pid_t pid);

/* A line for busybox' shell; its result. */
void sh_in(const struct stack *s, const char *id, const char *script, struct reply *ret);
/* POST /v1/sandboxes/{id}/{verb}. */
void act(
    const struct stack *s, const char *id, const char *verb, const char *body, struct reply *ret);
void pause_sandbox(const struct stack *s, const char *id);
void resume_sandbox(const struct stack *s, const char *id);
/* Makes a template of that name; `query` is "" or "?overwrite=true". */
void make_snapshot(const struct stack *s, const char *id, const char *name, const char *query);
void delete_snapshot(const struct stack *s, const char *name);
void spawn_from(const struct stack *s, const char *template, char ret_id[32]);

/* Status and reason as the API shows them. */
void look(const struct stack *s, const char *id, char status[16], char reason[32]);
/* Asks until the status is `wanted`. */
void wait_status(const struct stack *s, const char *id, const char *wanted,
    const char *wanted_reason, int within_ms);
/* Asks for the status for `ms` and fails the test unless it is `wanted` each time. */
void stays(const struct stack *s, const char *id, const char *wanted, int ms);

/* Puts guest-hold into the sandbox and starts it with so much memory. */
void hold_start(const struct stack *s, const char *id, unsigned mib);
/* One command to it (guest_hold.c), and its answer without the line's end. */
void hold(const struct stack *s, const char *id, const char *command, char ret[HOLD_LINE]);
/* Has it compare every page and block; the answer, which is the same again until it is told to
 * change something. */
void hold_check(const struct stack *s, const char *id, char ret[HOLD_LINE]);
/* The same, and it must be `expected`. */
void hold_is(const struct stack *s, const char *id, const char *expected);

/* Files and bytes as allocated in some of the data folder's folders: blobs, generations,
 * sandboxes, templates. */
struct disk_use {
    long long files;
    long long bytes;
};
/* `ret_names`: appends their paths, unless it is NULL. */
void disk_use(const struct stack *s, struct disk_use *ret, struct buf *ret_names);

#endif
