/* SPDX-License-Identifier: Apache-2.0 */
/* JSON: any bytes. What is accepted must come back the same from the writer. */
#include <assert.h>
#include <stdint.h>

#include "json/json.h"

enum { ARENA_BYTES = 8 << 20, TEXT_BYTES_MAX = 8 << 20 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static bool trees_eq(const struct json_value *a, const struct json_value *b);

static bool children_eq(const struct json_value *a, const struct json_value *b)
{
    const struct json_value *x = a->first;
    const struct json_value *y = b->first;
    for (; x && y; x = x->next, y = y->next)
        if (!slice_eq(x->key, y->key) || !trees_eq(x, y))
            return false;
    return !x && !y;
}

/* A double without fraction may be written as an integer. */
static double number_of(const struct json_value *v)
{
    return v->type == JSON_INT ? (double)v->integer : v->number;
}

static bool trees_eq(const struct json_value *a, const struct json_value *b)
{
    if (a->type == JSON_DOUBLE)
        return (b->type == JSON_INT || b->type == JSON_DOUBLE) && number_of(b) == a->number;
    if (a->type != b->type)
        return false;
    switch (a->type) {
    case JSON_BOOL:
        return a->boolean == b->boolean;
    case JSON_INT:
        return a->integer == b->integer;
    case JSON_STRING:
        return slice_eq(a->string, b->string);
    case JSON_ARRAY:
    case JSON_OBJECT:
        return a->count == b->count && children_eq(a, b);
    default:
        return true;
    }
}

static void write_text(const struct json_value *v, struct buf *out)
{
    struct json_writer w;
    json_writer_init(&w, out);
    json_value_write(&w, v);
    assert(!out->failed);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    AUTO_BUF struct buf text = BUF_INIT(TEXT_BYTES_MAX);
    const struct json_value *v;
    const struct json_value *back;
    struct err e = {0};
    struct arena a;
    arena_init(&a, ARENA_BYTES);
    if (json_parse(slice_of((const char *)data, size), &a, &v, &e) == 0) {
        write_text(v, &text);
        assert(json_parse(buf_slice(&text), &a, &back, &e) == 0);
        assert(trees_eq(v, back));
    } else {
        assert(e.kind == ERR_INVALID || e.kind == ERR_TOO_LARGE);
    }
    arena_done(&a);
    return 0;
}
