/* SPDX-License-Identifier: Apache-2.0 */
/* Runner of do/undo steps. */
#include "agent/life/steps.h"

#include <stdio.h>

int steps_undo(const struct step *steps, size_t n, void *ctx, steps_after *after, struct err *e)
{
    struct err all = {0};
    while (n-- > 0) {
        struct err one = {0};
        if (steps[n].undo_step && steps[n].undo_step(ctx, &one) < 0) {
            (void)err_wrap(&one, "remove %s", steps[n].name);
            (void)err_join(&all, &one);
        }
        if (steps[n].undo_step && after)
            after(ctx, /* undone= */ true, steps[n].name);
    }
    if (all.kind == ERR_NONE)
        return 0;
    *e = all;
    return -1;
}

int steps_do(const struct step *steps, size_t n, void *ctx, steps_after *after, struct err *e)
{
    for (size_t i = 0; i < n; i++) {
        struct err undo = {0};
        if (steps[i].do_step(ctx, e) == 0) {
            if (after)
                after(ctx, /* undone= */ false, steps[i].name);
            continue;
        }
        (void)err_wrap(e, "%s", steps[i].name);
        (void)snprintf(e->where, sizeof e->where, "%s", steps[i].name);
        if (steps_undo(steps, i + 1, ctx, after, &undo) < 0)
            (void)err_join(e, &undo);
        return -1;
    }
    return 0;
}
