/* SPDX-License-Identifier: Apache-2.0 */
/* Server-Timing, as a table. */
#include "cli/timing.h"

#include <stdlib.h>
#include <string.h>

#include "base/slice.h"
#include "cli/output.h"

static const char *const titles[] = {"PHASE", "       MS"};
static const char duration[] = ";dur=";

static void add_phase(struct table *t, struct slice one)
{
    const char *at = one.n ? memmem(one.p, one.n, duration, sizeof duration - 1) : NULL;
    if (!at || at == one.p)
        return;
    table_cell(t, "%.*s", (int)(at - one.p), one.p);
    /* The text has a NUL or a comma behind the number, so the conversion ends there. */
    table_cell(t, "%9.3f", strtod(at + sizeof duration - 1, NULL));
}

void timing_print(struct cli *c, const char *server_timing)
{
    AUTO_TABLE struct table table = {0};
    const char *p = server_timing;
    table_init(&table, titles, sizeof titles / sizeof titles[0]);
    while (*p) {
        size_t n = strcspn(p, ",");
        add_phase(&table, slice_of(p, n));
        p += n;
        p += strspn(p, ", ");
    }
    if (table.n_cells > 0)
        table_print(&table, c->out, c->width);
}
