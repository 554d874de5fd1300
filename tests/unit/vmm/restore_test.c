/* SPDX-License-Identifier: Apache-2.0 */
/* A real VM is saved while it lives, dies, and is restored, in both memory modes. Root only. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "agent/disk/disk.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/io.h"
#include "vm_fixture.h"

struct saved {
    int state, blob, sums, map, layer;
};

static int64_t soon(void)
{
    return deadline_in_ms(10000);
}

#define MUST(call)                                                                                 \
    do {                                                                                           \
        int64_t began_ = clock_mono_us();                                                          \
        if ((call) < 0)                                                                            \
            fail_msg("%s: %s", #call, e.msg);                                                      \
        print_message("%6lld us %.40s\n", (long long)(clock_mono_us() - began_), #call);           \
    } while (0)

static int file(const struct fixture *f, const char *name)
{
    char path[FIXTURE_PATH_MAX + 32];
    int fd;
    (void)snprintf(path, sizeof path, "%s/%s", f->dir, name);
    (void)unlink(path);
    fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    return fd;
}

static int overlay(const struct fixture *f, const char *name)
{
    struct err e = {0};
    AUTO_CLOSE int dirfd = open(f->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int fd;
    (void)disk_overlay_remove(dirfd, name, &e);
    MUST(disk_overlay_create(dirfd, name, 1 << 20, FIXTURE_UID, &e));
    fd = openat(dirfd, name, O_RDWR | O_CLOEXEC);
    assert_true(fd >= 0);
    return fd;
}

/* The file, for reading only, as the shim wants what it restores from. */
static void reopen(int *fd)
{
    char path[32];
    int again;
    (void)snprintf(path, sizeof path, "/proc/self/fd/%d", *fd);
    again = open(path, O_RDONLY | O_CLOEXEC);
    assert_true(again >= 0);
    (void)close(*fd);
    *fd = again;
}

/* Says more on its console than before. */
static void assert_runs(const struct fixture *f)
{
    char path[FIXTURE_PATH_MAX + 16];
    (void)snprintf(path, sizeof path, "%s/console.log", f->dir);
    (void)truncate(path, 0);
    assert_int_equal(fixture_await_console(f, "AAAA"), 0);
}

static void save_live(const struct fixture *f, struct vmm *v, struct saved *s)
{
    struct err e = {0};
    struct vmm_saved numbers;
    AUTO_CLOSE int next = overlay(f, "overlay2");
    struct vmm_save save;
    *s = (struct saved){file(f, "state"), file(f, "blob"), file(f, "sums"), file(f, "map"), -1};
    s->layer = open(f->overlay, O_RDONLY | O_CLOEXEC);
    save = (struct vmm_save){.blob = {.bytes = {1}},
        .blob_fd = s->blob,
        .sums_fd = s->sums,
        .map_fd = s->map,
        .cancel_fd = -1};
    MUST(vmm_pause(v, soon(), &e));
    MUST(vmm_pause(v, soon(), &e));
    MUST(vmm_swap_overlay(v, next, soon(), &e));
    MUST(vmm_save_state(v, s->state, soon(), &e));
    MUST(vmm_save_memory(v, &save, &numbers, soon(), &e));
    print_message("pages %llu zero %llu\n", (unsigned long long)numbers.pages_stored,
        (unsigned long long)numbers.pages_zero);
    assert_true(numbers.pages_stored > 0);
    MUST(vmm_save_commit(v, soon(), &e));
    MUST(vmm_run(v, soon(), &e));
    assert_runs(f);
}

static void restore(struct fixture *f, const struct saved *s, enum vmm_memory memory)
{
    struct vmm_facts facts = f->host.facts;
    struct err e = {0};
    char path[FIXTURE_PATH_MAX + 16];
    struct vmm_boot boot = fixture_boot(f, GUEST_CHATTY);
    const struct vmm_source source = {.facts = &facts,
        .memory = memory,
        .map_fd = s->map,
        .blob_fds = &s->blob,
        .n_blobs = 1,
        .hints_fd = -1};
    struct vmm *v;
    if (memory == VMM_MEMORY_COPIED)
        facts.snapshot_format = VMM_SNAPSHOT_FORMAT_COPIED;
    (void)close(overlay(f, "overlay3"));
    (void)snprintf(path, sizeof path, "%s/overlay3", f->dir);
    boot.overlay = path;
    boot.layer_fds = &s->layer;
    boot.n_layers = 1;
    boot.source = &source;
    v = vmm_start(&f->host, &boot, &e);
    if (!v)
        fail_msg("%s", e.msg);
    assert_int_equal(lseek(s->state, 0, SEEK_SET), 0);
    MUST(vmm_load(v, s->state, soon(), &e));
    MUST(vmm_run(v, soon(), &e));
    assert_runs(f);
    MUST(vmm_stop(v, soon(), &e));
    (void)vmm_free(v);
}

static void close_saved(const struct saved *s)
{
    (void)close(s->state);
    (void)close(s->blob);
    (void)close(s->sums);
    (void)close(s->map);
    (void)close(s->layer);
}

/* Boots, saves while it lives, and stops. A machine that has only reached its firmware could not be
 * restored: that would look for the kernel. So what others said does not count. */
static struct saved make_saved(const struct fixture *f, int32_t format)
{
    struct err e = {0};
    struct saved s;
    struct vmm_boot boot = fixture_boot(f, GUEST_CHATTY);
    struct vmm *v;
    char path[FIXTURE_PATH_MAX + 16];
    (void)snprintf(path, sizeof path, "%s/console.log", f->dir);
    (void)unlink(path);
    v = vmm_start(&f->host, &boot, &e);
    if (!v)
        fail_msg("%s", e.msg);
    assert_int_equal(fixture_await_console(f, "AAAA"), 0);
    assert_int_equal(vmm_snapshot_format(v), format);
    save_live(f, v, &s);
    MUST(vmm_stop(v, soon(), &e));
    (void)vmm_free(v);
    reopen(&s.map);
    reopen(&s.blob);
    return s;
}

static void test_saved_and_restored(void **state)
{
    struct fixture *f = *state;
    struct saved s = make_saved(f, VMM_SNAPSHOT_FORMAT);
    restore(f, &s, VMM_MEMORY_PRIVATE);
    if (f->host.has_uffd)
        restore(f, &s, VMM_MEMORY_UFFD);
    close_saved(&s);
}

/* A host whose library does not take hold. What was saved with one that did is restored with that
 * one all the same. */
static void test_without_library(void **state)
{
    struct fixture *f = *state;
    struct saved with = make_saved(f, VMM_SNAPSHOT_FORMAT);
    struct saved without;
    f->host.copies_memory = true;
    without = make_saved(f, VMM_SNAPSHOT_FORMAT_COPIED);
    restore(f, &without, VMM_MEMORY_COPIED);
    restore(f, &with, VMM_MEMORY_PRIVATE);
    close_saved(&without);
    f->host.copies_memory = false;
    close_saved(&with);
}

/* Whoever watches for the end still sees it. */
static void test_killed_before_it_is_saved(void **state)
{
    const struct fixture *f = *state;
    struct err e = {0};
    struct vmm_saved numbers;
    struct vmm_boot boot = fixture_boot(f, GUEST_CHATTY);
    struct vmm *v = vmm_start(&f->host, &boot, &e);
    AUTO_CLOSE int blob = file(f, "blob");
    AUTO_CLOSE int sums = file(f, "sums");
    AUTO_CLOSE int map = file(f, "map");
    const struct vmm_save save = {
        .blob = {.bytes = {1}}, .blob_fd = blob, .sums_fd = sums, .map_fd = map, .cancel_fd = -1};
    assert_non_null(v);
    MUST(vmm_pause(v, soon(), &e));
    assert_int_equal(kill(vmm_pid(v), SIGKILL), 0);
    assert_true(io_wait(vmm_event_fd(v), POLLIN, soon(), &e) > 0);
    assert_int_equal(vmm_save_memory(v, &save, &numbers, soon(), &e), -1);
    assert_int_equal(e.kind, ERR_UNAVAILABLE);
    assert_non_null(strstr(e.msg, "qemu killed by SIGKILL"));
    assert_int_equal(vmm_run(v, soon(), &e), -1);
    assert_int_equal(e.kind, ERR_UNAVAILABLE);
    assert_true(io_wait(vmm_event_fd(v), POLLIN, soon(), &e) > 0);
    assert_string_equal(vmm_exit_text(v), "qemu killed by SIGKILL");
    MUST(vmm_stop(v, soon(), &e));
    (void)vmm_free(v);
}

static int set_up(void **state)
{
    static char keep[FIXTURE_PATH_MAX + 16];
    struct err e = {0};
    struct fixture *f;
    if (fixture_set_up(state) < 0)
        return -1;
    f = *state;
    vmm_host_done(&f->host);
    (void)snprintf(keep, sizeof keep, "%s/vmm", f->dir);
    f->host.library = LIBRARY_PATH;
    f->host.keep_dir = keep;
    if (vmm_host_probe("tcg", &f->host, &e) == 0)
        return 0;
    print_error("%s\n", e.msg);
    return -1;
}

int main(void)
{
    const char *missing = fixture_missing();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(test_saved_and_restored, fixture_tidy),
        cmocka_unit_test_teardown(test_without_library, fixture_tidy),
        cmocka_unit_test_teardown(test_killed_before_it_is_saved, fixture_tidy),
    };
    if (missing) {
        (void)printf("skipped: %s\n", missing);
        return 77;
    }
    return cmocka_run_group_tests(tests, set_up, fixture_tear_down);
}
