/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Messages from protobuf's wire format (protobuf.dev/programming-guides/encoding).
 *
 * Theory of operation. The bytes are hostile: each length is checked against what is left, varints
 * against 64 bits, depth against RPC_MESSAGE_DEPTH_MAX, and memory is the arena's. Unknown fields
 * are skipped; a known field with another wire type, a group and a field number of 0 are refused.
 * As the format says, the last value of a singular field wins, inner messages merge, repeated
 * scalars may be packed or not, and of a map's equal keys the last one wins. That last rule is
 * applied once at the end, over the finished tree: doing it while messages merge would be
 * quadratic.
 */
#include "rpc/rpc_int.h"

#include <assert.h>
#include <endian.h>
#include <stdlib.h>

enum wire_type { WIRE_VARINT = 0, WIRE_64 = 1, WIRE_BYTES = 2, WIRE_32 = 5 };

enum { VARINT_BYTES_MAX = 10, ENTRY_KEY = 1, ENTRY_VALUE = 2 };

struct reader {
    const unsigned char *at;
    const unsigned char *end;
    struct arena *arena;
    struct err *e;
    unsigned depth;
};

static int decode_message(struct reader *r, const struct rpc_message *m, void *msg);

static int refuse(struct reader *r, const char *why)
{
    return err_set(r->e, ERR_INVALID, "protobuf: %s", why);
}

static struct reader reader_of(const struct reader *outer, struct slice s)
{
    struct reader r = *outer;
    r.at = (const unsigned char *)s.p;
    r.end = r.at + s.n;
    return r;
}

static int read_varint(struct reader *r, uint64_t *ret)
{
    uint64_t v = 0;
    for (int i = 0; i < VARINT_BYTES_MAX; i++) {
        unsigned char c;
        if (r->at == r->end)
            return refuse(r, "truncated number");
        c = *r->at++;
        if (i == VARINT_BYTES_MAX - 1 && c > 1)
            break;
        v |= (uint64_t)(c & 0x7f) << (7 * i);
        if (c < 0x80) {
            *ret = v;
            return 0;
        }
    }
    return refuse(r, "number of more than 64 bits");
}

static int read_bytes(struct reader *r, size_t n, struct slice *ret)
{
    if (n > (size_t)(r->end - r->at))
        return refuse(r, "length beyond the end");
    *ret = slice_of((const char *)r->at, n);
    r->at += n;
    return 0;
}

static int read_counted(struct reader *r, struct slice *ret)
{
    uint64_t n;
    if (read_varint(r, &n) < 0)
        return -1;
    return read_bytes(r, n, ret);
}

static int read_tag(struct reader *r, uint32_t *ret_number, unsigned *ret_wire)
{
    uint64_t tag;
    if (read_varint(r, &tag) < 0)
        return -1;
    if (tag > UINT32_MAX || tag >> 3 == 0)
        return refuse(r, "field number out of range");
    *ret_number = (uint32_t)(tag >> 3);
    *ret_wire = tag & 7;
    return 0;
}

static int skip_value(struct reader *r, unsigned wire)
{
    uint64_t number;
    struct slice bytes;
    switch (wire) {
    case WIRE_VARINT:
        return read_varint(r, &number);
    case WIRE_64:
        return read_bytes(r, 8, &bytes);
    case WIRE_BYTES:
        return read_counted(r, &bytes);
    case WIRE_32:
        return read_bytes(r, 4, &bytes);
    default:
        return refuse(r, "group or unknown wire type");
    }
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

/* As protobuf says, what does not fit is cut to the type's bits. */
static void store_varint(enum rpc_type type, uint64_t v, void *at)
{
    uint32_t low = (uint32_t)v;
    switch (type) {
    case RPC_BOOL:
        *(bool *)at = v != 0;
        break;
    case RPC_SINT32:
        *(int32_t *)at = (int32_t)(low >> 1 ^ (0 - (low & 1)));
        break;
    case RPC_INT64:
    case RPC_UINT64:
        *(uint64_t *)at = v;
        break;
    default:
        *(uint32_t *)at = low;
    }
}

static int copy_bytes(struct reader *r, struct slice s, struct slice *at)
{
    char *copy = arena_strndup(r->arena, s.p, s.n);
    if (!copy)
        return rpc_arena_full(r->e);
    *at = slice_of(copy, s.n);
    return 0;
}

static int copy_string(
    struct reader *r, const struct rpc_field *f, struct slice s, struct slice *at)
{
    if (!utf8_valid(s.p, s.n))
        return err_field(r->e, f->name, "%s is not UTF-8", f->name);
    return copy_bytes(r, s, at);
}

/* Merges into what is there already. */
static int decode_inner(struct reader *r, const struct rpc_field *f, struct slice s, void **at)
{
    struct reader inner = reader_of(r, s);
    if (++inner.depth > RPC_MESSAGE_DEPTH_MAX)
        return refuse(r, "nested too deeply");
    if (!*at)
        *at = rpc_new_message(f->message, r->arena, r->e);
    if (!*at)
        return -1;
    return decode_message(&inner, f->message, *at) < 0 ? rpc_err_within(f, r->e) : 0;
}

static int decode_counted(struct reader *r, const struct rpc_field *f, void *at)
{
    struct slice s;
    if (read_counted(r, &s) < 0)
        return -1;
    if (f->type == RPC_MESSAGE)
        return decode_inner(r, f, s, at);
    return f->type == RPC_STRING ? copy_string(r, f, s, at) : copy_bytes(r, s, at);
}

static int decode_double(struct reader *r, double *at)
{
    uint64_t bits;
    if ((size_t)(r->end - r->at) < sizeof bits)
        return refuse(r, "truncated number");
    memcpy(&bits, r->at, sizeof bits);
    r->at += sizeof bits;
    bits = le64toh(bits);
    memcpy(at, &bits, sizeof bits);
    return 0;
}

/* One value of the field's own wire type, in a list or alone. */
static int decode_value(struct reader *r, const struct rpc_field *f, void *at)
{
    uint64_t v;
    switch (wire_of(f->type)) {
    case WIRE_BYTES:
        return decode_counted(r, f, at);
    case WIRE_64:
        return decode_double(r, at);
    default:
        if (read_varint(r, &v) < 0)
            return -1;
        store_varint(f->type, v, at);
        return 0;
    }
}

static int decode_item(struct reader *r, const struct rpc_field *f, struct rpc_list *l)
{
    void *item = rpc_list_append(l, f->type, r->arena, r->e);
    return item ? decode_value(r, f, item) : -1;
}

static int decode_packed(struct reader *r, const struct rpc_field *f, struct rpc_list *l)
{
    struct reader inner;
    struct slice s;
    if (read_counted(r, &s) < 0)
        return -1;
    inner = reader_of(r, s);
    while (inner.at < inner.end)
        if (decode_item(&inner, f, l) < 0)
            return -1;
    return 0;
}

/* One entry of a map: a message of key and value, of which either may be absent. */
static int decode_entry(struct reader *r, const struct rpc_field *f, struct rpc_list *l)
{
    struct rpc_entry entry = {SLICE_LIT(""), SLICE_LIT("")};
    struct rpc_entry *item;
    struct reader inner;
    struct slice s;
    if (read_counted(r, &s) < 0)
        return -1;
    inner = reader_of(r, s);
    while (inner.at < inner.end) {
        uint32_t number;
        unsigned wire;
        if (read_tag(&inner, &number, &wire) < 0)
            return -1;
        if (number != ENTRY_KEY && number != ENTRY_VALUE) {
            if (skip_value(&inner, wire) < 0)
                return -1;
            continue;
        }
        if (wire != WIRE_BYTES)
            return err_field(r->e, f->name, "an entry of %s is of another type", f->name);
        if (read_counted(&inner, &s) < 0 ||
            copy_string(r, f, s, number == ENTRY_KEY ? &entry.key : &entry.value) < 0)
            return -1;
    }
    item = rpc_list_append(l, RPC_MAP, r->arena, r->e);
    if (!item)
        return -1;
    *item = entry;
    return 0;
}

static int decode_field(struct reader *r, const struct rpc_message *m, const struct rpc_field *f,
    unsigned wire, void *msg)
{
    void *at = rpc_at(f, msg);
    unsigned own = wire_of(f->type);
    if (f->label == RPC_REPEATED && wire == WIRE_BYTES && own != WIRE_BYTES)
        return decode_packed(r, f, at);
    if (wire != own)
        return err_field(r->e, f->name, "%s is of another type", f->name);
    if (f->type == RPC_MAP)
        return decode_entry(r, f, at);
    if (f->label == RPC_REPEATED)
        return decode_item(r, f, at);
    rpc_mark_set(m, f, msg);
    return decode_value(r, f, at);
}

static const struct rpc_field *find_field(const struct rpc_message *m, uint32_t number)
{
    for (size_t i = 0; i < m->n_fields; i++)
        if (m->fields[i].number == number)
            return &m->fields[i];
    return NULL;
}

static int decode_message(struct reader *r, const struct rpc_message *m, void *msg)
{
    while (r->at < r->end) {
        const struct rpc_field *f;
        uint32_t number;
        unsigned wire;
        if (read_tag(r, &number, &wire) < 0)
            return -1;
        f = find_field(m, number);
        if ((f ? decode_field(r, m, f, wire, msg) : skip_value(r, wire)) < 0)
            return -1;
    }
    return 0;
}

/* By key, equal keys in the order they came. */
static int compare_entries(const void *a, const void *b)
{
    const struct rpc_entry *x = *(const struct rpc_entry *const *)a;
    const struct rpc_entry *y = *(const struct rpc_entry *const *)b;
    int order;
    if (x->key.n != y->key.n)
        return x->key.n < y->key.n ? -1 : 1;
    order = memcmp(x->key.p, y->key.p, x->key.n);
    if (order != 0)
        return order;
    return x < y ? -1 : x > y;
}

/* Of entries with equal keys the last one stays; the others' order is kept. */
static int drop_repeated_keys(struct rpc_list *l, struct arena *a, struct err *e)
{
    struct rpc_entry *entries = l->items;
    struct rpc_entry **sorted;
    size_t kept = 0;
    if (l->n < 2)
        return 0;
    sorted = arena_calloc(a, l->n, sizeof *sorted);
    if (!sorted)
        return rpc_arena_full(e);
    for (size_t i = 0; i < l->n; i++)
        sorted[i] = &entries[i];
    qsort(sorted, l->n, sizeof *sorted, compare_entries);
    for (size_t i = 1; i < l->n; i++)
        if (slice_eq(sorted[i - 1]->key, sorted[i]->key))
            sorted[i - 1]->value.p = NULL; /* dropped: decoded values are never NULL */
    for (size_t i = 0; i < l->n; i++)
        if (entries[i].value.p)
            entries[kept++] = entries[i];
    l->n = kept;
    return 0;
}

static int finish_message(const struct rpc_message *m, void *msg, struct arena *a, struct err *e);

static int finish_inner(const struct rpc_field *f, void *msg, struct arena *a, struct err *e)
{
    void *const *items = rpc_at(f, msg);
    size_t n = 1;
    if (f->label == RPC_REPEATED) {
        const struct rpc_list *l = rpc_at(f, msg);
        items = l->items;
        n = l->n;
    }
    for (size_t i = 0; i < n; i++)
        if (items[i] && finish_message(f->message, items[i], a, e) < 0)
            return -1;
    return 0;
}

static int finish_message(const struct rpc_message *m, void *msg, struct arena *a, struct err *e)
{
    for (size_t i = 0; i < m->n_fields; i++) {
        const struct rpc_field *f = &m->fields[i];
        int rc = 0;
        if (f->type == RPC_MAP)
            rc = drop_repeated_keys(rpc_at(f, msg), a, e);
        else if (f->type == RPC_MESSAGE)
            rc = finish_inner(f, msg, a, e);
        if (rc < 0)
            return -1;
    }
    return 0;
}

int rpc_proto_decode(
    const struct rpc_message *m, struct slice bytes, struct arena *a, void *msg, struct err *e)
{
    struct reader empty = {.arena = a, .e = e};
    struct reader r = reader_of(&empty, bytes.n > 0 ? bytes : SLICE_LIT(""));
    if (decode_message(&r, m, msg) < 0)
        return -1;
    return finish_message(m, msg, a, e);
}
