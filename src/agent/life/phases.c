/* SPDX-License-Identifier: Apache-2.0 */
/* Durations of the parts of transitions. */
#include "agent/life/phases.h"

#include <stdio.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/clock.h"

/* The bounds that Prometheus' clients take by default, from a millisecond on. */
const int64_t histogram_bounds_us[HISTOGRAM_BUCKETS - 1] = {1000, 2500, 5000, 10000, 25000, 50000,
    100000, 250000, 500000, 1000000, 2500000, 5000000, 10000000};

void phases_begin(struct phases *p)
{
    *p = (struct phases){.began_us = clock_mono_us()};
    p->last_us = p->began_us;
}

void phases_end(struct phases *p, const char *name)
{
    int64_t now = clock_mono_us();
    if (p->n < PHASES_MAX)
        p->items[p->n++] = (struct phase){name, now - p->last_us};
    p->last_us = now;
}

void phases_format(const struct phases *p, char *dst, size_t dst_size)
{
    size_t at = 0;
    dst[0] = '\0';
    for (size_t i = 0; i < p->n && at < dst_size; i++)
        at += (size_t)snprintf(dst + at, dst_size - at, "%s_ms=%.1f ", p->items[i].name,
            (double)p->items[i].us / 1000);
    if (at < dst_size)
        (void)snprintf(
            dst + at, dst_size - at, "total_ms=%.1f", (double)(p->last_us - p->began_us) / 1000);
}

void histograms_init(struct histograms *h)
{
    *h = (struct histograms){0};
    (void)pthread_mutex_init(&h->lock, NULL);
}

void histograms_done(struct histograms *h)
{
    (void)pthread_mutex_destroy(&h->lock);
}

static struct histogram *find(struct histograms *h, const char *operation, const char *phase)
{
    for (size_t i = 0; i < h->n; i++)
        if (strcmp(h->items[i].operation, operation) == 0 && strcmp(h->items[i].phase, phase) == 0)
            return &h->items[i];
    if (h->n == HISTOGRAMS_MAX)
        return NULL;
    h->items[h->n] = (struct histogram){.operation = operation, .phase = phase};
    return &h->items[h->n++];
}

static void add(struct histograms *h, const char *operation, const char *phase, int64_t us)
{
    struct histogram *one = find(h, operation, phase);
    if (!one)
        return;
    for (size_t i = 0; i < HISTOGRAM_BUCKETS; i++)
        if (i == HISTOGRAM_BUCKETS - 1 || us <= histogram_bounds_us[i])
            one->buckets[i]++;
    one->sum_us += (uint64_t)us;
    one->count++;
}

void histograms_add(struct histograms *h, const char *operation, const struct phases *p)
{
    MUTEX_GUARD(&h->lock);
    for (size_t i = 0; i < p->n; i++)
        add(h, operation, p->items[i].name, p->items[i].us);
    add(h, operation, "total", p->last_us - p->began_us);
}

void histograms_each(
    struct histograms *h, void (*each)(void *ctx, const struct histogram *histogram), void *ctx)
{
    MUTEX_GUARD(&h->lock);
    for (size_t i = 0; i < h->n; i++)
        each(ctx, &h->items[i]);
}
