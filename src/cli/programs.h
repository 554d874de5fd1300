/* SPDX-License-Identifier: Apache-2.0 */
/* The programs of an installation: from where they were built to <data>/bin. */
#ifndef TORPOR_CLI_PROGRAMS_H
#define TORPOR_CLI_PROGRAMS_H

#include "cli/daemon.h"

struct programs {
    char from[PATH_MAX]; /* a folder with all of them */
    bool agent_changed;  /* the agent, or what it starts and boots */
    bool control_changed;
    bool any_changed;
};

/* Finds them: TORPOR_PROGRAMS, else the folder of this program. Compares with what is installed.
 * ERR_NOT_FOUND names what is missing. */
int programs_find(struct host_run *r, struct programs *ret, struct err *e);
/* Puts them into <data>/bin, each at once: what runs keeps the file it has. */
int programs_install(struct host_run *r, const struct programs *p, struct err *e);

#endif
