/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From a checked plan to a running VMM.
 *
 * Theory of operation: the TAP is opened here, in the sandbox's network namespace, as the VMM will
 * not be allowed to. The child is the first process of a new pid namespace: it sees no other
 * process. (As such it ignores its own SIGABRT; abort() then ends it with SIGSEGV.) It puts its
 * descriptors where the plan's arguments name them, closes all others, gives up its rights and
 * becomes the VMM. A pipe that closes on exec tells the parent how that went: end of file is
 * success, a struct err is the failure. The same pipe tells the child whether its parent still
 * lives. An agent that ends while this goes on will not learn of the VM: the child is killed.
 */
#include "shim/launch.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/io.h"
#include "shim/confine.h"
#include "shim/jail.h"

/* Both ends of what connects shim and VMM. */
struct channels {
    int tap;
    int serial[2]; /* 0 the shim's, 1 the VMM's */
    int output[2]; /* pipes: 0 to read, 1 to write */
    int report[2];
};

static void close_fd(int *fd)
{
    if (*fd >= 0)
        (void)close(*fd);
    *fd = -1;
}

static void channels_close(struct channels *c)
{
    close_fd(&c->tap);
    for (int i = 0; i < 2; i++) {
        close_fd(&c->serial[i]);
        close_fd(&c->output[i]);
        close_fd(&c->report[i]);
    }
}

/* TUNSETIFF would make a device that is not there, so it is looked for first. */
static int open_tap(const char *name, struct err *e)
{
    struct ifreq req = {.ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR};
    AUTO_CLOSE int fd = -1;
    if (if_nametoindex(name) == 0)
        return err_set(e, ERR_NOT_FOUND, "no device %s in the network namespace", name);
    fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0)
        return err_sys(e, errno, "open /dev/net/tun");
    (void)snprintf(req.ifr_name, sizeof req.ifr_name, "%s", name);
    if (ioctl(fd, TUNSETIFF, &req) < 0)
        return err_sys(e, errno, "attach to %s", name);
    return TAKE_FD(fd);
}

static int channels_open(struct channels *c, const struct plan *p, struct err *e)
{
    if (setns(p->fds[SHIM_FD_NETNS], CLONE_NEWNET) < 0)
        return err_sys(e, errno, "enter the network namespace");
    c->tap = open_tap(p->head.tap, e);
    if (c->tap < 0)
        return -1;
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, c->serial) < 0)
        return err_sys(e, errno, "socketpair");
    if (pipe2(c->output, O_CLOEXEC) < 0 || pipe2(c->report, O_CLOEXEC) < 0)
        return err_sys(e, errno, "pipe");
    if (io_set_nonblock(c->serial[0], /* on= */ 1, e) < 0)
        return -1;
    return io_set_nonblock(c->output[0], /* on= */ 1, e);
}

/* Moves `sources` to the numbers 0, 1, ...; the report pipe follows and still closes on exec. All
 * other descriptors are closed. Sources go up first, so that none is overwritten before its turn.
 */
static int arrange_fds(int *sources, int n, struct err *e)
{
    for (int i = 0; i < n; i++) {
        sources[i] = fcntl(sources[i], F_DUPFD_CLOEXEC, n);
        if (sources[i] < 0)
            return err_sys(e, errno, "move a descriptor");
    }
    for (int i = 0; i < n; i++)
        if (dup3(sources[i], i, i == n - 1 ? O_CLOEXEC : 0) < 0)
            return err_sys(e, errno, "move a descriptor");
    if (close_range((unsigned)n, ~0u, 0) < 0)
        return err_sys(e, errno, "close the other descriptors");
    return 0;
}

static void reset_signals(void)
{
    sigset_t none;
    (void)sigemptyset(&none);
    for (int sig = 1; sig < NSIG; sig++)
        (void)signal(sig, SIG_DFL);
    (void)sigprocmask(SIG_SETMASK, &none, NULL);
}

/* The fixed ones, layers, the library's, the report's. */
enum { CHILD_FDS_MAX = SHIM_VMM_FD_LAYERS + SHIM_LAYERS_MAX + MEMORY_FDS_MAX + 1 };

/* What the child takes with it. */
struct child {
    const struct plan *plan;
    const struct memory *memory;
    const struct channels *channels;
};

/* Puts everything where the VMM will look for it. Returns the number that the report pipe gets. */
static int arrange_vmm_fds(const struct child *child, struct err *e)
{
    const struct plan *p = child->plan;
    const struct channels *c = child->channels;
    int n = SHIM_VMM_FD_LAYERS;
    int fds[CHILD_FDS_MAX] = {
        [0] = open("/dev/null", O_RDWR | O_CLOEXEC),
        [1] = c->output[1],
        [2] = c->output[1],
        [SHIM_VMM_FD_OVERLAY] = p->fds[SHIM_FD_OVERLAY],
        [SHIM_VMM_FD_BASE] = p->fds[SHIM_FD_BASE],
        [SHIM_VMM_FD_TAP] = c->tap,
        [SHIM_VMM_FD_SERIAL] = c->serial[1],
        [SHIM_VMM_FD_MONITOR] = p->fds[SHIM_FD_MONITOR],
    };
    for (unsigned i = 0; i < p->head.n_layers; i++)
        fds[n++] = p->fds[PLAN_FD_LAYERS + i];
    n += memory_child_fds(child->memory, fds + n);
    fds[n++] = c->report[1];
    return arrange_fds(fds, n, e) < 0 ? -1 : n - 1;
}

static int become_vmm(const struct child *child, int report, struct err *e)
{
    static char preload[] = "LD_PRELOAD=" SHIM_LIBRARY;
    char settings[MEMORY_ENV_BYTES];
    const struct plan *p = child->plan;
    char *env[] = {NULL, NULL, NULL};
    if (memory_child_env(child->memory, p->head.n_layers, settings)) {
        env[0] = preload;
        env[1] = settings;
    }
    if (jail_enter(p, e) < 0)
        return -1;
    reset_signals();
    if (confine_vmm(p->head.uid, p->head.fsize_bytes, report, e) < 0)
        return -1;
    (void)execve(p->argv[0], p->argv, env);
    return err_sys(e, errno, "exec %s", p->argv[0]);
}

static _Noreturn void run_child(const struct child *child)
{
    struct err e = {0};
    int report = arrange_vmm_fds(child, &e);
    if (report >= 0)
        (void)become_vmm(child, report, &e);
    (void)!write(report >= 0 ? report : child->channels->report[1], &e, sizeof e);
    _exit(127);
}

/* Waits until the child's report can be read, or the agent is gone. */
static int await_report(int report_fd, int agent_fd, struct err *e)
{
    struct pollfd p[] = {
        {.fd = report_fd, .events = POLLIN},
        {.fd = agent_fd, .events = POLLRDHUP},
    };
    while (poll(p, ARRAY_LEN(p), -1) < 0)
        if (errno != EINTR)
            return err_sys(e, errno, "poll");
    if (p[1].revents)
        return err_set(e, ERR_CANCELED, "the agent has ended");
    return 0;
}

static int read_report(int report_fd, struct err *e)
{
    struct err report;
    ssize_t got = io_read(report_fd, &report, sizeof report, DEADLINE_NEVER, e);
    if (got <= 0)
        return (int)got;
    if (got != (ssize_t)sizeof report)
        return err_set(e, ERR_INTERNAL, "the VMM's process failed without a reason");
    *e = report;
    return -1;
}

/* Waits for exec or the report of a failure; a failed child is reaped. */
static int await_exec(pid_t child, int report_fd, int agent_fd, struct err *e)
{
    int status;
    if (await_report(report_fd, agent_fd, e) == 0 && read_report(report_fd, e) == 0)
        return 0;
    (void)kill(child, SIGKILL);
    (void)waitpid(child, &status, 0);
    return -1;
}

static int fork_child(
    const struct child *what, struct channels *c, int agent_fd, pid_t *ret, struct err *e)
{
    pid_t child = -1;
    if (unshare(CLONE_NEWPID) < 0)
        return err_sys(e, errno, "new pid namespace");
    child = fork();
    if (child < 0)
        return err_sys(e, errno, "fork");
    if (child == 0)
        run_child(what);
    close_fd(&c->report[1]);
    if (await_exec(child, c->report[0], agent_fd, e) < 0)
        return -1;
    *ret = child;
    return 0;
}

int launch_vmm(
    const struct plan *p, struct memory *m, int agent_fd, struct launched *ret, struct err *e)
{
    CLEANUP(channels_close)
    struct channels c = {-1, {-1, -1}, {-1, -1}, {-1, -1}};
    struct launched l = {.pidfd = -1};
    pid_t child = -1;
    const struct child what = {.plan = p, .memory = m, .channels = &c};
    if (channels_open(&c, p, e) < 0 || fork_child(&what, &c, agent_fd, &child, e) < 0)
        return -1;
    l.pidfd = (int)syscall(SYS_pidfd_open, child, 0);
    if (l.pidfd < 0)
        err_sys(e, errno, "pidfd_open");
    if (l.pidfd < 0 || proc_identify(child, &l.vmm, e) < 0 || memory_attach(m, child, e) < 0) {
        (void)kill(child, SIGKILL);
        (void)waitpid(child, NULL, 0);
        return -1;
    }
    l.serial_fd = TAKE_FD(c.serial[0]);
    l.output_fd = TAKE_FD(c.output[0]);
    *ret = l;
    return 0;
}

void launch_end(const struct launched *l)
{
    struct err ignored;
    (void)proc_signal(l->pidfd, SIGKILL, &ignored);
    (void)waitpid(l->vmm.pid, NULL, 0);
}
