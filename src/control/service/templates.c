/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What sandboxes are created from.
 *
 * Base templates are what the host has, under the ids that the database gave their names: the host
 * knows names, sizes and users; an id is made at the first sight of a name and never changes its
 * meaning. Snapshots are rows of a team. A base template comes before a snapshot of its name.
 */
#include "control/service/service_int.h"

#include "base/arena.h"
#include "base/cleanup.h"
#include "base/clock.h"

enum {
    PIN_TRIES = 8, /* a template that is overwritten between each look and the next */
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

void service_entry_from_row(const struct template_row *row, struct template_entry *ret)
{
    *ret = (struct template_entry){
        .id = row->id,
        .size_bytes = row->size_bytes,
        .created_at_ms = row->created_at_ms,
        .is_snapshot = true,
        .vcpus = row->vcpus,
        .memory_mb = row->memory_mb,
        .host = row->host,
    };
    memcpy(ret->name, row->name, sizeof ret->name);
    memcpy(ret->default_user, row->default_user, sizeof ret->default_user);
}

/* 1: found. 0: the host has no base template of that id. */
static int find_base_by_id(struct service *s, struct slice text, struct catalog_template *ret,
    struct template_entry *ret_entry, struct err *e)
{
    AUTO_FREE struct catalog_template *all = NULL;
    struct template_id id;
    size_t n;
    if (!template_id_parse(text, &id))
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

/* 1: found. 0: the team has none of that name or id. */
static int find_snapshot(struct service *s, const struct principal *who, struct slice name_or_id,
    struct template_entry *ret, struct err *e)
{
    struct template_row row;
    if (s->store->ops->template_get(s->store, &who->team, name_or_id, &row, e) == 0) {
        service_entry_from_row(&row, ret);
        return 1;
    }
    if (e->kind != ERR_NOT_FOUND)
        return -1;
    *e = (struct err){0};
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

int service_template(struct service *s, const struct principal *who, struct slice name,
    struct template_entry *ret, struct err *e)
{
    struct catalog_template t;
    struct template_entry entry;
    int rc = 0;
    if (catalog_find(&s->catalog, name, &t))
        rc = to_entry(s, &t, &entry, e) < 0 ? -1 : 1;
    else if ((rc = find_snapshot(s, who, name, ret, e)) != 0)
        return rc < 0 ? -1 : 0;
    else
        rc = find_base_by_id(s, name, &t, &entry, e);
    if (rc < 0)
        return -1;
    if (rc == 0)
        return no_template(name, e);
    if (t.building)
        return still_building(t.name, e);
    *ret = entry;
    return 0;
}

int service_is_base(struct service *s, struct slice name_or_id, bool *ret, struct err *e)
{
    static const char *const always[] = {"minimal", "base"};
    struct catalog_template t;
    for (size_t i = 0; i < ARRAY_LEN(always); i++)
        if (slice_is(name_or_id, always[i])) {
            *ret = true;
            return 0;
        }
    if (catalog_find(&s->catalog, name_or_id, &t)) {
        *ret = true;
        return 0;
    }
    return s->store->ops->template_is_base(s->store, name_or_id, ret, e);
}

/* A template that the last answer did not have, or had as being built, may be there by now. */
static int find_or_refresh(struct service *s, const struct principal *who, struct slice name_or_id,
    struct template_entry *ret, struct err *e)
{
    if (service_template(s, who, name_or_id, ret, e) == 0)
        return 0;
    if (e->kind != ERR_NOT_FOUND && e->kind != ERR_TEMPLATE_BUILDING)
        return -1;
    if (service_refresh_catalog(s, e) < 0)
        return -1;
    return service_template(s, who, name_or_id, ret, e);
}

int service_template_for_create(struct service *s, const struct principal *who,
    struct slice name_or_id, struct pin *pin, struct template_entry *ret, struct err *e)
{
    for (int i = 0; i < PIN_TRIES; i++) {
        struct template_row still;
        if (find_or_refresh(s, who, name_or_id, ret, e) < 0)
            return -1;
        if (!ret->is_snapshot)
            return 0;
        /* Held first and then looked at again: it is removed only when it is neither. */
        pin_acquire(&s->pins, &ret->id, pin);
        if (s->store->ops->template_get(
                s->store, &who->team, slice_cstr(ret->id.text), &still, e) == 0)
            return 0;
        pin_release(pin);
        if (e->kind != ERR_NOT_FOUND)
            return -1;
    }
    return no_template(name_or_id, e);
}

/* --- lists --- */

/* Newest first; of one time by id, as the cursor counts. */
static int compare_entries(const void *a, const void *b)
{
    const struct template_entry *x = a;
    const struct template_entry *y = b;
    if (x->created_at_ms != y->created_at_ms)
        return x->created_at_ms < y->created_at_ms ? 1 : -1;
    return strcmp(y->id.text, x->id.text);
}

static bool is_behind(const struct template_entry *t, const struct template_filter *f)
{
    struct template_entry cursor = {.id = f->before_id, .created_at_ms = f->before_created_ms};
    return f->before_created_ms < 0 || compare_entries(t, &cursor) > 0;
}

static int list_bases(struct service *s, const struct template_filter *f, struct arena *a,
    struct template_list *l, struct err *e)
{
    struct catalog_template *all = arena_calloc(a, CATALOG_MAX, sizeof *all);
    size_t n;
    if (!all)
        return err_set(e, ERR_NOMEM, "out of memory");
    n = catalog_copy(&s->catalog, all);
    for (size_t i = 0; i < n; i++) {
        if (all[i].building)
            continue;
        if (to_entry(s, &all[i], &l->entries[l->n], e) < 0)
            return -1;
        if (is_behind(&l->entries[l->n], f))
            l->n++;
    }
    return 0;
}

static int list_snapshots(struct service *s, const struct principal *who,
    const struct template_filter *f, struct arena *a, struct template_list *l, struct err *e)
{
    const struct template_query q = {
        .team = who->team,
        .before_created_ms = f->before_created_ms > 0 ? f->before_created_ms : 0,
        .before_id = f->before_id,
        .limit = f->limit + 1,
    };
    struct template_rows rows;
    if (f->before_created_ms == 0) /* only base templates are that old */
        return 0;
    if (s->store->ops->template_list(s->store, &q, a, &rows, e) < 0)
        return -1;
    for (size_t i = 0; i < rows.n; i++)
        service_entry_from_row(&rows.rows[i], &l->entries[l->n++]);
    return 0;
}

int service_templates(struct service *s, const struct principal *who,
    const struct template_filter *f, struct arena *a, struct template_list *ret, struct err *e)
{
    struct template_list l = {
        .entries = arena_calloc(a, CATALOG_MAX + f->limit + 1, sizeof *l.entries)};
    if (!l.entries)
        return err_set(e, ERR_NOMEM, "out of memory");
    if ((f->base && list_bases(s, f, a, &l, e) < 0) ||
        (f->snapshot && list_snapshots(s, who, f, a, &l, e) < 0))
        return -1;
    qsort(l.entries, l.n, sizeof *l.entries, compare_entries);
    l.more = l.n > f->limit;
    if (l.more)
        l.n = f->limit;
    *ret = l;
    return 0;
}
