/* SPDX-License-Identifier: Apache-2.0 */
/* What both codecs need to know about messages: presence, defaults, lists. */
#include "rpc/rpc_int.h"

#include <assert.h>
#include <stdio.h>

enum { LIST_MIN = 4 };

size_t rpc_value_size(enum rpc_type type)
{
    switch (type) {
    case RPC_BOOL:
        return sizeof(bool);
    case RPC_INT32:
    case RPC_SINT32:
    case RPC_UINT32:
    case RPC_ENUM:
        return sizeof(int32_t);
    case RPC_INT64:
    case RPC_UINT64:
        return sizeof(int64_t);
    case RPC_DOUBLE:
        return sizeof(double);
    case RPC_STRING:
    case RPC_BYTES:
        return sizeof(struct slice);
    case RPC_MESSAGE:
        return sizeof(void *);
    case RPC_MAP:
        return sizeof(struct rpc_entry);
    }
    assert(!"a type of the enum");
    return 0;
}

static bool is_slice(const struct rpc_field *f)
{
    return !rpc_is_list(f) && (f->type == RPC_STRING || f->type == RPC_BYTES);
}

static void clear_value(const struct rpc_field *f, void *msg)
{
    if (is_slice(f))
        *(struct slice *)rpc_at(f, msg) = SLICE_LIT("");
    else
        memset(
            rpc_at(f, msg), 0, rpc_is_list(f) ? sizeof(struct rpc_list) : rpc_value_size(f->type));
}

void rpc_clear(const struct rpc_message *m, void *msg)
{
    memset(msg, 0, m->size);
    for (size_t i = 0; i < m->n_fields; i++)
        clear_value(&m->fields[i], msg);
}

static bool *presence_of(const struct rpc_field *f, void *msg)
{
    return (bool *)((char *)msg + f->presence);
}

static bool has_presence(const struct rpc_field *f)
{
    return f->label == RPC_OPTIONAL || f->label == RPC_ONEOF;
}

static bool is_present(const struct rpc_field *f, const void *msg)
{
    return *(const bool *)((const char *)msg + f->presence);
}

bool rpc_is_set(const struct rpc_field *f, const void *msg)
{
    static const char zero[sizeof(uint64_t)];
    const void *at = rpc_at_const(f, msg);
    if (has_presence(f))
        return is_present(f, msg);
    if (rpc_is_list(f))
        return ((const struct rpc_list *)at)->n > 0;
    if (is_slice(f))
        return ((const struct slice *)at)->n > 0;
    return memcmp(at, zero, rpc_value_size(f->type)) != 0;
}

const struct rpc_field *rpc_oneof_set(
    const struct rpc_message *m, const struct rpc_field *f, const void *msg)
{
    if (f->label != RPC_ONEOF)
        return NULL;
    for (size_t i = 0; i < m->n_fields; i++) {
        const struct rpc_field *o = &m->fields[i];
        if (o->label == RPC_ONEOF && o->oneof == f->oneof && is_present(o, msg))
            return o;
    }
    return NULL;
}

void rpc_mark_set(const struct rpc_message *m, const struct rpc_field *f, void *msg)
{
    const struct rpc_field *other = rpc_oneof_set(m, f, msg);
    if (other && other != f) {
        *presence_of(other, msg) = false;
        clear_value(other, msg);
    }
    if (has_presence(f))
        *presence_of(f, msg) = true;
}

int rpc_arena_full(struct err *e)
{
    return err_set(e, ERR_TOO_LARGE, "the message needs more memory than a request may use");
}

/* The capacity follows from the length: LIST_MIN, then each power of two. */
static bool is_full(const struct rpc_list *l)
{
    return l->n == 0 || (l->n >= LIST_MIN && (l->n & (l->n - 1)) == 0);
}

void *rpc_list_append(struct rpc_list *l, enum rpc_type type, struct arena *a, struct err *e)
{
    size_t size = rpc_value_size(type);
    if (is_full(l)) {
        void *items = arena_calloc(a, l->n ? l->n * 2 : LIST_MIN, size);
        if (!items) {
            rpc_arena_full(e);
            return NULL;
        }
        if (l->n > 0)
            memcpy(items, l->items, l->n * size);
        l->items = items;
    }
    return (char *)l->items + size * l->n++;
}

void *rpc_new_message(const struct rpc_message *m, struct arena *a, struct err *e)
{
    void *msg = arena_alloc(a, m->size);
    if (!msg) {
        rpc_arena_full(e);
        return NULL;
    }
    rpc_clear(m, msg);
    return msg;
}

int rpc_err_within(const struct rpc_field *f, struct err *e)
{
    char inner[ERR_WHERE_MAX];
    int n;
    memcpy(inner, e->where, sizeof inner);
    n = snprintf(e->where, sizeof e->where, "%s%s%s", f->name, inner[0] ? "." : "", inner);
    assert(n > 0);
    return -1;
}

int rpc_decode(const struct rpc_message *m, enum rpc_codec codec, struct slice bytes,
    struct arena *a, void *msg, struct err *e)
{
    rpc_clear(m, msg);
    return codec == RPC_CODEC_JSON ? rpc_json_decode(m, bytes, a, msg, e)
                                   : rpc_proto_decode(m, bytes, a, msg, e);
}

int rpc_encode(const struct rpc_message *m, enum rpc_codec codec, const void *msg, struct buf *out,
    struct err *e)
{
    int rc = codec == RPC_CODEC_JSON ? rpc_json_encode(m, msg, out, e)
                                     : rpc_proto_encode(m, msg, out, e);
    if (rc == 0 && out->failed)
        return err_set(e, ERR_TOO_LARGE, "%s is longer than %zu bytes", m->name, out->max);
    return rc;
}
