/* SPDX-License-Identifier: Apache-2.0 */
/* Processes: identity by pid and start time, pidfds, spawning with exactly the descriptors given.
 */
#ifndef TORPOR_BASE_PROC_H
#define TORPOR_BASE_PROC_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/err.h"

/* A pid alone may be another process by now; together with its start time it is one. */
struct proc_id {
    pid_t pid;
    uint64_t start_ticks; /* field 22 of /proc/PID/stat */
};

/* Reads the start time; ERR_NOT_FOUND when there is no such process. */
int proc_identify(pid_t pid, struct proc_id *ret, struct err *e);
/* True when that very process still exists (a zombie counts as gone). */
bool proc_is_alive(const struct proc_id *id);
/* A pidfd of that very process, -1 with ERR_NOT_FOUND when it is gone. */
int proc_open(const struct proc_id *id, struct err *e);
/* Signals through a pidfd. A process that is gone already is fine. */
int proc_signal(int pidfd, int sig, struct err *e);
/* Waits until the process behind the pidfd has ended (any process, not only a child). */
int proc_wait_gone(int pidfd, int64_t deadline, struct err *e);

struct proc_spawn {
    const char *path;  /* absolute */
    char *const *argv; /* argv[0] first, NULL last */
    char *const *envp; /* NULL: the empty environment */
    const int *fds;    /* fds[i] becomes descriptor i of the child; -1 gives /dev/null */
    size_t n_fds;      /* everything else the child inherits must be O_CLOEXEC */
    bool new_session;  /* setsid in the child */
};
/* Starts a program with posix_spawn(3): no code of ours runs between fork and exec. Signal mask and
 * handlers are the default ones. Stores the pid; the caller reaps it. */
int proc_spawn(const struct proc_spawn *s, pid_t *ret_pid, struct err *e);
/* Waits for a child. Stores the status of waitpid(2). */
int proc_reap(pid_t pid, int *ret_status, struct err *e);

#endif
