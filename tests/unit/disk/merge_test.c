/* SPDX-License-Identifier: Apache-2.0 */
/* Merged overlays: that they say the same, by QEMU's own tools, and that only ours are merged. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <endian.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "agent/disk/disk.h"
#include "agent/disk/qcow2_int.h"
#include "base/cleanup.h"
#include "base/io.h"
#include "base/proc.h"

#define QEMU_IMG "/usr/bin/qemu-img"
#define QEMU_IO "/usr/bin/qemu-io"
#define MIB (1ull << 20)
#define DISK_BYTES (1024 * MIB + 3 * 65536 + 512) /* three tables, the last one short */

struct fixture {
    char dir[64];
    int dirfd;
};

static int set_up(void **state)
{
    static struct fixture f;
    (void)snprintf(f.dir, sizeof f.dir, "/tmp/torpor-merge-XXXXXX");
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

static int open_file(const struct fixture *f, const char *name)
{
    int fd = openat(f->dirfd, name, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    return fd;
}

static void run(const struct fixture *f, const char *path, char *const *argv)
{
    struct err e = {0};
    int status;
    pid_t pid;
    AUTO_BUF struct buf said = BUF_INIT(1 << 20);
    AUTO_CLOSE int fd = openat(f->dirfd, "out", O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    const int fds[] = {-1, fd, fd};
    const struct proc_spawn s = {.path = path, .argv = argv, .fds = fds, .n_fds = 3};
    assert_int_equal(proc_spawn(&s, &pid, &e), 0);
    assert_int_equal(proc_reap(pid, &status, &e), 0);
    assert_int_equal(io_read_file(f->dirfd, "out", &said, &e), 0);
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 0 || (said.p && strstr(said.p, "failed")))
        fail_msg("%s %s: %.*s", path, argv[1], (int)said.len, said.p);
}

/* The image options of the graph: names from the top down, the last one is raw. */
static void graph(const struct fixture *f, char dst[1024], const char *const *names)
{
    char prefix[256] = "";
    int n = 0;
    for (; *names; names++) {
        n += snprintf(dst + n, 1024 - (size_t)n,
            "%s%sdriver=%s,%sfile.driver=file,%sfile.filename=%s/%s", n ? "," : "", prefix,
            names[1] ? "qcow2" : "raw", prefix, prefix, f->dir, *names);
        (void)strcat(prefix, "backing.");
    }
}

static void change(const struct fixture *f, const char *const *names, const char *const *commands)
{
    char options[1024];
    char *argv[32] = {(char *)"qemu-io", (char *)"--image-opts", options};
    int n = 3;
    graph(f, options, names);
    for (; *commands; commands++) {
        argv[n++] = (char *)"-c";
        argv[n++] = (char *)(uintptr_t)*commands;
    }
    run(f, QEMU_IO, argv);
}

static void assert_same(const struct fixture *f, const char *const *a, const char *const *b)
{
    char one[1024];
    char other[1024];
    char *const argv[] = {
        (char *)"qemu-img", (char *)"compare", (char *)"--image-opts", one, other, NULL};
    graph(f, one, a);
    graph(f, other, b);
    run(f, QEMU_IMG, argv);
}

static void assert_sound(const struct fixture *f, const char *name)
{
    char path[128];
    char *const argv[] = {
        (char *)"qemu-img", (char *)"check", (char *)"-f", (char *)"qcow2", path, NULL};
    (void)snprintf(path, sizeof path, "%s/%s", f->dir, name);
    run(f, QEMU_IMG, argv); /* also leaks fail */
}

static int merge(const struct fixture *f, const char *const *names, size_t n, const char *out)
{
    int fds[8];
    struct err e = {0};
    AUTO_CLOSE int out_fd = open_file(f, out);
    int rc;
    for (size_t i = 0; i < n; i++)
        fds[i] = open_file(f, names[i]);
    rc = disk_layers_merge(fds, n, out_fd, &e);
    for (size_t i = 0; i < n; i++)
        (void)close(fds[i]);
    if (rc < 0)
        print_message("%s\n", e.msg);
    return rc;
}

/* Into another file system, so by hand: the same bytes as in this one. */
static void assert_copied_by_hand(const struct fixture *f, const char *const *names, const char *as)
{
    int fds[] = {open_file(f, names[0]), open_file(f, names[1])};
    struct err e = {0};
    struct stat st;
    static char one[1 << 20];
    static char other[1 << 20];
    AUTO_CLOSE int want = open_file(f, as);
    AUTO_CLOSE int out = memfd_create("merged", MFD_CLOEXEC);
    assert_int_equal(disk_layers_merge(fds, 2, out, &e), 0);
    assert_int_equal(fstat(want, &st), 0);
    for (off_t at = 0; at < st.st_size; at += (off_t)sizeof one) {
        ssize_t n = pread(want, one, sizeof one, at);
        assert_int_equal(pread(out, other, sizeof other, at), n);
        assert_memory_equal(one, other, (size_t)n);
    }
    (void)close(fds[0]);
    (void)close(fds[1]);
}

static void make_layer(const struct fixture *f, const char *name, uint64_t bytes)
{
    struct err e = {0};
    assert_int_equal(disk_overlay_create(f->dirfd, name, bytes, geteuid(), &e), 0);
}

static void test_says_the_same(void **state)
{
    const struct fixture *f = *state;
    static const char *const base[] = {"base", NULL};
    static const char *const one[] = {"l0", "base", NULL};
    static const char *const two[] = {"l1", "l0", "base", NULL};
    static const char *const three[] = {"l2", "l1", "l0", "base", NULL};
    static const char *const merged[] = {"m01", "base", NULL};
    static const char *const all[] = {"m012", "base", NULL};
    static const char *const again[] = {"m01", "l2"};
    static const char *const layers[] = {"l0", "l1", "l2"};
    AUTO_CLOSE int fd = open_file(f, "base");
    if (access(QEMU_IMG, X_OK) < 0 || access(QEMU_IO, X_OK) < 0) {
        print_message("skipped: no %s or %s\n", QEMU_IMG, QEMU_IO);
        skip();
    }
    assert_int_equal(ftruncate(fd, (off_t)DISK_BYTES), 0);
    for (int i = 0; i < 3; i++)
        make_layer(f, layers[i], DISK_BYTES);
    change(f, base, (const char *[]){"write -P 0xb0 0 2M", "write -P 0xb1 600M 1M", NULL});
    change(f, one,
        (const char *[]){"write -P 1 0 192k", "write -P 2 1073741824 197120", "write -P 3 5000 700",
            "write -P 4 700M 1M", "write -z 600M 256k", NULL});
    change(f, two,
        (const char *[]){"write -P 5 66000 1000", "write -z 128k 64k", "write -P 6 550M 128k",
            "write -z 700M 64k", "discard 704643072 65536", "write -z -u 600M 64k", NULL});
    change(f, three,
        (const char *[]){"write -P 7 64k 64k", "write -P 8 1073938432 512", "write -P 9 300M 512",
            "write -P 10 600M 4k", NULL});
    assert_int_equal(merge(f, layers, 2, "m01"), 0);
    assert_sound(f, "m01");
    assert_same(f, two, merged);
    assert_copied_by_hand(f, layers, "m01");
    assert_int_equal(merge(f, layers, 3, "m012"), 0);
    assert_sound(f, "m012");
    assert_same(f, three, all);
    assert_int_equal(merge(f, again, 2, "m"), 0); /* what we write we read */
    assert_sound(f, "m");
    assert_same(f, three, (const char *const[]){"m", "base", NULL});
    /* and QEMU goes on in it */
    change(f, all, (const char *[]){"write -P 11 400M 3M", NULL});
    assert_sound(f, "m012");
}

/* --- made by hand --- */

/* An overlay of `bytes` in which guest cluster i lies in host cluster 4 + tables + i; all holes. */
static void make_full(const struct fixture *f, const char *name, uint64_t clusters)
{
    uint64_t tables = (clusters + QCOW2_L2_ENTRIES - 1) / QCOW2_L2_ENTRIES;
    AUTO_CLOSE int fd = -1;
    struct err e = {0};
    make_layer(f, name, clusters * QCOW2_CLUSTER);
    fd = open_file(f, name);
    assert_int_equal(ftruncate(fd, (off_t)((4 + tables + clusters) * QCOW2_CLUSTER)), 0);
    for (uint64_t t = 0; t < tables; t++) {
        uint64_t at = (4 + t) * QCOW2_CLUSTER;
        uint64_t entry = htobe64(at | 1ull << 63);
        uint64_t l2[QCOW2_L2_ENTRIES / 8];
        assert_int_equal(qcow2_write_at(fd, 3 * QCOW2_CLUSTER + t * 8, &entry, 8, &e), 0);
        for (uint64_t i = 0; i < QCOW2_L2_ENTRIES; i += 1024) {
            for (uint64_t k = 0; k < 1024; k++) {
                uint64_t guest = t * QCOW2_L2_ENTRIES + i + k;
                l2[k] = guest < clusters
                            ? htobe64((4 + tables + guest) * QCOW2_CLUSTER | 1ull << 63)
                            : 0;
            }
            assert_int_equal(qcow2_write_at(fd, at + i * 8, l2, sizeof l2, &e), 0);
        }
    }
}

/* 2.5 GiB: more clusters than one refcount block counts. Holes stay holes. */
static void test_large(void **state)
{
    const struct fixture *f = *state;
    static const char *const names[] = {"full"};
    struct err e = {0};
    uint64_t allocated = 0;
    if (access(QEMU_IMG, X_OK) < 0) {
        print_message("skipped: no %s\n", QEMU_IMG);
        skip();
    }
    make_full(f, "full", 40000);
    assert_int_equal(merge(f, names, 1, "large"), 0);
    assert_sound(f, "large");
    assert_int_equal(disk_allocated_bytes(f->dirfd, "large", &allocated, &e), 0);
    assert_true(allocated < 4 * MIB);
}

static void put(int fd, uint64_t offset, uint64_t value, size_t n)
{
    struct err e = {0};
    uint64_t big = htobe64(value << (64 - 8 * n));
    assert_int_equal(qcow2_write_at(fd, offset, &big, n, &e), 0);
}

/* Every field that we rely on, wrong in every way; the file is fine before each. */
static void test_hostile_files(void **state)
{
    const struct fixture *f = *state;
    static const struct {
        const char *what;
        uint64_t offset;
        size_t n;
        uint64_t value;
    } cases[] = {
        {"magic", 0, 4, 0x514649fa},
        {"version 2", 4, 4, 2},
        {"version 4", 4, 4, 4},
        {"backing file", 8, 8, 0x200},
        {"backing file's size", 16, 4, 5},
        {"small clusters", 20, 4, 9},
        {"huge clusters", 20, 4, 63},
        {"no size", 24, 8, 0},
        {"odd size", 24, 8, 513},
        {"endless", 24, 8, UINT64_MAX & ~511ull},
        {"too large", 24, 8, QCOW2_VIRTUAL_MAX + 512},
        {"another table count", 24, 8, 3 * QCOW2_L1_REACH},
        {"encrypted", 32, 4, 1},
        {"L1 short", 36, 4, 0},
        {"L1 long", 36, 4, 0x7fffffff},
        {"no L1", 40, 8, 0},
        {"L1 in the header", 40, 8, 1},
        {"L1 askew", 40, 8, 3 * QCOW2_CLUSTER + 8},
        {"L1 outside", 40, 8, 1ull << 40},
        {"L1 far outside", 40, 8, 1ull << 63},
        {"snapshots", 60, 4, 1},
        {"dirty", 72, 8, 1},
        {"extended L2", 72, 8, 16},
        {"external data", 72, 8, 4},
        {"lazy refcounts", 80, 8, 1},
        {"bitmaps", 88, 8, 1},
        {"other refcounts", 96, 4, 6},
        {"long header", 100, 4, 1 << 20},
        {"short header", 100, 4, 72},
        {"compression", 104, 1, 1},
        {"L2 outside", 3 * QCOW2_CLUSTER, 8, 1ull << 45},
        {"L2 askew", 3 * QCOW2_CLUSTER, 8, 4 * QCOW2_CLUSTER + 512},
        {"L2 with unknown bits", 3 * QCOW2_CLUSTER, 8, 4 * QCOW2_CLUSTER | 1ull << 62},
        {"L2 is the L1", 3 * QCOW2_CLUSTER, 8, 3 * QCOW2_CLUSTER},
        {"data outside", 4 * QCOW2_CLUSTER, 8, 1ull << 45},
        {"data askew", 4 * QCOW2_CLUSTER, 8, 5 * QCOW2_CLUSTER + 512},
        {"data with unknown bits", 4 * QCOW2_CLUSTER, 8, 5 * QCOW2_CLUSTER | 2},
        {"data with high bits", 4 * QCOW2_CLUSTER, 8, 5 * QCOW2_CLUSTER | 1ull << 60},
        {"data compressed", 4 * QCOW2_CLUSTER, 8, 5 * QCOW2_CLUSTER | 1ull << 62},
        {"data is the L1", 4 * QCOW2_CLUSTER, 8, 3 * QCOW2_CLUSTER},
        {"data is the L2", 4 * QCOW2_CLUSTER, 8, 4 * QCOW2_CLUSTER},
        {"data twice", 4 * QCOW2_CLUSTER, 8, 6 * QCOW2_CLUSTER},
        {"zeros, but askew", 4 * QCOW2_CLUSTER, 8, 513},
        {"behind the disk", 4 * QCOW2_CLUSTER + 10 * 8, 8, 1},
    };
    static const char *const names[] = {"hostile"};
    struct err e = {0};
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        AUTO_CLOSE int fd = -1;
        AUTO_CLOSE int out = -1;
        make_full(f, "hostile", 10);
        fd = open_file(f, "hostile");
        if (i == 0)
            assert_int_equal(merge(f, names, 1, "fine"), 0);
        put(fd, cases[i].offset, cases[i].value, cases[i].n);
        out = open_file(f, "refused");
        if (disk_layers_merge(&fd, 1, out, &e) != -1)
            fail_msg("%s was taken", cases[i].what);
        if (e.kind != ERR_INVALID)
            fail_msg("%s: %s", cases[i].what, e.msg);
        assert_int_equal(unlinkat(f->dirfd, "hostile", 0), 0);
        assert_int_equal(unlinkat(f->dirfd, "refused", 0), 0);
    }
}

static void test_wrong_calls(void **state)
{
    const struct fixture *f = *state;
    struct err e = {0};
    int fds[2];
    AUTO_CLOSE int small = -1;
    AUTO_CLOSE int large = -1;
    AUTO_CLOSE int empty = open_file(f, "empty");
    AUTO_CLOSE int out = open_file(f, "out-of-it");
    make_layer(f, "small", MIB);
    make_layer(f, "large", 2 * MIB);
    small = open_file(f, "small");
    large = open_file(f, "large");
    fds[0] = small;
    fds[1] = large;
    assert_int_equal(disk_layers_merge(fds, 0, out, &e), -1);
    assert_int_equal(disk_layers_merge(fds, 65, out, &e), -1);
    assert_int_equal(disk_layers_merge(fds, 2, out, &e), -1); /* two sizes */
    assert_int_equal(e.kind, ERR_INVALID);
    assert_int_equal(disk_layers_merge(&empty, 1, out, &e), -1);
    assert_int_equal(e.kind, ERR_INVALID);
    assert_int_equal(disk_layers_merge(&f->dirfd, 1, out, &e), -1);
    assert_int_equal(e.kind, ERR_INVALID);
    assert_int_equal(disk_layers_merge(fds, 1, large, &e), -1); /* not empty */
    assert_int_equal(e.kind, ERR_INVALID);
}

#define MERGE_TEST(t) cmocka_unit_test_setup_teardown(t, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        MERGE_TEST(test_says_the_same),
        MERGE_TEST(test_large),
        MERGE_TEST(test_hostile_files),
        MERGE_TEST(test_wrong_calls),
    };
    return cmocka_run_group_tests_name("disk merge", tests, NULL, NULL);
}
