/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The catalogue: a copy of what the host says of itself, so that a request asks nobody.
 *
 * Answers come from two sides, the reconciler and creates that miss a template; the one that was
 * asked for later wins.
 */
#include "control/service/catalog.h"

#include "base/cleanup.h"
#include "base/clock.h"

void catalog_init(struct catalog *c)
{
    *c = (struct catalog){.host = {""}};
    (void)pthread_mutex_init(&c->mutex, NULL);
}

void catalog_done(struct catalog *c)
{
    (void)pthread_mutex_destroy(&c->mutex);
}

/* The one of that name, or a new one; NULL when it is no name or there is no room. */
static struct catalog_template *enter(struct catalog *c, struct slice name)
{
    struct catalog_template *t;
    for (size_t i = 0; i < c->n_templates; i++)
        if (slice_is(name, c->templates[i].name))
            return &c->templates[i];
    if (c->n_templates == CATALOG_MAX || !template_name_valid(name))
        return NULL;
    t = &c->templates[c->n_templates++];
    *t = (struct catalog_template){.created_at_ms = 0};
    (void)slice_copy_cstr(name, t->name, sizeof t->name);
    return t;
}

/* Agents name their templates, and say more of them since they can. */
static void fill_templates(struct catalog *c, const struct agent_list_response *said)
{
    const struct slice *names = said->templates.items;
    struct agent_template_info *const *infos = said->base_templates.items;
    c->n_templates = 0;
    for (size_t i = 0; i < said->base_templates.n; i++) {
        struct catalog_template *t = enter(c, infos[i]->name);
        if (!t)
            continue;
        t->size_bytes = infos[i]->size_bytes > 0 ? infos[i]->size_bytes : 0;
        t->created_at_ms = infos[i]->created_at_ms > 0 ? infos[i]->created_at_ms : 0;
        t->building = infos[i]->building;
        (void)slice_copy_cstr(infos[i]->default_user, t->default_user, sizeof t->default_user);
    }
    for (size_t i = 0; i < said->templates.n; i++)
        (void)enter(c, names[i]);
}

static bool is_metric_name(struct slice s, size_t max)
{
    for (size_t i = 0; i < s.n; i++)
        if (!((s.p[i] >= 'a' && s.p[i] <= 'z') || (s.p[i] >= '0' && s.p[i] <= '9') ||
                s.p[i] == '_'))
            return false;
    return s.n > 0 && s.n <= max && s.p[0] >= 'a';
}

/* False for one whose names or numbers are not what they must be. */
static bool take_histogram(const struct agent_histogram *said, struct phase_histogram *ret)
{
    const uint64_t *buckets = said->buckets.items;
    if (!is_metric_name(said->name, HISTOGRAM_NAME_MAX) ||
        !is_metric_name(said->phase, PHASE_NAME_MAX) || said->buckets.n != AGENT_HISTOGRAM_BUCKETS)
        return false;
    (void)slice_copy_cstr(said->name, ret->name, sizeof ret->name);
    (void)slice_copy_cstr(said->phase, ret->phase, sizeof ret->phase);
    memcpy(ret->buckets, buckets, sizeof ret->buckets);
    ret->sum_us = said->sum_us;
    ret->count = said->count;
    return true;
}

static void fill_histograms(struct catalog *c, const struct agent_list_response *said)
{
    struct agent_histogram *const *list = said->histograms.items;
    c->n_histograms = 0;
    for (size_t i = 0; i < said->histograms.n && c->n_histograms < HISTOGRAMS_MAX; i++)
        if (take_histogram(list[i], &c->histograms[c->n_histograms]))
            c->n_histograms++;
}

void catalog_fill(struct catalog *c, const struct host_id *host,
    const struct agent_list_response *said, int64_t asked_mono_ms)
{
    MUTEX_GUARD(&c->mutex);
    c->seen_mono_ms = clock_mono_ms();
    c->up = true;
    if (asked_mono_ms < c->asked_mono_ms)
        return;
    c->asked_mono_ms = asked_mono_ms;
    c->host = *host;
    c->has_capacity = said->capacity != NULL;
    if (said->capacity)
        c->capacity = *said->capacity;
    fill_templates(c, said);
    fill_histograms(c, said);
}

void catalog_note_down(struct catalog *c)
{
    MUTEX_GUARD(&c->mutex);
    c->up = false;
}

bool catalog_find(struct catalog *c, struct slice name, struct catalog_template *ret)
{
    MUTEX_GUARD(&c->mutex);
    for (size_t i = 0; i < c->n_templates; i++)
        if (slice_is(name, c->templates[i].name)) {
            *ret = c->templates[i];
            return true;
        }
    return false;
}

size_t catalog_copy(struct catalog *c, struct catalog_template *dst)
{
    MUTEX_GUARD(&c->mutex);
    memcpy(dst, c->templates, c->n_templates * sizeof *dst);
    return c->n_templates;
}

void catalog_set_unknown(struct catalog *c, char (*ids)[ID_TEXT_MAX + 1], size_t n)
{
    MUTEX_GUARD(&c->mutex);
    c->n_unknown = n;
    memcpy(c->unknown, ids, (n < UNKNOWN_MAX ? n : UNKNOWN_MAX) * sizeof *ids);
}

void catalog_add_unknown(struct catalog *c, const char *id)
{
    MUTEX_GUARD(&c->mutex);
    for (size_t i = 0; i < c->n_unknown && i < UNKNOWN_MAX; i++)
        if (strcmp(c->unknown[i], id) == 0)
            return;
    if (c->n_unknown < UNKNOWN_MAX)
        memcpy(c->unknown[c->n_unknown], id, sizeof c->unknown[0]);
    c->n_unknown++;
}
