/* SPDX-License-Identifier: Apache-2.0 */
/* Handlers of /v1/snapshots: what sandboxes can be created from. */
#include "control/api/body.h"

#include <inttypes.h>
#include <stdio.h>

#include "base/log.h"
#include "json/json.h"

enum {
    LIST_BODY_MAX = 4 << 20, /* 1000 of less than 1 KiB */
    CURSOR_BYTES = 64,
};
static const char types_allowed[] = "base, snapshot";
static const char list_parameters[] = "type, limit, cursor";

/* vcpus and memory_mb belong to a frozen machine; a base template has none. */
static void write_size(
    struct json_writer *w, const char *key, const struct template_entry *t, int v)
{
    json_key(w, key);
    if (t->is_snapshot)
        json_int(w, v);
    else
        json_null(w);
}

static void write_template(struct json_writer *w, const struct template_entry *t)
{
    json_object_begin(w);
    write_text(w, "snapshot_id", t->id.text);
    write_text(w, "name", t->name);
    write_text(w, "type", t->is_snapshot ? "snapshot" : "base");
    write_size(w, "vcpus", t, t->vcpus);
    write_size(w, "memory_mb", t, t->memory_mb);
    json_key(w, "size_bytes");
    json_int(w, t->size_bytes);
    json_key(w, "default_user");
    json_cstr(w, t->default_user);
    write_time(w, "created_at", t->created_at_ms);
    json_object_end(w);
}

static int reply_template(struct call *c, int status, const struct template_entry *t, struct err *e)
{
    AUTO_BUF struct buf body = BUF_INIT(LIST_BODY_MAX);
    struct json_writer w;
    json_writer_init(&w, &body);
    write_template(&w, t);
    return reply_json(c, status, &body, e);
}

/* --- the list --- */

/* "base,snapshot": which are wanted. */
static int read_types(struct call *c, struct slice value, struct template_filter *f, struct err *e)
{
    f->base = f->snapshot = false;
    for (;;) {
        const char *comma = value.n ? memchr(value.p, ',', value.n) : NULL;
        struct slice one = slice_of(value.p, comma ? (size_t)(comma - value.p) : value.n);
        if (slice_is(one, "base"))
            f->base = true;
        else if (slice_is(one, "snapshot"))
            f->snapshot = true;
        else
            return field_error(c, e, "type", types_allowed, "there is no such type of template");
        if (!comma)
            return 0;
        value = slice_of(comma + 1, value.n - one.n - 1);
    }
}

static int read_limit(struct call *c, struct slice value, struct template_filter *f, struct err *e)
{
    uint64_t limit;
    if (!slice_parse_u64(value, &limit) || limit < 1 || limit > LIMIT_LIST_MAX)
        return field_error(c, e, "limit", "1..1000", "limit must be from 1 to %d", LIMIT_LIST_MAX);
    f->limit = (size_t)limit;
    return 0;
}

/* "<created_at in ms>.<id>" of the last one that the client has. */
static int read_cursor(struct call *c, struct slice value, struct template_filter *f, struct err *e)
{
    const char *dot = value.n ? memchr(value.p, '.', value.n) : NULL;
    size_t n = dot ? (size_t)(dot - value.p) : 0;
    uint64_t ms;
    if (!dot || !slice_parse_u64(slice_of(value.p, n), &ms) || ms > INT64_MAX ||
        !template_id_parse(slice_of(dot + 1, value.n - n - 1), &f->before_id))
        return field_error(c, e, "cursor", NULL, "the cursor is not one of X-Next-Cursor");
    f->before_created_ms = (int64_t)ms;
    return 0;
}

/* A query parameter that may be there once. */
struct parameter {
    const char *name;
    int (*read)(struct call *c, struct slice value, struct template_filter *f, struct err *e);
};
static const struct parameter parameters[] = {
    {"type", read_types}, {"limit", read_limit}, {"cursor", read_cursor}};

/* Which parameter stands in `pair`. */
static const struct parameter *find_parameter(struct slice pair)
{
    const char *eq = pair.n ? memchr(pair.p, '=', pair.n) : NULL;
    for (size_t i = 0; eq && i < ARRAY_LEN(parameters); i++)
        if (slice_is(slice_of(pair.p, (size_t)(eq - pair.p)), parameters[i].name))
            return &parameters[i];
    return NULL;
}

static int read_parameter(
    struct call *c, const struct parameter *p, struct template_filter *f, struct err *e)
{
    struct slice value;
    if (!http_request_query(c->x, p->name, &value))
        return field_error(c, e, "query", list_parameters, "malformed percent-encoding");
    return p->read(c, value, f, e);
}

static int read_query(struct call *c, struct template_filter *f, struct err *e)
{
    struct slice query = http_request(c->x)->query;
    unsigned seen = 0;
    while (query.n > 0) {
        const char *amp = memchr(query.p, '&', query.n);
        size_t n = amp ? (size_t)(amp - query.p) : query.n;
        const struct parameter *p = find_parameter(slice_of(query.p, n));
        if (!p)
            return field_error(c, e, "query", list_parameters, "unknown query parameter");
        if (seen & 1u << (p - parameters))
            return field_error(c, e, p->name, NULL, "%s is given twice", p->name);
        seen |= 1u << (p - parameters);
        if (read_parameter(c, p, f, e) < 0)
            return -1;
        query = slice_of(query.p + n + (amp ? 1 : 0), query.n - n - (amp ? 1 : 0));
    }
    return 0;
}

int snapshot_list(struct call *c, struct err *e)
{
    AUTO_BUF struct buf body = BUF_INIT(LIST_BODY_MAX);
    struct template_filter f = {
        .base = true, .snapshot = true, .before_created_ms = -1, .limit = LIMIT_LIST_DEFAULT};
    struct template_list list = {0};
    struct json_writer w;
    if (read_query(c, &f, e) < 0 ||
        service_templates(c->service, &c->who, &f, c->arena, &list, e) < 0)
        return -1;
    json_writer_init(&w, &body);
    json_array_begin(&w);
    for (size_t i = 0; i < list.n; i++)
        write_template(&w, &list.entries[i]);
    json_array_end(&w);
    if (list.more) {
        const struct template_entry *last = &list.entries[list.n - 1];
        http_reply_header(
            c->x, "X-Next-Cursor", "%" PRId64 ".%s", last->created_at_ms, last->id.text);
    }
    return reply_json(c, HTTP_OK, &body, e);
}

/* --- one --- */

static int check_name(struct call *c, struct err *e)
{
    return template_name_valid(c->name)
               ? 0
               : field_error(c, e, "name", template_pattern, "that is not the name of a template");
}

int snapshot_get(struct call *c, struct err *e)
{
    struct template_entry t;
    if (check_name(c, e) < 0 || service_template(c->service, &c->who, c->name, &t, e) < 0)
        return -1;
    return reply_template(c, HTTP_OK, &t, e);
}

int snapshot_delete(struct call *c, struct err *e)
{
    if (check_name(c, e) < 0 || service_snapshot_delete(c->service, &c->who, c->name, e) < 0)
        return -1;
    return reply_empty(c);
}

/* --- a new one --- */

struct create_body {
    struct slice sandbox_id;
    struct slice name;
};

static bool check_sandbox_id(struct slice s)
{
    struct sandbox_id id;
    return sandbox_id_parse(s, &id);
}

/* An id never changes its meaning, so nobody may give one away as a name. */
static bool check_new_name(struct slice s)
{
    struct template_id id;
    return template_name_valid(s) && !template_id_parse(s, &id);
}

static const struct body_field create_fields[] = {
    {.name = "sandbox_id",
        .kind = BODY_STRING,
        .offset = offsetof(struct create_body, sandbox_id),
        .required = true,
        .valid = check_sandbox_id,
        .allowed = "the id of a sandbox"},
    {.name = "name",
        .kind = BODY_STRING,
        .offset = offsetof(struct create_body, name),
        .valid = check_new_name,
        .allowed = template_pattern},
};

/* The query has at most "overwrite". */
static int read_overwrite(struct call *c, bool *ret, struct err *e)
{
    struct slice query = http_request(c->x)->query;
    if (query.n == 0 || slice_is(query, "overwrite=false"))
        *ret = false;
    else if (slice_is(query, "overwrite=true"))
        *ret = true;
    else if (query.n > 10 && memcmp(query.p, "overwrite=", 10) == 0)
        return field_error(c, e, "overwrite", "true, false", "overwrite must be true or false");
    else
        return field_error(c, e, "query", "overwrite", "unknown query parameter");
    return 0;
}

int snapshot_create(struct call *c, struct err *e)
{
    struct create_body b = {.name = {0}};
    struct snapshot_params p = {.overwrite = false};
    struct snapshot_made made = {0};
    if (read_overwrite(c, &p.overwrite, e) < 0 ||
        body_read(c, create_fields, ARRAY_LEN(create_fields), &b, e) < 0)
        return -1;
    (void)sandbox_id_parse(b.sandbox_id, &p.sandbox);
    p.name = b.name;
    log_context_set(c->request_id, p.sandbox.text);
    if (service_snapshot_create(c->service, &c->who, &p, &made, e) < 0)
        return -1;
    reply_phases(c, &made.phases);
    return reply_template(c, HTTP_CREATED, &made.entry, e);
}
