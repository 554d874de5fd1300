/* SPDX-License-Identifier: Apache-2.0 */
/* Handlers of /v1/snapshots: what sandboxes can be created from. */
#include "control/api/api_int.h"

#include "json/json.h"

enum { LIST_BODY_MAX = 1 << 20 };
static const char types_allowed[] = "base, snapshot";

/* vcpus and memory_mb belong to a frozen machine; a base template has none. */
static void write_template(struct json_writer *w, const struct template_entry *t)
{
    json_object_begin(w);
    write_text(w, "snapshot_id", t->id.text);
    write_text(w, "name", t->name);
    write_text(w, "type", "base");
    json_key(w, "vcpus");
    json_null(w);
    json_key(w, "memory_mb");
    json_null(w);
    json_key(w, "size_bytes");
    json_int(w, t->size_bytes);
    json_key(w, "default_user");
    json_cstr(w, t->default_user);
    write_time(w, "created_at", t->created_at_ms);
    json_object_end(w);
}

/* "base,snapshot": whether bases are wanted. */
static int read_types(struct call *c, struct slice value, bool *ret_base, struct err *e)
{
    bool base = false;
    for (;;) {
        const char *comma = value.n ? memchr(value.p, ',', value.n) : NULL;
        struct slice one = slice_of(value.p, comma ? (size_t)(comma - value.p) : value.n);
        if (slice_is(one, "base"))
            base = true;
        else if (!slice_is(one, "snapshot"))
            return field_error(c, e, "type", types_allowed, "there is no such type of template");
        if (!comma)
            break;
        value = slice_of(comma + 1, value.n - one.n - 1);
    }
    *ret_base = base;
    return 0;
}

/* The query has at most "type", once. */
static int read_query(struct call *c, bool *ret_base, struct err *e)
{
    struct slice query = http_request(c->x)->query;
    struct slice value;
    *ret_base = true;
    if (query.n == 0)
        return 0;
    if (query.n < 5 || memcmp(query.p, "type=", 5) != 0 || memchr(query.p, '&', query.n))
        return field_error(c, e, "query", "type", "unknown query parameter");
    if (!http_request_query(c->x, "type", &value))
        return field_error(c, e, "query", "type", "malformed percent-encoding");
    return read_types(c, value, ret_base, e);
}

int snapshot_list(struct call *c, struct err *e)
{
    AUTO_BUF struct buf body = BUF_INIT(LIST_BODY_MAX);
    struct template_list list = {0};
    struct json_writer w;
    bool base;
    if (read_query(c, &base, e) < 0)
        return -1;
    if (base && service_templates(c->service, c->arena, &list, e) < 0)
        return -1;
    json_writer_init(&w, &body);
    json_array_begin(&w);
    for (size_t i = 0; i < list.n; i++)
        write_template(&w, &list.entries[i]);
    json_array_end(&w);
    return reply_json(c, HTTP_OK, &body, e);
}

int snapshot_get(struct call *c, struct err *e)
{
    AUTO_BUF struct buf body = BUF_INIT(LIST_BODY_MAX);
    struct template_entry t;
    struct json_writer w;
    if (!template_name_valid(c->name))
        return field_error(c, e, "name", template_pattern, "that is not the name of a template");
    if (service_template(c->service, c->name, &t, e) < 0)
        return -1;
    json_writer_init(&w, &body);
    write_template(&w, &t);
    return reply_json(c, HTTP_OK, &body, e);
}
