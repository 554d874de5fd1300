/* SPDX-License-Identifier: Apache-2.0 */
/* Real shims with real VMs: how they start and end, and what a failed start leaves. Root only. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/stat.h>

#include "agent/vmm/files.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/io.h"
#include "base/proc.h"
#include "proto/limits.h"
#include "vm_fixture.h"

static struct vmm *start_vm(const struct fixture *f, enum guest g)
{
    struct err e = {0};
    struct vmm_boot boot = fixture_boot(f, g);
    struct vmm *v = vmm_start(&f->host, &boot, &e);
    if (!v)
        fail_msg("%s", e.msg);
    return v;
}

static void stop_vm(struct vmm *v)
{
    struct err e = {0};
    if (vmm_stop(v, deadline_in_ms(10000), &e) < 0)
        fail_msg("%s", e.msg);
    assert_null(vmm_free(v));
}

static void await_event(const struct vmm *v, int64_t ms)
{
    struct err e = {0};
    if (io_wait(vmm_event_fd(v), POLLIN, deadline_in_ms(ms), &e) < 0)
        fail_msg("no event: %s", e.msg);
}

static void assert_nothing_left(const struct fixture *f)
{
    assert_int_equal(fixture_count_vmms(), 0);
    assert_int_equal(fixture_count_sockets(f), 0);
}

static int open_pid(pid_t pid)
{
    struct err e = {0};
    struct proc_id id;
    int fd;
    assert_int_equal(proc_identify(pid, &id, &e), 0);
    fd = proc_open(&id, &e);
    assert_true(fd >= 0);
    return fd;
}

static void test_start_stop(void **state)
{
    const struct fixture *f = *state;
    struct err e = {0};
    int64_t start = clock_mono_us();
    struct vmm *v = start_vm(f, GUEST_HELLO);
    print_message("vmm_start: %lld us\n", (long long)(clock_mono_us() - start));
    assert_string_equal(vmm_exit_text(v), "running");
    assert_true(vmm_pid(v) > 0 && vmm_shim_pid(v) > 0);
    assert_int_equal(fixture_count_vmms(), 1);
    assert_int_equal(fixture_count_sockets(f), 1);
    assert_int_equal(vmm_stop(v, deadline_in_ms(10000), &e), 0);
    assert_string_equal(vmm_exit_text(v), "qemu killed by SIGKILL");
    assert_int_equal(vmm_stop(v, deadline_in_ms(10000), &e), 0);
    assert_int_equal(kill(vmm_shim_pid(v), 0), -1); /* reaped, too */
    assert_nothing_left(f);
    assert_null(vmm_free(v));
}

static void test_guest_runs(void **state)
{
    const struct fixture *f = *state;
    struct vmm *v = start_vm(f, GUEST_HELLO);
    assert_int_equal(fixture_await_console(f, "hi\n"), 0);
    stop_vm(v);
}

static void test_kill_is_noticed(void **state)
{
    const struct fixture *f = *state;
    struct vmm *v = start_vm(f, GUEST_HELLO);
    assert_int_equal(kill(vmm_pid(v), SIGKILL), 0);
    await_event(v, 2000);
    assert_string_equal(vmm_exit_text(v), "qemu killed by SIGKILL");
    await_event(v, 0); /* stays readable until the VM is stopped */
    stop_vm(v);
    assert_nothing_left(f);
}

static void test_vmm_dies_with_shim(void **state)
{
    const struct fixture *f = *state;
    struct err e = {0};
    struct vmm *v = start_vm(f, GUEST_HELLO);
    AUTO_CLOSE int vmm = open_pid(vmm_pid(v));
    assert_int_equal(kill(vmm_shim_pid(v), SIGKILL), 0);
    assert_int_equal(proc_wait_gone(vmm, deadline_in_ms(2000), &e), 0);
    await_event(v, 2000);
    assert_string_equal(vmm_exit_text(v), "shim killed by SIGKILL and qemu with it");
    stop_vm(v);
    assert_nothing_left(f);
}

/* A shim that hangs delays the stop, and no more. */
static void test_stop_with_hung_shim(void **state)
{
    const struct fixture *f = *state;
    struct vmm *v = start_vm(f, GUEST_HELLO);
    assert_int_equal(kill(vmm_shim_pid(v), SIGSTOP), 0);
    stop_vm(v);
    assert_nothing_left(f);
}

static void test_reset_ends(void **state)
{
    const struct fixture *f = *state;
    struct vmm *v = start_vm(f, GUEST_RESET);
    await_event(v, 20000);
    assert_string_equal(vmm_exit_text(v), "qemu exited with 0");
    stop_vm(v);
}

static void test_last_words(void **state)
{
    const struct fixture *f = *state;
    struct err e = {0};
    struct vmm_boot boot = fixture_boot(f, GUEST_HELLO);
    struct vmm *v;
    boot.kernel = f->initrd; /* one byte, no kernel */
    v = vmm_start(&f->host, &boot, &e);
    assert_non_null(v);
    await_event(v, 20000);
    assert_string_equal(
        vmm_exit_text(v), "qemu exited with 1: qemu: linux kernel too old to load a ram disk");
    stop_vm(v);
    assert_nothing_left(f);
}

static void assert_start_fails(
    const struct vmm_host *h, const struct vmm_boot *b, const struct fixture *f, const char *why)
{
    struct err e = {0};
    if (vmm_start(h, b, &e))
        fail_msg("started, though: %s", why);
    if (!strstr(e.msg, why))
        fail_msg("\"%s\" says nothing of \"%s\"", e.msg, why);
    assert_int_not_equal(e.kind, ERR_NONE);
    assert_nothing_left(f);
}

/* The program vanished after the probe, or is no program: the shim's child finds out. */
static void test_exec_failures(void **state)
{
    const struct fixture *f = *state;
    struct vmm_boot boot = fixture_boot(f, GUEST_HELLO);
    struct vmm_host h = f->host;
    AUTO_FREE struct vmm_files *files = malloc(sizeof *files);
    *files = *f->host.files;
    h.files = files;
    files->items[0].source = "/usr/bin/no-such-qemu";
    assert_start_fails(&h, &boot, f, "open /usr/bin/no-such-qemu: No such file");
    files->items[0].source = "/usr/bin";
    assert_start_fails(&h, &boot, f, "/usr/bin is not a regular file");
    files->items[0].source = f->base;
    assert_start_fails(&h, &boot, f, "exec /usr/bin/qemu-system-x86_64");
    h.files = f->host.files;
    h.shim = "/usr/bin/no-such-shim";
    assert_start_fails(&h, &boot, f, "start /usr/bin/no-such-shim");
    h.files = NULL;
    assert_start_fails(&h, &boot, f, "not been probed");
}

static void test_refused_boots(void **state)
{
    const struct fixture *f = *state;
    const struct vmm_boot good = fixture_boot(f, GUEST_HELLO);
    struct vmm_boot b = good;
    b.uid = 0;
    assert_start_fails(&f->host, &b, f, "uid 0 is not for a VMM");
    b = good;
    b.netns = "/proc/self/ns/net";
    assert_start_fails(&f->host, &b, f, "no device tap0");
    b = good;
    b.netns = f->base;
    assert_start_fails(&f->host, &b, f, "enter the network namespace");
    b = good;
    b.overlay = f->base;
    assert_start_fails(&f->host, &b, f, "not a qcow2 file");
    b = good;
    b.kernel = "/no/kernel";
    assert_start_fails(&f->host, &b, f, "/no/kernel");
    b = good;
    b.console_dir = "/no/folder";
    assert_start_fails(&f->host, &b, f, "console folder /no/folder");
    b = good;
    b.memory_mb = 1;
    assert_start_fails(&f->host, &b, f, "1 MiB");
}

static off_t size_of(const struct fixture *f, const char *name)
{
    char path[FIXTURE_PATH_MAX + 32];
    struct stat st;
    (void)snprintf(path, sizeof path, "%s/%s", f->dir, name);
    return stat(path, &st) < 0 ? -1 : st.st_size;
}

/* Waits until console.log was moved away `times` times. */
static void await_rotations(const struct fixture *f, int watch, int times)
{
    struct err e = {0};
    int64_t deadline = deadline_in_ms(60000);
    while (times > 0) {
        char events[4096] __attribute__((aligned(8)));
        ssize_t got;
        if (io_wait(watch, POLLIN, deadline, &e) < 0)
            fail_msg("console.log has %lld bytes", (long long)size_of(f, "console.log"));
        got = read(watch, events, sizeof events);
        for (ssize_t i = 0; i < got; times--)
            i += (ssize_t)(sizeof(struct inotify_event) +
                           ((const struct inotify_event *)(const void *)(events + i))->len);
    }
}

static void test_console_is_bounded(void **state)
{
    const struct fixture *f = *state;
    struct vmm *v;
    AUTO_CLOSE int watch = inotify_init1(IN_CLOEXEC);
    assert_true(inotify_add_watch(watch, f->dir, IN_MOVED_TO) >= 0);
    v = start_vm(f, GUEST_CHATTY);
    await_rotations(f, watch, 1); /* more of them in console_test.c; a byte takes TCG 10 us */
    stop_vm(v);
    assert_in_range(size_of(f, "console.log"), 0, CONSOLE_BYTES_MAX / 2);
    assert_int_equal(size_of(f, "console.log.1"), CONSOLE_BYTES_MAX / 2);
}

static void test_leftovers(void **state)
{
    const struct fixture *f = *state;
    struct err e = {0};
    struct vmm *a = start_vm(f, GUEST_HELLO);
    AUTO_CLOSE int shim = open_pid(vmm_shim_pid(a));
    AUTO_CLOSE int vmm = open_pid(vmm_pid(a));
    AUTO_CLOSE int stale = openat(AT_FDCWD, f->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    assert_int_equal(mknodat(stale, "sbaaaaaaaaaaaaaaaaaaaa.shim", S_IFSOCK | 0600, 0), 0);
    assert_int_equal(mknodat(stale, "not-an-id.shim", S_IFSOCK | 0600, 0), 0);
    (void)vmm_free(a); /* as if this agent had died: both run on */
    assert_int_equal(fixture_count_vmms(), 1);
    assert_int_equal(vmm_remove_leftovers(&f->host, NULL, NULL, &e), 0);
    assert_int_equal(proc_wait_gone(vmm, deadline_in_ms(0), &e), 0);
    assert_int_equal(proc_wait_gone(shim, deadline_in_ms(0), &e), 0);
    assert_int_equal(fixture_count_vmms(), 0);
    assert_int_equal(fixture_count_sockets(f), 1); /* what is not a shim's stays */
    assert_int_equal(unlinkat(stale, "not-an-id.shim", 0), 0);
    assert_int_equal(vmm_remove_leftovers(&f->host, NULL, NULL, &e), 0);
}

/* A shim that does not answer, one without a socket, and one of another run folder. */
static void test_leftovers_by_search(void **state)
{
    const struct fixture *f = *state;
    struct err e = {0};
    struct vmm_host other = f->host;
    struct vmm *a = start_vm(f, GUEST_HELLO);
    AUTO_CLOSE int vmm = open_pid(vmm_pid(a));
    AUTO_CLOSE int shim = open_pid(vmm_shim_pid(a));
    assert_int_equal(kill(vmm_shim_pid(a), SIGSTOP), 0);
    (void)vmm_free(a);
    other.run_dir = "/tmp/torpor-no-such-run-dir";
    assert_int_equal(vmm_remove_leftovers(&other, NULL, NULL, &e), 0);
    assert_int_equal(fixture_count_vmms(), 1);
    assert_int_equal(vmm_remove_leftovers(&f->host, NULL, NULL, &e), 0);
    assert_int_equal(proc_wait_gone(vmm, deadline_in_ms(0), &e), 0);
    assert_int_equal(proc_wait_gone(shim, deadline_in_ms(0), &e), 0);
    assert_nothing_left(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(test_start_stop, fixture_tidy),
        cmocka_unit_test_teardown(test_guest_runs, fixture_tidy),
        cmocka_unit_test_teardown(test_kill_is_noticed, fixture_tidy),
        cmocka_unit_test_teardown(test_vmm_dies_with_shim, fixture_tidy),
        cmocka_unit_test_teardown(test_stop_with_hung_shim, fixture_tidy),
        cmocka_unit_test_teardown(test_reset_ends, fixture_tidy),
        cmocka_unit_test_teardown(test_last_words, fixture_tidy),
        cmocka_unit_test_teardown(test_exec_failures, fixture_tidy),
        cmocka_unit_test_teardown(test_refused_boots, fixture_tidy),
        cmocka_unit_test_teardown(test_console_is_bounded, fixture_tidy),
        cmocka_unit_test_teardown(test_leftovers, fixture_tidy),
        cmocka_unit_test_teardown(test_leftovers_by_search, fixture_tidy),
    };
    const char *missing = fixture_missing();
    if (missing) {
        (void)printf("skipped: %s\n", missing);
        return 77;
    }
    return cmocka_run_group_tests(tests, fixture_set_up, fixture_tear_down);
}
