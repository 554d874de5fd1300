/* SPDX-License-Identifier: Apache-2.0 */
/* Reading JSON bodies into structs. */
#include "control/api/body.h"

#include <stdio.h>

#include "json/json.h"
#include "rpc/message.h"

enum { FIELD_PATH_MAX = ERR_WHERE_MAX };

/* "env.PATH", cut to what an error can name. */
struct member_path {
    char text[FIELD_PATH_MAX];
};

static struct member_path path_of(const struct body_field *f, struct slice key)
{
    struct member_path p;
    (void)snprintf(p.text, sizeof p.text, "%s.%.*s", f->name, (int)key.n, key.p);
    p.text[utf8_complete_prefix(p.text, strlen(p.text))] = '\0';
    return p;
}

static int read_int(
    struct call *c, const struct body_field *f, const struct json_value *v, int *ret, struct err *e)
{
    const char *range = arena_printf(c->arena, "%d..%d", f->min, f->max);
    if (v->type != JSON_INT)
        return field_error(c, e, f->name, range, "%s must be an integer", f->name);
    if (v->integer < f->min || v->integer > f->max)
        return field_error(
            c, e, f->name, range, "%s must be from %d to %d", f->name, f->min, f->max);
    *ret = (int)v->integer;
    return 0;
}

static int read_string(struct call *c, const struct body_field *f, const struct json_value *v,
    struct slice *ret, struct err *e)
{
    if (v->type != JSON_STRING)
        return field_error(c, e, f->name, NULL, "%s must be a string", f->name);
    if (f->valid && !f->valid(v->string))
        return field_error(c, e, f->name, f->allowed, "%s is not allowed", f->name);
    *ret = v->string;
    return 0;
}

/* Room for the members of an array or object. */
static int list_start(struct call *c, const struct body_field *f, const struct json_value *v,
    size_t item_size, struct body_list *ret, struct err *e)
{
    void *items;
    if (v->count > f->count_max)
        return field_error(c, e, f->name, arena_printf(c->arena, "0..%zu entries", f->count_max),
            "%s has more than %zu entries", f->name, f->count_max);
    items = arena_calloc(c->arena, v->count + 1, item_size);
    if (!items)
        return err_set(e, ERR_TOO_LARGE, "the body is too large");
    *ret = (struct body_list){items, v->count};
    return 0;
}

static int read_strings(struct call *c, const struct body_field *f, const struct json_value *v,
    struct body_list *ret, struct err *e)
{
    struct body_list l;
    struct slice *at;
    if (v->type != JSON_ARRAY)
        return field_error(c, e, f->name, NULL, "%s must be an array of strings", f->name);
    if (list_start(c, f, v, sizeof *at, &l, e) < 0)
        return -1;
    at = l.items;
    for (const struct json_value *s = v->first; s; s = s->next) {
        if (s->type != JSON_STRING)
            return field_error(c, e, f->name, NULL, "%s must hold only strings", f->name);
        if (f->valid && !f->valid(s->string))
            return field_error(
                c, e, f->name, f->allowed, "%s holds a string that is not allowed", f->name);
        *at++ = s->string;
    }
    *ret = l;
    return 0;
}

static int read_env(struct call *c, const struct body_field *f, const struct json_value *v,
    struct body_list *ret, struct err *e)
{
    struct body_list l;
    struct rpc_entry *at;
    if (v->type != JSON_OBJECT)
        return field_error(c, e, f->name, NULL, "%s must be an object of strings", f->name);
    if (list_start(c, f, v, sizeof *at, &l, e) < 0)
        return -1;
    at = l.items;
    for (const struct json_value *m = v->first; m; m = m->next) {
        struct member_path path = path_of(f, m->key);
        if (!check_env_name(m->key))
            return field_error(c, e, path.text, "1 to 255 bytes, no '=' and no control characters",
                "not a variable's name");
        if (m->type != JSON_STRING || !check_env_value(m->string))
            return field_error(c, e, path.text, "a string of at most 32768 bytes, no NUL",
                "not a variable's value");
        *at++ = (struct rpc_entry){m->key, m->string};
    }
    *ret = l;
    return 0;
}

static int read_metadata(struct call *c, const struct body_field *f, const struct json_value *v,
    struct body_list *ret, struct err *e)
{
    struct body_list l;
    struct metadata_edit *at;
    if (v->type != JSON_OBJECT)
        return field_error(c, e, f->name, NULL, "%s must be an object of strings", f->name);
    if (list_start(c, f, v, sizeof *at, &l, e) < 0)
        return -1;
    at = l.items;
    for (const struct json_value *m = v->first; m; m = m->next) {
        struct member_path path = path_of(f, m->key);
        bool remove = f->removes && m->type == JSON_NULL;
        if (!check_metadata_key(m->key))
            return field_error(
                c, e, path.text, "1 to 63 bytes, no control characters", "not a metadata key");
        if (!remove && (m->type != JSON_STRING || !check_metadata_value(m->string)))
            return field_error(
                c, e, path.text, "a string of at most 1024 bytes, no NUL", "not a metadata value");
        *at++ = (struct metadata_edit){m->key, remove ? slice_of(NULL, 0) : m->string, remove};
    }
    *ret = l;
    return 0;
}

static int read_field(struct call *c, const struct body_field *f, const struct json_value *v,
    char *out, struct err *e)
{
    void *at = out + f->offset;
    int rc = -1;
    switch (f->kind) {
    case BODY_INT:
        rc = read_int(c, f, v, at, e);
        break;
    case BODY_STRING:
        rc = read_string(c, f, v, at, e);
        break;
    case BODY_STRINGS:
        rc = read_strings(c, f, v, at, e);
        break;
    case BODY_ENV:
        rc = read_env(c, f, v, at, e);
        break;
    case BODY_METADATA:
        rc = read_metadata(c, f, v, at, e);
        break;
    }
    if (rc == 0 && f->presence)
        *(bool *)(out + f->presence) = true;
    return rc;
}

/* "a, b, c" */
static const char *field_names(struct call *c, const struct body_field *fields, size_t n_fields)
{
    const char *names = fields[0].name;
    for (size_t i = 1; i < n_fields && names; i++)
        names = arena_printf(c->arena, "%s, %s", names, fields[i].name);
    return names;
}

static int read_members(struct call *c, const struct body_field *fields, size_t n_fields,
    const struct json_value *root, char *out, struct err *e)
{
    for (const struct json_value *v = root->first; v; v = v->next) {
        size_t i = 0;
        while (i < n_fields && !slice_is(v->key, fields[i].name))
            i++;
        if (i == n_fields) {
            struct member_path name;
            (void)snprintf(name.text, sizeof name.text, "%.*s", (int)v->key.n, v->key.p);
            name.text[utf8_complete_prefix(name.text, strlen(name.text))] = '\0';
            return field_error(c, e, name.text, field_names(c, fields, n_fields), "unknown field");
        }
        if (read_field(c, &fields[i], v, out, e) < 0)
            return -1;
    }
    return 0;
}

static int read_object(struct call *c, struct slice text, const struct body_field *fields,
    size_t n_fields, void *out, struct err *e)
{
    const struct json_value *root;
    if (json_parse(text, c->arena, &root, e) < 0)
        return -1;
    if (root->type != JSON_OBJECT)
        return err_set(e, ERR_INVALID, "the body must be a JSON object");
    if (read_members(c, fields, n_fields, root, out, e) < 0)
        return -1;
    for (size_t i = 0; i < n_fields; i++)
        if (fields[i].required && !json_get(root, fields[i].name))
            return field_error(c, e, fields[i].name, NULL, "%s is missing", fields[i].name);
    return 0;
}

int body_read(
    struct call *c, const struct body_field *fields, size_t n_fields, void *out, struct err *e)
{
    AUTO_BUF struct buf body = BUF_INIT(LIMIT_BODY_JSON_BYTES);
    if (http_body_read_all(c->x, &body, e) < 0)
        return body_error(e);
    return read_object(c, buf_slice(&body), fields, n_fields, out, e);
}

int body_read_optional(
    struct call *c, const struct body_field *fields, size_t n_fields, void *out, struct err *e)
{
    AUTO_BUF struct buf body = BUF_INIT(LIMIT_BODY_JSON_BYTES);
    if (http_body_read_all(c->x, &body, e) < 0)
        return body_error(e);
    return body.len == 0 ? 0 : read_object(c, buf_slice(&body), fields, n_fields, out, e);
}
