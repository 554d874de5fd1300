/* SPDX-License-Identifier: Apache-2.0 */
/* Host resources as steps: all are made, or none stays; removal does every step and reports all. */
#ifndef TORPOR_AGENT_LIFE_STEPS_H
#define TORPOR_AGENT_LIFE_STEPS_H

#include <stdbool.h>
#include <stddef.h>

#include "base/err.h"

struct step {
    const char *name; /* for messages: "network slot" */
    int (*do_step)(void *ctx, struct err *e);
    /* Idempotent, and "already gone" is success. NULL: nothing to undo. */
    int (*undo_step)(void *ctx, struct err *e);
};

/* Told after each step that was done or undone; NULL: nobody is. */
typedef void steps_after(void *ctx, bool undone, const char *name);

/* Does the steps in order. On a failure undoes, in reverse, the failed step and those before it: a
 * step may have failed half-way. `e` keeps the first error, with the step's name as `where`; errors
 * of undos are joined to it. */
int steps_do(const struct step *steps, size_t n, void *ctx, steps_after *after, struct err *e);
/* Undoes all steps in reverse, whatever fails. -1 with all errors joined. */
int steps_undo(const struct step *steps, size_t n, void *ctx, steps_after *after, struct err *e);

#endif
