/* SPDX-License-Identifier: Apache-2.0 */
/* What a running QEMU can see and do: read from its /proc entries, with a real VM. Root only. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

#include "agent/vmm/files.h"
#include "agent/vmm/launch_plan.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/io.h"
#include "vm_fixture.h"

static struct vmm *vm; /* one for all tests of this file */
static struct vmm_boot boot;

static int set_up(void **state)
{
    struct err e = {0};
    if (fixture_set_up(state) < 0)
        return -1;
    boot = fixture_boot(*state, GUEST_HELLO);
    vm = vmm_start(&((struct fixture *)*state)->host, &boot, &e);
    if (!vm) {
        (void)fprintf(stderr, "%s\n", e.msg);
        return -1;
    }
    /* QEMU has then set up all that it will have. */
    return fixture_await_console(*state, "hi\n");
}

static int tear_down(void **state)
{
    struct err e = {0};
    int rc = vm ? vmm_stop(vm, deadline_in_ms(10000), &e) : 0;
    vm = vmm_free(vm);
    return fixture_tear_down(state) < 0 ? -1 : rc;
}

static void assert_status_line(pid_t pid, const char *line)
{
    AUTO_BUF struct buf text = BUF_INIT(65536);
    fixture_read_proc(pid, "status", &text);
    if (!text.p || !strstr(text.p, line))
        fail_msg("not in status of %d: %s\n%s", (int)pid, line, text.p ? text.p : "(gone)");
}

static void test_no_rights(void **state)
{
    static const char *const lines[] = {"\nUid:\t64123\t64123\t64123\t64123\n",
        "\nGid:\t64123\t64123\t64123\t64123\n", "\nGroups:\t \n", "\nCapInh:\t0000000000000000\n",
        "\nCapPrm:\t0000000000000000\n", "\nCapEff:\t0000000000000000\n",
        "\nCapBnd:\t0000000000000000\n", "\nCapAmb:\t0000000000000000\n", "\nNoNewPrivs:\t1\n",
        "\nSeccomp:\t2\n", "\nSeccomp_filters:\t2\n" /* ours and QEMU's */};
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(lines); i++)
        assert_status_line(vmm_pid(vm), lines[i]);
}

/* Only CAP_KILL (bit 5). */
static void test_shim_keeps_one_right(void **state)
{
    static const char *const lines[] = {"\nCapPrm:\t0000000000000020\n",
        "\nCapEff:\t0000000000000020\n", "\nCapBnd:\t0000000000000000\n",
        "\nCapInh:\t0000000000000000\n", "\nNoNewPrivs:\t1\n", "\nSeccomp:\t2\n",
        "\nThreads:\t1\n"};
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(lines); i++)
        assert_status_line(vmm_shim_pid(vm), lines[i]);
}

static ino_t namespace_of(pid_t pid, const char *kind)
{
    char path[64];
    struct stat st;
    (void)snprintf(path, sizeof path, "/proc/%d/ns/%s", (int)pid, kind);
    assert_int_equal(stat(path, &st), 0);
    return st.st_ino;
}

static void test_namespaces(void **state)
{
    const struct fixture *f = *state;
    static const char *const own[] = {"mnt", "ipc", "uts", "pid", "net"};
    struct stat given;
    for (size_t i = 0; i < ARRAY_LEN(own); i++)
        assert_int_not_equal(namespace_of(vmm_pid(vm), own[i]), namespace_of(getpid(), own[i]));
    assert_int_equal(stat(f->netns, &given), 0);
    assert_int_equal(namespace_of(vmm_pid(vm), "net"), given.st_ino);
    assert_status_line(vmm_pid(vm), "\t1\n"); /* NSpid: its own first process */
}

/* True when `path` is a file of the jail, or a folder on the way to one. */
static bool is_listed(const struct vmm_files *files, const char *path, bool folder)
{
    static const char *const more[] = {
        JAIL_KERNEL, JAIL_INITRD, "/dev/null", "/dev/zero", "/dev/urandom"};
    size_t n = strlen(path);
    for (size_t i = 0; i < files->n + ARRAY_LEN(more); i++) {
        const char *item = i < files->n ? files->items[i].target : more[i - files->n];
        if (folder ? strncmp(item, path, n) == 0 && item[n] == '/' : strcmp(item, path) == 0)
            return true;
    }
    return false;
}

/* Walks what lies below `path` in the root `root_fd`; returns the number of files. */
static size_t walk_jail(const struct vmm_files *files, int root_fd, const char *path)
{
    size_t n = 0;
    const struct dirent *ent;
    int fd = openat(root_fd, path[0] ? path + 1 : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *d = fdopendir(fd);
    assert_non_null(d);
    while ((ent = readdir(d))) {
        char child[512];
        struct stat st;
        if (strcmp(ent->d_name, ".") == 0 || strcmp(ent->d_name, "..") == 0)
            continue;
        (void)snprintf(child, sizeof child, "%s/%s", path, ent->d_name);
        assert_int_equal(fstatat(root_fd, child + 1, &st, AT_SYMLINK_NOFOLLOW), 0);
        if (!is_listed(files, child, S_ISDIR(st.st_mode)))
            fail_msg("the jail holds %s", child);
        if (S_ISDIR(st.st_mode))
            n += walk_jail(files, root_fd, child);
        else
            n++;
    }
    (void)closedir(d);
    return n;
}

static void test_root_holds_what_was_listed(void **state)
{
    const struct fixture *f = *state;
    char path[64];
    struct statvfs vfs;
    AUTO_CLOSE int root = -1;
    (void)snprintf(path, sizeof path, "/proc/%d/root", (int)vmm_pid(vm));
    root = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    assert_true(root >= 0);
    assert_int_equal(walk_jail(f->host.files, root, ""), f->host.files->n + 5);
    assert_int_equal(fstatvfs(root, &vfs), 0);
    assert_int_equal(vfs.f_flag & (ST_RDONLY | ST_NOSUID | ST_NODEV | ST_NOEXEC),
        ST_RDONLY | ST_NOSUID | ST_NODEV | ST_NOEXEC);
}

/* Every mount is read-only and without setuid; only what holds code may be executed, and only /dev
 * holds devices. */
static void test_mount_flags(void **state)
{
    const struct fixture *f = *state;
    AUTO_BUF struct buf text = BUF_INIT(1 << 20);
    char *line;
    char *save;
    size_t exec = 0;
    size_t total = 0;
    size_t want_exec = 0;
    fixture_read_proc(vmm_pid(vm), "mounts", &text);
    assert_non_null(text.p);
    for (line = strtok_r(text.p, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
        const char *options = strstr(line, " ro");
        total++;
        if (!options || !strstr(options, "nosuid"))
            fail_msg("not read-only and nosuid: %s", line);
        if (!strstr(options, "nodev"))
            assert_non_null(strstr(line, " /dev "));
        exec += strstr(options, "noexec") == NULL;
    }
    for (size_t i = 0; i < f->host.files->n; i++)
        want_exec += f->host.files->items[i].exec;
    assert_int_equal(exec, want_exec);
    /* The files, kernel and initrd, root and /dev. */
    assert_int_equal(total, f->host.files->n + 4);
}

/* The jail's root is the only way up: a process that could chroot would still find nothing above.
 */
static void test_old_root_is_gone(void **state)
{
    AUTO_BUF struct buf text = BUF_INIT(1 << 20);
    (void)state;
    fixture_read_proc(vmm_pid(vm), "mountinfo", &text);
    assert_null(strstr(text.p, " /etc "));
    assert_null(strstr(text.p, " /proc"));
    assert_null(strstr(text.p, " /sys"));
}

static bool is_expected_fd(const struct fixture *f, const char *target)
{
    /* A deleted or outside path reads as it was; pipes and sockets by their kind. */
    static const char *const kinds[] = {"/dev/null", "/dev/net/tun", "socket:[", "pipe:[",
        "anon_inode:[eventfd]", "anon_inode:[eventpoll]", "anon_inode:[signalfd]"};
    if (strcmp(target, f->overlay) == 0 || strcmp(target, f->base) == 0)
        return true;
    for (size_t i = 0; i < ARRAY_LEN(kinds); i++)
        if (strncmp(target, kinds[i], strlen(kinds[i])) == 0)
            return true;
    return false;
}

static void test_descriptors(void **state)
{
    const struct fixture *f = *state;
    char path[64];
    const struct dirent *ent;
    size_t sockets = 0;
    size_t disks = 0;
    DIR *d;
    (void)snprintf(path, sizeof path, "/proc/%d/fd", (int)vmm_pid(vm));
    d = opendir(path);
    assert_non_null(d);
    while ((ent = readdir(d))) {
        char target[512];
        ssize_t n = readlinkat(dirfd(d), ent->d_name, target, sizeof target - 1);
        if (n < 0)
            continue;
        target[n] = '\0';
        if (!is_expected_fd(f, target))
            fail_msg("QEMU holds %s", target);
        sockets += strncmp(target, "socket:", 7) == 0;
        disks += target[0] == '/' && strncmp(target, "/dev/", 5) != 0;
    }
    (void)closedir(d);
    assert_int_equal(sockets, 2); /* the serial port, and the listening monitor */
    assert_true(disks >= 2);
}

static void test_limits(void **state)
{
    AUTO_BUF struct buf text = BUF_INIT(65536);
    (void)state;
    fixture_read_proc(vmm_pid(vm), "limits", &text);
    assert_non_null(strstr(text.p, "Max core file size        0                    0 "));
    assert_non_null(strstr(text.p, "Max open files            256                  256 "));
    assert_non_null(strstr(text.p, "Max processes             256                  256 "));
    /* 1 MiB of disk, an eighth, 64 MiB. */
    assert_non_null(strstr(text.p, "Max file size             68288512             68288512 "));
}

static void test_environment_and_names(void **state)
{
    AUTO_BUF struct buf env = BUF_INIT(65536);
    AUTO_BUF struct buf cmd = BUF_INIT(65536);
    (void)state;
    fixture_read_proc(vmm_pid(vm), "environ", &env);
    assert_int_equal(env.len, 0);
    fixture_read_proc(vmm_shim_pid(vm), "cmdline", &cmd);
    assert_string_equal(cmd.p + strlen(cmd.p) + 1, boot.id.text);
}

/* The sum of a field of smaps_rollup in KiB. */
static long memory_kib(pid_t pid, const char *field)
{
    AUTO_BUF struct buf text = BUF_INIT(65536);
    const char *p;
    fixture_read_proc(pid, "smaps_rollup", &text);
    p = text.p ? strstr(text.p, field) : NULL;
    assert_non_null(p);
    return strtol(p + strlen(field), NULL, 10);
}

static void test_shim_is_small(void **state)
{
    pid_t shim = vmm_shim_pid(vm);
    long dirty = memory_kib(shim, "Private_Dirty:");
    long clean = memory_kib(shim, "Private_Clean:");
    long anon = memory_kib(shim, "Anonymous:");
    (void)state;
    print_message(
        "shim: Private_Dirty %ld KiB (Anonymous %ld), Private_Clean %ld, Pss %ld, Rss %ld\n", dirty,
        anon, clean, memory_kib(shim, "Pss:"), memory_kib(shim, "Rss:"));
#if SHIM_STATIC
    /* The rest are pages of the program's file, which all shims share; the kernel counts them as
     * private while one shim runs, and as dirty while a new binary is not on the disk yet. */
    assert_in_range(anon, 1, 256);
#endif
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_no_rights),
        cmocka_unit_test(test_shim_keeps_one_right),
        cmocka_unit_test(test_namespaces),
        cmocka_unit_test(test_root_holds_what_was_listed),
        cmocka_unit_test(test_mount_flags),
        cmocka_unit_test(test_old_root_is_gone),
        cmocka_unit_test(test_descriptors),
        cmocka_unit_test(test_limits),
        cmocka_unit_test(test_environment_and_names),
        cmocka_unit_test(test_shim_is_small),
    };
    const char *missing = fixture_missing();
    if (missing) {
        (void)printf("skipped: %s\n", missing);
        return 77;
    }
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
