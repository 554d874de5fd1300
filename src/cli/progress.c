/* SPDX-License-Identifier: Apache-2.0 */
/* The moving line. */
#include "cli/progress.h"

#include "base/cleanup.h"
#include "base/clock.h"

enum { FIRST_MS = 400, TURN_MS = 100, MIB = 1 << 20 };

void progress_start(struct progress *p, const struct cli *c, const char *what)
{
    int64_t now = clock_mono_ms();
    *p = (struct progress){.out = c->err_is_tty ? c->err : NULL,
        .what = what,
        .began_ms = now,
        .next_ms = now + FIRST_MS,
        .bytes = -1};
}

int64_t progress_tick(struct progress *p)
{
    static const char *const marks[] = {"⠋", "⠙", "⠹", "⠸", "⠼", "⠴", "⠦", "⠧", "⠇", "⠏"};
    int64_t now = clock_mono_ms();
    if (!p->out)
        return DEADLINE_NEVER;
    if (now < p->next_ms)
        return p->next_ms;
    (void)fprintf(p->out, "\r\033[K%s %s", marks[p->turn++ % ARRAY_LEN(marks)], p->what);
    if (p->bytes >= 0)
        (void)fprintf(p->out, " %.1f MiB", (double)p->bytes / MIB);
    (void)fprintf(p->out, " %.1f s", (double)(now - p->began_ms) / 1000);
    (void)fflush(p->out);
    p->next_ms = now + TURN_MS;
    return p->next_ms;
}

void progress_end(struct progress *p)
{
    if (p->out && p->turn > 0) {
        (void)fprintf(p->out, "\r\033[K");
        (void)fflush(p->out);
    }
    p->out = NULL;
}
