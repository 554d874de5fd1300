/* SPDX-License-Identifier: Apache-2.0 */
/* Starting a process of the guest as a user, and learning why it could not start. */
#ifndef TORPOR_ENVD_SPAWN_H
#define TORPOR_ENVD_SPAWN_H

#include <sys/types.h>

#include "base/err.h"

struct user;

/* Where a start failed: the child's steps in their order. */
enum spawn_step {
    SPAWN_CLONE,
    SPAWN_SESSION,
    SPAWN_FDS,
    SPAWN_IDENTITY,
    SPAWN_CWD,
    SPAWN_EXEC,
    SPAWN_STEP_COUNT
};

struct spawn_request {
    const struct user *user;
    char *const *programs; /* paths tried in this order, NULL last: the search of a PATH */
    char *const *argv;
    char *const *envp;
    const char *cwd;      /* NULL: the root folder */
    const char *cwd_else; /* taken when `cwd` cannot be entered; NULL: that is an error */
    int fds[3];           /* become 0, 1, 2; all at least 3 */
};

struct spawned {
    pid_t pid;
    int pidfd; /* O_CLOEXEC; readable when the process has ended, also as a zombie */
};

/* Starts the process in a session and process group of its own, with the user's ids and groups,
 * no signal blocked, oom_score_adj 100. When it returns 0 the program runs (exec has succeeded).
 * The caller's thread must reap it with spawn_reap, and must live until then.
 * On failure `ret_step` says where and e->errnum why; nothing is left behind. Any thread. */
int spawn_process(
    const struct spawn_request *r, struct spawned *ret, enum spawn_step *ret_step, struct err *e);

/* Waits for the end of a process of this thread and stores the status of waitpid(2). Until then its
 * pid, and the id of its group, can belong to nothing else. */
int spawn_reap(pid_t pid, int *ret_status, struct err *e);

#endif
