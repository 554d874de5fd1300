/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Messages from JSON, by the proto3 JSON mapping. The parsed tree and the message share the arena,
 * so strings are not copied. Unknown names are skipped; null is the same as absent.
 */
#include "rpc/rpc_int.h"

#include <assert.h>
#include <math.h>

#include "json/json.h"

enum { FIELDS_MAX = 64 }; /* a bit each, for names that come twice in their two spellings */

static int decode_message(const struct rpc_message *m, const struct json_value *v, struct arena *a,
    void *msg, struct err *e);

static const struct rpc_field *find_field(const struct rpc_message *m, struct slice key)
{
    for (size_t i = 0; i < m->n_fields; i++)
        if (slice_is(key, m->fields[i].json_name) || slice_is(key, m->fields[i].name))
            return &m->fields[i];
    return NULL;
}

static int wrong_type(const struct rpc_field *f, const char *want, struct err *e)
{
    return err_field(e, f->name, "%s must be %s", f->name, want);
}

/* The integer in a double, if it is one that int64_t holds. */
static bool integer_from_double(double d, int64_t *ret)
{
    if (d < -0x1p63 || d >= 0x1p63)
        return false;
    *ret = (int64_t)d;
    return (double)*ret == d;
}

/* A decimal integer as magnitude and sign: "-5", "18446744073709551615". */
static bool integer_from_text(struct slice s, uint64_t *ret_magnitude, bool *ret_negative)
{
    *ret_negative = s.n > 0 && s.p[0] == '-';
    if (*ret_negative)
        s = slice_of(s.p + 1, s.n - 1);
    return slice_parse_u64(s, ret_magnitude);
}

static bool read_integer(const struct json_value *v, uint64_t *ret_magnitude, bool *ret_negative)
{
    int64_t i;
    if (v->type == JSON_STRING)
        return integer_from_text(v->string, ret_magnitude, ret_negative);
    if (v->type == JSON_INT)
        i = v->integer;
    else if (v->type != JSON_DOUBLE || !integer_from_double(v->number, &i))
        return false;
    *ret_negative = i < 0;
    *ret_magnitude = i < 0 ? -(uint64_t)i : (uint64_t)i;
    return true;
}

/* Largest magnitudes of a type, of positive and of negative values. */
static void integer_range(enum rpc_type type, uint64_t *ret_max, uint64_t *ret_min)
{
    bool wide = type == RPC_INT64 || type == RPC_UINT64;
    bool is_signed = type != RPC_UINT32 && type != RPC_UINT64;
    *ret_max = wide ? UINT64_MAX : UINT32_MAX;
    if (is_signed)
        *ret_max /= 2;
    *ret_min = is_signed ? *ret_max + 1 : 0;
}

static int decode_integer(
    const struct rpc_field *f, const struct json_value *v, void *at, struct err *e)
{
    uint64_t magnitude;
    uint64_t max;
    uint64_t min;
    bool negative;
    if (!read_integer(v, &magnitude, &negative))
        return wrong_type(f, "an integer", e);
    integer_range(f->type, &max, &min);
    if (magnitude > (negative ? min : max))
        return err_field(e, f->name, "%s is out of range", f->name);
    if (negative)
        magnitude = -magnitude;
    if (rpc_value_size(f->type) == sizeof(uint64_t))
        *(uint64_t *)at = magnitude;
    else
        *(uint32_t *)at = (uint32_t)magnitude;
    return 0;
}

static bool double_from_text(struct slice s, struct arena *a, double *ret)
{
    const struct json_value *v;
    struct err ignored = {0};
    if (slice_is(s, "NaN"))
        *ret = NAN;
    else if (slice_is(s, "Infinity"))
        *ret = INFINITY;
    else if (slice_is(s, "-Infinity"))
        *ret = -INFINITY;
    else if (json_parse(s, a, &v, &ignored) == 0 && v->type == JSON_DOUBLE)
        *ret = v->number;
    else if (json_parse(s, a, &v, &ignored) == 0 && v->type == JSON_INT)
        *ret = (double)v->integer;
    else
        return false;
    return true;
}

static int decode_double(const struct rpc_field *f, const struct json_value *v, struct arena *a,
    double *at, struct err *e)
{
    if (v->type == JSON_DOUBLE)
        *at = v->number;
    else if (v->type == JSON_INT)
        *at = (double)v->integer;
    else if (v->type != JSON_STRING || !double_from_text(v->string, a, at))
        return wrong_type(f, "a number", e);
    return 0;
}

static int decode_enum(
    const struct rpc_field *f, const struct json_value *v, int32_t *at, struct err *e)
{
    if (v->type != JSON_STRING)
        return decode_integer(f, v, at, e);
    for (const struct rpc_enum_value *ev = f->values; ev->name; ev++) {
        if (slice_is(v->string, ev->name)) {
            *at = ev->number;
            return 0;
        }
    }
    return err_field(e, f->name, "%s has no such value", f->name);
}

/* Base64 of either alphabet, decoded in place: the text is in the arena and nobody else's, and the
 * decoder never writes before it has read. */
static int decode_bytes(
    const struct rpc_field *f, const struct json_value *v, struct slice *at, struct err *e)
{
    char *text;
    long n;
    if (v->type != JSON_STRING)
        return wrong_type(f, "a base64 string", e);
    text = (char *)(uintptr_t)v->string.p;
    for (size_t i = 0; i < v->string.n; i++) {
        if (text[i] == '-')
            text[i] = '+';
        else if (text[i] == '_')
            text[i] = '/';
    }
    n = base64_decode(text, v->string.n, text);
    if (n < 0)
        return wrong_type(f, "a base64 string", e);
    text[n] = '\0';
    *at = slice_of(text, (size_t)n);
    return 0;
}

static int decode_inner(const struct rpc_field *f, const struct json_value *v, struct arena *a,
    void **at, struct err *e)
{
    void *inner;
    if (v->type != JSON_OBJECT)
        return wrong_type(f, "an object", e);
    inner = rpc_new_message(f->message, a, e);
    if (!inner)
        return -1;
    if (decode_message(f->message, v, a, inner, e) < 0)
        return rpc_err_within(f, e);
    *at = inner;
    return 0;
}

/* One value, in a list or alone. */
static int decode_value(
    const struct rpc_field *f, const struct json_value *v, struct arena *a, void *at, struct err *e)
{
    switch (f->type) {
    case RPC_BOOL:
        if (v->type != JSON_BOOL)
            return wrong_type(f, "true or false", e);
        *(bool *)at = v->boolean;
        return 0;
    case RPC_INT32:
    case RPC_SINT32:
    case RPC_INT64:
    case RPC_UINT32:
    case RPC_UINT64:
        return decode_integer(f, v, at, e);
    case RPC_DOUBLE:
        return decode_double(f, v, a, at, e);
    case RPC_STRING:
        if (v->type != JSON_STRING)
            return wrong_type(f, "a string", e);
        *(struct slice *)at = v->string;
        return 0;
    case RPC_BYTES:
        return decode_bytes(f, v, at, e);
    case RPC_ENUM:
        return decode_enum(f, v, at, e);
    case RPC_MESSAGE:
        return decode_inner(f, v, a, at, e);
    case RPC_MAP:
        break;
    }
    assert(!"maps are no values");
    return -1;
}

static int decode_list(const struct rpc_field *f, const struct json_value *v, struct arena *a,
    struct rpc_list *l, struct err *e)
{
    if (v->type != JSON_ARRAY)
        return wrong_type(f, "an array", e);
    for (const struct json_value *c = v->first; c; c = c->next) {
        void *item = rpc_list_append(l, f->type, a, e);
        if (!item || decode_value(f, c, a, item, e) < 0)
            return -1;
    }
    return 0;
}

static int decode_map(const struct rpc_field *f, const struct json_value *v, struct arena *a,
    struct rpc_list *l, struct err *e)
{
    if (v->type != JSON_OBJECT)
        return wrong_type(f, "an object of strings", e);
    for (const struct json_value *c = v->first; c; c = c->next) {
        struct rpc_entry *entry = rpc_list_append(l, RPC_MAP, a, e);
        if (!entry)
            return -1;
        if (c->type != JSON_STRING)
            return wrong_type(f, "an object of strings", e);
        *entry = (struct rpc_entry){.key = c->key, .value = c->string};
    }
    return 0;
}

static int decode_field(const struct rpc_field *f, const struct json_value *v, struct arena *a,
    void *msg, struct err *e)
{
    void *at = rpc_at(f, msg);
    if (f->type == RPC_MAP)
        return decode_map(f, v, a, at, e);
    if (f->label == RPC_REPEATED)
        return decode_list(f, v, a, at, e);
    return decode_value(f, v, a, at, e);
}

static int decode_message(const struct rpc_message *m, const struct json_value *v, struct arena *a,
    void *msg, struct err *e)
{
    uint64_t seen = 0;
    assert(m->n_fields <= FIELDS_MAX);
    for (const struct json_value *c = v->first; c; c = c->next) {
        const struct rpc_field *f = find_field(m, c->key);
        uint64_t bit;
        if (!f || c->type == JSON_NULL)
            continue;
        bit = UINT64_C(1) << (f - m->fields);
        if (seen & bit)
            return err_field(e, f->name, "%s is given twice", f->name);
        seen |= bit;
        if (rpc_oneof_set(m, f, msg))
            return err_field(e, f->name, "%s and %s exclude each other", f->name,
                rpc_oneof_set(m, f, msg)->name);
        if (decode_field(f, c, a, msg, e) < 0)
            return -1;
        rpc_mark_set(m, f, msg);
    }
    return 0;
}

int rpc_json_decode(
    const struct rpc_message *m, struct slice bytes, struct arena *a, void *msg, struct err *e)
{
    const struct json_value *v;
    if (json_parse(bytes, a, &v, e) < 0)
        return -1;
    if (v->type != JSON_OBJECT)
        return err_set(e, ERR_INVALID, "JSON: the message must be an object");
    return decode_message(m, v, a, msg, e);
}
