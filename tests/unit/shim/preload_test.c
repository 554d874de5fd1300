/* SPDX-License-Identifier: Apache-2.0 */
/* The preloaded library in the real QEMU, without a shim: what it maps, and that it never goes on
 * where something is not as expected. */
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
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/io.h"
#include "base/proc.h"
#include "base/sock.h"
#include "proto/shim.h"

#define QEMU "/usr/bin/qemu-system-x86_64"

enum { MEMORY_BYTES = 128 << 20, FD_PLACEHOLDER = 3, FD_SOCKET, FD_SOURCE, PATIENCE_MS = 20000 };

static char *const argv[] = {(char *)QEMU, (char *)"-nodefaults", (char *)"-no-user-config",
    (char *)"-display", (char *)"none", (char *)"-S", (char *)"-M",
    (char *)"microvm,memory-backend=ram,mem-merge=off", (char *)"-m", (char *)"128M",
    (char *)"-object",
    (char *)"memory-backend-file,id=ram,size=128M,mem-path=" SHIM_RAM_PATH ",share=on",
    (char *)"-bios", (char *)"qboot.rom", (char *)"-sandbox",
    (char *)"on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny", NULL};

struct qemu {
    pid_t pid;
    int socket;
};

/* `placeholder_bytes` is MEMORY_BYTES unless it is to fail. */
static struct qemu start(int mode, off_t placeholder_bytes)
{
    struct err e = {0};
    struct qemu q;
    char path[32];
    char settings[128];
    char *const env[] = {(char *)"LD_PRELOAD=" LIBRARY_PATH, settings, NULL};
    int pair[2];
    AUTO_CLOSE int writable = memfd_create("memory", MFD_CLOEXEC);
    AUTO_CLOSE int placeholder = -1;
    AUTO_CLOSE int source = -1;
    (void)snprintf(path, sizeof path, "/proc/self/fd/%d", writable);
    placeholder = open(path, O_RDONLY | O_CLOEXEC);
    assert_int_equal(ftruncate(writable, placeholder_bytes), 0);
    source = mode == SHIM_LIBRARY_PRIVATE ? memfd_create("runs", MFD_CLOEXEC)
                                          : open("/dev/userfaultfd", O_RDWR | O_CLOEXEC);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
    (void)snprintf(settings, sizeof settings, "%s=%d:%lld:%d:%d:%d:0", SHIM_LIBRARY_ENV, mode,
        (long long)placeholder_bytes, FD_PLACEHOLDER, FD_SOCKET, FD_SOURCE);
    {
        const int fds[] = {-1, 2, 2, placeholder, pair[1], source};
        const struct proc_spawn p = {
            .path = QEMU, .argv = argv, .envp = env, .fds = fds, .n_fds = ARRAY_LEN(fds)};
        assert_int_equal(proc_spawn(&p, &q.pid, &e), 0);
    }
    (void)close(pair[1]);
    q.socket = pair[0];
    return q;
}

static void expect_mapping(const struct qemu *q, uint64_t base)
{
    struct err e = {0};
    char path[32];
    char line[64];
    const char *found;
    AUTO_BUF struct buf maps = BUF_INIT(1 << 20);
    (void)snprintf(path, sizeof path, "/proc/%d/maps", (int)q->pid);
    assert_int_equal(io_read_file(AT_FDCWD, path, &maps, &e), 0);
    buf_append_char(&maps, '\0');
    (void)snprintf(line, sizeof line, "%llx-%llx rw-p 00000000 00:00 0 ", (unsigned long long)base,
        (unsigned long long)base + MEMORY_BYTES);
    found = strstr(maps.p, line);
    if (!found)
        fail_msg("no line \"%s\" in\n%s", line, maps.p);
}

static void try_mode(int mode)
{
    struct err e = {0};
    struct qemu q = start(mode, MEMORY_BYTES);
    char text[SHIM_HANDSHAKE_BYTES + 1];
    unsigned long long base = 0;
    unsigned long long size = 0;
    int uffd = -1;
    int status;
    size_t n = 0;
    ssize_t got;
    assert_true(io_wait(q.socket, POLLIN, deadline_in_ms(PATIENCE_MS), &e) > 0);
    got = sock_recv_fds(q.socket, text, sizeof text - 1, &uffd, 1, &n, &e);
    assert_true(got > 0);
    text[got] = '\0';
    assert_int_equal(
        sscanf(text, "[{\"base_host_virt_addr\":%llu,\"size\":%llu,", &base, &size), 2);
    assert_int_equal(size, MEMORY_BYTES);
    assert_int_equal(n, mode == SHIM_LIBRARY_PRIVATE ? 0 : 1);
    expect_mapping(&q, base);
    assert_int_equal(kill(q.pid, SIGKILL), 0);
    assert_int_equal(proc_reap(q.pid, &status, &e), 0);
    assert_true(WIFSIGNALED(status));
    (void)close(q.socket);
    if (uffd >= 0)
        (void)close(uffd);
}

static void test_modes(void **state)
{
    (void)state;
    try_mode(SHIM_LIBRARY_PRIVATE);
    try_mode(SHIM_LIBRARY_UFFD);
    try_mode(SHIM_LIBRARY_UFFD_OLD);
}

/* QEMU maps more than the library was told of. */
static void test_other_size(void **state)
{
    struct err e = {0};
    struct qemu q = start(SHIM_LIBRARY_PRIVATE, (off_t)MEMORY_BYTES * 2);
    char c;
    int status;
    (void)state;
    assert_int_equal(io_read(q.socket, &c, 1, deadline_in_ms(PATIENCE_MS), &e), 0);
    assert_int_equal(proc_reap(q.pid, &status, &e), 0);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 1);
    (void)close(q.socket);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_modes),
        cmocka_unit_test(test_other_size),
    };
    if (geteuid() != 0 || access(QEMU, X_OK) < 0) {
        (void)printf("skipped: needs root and qemu-system-x86_64\n");
        return 77;
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
