/* SPDX-License-Identifier: Apache-2.0 */
/* Something dies while generations are merged, or removed at the start of an agent. */
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "crash.h"
#include "host.h"

#define DEEP "deep" /* a template of as many generations as are not merged yet */

enum { DEEP_PAUSES = 7 };

void crash_make_deep(void)
{
    struct stack *s = &sweep.stack;
    char id[32];
    char answer[HOLD_LINE];
    spawn_from(s, CRASH_HELD, id);
    for (int i = 0; i < DEEP_PAUSES; i++) {
        char command[48];
        if (i > 0)
            resume_sandbox(s, id);
        (void)snprintf(command, sizeof command, "change %d %d 200", 10 + i, i);
        hold(s, id, command, answer);
        pause_sandbox(s, id);
    }
    make_snapshot(s, id, DEEP, "");
    delete_sandbox(s, id);
}

static void prepare_merge(struct crash *c)
{
    char answer[HOLD_LINE];
    spawn_from(&sweep.stack, DEEP, c->id);
    hold(&sweep.stack, c->id, "change 5 1 9", answer);
    hold_check(&sweep.stack, c->id, c->now);
    c->method = "POST";
    (void)snprintf(c->path, sizeof c->path, "/v1/sandboxes/%s/pause", c->id);
}

/* The pause was done before: it sleeps, and wakes from the old layout or the new one. */
static void check_merged(struct crash *c)
{
    char status[16];
    crash_wait_settled(c, status);
    assert_string_equal(status, "paused");
    crash_check_sleeper(c);
    delete_sandbox(&sweep.stack, c->id);
}

static const char *const merge_steps[] = {
    "merge/copy", "merge/durable", "merge/layout", "merge/release", NULL};
const struct operation crash_merge = {merge_steps, 0, 0, prepare_merge, check_merged};

/* --- at the start of an agent --- */

/* A generation that nobody names, as an agent leaves it that dies before it has removed it. The
 * agent has ended. */
static void orphan_generation(void)
{
    AUTO_REPLY struct reply r = {0};
    struct stack *s = &sweep.stack;
    char path[160];
    char id[32];
    spawn_from(s, CRASH_HELD, id);
    pause_sandbox(s, id);
    make_snapshot(s, id, "orphan", "");
    delete_sandbox(s, id);
    assert_int_equal(stack_end(&s->agent, SIGTERM), 0);
    delete_snapshot(s, "orphan");
    api(s, "GET", "/v1/snapshots?limit=1000", NULL, &r);
    (void)snprintf(path, sizeof path, "%s/templates", s->dir);
    assert_int_equal(remove_unlisted(path, &r.body), 1);
}

/* Starts an agent that meets `c` before it serves. */
static void start_and_die(struct crash *c)
{
    sweep.stack.crash = c->text;
    stack_begin_agent(&sweep.stack);
    sweep.stack.crash = NULL;
    crash_wait(c);
}

static void collect_once(const char *at, enum victim victim)
{
    struct crash c;
    orphan_generation();
    if (strcmp(at, "collect/leftover") == 0) { /* bytes that no folder names any more */
        crash_name(&c, "collect/folder", VICTIM_AGENT);
        start_and_die(&c);
    }
    crash_name(&c, at, victim);
    start_and_die(&c);
    if (sweep.stack.agent > 0) /* it went on, and nobody knows when it serves */
        restart_agent(&sweep.stack);
    crash_start_again();
    crash_check_rest(&c);
}

void crash_collect(void)
{
    static const char *const steps[] = {"collect/hidden", "collect/folder", "collect/leftover"};
    bool all = getenv("TORPOR_CRASH_ALL") != NULL;
    sweep_needs_stack();
    for (size_t i = 0; i < ARRAY_LEN(steps); i++) {
        int drawn = (int)(random() % VICTIMS_WITHOUT_VM);
        sweep.points++;
        for (int v = 0; v < VICTIMS_WITHOUT_VM; v++)
            if (all || v == drawn)
                collect_once(steps[i], (enum victim)v);
    }
}
