/* SPDX-License-Identifier: Apache-2.0 */
/* Something dies while a sandbox falls asleep, wakes, or becomes a template. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "base/clock.h"
#include "crash.h"

#define MADE "made" /* the template that is made while something dies */

enum { FORGOTTEN_MS = 60000 };

static void call_on_sandbox(struct crash *c, const char *verb)
{
    c->method = "POST";
    (void)snprintf(c->path, sizeof c->path, "/v1/sandboxes/%s/%s", c->id, verb);
}

static void check_and_remove(struct crash *c)
{
    crash_check_sleeper(c);
    delete_sandbox(&sweep.stack, c->id);
}

static void prepare_pause(struct crash *c)
{
    crash_make_sleeper(c);
    call_on_sandbox(c, "pause");
}

static void check_paused(struct crash *c)
{
    char status[16];
    crash_wait_settled(c, status);
    if (c->status == 200)
        assert_string_equal(status, "paused");
    check_and_remove(c);
}

static const char *const pause_steps[] = {"pause/quiesce", "pause/stop", "pause/state",
    "pause/memory", "pause/durable", "pause/commit", "pause/release", NULL};
const struct operation crash_pause = {pause_steps, 0, 6, prepare_pause, check_paused};

static void prepare_resume(struct crash *c)
{
    crash_make_sleeper(c);
    pause_sandbox(&sweep.stack, c->id);
    memcpy(c->last, c->now, sizeof c->last);
    call_on_sandbox(c, "resume");
}

static const char *const resume_steps[] = {"resume/disk", "resume/capacity", "resume/generation",
    "resume/network slot", "resume/boot place", "resume/virtual machine", "resume/journal",
    "resume/guest", "resume/noted", NULL};
const struct operation crash_resume = {resume_steps, 5, 9, prepare_resume, check_and_remove};

/* --- templates --- */

static void call_snapshot(struct crash *c, const char *query)
{
    c->method = "POST";
    (void)snprintf(c->path, sizeof c->path, "/v1/snapshots%s", query);
    (void)snprintf(c->body, sizeof c->body, "{\"sandbox_id\":\"%s\",\"name\":\"" MADE "\"}", c->id);
}

static void prepare_snapshot(struct crash *c)
{
    crash_make_sleeper(c);
    call_snapshot(c, "");
}

/* What a sandbox of the template holds; false when there is no such template. */
static bool spawn_of_made(char ret_line[HOLD_LINE])
{
    AUTO_REPLY struct reply r = {0};
    char id[32];
    api(&sweep.stack, "POST", "/v1/sandboxes", "{\"template\":\"" MADE "\"}", &r);
    if (r.status == 404)
        return false;
    if (r.status != 201)
        fail_msg("a spawn answered %d: %.*s", r.status, (int)r.body.len, r.body.p);
    (void)snprintf(id, sizeof id, "%s", reply_text(&r, "id"));
    hold_check(&sweep.stack, id, ret_line);
    delete_sandbox(&sweep.stack, id);
    return true;
}

/* A template is whole, or there is none; one that was answered for is there. */
static void check_snapshot(struct crash *c)
{
    char line[HOLD_LINE];
    crash_check_sleeper(c);
    if (spawn_of_made(line)) {
        assert_string_equal(line, c->now);
        delete_snapshot(&sweep.stack, MADE);
    } else {
        assert_int_not_equal(c->status, 201);
    }
    delete_sandbox(&sweep.stack, c->id);
}

static const char *const snapshot_steps[] = {"snapshot/quiesce", "snapshot/stop", "snapshot/state",
    "snapshot/memory", "snapshot/run", "snapshot/durable", "snapshot/template", NULL};
const struct operation crash_snapshot = {snapshot_steps, 0, 7, prepare_snapshot, check_snapshot};

/* The template that is there holds what the sandbox's last generation does, and alone keeps it. */
static void prepare_overwrite(struct crash *c)
{
    char answer[HOLD_LINE];
    spawn_from(&sweep.stack, CRASH_HELD, c->id);
    hold(&sweep.stack, c->id, "change 4 0 5", answer);
    make_snapshot(&sweep.stack, c->id, MADE, "");
    hold_check(&sweep.stack, c->id, c->last);
    pause_sandbox(&sweep.stack, c->id);
    resume_sandbox(&sweep.stack, c->id);
    hold(&sweep.stack, c->id, "change 5 1 9", answer);
    hold_check(&sweep.stack, c->id, c->now);
    call_snapshot(c, "?overwrite=true");
}

/* There is one template, the old or the new one; the new one if that was answered. */
static void check_overwritten(struct crash *c)
{
    char line[HOLD_LINE];
    crash_check_sleeper(c);
    if (!spawn_of_made(line))
        fail_msg("%s: the template is gone", c->text);
    if (c->status == 201 || strcmp(line, c->last) != 0)
        assert_string_equal(line, c->now);
    delete_snapshot(&sweep.stack, MADE);
    delete_sandbox(&sweep.stack, c->id);
}

static const char *const overwrite_steps[] = {"snapshot/quiesce", "snapshot/stop", "snapshot/state",
    "snapshot/memory", "snapshot/run", "snapshot/durable", "snapshot/template", "forget/name",
    "collect/hidden", "collect/folder", "collect/blob", "forget/bytes", NULL};
const struct operation crash_overwrite = {
    overwrite_steps, 0, 7, prepare_overwrite, check_overwritten};
