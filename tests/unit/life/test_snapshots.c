/* SPDX-License-Identifier: Apache-2.0 */
/* Templates made of sandboxes, and sandboxes made of templates. */
#include <stdio.h>
#include <string.h>

#include "agent/life/life_int.h"
#include "base/cleanup.h"
#include "fixture.h"

static void spawned_one_goes_on_from_the_snapshot(void **state)
{
    struct fixture *f = *state;
    struct sandbox_id id = create_ok(f);
    struct sandbox_id child;
    struct snapshot s;
    assert_int_equal(count_in(f, &id), 1);
    s = snapshot_ok(f, &id);
    assert_state(f, &id, SANDBOX_RUNNING, REASON_NONE);
    assert_int_equal(s.vcpus, 1);
    assert_int_equal(s.memory_mb, 512);
    assert_string_equal(s.default_user, "root");
    assert_true(has_file(f, &id, "layer-1.qcow2"));
    assert_int_equal(count_in(f, &id), 2); /* it runs on, and is open */
    child = spawn_ok(f, &s);
    assert_false(fakes.keeps_names);
    assert_string_equal(look(f, &child).info.entry.snapshot_id, s.id.text);
    assert_int_equal(count_in(f, &child), 2);
    assert_int_equal(count_in(f, &id), 3);
    delete_snapshot_ok(f, &s.id); /* in use: what they need stays */
    delete_snapshot_ok(f, &s.id);
    (void)pause_ok(f, &child);
    (void)resume_ok(f, &child);
    assert_int_equal(count_in(f, &child), 3);
    assert_true(fakes.keeps_names);
    destroy_ok(f, &id);
    assert_int_equal(count_in(f, &child), 4);
    destroy_ok(f, &child);
    assert_nothing_left(f, &child);
}

static void deleted_template_stays_for_a_child_over_a_restart(void **state)
{
    struct fixture *f = *state;
    struct sandbox_id id = create_ok(f);
    struct sandbox_id child;
    struct snapshot s = snapshot_ok(f, &id);
    destroy_ok(f, &id);
    child = spawn_ok(f, &s);
    delete_snapshot_ok(f, &s.id);
    leave_life(f);
    open_life(f);
    assert_int_equal(count_in(f, &child), 1);
    (void)pause_ok(f, &child);
    leave_life(f);
    open_life(f);
    (void)resume_ok(f, &child);
    assert_int_equal(count_in(f, &child), 2);
    destroy_ok(f, &child);
    assert_nothing_left(f, &child);
}

static void spawn_from_nothing_is_refused(void **state)
{
    struct fixture *f = *state;
    struct life_create c = request();
    struct template_id nobody;
    struct life_info info;
    struct err e = {0};
    template_id_new(&nobody);
    c.snapshot_id = slice_cstr(nobody.text);
    assert_int_equal(life_create(f->life, &c, &info, &e), -1);
    assert_int_equal(e.kind, ERR_NOT_FOUND);
    c.snapshot_id = SLICE_LIT("../../etc/passwd");
    assert_int_equal(life_create(f->life, &c, &info, &e), -1);
    assert_int_equal(e.kind, ERR_INVALID);
    assert_string_equal(e.where, "snapshot_id");
    assert_nothing_left(f, &c.id);
}

static void failed_spawn_leaves_only_the_template(void **state)
{
    static const enum fake_call calls[] = {
        FAKE_OVERLAY, FAKE_CAN_RESTORE, FAKE_SLOT, FAKE_VMM, FAKE_LOAD, FAKE_RUN, FAKE_WAKE};
    struct fixture *f = *state;
    struct sandbox_id id = create_ok(f);
    struct snapshot s = snapshot_ok(f, &id);
    struct life_create c = {.snapshot_id = slice_cstr(s.id.text)};
    int blobs;
    destroy_ok(f, &id);
    blobs = count_files(f, "blobs");
    for (size_t i = 0; i < ARRAY_LEN(calls); i++) {
        struct life_info info;
        struct err e = {0};
        sandbox_id_new(&c.id);
        fakes.fail = calls[i];
        assert_int_equal(life_create(f->life, &c, &info, &e), -1);
        fakes.fail = FAKE_NONE;
        assert_int_equal(look(f, &c.id).n, 0);
        assert_false(has_folder(f, &c.id));
        assert_int_equal(fakes.slots_taken, 0);
        assert_int_equal(fakes.vmms_running, 0);
        assert_int_equal(count_files(f, "blobs"), blobs);
        assert_int_equal(count_files(f, "generations"), 1);
    }
    id = spawn_ok(f, &s);
    destroy_ok(f, &id);
    delete_snapshot_ok(f, &s.id);
    assert_nothing_left(f, &id);
}

static void failed_snapshot_leaves_it_running(void **state)
{
    static const enum fake_call calls[] = {
        FAKE_PREPARE, FAKE_PAUSE, FAKE_SWAP, FAKE_SAVE_STATE, FAKE_SAVE_MEMORY};
    struct fixture *f = *state;
    struct sandbox_id id = create_ok(f);
    for (size_t i = 0; i < ARRAY_LEN(calls); i++) {
        fakes.fail = calls[i];
        assert_int_equal(snapshot_kind(f, &id), ERR_INTERNAL);
        fakes.fail = FAKE_NONE;
        assert_state(f, &id, SANDBOX_RUNNING, REASON_NONE);
        assert_int_equal(count_in(f, &id), (int)i + 1);
        assert_int_equal(count_files(f, "blobs"), 0);
        assert_int_equal(count_files(f, "generations"), 0);
        assert_int_equal(count_files(f, "templates"), 0);
    }
    fakes.fail = FAKE_RUN; /* the VM is gone */
    assert_int_equal(snapshot_kind(f, &id), ERR_INTERNAL);
    fakes.fail = FAKE_NONE;
    assert_state(f, &id, SANDBOX_STOPPED, REASON_VM_EXITED);
    assert_int_equal(fakes.slots_taken, 0);
    assert_int_equal(count_files(f, "blobs"), 0);
    assert_int_equal(snapshot_kind(f, &id), ERR_BAD_STATE);
    destroy_ok(f, &id);
    assert_nothing_left(f, &id);
}

/* A VM whose overlay may have been swapped all the same: both files belong to its disk. */
static void disk_is_whole_after_a_swap_that_seemed_to_fail(void **state)
{
    struct fixture *f = *state;
    struct sandbox_id id = create_ok(f);
    fakes.fail = FAKE_SWAP;
    assert_int_equal(snapshot_kind(f, &id), ERR_INTERNAL);
    fakes.fail = FAKE_NONE;
    (void)pause_ok(f, &id);
    assert_int_equal(count_files(f, "blobs"), 8); /* memory, state, and two layers */
    (void)resume_ok(f, &id);
    destroy_ok(f, &id);
    assert_nothing_left(f, &id);
}

static void paused_one_gives_its_generation(void **state)
{
    struct fixture *f = *state;
    struct sandbox_id id = create_ok(f);
    struct sandbox_id child;
    struct snapshot s;
    struct life_info paused;
    assert_int_equal(count_in(f, &id), 1);
    paused = pause_ok(f, &id);
    s = snapshot_ok(f, &id);
    assert_int_equal(look(f, &id).info.entry.state.revision, paused.entry.state.revision);
    assert_int_equal(count_files(f, "generations"), 1);
    destroy_ok(f, &id);
    assert_int_equal(count_files(f, "generations"), 1);
    child = spawn_ok(f, &s);
    assert_int_equal(count_in(f, &child), 2);
    destroy_ok(f, &child);
    delete_snapshot_ok(f, &s.id);
    assert_nothing_left(f, &child);
}

static void same_snapshot_gives_the_same_answer(void **state)
{
    struct fixture *f = *state;
    struct sandbox_id id = create_ok(f);
    const struct life_change c = {.id = id};
    struct snapshot first = snapshot_ok(f, &id);
    struct snapshot again;
    struct life_info info;
    struct phases phases;
    struct err e = {0};
    assert_int_equal(life_snapshot(f->life, &c, &first.id, &again, &info, &phases, &e), 0);
    assert_memory_equal(&first.generation, &again.generation, sizeof first.generation);
    assert_int_equal(count_files(f, "generations"), 1);
    delete_snapshot_ok(f, &first.id);
    destroy_ok(f, &id);
    assert_nothing_left(f, &id);
}

/* The shim refers to what live snapshots stored: they stay as long as the VM, also for another
 * agent, and go with it. */
static void live_snapshots_stay_as_long_as_the_vm(void **state)
{
    struct fixture *f = *state;
    struct sandbox_id id = create_ok(f);
    struct snapshot s[2];
    for (int i = 0; i < 2; i++)
        s[i] = snapshot_ok(f, &id);
    assert_int_equal(fakes.saves_committed, 2);
    for (int i = 0; i < 2; i++)
        delete_snapshot_ok(f, &s[i].id);
    assert_int_equal(count_files(f, "generations"), 2);
    leave_life(f);
    open_life(f);
    assert_int_equal(count_files(f, "generations"), 2);
    assert_int_equal(count_in(f, &id), 1);
    (void)pause_ok(f, &id);
    assert_int_equal(count_files(f, "generations"), 1);
    destroy_ok(f, &id);
    assert_nothing_left(f, &id);
}

/* A sandbox can always be paused, whatever was made of it. */
static void snapshots_end_before_a_pause_is_impossible(void **state)
{
    struct fixture *f = *state;
    struct sandbox_id id = create_ok(f);
    struct snapshot s[OVERLAY_LAYERS_MAX];
    for (int i = 0; i < OVERLAY_LAYERS_MAX; i++)
        s[i] = snapshot_ok(f, &id);
    assert_int_equal(fakes.saves_committed, OVERLAY_LAYERS_MAX); /* each refers to those before */
    leave_life(f);
    open_life(f);
    assert_int_equal(snapshot_kind(f, &id), ERR_BAD_STATE);
    assert_state(f, &id, SANDBOX_RUNNING, REASON_NONE);
    (void)pause_ok(f, &id);
    (void)resume_ok(f, &id);
    assert_int_equal(count_in(f, &id), 1);
    for (int i = 0; i < OVERLAY_LAYERS_MAX; i++)
        delete_snapshot_ok(f, &s[i].id);
    destroy_ok(f, &id);
    assert_nothing_left(f, &id);
}

/* Templates of sandboxes of templates: each has a layer more, and nothing merges these. */
static void chain_of_templates_ends_before_a_pause_is_impossible(void **state)
{
    struct fixture *f = *state;
    struct snapshot chain[2 * GENERATION_LAYERS_MAX];
    struct sandbox_id id = create_ok(f);
    enum err_kind kind = ERR_NONE;
    int n = 0;
    while (kind == ERR_NONE) {
        struct sandbox_id next;
        assert_true(n < GENERATION_LAYERS_MAX);
        chain[n++] = snapshot_ok(f, &id);
        next = spawn_ok(f, &chain[n - 1]);
        destroy_ok(f, &id);
        id = next;
        if (n >= GENERATION_LAYERS_MAX - 1)
            kind = snapshot_kind(f, &id);
    }
    assert_int_equal(kind, ERR_BAD_STATE);
    assert_state(f, &id, SANDBOX_RUNNING, REASON_NONE);
    (void)pause_ok(f, &id);
    for (int i = 0; i < n; i++)
        delete_snapshot_ok(f, &chain[i].id);
    (void)resume_ok(f, &id);
    assert_int_equal(count_in(f, &id), 1);
    (void)pause_ok(f, &id);
    (void)resume_ok(f, &id);
    destroy_ok(f, &id);
    assert_nothing_left(f, &id);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        LIFE_TEST(spawned_one_goes_on_from_the_snapshot),
        LIFE_TEST(deleted_template_stays_for_a_child_over_a_restart),
        LIFE_TEST(spawn_from_nothing_is_refused),
        LIFE_TEST(failed_spawn_leaves_only_the_template),
        LIFE_TEST(failed_snapshot_leaves_it_running),
        LIFE_TEST(disk_is_whole_after_a_swap_that_seemed_to_fail),
        LIFE_TEST(paused_one_gives_its_generation),
        LIFE_TEST(same_snapshot_gives_the_same_answer),
        LIFE_TEST(live_snapshots_stay_as_long_as_the_vm),
        LIFE_TEST(snapshots_end_before_a_pause_is_impossible),
        LIFE_TEST(chain_of_templates_ends_before_a_pause_is_impossible),
    };
    return cmocka_run_group_tests_name("life/snapshots", tests, NULL, NULL);
}
