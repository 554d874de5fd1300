/* SPDX-License-Identifier: Apache-2.0 */
/* Running do/undo steps: all or nothing on the way up, everything on the way down. */
#include "agent/net/net_int.h"

#include "base/clock.h"

void (*net_point_hook)(const char *name);

void net_point(const char *name)
{
    if (net_point_hook)
        net_point_hook(name);
}

int net_steps_undo(const struct net_step *steps, size_t n, void *ctx, struct err *e)
{
    int rc = 0;
    while (n-- > 0) {
        struct err more = {0};
        if (!steps[n].undo || steps[n].undo(ctx, &more) == 0) {
            net_point(steps[n].name);
            continue;
        }
        (void)err_wrap(&more, "%s", steps[n].name);
        rc = rc < 0 ? err_join(e, &more) : (*e = more, -1);
    }
    return rc;
}

static int run_step(const struct net_step *s, void *ctx, bool fail, struct err *e)
{
    if (s->make(ctx, e) < 0)
        return err_wrap(e, "%s", s->name);
    net_point(s->name);
    return fail ? err_set(e, ERR_INTERNAL, "%s: injected failure", s->name) : 0;
}

int net_steps_make(const struct net_step *steps, size_t n, void *ctx, unsigned fail_after,
    uint32_t step_us[NET_STEPS_MAX], struct err *e)
{
    for (size_t i = 0; i < n; i++) {
        int64_t start = clock_mono_us();
        int rc = run_step(&steps[i], ctx, fail_after == i + 1, e);
        step_us[i] = (uint32_t)(clock_mono_us() - start);
        if (rc < 0) {
            struct err undo = {0};
            if (net_steps_undo(steps, i + 1, ctx, &undo) < 0)
                (void)err_join(e, &undo);
            return -1;
        }
    }
    return 0;
}
