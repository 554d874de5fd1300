/* SPDX-License-Identifier: Apache-2.0 */
#include "fixture.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/io.h"
#include "rpc/agent_v1.h"

bool no_fsync;
void (*on_crash_point)(const char *operation, const char *step);

/* --- the host --- */

void write_text(const char *dir, const char *name, const char *text)
{
    char path[256];
    struct err e = {0};
    (void)snprintf(path, sizeof path, "%s/%s", dir, name);
    assert_int_equal(io_replace_file(AT_FDCWD, path, text, strlen(text), 0644, &e), 0);
}

void make_folder(const char *dir, const char *name)
{
    char path[256];
    struct err e = {0};
    (void)snprintf(path, sizeof path, "%s/%s", dir, name);
    assert_int_equal(io_mkdir_p(path, 0755, &e), 0);
}

void make_data(struct fixture *f)
{
    char link_path[160];
    make_folder(f->dir, "kernels/current");
    write_text(f->dir, "kernels/current/vmlinux", "kernel");
    write_text(f->dir, "kernels/current/initrd", "initrd");
    make_folder(f->dir, "images/0123");
    write_text(f->dir, "images/0123/rootfs.img", "image");
    write_text(f->dir, "images/0123/manifest.json",
        "{\"name\":\"minimal\",\"digest\":\"0123\",\"size_bytes\":1048576,\"default_user\":"
        "\"root\"}");
    (void)snprintf(link_path, sizeof link_path, "%s/images/minimal", f->dir);
    assert_int_equal(symlink("0123", link_path), 0);
}

void remove_run_files(struct fixture *f)
{
    char path[128];
    struct err e = {0};
    (void)snprintf(path, sizeof path, "%s/0", f->run);
    assert_int_equal(io_remove_tree(AT_FDCWD, path, &e), 0);
}

void open_life(struct fixture *f)
{
    struct err e = {0};
    f->life = life_open(&(struct life_config){.dir = f->dir,
                            .run_base = f->run,
                            .shim = "/bin/false",
                            .self = "/bin/false",
                            .accel = "tcg",
                            .net_range = "10.11.0.0/16",
                            .uid_base = 100000,
                            .slots = f->slots ? f->slots : 4,
                            .vcpus_per_core = 64,
                            .memory_mb = 4096,
                            .no_warm = !f->warm,
                            .try_memory = f->tries},
        &e);
    if (!f->life)
        fail_msg("life_open: %s", e.msg);
}

void leave_life(struct fixture *f)
{
    struct err e = {0};
    if (life_leave(f->life, &e) < 0)
        fail_msg("life_leave: %s", e.msg);
}

struct fixture *fixture_new(bool warm)
{
    struct fixture *f = calloc(1, sizeof *f);
    fakes_reset();
    (void)snprintf(
        f->root, sizeof f->root, "%s/torpor-life-XXXXXX", no_fsync ? "/dev/shm" : "/tmp");
    assert_non_null(mkdtemp(f->root));
    (void)snprintf(f->dir, sizeof f->dir, "%s/data", f->root);
    (void)snprintf(f->run, sizeof f->run, "%s/run", f->root);
    f->warm = warm;
    make_data(f);
    return f;
}

static int begin(void **state, bool warm)
{
    struct fixture *f = fixture_new(warm);
    open_life(f);
    *state = f;
    return 0;
}

int fixture_setup(void **state)
{
    return begin(state, /* warm= */ false);
}

int fixture_setup_warm(void **state)
{
    return begin(state, /* warm= */ true);
}

int fixture_teardown(void **state)
{
    struct fixture *f = *state;
    struct err e = {0};
    fakes.fail = FAKE_NONE;
    fakes.save_waits = false;
    on_crash_point = NULL;
    if (life_close(f->life, &e) < 0)
        fail_msg("life_close: %s", e.msg);
    assert_int_equal(fakes.vmms_running, 0);
    assert_int_equal(fakes.vcpus_stand, 0);
    assert_int_equal(io_remove_tree(AT_FDCWD, f->root, &e), 0);
    free(f);
    return 0;
}

/* --- sandboxes --- */

struct life_create request(void)
{
    struct life_create c = {.template = SLICE_LIT("minimal"), .vcpus = 1, .memory_mb = 512};
    sandbox_id_new(&c.id);
    return c;
}

struct sandbox_id create_with(struct fixture *f, struct life_create c)
{
    struct life_info info;
    struct err e = {0};
    if (life_create(f->life, &c, &info, &e) < 0)
        fail_msg("create: %s", e.msg);
    assert_int_equal(info.entry.state.status, SANDBOX_RUNNING);
    return c.id;
}

struct sandbox_id create_ok(struct fixture *f)
{
    return create_with(f, request());
}

struct life_info pause_ok(struct fixture *f, const struct sandbox_id *id)
{
    const struct life_change c = {.id = *id};
    struct life_info info;
    struct phases phases;
    struct err e = {0};
    if (life_pause(f->life, &c, &info, &phases, &e) < 0)
        fail_msg("pause: %s", e.msg);
    assert_int_equal(info.entry.state.status, SANDBOX_PAUSED);
    return info;
}

struct life_resume resume_request(const struct sandbox_id *id)
{
    return (struct life_resume){.change = {.id = *id}};
}

struct life_info resume_ok(struct fixture *f, const struct sandbox_id *id)
{
    const struct life_resume r = resume_request(id);
    struct life_info info;
    struct phases phases;
    struct err e = {0};
    if (life_resume(f->life, &r, &info, &phases, &e) < 0)
        fail_msg("resume: %s", e.msg);
    assert_int_equal(info.entry.state.status, SANDBOX_RUNNING);
    return info;
}

struct snapshot snapshot_ok(struct fixture *f, const struct sandbox_id *id)
{
    const struct life_change c = {.id = *id};
    struct template_id template;
    struct snapshot ret;
    struct life_info info;
    struct phases phases;
    struct err e = {0};
    template_id_new(&template);
    if (life_snapshot(f->life, &c, &template, &ret, &info, &phases, &e) < 0)
        fail_msg("snapshot: %s", e.msg);
    assert_string_equal(ret.id.text, template.text);
    return ret;
}

struct sandbox_id spawn_ok(struct fixture *f, const struct snapshot *s)
{
    struct life_create c = {.snapshot_id = slice_cstr(s->id.text)};
    sandbox_id_new(&c.id);
    return create_with(f, c);
}

void delete_snapshot_ok(struct fixture *f, const struct template_id *id)
{
    struct err e = {0};
    if (life_snapshot_delete(f->life, id, &e) < 0)
        fail_msg("delete a snapshot: %s", e.msg);
}

void destroy_ok(struct fixture *f, const struct sandbox_id *id)
{
    struct err e = {0};
    uint64_t revision;
    if (life_destroy(f->life, id, 0, &revision, &e) < 0)
        fail_msg("destroy: %s", e.msg);
}

static int exec_in(
    struct fixture *f, const struct sandbox_id *id, const char *cmd, struct buf *out, struct err *e)
{
    const struct agent_exec_request req = {.cmd = slice_cstr(cmd)};
    struct agent_exec_response resp = {0};
    return life_exec(f->life, id, &req, out, out, &resp, e);
}

int count_in(struct fixture *f, const struct sandbox_id *id)
{
    struct buf out = BUF_INIT(100);
    struct err e = {0};
    uint64_t n = 0;
    if (exec_in(f, id, "count", &out, &e) < 0)
        fail_msg("exec: %s", e.msg);
    assert_true(slice_parse_u64(buf_slice(&out), &n));
    buf_done(&out);
    return (int)n;
}

enum err_kind exec_kind(struct fixture *f, const struct sandbox_id *id)
{
    struct buf out = BUF_INIT(100);
    struct err e = {0};
    (void)exec_in(f, id, "true", &out, &e);
    buf_done(&out);
    return e.kind;
}

enum err_kind pause_kind(struct fixture *f, const struct sandbox_id *id)
{
    const struct life_change c = {.id = *id};
    struct life_info info;
    struct phases phases;
    struct err e = {0};
    int rc = life_pause(f->life, &c, &info, &phases, &e);
    assert_int_equal(rc < 0, e.kind != ERR_NONE);
    assert_null(strstr(e.msg, "/secret"));
    return e.kind;
}

enum err_kind resume_kind(struct fixture *f, const struct life_resume *r)
{
    struct life_info info;
    struct phases phases;
    struct err e = {0};
    int rc = life_resume(f->life, r, &info, &phases, &e);
    assert_int_equal(rc < 0, e.kind != ERR_NONE);
    assert_null(strstr(e.msg, "/secret"));
    return e.kind;
}

enum err_kind snapshot_kind(struct fixture *f, const struct sandbox_id *id)
{
    const struct life_change c = {.id = *id};
    struct template_id template;
    struct snapshot ret;
    struct life_info info;
    struct phases phases;
    struct err e = {0};
    template_id_new(&template);
    (void)life_snapshot(f->life, &c, &template, &ret, &info, &phases, &e);
    assert_null(strstr(e.msg, "/secret"));
    return e.kind;
}

/* --- what there is --- */

void find_each(void *ctx, const struct life_info *info)
{
    struct found *found = ctx;
    found->n++;
    if (found->id && strcmp(info->entry.id.text, found->id->text) == 0) {
        found->info = *info;
        found->matches++;
    }
}

struct found look(struct fixture *f, const struct sandbox_id *id)
{
    struct found found = {.id = id};
    struct life_summary summary;
    struct err e = {0};
    assert_int_equal(life_list(f->life, 0, find_each, &found, &summary, &e), 0);
    return found;
}

bool has_file(struct fixture *f, const struct sandbox_id *id, const char *name)
{
    char path[256];
    struct stat st;
    (void)snprintf(path, sizeof path, "%s/sandboxes/%s/%s", f->dir, id->text, name);
    return stat(path, &st) == 0;
}

bool has_folder(struct fixture *f, const struct sandbox_id *id)
{
    return has_file(f, id, ".");
}

int count_files(struct fixture *f, const char *folder)
{
    char path[256];
    const struct dirent *entry;
    int n = 0;
    DIR *d;
    (void)snprintf(path, sizeof path, "%s/%s", f->dir, folder);
    d = opendir(path);
    while (d && (entry = readdir(d)))
        n += entry->d_name[0] != '.';
    if (d)
        (void)closedir(d);
    return n;
}

void assert_nothing_left(struct fixture *f, const struct sandbox_id *id)
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
    assert_int_equal(count_files(f, "blobs"), 0);
    assert_int_equal(count_files(f, "generations"), 0);
}

void assert_state(struct fixture *f, const struct sandbox_id *id, enum sandbox_status status,
    enum sandbox_reason reason)
{
    struct found found = look(f, id);
    assert_int_equal(found.matches, 1);
    assert_string_equal(
        sandbox_status_name(found.info.entry.state.status), sandbox_status_name(status));
    assert_string_equal(
        sandbox_reason_name(found.info.entry.state.reason), sandbox_reason_name(reason));
}
