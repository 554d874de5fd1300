/* SPDX-License-Identifier: Apache-2.0 */
/* One poll on its way between reconcile.c, which asks, and settle.c, which deals with the answer.
 */
#ifndef TORPOR_CONTROL_SERVICE_POLL_INT_H
#define TORPOR_CONTROL_SERVICE_POLL_INT_H

#include "control/service/decide.h"
#include "control/service/service_int.h"

struct poll {
    struct service *s;
    struct arena *arena;
    bool asked_all;
    struct sandbox_list before; /* live rows of the host, read before the question; sorted */
    struct agent_list_response said;
    struct reconcile_reply reply;
    struct slice *named; /* ids of the reply, sorted */
    size_t n_named;
    struct slice *reported; /* likewise, only those whose state it says */
    size_t n_reported;
    char unknown[UNKNOWN_MAX][ID_TEXT_MAX + 1];
    size_t n_unknown; /* may be more than are kept */
    bool left_over;   /* something could not be done now */
};

/* The order of `before`: by id; for qsort. */
int poll_compare_rows(const void *a, const void *b);
/* Does what follows from the reply. What cannot be done now is said in `left_over`. */
int poll_settle(struct poll *p, struct err *e);

#endif
