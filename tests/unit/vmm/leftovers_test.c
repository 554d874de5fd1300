/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which shims are leftovers: not those that are kept, and not those of another container, which is
 * played by a child in namespaces of its own.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/io.h"
#include "vm_fixture.h"

enum { PATIENCE_MS = 10000 };

/* An agent in namespaces of its own. It has one VM, and stops it when `go` closes. */
struct other_agent {
    pid_t pid;
    int go;
    struct sandbox_id id;
};

enum isolation {
    SAME_FOLDER = 0, /* only a mount namespace */
    OTHER_FOLDER = 1,
    OTHER_PIDS = 2,
};

static void isolate(enum isolation how, const char *run_dir)
{
    if (unshare(CLONE_NEWNS | (how & OTHER_PIDS ? CLONE_NEWPID : 0)) < 0 ||
        mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
        _exit(2);
    if ((how & OTHER_FOLDER) && mount("tmpfs", run_dir, "tmpfs", 0, "mode=0700") < 0)
        _exit(3);
    if (how & OTHER_PIDS) {
        int status;
        pid_t pid = fork();
        if (pid != 0)
            _exit(waitpid(pid, &status, 0) == pid && status == 0 ? 0 : 4);
        (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (mount("proc", "/proc", "proc", 0, NULL) < 0)
            _exit(5);
    }
}

static _Noreturn void be_agent(
    const struct vmm_host *h, const struct vmm_boot *b, enum isolation how, int ready, int go)
{
    struct err e = {0};
    struct vmm *v;
    char c;
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
    isolate(how, h->run_dir);
    v = vmm_start(h, b, &e);
    if (!v)
        _exit(6);
    (void)!write(ready, "x", 1);
    (void)close(ready);
    (void)!read(go, &c, 1);
    if (strcmp(vmm_exit_text(v), "running") != 0)
        _exit(7);
    _exit(vmm_stop(v, deadline_in_ms(PATIENCE_MS), &e) < 0 ? 8 : 0);
}

static struct other_agent start_other(
    const struct fixture *f, const struct vmm_host *h, enum isolation how)
{
    struct vmm_boot boot = fixture_boot(f, GUEST_HELLO);
    struct other_agent a = {.id = boot.id};
    int ready[2];
    int go[2];
    char c;
    assert_int_equal(pipe2(ready, O_CLOEXEC), 0);
    assert_int_equal(pipe2(go, O_CLOEXEC), 0);
    a.pid = fork();
    if (a.pid == 0) {
        (void)close(go[1]);
        be_agent(h, &boot, how, ready[1], go[0]);
    }
    (void)close(ready[1]);
    (void)close(go[0]);
    a.go = go[1];
    if (read(ready[0], &c, 1) != 1) {
        int status = 0;
        (void)waitpid(a.pid, &status, 0);
        fail_msg("the other agent ended with %d", WEXITSTATUS(status));
    }
    (void)close(ready[0]);
    return a;
}

static int end_other(const struct other_agent *a)
{
    int status;
    (void)close(a->go);
    assert_int_equal(waitpid(a->pid, &status, 0), a->pid);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static void remove_all(const struct vmm_host *h)
{
    struct err e = {0};
    if (vmm_remove_leftovers(h, NULL, NULL, &e) < 0)
        fail_msg("%s", e.msg);
}

/* Two containers on one host that both call their run folder the same. */
static void test_folder_of_another_container(void **state)
{
    const struct fixture *f = *state;
    struct vmm_host h = f->host;
    struct other_agent a;
    char run_dir[FIXTURE_PATH_MAX + 16];
    (void)snprintf(run_dir, sizeof run_dir, "%s/run", f->dir);
    assert_int_equal(mkdir(run_dir, 0700), 0);
    h.run_dir = run_dir;
    a = start_other(f, &h, OTHER_FOLDER);
    remove_all(&h);
    assert_int_equal(fixture_count_vmms(), 1);
    assert_int_equal(end_other(&a), 0);
    a = start_other(f, &h, OTHER_FOLDER | OTHER_PIDS);
    remove_all(&h);
    assert_int_equal(fixture_count_vmms(), 1);
    assert_int_equal(end_other(&a), 0);
    assert_int_equal(fixture_count_vmms(), 0);
}

/* Even the same folder, seen from another pid namespace, names processes that are not ours. */
static void test_pids_of_another_container(void **state)
{
    const struct fixture *f = *state;
    struct other_agent a = start_other(f, &f->host, OTHER_PIDS);
    struct err e = {0};
    remove_all(&f->host);
    assert_int_equal(fixture_count_vmms(), 1);
    assert_int_equal(fixture_count_sockets(f), 1);
    assert_null(vmm_adopt(&f->host, &a.id, &e));
    assert_int_equal(e.kind, ERR_CONFLICT);
    assert_int_equal(end_other(&a), 0);
    assert_int_equal(fixture_count_sockets(f), 0);
}

/* A service that was restarted in a new mount namespace finds what its earlier self left. */
static void test_same_folder_elsewhere(void **state)
{
    const struct fixture *f = *state;
    struct other_agent a = start_other(f, &f->host, SAME_FOLDER);
    char path[FIXTURE_PATH_MAX + 40];
    (void)snprintf(path, sizeof path, "%s/%s.shim", f->dir, a.id.text);
    assert_int_equal(unlink(path), 0); /* so that it is searched for */
    remove_all(&f->host);
    assert_int_equal(fixture_count_vmms(), 0);
    assert_int_equal(end_other(&a), 7);
}

struct kept {
    struct sandbox_id id;
    int asked;
};

static bool keep_one(void *ctx, const struct sandbox_id *id)
{
    struct kept *k = ctx;
    k->asked++;
    return strcmp(k->id.text, id->text) == 0;
}

static void test_keep(void **state)
{
    const struct fixture *f = *state;
    struct vmm_boot boot = fixture_boot(f, GUEST_HELLO);
    struct err e = {0};
    struct kept k = {.id = boot.id};
    struct vmm *v = vmm_start(&f->host, &boot, &e);
    char path[FIXTURE_PATH_MAX + 40];
    assert_non_null(v);
    (void)snprintf(path, sizeof path, "%s/sbaaaaaaaaaaaaaaaaaaaa.shim", f->dir);
    assert_int_equal(mknod(path, S_IFSOCK | 0600, 0), 0);
    assert_int_equal(vmm_remove_leftovers(&f->host, keep_one, &k, &e), 0);
    assert_true(k.asked >= 2);
    assert_string_equal(vmm_exit_text(v), "running");
    assert_int_equal(fixture_count_vmms(), 1);
    assert_int_equal(fixture_count_sockets(f), 1);
    v = vmm_free(v);
    v = vmm_adopt(&f->host, &boot.id, &e); /* the socket that is left is the kept one */
    assert_non_null(v);
    k.id.text[5] ^= 1;
    assert_int_equal(vmm_remove_leftovers(&f->host, keep_one, &k, &e), 0);
    assert_int_equal(fixture_count_vmms(), 0);
    assert_int_equal(fixture_count_sockets(f), 0);
    assert_int_equal(vmm_stop(v, deadline_in_ms(PATIENCE_MS), &e), 0);
    (void)vmm_free(v);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(test_folder_of_another_container, fixture_tidy),
        cmocka_unit_test_teardown(test_pids_of_another_container, fixture_tidy),
        cmocka_unit_test_teardown(test_same_folder_elsewhere, fixture_tidy),
        cmocka_unit_test_teardown(test_keep, fixture_tidy),
    };
    const char *missing = fixture_missing();
    if (missing) {
        (void)printf("skipped: %s\n", missing);
        return 77;
    }
    return cmocka_run_group_tests(tests, fixture_set_up, fixture_tear_down);
}
