/* SPDX-License-Identifier: Apache-2.0 */
/* Percentiles and rows. */
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>

#include "bench.h"

void samples_add(struct samples *s, int64_t us)
{
    assert(s->n < SAMPLES_MAX);
    s->us[s->n++] = us;
}

static int compare(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a;
    int64_t y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

int64_t samples_percentile(struct samples *s, unsigned percent)
{
    size_t rank;
    if (s->n == 0)
        return 0;
    qsort(s->us, s->n, sizeof *s->us, compare);
    rank = (s->n * percent + 99) / 100;
    return s->us[rank > 0 ? rank - 1 : 0];
}

static double ms(int64_t us)
{
    return (double)us / 1000;
}

static void print_both(const char *name, struct samples *ours, struct samples *raw)
{
    printf("%s (n=%zu)\n    ours p50 %.2f ms, p99 %.2f ms; raw p50 %.2f ms, p99 %.2f ms\n", name,
        ours->n, ms(samples_percentile(ours, 50)), ms(samples_percentile(ours, 99)),
        ms(samples_percentile(raw, 50)), ms(samples_percentile(raw, 99)));
}

void report_ratio(const char *name, struct samples *ours, struct samples *raw, double limit)
{
    double ratio = ms(samples_percentile(ours, 50)) / ms(samples_percentile(raw, 50));
    print_both(name, ours, raw);
    printf("    ratio %.3f (must be <= %.2f): %s\n", ratio, limit, ratio <= limit ? "ok" : "OVER");
}

void report_beside(const char *name, struct samples *ours, struct samples *raw)
{
    print_both(name, ours, raw);
    printf("    ratio %.3f\n", ms(samples_percentile(ours, 50)) / ms(samples_percentile(raw, 50)));
}

void report_added(const char *name, struct samples *ours, struct samples *raw, double limit_ms)
{
    double added = ms(samples_percentile(ours, 50) - samples_percentile(raw, 50));
    print_both(name, ours, raw);
    printf("    ratio %.3f, added %.3f ms (must be <= %.1f): %s\n",
        ms(samples_percentile(ours, 50)) / ms(samples_percentile(raw, 50)), added, limit_ms,
        added <= limit_ms ? "ok" : "OVER");
}

void report_value(const char *name, double value, const char *unit, const char *limit, bool holds)
{
    printf("%s\n    %g %s (must be %s): %s\n", name, value, unit, limit, holds ? "ok" : "OVER");
}

void report_unmeasured(const char *name, const char *why)
{
    printf("%s\n    not measured here: %s\n", name, why);
}
