/* SPDX-License-Identifier: Apache-2.0 */
/* The sample message, and filling and comparing by table. */
#include "sample.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>

#include "rpc/table.h"

enum { FILL_DEPTH_MAX = 3 };

static const struct rpc_enum_value colors[] = {
    {COLOR_NONE, "COLOR_NONE"}, {COLOR_RED, "COLOR_RED"}, {COLOR_BLUE, "COLOR_BLUE"}, {0, NULL}};

static const struct rpc_field inner_fields[] = {
    RPC_FIELD(sample_inner, 1, "number", "number", RPC_INT32, number),
    RPC_FIELD(sample_inner, 2, "text", "text", RPC_STRING, text),
    RPC_FIELD_MAP(sample_inner, 3, "labels", "labels", labels),
};
const struct rpc_message sample_inner_message = RPC_TABLE("test.Inner", sample_inner, inner_fields);

static const struct rpc_field sample_fields[] = {
    RPC_FIELD(sample, 1, "flag", "flag", RPC_BOOL, flag),
    RPC_FIELD(sample, 2, "int32", "int32", RPC_INT32, int32),
    RPC_FIELD(sample, 3, "sint32", "sint32", RPC_SINT32, sint32),
    RPC_FIELD(sample, 4, "int64", "int64", RPC_INT64, int64),
    RPC_FIELD(sample, 5, "uint32", "uint32", RPC_UINT32, uint32),
    RPC_FIELD(sample, 6, "uint64", "uint64", RPC_UINT64, uint64),
    RPC_FIELD(sample, 7, "real", "real", RPC_DOUBLE, real),
    RPC_FIELD(sample, 8, "text", "text", RPC_STRING, text),
    RPC_FIELD(sample, 9, "bytes", "bytes", RPC_BYTES, bytes),
    RPC_FIELD_ENUM(sample, 10, "color", "color", colors, color),
    RPC_FIELD_MESSAGE(sample, 11, "inner", "inner", sample_inner, sample_inner_message, inner),
    RPC_FIELD_OPTIONAL(sample, 21, "opt_flag", "optFlag", RPC_BOOL, opt_flag, has_opt_flag),
    RPC_FIELD_OPTIONAL(sample, 22, "opt_int32", "optInt32", RPC_INT32, opt_int32, has_opt_int32),
    RPC_FIELD_OPTIONAL(
        sample, 26, "opt_uint64", "optUint64", RPC_UINT64, opt_uint64, has_opt_uint64),
    RPC_FIELD_OPTIONAL(sample, 27, "opt_real", "optReal", RPC_DOUBLE, opt_real, has_opt_real),
    RPC_FIELD_OPTIONAL(sample, 28, "opt_text", "optText", RPC_STRING, opt_text, has_opt_text),
    RPC_FIELD_OPTIONAL(sample, 29, "opt_bytes", "optBytes", RPC_BYTES, opt_bytes, has_opt_bytes),
    {.number = 30,
        .name = "opt_color",
        .json_name = "optColor",
        .type = RPC_ENUM,
        .label = RPC_OPTIONAL,
        .offset = offsetof(struct sample, opt_color),
        .presence = offsetof(struct sample, has_opt_color),
        .values = colors},
    RPC_FIELD_ONEOF(sample, 41, "one_int32", "oneInt32", RPC_INT32, one_int32, has_one_int32, 0),
    RPC_FIELD_ONEOF(sample, 42, "one_text", "oneText", RPC_STRING, one_text, has_one_text, 0),
    RPC_FIELD_MESSAGE_ONEOF(sample, 43, "one_inner", "oneInner", sample_inner, sample_inner_message,
        one_inner, has_one_inner, 0),
    RPC_FIELD_ONEOF(sample, 44, "two_flag", "twoFlag", RPC_BOOL, two_flag, has_two_flag, 1),
    RPC_FIELD_ONEOF(sample, 45, "two_bytes", "twoBytes", RPC_BYTES, two_bytes, has_two_bytes, 1),
    RPC_FIELD_REPEATED(sample, 61, "flags", "flags", RPC_BOOL, flags),
    RPC_FIELD_REPEATED(sample, 62, "int32s", "int32s", RPC_INT32, int32s),
    RPC_FIELD_REPEATED(sample, 63, "sint32s", "sint32s", RPC_SINT32, sint32s),
    RPC_FIELD_REPEATED(sample, 64, "int64s", "int64s", RPC_INT64, int64s),
    RPC_FIELD_REPEATED(sample, 65, "uint32s", "uint32s", RPC_UINT32, uint32s),
    RPC_FIELD_REPEATED(sample, 66, "uint64s", "uint64s", RPC_UINT64, uint64s),
    RPC_FIELD_REPEATED(sample, 67, "reals", "reals", RPC_DOUBLE, reals),
    RPC_FIELD_REPEATED(sample, 68, "texts", "texts", RPC_STRING, texts),
    RPC_FIELD_REPEATED(sample, 69, "blobs", "blobs", RPC_BYTES, blobs),
    {.number = 70,
        .name = "colors",
        .json_name = "colors",
        .type = RPC_ENUM,
        .label = RPC_REPEATED,
        .offset = offsetof(struct sample, colors),
        .values = colors},
    RPC_FIELD_MESSAGE_REPEATED(sample, 71, "inners", "inners", sample_inner_message, inners),
    RPC_FIELD_MAP(sample, 80, "map", "map", map),
    RPC_FIELD_MESSAGE(sample, 536870911, "self", "self", sample, sample_message, self),
};
const struct rpc_message sample_message = RPC_TABLE("test.Sample", sample, sample_fields);

/* --- filling --- */

static unsigned next_random(unsigned *seed)
{
    *seed = *seed * 1664525u + 1013904223u;
    return *seed >> 8;
}

static uint64_t random_number(unsigned *seed)
{
    static const uint64_t edges[] = {0, 1, 127, 128, INT32_MAX, (uint64_t)INT32_MAX + 1, UINT32_MAX,
        INT64_MAX, (uint64_t)INT64_MAX + 1, UINT64_MAX};
    return edges[next_random(seed) % (sizeof edges / sizeof edges[0])];
}

static void *allocate(struct arena *a, size_t n)
{
    void *p = arena_alloc(a, n);
    if (!p)
        abort();
    return p;
}

static struct slice random_text(struct arena *a, unsigned *seed, bool is_utf8)
{
    static const char more_than_127_bytes[] =
        "a longer text, so that its length takes two bytes on the wire; the bytes of a varint hold "
        "seven bits each, and the lowest come first";
    static const char *const texts[] = {"", "plain", "\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80",
        "quote \" back \\ line\n", more_than_127_bytes};
    char *p;
    size_t n;
    if (is_utf8)
        return slice_cstr(texts[next_random(seed) % 5]);
    n = next_random(seed) % 300;
    p = allocate(a, n + 1);
    for (size_t i = 0; i < n; i++)
        p[i] = (char)next_random(seed);
    return slice_of(p, n);
}

static void fill_value(
    const struct rpc_field *f, void *at, struct arena *a, unsigned *seed, int depth);

static void fill_message(
    const struct rpc_message *m, void *msg, struct arena *a, unsigned *seed, int depth);

static void *filled_inner(const struct rpc_field *f, struct arena *a, unsigned *seed, int depth)
{
    void *inner = allocate(a, f->message->size);
    if (depth < FILL_DEPTH_MAX)
        fill_message(f->message, inner, a, seed, depth + 1);
    return inner;
}

static void fill_value(
    const struct rpc_field *f, void *at, struct arena *a, unsigned *seed, int depth)
{
    uint64_t number = random_number(seed);
    switch (f->type) {
    case RPC_BOOL:
        *(bool *)at = number & 1;
        break;
    case RPC_INT32:
    case RPC_SINT32:
    case RPC_UINT32:
    case RPC_ENUM: /* also numbers without a name */
        *(uint32_t *)at = (uint32_t)number;
        break;
    case RPC_INT64:
    case RPC_UINT64:
        *(uint64_t *)at = number;
        break;
    case RPC_DOUBLE:
        *(double *)at = (double)number / 3;
        break;
    case RPC_STRING:
    case RPC_BYTES:
        *(struct slice *)at = random_text(a, seed, f->type == RPC_STRING);
        break;
    case RPC_MESSAGE:
        *(void **)at = filled_inner(f, a, seed, depth);
        break;
    case RPC_MAP:
        assert(!"maps are no values");
    }
}

static size_t item_size(const struct rpc_field *f)
{
    static const size_t sizes[] = {[RPC_BOOL] = sizeof(bool),
        [RPC_INT32] = 4,
        [RPC_SINT32] = 4,
        [RPC_INT64] = 8,
        [RPC_UINT32] = 4,
        [RPC_UINT64] = 8,
        [RPC_DOUBLE] = 8,
        [RPC_STRING] = sizeof(struct slice),
        [RPC_BYTES] = sizeof(struct slice),
        [RPC_ENUM] = 4,
        [RPC_MESSAGE] = sizeof(void *),
        [RPC_MAP] = sizeof(struct rpc_entry)};
    return sizes[f->type];
}

static void fill_list(
    const struct rpc_field *f, struct rpc_list *l, struct arena *a, unsigned *seed, int depth)
{
    l->n = next_random(seed) % 9;
    l->items = allocate(a, l->n * item_size(f) + 1);
    for (size_t i = 0; i < l->n; i++) {
        struct rpc_entry *entry = l->items;
        if (f->type != RPC_MAP) {
            fill_value(f, (char *)l->items + i * item_size(f), a, seed, depth);
            continue;
        }
        entry += i;
        entry->key = slice_cstr(arena_printf(a, "key%zu", i));
        entry->value = random_text(a, seed, /* is_utf8= */ true);
    }
}

static bool *presence(const struct rpc_field *f, const void *msg)
{
    return (bool *)((char *)(uintptr_t)msg + f->presence);
}

static bool is_list(const struct rpc_field *f)
{
    return f->label == RPC_REPEATED || f->type == RPC_MAP;
}

static bool oneof_taken(const struct rpc_message *m, const struct rpc_field *f, const void *msg)
{
    for (size_t i = 0; i < m->n_fields; i++)
        if (m->fields[i].label == RPC_ONEOF && m->fields[i].oneof == f->oneof &&
            *presence(&m->fields[i], msg))
            return true;
    return false;
}

static void fill_message(
    const struct rpc_message *m, void *msg, struct arena *a, unsigned *seed, int depth)
{
    memset(msg, 0, m->size);
    for (size_t i = 0; i < m->n_fields; i++) {
        const struct rpc_field *f = &m->fields[i];
        void *at = (char *)msg + f->offset;
        if (next_random(seed) % 2 || (f->label == RPC_ONEOF && oneof_taken(m, f, msg)))
            continue;
        if (is_list(f))
            fill_list(f, at, a, seed, depth);
        else
            fill_value(f, at, a, seed, depth);
        if (f->label == RPC_OPTIONAL || f->label == RPC_ONEOF)
            *presence(f, msg) = true;
    }
}

void message_fill(const struct rpc_message *m, void *msg, struct arena *a, unsigned *seed)
{
    fill_message(m, msg, a, seed, /* depth= */ 0);
}

/* --- comparing --- */

static bool value_eq(const struct rpc_field *f, const void *a, const void *b)
{
    const void *inner_a;
    const void *inner_b;
    if (f->type == RPC_STRING || f->type == RPC_BYTES)
        return slice_eq(*(const struct slice *)a, *(const struct slice *)b);
    if (f->type == RPC_MAP)
        return slice_eq(((const struct rpc_entry *)a)->key, ((const struct rpc_entry *)b)->key) &&
               slice_eq(((const struct rpc_entry *)a)->value, ((const struct rpc_entry *)b)->value);
    if (f->type != RPC_MESSAGE)
        return memcmp(a, b, item_size(f)) == 0;
    inner_a = *(void *const *)a;
    inner_b = *(void *const *)b;
    if (!inner_a || !inner_b)
        return inner_a == inner_b;
    return message_eq(f->message, inner_a, inner_b);
}

static bool list_eq(const struct rpc_field *f, const struct rpc_list *a, const struct rpc_list *b)
{
    if (a->n != b->n)
        return false;
    for (size_t i = 0; i < a->n; i++)
        if (!value_eq(f, (char *)a->items + i * item_size(f), (char *)b->items + i * item_size(f)))
            return false;
    return true;
}

bool message_eq(const struct rpc_message *m, const void *a, const void *b)
{
    for (size_t i = 0; i < m->n_fields; i++) {
        const struct rpc_field *f = &m->fields[i];
        const void *at_a = (const char *)a + f->offset;
        const void *at_b = (const char *)b + f->offset;
        if ((f->label == RPC_OPTIONAL || f->label == RPC_ONEOF) &&
            *presence(f, a) != *presence(f, b))
            return false;
        if (is_list(f) ? !list_eq(f, at_a, at_b) : !value_eq(f, at_a, at_b))
            return false;
    }
    return true;
}
