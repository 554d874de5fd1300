/* SPDX-License-Identifier: Apache-2.0 */
/* What a Start request asks for, as execve(2) and chdir(2) want it. */
#ifndef TORPOR_ENVD_COMMAND_H
#define TORPOR_ENVD_COMMAND_H

#include "base/arena.h"
#include "base/err.h"

struct process_config;
struct settings;
struct user;

struct command {
    char **programs; /* candidates for `cmd`, NULL last */
    char **argv;
    char **envp;
    const char *cwd;      /* absolute */
    const char *cwd_else; /* "/" when nobody asked for `cwd`, else NULL */
};

/* Builds it in the arena. The environment: PATH, HOME, USER, LOGNAME and SHELL of the user, then
 * the sandbox's variables, then the request's; later ones win. `cmd` without a slash is searched in
 * the resulting PATH. Errors: ERR_INVALID naming the field, ERR_TOO_LARGE when the arena is full.
 */
int command_build(const struct process_config *config, const struct user *u, struct settings *s,
    struct arena *a, struct command *ret, struct err *e);

#endif
