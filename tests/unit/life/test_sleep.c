/* SPDX-License-Identifier: Apache-2.0 */
/* Pause, resume: what works, and what each failure leaves. */
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/io.h"
#include "fixture.h"

/* Everything in the folders of generations: a failure must leave what was there. */
struct kept {
    int blobs;
    int generations;
};

static struct kept kept_now(struct fixture *f)
{
    return (struct kept){count_files(f, "blobs"), count_files(f, "generations")};
}

static void assert_kept(struct fixture *f, struct kept before)
{
    assert_int_equal(count_files(f, "blobs"), before.blobs);
    assert_int_equal(count_files(f, "generations"), before.generations);
}

static void kill_vm(struct fixture *f, const struct sandbox_id *id)
{
    fakes_forget_stops();
    fakes_kill_newest_vmm();
    assert_int_equal(fakes_wait_stop(), 0);
    assert_state(f, id, SANDBOX_STOPPED, REASON_VM_EXITED);
    assert_int_equal(pause_kind(f, id), ERR_BAD_STATE); /* waits until its resources are free */
}

static void sleeps_and_wakes_where_it_was(void **state)
{
    struct fixture *f = *state;
    struct sandbox_id id = create_ok(f);
    struct life_info paused;
    assert_int_equal(count_in(f, &id), 1);
    paused = pause_ok(f, &id);
    assert_int_equal(paused.entry.state.reason, REASON_REQUESTED);
    assert_string_equal(paused.host_ip, "");
    assert_int_equal(fakes.vmms_running, 0);
    assert_int_equal(fakes.slots_taken, 0);
    assert_int_equal(count_files(f, "generations"), 1);
    assert_int_equal(count_files(f, "blobs"), 6); /* memory, state, disk; each with its sums */
    assert_false(has_file(f, &id, "disk.qcow2"));
    assert_int_equal(exec_kind(f, &id), ERR_BAD_STATE);
    (void)resume_ok(f, &id);
    assert_string_equal(fakes.woken_with, fakes.secret);
    assert_true(fakes.keeps_names);
    assert_int_equal(count_in(f, &id), 2);
    assert_int_equal(fakes.boots_ever, 1);
    (void)pause_ok(f, &id);
    assert_int_equal(count_files(f, "generations"), 1); /* the one before has gone */
    (void)resume_ok(f, &id);
    assert_int_equal(count_in(f, &id), 3);
    destroy_ok(f, &id);
    assert_nothing_left(f, &id);
}

/* What a pause must make durable, and no more: for the generation a file and its sums of memory,
 * state and disk, map, manifest, layout, secret and three folders; for the commit the journal and
 * its folder. */
static void syncs_are_counted(void **state)
{
    struct fixture *f = *state;
    struct sandbox_id id = create_ok(f);
    sandbox_syncs = data_syncs = 0;
    (void)pause_ok(f, &id);
    assert_int_equal(sandbox_syncs, 3); /* the disk's file has its name here too */
    assert_int_equal(data_syncs, 15);
    sandbox_syncs = data_syncs = 0;
    (void)resume_ok(f, &id);
    assert_int_equal(sandbox_syncs, 3); /* the disk is new */
    assert_int_equal(data_syncs, 3);
    destroy_ok(f, &id);
}

static void failed_pause_runs_on(void **state)
{
    static const enum fake_call calls[] = {
        FAKE_PREPARE, FAKE_PAUSE, FAKE_SAVE_STATE, FAKE_SAVE_MEMORY};
    struct fixture *f = *state;
    for (size_t slept = 0; slept < 2; slept++) {
        struct sandbox_id id = create_ok(f);
        struct kept before;
        if (slept) {
            (void)pause_ok(f, &id);
            (void)resume_ok(f, &id);
        }
        before = kept_now(f);
        for (size_t i = 0; i < ARRAY_LEN(calls); i++) {
            fakes.fail = calls[i];
            assert_int_equal(pause_kind(f, &id), ERR_INTERNAL);
            fakes.fail = FAKE_NONE;
            assert_state(f, &id, SANDBOX_RUNNING, REASON_PAUSE_FAILED);
            assert_int_equal(fakes.vcpus_stand, 0);
            assert_int_equal(count_in(f, &id), (int)i + 1); /* it was opened with its secret */
            assert_kept(f, before);
        }
        (void)pause_ok(f, &id);
        (void)resume_ok(f, &id);
        assert_int_equal(count_in(f, &id), (int)ARRAY_LEN(calls) + 1);
        kill_vm(f, &id); /* and its end is noticed again */
        destroy_ok(f, &id);
        assert_nothing_left(f, &id);
    }
}

/* Makes the journal of a sandbox unwritable, or writable again. */
static void block_journal(struct fixture *f, const struct sandbox_id *id, bool blocked)
{
    char name[64];
    char from[256];
    char to[256];
    struct err e = {0};
    (void)snprintf(name, sizeof name, "sandboxes/%s/state.json/x", id->text);
    (void)snprintf(from, sizeof from, "%s/sandboxes/%s/state.json", f->dir, id->text);
    (void)snprintf(to, sizeof to, "%s/state.json", f->root);
    if (blocked) {
        assert_int_equal(rename(from, to), 0);
        make_folder(f->dir, name);
    } else {
        assert_int_equal(io_remove_tree(AT_FDCWD, from, &e), 0);
        assert_int_equal(rename(to, from), 0);
    }
}

/* The generation is durable and the journal that names it is not: the pause did not happen. */
static void failed_commit_runs_on(void **state)
{
    struct fixture *f = *state;
    struct sandbox_id id = create_ok(f);
    struct kept before = kept_now(f);
    char here[256];
    char away[256];
    block_journal(f, &id, true);
    assert_int_equal(pause_kind(f, &id), ERR_INTERNAL);
    block_journal(f, &id, false);
    assert_state(f, &id, SANDBOX_RUNNING, REASON_PAUSE_FAILED);
    assert_int_equal(count_in(f, &id), 1);
    (void)snprintf(here, sizeof here, "%s/sandboxes/%s/disk.qcow2", f->dir, id.text);
    (void)snprintf(away, sizeof away, "%s/disk.qcow2", f->root);
    assert_int_equal(rename(here, away), 0); /* what cannot be linked */
    assert_int_equal(pause_kind(f, &id), ERR_INTERNAL);
    assert_int_equal(rename(away, here), 0);
    assert_kept(f, before);
    assert_int_equal(count_in(f, &id), 2);
    (void)pause_ok(f, &id);
    block_journal(f, &id, true);
    {
        const struct life_resume r = resume_request(&id);
        assert_int_equal(resume_kind(f, &r), ERR_INTERNAL);
    }
    block_journal(f, &id, false);
    assert_state(f, &id, SANDBOX_PAUSED, REASON_RESTORE_FAILED);
    assert_int_equal(fakes.vmms_running, 0);
    (void)resume_ok(f, &id);
    assert_int_equal(count_in(f, &id), 3);
    destroy_ok(f, &id);
    assert_nothing_left(f, &id);
}

/* Of a write that failed nobody knows whether it is on the disk: the generation that it names stays
 * until another one has worked. */
static void doubtful_commit_keeps_its_generation(void **state)
{
    struct fixture *f = *state;
    struct sandbox_id id = create_ok(f);
    struct kept before;
    assert_int_equal(count_in(f, &id), 1);
    (void)pause_ok(f, &id);
    (void)resume_ok(f, &id);
    assert_int_equal(count_in(f, &id), 2);
    before = kept_now(f);
    folder_syncs_fail = true;
    assert_int_equal(pause_kind(f, &id), ERR_INTERNAL);
    assert_int_equal(pause_kind(f, &id), ERR_INTERNAL); /* not before it is known what is there */
    folder_syncs_fail = false;
    assert_state(f, &id, SANDBOX_RUNNING, REASON_PAUSE_FAILED);
    assert_int_equal(count_files(f, "generations"), 2);
    fakes.fail = FAKE_SAVE_STATE;
    assert_int_equal(pause_kind(f, &id), ERR_INTERNAL);
    fakes.fail = FAKE_NONE;
    assert_kept(f, before); /* now it is, and that one has gone */
    assert_int_equal(count_in(f, &id), 3);
    (void)pause_ok(f, &id);
    (void)resume_ok(f, &id);
    assert_int_equal(count_in(f, &id), 4);
    destroy_ok(f, &id);
    assert_nothing_left(f, &id);
}

static void fail_both(enum fake_call call, enum fake_call too)
{
    fakes.fail = call;
    fakes.fail_too = too;
}

/* The guest cannot be opened after a pause that failed; the next pause takes it along as it is. */
static void guest_that_stays_locked_sleeps_with_its_secret(void **state)
{
    struct fixture *f = *state;
    struct sandbox_id id = create_ok(f);
    assert_int_equal(count_in(f, &id), 1);
    fail_both(FAKE_SAVE_STATE, FAKE_INIT);
    assert_int_equal(pause_kind(f, &id), ERR_INTERNAL);
    fail_both(FAKE_NONE, FAKE_NONE);
    assert_state(f, &id, SANDBOX_RUNNING, REASON_PAUSE_FAILED);
    assert_int_equal(exec_kind(f, &id), ERR_AGENT);
    leave_life(f); /* the next agent knows the secret, and tries again */
    open_life(f);
    assert_int_equal(count_in(f, &id), 2);
    fail_both(FAKE_SAVE_STATE, FAKE_INIT);
    assert_int_equal(pause_kind(f, &id), ERR_INTERNAL);
    fail_both(FAKE_NONE, FAKE_NONE);
    (void)pause_ok(f, &id);
    (void)resume_ok(f, &id);
    assert_int_equal(count_in(f, &id), 3);
    destroy_ok(f, &id);
    assert_nothing_left(f, &id);
}

static void vm_gone_in_a_pause_is_stopped(void **state)
{
    struct fixture *f = *state;
    struct sandbox_id id = create_ok(f);
    struct life_resume r = resume_request(&id);
    struct kept before;
    (void)pause_ok(f, &id);
    (void)resume_ok(f, &id);
    assert_int_equal(count_in(f, &id), 1);
    before = kept_now(f);
    fail_both(FAKE_SAVE_MEMORY, FAKE_RUN);
    assert_int_equal(pause_kind(f, &id), ERR_INTERNAL);
    fail_both(FAKE_NONE, FAKE_NONE);
    assert_state(f, &id, SANDBOX_STOPPED, REASON_VM_EXITED);
    assert_int_equal(fakes.vmms_running, 0);
    assert_int_equal(fakes.slots_taken, 0);
    assert_kept(f, before);
    r.from_last = true;
    assert_int_equal(resume_kind(f, &r), ERR_NONE);
    assert_int_equal(count_in(f, &id), 1); /* as it was then */
    destroy_ok(f, &id);
    assert_nothing_left(f, &id);
}

static void states_are_checked(void **state)
{
    struct fixture *f = *state;
    struct sandbox_id id = create_ok(f);
    struct sandbox_id nobody;
    struct life_resume r = resume_request(&id);
    sandbox_id_new(&nobody);
    assert_int_equal(resume_kind(f, &r), ERR_BAD_STATE);
    assert_int_equal(pause_kind(f, &nobody), ERR_NOT_FOUND);
    (void)pause_ok(f, &id);
    assert_int_equal(pause_kind(f, &id), ERR_BAD_STATE);
    r.change.expected_revision = 1;
    assert_int_equal(resume_kind(f, &r), ERR_CONFLICT);
    assert_state(f, &id, SANDBOX_PAUSED, REASON_REQUESTED);
    r.change.expected_revision = look(f, &id).info.entry.state.revision;
    r.has_timeout_sec = true;
    r.timeout_sec = -1;
    assert_int_equal(resume_kind(f, &r), ERR_INVALID);
    r.timeout_sec = 77;
    assert_int_equal(resume_kind(f, &r), ERR_NONE);
    assert_int_equal(look(f, &id).info.entry.timeout_sec, 77);
    destroy_ok(f, &id);
}

static void same_request_gives_the_same_answer(void **state)
{
    struct fixture *f = *state;
    struct sandbox_id id = create_ok(f);
    struct life_change c = {.id = id, .request_id = SLICE_LIT("pause-1")};
    struct life_resume r = {.change = {.id = id, .request_id = SLICE_LIT("resume-1")}};
    struct life_info first;
    struct life_info again;
    struct phases phases;
    struct err e = {0};
    assert_int_equal(life_pause(f->life, &c, &first, &phases, &e), 0);
    assert_int_equal(life_pause(f->life, &c, &again, &phases, &e), 0);
    assert_int_equal(first.entry.state.revision, again.entry.state.revision);
    c.request_id = SLICE_LIT("pause-2");
    assert_int_equal(life_pause(f->life, &c, &again, &phases, &e), -1);
    assert_int_equal(e.kind, ERR_BAD_STATE);
    assert_int_equal(life_resume(f->life, &r, &first, &phases, &e), 0);
    assert_int_equal(life_resume(f->life, &r, &again, &phases, &e), 0);
    assert_int_equal(first.entry.state.revision, again.entry.state.revision);
    r.change.request_id = SLICE_LIT("resume-2");
    assert_int_equal(life_resume(f->life, &r, &again, &phases, &e), -1);
    assert_int_equal(e.kind, ERR_BAD_STATE);
    destroy_ok(f, &id);
}

static void failed_resume_sleeps_on(void **state)
{
    static const enum fake_call calls[] = {
        FAKE_OVERLAY, FAKE_SLOT, FAKE_VMM, FAKE_LOAD, FAKE_RUN, FAKE_WAKE};
    struct fixture *f = *state;
    struct sandbox_id id = create_ok(f);
    struct life_resume r = resume_request(&id);
    struct life_info paused;
    struct kept before;
    r.has_timeout_sec = true;
    r.timeout_sec = 99;
    assert_int_equal(count_in(f, &id), 1);
    paused = pause_ok(f, &id);
    for (size_t i = 0; i < ARRAY_LEN(calls); i++) {
        before = kept_now(f);
        fakes.fail = calls[i];
        assert_int_equal(resume_kind(f, &r), ERR_INTERNAL);
        fakes.fail = FAKE_NONE;
        assert_state(f, &id, SANDBOX_PAUSED, REASON_RESTORE_FAILED);
        assert_string_equal(look(f, &id).info.entry.generation, paused.entry.generation);
        assert_int_equal(look(f, &id).info.entry.timeout_sec, paused.entry.timeout_sec);
        assert_int_equal(fakes.vmms_running, 0);
        assert_int_equal(fakes.slots_taken, 0);
        assert_kept(f, before);
        (void)resume_ok(f, &id);
        assert_int_equal(count_in(f, &id), (int)i + 2);
        paused = pause_ok(f, &id);
    }
    destroy_ok(f, &id);
    assert_nothing_left(f, &id);
}

static void refused_resume_touches_nothing(void **state)
{
    struct fixture *f = *state;
    struct sandbox_id id = create_ok(f);
    struct life_resume r = resume_request(&id);
    struct life_info before = pause_ok(f, &id);
    int syncs = data_syncs;
    fakes.fail = FAKE_CAN_RESTORE;
    assert_int_equal(resume_kind(f, &r), ERR_BAD_STATE);
    assert_int_equal(data_syncs, syncs);
    assert_state(f, &id, SANDBOX_PAUSED, REASON_REQUESTED);
    assert_int_equal(look(f, &id).info.entry.state.revision, before.entry.state.revision);
    assert_int_equal(fakes.slots_acquired_ever, 1);
    r.disk_only = true; /* its disk can still be booted */
    assert_int_equal(resume_kind(f, &r), ERR_NONE);
    assert_int_equal(fakes.boots_ever, 2);
    fakes.fail = FAKE_NONE;
    assert_int_equal(count_in(f, &id), 1);
    (void)pause_ok(f, &id);
    (void)resume_ok(f, &id);
    assert_int_equal(count_in(f, &id), 2);
    destroy_ok(f, &id);
    assert_nothing_left(f, &id);
}

/* --- stopped ones --- */

static void stopped_one_is_started_as_asked(void **state)
{
    struct fixture *f = *state;
    struct sandbox_id id = create_ok(f);
    struct life_resume r = resume_request(&id);
    kill_vm(f, &id);
    assert_int_equal(resume_kind(f, &r), ERR_BAD_STATE);
    r.from_last = true;
    assert_int_equal(resume_kind(f, &r), ERR_BAD_STATE); /* it has none */
    r = resume_request(&id);
    r.disk_only = true;
    assert_int_equal(resume_kind(f, &r), ERR_NONE);
    assert_state(f, &id, SANDBOX_RUNNING, REASON_RESTORED);
    assert_int_equal(fakes.boots_ever, 2);
    destroy_ok(f, &id);
    assert_nothing_left(f, &id);
}

/* Marks the overlay of a sandbox, so that it is known again. */
static void mark_disk(struct fixture *f, const struct sandbox_id *id, const char *text)
{
    char name[64];
    (void)snprintf(name, sizeof name, "sandboxes/%s/disk.qcow2", id->text);
    write_text(f->dir, name, text);
}

static bool disk_is(struct fixture *f, const struct sandbox_id *id, const char *name, const char *t)
{
    char path[256];
    char text[32] = "";
    FILE *file;
    (void)snprintf(path, sizeof path, "%s/sandboxes/%s/%s", f->dir, id->text, name);
    file = fopen(path, "re");
    if (!file)
        return false;
    (void)fgets(text, sizeof text, file);
    (void)fclose(file);
    return strcmp(text, t) == 0;
}

static void stopped_one_keeps_its_disk(void **state)
{
    struct fixture *f = *state;
    struct sandbox_id id = create_ok(f);
    struct life_resume disk = resume_request(&id);
    struct life_resume last = resume_request(&id);
    disk.disk_only = last.from_last = true;
    assert_int_equal(count_in(f, &id), 1);
    (void)pause_ok(f, &id);
    (void)resume_ok(f, &id);
    mark_disk(f, &id, "written");
    kill_vm(f, &id);
    assert_int_equal(resume_kind(f, &disk), ERR_NONE);
    assert_true(disk_is(f, &id, "disk.qcow2", "written"));
    assert_int_equal(count_in(f, &id), 1); /* its memory is new */
    kill_vm(f, &id);
    assert_int_equal(resume_kind(f, &last), ERR_NONE);
    assert_int_equal(count_in(f, &id), 2);
    assert_true(disk_is(f, &id, "before-restore/disk.qcow2", "written"));
    assert_true(disk_is(f, &id, "disk.qcow2", ""));
    destroy_ok(f, &id);
    assert_nothing_left(f, &id);
}

/* However often it is tried: the disk that nobody asked to go stays, and can still be booted. */
static void failed_restore_of_a_stopped_one_keeps_its_disk(void **state)
{
    static const enum fake_call calls[] = {FAKE_OVERLAY, FAKE_SLOT, FAKE_VMM, FAKE_LOAD, FAKE_WAKE};
    struct fixture *f = *state;
    struct sandbox_id id = create_ok(f);
    struct life_resume disk = resume_request(&id);
    struct life_resume last = resume_request(&id);
    disk.disk_only = last.from_last = true;
    (void)pause_ok(f, &id);
    (void)resume_ok(f, &id);
    mark_disk(f, &id, "written");
    kill_vm(f, &id);
    for (size_t i = 0; i < ARRAY_LEN(calls); i++) {
        fakes.fail = calls[i];
        assert_int_equal(resume_kind(f, &last), ERR_INTERNAL);
        fakes.fail = FAKE_NONE;
        assert_state(f, &id, SANDBOX_STOPPED, REASON_VM_EXITED);
    }
    assert_int_equal(resume_kind(f, &disk), ERR_NONE);
    assert_true(disk_is(f, &id, "disk.qcow2", "written"));
    kill_vm(f, &id);
    fakes.fail = FAKE_VMM;
    assert_int_equal(resume_kind(f, &disk), ERR_INTERNAL);
    fakes.fail = FAKE_NONE;
    assert_true(disk_is(f, &id, "disk.qcow2", "written"));
    assert_int_equal(resume_kind(f, &last), ERR_NONE);
    assert_true(disk_is(f, &id, "before-restore/disk.qcow2", "written"));
    destroy_ok(f, &id);
    assert_nothing_left(f, &id);
}

static void destroy_in_every_state_leaves_nothing(void **state)
{
    struct fixture *f = *state;
    for (int i = 0; i < 5; i++) {
        struct sandbox_id id = create_ok(f);
        struct life_resume r = resume_request(&id);
        if (i >= 1)
            (void)pause_ok(f, &id);
        if (i == 2) {
            fakes.fail = FAKE_LOAD;
            assert_int_equal(resume_kind(f, &r), ERR_INTERNAL);
            fakes.fail = FAKE_NONE;
        }
        if (i >= 3)
            (void)resume_ok(f, &id);
        if (i == 4)
            kill_vm(f, &id);
        destroy_ok(f, &id);
        assert_nothing_left(f, &id);
        destroy_ok(f, &id);
    }
}

/* --- all at once --- */

enum { CALLERS = 4, ROUNDS = 40 };

struct caller {
    struct fixture *f;
    struct sandbox_id id;
    unsigned seed;
    unsigned unexpected; /* answers of a kind that nobody should get */
};

static enum err_kind call_something(struct caller *c)
{
    const struct life_resume r = resume_request(&c->id);
    struct life_info info;
    struct err e = {0};
    int64_t active;
    switch (rand_r(&c->seed) % 6) {
    case 0:
        return pause_kind(c->f, &c->id);
    case 1:
    case 2:
        return resume_kind(c->f, &r);
    case 3:
        (void)life_ping(c->f->life, &c->id, &active, &e);
        return e.kind;
    case 4:
        (void)life_set_timeout(c->f->life, &c->id, 60, &info, &e);
        return e.kind;
    default:
        return exec_kind(c->f, &c->id);
    }
}

static void *call_all(void *arg)
{
    struct caller *c = arg;
    for (int i = 0; i < ROUNDS; i++) {
        enum err_kind kind = call_something(c);
        /* A call that a pause meets may break, or be the last that is told apart by its state. */
        c->unexpected += kind != ERR_NONE && kind != ERR_BAD_STATE && kind != ERR_AGENT;
    }
    return NULL;
}

static void calls_of_all_kinds_at_once(void **state)
{
    struct fixture *f = *state;
    struct sandbox_id id = create_ok(f);
    struct caller callers[CALLERS];
    pthread_t threads[CALLERS];
    for (unsigned i = 0; i < CALLERS; i++) {
        callers[i] = (struct caller){.f = f, .id = id, .seed = i + 1};
        assert_int_equal(pthread_create(&threads[i], NULL, call_all, &callers[i]), 0);
    }
    for (unsigned i = 0; i < CALLERS; i++) {
        assert_int_equal(pthread_join(threads[i], NULL), 0);
        assert_int_equal(callers[i].unexpected, 0);
    }
    if (look(f, &id).info.entry.state.status == SANDBOX_PAUSED)
        (void)resume_ok(f, &id);
    assert_int_equal(count_in(f, &id), 1);
    destroy_ok(f, &id);
    assert_nothing_left(f, &id);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        LIFE_TEST(sleeps_and_wakes_where_it_was),
        LIFE_TEST(syncs_are_counted),
        LIFE_TEST(failed_pause_runs_on),
        LIFE_TEST(failed_commit_runs_on),
        LIFE_TEST(doubtful_commit_keeps_its_generation),
        LIFE_TEST(guest_that_stays_locked_sleeps_with_its_secret),
        LIFE_TEST(vm_gone_in_a_pause_is_stopped),
        LIFE_TEST(states_are_checked),
        LIFE_TEST(same_request_gives_the_same_answer),
        LIFE_TEST(failed_resume_sleeps_on),
        LIFE_TEST(refused_resume_touches_nothing),
        LIFE_TEST(stopped_one_is_started_as_asked),
        LIFE_TEST(stopped_one_keeps_its_disk),
        LIFE_TEST(failed_restore_of_a_stopped_one_keeps_its_disk),
        LIFE_TEST(destroy_in_every_state_leaves_nothing),
        LIFE_TEST(calls_of_all_kinds_at_once),
    };
    return cmocka_run_group_tests_name("life/sleep", tests, NULL, NULL);
}
