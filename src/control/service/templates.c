/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Base templates: what the host has, under the ids that the database gave their names.
 *
 * The host knows names, sizes and users; an id is made at the first sight of a name and never
 * changes its meaning.
 */
#include "control/service/service_int.h"

#include "base/arena.h"
#include "base/cleanup.h"
#include "base/clock.h"

enum {
    REFRESH_MS = 5000,
    LIST_ARENA_BYTES = 512 * 1024 * 1024, /* only a bound, as the reconciler's */
};

int service_refresh_catalog(struct service *s, struct err *e)
{
    CLEANUP(arena_done) struct arena arena = {0};
    /* Nothing has changed since the end of time, so only the host itself is described. */
    struct agent_list_request req = {.since_revision = UINT64_MAX};
    struct agent_list_response said = {0};
    struct host_id host;
    struct host_row known;
    int64_t asked = clock_mono_ms();
    arena_init(&arena, LIST_ARENA_BYTES);
    if (agent_call(s->agent, AGENT_LIST, &req, &said, &arena, REFRESH_MS, e) < 0)
        return -1;
    if (!host_id_parse(said.host_id, &host))
        return err_set(e, ERR_AGENT, "the agent's host id is malformed");
    /* A sandbox may be made there before the first poll: its row names the host. */
    if (service_see_host(s, &host, &said, &known, e) < 0)
        return -1;
    catalog_fill(&s->catalog, &host, &said, asked);
    return 0;
}

static int to_entry(
    struct service *s, const struct catalog_template *t, struct template_entry *ret, struct err *e)
{
    struct template_entry entry = {.size_bytes = t->size_bytes, .created_at_ms = t->created_at_ms};
    if (s->store->ops->template_base(s->store, slice_cstr(t->name), clock_real_ms(), &entry.id, e) <
        0)
        return -1;
    memcpy(entry.name, t->name, sizeof entry.name);
    memcpy(entry.default_user, t->default_user, sizeof entry.default_user);
    *ret = entry;
    return 0;
}

/* 1: found. 0: the host has none of that name or id. A name wins over an id. */
static int find(struct service *s, struct slice name_or_id, struct catalog_template *ret,
    struct template_entry *ret_entry, struct err *e)
{
    AUTO_FREE struct catalog_template *all = NULL;
    struct template_id id;
    size_t n;
    if (catalog_find(&s->catalog, name_or_id, ret))
        return to_entry(s, ret, ret_entry, e) < 0 ? -1 : 1;
    if (!template_id_parse(name_or_id, &id))
        return 0;
    all = calloc(CATALOG_MAX, sizeof *all);
    if (!all)
        return err_set(e, ERR_NOMEM, "out of memory");
    n = catalog_copy(&s->catalog, all);
    for (size_t i = 0; i < n; i++) {
        if (to_entry(s, &all[i], ret_entry, e) < 0)
            return -1;
        *ret = all[i];
        if (strcmp(ret_entry->id.text, id.text) == 0)
            return 1;
    }
    return 0;
}

static int no_template(struct slice name, struct err *e)
{
    err_field(e, "template", "there is no template %.*s", (int)name.n, name.n ? name.p : "");
    e->kind = ERR_NOT_FOUND;
    return -1;
}

static int still_building(const char *name, struct err *e)
{
    return err_set(e, ERR_TEMPLATE_BUILDING, "template %s is still being built", name);
}

int service_template(
    struct service *s, struct slice name, struct template_entry *ret, struct err *e)
{
    struct catalog_template t;
    struct template_entry entry;
    int rc = find(s, name, &t, &entry, e);
    if (rc < 0)
        return -1;
    if (rc == 0)
        return no_template(name, e);
    if (t.building)
        return still_building(t.name, e);
    *ret = entry;
    return 0;
}

/* A template that the last answer did not have, or had as being built, may be there by now. */
int service_template_for_create(struct service *s, struct slice name_or_id,
    char ret_name[LIMIT_NAME_MAX + 1], struct template_id *ret_id, struct err *e)
{
    struct template_entry entry;
    if (service_template(s, name_or_id, &entry, e) < 0) {
        if (e->kind != ERR_NOT_FOUND && e->kind != ERR_TEMPLATE_BUILDING)
            return -1;
        if (service_refresh_catalog(s, e) < 0 || service_template(s, name_or_id, &entry, e) < 0)
            return -1;
    }
    memcpy(ret_name, entry.name, sizeof entry.name);
    *ret_id = entry.id;
    return 0;
}

static int compare_entries(const void *a, const void *b)
{
    const struct template_entry *x = a;
    const struct template_entry *y = b;
    if (x->created_at_ms != y->created_at_ms)
        return x->created_at_ms < y->created_at_ms ? 1 : -1;
    return strcmp(x->name, y->name);
}

int service_templates(struct service *s, struct arena *a, struct template_list *ret, struct err *e)
{
    struct catalog_template *all = arena_calloc(a, CATALOG_MAX, sizeof *all);
    struct template_list l = {.entries = arena_calloc(a, CATALOG_MAX, sizeof *l.entries)};
    size_t n;
    if (!all || !l.entries)
        return err_set(e, ERR_NOMEM, "out of memory");
    n = catalog_copy(&s->catalog, all);
    for (size_t i = 0; i < n; i++) {
        if (all[i].building)
            continue;
        if (to_entry(s, &all[i], &l.entries[l.n], e) < 0)
            return -1;
        l.n++;
    }
    qsort(l.entries, l.n, sizeof *l.entries, compare_entries);
    *ret = l;
    return 0;
}
