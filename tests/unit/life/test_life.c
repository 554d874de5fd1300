/* SPDX-License-Identifier: Apache-2.0 */
/* The life of sandboxes with faked mechanisms: nothing is left, nothing is lost. */
#include <pthread.h>
#include <string.h>

#include "fixture.h"
#include "rpc/agent_v1.h"

static void create_then_destroy_leaves_nothing(void **state)
{
    struct fixture *f = *state;
    struct sandbox_id id = create_ok(f);
    struct found found = look(f, &id);
    assert_int_equal(found.matches, 1);
    assert_string_equal(found.info.host_ip, "10.11.0.2");
    assert_int_equal(found.info.entry.state.revision, 2);
    assert_true(has_folder(f, &id));
    destroy_ok(f, &id);
    assert_nothing_left(f, &id);
    destroy_ok(f, &id); /* again */
}

/* One group: the disk's file, the journal's, their folder. A destroy makes durable that there is no
 * journal. */
static void create_costs_one_group_of_syncs(void **state)
{
    struct fixture *f = *state;
    struct sandbox_id id;
    sandbox_syncs = 0;
    id = create_ok(f);
    assert_int_equal(sandbox_syncs, 3);
    destroy_ok(f, &id);
    assert_int_equal(sandbox_syncs, 4);
}

static void failure_of_each_resource_leaves_nothing(void **state)
{
    static const enum fake_call calls[] = {
        FAKE_OVERLAY, FAKE_SLOT, FAKE_VMM, FAKE_READY, FAKE_INIT};
    struct fixture *f = *state;
    for (size_t i = 0; i < sizeof calls / sizeof *calls; i++) {
        struct life_create c = request();
        struct life_info info;
        struct err e = {0};
        struct sandbox_id next;
        fakes.fail = calls[i];
        assert_int_equal(life_create(f->life, &c, &info, &e), -1);
        /* The host's ENOENT is no 404, and its paths are nobody's business. */
        assert_int_equal(e.kind, ERR_INTERNAL);
        assert_null(strstr(e.msg, "/secret"));
        fakes.fail = FAKE_NONE;
        assert_nothing_left(f, &c.id);
        next = create_ok(f);
        destroy_ok(f, &next);
    }
}

static void bad_requests_make_nothing(void **state)
{
    static const struct {
        const char *template;
        int32_t vcpus;
        int32_t memory_mb;
        int32_t timeout_sec;
        enum err_kind kind;
        const char *where;
    } bad[] = {
        {"unknown", 1, 512, 0, ERR_NOT_FOUND, ""},
        {"../../etc", 1, 512, 0, ERR_INVALID, "template"},
        {"", 1, 512, 0, ERR_INVALID, "template"},
        {"minimal", 0, 512, 0, ERR_INVALID, "vcpus"},
        {"minimal", 33, 512, 0, ERR_INVALID, "vcpus"},
        {"minimal", 1, 127, 0, ERR_INVALID, "memory_mb"},
        {"minimal", 1, 65537, 0, ERR_INVALID, "memory_mb"},
        {"minimal", 1, 512, -1, ERR_INVALID, "timeout_sec"},
        {"minimal", 1, 512, 2592001, ERR_INVALID, "timeout_sec"},
    };
    struct fixture *f = *state;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct life_create c = request();
        struct life_info info;
        struct err e = {0};
        c.template = slice_cstr(bad[i].template);
        c.vcpus = bad[i].vcpus;
        c.memory_mb = bad[i].memory_mb;
        c.timeout_sec = bad[i].timeout_sec;
        assert_int_equal(life_create(f->life, &c, &info, &e), -1);
        assert_int_equal(e.kind, bad[i].kind);
        assert_string_equal(e.where, bad[i].where);
        assert_nothing_left(f, &c.id);
    }
    assert_int_equal(fakes.slots_acquired_ever, 0);
}

static void no_slot_and_no_memory_are_no_capacity(void **state)
{
    struct fixture *f = *state;
    struct sandbox_id ids[4];
    struct life_create c = request();
    struct life_info info;
    struct err e = {0};
    c.memory_mb = 4097;
    assert_int_equal(life_create(f->life, &c, &info, &e), -1);
    assert_int_equal(e.kind, ERR_NO_CAPACITY);
    for (int i = 0; i < 4; i++)
        ids[i] = create_ok(f);
    c = request();
    assert_int_equal(life_create(f->life, &c, &info, &e), -1);
    assert_int_equal(e.kind, ERR_NO_CAPACITY);
    assert_false(has_folder(f, &c.id));
    for (int i = 0; i < 4; i++)
        destroy_ok(f, &ids[i]);
    assert_nothing_left(f, &c.id);
}

static void same_request_gives_the_same_answer(void **state)
{
    struct fixture *f = *state;
    struct life_create c = request();
    struct life_info first;
    struct life_info again;
    struct err e = {0};
    c.request_id = SLICE_LIT("request-1");
    assert_int_equal(life_create(f->life, &c, &first, &e), 0);
    assert_int_equal(life_create(f->life, &c, &again, &e), 0);
    assert_int_equal(first.entry.state.revision, again.entry.state.revision);
    assert_int_equal(fakes.slots_acquired_ever, 1);
    c.request_id = SLICE_LIT("request-2");
    assert_int_equal(life_create(f->life, &c, &again, &e), -1);
    assert_int_equal(e.kind, ERR_EXISTS);
    destroy_ok(f, &c.id);
}

static void vm_that_dies_is_stopped_and_keeps_its_files(void **state)
{
    struct fixture *f = *state;
    struct sandbox_id id = create_ok(f);
    struct agent_exec_request req = {.cmd = SLICE_LIT("true")};
    struct agent_exec_response resp = {0};
    struct buf out = BUF_INIT(100);
    struct err e = {0};
    struct found found;
    fakes_kill_newest_vmm();
    assert_int_equal(fakes_wait_stop(), 0);
    found = look(f, &id);
    assert_int_equal(found.info.entry.state.status, SANDBOX_STOPPED);
    assert_int_equal(found.info.entry.state.reason, REASON_VM_EXITED);
    assert_string_equal(found.info.entry.message, "qemu killed by SIGKILL");
    assert_string_equal(found.info.host_ip, "");
    assert_true(has_folder(f, &id));
    assert_int_equal(life_exec(f->life, &id, &req, &out, &out, &resp, &e), -1);
    assert_int_equal(e.kind, ERR_BAD_STATE);
    destroy_ok(f, &id);
    assert_nothing_left(f, &id);
}

static void closing_puts_to_sleep(void **state)
{
    struct fixture *f = *state;
    struct sandbox_id id = create_ok(f);
    struct err e = {0};
    assert_int_equal(life_close(f->life, &e), 0);
    assert_int_equal(fakes.vmms_running, 0);
    open_life(f);
    assert_int_equal(look(f, &id).info.entry.state.status, SANDBOX_PAUSED);
    destroy_ok(f, &id);
    assert_nothing_left(f, &id);
}

static void failed_destroy_is_said_and_can_be_repeated(void **state)
{
    static const enum fake_call calls[] = {FAKE_VMM_STOP, FAKE_SLOT_RELEASE};
    struct fixture *f = *state;
    for (size_t i = 0; i < 2; i++) {
        struct sandbox_id id = create_ok(f);
        struct err e = {0};
        uint64_t revision;
        fakes.fail = calls[i];
        assert_int_equal(life_destroy(f->life, &id, 0, &revision, &e), -1);
        assert_int_equal(e.kind, ERR_INTERNAL);
        assert_int_equal(look(f, &id).matches, 1);
        fakes.fail = FAKE_NONE;
        destroy_ok(f, &id);
        assert_nothing_left(f, &id);
    }
}

static void destroy_of_another_revision_is_a_conflict(void **state)
{
    struct fixture *f = *state;
    struct sandbox_id id = create_ok(f);
    struct err e = {0};
    uint64_t revision;
    assert_int_equal(life_destroy(f->life, &id, 99, &revision, &e), -1);
    assert_int_equal(e.kind, ERR_CONFLICT);
    assert_int_equal(life_destroy(f->life, &id, 2, &revision, &e), 0);
    assert_int_equal(revision, 3);
}

static void list_since_a_revision_gives_what_changed(void **state)
{
    struct fixture *f = *state;
    struct sandbox_id first = create_ok(f);
    struct life_summary before = {0};
    struct life_summary after = {0};
    struct found found = {.id = &first};
    struct sandbox_id second;
    struct err e = {0};
    assert_int_equal(life_list(f->life, 0, find_each, &found, &before, &e), 0);
    second = create_ok(f);
    found = (struct found){.id = &second};
    assert_int_equal(life_list(f->life, before.host_revision, find_each, &found, &after, &e), 0);
    assert_int_equal(found.n, 1);
    assert_int_equal(found.matches, 1);
    assert_true(after.host_revision > before.host_revision);
    destroy_ok(f, &first);
    destroy_ok(f, &second);
}

static void forgotten_create_makes_lists_full(void **state)
{
    struct fixture *f = *state;
    struct sandbox_id id = create_ok(f);
    struct life_summary before = {0};
    struct life_summary after = {0};
    struct found found = {0};
    struct life_create c = request();
    struct life_info info;
    struct err e = {0};
    assert_int_equal(life_list(f->life, 0, find_each, &found, &before, &e), 0);
    assert_true(before.full);
    assert_int_equal(life_list(f->life, before.host_revision, find_each, &found, &after, &e), 0);
    assert_false(after.full);
    fakes.fail = FAKE_READY;
    assert_int_equal(life_create(f->life, &c, &info, &e), -1);
    fakes.fail = FAKE_NONE;
    found = (struct found){.id = &id};
    assert_int_equal(life_list(f->life, before.host_revision, find_each, &found, &after, &e), 0);
    assert_true(after.full);
    assert_int_equal(found.n, 1);
    assert_int_equal(found.matches, 1);
    assert_int_equal(life_list(f->life, after.host_revision, find_each, &found, &after, &e), 0);
    assert_false(after.full);
    destroy_ok(f, &id);
}

static void calls_into_a_guest(void **state)
{
    struct fixture *f = *state;
    struct sandbox_id id = create_ok(f);
    struct agent_exec_request req = {.cmd = SLICE_LIT("echo")};
    struct agent_exec_response resp = {0};
    struct buf out = BUF_INIT(100);
    struct err e = {0};
    struct life_info info;
    int64_t active;
    assert_int_equal(life_exec(f->life, &id, &req, &out, &out, &resp, &e), 0);
    assert_true(slice_is(resp.stdout_bytes, "echo"));
    req.cmd = (struct slice){0};
    assert_int_equal(life_exec(f->life, &id, &req, &out, &out, &resp, &e), -1);
    assert_string_equal(e.where, "cmd");
    req.cmd = SLICE_LIT("true");
    req.timeout_sec = 3601;
    assert_int_equal(life_exec(f->life, &id, &req, &out, &out, &resp, &e), -1);
    assert_string_equal(e.where, "timeout_sec");
    /* A broken guest is an agent error without addresses. */
    assert_int_equal(life_read_file(f->life, &id, SLICE_LIT("/x"), SLICE_LIT(""), &out, &e), -1);
    assert_int_equal(e.kind, ERR_AGENT);
    assert_null(strstr(e.msg, "10.11"));
    assert_int_equal(life_ping(f->life, &id, &active, &e), 0);
    assert_true(active > 1600000000000);
    assert_int_equal(life_set_timeout(f->life, &id, 90, &info, &e), 0);
    assert_int_equal(info.entry.timeout_sec, 90);
    assert_int_equal(life_set_timeout(f->life, &id, -1, &info, &e), -1);
    buf_done(&out);
    destroy_ok(f, &id);
    assert_int_equal(life_ping(f->life, &id, &active, &e), -1);
    assert_int_equal(e.kind, ERR_NOT_FOUND);
}

struct worker {
    struct fixture *f;
    struct sandbox_id id;
    int rc;
};

static void *destroy_worker(void *arg)
{
    struct worker *w = arg;
    struct err e = {0};
    uint64_t revision;
    w->rc = life_destroy(w->f->life, &w->id, 0, &revision, &e);
    return NULL;
}

static void destroys_at_once_agree(void **state)
{
    struct fixture *f = *state;
    for (int round = 0; round < 20; round++) {
        struct worker w[4];
        pthread_t t[4];
        struct sandbox_id id = create_ok(f);
        if (round % 2)
            fakes_kill_newest_vmm(); /* the monitor wants it too */
        for (int i = 0; i < 4; i++) {
            w[i] = (struct worker){.f = f, .id = id, .rc = -1};
            assert_int_equal(pthread_create(&t[i], NULL, destroy_worker, &w[i]), 0);
        }
        for (int i = 0; i < 4; i++) {
            assert_int_equal(pthread_join(t[i], NULL), 0);
            assert_int_equal(w[i].rc, 0);
        }
        assert_nothing_left(f, &id);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        LIFE_TEST(create_then_destroy_leaves_nothing),
        LIFE_TEST(create_costs_one_group_of_syncs),
        LIFE_TEST(failure_of_each_resource_leaves_nothing),
        LIFE_TEST(bad_requests_make_nothing),
        LIFE_TEST(no_slot_and_no_memory_are_no_capacity),
        LIFE_TEST(same_request_gives_the_same_answer),
        LIFE_TEST(vm_that_dies_is_stopped_and_keeps_its_files),
        LIFE_TEST(closing_puts_to_sleep),
        LIFE_TEST(failed_destroy_is_said_and_can_be_repeated),
        LIFE_TEST(destroy_of_another_revision_is_a_conflict),
        LIFE_TEST(list_since_a_revision_gives_what_changed),
        LIFE_TEST(forgotten_create_makes_lists_full),
        LIFE_TEST(calls_into_a_guest),
        LIFE_TEST(destroys_at_once_agree),
    };
    return cmocka_run_group_tests_name("life", tests, NULL, NULL);
}
