/* SPDX-License-Identifier: Apache-2.0 */
/* The JSON writer: compact text, piece by piece, into a bounded buffer. */
#include "json/json.h"

#include <assert.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

enum { BITS = 64, DOUBLE_CHARS_MAX = 32 };
static_assert(
    JSON_WRITER_DEPTH_MAX == 8 * sizeof((struct json_writer *)0)->objects, "a bit for each level");

void json_writer_init(struct json_writer *w, struct buf *out)
{
    *w = (struct json_writer){.out = out};
}

static bool in_object(const struct json_writer *w)
{
    unsigned level = w->depth - 1;
    return w->depth > 0 && (w->objects[level / BITS] >> (level % BITS) & 1) != 0;
}

/* What goes before any value: a comma where one is due. A value in an object follows its key. */
static void before_value(struct json_writer *w)
{
    assert(!in_object(w) || w->after_key);
    assert(w->depth > 0 || !w->need_comma); /* one value at the root */
    if (w->need_comma && !w->after_key)
        buf_append_char(w->out, ',');
    w->after_key = false;
    w->need_comma = true;
}

static void begin(struct json_writer *w, bool is_object)
{
    uint64_t bit = UINT64_C(1) << (w->depth % BITS);
    assert(w->depth < JSON_WRITER_DEPTH_MAX);
    before_value(w);
    if (is_object)
        w->objects[w->depth / BITS] |= bit;
    else
        w->objects[w->depth / BITS] &= ~bit;
    w->depth++;
    w->need_comma = false;
    buf_append_char(w->out, is_object ? '{' : '[');
}

static void end(struct json_writer *w, bool is_object)
{
    assert(w->depth > 0 && !w->after_key && in_object(w) == is_object);
    w->depth--;
    w->need_comma = true;
    buf_append_char(w->out, is_object ? '}' : ']');
}

void json_object_begin(struct json_writer *w)
{
    begin(w, /* is_object= */ true);
}

void json_object_end(struct json_writer *w)
{
    end(w, /* is_object= */ true);
}

void json_array_begin(struct json_writer *w)
{
    begin(w, /* is_object= */ false);
}

void json_array_end(struct json_writer *w)
{
    end(w, /* is_object= */ false);
}

static void put_escaped(struct buf *out, unsigned char c)
{
    switch (c) {
    case '"':
        buf_append_cstr(out, "\\\"");
        break;
    case '\\':
        buf_append_cstr(out, "\\\\");
        break;
    case '\n':
        buf_append_cstr(out, "\\n");
        break;
    case '\r':
        buf_append_cstr(out, "\\r");
        break;
    case '\t':
        buf_append_cstr(out, "\\t");
        break;
    default:
        buf_printf(out, "\\u%04x", c);
    }
}

/* Valid UTF-8: runs that need no escape are copied whole. */
static void put_text(struct buf *out, struct slice s)
{
    size_t run = 0;
    for (size_t i = 0; i < s.n; i++) {
        unsigned char c = (unsigned char)s.p[i];
        if (c >= 0x20 && c != '"' && c != '\\')
            continue;
        buf_append(out, s.p + run, i - run);
        put_escaped(out, c);
        run = i + 1;
    }
    buf_append(out, s.p + run, s.n - run);
}

/* Length of the valid sequence at the start of `s`, 0 when there is none. */
static size_t sequence_len(struct slice s)
{
    for (size_t len = 1; len <= 4 && len <= s.n; len++)
        if (utf8_valid(s.p, len))
            return len;
    return 0;
}

static void put_repaired(struct buf *out, struct slice s)
{
    while (s.n > 0) {
        size_t len = sequence_len(s);
        if (len > 0)
            put_text(out, slice_of(s.p, len));
        else
            buf_append_cstr(out, "\xef\xbf\xbd");
        len = len ? len : 1;
        s = slice_of(s.p + len, s.n - len);
    }
}

static void put_quoted(struct buf *out, struct slice s)
{
    buf_append_char(out, '"');
    if (utf8_valid(s.p, s.n))
        put_text(out, s);
    else
        put_repaired(out, s);
    buf_append_char(out, '"');
}

void json_key_slice(struct json_writer *w, struct slice key)
{
    assert(in_object(w) && !w->after_key);
    if (w->need_comma)
        buf_append_char(w->out, ',');
    put_quoted(w->out, key);
    buf_append_char(w->out, ':');
    w->after_key = true;
}

void json_key(struct json_writer *w, const char *key)
{
    json_key_slice(w, slice_cstr(key));
}

void json_string(struct json_writer *w, struct slice s)
{
    before_value(w);
    put_quoted(w->out, s);
}

void json_cstr(struct json_writer *w, const char *s)
{
    json_string(w, slice_cstr(s));
}

void json_int(struct json_writer *w, int64_t v)
{
    before_value(w);
    buf_printf(w->out, "%" PRId64, v);
}

void json_uint(struct json_writer *w, uint64_t v)
{
    before_value(w);
    buf_printf(w->out, "%" PRIu64, v);
}

void json_double(struct json_writer *w, double v)
{
    char text[DOUBLE_CHARS_MAX];
    before_value(w);
    if (!isfinite(v)) {
        buf_append_cstr(w->out, "null");
        return;
    }
    if (v == 0 && signbit(v)) { /* "-0" would read back as the integer 0 */
        buf_append_cstr(w->out, "-0.0");
        return;
    }
    for (int digits = 15; digits <= 17; digits++) {
        (void)snprintf(text, sizeof text, "%.*g", digits, v);
        if (strtod(text, NULL) == v)
            break;
    }
    buf_append_cstr(w->out, text);
}

void json_bool(struct json_writer *w, bool v)
{
    before_value(w);
    buf_append_cstr(w->out, v ? "true" : "false");
}

void json_null(struct json_writer *w)
{
    before_value(w);
    buf_append_cstr(w->out, "null");
}

void json_base64(struct json_writer *w, struct slice s)
{
    size_t len = base64_encoded_len(s.n);
    char *at;
    before_value(w);
    buf_append_char(w->out, '"');
    at = buf_reserve(w->out, len);
    if (at) {
        base64_encode(s.p, s.n, at);
        buf_commit(w->out, len);
    }
    buf_append_char(w->out, '"');
}

static void write_children(struct json_writer *w, const struct json_value *v)
{
    begin(w, v->type == JSON_OBJECT);
    for (const struct json_value *c = v->first; c; c = c->next) {
        if (v->type == JSON_OBJECT)
            json_key_slice(w, c->key);
        json_value_write(w, c);
    }
    end(w, v->type == JSON_OBJECT);
}

void json_value_write(struct json_writer *w, const struct json_value *v)
{
    switch (v->type) {
    case JSON_NULL:
        json_null(w);
        break;
    case JSON_BOOL:
        json_bool(w, v->boolean);
        break;
    case JSON_INT:
        json_int(w, v->integer);
        break;
    case JSON_DOUBLE:
        json_double(w, v->number);
        break;
    case JSON_STRING:
        json_string(w, v->string);
        break;
    case JSON_ARRAY:
    case JSON_OBJECT:
        write_children(w, v);
        break;
    }
}
