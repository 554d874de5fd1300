/* SPDX-License-Identifier: Apache-2.0 */
/* Users of the guest, read from its passwd and group files. */
#ifndef TORPOR_ENVD_USERS_H
#define TORPOR_ENVD_USERS_H

#include <sys/types.h>

#include "base/err.h"
#include "base/slice.h"

enum { USER_NAME_MAX = 64, USER_GROUPS_MAX = 64, USER_PATH_MAX = 1024 };

struct user {
    char name[USER_NAME_MAX + 1];
    char home[USER_PATH_MAX];
    char shell[USER_PATH_MAX];
    uid_t uid;
    gid_t gid;
    gid_t groups[USER_GROUPS_MAX]; /* supplementary ones and `gid`, as initgroups(3) would set */
    size_t n_groups;
};

/* Looks `name` up in `etc_dir`/passwd and its groups in `etc_dir`/group (which may be absent).
 * The files are read anew each time: people add users while we run. Groups beyond the bound are
 * left out. Errors: ERR_NOT_FOUND for an unknown user, ERR_TOO_LARGE for a file over 256 KiB,
 * system errors. Any thread. */
int user_lookup(const char *etc_dir, struct slice name, struct user *ret, struct err *e);

#endif
