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
    int fds[SHIM_FDS_MAX]; /* the plan's, in the order of proto/shim.h; -1 until received */
    char *argv[SHIM_ARGS_MAX + 1];
    struct plan_file files[SHIM_FILES_MAX];
    char body[SHIM_BODY_MAX];
};

/* Where in `fds` the parts begin; the head is checked. */
enum { PLAN_FD_LAYERS = SHIM_FD_COUNT };
static inline unsigned plan_fd_map(const struct plan *p)
{
    return PLAN_FD_LAYERS + p->head.n_layers;
}
static inline unsigned plan_fd_blobs(const struct plan *p)
{
    return plan_fd_map(p) + (p->head.flags & SHIM_PLAN_RESTORE ? 1 : 0);
}
static inline unsigned plan_fd_hints(const struct plan *p)
{
    return plan_fd_blobs(p) + p->head.n_blobs;
}
static inline unsigned plan_fd_count(const struct plan *p)
{
    return plan_fd_hints(p) + (p->head.flags & SHIM_PLAN_HINTS ? 1 : 0);
}

/* An empty plan, NULL without memory. */
struct plan *plan_new(void);
/* Closes the descriptors and gives the memory back. NULL is fine; returns NULL. */
struct plan *plan_free(struct plan *p);

/* Receives and checks one plan from `sock`. Waits until the agent has sent it or closed. */
int plan_receive(int sock, struct plan *p, struct err *e);

/* Checks p->head: magic, version, counts, bounds, flags, memory, uid, names. ERR_PROTOCOL. */
int plan_check_head(const struct plan *p, struct err *e);
/* Splits p->body into argv and files and checks every path. p->head is checked. ERR_PROTOCOL. */
int plan_parse_body(struct plan *p, struct err *e);

#endif
