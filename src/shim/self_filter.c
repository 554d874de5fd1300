/* SPDX-License-Identifier: Apache-2.0 */
/*
 * System call filter of the shim.
 *
 * Theory of operation: unlike the VMM's, this is a list of what is allowed, for the shim is ours
 * and small: its loop, the console log, the VMM's memory, signals to one process, its end. It is
 * written as the kernel takes it, since building it with a library would leave dirty heap behind in
 * every shim. The calls of the loop come first: the list is searched from the top. A call of
 * another ABI ends the process like one that is not listed; the numbers of x32 are not in the list.
 *
 * Sanitizers bring a runtime of their own that makes more calls; builds with them allow these too.
 */
#include "shim/self_filter.h"

#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <linux/userfaultfd.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#include "base/cleanup.h"

#ifdef __has_feature
#define CLANG_HAS(feature) __has_feature(feature)
#else
#define CLANG_HAS(feature) 0
#endif
#if defined(__SANITIZE_ADDRESS__) || CLANG_HAS(address_sanitizer)
#define SANITIZED 1
#else
#define SANITIZED 0
#endif

#define LOAD(field)                                                                                \
    {                                                                                              \
        BPF_LD | BPF_W | BPF_ABS, 0, 0, offsetof(struct seccomp_data, field)                       \
    }
#define RETURN(value)                                                                              \
    {                                                                                              \
        BPF_RET | BPF_K, 0, 0, (value)                                                             \
    }
/* Skips the next instruction unless the loaded word is `value`. */
#define IF(value)                                                                                  \
    {                                                                                              \
        BPF_JMP | BPF_JEQ | BPF_K, 0, 1, (value)                                                   \
    }
#define ALLOW(name) IF(SYS_##name), RETURN(SECCOMP_RET_ALLOW)
#define ALLOW_REQUEST(request) IF((uint32_t)(request)), RETURN(SECCOMP_RET_ALLOW)
/* Skips the next `n` instructions unless the loaded word is `value`. */
#define UNLESS_SKIP(value, n)                                                                      \
    {                                                                                              \
        BPF_JMP | BPF_JEQ | BPF_K, 0, (n), (value)                                                 \
    }
#define PAGEMAP_SCAN_REQUEST _IOC(_IOC_READ | _IOC_WRITE, 'f', 16, 96)

static struct sock_filter program[] = {
    LOAD(arch),
    {BPF_JMP | BPF_JEQ | BPF_K, 1, 0, AUDIT_ARCH_X86_64},
    RETURN(SECCOMP_RET_KILL_PROCESS),
    LOAD(nr),
    /* The loop. */
    ALLOW(poll),
    ALLOW(read),
    ALLOW(write),
    ALLOW(recvfrom),
    ALLOW(recvmsg),
    ALLOW(sendto),
    ALLOW(accept4),
    ALLOW(close),
    ALLOW(clock_gettime), /* where the vDSO cannot say */
    /* Memory: four requests, no mapping that can be executed. */
    UNLESS_SKIP(SYS_ioctl, 10),
    LOAD(args[1]),
    ALLOW_REQUEST(UFFDIO_COPY),
    ALLOW_REQUEST(UFFDIO_ZEROPAGE),
    ALLOW_REQUEST(UFFDIO_WAKE),
    ALLOW_REQUEST(PAGEMAP_SCAN_REQUEST),
    RETURN(SECCOMP_RET_KILL_PROCESS),
    ALLOW(sync_file_range),
    ALLOW(pread64),
    ALLOW(pwrite64),
    ALLOW(munmap),
    ALLOW(fstat),
    ALLOW(newfstatat),
#if !SANITIZED
    UNLESS_SKIP(SYS_mmap, 4),
    LOAD(args[2]),
    {BPF_JMP | BPF_JSET | BPF_K, 0, 1, PROT_EXEC},
    RETURN(SECCOMP_RET_KILL_PROCESS),
    RETURN(SECCOMP_RET_ALLOW),
#endif
    /* Who connects, and whether it still lives. */
    ALLOW(getsockopt),
    ALLOW(pidfd_open),
    /* The console log. */
    ALLOW(openat),
    ALLOW(renameat),
    ALLOW(ftruncate),
    ALLOW(fcntl),
    /* The end of the VMM, and of the shim. */
    ALLOW(pidfd_send_signal),
    ALLOW(wait4),
    ALLOW(getpid),
    ALLOW(exit_group),
    ALLOW(exit),
    /* abort(3) and handlers. */
    ALLOW(rt_sigprocmask),
    ALLOW(rt_sigreturn),
    ALLOW(rt_sigaction),
    ALLOW(gettid),
    ALLOW(tgkill),
    ALLOW(restart_syscall),
#if SANITIZED
    ALLOW(mmap),
    ALLOW(mprotect),
    ALLOW(madvise),
    ALLOW(prctl),
    ALLOW(futex),
    ALLOW(sched_yield),
    ALLOW(sigaltstack),
    ALLOW(readlink),
    ALLOW(getrlimit),
    ALLOW(prlimit64),
    ALLOW(getrandom),
#endif
    RETURN(SECCOMP_RET_KILL_PROCESS),
};

int self_filter_install(struct err *e)
{
    const struct sock_fprog fprog = {.len = ARRAY_LEN(program), .filter = program};
    if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &fprog) < 0)
        return err_sys(e, errno, "system call filter of the shim");
    return 0;
}
