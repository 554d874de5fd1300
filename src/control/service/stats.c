/* SPDX-License-Identifier: Apache-2.0 */
/* What the service knows of itself and its host. */
#include "control/service/service_int.h"

#include "base/cleanup.h"
#include "base/clock.h"

static void copy_capacity(struct service_stats *dst, const struct catalog *c)
{
    dst->has_capacity = c->has_capacity;
    dst->memory_mb_total = c->capacity.memory_mb_total;
    dst->memory_mb_used = c->capacity.memory_mb_used;
    dst->slots_total = c->capacity.slots_total;
    dst->slots_used = c->capacity.slots_used;
    dst->disk_free_bytes = c->capacity.disk_free_bytes;
}

int service_stats(struct service *s, struct service_stats *ret, struct err *e)
{
    struct service_stats stats = {.removals = remover_count(&s->remover)};
    struct catalog *c = &s->catalog;
    if (s->store->ops->sandbox_count(s->store, stats.sandboxes, e) < 0)
        return -1;
    MUTEX_GUARD(&c->mutex);
    stats.host = c->host;
    stats.agent_up = c->up;
    stats.poll_age_ms = c->seen_mono_ms ? clock_mono_ms() - c->seen_mono_ms : -1;
    copy_capacity(&stats, c);
    stats.n_unknown = c->n_unknown;
    memcpy(stats.unknown, c->unknown, sizeof stats.unknown);
    stats.n_histograms = c->n_histograms;
    memcpy(stats.histograms, c->histograms, sizeof stats.histograms);
    *ret = stats;
    return 0;
}
