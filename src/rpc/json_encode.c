/* SPDX-License-Identifier: Apache-2.0 */
/* Messages to JSON, by the proto3 JSON mapping. */
#include "rpc/rpc_int.h"

#include <assert.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>

#include "json/json.h"

static int encode_message(
    struct json_writer *w, const struct rpc_message *m, const void *msg, struct err *e);

static int encode_string(
    struct json_writer *w, const struct rpc_field *f, struct slice s, struct err *e)
{
    if (!utf8_valid(s.p, s.n))
        return err_field(e, f->name, "%s is not UTF-8", f->name);
    json_string(w, s);
    return 0;
}

/* 64-bit numbers are strings: a JavaScript number would round them. */
static void encode_int64(struct json_writer *w, int64_t v)
{
    char text[24];
    (void)snprintf(text, sizeof text, "%" PRId64, v);
    json_cstr(w, text);
}

static void encode_uint64(struct json_writer *w, uint64_t v)
{
    char text[24];
    (void)snprintf(text, sizeof text, "%" PRIu64, v);
    json_cstr(w, text);
}

static void encode_double(struct json_writer *w, double v)
{
    if (isnan(v))
        json_cstr(w, "NaN");
    else if (isinf(v))
        json_cstr(w, v > 0 ? "Infinity" : "-Infinity");
    else
        json_double(w, v);
}

static void encode_enum(struct json_writer *w, const struct rpc_field *f, int32_t number)
{
    for (const struct rpc_enum_value *ev = f->values; ev->name; ev++) {
        if (ev->number == number) {
            json_cstr(w, ev->name);
            return;
        }
    }
    json_int(w, number);
}

/* One value, in a list or alone. */
static int encode_value(
    struct json_writer *w, const struct rpc_field *f, const void *at, struct err *e)
{
    switch (f->type) {
    case RPC_BOOL:
        json_bool(w, *(const bool *)at);
        return 0;
    case RPC_INT32:
    case RPC_SINT32:
        json_int(w, *(const int32_t *)at);
        return 0;
    case RPC_INT64:
        encode_int64(w, *(const int64_t *)at);
        return 0;
    case RPC_UINT32:
        json_uint(w, *(const uint32_t *)at);
        return 0;
    case RPC_UINT64:
        encode_uint64(w, *(const uint64_t *)at);
        return 0;
    case RPC_DOUBLE:
        encode_double(w, *(const double *)at);
        return 0;
    case RPC_STRING:
        return encode_string(w, f, *(const struct slice *)at, e);
    case RPC_BYTES:
        json_base64(w, *(const struct slice *)at);
        return 0;
    case RPC_ENUM:
        encode_enum(w, f, *(const int32_t *)at);
        return 0;
    case RPC_MESSAGE:
        return encode_message(w, f->message, *(const void *const *)at, e) < 0 ? rpc_err_within(f, e)
                                                                              : 0;
    case RPC_MAP:
        break;
    }
    assert(!"maps are no values");
    return -1;
}

static int encode_list(
    struct json_writer *w, const struct rpc_field *f, const struct rpc_list *l, struct err *e)
{
    size_t size = rpc_value_size(f->type);
    json_array_begin(w);
    for (size_t i = 0; i < l->n; i++)
        if (encode_value(w, f, (const char *)l->items + i * size, e) < 0)
            return -1;
    json_array_end(w);
    return 0;
}

static int encode_map(
    struct json_writer *w, const struct rpc_field *f, const struct rpc_list *l, struct err *e)
{
    const struct rpc_entry *entries = l->items;
    json_object_begin(w);
    for (size_t i = 0; i < l->n; i++) {
        if (!utf8_valid(entries[i].key.p, entries[i].key.n))
            return err_field(e, f->name, "a key of %s is not UTF-8", f->name);
        json_key_slice(w, entries[i].key);
        if (encode_string(w, f, entries[i].value, e) < 0)
            return -1;
    }
    json_object_end(w);
    return 0;
}

static int encode_field(
    struct json_writer *w, const struct rpc_field *f, const void *msg, struct err *e)
{
    const void *at = rpc_at_const(f, msg);
    json_key(w, f->json_name);
    if (f->type == RPC_MAP)
        return encode_map(w, f, at, e);
    if (f->label == RPC_REPEATED)
        return encode_list(w, f, at, e);
    return encode_value(w, f, at, e);
}

/* A message that is NULL (a oneof member without contents) is an empty one. */
static int encode_message(
    struct json_writer *w, const struct rpc_message *m, const void *msg, struct err *e)
{
    json_object_begin(w);
    for (size_t i = 0; msg && i < m->n_fields; i++)
        if (rpc_is_set(&m->fields[i], msg) && encode_field(w, &m->fields[i], msg, e) < 0)
            return -1;
    json_object_end(w);
    return 0;
}

int rpc_json_encode(const struct rpc_message *m, const void *msg, struct buf *out, struct err *e)
{
    struct json_writer w;
    json_writer_init(&w, out);
    return encode_message(&w, m, msg, e);
}
