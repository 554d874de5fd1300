/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Spawning.
 *
 * Theory of operation. clone(2) with CLONE_VM and CLONE_VFORK: the child runs on a stack of its own
 * in our memory while the calling thread (only it) sleeps, until the child has called exec or
 * _exit. So nothing is copied, and the child reports a failure by writing into `struct child`
 * instead of through a pipe. What the child may do follows from that: only system calls, made
 * directly, because libc's setuid(3) would signal all of our threads, and because locks that other
 * threads hold stay held. It is built without sanitizers: their marks on its stack would be left in
 * ours. errno is the caller's thread's, which sleeps.
 *
 * All signals are blocked in the service's threads (envd.h) and therefore in the child, until it
 * unblocks them just before exec; no signal of ours has a handler that could run there.
 *
 * Who waits for whom. The kernel keeps children by thread. Processes started here belong to the
 * thread that called; orphans of the guest are given to the main thread. The main thread waits with
 * __WNOTHREAD (reaper.c) and so cannot see ours; we wait for our pid. Neither can take the other's
 * exit status, without a table, a lock or a message. A process stays a zombie until its own thread
 * reaps it, so kill(2) by pid or group cannot hit a stranger that got the number.
 */
#include "envd/spawn.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdalign.h>
#include <stdint.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "envd/users.h"

#define OOM_SCORE_ADJ "100" /* processes of the guest die before we do */

enum { CHILD_STACK_BYTES = 8192, EXIT_NOT_STARTED = 127, SIGSET_BYTES = 8 };

#define IN_CHILD __attribute__((no_sanitize("address", "undefined", "thread")))

#ifdef __SANITIZE_THREAD__
/* The sanitizer takes any clone(2) for a fork and is blind to the calling thread from then on. This
 * is glibc's own name for it. */
int __clone(int (*fn)(void *), void *stack, int flags, void *arg, ...);
#define clone __clone
#endif

static const char *const step_names[] = {
    [SPAWN_CLONE] = "clone",
    [SPAWN_SESSION] = "setsid",
    [SPAWN_FDS] = "descriptors",
    [SPAWN_IDENTITY] = "user",
    [SPAWN_CWD] = "cwd",
    [SPAWN_EXEC] = "exec",
};
static_assert(ARRAY_LEN(step_names) == SPAWN_STEP_COUNT, "a name for each step");

/* Shared by the child, which writes the last two, and the thread that sleeps meanwhile. */
struct child {
    const struct spawn_request *request;
    bool is_root; /* we may change ids */
    volatile enum spawn_step step;
    volatile int errnum; /* 0: exec succeeded */
};

IN_CHILD static void set_oom_score(void)
{
    int fd =
        (int)syscall(SYS_openat, AT_FDCWD, "/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC, 0);
    if (fd < 0)
        return; /* no /proc: the process is merely not preferred */
    (void)syscall(SYS_write, fd, OOM_SCORE_ADJ, sizeof OOM_SCORE_ADJ - 1);
    (void)syscall(SYS_close, fd);
}

IN_CHILD static bool set_identity(const struct user *u)
{
    return syscall(SYS_setgroups, u->n_groups, u->groups) == 0 &&
           syscall(SYS_setresgid, u->gid, u->gid, u->gid) == 0 &&
           syscall(SYS_setresuid, u->uid, u->uid, u->uid) == 0;
}

IN_CHILD static bool set_fds(const int fds[3])
{
    for (int i = 0; i < 3; i++)
        if (syscall(SYS_dup3, fds[i], i, 0) < 0)
            return false;
    return true;
}

IN_CHILD static bool enter_cwd(const struct spawn_request *r)
{
    if (syscall(SYS_chdir, r->cwd ? r->cwd : "/") == 0)
        return true;
    return r->cwd_else && syscall(SYS_chdir, r->cwd_else) == 0;
}

/* Tries the programs in turn as execvp(3) does: goes on where there is no such file, and prefers to
 * report a file that was there but refused. */
IN_CHILD static int exec_first(const struct spawn_request *r)
{
    int refused = 0;
    for (char *const *path = r->programs; *path; path++) {
        (void)syscall(SYS_execve, *path, r->argv, r->envp);
        if (errno == EACCES)
            refused = EACCES;
        else if (errno != ENOENT && errno != ENOTDIR)
            return errno;
    }
    return refused ? refused : ENOENT;
}

IN_CHILD static int run_child(void *arg)
{
    const uint64_t no_signals = 0;
    struct child *c = arg;
    const struct spawn_request *r = c->request;
    c->step = SPAWN_SESSION;
    if (syscall(SYS_setsid) < 0)
        goto fail;
    c->step = SPAWN_FDS;
    if (!set_fds(r->fds))
        goto fail;
    set_oom_score();
    c->step = SPAWN_IDENTITY;
    if (c->is_root && !set_identity(r->user))
        goto fail;
    c->step = SPAWN_CWD;
    if (!enter_cwd(r))
        goto fail;
    c->step = SPAWN_EXEC;
    (void)syscall(SYS_rt_sigprocmask, SIG_SETMASK, &no_signals, NULL, SIGSET_BYTES);
    c->errnum = exec_first(r);
    syscall(SYS_exit_group, EXIT_NOT_STARTED);
fail:
    c->errnum = errno;
    syscall(SYS_exit_group, EXIT_NOT_STARTED);
    return 0;
}

int spawn_reap(pid_t pid, int *ret_status, struct err *e)
{
    int status;
    while (waitpid(pid, &status, __WNOTHREAD) < 0)
        if (errno != EINTR)
            return err_sys(e, errno, "wait for process %d", (int)pid);
    *ret_status = status;
    return 0;
}

/* A separate frame for the stack, and noinline, so that it is there only while the child needs it.
 */
static __attribute__((noinline)) pid_t clone_child(struct child *c, int *ret_pidfd)
{
    alignas(16) char stack[CHILD_STACK_BYTES];
    int flags = CLONE_VM | CLONE_VFORK | CLONE_PIDFD | SIGCHLD;
    return clone(run_child, stack + sizeof stack, flags, c, ret_pidfd);
}

int spawn_process(
    const struct spawn_request *r, struct spawned *ret, enum spawn_step *ret_step, struct err *e)
{
    struct child c = {.request = r, .is_root = geteuid() == 0};
    AUTO_CLOSE int pidfd = -1;
    int status;
    pid_t pid;
    assert(r->fds[0] > 2 && r->fds[1] > 2 && r->fds[2] > 2);
    if (!c.is_root && r->user->uid != geteuid()) {
        *ret_step = SPAWN_IDENTITY;
        return err_set(e, ERR_FORBIDDEN, "cannot act as %s", r->user->name);
    }
    pid = clone_child(&c, &pidfd);
    if (pid < 0) {
        *ret_step = SPAWN_CLONE;
        return err_sys(e, errno, "clone");
    }
    if (c.errnum != 0) {
        (void)spawn_reap(pid, &status, e);
        *ret_step = c.step;
        return err_sys(e, c.errnum, "%s", step_names[c.step]);
    }
    *ret = (struct spawned){.pid = pid, .pidfd = TAKE_FD(pidfd)};
    return 0;
}
