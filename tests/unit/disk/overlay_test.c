/* SPDX-License-Identifier: Apache-2.0 */
/* Overlays: what QEMU's own tool says of them, and that nothing is followed or overwritten. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "agent/disk/disk.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/io.h"
#include "base/proc.h"

#define QEMU_IMG "/usr/bin/qemu-img"
#define GIB (1ull << 30)

struct fixture {
    char dir[64];
    int dirfd;
};

static int set_up(void **state)
{
    static struct fixture f;
    (void)snprintf(f.dir, sizeof f.dir, "/tmp/torpor-disk-XXXXXX");
    if (!mkdtemp(f.dir))
        return -1;
    f.dirfd = open(f.dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    *state = &f;
    return f.dirfd < 0 ? -1 : 0;
}

static int tear_down(void **state)
{
    const struct fixture *f = *state;
    struct err e = {0};
    (void)close(f->dirfd);
    return io_remove_tree(AT_FDCWD, f->dir, &e);
}

/* Runs qemu-img and returns its exit code; the output goes to `out` in the folder. */
static int run_qemu_img(const struct fixture *f, char *const *argv, struct buf *out)
{
    struct err e = {0};
    int status;
    pid_t pid;
    AUTO_CLOSE int fd = openat(f->dirfd, "out", O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    const int fds[] = {-1, fd, fd};
    const struct proc_spawn s = {.path = QEMU_IMG, .argv = argv, .fds = fds, .n_fds = 3};
    assert_true(fd >= 0);
    assert_int_equal(proc_spawn(&s, &pid, &e), 0);
    assert_int_equal(proc_reap(pid, &status, &e), 0);
    assert_int_equal(io_read_file(f->dirfd, "out", out, &e), 0);
    assert_true(WIFEXITED(status));
    return WEXITSTATUS(status);
}

static void qemu_img_accepts(const struct fixture *f, uint64_t bytes)
{
    char path[96];
    char want[64];
    struct err e = {0};
    AUTO_BUF struct buf check = BUF_INIT(65536);
    AUTO_BUF struct buf info = BUF_INIT(65536);
    char *const check_argv[] = {
        (char *)"qemu-img", (char *)"check", (char *)"-f", (char *)"qcow2", path, NULL};
    char *const info_argv[] = {(char *)"qemu-img", (char *)"info", (char *)"--output=json",
        (char *)"-f", (char *)"qcow2", path, NULL};
    (void)snprintf(path, sizeof path, "%s/ov", f->dir);
    assert_int_equal(disk_overlay_create(f->dirfd, "ov", bytes, geteuid(), &e), 0);
    assert_int_equal(run_qemu_img(f, check_argv, &check), 0);
    assert_non_null(strstr(check.p, "No errors were found"));
    assert_int_equal(run_qemu_img(f, info_argv, &info), 0);
    (void)snprintf(want, sizeof want, "\"virtual-size\": %llu,", (unsigned long long)bytes);
    assert_non_null(strstr(info.p, want));
    assert_non_null(strstr(info.p, "\"compat\": \"1.1\""));
    assert_non_null(strstr(info.p, "\"corrupt\": false"));
    assert_null(strstr(info.p, "backing"));
    assert_int_equal(disk_overlay_remove(f->dirfd, "ov", &e), 0);
}

static void test_sizes(void **state)
{
    if (access(QEMU_IMG, X_OK) < 0) {
        print_message("skipped: no %s\n", QEMU_IMG);
        skip();
    }
    qemu_img_accepts(*state, 512);
    qemu_img_accepts(*state, GIB / 2);
    qemu_img_accepts(*state, GIB / 2 + 512);
    qemu_img_accepts(*state, 8 * GIB);
    qemu_img_accepts(*state, 1024 * GIB);
    qemu_img_accepts(*state, 4096 * GIB);
}

/* QEMU allocates clusters in every L2 table; the image must then still be sound. */
static void test_grows(void **state)
{
    const struct fixture *f = *state;
    char path[96];
    struct err e = {0};
    AUTO_BUF struct buf out = BUF_INIT(65536);
    char *const bench_argv[] = {(char *)"qemu-img", (char *)"bench", (char *)"-w", (char *)"-f",
        (char *)"qcow2", (char *)"-c", (char *)"64", (char *)"-S", (char *)"128M", (char *)"-s",
        (char *)"64k", path, NULL};
    char *const check_argv[] = {
        (char *)"qemu-img", (char *)"check", (char *)"-f", (char *)"qcow2", path, NULL};
    if (access(QEMU_IMG, X_OK) < 0) {
        print_message("skipped: no %s\n", QEMU_IMG);
        skip();
    }
    (void)snprintf(path, sizeof path, "%s/grow", f->dir);
    assert_int_equal(disk_overlay_create(f->dirfd, "grow", 8 * GIB, geteuid(), &e), 0);
    assert_int_equal(run_qemu_img(f, bench_argv, &out), 0);
    buf_reset(&out);
    assert_int_equal(run_qemu_img(f, check_argv, &out), 0);
    assert_non_null(strstr(out.p, "No errors were found"));
    assert_non_null(strstr(out.p, "64/131072 = 0.05% allocated"));
}

static void test_small_and_fast(void **state)
{
    const struct fixture *f = *state;
    struct err e = {0};
    struct stat st;
    uint64_t bytes = 0;
    int64_t best_us = INT64_MAX;
    for (int i = 0; i < 5; i++) {
        int64_t start = clock_mono_us();
        int64_t took;
        assert_int_equal(disk_overlay_create(f->dirfd, "fast", 8 * GIB, geteuid(), &e), 0);
        took = clock_mono_us() - start;
        best_us = took < best_us ? took : best_us;
        assert_int_equal(disk_allocated_bytes(f->dirfd, "fast", &bytes, &e), 0);
        assert_int_equal(fstatat(f->dirfd, "fast", &st, 0), 0);
        assert_int_equal(disk_overlay_remove(f->dirfd, "fast", &e), 0);
    }
    print_message(
        "overlay of 8 GiB: %lld us, %llu bytes\n", (long long)best_us, (unsigned long long)bytes);
    assert_true(best_us < 1000);
    assert_in_range(bytes, 1, 65536);
    assert_int_equal(st.st_mode, S_IFREG | 0600);
}

static void test_owner(void **state)
{
    const struct fixture *f = *state;
    struct err e = {0};
    struct stat st;
    if (geteuid() != 0) {
        assert_int_equal(disk_overlay_create(f->dirfd, "own", GIB, geteuid() + 1, &e), -1);
        assert_int_equal(e.kind, ERR_FORBIDDEN);
        assert_int_equal(faccessat(f->dirfd, "own", F_OK, 0), -1);
        return;
    }
    assert_int_equal(disk_overlay_create(f->dirfd, "own", GIB, 64001, &e), 0);
    assert_int_equal(fstatat(f->dirfd, "own", &st, 0), 0);
    assert_int_equal(st.st_uid, 64001);
    assert_int_equal(st.st_gid, 64001);
}

static void test_never_overwrites_or_follows(void **state)
{
    const struct fixture *f = *state;
    struct err e = {0};
    uint64_t bytes = 77;
    assert_int_equal(disk_overlay_create(f->dirfd, "twice", GIB, geteuid(), &e), 0);
    assert_int_equal(disk_overlay_create(f->dirfd, "twice", GIB, geteuid(), &e), -1);
    assert_int_equal(e.kind, ERR_EXISTS);
    assert_int_equal(faccessat(f->dirfd, "twice", F_OK, 0), 0);

    assert_int_equal(symlinkat("elsewhere", f->dirfd, "link"), 0);
    assert_int_equal(disk_overlay_create(f->dirfd, "link", GIB, geteuid(), &e), -1);
    assert_int_equal(e.kind, ERR_EXISTS);
    assert_int_equal(faccessat(f->dirfd, "elsewhere", F_OK, 0), -1);
    assert_int_equal(disk_allocated_bytes(f->dirfd, "link", &bytes, &e), -1);
    assert_int_equal(e.kind, ERR_INVALID);
    assert_int_equal(bytes, 77);
}

static void test_refuses(void **state)
{
    const struct fixture *f = *state;
    static const char *const names[] = {"", ".", "..", "a/b", "/x"};
    static const uint64_t sizes[] = {0, 1, 513, 4096 * GIB + 512, UINT64_MAX - 511};
    struct err e = {0};
    uint64_t bytes;
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        assert_int_equal(disk_overlay_create(f->dirfd, names[i], GIB, geteuid(), &e), -1);
        assert_int_equal(e.kind, ERR_INVALID);
        assert_int_equal(disk_overlay_remove(f->dirfd, names[i], &e), -1);
        assert_int_equal(disk_allocated_bytes(f->dirfd, names[i], &bytes, &e), -1);
    }
    for (size_t i = 0; i < ARRAY_LEN(sizes); i++) {
        assert_int_equal(disk_overlay_create(f->dirfd, "size", sizes[i], geteuid(), &e), -1);
        assert_int_equal(e.kind, ERR_INVALID);
        assert_int_equal(faccessat(f->dirfd, "size", F_OK, 0), -1);
    }
}

static void test_removed_and_absent(void **state)
{
    const struct fixture *f = *state;
    struct err e = {0};
    uint64_t bytes;
    assert_int_equal(disk_overlay_remove(f->dirfd, "never-was", &e), 0);
    assert_int_equal(disk_allocated_bytes(f->dirfd, "never-was", &bytes, &e), -1);
    assert_int_equal(e.kind, ERR_NOT_FOUND);
}

static void test_counts_blocks_not_length(void **state)
{
    const struct fixture *f = *state;
    struct err e = {0};
    uint64_t bytes;
    static char data[4096];
    AUTO_CLOSE int fd = openat(f->dirfd, "sparse", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    memset(data, 'x', sizeof data);
    assert_int_equal(ftruncate(fd, 1 << 30), 0);
    for (int i = 0; i < 1024; i++)
        assert_int_equal(pwrite(fd, data, sizeof data, i * (off_t)sizeof data), sizeof data);
    assert_int_equal(disk_allocated_bytes(f->dirfd, "sparse", &bytes, &e), 0);
    assert_in_range(bytes, 4 << 20, (4 << 20) + 65536);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sizes),
        cmocka_unit_test(test_grows),
        cmocka_unit_test(test_small_and_fast),
        cmocka_unit_test(test_owner),
        cmocka_unit_test(test_never_overwrites_or_follows),
        cmocka_unit_test(test_refuses),
        cmocka_unit_test(test_removed_and_absent),
        cmocka_unit_test(test_counts_blocks_not_length),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
