/* SPDX-License-Identifier: Apache-2.0 */
#include "scenes.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/io.h"

enum { WAIT_MS = 20000, LOOK_AGAIN_MS = 5 };

struct cast cast;

void cast_new(void)
{
    sandbox_id_new(&cast.id);
    sandbox_id_new(&cast.other);
    template_id_new(&cast.a);
    template_id_new(&cast.b);
}

/* --- what is done --- */

static int create_as(struct fixture *f, const struct sandbox_id *id, struct err *e)
{
    struct life_create c = request();
    struct life_info info;
    c.id = *id;
    return life_create(f->life, &c, &info, e);
}

static int create(struct fixture *f, struct err *e)
{
    return create_as(f, &cast.id, e);
}

static int spawn(struct fixture *f, struct err *e)
{
    const struct life_create c = {.id = cast.id, .snapshot_id = slice_cstr(cast.a.text)};
    struct life_info info;
    return life_create(f->life, &c, &info, e);
}

static int pause_it(struct fixture *f, struct err *e)
{
    const struct life_change c = {.id = cast.id};
    struct life_info info;
    struct phases phases;
    return life_pause(f->life, &c, &info, &phases, e);
}

static int resume_as(struct fixture *f, bool from_last, bool disk_only, struct err *e)
{
    const struct life_resume r = {
        .change = {.id = cast.id}, .from_last = from_last, .disk_only = disk_only};
    struct life_info info;
    struct phases phases;
    return life_resume(f->life, &r, &info, &phases, e);
}

static int resume(struct fixture *f, struct err *e)
{
    return resume_as(f, false, false, e);
}

static int resume_last(struct fixture *f, struct err *e)
{
    return resume_as(f, /* from_last= */ true, false, e);
}

static int resume_disk(struct fixture *f, struct err *e)
{
    return resume_as(f, false, /* disk_only= */ true, e);
}

static int snapshot_to(struct fixture *f, const struct template_id *to, struct err *e)
{
    const struct life_change c = {.id = cast.id};
    struct snapshot ret;
    struct life_info info;
    struct phases phases;
    return life_snapshot(f->life, &c, to, &ret, &info, &phases, e);
}

static int snapshot_a(struct fixture *f, struct err *e)
{
    return snapshot_to(f, &cast.a, e);
}

static int snapshot_b(struct fixture *f, struct err *e)
{
    return snapshot_to(f, &cast.b, e);
}

static int delete_a(struct fixture *f, struct err *e)
{
    return life_snapshot_delete(f->life, &cast.a, e);
}

static int destroy(struct fixture *f, struct err *e)
{
    uint64_t revision;
    return life_destroy(f->life, &cast.id, 0, &revision, e);
}

/* The second create of a size makes a warm start in the background; the third is made from it. */
static int warm_up(struct fixture *f, struct err *e)
{
    int64_t deadline = deadline_in_ms(WAIT_MS);
    if (create_as(f, &cast.other, e) < 0)
        return -1;
    while (count_files(f, "warm") != 1) {
        assert_true(clock_mono_ms() < deadline);
        life_wait_change(f->life, UINT64_MAX - 1, deadline_in_ms(LOOK_AGAIN_MS));
    }
    return 0;
}

/* --- what was before --- */

static void must(int rc, const struct err *e)
{
    if (rc < 0)
        fail_msg("%s", e->msg);
}

static void prepare_nothing(struct fixture *f)
{
}

static void prepare_running(struct fixture *f)
{
    struct err e = {0};
    must(create(f, &e), &e);
    assert_int_equal(count_in(f, &cast.id), 1);
}

/* Restored once; its memory has gone on since. */
static void prepare_woken(struct fixture *f)
{
    prepare_running(f);
    (void)pause_ok(f, &cast.id);
    (void)resume_ok(f, &cast.id);
    assert_int_equal(count_in(f, &cast.id), 2);
}

static void prepare_paused(struct fixture *f)
{
    prepare_woken(f);
    (void)pause_ok(f, &cast.id);
}

static void prepare_stopped(struct fixture *f)
{
    prepare_woken(f);
    fakes_forget_stops();
    fakes_kill_newest_vmm();
    assert_int_equal(fakes_wait_stop(), 0);
}

static void prepare_template(struct fixture *f)
{
    struct err e = {0};
    prepare_running(f);
    must(snapshot_a(f, &e), &e);
    destroy_ok(f, &cast.id);
}

static void prepare_old_template(struct fixture *f)
{
    struct err e = {0};
    prepare_running(f);
    must(snapshot_a(f, &e), &e);
    assert_int_equal(count_in(f, &cast.id), 2);
}

/* One sandbox that was spawned from it sleeps. */
static void prepare_used_template(struct fixture *f)
{
    const struct life_create c = {.id = cast.other, .snapshot_id = slice_cstr(cast.a.text)};
    prepare_template(f);
    (void)create_with(f, c);
    assert_int_equal(count_in(f, &cast.other), 2);
    (void)pause_ok(f, &cast.other);
}

/* With as many parts as there may be without a merging. */
static void prepare_many_parts(struct fixture *f)
{
    prepare_running(f);
    for (int i = 2; i <= 9; i++) {
        (void)pause_ok(f, &cast.id);
        (void)resume_ok(f, &cast.id);
        assert_int_equal(count_in(f, &cast.id), i);
    }
}

static void prepare_one_create(struct fixture *f)
{
    const struct life_create c = request();
    struct sandbox_id id = create_with(f, c);
    destroy_ok(f, &id);
}

const struct scene scenes[] = {
    {"create", false, prepare_nothing, {create},
        {{.sandbox = {ABSENT, 0}}, {.sandbox = {BOOTS, 0}}}, 0},
    {"spawn", false, prepare_template, {spawn}, {{.a = 1}, {.sandbox = {BOOTS, 0}, .a = 1}}, 1},
    {"first pause", false, prepare_running, {pause_it},
        {{.sandbox = {BOOTS, 0}}, {.sandbox = {SLEEPS, 1}}}, 1},
    {"pause", false, prepare_woken, {pause_it},
        {{.sandbox = {RESTORES, 1}}, {.sandbox = {SLEEPS, 2}}}, 2},
    {"resume", false, prepare_paused, {resume},
        {{.sandbox = {SLEEPS, 2}}, {.sandbox = {RESTORES, 2}}}, 2},
    {"restore", false, prepare_stopped, {resume_last},
        {{.sandbox = {RESTORES, 1}}, {.sandbox = {RESTORES, 1}}}, 1},
    {"boot from the disk", false, prepare_stopped, {resume_disk},
        {{.sandbox = {RESTORES, 1}}, {.sandbox = {RESTORES, 1}}}, 0},
    {"resume and pause", false, prepare_paused, {resume, pause_it},
        {{.sandbox = {SLEEPS, 2}}, {.sandbox = {RESTORES, 2}}, {.sandbox = {SLEEPS, 2}}}, 2},
    {"first snapshot", false, prepare_running, {snapshot_a},
        {{.sandbox = {BOOTS, 0}}, {.sandbox = {BOOTS, 0}, .a = 1}}, 1},
    {"snapshots", false, prepare_woken, {snapshot_a, snapshot_b},
        {{.sandbox = {RESTORES, 1}}, {.sandbox = {RESTORES, 1}, .a = 2},
            {.sandbox = {RESTORES, 1}, .a = 2, .b = 2}},
        2},
    {"snapshot and pause", false, prepare_woken, {snapshot_a, pause_it},
        {{.sandbox = {RESTORES, 1}}, {.sandbox = {RESTORES, 1}, .a = 2},
            {.sandbox = {SLEEPS, 2}, .a = 2}},
        2},
    {"snapshot of a sleeper", false, prepare_paused, {snapshot_a},
        {{.sandbox = {SLEEPS, 2}}, {.sandbox = {SLEEPS, 2}, .a = 2}}, 2},
    {"template overwrite", false, prepare_old_template, {snapshot_b, delete_a},
        {{.sandbox = {BOOTS, 0}, .a = 1}, {.sandbox = {BOOTS, 0}, .a = 1, .b = 2},
            {.sandbox = {BOOTS, 0}, .b = 2}},
        2},
    {"template delete", false, prepare_used_template, {delete_a},
        {{.other = {SLEEPS, 2}, .a = 1}, {.other = {SLEEPS, 2}}}, 0},
    {"destroy", false, prepare_woken, {destroy},
        {{.sandbox = {RESTORES, 1}}, {.sandbox = {ABSENT, 0}}}, 2},
    {"destroy of a sleeper", false, prepare_paused, {destroy},
        {{.sandbox = {SLEEPS, 2}}, {.sandbox = {ABSENT, 0}}}, 2},
    {"destroy of a stopped one", false, prepare_stopped, {destroy},
        {{.sandbox = {RESTORES, 1}}, {.sandbox = {ABSENT, 0}}}, 0},
    {"pause and merge", false, prepare_many_parts, {pause_it, snapshot_a},
        {{.sandbox = {RESTORES, 8}}, {.sandbox = {SLEEPS, 9}}, {.sandbox = {SLEEPS, 9}, .a = 9}},
        9},
    {"warm start", true, prepare_one_create, {warm_up, create},
        {{.sandbox = {ABSENT, 0}}, {.other = {BOOTS, 0}},
            {.sandbox = {BOOTS, 0}, .other = {BOOTS, 0}}},
        0},
};
const size_t n_scenes = ARRAY_LEN(scenes);

/* --- the host --- */

struct fixture *scene_host(const struct scene *s)
{
    struct fixture *f = fixture_new(s->warm);
    cast_new();
    fakes.check_disk = check_disk;
    return f;
}

void scene_host_free(struct fixture *f)
{
    struct err e = {0};
    assert_int_equal(io_remove_tree(AT_FDCWD, f->root, &e), 0);
    free(f);
}
