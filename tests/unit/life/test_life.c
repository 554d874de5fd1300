/* SPDX-License-Identifier: Apache-2.0 */
/* The life of sandboxes with faked mechanisms: nothing is left, nothing is lost. */
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "agent/life/life.h"
#include "agent/life/life_int.h"
#include "base/io.h"
#include "fakes.h"
#include "rpc/agent_v1.h"

/* Counts what is made durable of sandboxes; the linker puts this in fsync's place. */
static int sandbox_syncs;
int __wrap_fsync(int fd);
int __real_fsync(int fd);
int __wrap_fsync(int fd)
{
    char link_path[64];
    char path[512] = "";
    (void)snprintf(link_path, sizeof link_path, "/proc/self/fd/%d", fd);
    if (readlink(link_path, path, sizeof path - 1) > 0 && strstr(path, "/sandboxes/"))
        sandbox_syncs++;
    return __real_fsync(fd);
}

struct fixture {
    char root[64];
    char dir[96];
    char run[96];
    struct life *life;
    bool warm; /* base templates start warm */
};

static void write_file(const char *dir, const char *name, const char *text)
{
    char path[256];
    struct err e = {0};
    (void)snprintf(path, sizeof path, "%s/%s", dir, name);
    assert_int_equal(io_replace_file(AT_FDCWD, path, text, strlen(text), 0644, &e), 0);
}

static void make_folder(const char *dir, const char *name)
{
    char path[256];
    struct err e = {0};
    (void)snprintf(path, sizeof path, "%s/%s", dir, name);
    assert_int_equal(io_mkdir_p(path, 0755, &e), 0);
}

static void open_life(struct fixture *f)
{
    struct err e = {0};
    f->life = life_open(&(struct life_config){.dir = f->dir,
                            .run_base = f->run,
                            .shim = "/bin/false",
                            .self = "/bin/false",
                            .accel = "tcg",
                            .net_range = "10.11.0.0/16",
                            .uid_base = 100000,
                            .slots = 4,
                            .memory_mb = 4096,
                            .no_warm = !f->warm},
        &e);
    if (!f->life)
        fail_msg("life_open: %s", e.msg);
}

static void make_data(struct fixture *f)
{
    char link_path[160];
    make_folder(f->dir, "kernels/current");
    write_file(f->dir, "kernels/current/vmlinux", "kernel");
    write_file(f->dir, "kernels/current/initrd", "initrd");
    make_folder(f->dir, "images/0123");
    write_file(f->dir, "images/0123/rootfs.img", "image");
    write_file(f->dir, "images/0123/manifest.json",
        "{\"name\":\"minimal\",\"digest\":\"0123\",\"size_bytes\":1048576,\"default_user\":"
        "\"root\"}");
    (void)snprintf(link_path, sizeof link_path, "%s/images/minimal", f->dir);
    assert_int_equal(symlink("0123", link_path), 0);
}

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);
    fakes_reset();
    (void)snprintf(f->root, sizeof f->root, "/tmp/torpor-life-XXXXXX");
    assert_non_null(mkdtemp(f->root));
    (void)snprintf(f->dir, sizeof f->dir, "%s/data", f->root);
    (void)snprintf(f->run, sizeof f->run, "%s/run", f->root);
    make_data(f);
    open_life(f);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    struct err e = {0};
    fakes.fail = FAKE_NONE;
    assert_int_equal(life_close(f->life, &e), 0);
    assert_int_equal(fakes.vmms_running, 0);
    assert_int_equal(fakes.vcpus_stand, 0);
    assert_int_equal(io_remove_tree(AT_FDCWD, f->root, &e), 0);
    free(f);
    return 0;
}

static struct life_create request(void)
{
    struct life_create c = {.template = SLICE_LIT("minimal"), .vcpus = 1, .memory_mb = 512};
    sandbox_id_new(&c.id);
    return c;
}

static struct sandbox_id create_ok(struct fixture *f)
{
    struct life_create c = request();
    struct life_info info;
    struct err e = {0};
    if (life_create(f->life, &c, &info, &e) < 0)
        fail_msg("create: %s", e.msg);
    assert_int_equal(info.entry.state.status, SANDBOX_RUNNING);
    return c.id;
}

static void destroy_ok(struct fixture *f, const struct sandbox_id *id)
{
    struct err e = {0};
    uint64_t revision;
    if (life_destroy(f->life, id, 0, &revision, &e) < 0)
        fail_msg("destroy: %s", e.msg);
}

static bool has_folder(struct fixture *f, const struct sandbox_id *id)
{
    char path[256];
    struct stat st;
    (void)snprintf(path, sizeof path, "%s/sandboxes/%s", f->dir, id->text);
    return stat(path, &st) == 0;
}

struct found {
    const struct sandbox_id *id;
    struct life_info info;
    int n;
    int matches;
};

static void find_each(void *ctx, const struct life_info *info)
{
    struct found *found = ctx;
    found->n++;
    if (found->id && strcmp(info->entry.id.text, found->id->text) == 0) {
        found->info = *info;
        found->matches++;
    }
}

static struct found look(struct fixture *f, const struct sandbox_id *id)
{
    struct found found = {.id = id};
    struct life_summary summary;
    struct err e = {0};
    assert_int_equal(life_list(f->life, 0, find_each, &found, &summary, &e), 0);
    return found;
}

static void assert_nothing_left(struct fixture *f, const struct sandbox_id *id)
{
    struct life_summary summary = {0};
    struct found found = {0};
    struct err e = {0};
    assert_int_equal(life_list(f->life, 0, find_each, &found, &summary, &e), 0);
    assert_int_equal(found.n, 0);
    assert_int_equal(summary.memory_mb_used, 0);
    assert_int_equal(fakes.slots_taken, 0);
    assert_int_equal(fakes.vmms_running, 0);
    assert_false(has_folder(f, id));
}

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

/* One group: the journal's file and its folder. */
static void create_costs_one_group_of_syncs(void **state)
{
    struct fixture *f = *state;
    struct sandbox_id id;
    sandbox_syncs = 0;
    id = create_ok(f);
    assert_int_equal(sandbox_syncs, 2);
    destroy_ok(f, &id);
    assert_int_equal(sandbox_syncs, 2);
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

/* The agent ends and VMs run on; a new one adopts them. */
static void leave(struct fixture *f)
{
    struct err e = {0};
    if (life_leave(f->life, &e) < 0)
        fail_msg("life_leave: %s", e.msg);
}

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
    leave(f);
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
    leave(f);
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
    leave(f);
    fakes.slots_lost = true;
    open_life(f);
    assert_int_equal(look(f, &id).info.entry.state.status, SANDBOX_STOPPED);
    assert_int_equal(fakes.vmms_running, 0);
    destroy_ok(f, &id);
    assert_nothing_left(f, &id);
}

static void remove_run_files(struct fixture *f)
{
    char path[128];
    struct err e = {0};
    (void)snprintf(path, sizeof path, "%s/0", f->run);
    assert_int_equal(io_remove_tree(AT_FDCWD, path, &e), 0);
}

static void power_cut_stops_and_keeps(void **state)
{
    struct fixture *f = *state;
    struct sandbox_id id = create_ok(f);
    struct found found;
    leave(f);
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

/* The data folder's file system is not mounted when the agent starts, and is there again later. */
static void unmounted_folder_ends_no_vm(void **state)
{
    struct fixture *f = *state;
    struct sandbox_id id = create_ok(f);
    char here[160];
    char away[160];
    (void)snprintf(here, sizeof here, "%s/sandboxes", f->dir);
    (void)snprintf(away, sizeof away, "%s/elsewhere", f->root);
    leave(f);
    assert_int_equal(rename(here, away), 0);
    open_life(f);
    assert_int_equal(look(f, &id).n, 0);
    assert_int_equal(fakes.vmms_running, 1);
    assert_int_equal(fakes.slots_kept, 1);
    leave(f);
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
    write_file(f->run, "0/x.shim", ""); /* the real one is made by the shim */
    leave(f);
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
            struct journal_entry s = {
                .state.status = (enum sandbox_status)(status < 0 ? 0 : status)};
            struct journal_entry r = {.state.status = (enum sandbox_status)(run < 0 ? 0 : run)};
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
    write_file(f->dir, path, "{\"format\":99}");
    assert_int_equal(life_close(f->life, &e), 0);
    open_life(f);
    assert_false(has_folder(f, &half));
    assert_true(has_folder(f, &damaged));
    destroy_ok(f, &damaged);
    assert_false(has_folder(f, &damaged));
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

#define LIFE_TEST(t) cmocka_unit_test_setup_teardown(t, setup, teardown)

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
        LIFE_TEST(restart_adopts_what_runs),
        LIFE_TEST(adopted_vm_that_dies_is_noticed),
        LIFE_TEST(vm_whose_slot_is_broken_is_stopped),
        LIFE_TEST(power_cut_stops_and_keeps),
        LIFE_TEST(closing_puts_to_sleep),
        LIFE_TEST(unmounted_folder_ends_no_vm),
        LIFE_TEST(empty_data_folder_takes_another_instance),
        cmocka_unit_test(recovery_is_decided_by_evidence),
        LIFE_TEST(folder_without_journal_goes_damaged_one_stays),
        LIFE_TEST(failed_destroy_is_said_and_can_be_repeated),
        LIFE_TEST(destroy_of_another_revision_is_a_conflict),
        LIFE_TEST(list_since_a_revision_gives_what_changed),
        LIFE_TEST(forgotten_create_makes_lists_full),
        LIFE_TEST(calls_into_a_guest),
        LIFE_TEST(destroys_at_once_agree),
    };
    return cmocka_run_group_tests_name("life", tests, NULL, NULL);
}
