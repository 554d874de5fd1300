/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Messages to protobuf's wire format. A length stands before what it counts, so the contents are
 * written first and moved up by the few bytes of their length.
 */
#include "rpc/rpc_int.h"

#include <assert.h>
#include <endian.h>

enum { WIRE_VARINT = 0, WIRE_64 = 1, WIRE_BYTES = 2, VARINT_BYTES_MAX = 10 };

static int encode_message(
    struct buf *out, const struct rpc_message *m, const void *msg, struct err *e);

/* Writes the varint to `dst`; returns its length. */
static size_t format_varint(uint64_t v, unsigned char dst[VARINT_BYTES_MAX])
{
    size_t n = 0;
    while (v >= 0x80) {
        dst[n++] = (unsigned char)(v | 0x80);
        v >>= 7;
    }
    dst[n++] = (unsigned char)v;
    return n;
}

static void put_varint(struct buf *out, uint64_t v)
{
    unsigned char text[VARINT_BYTES_MAX];
    buf_append(out, text, format_varint(v, text));
}

static void put_tag(struct buf *out, uint32_t number, unsigned wire)
{
    put_varint(out, (uint64_t)number << 3 | wire);
}

static void put_counted(struct buf *out, struct slice s)
{
    put_varint(out, s.n);
    buf_append_slice(out, s);
}

/* Puts the length of what was written since `start` before it. */
static void insert_length(struct buf *out, size_t start)
{
    unsigned char text[VARINT_BYTES_MAX];
    size_t len = out->len - start;
    size_t n = format_varint(len, text);
    if (!buf_reserve(out, n))
        return;
    memmove(out->p + start + n, out->p + start, len);
    memcpy(out->p + start, text, n);
    buf_commit(out, n);
}

static uint64_t varint_of(enum rpc_type type, const void *at)
{
    switch (type) {
    case RPC_BOOL:
        return *(const bool *)at;
    case RPC_UINT32:
        return *(const uint32_t *)at;
    case RPC_SINT32: {
        uint32_t v = *(const uint32_t *)at;
        return (uint32_t)(v << 1 ^ (0 - (v >> 31)));
    }
    case RPC_INT32:
    case RPC_ENUM:
        return (uint64_t)(int64_t) * (const int32_t *)at;
    default:
        return *(const uint64_t *)at;
    }
}

static void put_double(struct buf *out, double v)
{
    uint64_t bits;
    memcpy(&bits, &v, sizeof bits);
    bits = htole64(bits);
    buf_append(out, &bits, sizeof bits);
}

static int put_string(struct buf *out, const struct rpc_field *f, struct slice s, struct err *e)
{
    if (!utf8_valid(s.p, s.n))
        return err_field(e, f->name, "%s is not UTF-8", f->name);
    put_counted(out, s);
    return 0;
}

static int put_inner(struct buf *out, const struct rpc_field *f, const void *inner, struct err *e)
{
    size_t start = out->len;
    /* A oneof member without contents is an empty message. */
    if (inner && encode_message(out, f->message, inner, e) < 0)
        return rpc_err_within(f, e);
    insert_length(out, start);
    return 0;
}

static unsigned wire_of(enum rpc_type type)
{
    switch (type) {
    case RPC_DOUBLE:
        return WIRE_64;
    case RPC_STRING:
    case RPC_BYTES:
    case RPC_MESSAGE:
    case RPC_MAP:
        return WIRE_BYTES;
    default:
        return WIRE_VARINT;
    }
}

/* One value without its tag, in a list or alone. */
static int put_value(struct buf *out, const struct rpc_field *f, const void *at, struct err *e)
{
    switch (f->type) {
    case RPC_DOUBLE:
        put_double(out, *(const double *)at);
        return 0;
    case RPC_STRING:
        return put_string(out, f, *(const struct slice *)at, e);
    case RPC_BYTES:
        put_counted(out, *(const struct slice *)at);
        return 0;
    case RPC_MESSAGE:
        return put_inner(out, f, *(const void *const *)at, e);
    case RPC_MAP:
        assert(!"maps are no values");
        return -1;
    default:
        put_varint(out, varint_of(f->type, at));
        return 0;
    }
}

/* Scalars are packed, as proto3 says. */
static int put_list(
    struct buf *out, const struct rpc_field *f, const struct rpc_list *l, struct err *e)
{
    size_t size = rpc_value_size(f->type);
    bool packed = wire_of(f->type) != WIRE_BYTES;
    size_t start;
    if (packed)
        put_tag(out, f->number, WIRE_BYTES);
    start = out->len;
    for (size_t i = 0; i < l->n; i++) {
        if (!packed)
            put_tag(out, f->number, WIRE_BYTES);
        if (put_value(out, f, (const char *)l->items + i * size, e) < 0)
            return -1;
    }
    if (packed)
        insert_length(out, start);
    return 0;
}

static int put_map(
    struct buf *out, const struct rpc_field *f, const struct rpc_list *l, struct err *e)
{
    const struct rpc_entry *entries = l->items;
    for (size_t i = 0; i < l->n; i++) {
        size_t start;
        put_tag(out, f->number, WIRE_BYTES);
        start = out->len;
        put_tag(out, /* number= */ 1, WIRE_BYTES);
        if (put_string(out, f, entries[i].key, e) < 0)
            return -1;
        put_tag(out, /* number= */ 2, WIRE_BYTES);
        if (put_string(out, f, entries[i].value, e) < 0)
            return -1;
        insert_length(out, start);
    }
    return 0;
}

static int put_field(struct buf *out, const struct rpc_field *f, const void *msg, struct err *e)
{
    const void *at = rpc_at_const(f, msg);
    if (f->type == RPC_MAP)
        return put_map(out, f, at, e);
    if (f->label == RPC_REPEATED)
        return put_list(out, f, at, e);
    put_tag(out, f->number, wire_of(f->type));
    return put_value(out, f, at, e);
}

static int encode_message(
    struct buf *out, const struct rpc_message *m, const void *msg, struct err *e)
{
    for (size_t i = 0; i < m->n_fields; i++)
        if (rpc_is_set(&m->fields[i], msg) && put_field(out, &m->fields[i], msg, e) < 0)
            return -1;
    return 0;
}

int rpc_proto_encode(const struct rpc_message *m, const void *msg, struct buf *out, struct err *e)
{
    return encode_message(out, m, msg, e);
}
