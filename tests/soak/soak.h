/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Churn for a long time, and whether anything grows.
 *
 * Theory of operation: main.c starts a whole Torpor and some workers, processes of their own, each
 * of which leads sandboxes through their lives (churn.c). Now and then main.c kills the agent or
 * the control plane and starts it again. At each checkpoint the workers stand still, everything is
 * deleted, and what is left is measured (measure.c): it must not grow. An answer that is an error
 * counts as explained only when a program of Torpor was dead, or had just been started, at some
 * time of that call; sandboxes must have outlived that too.
 */
#ifndef TORPOR_TESTS_SOAK_H
#define TORPOR_TESTS_SOAK_H

#include <stdatomic.h>
#include <stdint.h>

#include "e2e/sleep.h"

enum soak_op {
    OP_CREATE,
    OP_EXEC,
    OP_CHECK,
    OP_PAUSE,
    OP_RESUME,
    OP_SNAPSHOT,
    OP_SPAWN,
    OP_DELETE_SNAPSHOT,
    OP_DESTROY,
    OP_KILL_VMM,
    OP_KILL_SHIM,
    OP_RESUME_LAST,
    OP_COUNT
};
extern const char *const soak_op_names[OP_COUNT];

/* What all processes of a run share. */
struct soak {
    struct stack stack; /* written by main.c alone, also its port after a restart */
    atomic_llong n[OP_COUNT];
    atomic_llong explained;      /* errors */
    atomic_llong unexplained;    /* each is printed */
    atomic_llong lost;           /* sandboxes that were not as they should be; each is printed */
    atomic_llong dead_since_ms;  /* monotonic: a program is dead since; 0: none is */
    atomic_llong alive_since_ms; /* the last restart, 0: none yet */
    atomic_int stand_still;      /* workers begin no new round */
    atomic_int standing;         /* workers that do so */
    atomic_int ending;
};

/* Rounds until `ending`; each deletes what it made. The caller is a process of its own. */
void churn(struct soak *soak, unsigned worker, unsigned seed);

struct measured {
    long agent_kib; /* VmRSS */
    long control_kib;
    long agent_fds;
    long control_fds;
    long agent_threads;
    long control_threads;
    struct disk_use disk; /* of what sandboxes have */
    long host_objects;    /* links, namespaces, nft, processes, files of the run folder */
};
void measure(const struct stack *s, struct measured *ret);
void measure_print_head(void);
void measure_print(int64_t second, const struct measured *m);
/* What has grown from `a` to `b` beyond what noise explains, one line each; how many. */
int measure_compare(const struct measured *a, const struct measured *b);

#endif
