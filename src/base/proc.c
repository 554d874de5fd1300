/* SPDX-License-Identifier: Apache-2.0 */
/* Processes. */
#include "base/proc.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/io.h"

/* Finds state and start time in a line of /proc/PID/stat; the name in it may hold anything. */
static bool parse_stat(const char *line, char *ret_state, uint64_t *ret_start)
{
    const char *p = strrchr(line, ')');
    if (!p || p[1] != ' ')
        return false;
    p += 2;
    *ret_state = *p;
    for (int field = 3; field < 22; field++) {
        p = strchr(p, ' ');
        if (!p)
            return false;
        p++;
    }
    *ret_start = strtoull(p, NULL, 10);
    return true;
}

static int read_stat(pid_t pid, char *ret_state, uint64_t *ret_start, struct err *e)
{
    char path[32];
    AUTO_BUF struct buf line = BUF_INIT(4096);
    (void)snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    if (io_read_file(AT_FDCWD, path, &line, e) < 0) {
        if (e->errnum == ENOENT || e->errnum == ESRCH)
            return err_set(e, ERR_NOT_FOUND, "no process %d", (int)pid);
        return -1;
    }
    if (!line.p || !parse_stat(line.p, ret_state, ret_start))
        return err_set(e, ERR_PROTOCOL, "cannot read %s", path);
    return 0;
}

int proc_identify(pid_t pid, struct proc_id *ret, struct err *e)
{
    char state;
    uint64_t start;
    if (read_stat(pid, &state, &start, e) < 0)
        return -1;
    *ret = (struct proc_id){.pid = pid, .start_ticks = start};
    return 0;
}

bool proc_is_alive(const struct proc_id *id)
{
    struct err e = {0};
    char state;
    uint64_t start;
    return read_stat(id->pid, &state, &start, &e) == 0 && start == id->start_ticks &&
           state != 'Z' && state != 'X';
}

int proc_open(const struct proc_id *id, struct err *e)
{
    AUTO_CLOSE int fd = (int)syscall(SYS_pidfd_open, id->pid, 0);
    if (fd < 0)
        return errno == ESRCH ? err_set(e, ERR_NOT_FOUND, "no process %d", (int)id->pid)
                              : err_sys(e, errno, "pidfd_open");
    if (!proc_is_alive(id))
        return err_set(e, ERR_NOT_FOUND, "process %d is another one now", (int)id->pid);
    return TAKE_FD(fd);
}

int proc_signal(int pidfd, int sig, struct err *e)
{
    if (syscall(SYS_pidfd_send_signal, pidfd, sig, NULL, 0) < 0 && errno != ESRCH)
        return err_sys(e, errno, "pidfd_send_signal");
    return 0;
}

int proc_wait_gone(int pidfd, int64_t deadline, struct err *e)
{
    if (io_wait(pidfd, POLLIN, deadline, e) < 0)
        return err_wrap(e, "waiting for a process to end");
    return 0;
}

static int add_fds(posix_spawn_file_actions_t *fa, const struct proc_spawn *s, int base)
{
    int rc = 0;
    /* First to numbers above all targets, then down, so that no source is overwritten early. */
    for (size_t i = 0; rc == 0 && i < s->n_fds; i++)
        rc = s->fds[i] < 0
                 ? posix_spawn_file_actions_addopen(fa, base + (int)i, "/dev/null", O_RDWR, 0)
                 : posix_spawn_file_actions_adddup2(fa, s->fds[i], base + (int)i);
    for (size_t i = 0; rc == 0 && i < s->n_fds; i++)
        rc = posix_spawn_file_actions_adddup2(fa, base + (int)i, (int)i);
    for (size_t i = 0; rc == 0 && i < s->n_fds; i++)
        rc = posix_spawn_file_actions_addclose(fa, base + (int)i);
    return rc;
}

static int set_attributes(posix_spawnattr_t *attr, bool new_session)
{
    sigset_t none;
    sigset_t all;
    short flags = POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF;
    (void)sigemptyset(&none);
    (void)sigfillset(&all);
    (void)posix_spawnattr_setsigmask(attr, &none);
    (void)posix_spawnattr_setsigdefault(attr, &all);
    if (new_session)
        flags |= POSIX_SPAWN_SETSID;
    return posix_spawnattr_setflags(attr, flags);
}

int proc_spawn(const struct proc_spawn *s, pid_t *ret_pid, struct err *e)
{
    static char *const empty_env[] = {NULL};
    posix_spawn_file_actions_t fa;
    posix_spawnattr_t attr;
    int base = (int)s->n_fds;
    int rc;
    pid_t pid;
    for (size_t i = 0; i < s->n_fds; i++)
        if (s->fds[i] >= base)
            base = s->fds[i] + 1;
    if (posix_spawn_file_actions_init(&fa) != 0)
        return err_sys(e, ENOMEM, "spawn %s", s->path);
    if (posix_spawnattr_init(&attr) != 0) {
        (void)posix_spawn_file_actions_destroy(&fa);
        return err_sys(e, ENOMEM, "spawn %s", s->path);
    }
    rc = add_fds(&fa, s, base);
    if (rc == 0)
        rc = set_attributes(&attr, s->new_session);
    if (rc == 0)
        rc = posix_spawn(&pid, s->path, &fa, &attr, s->argv, s->envp ? s->envp : empty_env);
    (void)posix_spawnattr_destroy(&attr);
    (void)posix_spawn_file_actions_destroy(&fa);
    if (rc != 0)
        return err_sys(e, rc, "start %s", s->path);
    *ret_pid = pid;
    return 0;
}

int proc_reap(pid_t pid, int *ret_status, struct err *e)
{
    int status;
    while (waitpid(pid, &status, 0) < 0)
        if (errno != EINTR)
            return err_sys(e, errno, "waitpid %d", (int)pid);
    *ret_status = status;
    return 0;
}
