/* SPDX-License-Identifier: Apache-2.0 */
/* What the shim's own filter ends and what it lets pass. Each call is made in a child. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "shim/self_filter.h"

/* The status of a child that makes this call under the filter, and then ends with 0. */
static int try_call(long nr, long a, long b, long c)
{
    int status;
    pid_t pid = fork();
    if (pid == 0) {
        struct err e = {0};
        if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 || self_filter_install(&e) < 0)
            _exit(1);
        (void)syscall(nr, a, b, c, 0, 0, 0);
        _exit(0);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return status;
}

static void test_calls_that_end_it(void **state)
{
    static const struct {
        const char *name;
        long nr;
        long a;
    } calls[] = {
        {"execve", SYS_execve, 0},
        {"execveat", SYS_execveat, -1},
        {"fork", SYS_fork, 0},
        {"clone", SYS_clone, 0},
        {"clone3", SYS_clone3, 0},
        {"socket", SYS_socket, AF_INET},
        {"connect", SYS_connect, -1},
        {"kill", SYS_kill, 0},
        {"ptrace", SYS_ptrace, 0},
        {"setns", SYS_setns, -1},
        {"unshare", SYS_unshare, 0},
        {"mount", SYS_mount, 0},
        {"bpf", SYS_bpf, 0},
        {"ioctl", SYS_ioctl, -1},
        {"unlink", SYS_unlink, 0},
        {"chmod", SYS_chmod, 0},
        {"setuid", SYS_setuid, 0},
        {"pidfd_getfd", SYS_pidfd_getfd, -1},
        {"process_vm_writev", SYS_process_vm_writev, 0},
        {"io_uring_setup", SYS_io_uring_setup, 0},
        {"keyctl", SYS_keyctl, 0},
        {"userfaultfd", SYS_userfaultfd, 0},
        {"process_vm_readv", SYS_process_vm_readv, 0},
        {"x32 read", 0x40000000 | SYS_read, -1},
    };
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(calls); i++) {
        int status = try_call(calls[i].nr, calls[i].a, 0, 0);
        if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGSYS)
            fail_msg("%s passed with status %x", calls[i].name, (unsigned)status);
    }
}

static void test_calls_of_the_loop(void **state)
{
    static const long calls[] = {SYS_poll, SYS_read, SYS_write, SYS_recvfrom, SYS_sendto,
        SYS_accept4, SYS_close, SYS_getsockopt, SYS_openat, SYS_renameat, SYS_ftruncate,
        SYS_pidfd_open, SYS_pidfd_send_signal, SYS_wait4, SYS_clock_gettime, SYS_recvmsg,
        SYS_pread64, SYS_pwrite64, SYS_munmap, SYS_newfstatat};
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(calls); i++)
        assert_int_equal(try_call(calls[i], -1, 0, 0), 0);
}

/* Only what page faults and scans need. */
static void test_requests(void **state)
{
    static const unsigned long allowed[] = {
        UFFDIO_COPY, UFFDIO_ZEROPAGE, UFFDIO_WAKE, _IOC(_IOC_READ | _IOC_WRITE, 'f', 16, 96)};
    static const unsigned long ended[] = {UFFDIO_REGISTER, UFFDIO_API, FIONREAD, TIOCSTI};
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(allowed); i++)
        assert_int_equal(try_call(SYS_ioctl, -1, (long)allowed[i], 0), 0);
    for (size_t i = 0; i < ARRAY_LEN(ended); i++)
        assert_true(WIFSIGNALED(try_call(SYS_ioctl, -1, (long)ended[i], 0)));
}

/* int 0x80 reaches the calls of the 32-bit ABI, where 3 is read. */
static void test_other_abi(void **state)
{
    int status;
    pid_t pid = fork();
    (void)state;
    if (pid == 0) {
        struct err e = {0};
        long nr = 3;
        if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 || self_filter_install(&e) < 0)
            _exit(1);
        __asm__ volatile("int $0x80" : "+a"(nr) : "b"(-1), "c"(0), "d"(0) : "memory");
        _exit(0);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFSIGNALED(status));
    assert_in_set((unsigned long)WTERMSIG(status), ((unsigned long[]){SIGSYS, SIGSEGV}), 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_calls_that_end_it),
        cmocka_unit_test(test_calls_of_the_loop),
        cmocka_unit_test(test_requests),
        cmocka_unit_test(test_other_abi),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
