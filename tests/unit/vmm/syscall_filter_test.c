/* SPDX-License-Identifier: Apache-2.0 */
/* The system call filter: each kind of call in a child of its own. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <linux/if_tun.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <linux/userfaultfd.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "shim/syscall_filter.h"

enum { SET_UP_FAILED = 200 };

/* Runs the call under the filter; returns its errno (0: it succeeded), or minus the signal that
 * ended the child. Arguments that matter come with it, the others are 0. */
static int under_filter(long call, long a, long b)
{
    int status;
    pid_t child = fork();
    if (child == 0) {
        struct err e = {0};
        if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 || syscall_filter_install(&e) < 0)
            _exit(SET_UP_FAILED);
        _exit(syscall(call, a, b, 0, 0, 0, 0) < 0 ? errno : 0);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    return WIFSIGNALED(status) ? -WTERMSIG(status) : WEXITSTATUS(status);
}

static void test_killed(void **state)
{
    static const long calls[] = {SYS_mount, SYS_umount2, SYS_pivot_root, SYS_chroot, SYS_open_tree,
        SYS_move_mount, SYS_fsopen, SYS_open_by_handle_at, SYS_setns, SYS_unshare, SYS_ptrace,
        SYS_process_vm_readv, SYS_process_vm_writev, SYS_pidfd_getfd, SYS_init_module,
        SYS_finit_module, SYS_delete_module, SYS_kexec_load, SYS_kexec_file_load, SYS_reboot,
        SYS_swapon, SYS_swapoff, SYS_acct, SYS_quotactl, SYS_iopl, SYS_ioperm};
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(calls); i++) {
        int got = under_filter(calls[i], 0, 0);
        if (got != -SIGSYS)
            fail_msg("system call %ld: %d", calls[i], got);
    }
}

static void test_refused(void **state)
{
    static const long calls[] = {SYS_bpf, SYS_perf_event_open, SYS_userfaultfd, SYS_keyctl,
        SYS_add_key, SYS_request_key, SYS_modify_ldt, SYS_clock_settime, SYS_sethostname,
        SYS_syslog, SYS_move_pages};
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(calls); i++) {
        int got = under_filter(calls[i], 0, 0);
        if (got != EPERM)
            fail_msg("system call %ld: %d", calls[i], got);
    }
}

static void test_absent(void **state)
{
    (void)state;
    assert_int_equal(under_filter(SYS_clone3, 0, 0), ENOSYS);
    assert_int_equal(under_filter(SYS_io_uring_setup, 0, 0), ENOSYS);
}

static void test_sockets(void **state)
{
    static const int families[] = {AF_INET, AF_INET6, AF_NETLINK, AF_PACKET, AF_VSOCK, AF_ALG};
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(families); i++)
        assert_int_equal(under_filter(SYS_socket, families[i], SOCK_RAW), EPERM);
    assert_int_equal(under_filter(SYS_socket, AF_UNIX, SOCK_STREAM), 0);
    /* The kernel looks at the low half only; so must a filter that lets AF_UNIX through. */
    assert_int_equal(under_filter(SYS_socket, (1l << 32) | AF_INET, SOCK_STREAM), EPERM);
}

static void test_namespaces_by_clone(void **state)
{
    static const long flags[] = {CLONE_NEWNS, CLONE_NEWUSER, CLONE_NEWNET, CLONE_NEWPID,
        CLONE_NEWUTS, CLONE_NEWIPC, CLONE_NEWCGROUP};
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(flags); i++)
        assert_int_equal(under_filter(SYS_clone, flags[i] | SIGCHLD, 0), -SIGSYS);
}

static void test_ioctls(void **state)
{
    (void)state;
    assert_int_equal(under_filter(SYS_ioctl, -1, (long)TUNSETIFF), EPERM);
    assert_int_equal(under_filter(SYS_ioctl, -1, (long)TUNSETPERSIST), EPERM);
    assert_int_equal(under_filter(SYS_ioctl, -1, (long)TUNSETOWNER | (1l << 32)), EPERM);
    assert_int_equal(under_filter(SYS_ioctl, -1, TIOCSTI), EPERM);
    assert_int_equal(under_filter(SYS_ioctl, -1, (long)UFFDIO_COPY), EPERM);
    assert_int_equal(under_filter(SYS_ioctl, -1, (long)UFFDIO_ZEROPAGE), EPERM);
    assert_int_equal(under_filter(SYS_ioctl, -1, (long)UFFDIO_WAKE), EPERM);
    assert_int_equal(under_filter(SYS_ioctl, -1, (long)UFFDIO_UNREGISTER), EPERM);
    /* The library needs these. */
    assert_int_equal(under_filter(SYS_ioctl, -1, (long)UFFDIO_API), EBADF);
    assert_int_equal(under_filter(SYS_ioctl, -1, (long)UFFDIO_REGISTER), EBADF);
    /* What QEMU asks of its TAP gets as far as the descriptor. */
    assert_int_equal(under_filter(SYS_ioctl, -1, (long)TUNSETOFFLOAD), EBADF);
    assert_int_equal(under_filter(SYS_ioctl, -1, (long)TUNGETIFF), EBADF);
}

static void test_personality(void **state)
{
    (void)state;
    assert_int_equal(under_filter(SYS_personality, 0x0040000 /* ADDR_NO_RANDOMIZE */, 0), EPERM);
    assert_int_equal(under_filter(SYS_personality, 0xffffffff, 0), 0);
}

/* x32 numbers, which reach other code with the same register contents. */
static void test_other_abi(void **state)
{
    (void)state;
    assert_int_equal(under_filter(SYS_getpid | 0x40000000, 0, 0), -SIGSYS);
}

static void *nothing(void *arg)
{
    return arg;
}

/* Threads still start: libc falls back from clone3 to clone. */
static void test_threads(void **state)
{
    int status;
    pid_t child = fork();
    (void)state;
    if (child == 0) {
        struct err e = {0};
        pthread_t t;
        if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 || syscall_filter_install(&e) < 0)
            _exit(SET_UP_FAILED);
        _exit(pthread_create(&t, NULL, nothing, NULL) != 0 || pthread_join(t, NULL) != 0);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_killed),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_absent),
        cmocka_unit_test(test_sockets),
        cmocka_unit_test(test_namespaces_by_clone),
        cmocka_unit_test(test_ioctls),
        cmocka_unit_test(test_personality),
        cmocka_unit_test(test_other_abi),
        cmocka_unit_test(test_threads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
