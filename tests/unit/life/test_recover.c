/* SPDX-License-Identifier: Apache-2.0 */
/* What a new agent makes of what the one before left, and of what a power cut left. */
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "agent/life/life_int.h"
#include "base/io.h"
#include "fixture.h"
#include "rpc/agent_v1.h"

static void restart_adopts_what_runs(void **state)
{
    struct fixture *f = *state;
    struct sandbox_id id = create_ok(f);
    struct agent_exec_request req = {.cmd = SLICE_LIT("echo")};
    struct agent_exec_response resp = {0};
    struct buf out = BUF_INIT(100);
    struct life_info info;
    struct err e = {0};
    struct found before;
    struct found after;
    assert_int_equal(life_set_timeout(f->life, &id, 90, &info, &e), 0);
    before = look(f, &id);
    leave_life(f);
    assert_int_equal(fakes.vmms_running, 1);
    open_life(f);
    assert_int_equal(fakes.slots_kept, 1);
    assert_int_equal(fakes.leftovers_ended, 0);
    after = look(f, &id);
    assert_int_equal(after.info.entry.state.status, SANDBOX_RUNNING);
    assert_int_equal(after.info.entry.state.revision, before.info.entry.state.revision);
    assert_int_equal(after.info.entry.timeout_sec, 90);
    assert_int_equal(after.info.entry.last_active_at_ms, before.info.entry.last_active_at_ms);
    assert_int_equal(after.info.entry.started_at_ms, before.info.entry.started_at_ms);
    assert_string_equal(after.info.host_ip, before.info.host_ip);
    assert_int_equal(life_exec(f->life, &id, &req, &out, &out, &resp, &e), 0);
    buf_done(&out);
    destroy_ok(f, &id);
    assert_nothing_left(f, &id);
}

static void adopted_vm_that_dies_is_noticed(void **state)
{
    struct fixture *f = *state;
    struct sandbox_id id = create_ok(f);
    struct found found;
    leave_life(f);
    fakes_kill_newest_vmm(); /* while no agent is there */
    open_life(f);
    assert_int_equal(fakes_wait_stop(), 0);
    found = look(f, &id);
    assert_int_equal(found.info.entry.state.status, SANDBOX_STOPPED);
    assert_int_equal(found.info.entry.state.reason, REASON_VM_EXITED);
    assert_true(has_folder(f, &id));
    destroy_ok(f, &id);
    assert_nothing_left(f, &id);
}

static void vm_whose_slot_is_broken_is_stopped(void **state)
{
    struct fixture *f = *state;
    struct sandbox_id id = create_ok(f);
    leave_life(f);
    fakes.slots_lost = true;
    open_life(f);
    assert_int_equal(look(f, &id).info.entry.state.status, SANDBOX_STOPPED);
    assert_int_equal(fakes.vmms_running, 0);
    destroy_ok(f, &id);
    assert_nothing_left(f, &id);
}

static void power_cut_stops_and_keeps(void **state)
{
    struct fixture *f = *state;
    struct sandbox_id id = create_ok(f);
    struct found found;
    leave_life(f);
    fakes_power_cut();
    remove_run_files(f);
    open_life(f);
    found = look(f, &id);
    assert_int_equal(found.matches, 1);
    assert_int_equal(found.info.entry.state.status, SANDBOX_STOPPED);
    assert_int_equal(found.info.entry.state.reason, REASON_VM_EXITED);
    assert_true(found.info.entry.state.revision > 2); /* newer than what was reported */
    assert_int_equal(found.info.entry.memory_mb, 512);
    destroy_ok(f, &id);
    assert_nothing_left(f, &id);
}

/* The data folder's file system is not mounted when the agent starts, and is there again later. */
static void unmounted_folder_ends_no_vm(void **state)
{
    struct fixture *f = *state;
    struct sandbox_id id = create_ok(f);
    char here[160];
    char away[160];
    (void)snprintf(here, sizeof here, "%s/sandboxes", f->dir);
    (void)snprintf(away, sizeof away, "%s/elsewhere", f->root);
    leave_life(f);
    assert_int_equal(rename(here, away), 0);
    open_life(f);
    assert_int_equal(look(f, &id).n, 0);
    assert_int_equal(fakes.vmms_running, 1);
    assert_int_equal(fakes.slots_kept, 1);
    leave_life(f);
    assert_int_equal(rmdir(here), 0);
    assert_int_equal(rename(away, here), 0);
    open_life(f);
    assert_int_equal(look(f, &id).info.entry.state.status, SANDBOX_RUNNING);
    destroy_ok(f, &id);
    assert_nothing_left(f, &id);
}

/* All of the data folder is gone: another host id, and the number with the VMs is not taken. */
static void empty_data_folder_takes_another_instance(void **state)
{
    struct fixture *f = *state;
    struct sandbox_id id = create_ok(f);
    struct err e = {0};
    char away[160];
    char socket[160];
    (void)snprintf(away, sizeof away, "%s/elsewhere", f->root);
    (void)snprintf(socket, sizeof socket, "%s/0/%s.shim", f->run, id.text);
    write_text(f->run, "0/x.shim", ""); /* the real one is made by the shim */
    leave_life(f);
    assert_int_equal(rename(f->dir, away), 0);
    make_data(f);
    open_life(f);
    assert_int_equal(life_instance(f->life), 1);
    assert_int_equal(fakes.vmms_running, 1);
    assert_int_equal(life_close(f->life, &e), 0);
    assert_int_equal(io_remove_tree(AT_FDCWD, f->dir, &e), 0);
    assert_int_equal(rename(away, f->dir), 0);
    open_life(f);
    assert_int_equal(life_instance(f->life), 0);
    destroy_ok(f, &id);
    assert_nothing_left(f, &id);
}

/* What the two journals can say, and what must follow. */
static void recovery_is_decided_by_evidence(void **state)
{
    for (int status = -2; status < SANDBOX_STATUS_COUNT; status++)
        for (int run = -1; run < SANDBOX_STATUS_COUNT; run++) {
            struct machine_state s = {.status = (enum sandbox_status)(status < 0 ? 0 : status)};
            struct machine_state r = {.status = (enum sandbox_status)(run < 0 ? 0 : run)};
            enum recovery what =
                recover_decide(status < 0 ? NULL : &s, status == -2, run < 0 ? NULL : &r);
            if (status == -2)
                assert_int_equal(what, RECOVER_DAMAGED);
            /* Files go only on evidence that nobody was told. */
            if (what == RECOVER_UNDO)
                assert_true(status == -1 || run == SANDBOX_PENDING);
            if (what == RECOVER_ADOPT)
                assert_true(run > SANDBOX_PENDING);
            if (status == SANDBOX_STOPPED || status == SANDBOX_PAUSED)
                assert_int_equal(what, RECOVER_KEEP);
            if (status >= 0 && run < 0)
                assert_true(what == RECOVER_STOP || what == RECOVER_KEEP);
        }
}

static void folder_without_journal_goes_damaged_one_stays(void **state)
{
    struct fixture *f = *state;
    struct sandbox_id half;
    struct sandbox_id damaged;
    char path[256];
    struct err e = {0};
    sandbox_id_new(&half);
    sandbox_id_new(&damaged);
    (void)snprintf(path, sizeof path, "sandboxes/%s", half.text);
    make_folder(f->dir, path);
    (void)snprintf(path, sizeof path, "sandboxes/%s", damaged.text);
    make_folder(f->dir, path);
    (void)snprintf(path, sizeof path, "sandboxes/%s/state.json", damaged.text);
    write_text(f->dir, path, "{\"format\":99}");
    assert_int_equal(life_close(f->life, &e), 0);
    open_life(f);
    assert_false(has_folder(f, &half));
    assert_true(has_folder(f, &damaged));
    destroy_ok(f, &damaged);
    assert_false(has_folder(f, &damaged));
}

static void remove_generation(struct fixture *f, const char *text)
{
    char path[256];
    struct err e = {0};
    (void)snprintf(path, sizeof path, "%s/generations/%s", f->dir, text);
    assert_int_equal(io_remove_tree(AT_FDCWD, path, &e), 0);
}

/* Never booted afresh in its stead: that would look as if all had been well. */
static void sandbox_whose_generation_is_gone_sleeps_on(void **state)
{
    struct fixture *f = *state;
    struct sandbox_id id = create_ok(f);
    const struct life_resume r = resume_request(&id);
    struct life_info paused = pause_ok(f, &id);
    leave_life(f);
    remove_generation(f, paused.entry.generation);
    for (int i = 0; i < 2; i++) {
        open_life(f);
        assert_state(f, &id, SANDBOX_PAUSED, REASON_REQUESTED);
        assert_string_equal(look(f, &id).info.entry.generation, paused.entry.generation);
        assert_int_equal(resume_kind(f, &r), ERR_INTERNAL);
        assert_state(f, &id, SANDBOX_PAUSED, REASON_REQUESTED);
        assert_int_equal(fakes.boots_ever, 1);
        if (i == 0)
            leave_life(f);
    }
    destroy_ok(f, &id);
    assert_nothing_left(f, &id);
}

/* A template that cannot be read may need anything: nothing is collected. */
static void damaged_template_collects_nothing(void **state)
{
    struct fixture *f = *state;
    struct sandbox_id id = create_ok(f);
    struct snapshot s = snapshot_ok(f, &id);
    char name[64];
    char path[256];
    (void)snprintf(name, sizeof name, "templates/%s.json", s.id.text);
    destroy_ok(f, &id);
    leave_life(f);
    write_text(f->dir, name, "{}");
    open_life(f);
    assert_int_equal(count_files(f, "generations"), 1);
    assert_int_equal(count_files(f, "blobs"), 6);
    leave_life(f);
    (void)snprintf(path, sizeof path, "%s/%s", f->dir, name);
    assert_int_equal(unlink(path), 0);
    open_life(f);
    assert_nothing_left(f, &id);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        LIFE_TEST(restart_adopts_what_runs),
        LIFE_TEST(adopted_vm_that_dies_is_noticed),
        LIFE_TEST(vm_whose_slot_is_broken_is_stopped),
        LIFE_TEST(power_cut_stops_and_keeps),
        LIFE_TEST(unmounted_folder_ends_no_vm),
        LIFE_TEST(empty_data_folder_takes_another_instance),
        cmocka_unit_test(recovery_is_decided_by_evidence),
        LIFE_TEST(folder_without_journal_goes_damaged_one_stays),
        LIFE_TEST(sandbox_whose_generation_is_gone_sleeps_on),
        LIFE_TEST(damaged_template_collects_nothing),
    };
    return cmocka_run_group_tests_name("life/recover", tests, NULL, NULL);
}
