/* SPDX-License-Identifier: Apache-2.0 */
/*
 * JSON (RFC 8259), strict: valid UTF-8, no duplicate keys, no trailing bytes, bounded depth.
 * Parsing builds a tree in an arena; strings are decoded there and may hold NUL bytes.
 */
#ifndef TORPOR_JSON_JSON_H
#define TORPOR_JSON_JSON_H

#include "base/arena.h"
#include "base/buf.h"
#include "base/err.h"

enum {
    JSON_DEPTH_MAX = 64,
    JSON_WRITER_DEPTH_MAX = 128 /* a parsed value fits 64 levels deep into what we write */
};

enum json_type {
    JSON_NULL,
    JSON_BOOL,
    JSON_INT,    /* written without fraction and exponent; fits int64, or the text is refused */
    JSON_DOUBLE, /* finite, or the text is refused */
    JSON_STRING,
    JSON_ARRAY,
    JSON_OBJECT
};

struct json_value {
    enum json_type type;
    struct slice key; /* of this member in its object; empty in arrays and at the root */
    union {
        bool boolean;
        int64_t integer;
        double number;
        struct slice string;
        struct json_value *first; /* of an array or object, in the text's order */
    };
    size_t count;            /* children of an array or object */
    struct json_value *next; /* sibling */
};

/* Parses the whole text. The tree lives as long as the arena; it does not point into `text`.
 * Errors: ERR_INVALID with the byte offset, ERR_TOO_LARGE when the arena's bound is passed,
 * ERR_NOMEM. */
int json_parse(struct slice text, struct arena *a, const struct json_value **ret, struct err *e);

/* The member with that key; NULL when absent or when `v` is no object. */
const struct json_value *json_get(const struct json_value *v, const char *key);

/* The member's integer, when it is one between `min` and `max`. */
bool json_get_int(
    const struct json_value *v, const char *key, int64_t min, int64_t max, int64_t *ret);
/* The member's text; p is NULL when there is no such string. */
struct slice json_get_text(const struct json_value *v, const char *key);

/* Writes one value piece by piece. Commas and colons come by themselves; wrong nesting is our own
 * mistake and asserts. Failure to allocate is the buffer's sticky `failed`. */
struct json_writer {
    struct buf *out;
    unsigned depth;
    bool need_comma; /* a value was written before in this container */
    bool after_key;
    uint64_t objects[JSON_WRITER_DEPTH_MAX / 64]; /* bit d: level d is an object, not an array */
};

void json_writer_init(struct json_writer *w, struct buf *out);
void json_object_begin(struct json_writer *w);
void json_object_end(struct json_writer *w);
void json_array_begin(struct json_writer *w);
void json_array_end(struct json_writer *w);
void json_key(struct json_writer *w, const char *key);
void json_key_slice(struct json_writer *w, struct slice key);
/* Invalid UTF-8 in strings is our own mistake on output; it is replaced by U+FFFD. */
void json_string(struct json_writer *w, struct slice s);
void json_cstr(struct json_writer *w, const char *s);
void json_int(struct json_writer *w, int64_t v);
void json_uint(struct json_writer *w, uint64_t v);
/* Text that reads back the same; null for what JSON has no text for (infinity, NaN). */
void json_double(struct json_writer *w, double v);
void json_bool(struct json_writer *w, bool v);
void json_null(struct json_writer *w);
/* Bytes as a base64 string. */
void json_base64(struct json_writer *w, struct slice s);
/* Copies a parsed value. */
void json_value_write(struct json_writer *w, const struct json_value *v);

#endif
