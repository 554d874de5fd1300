/* SPDX-License-Identifier: Apache-2.0 */
/* The launch plan as the shim receives it. */
#ifndef TORPOR_SHIM_PLAN_H
#define TORPOR_SHIM_PLAN_H

#include <stdbool.h>

#include "base/err.h"
#include "proto/shim.h"

struct plan_file {
    const char *source;
    const char *target;
    bool exec;
};

/* One piece of memory, so that nothing of it is left once the VMM runs. The pointers point into
 * `body`. */
struct plan {
    struct shim_plan_head head;
    int fds[SHIM_FD_COUNT]; /* the plan's; -1 until received */
    char *argv[SHIM_ARGS_MAX + 1];
    struct plan_file files[SHIM_FILES_MAX];
    char body[SHIM_BODY_MAX];
};

/* An empty plan, NULL without memory. */
struct plan *plan_new(void);
/* Closes the descriptors and gives the memory back. NULL is fine; returns NULL. */
struct plan *plan_free(struct plan *p);

/* Receives and checks one plan from `sock`. Waits until the agent has sent it or closed. */
int plan_receive(int sock, struct plan *p, struct err *e);

/* Checks p->head: magic, version, counts, bounds, uid, names. ERR_PROTOCOL. */
int plan_check_head(const struct plan *p, struct err *e);
/* Splits p->body into argv and files and checks every path. p->head is checked. ERR_PROTOCOL. */
int plan_parse_body(struct plan *p, struct err *e);

#endif
