/* SPDX-License-Identifier: Apache-2.0 */
/* Something dies while a sandbox is made, or removed. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "crash.h"

static void prepare_create(struct crash *c)
{
    c->method = "POST";
    (void)snprintf(c->path, sizeof c->path, "/v1/sandboxes");
    (void)snprintf(c->body, sizeof c->body, "{\"memory_mb\":128}");
}

static void prepare_spawn(struct crash *c)
{
    prepare_create(c);
    (void)snprintf(c->body, sizeof c->body, "{\"template\":\"" CRASH_HELD "\"}");
}

static void check_next_spawn(void)
{
    char id[32];
    char line[HOLD_LINE];
    spawn_from(&sweep.stack, CRASH_HELD, id);
    hold_check(&sweep.stack, id, line);
    delete_sandbox(&sweep.stack, id);
}

/* There is no half sandbox: it runs, or it is none. */
static void check_made(struct crash *c)
{
    crash_remove_others(c);
    check_next_spawn();
}

static const char *const create_steps[] = {"create/sandbox folder", "create/disk",
    "create/capacity", "create/generation", "create/network slot", "create/boot place",
    "create/virtual machine", "create/journal", "create/guest", "create/noted", NULL};
const struct operation crash_create = {create_steps, 6, 10, prepare_create, check_made};

static const char *const spawn_steps[] = {"spawn/sandbox folder", "spawn/disk", "spawn/capacity",
    "spawn/generation", "spawn/network slot", "spawn/boot place", "spawn/virtual machine",
    "spawn/journal", "spawn/guest", "spawn/noted", NULL};
const struct operation crash_spawn = {spawn_steps, 6, 10, prepare_spawn, check_made};

/* One that has slept, so that it has a generation of its own. */
static void prepare_destroy(struct crash *c)
{
    crash_make_sleeper(c);
    c->method = "DELETE";
    (void)snprintf(c->path, sizeof c->path, "/v1/sandboxes/%s", c->id);
}

/* Whatever became of the first DELETE, the next one finds nothing that stands in its way. */
static void check_destroyed(struct crash *c)
{
    delete_sandbox(&sweep.stack, c->id);
    check_next_spawn();
}

static const char *const undo_steps[] = {"undo/guest", "undo/virtual machine", "undo/boot place",
    "undo/network slot", "undo/generation", "undo/capacity", "undo/sandbox folder", NULL};
const struct operation crash_destroy = {undo_steps, 0, 1, prepare_destroy, check_destroyed};
