/* SPDX-License-Identifier: Apache-2.0 */
/* Base templates that start warm: made in the background, used, forgotten, bounded. */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "fixture.h"

enum { WAIT_MS = 20000, LOOK_AGAIN_MS = 5 };

/* The maker says nothing when it is done: its file is there. */
static void wait_warm(struct fixture *f, int n)
{
    int64_t deadline = deadline_in_ms(WAIT_MS);
    while (count_files(f, "warm") != n) {
        assert_true(clock_mono_ms() < deadline);
        life_wait_change(f->life, UINT64_MAX - 1, deadline_in_ms(LOOK_AGAIN_MS));
    }
}

static struct sandbox_id create_size(struct fixture *f, int32_t memory_mb)
{
    struct life_create c = request();
    c.memory_mb = memory_mb;
    return create_with(f, c);
}

static void create_and_destroy(struct fixture *f, int32_t memory_mb, int times)
{
    for (int i = 0; i < times; i++) {
        struct sandbox_id id = create_size(f, memory_mb);
        destroy_ok(f, &id);
    }
}

static void second_create_makes_the_third_warm(void **state)
{
    struct fixture *f = *state;
    struct sandbox_id id;
    create_and_destroy(f, 512, 1);
    assert_int_equal(count_files(f, "warm"), 0);
    create_and_destroy(f, 512, 1);
    wait_warm(f, 1);
    assert_int_equal(fakes.boots_ever, 3);
    id = create_size(f, 512);
    assert_int_equal(fakes.boots_ever, 3);
    assert_int_equal(fakes.restores_ever, 1);
    assert_false(fakes.keeps_names);
    assert_int_equal(look(f, &id).info.entry.owns_generation, 0);
    assert_int_equal(count_in(f, &id), 1);
    create_and_destroy(f, 256, 1); /* of another size */
    assert_int_equal(fakes.boots_ever, 4);
    (void)pause_ok(f, &id);
    (void)resume_ok(f, &id);
    assert_int_equal(count_in(f, &id), 2);
    destroy_ok(f, &id);
    assert_int_equal(count_files(f, "generations"), 1);
    leave_life(f); /* another agent finds it */
    open_life(f);
    id = create_size(f, 512);
    assert_int_equal(fakes.boots_ever, 4);
    destroy_ok(f, &id);
}

static void warm_start_that_does_not_work_is_forgotten(void **state)
{
    static const enum fake_call calls[] = {FAKE_CAN_RESTORE, FAKE_LOAD, FAKE_WAKE};
    struct fixture *f = *state;
    for (size_t i = 0; i < ARRAY_LEN(calls); i++) {
        struct sandbox_id id;
        create_and_destroy(f, 512, 2);
        wait_warm(f, 1);
        fakes.fail = calls[i];
        id = create_size(f, 512); /* it boots */
        fakes.fail = FAKE_NONE;
        assert_int_equal(count_files(f, "warm"), 0);
        assert_string_equal(look(f, &id).info.entry.generation, "");
        assert_int_equal(count_in(f, &id), 1);
        destroy_ok(f, &id);
        assert_nothing_left(f, &id);
    }
}

static void sleeper_outlives_the_warm_start_it_came_from(void **state)
{
    struct fixture *f = *state;
    struct sandbox_id id;
    struct sandbox_id other;
    create_and_destroy(f, 512, 2);
    wait_warm(f, 1);
    id = create_size(f, 512);
    fakes.fail = FAKE_WAKE;
    other = create_size(f, 512); /* the warm start goes */
    fakes.fail = FAKE_NONE;
    assert_int_equal(count_files(f, "generations"), 1);
    (void)pause_ok(f, &id);
    (void)resume_ok(f, &id);
    assert_int_equal(count_in(f, &id), 1);
    destroy_ok(f, &id);
    destroy_ok(f, &other);
    assert_nothing_left(f, &id);
}

static bool has_size(struct fixture *f, int32_t memory_mb)
{
    char path[256];
    (void)snprintf(path, sizeof path, "%s/warm/0123-1-%d.json", f->dir, memory_mb);
    return access(path, F_OK) == 0;
}

static void an_image_keeps_eight_sizes(void **state)
{
    struct fixture *f = *state;
    int64_t deadline = deadline_in_ms(WAIT_MS);
    for (int i = 0; i < 8; i++) {
        create_and_destroy(f, 128 + 64 * i, 2);
        wait_warm(f, i + 1);
    }
    create_and_destroy(f, 128, 1); /* used again: the second is the oldest now */
    create_and_destroy(f, 1024, 2);
    while (!has_size(f, 1024)) {
        assert_true(clock_mono_ms() < deadline);
        life_wait_change(f->life, UINT64_MAX - 1, deadline_in_ms(LOOK_AGAIN_MS));
    }
    leave_life(f); /* waits for the maker */
    assert_int_equal(count_files(f, "warm"), 8);
    assert_int_equal(count_files(f, "generations"), 8);
    assert_true(has_size(f, 128));
    assert_false(has_size(f, 192));
    open_life(f);
}

static void damaged_file_and_lost_generation_are_left_out(void **state)
{
    struct fixture *f = *state;
    struct sandbox_id id;
    leave_life(f);
    write_text(f->dir, "warm/x.json", "{");
    write_text(f->dir, "warm/y.json",
        "{\"format\":1,\"image_digest\":\"0123\",\"vcpus\":1,\"memory_mb\":512,\"generation\":"
        "\"00000000-0000-4000-8000-000000000000\"}");
    open_life(f);
    id = create_size(f, 512);
    assert_int_equal(fakes.restores_ever, 0);
    destroy_ok(f, &id);
    assert_nothing_left(f, &id);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        WARM_TEST(second_create_makes_the_third_warm),
        WARM_TEST(warm_start_that_does_not_work_is_forgotten),
        WARM_TEST(sleeper_outlives_the_warm_start_it_came_from),
        WARM_TEST(an_image_keeps_eight_sizes),
        WARM_TEST(damaged_file_and_lost_generation_are_left_out),
    };
    return cmocka_run_group_tests_name("life/warm", tests, NULL, NULL);
}
