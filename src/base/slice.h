/* SPDX-License-Identifier: Apache-2.0 */
/* A borrowed run of bytes. Not NUL-terminated unless its maker says so; owns nothing. */
#ifndef TORPOR_BASE_SLICE_H
#define TORPOR_BASE_SLICE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct slice {
    const char *p;
    size_t n;
};

#define SLICE_LIT(s) ((struct slice){(s), sizeof(s) - 1})

static inline struct slice slice_of(const char *p, size_t n)
{
    return (struct slice){p, n};
}

/* NULL gives the empty slice. */
static inline struct slice slice_cstr(const char *s)
{
    return (struct slice){s, s ? strlen(s) : 0};
}

static inline bool slice_eq(struct slice a, struct slice b)
{
    return a.n == b.n && (a.n == 0 || memcmp(a.p, b.p, a.n) == 0);
}

static inline bool slice_is(struct slice a, const char *s)
{
    return slice_eq(a, slice_cstr(s));
}

/* ASCII case folded equality, for header names and tokens. */
bool slice_eq_nocase(struct slice a, struct slice b);

/* Copies into `dst` with a NUL; false (and dst untouched) when it does not fit or holds a NUL. */
bool slice_copy_cstr(struct slice s, char *dst, size_t dst_size);

/* Strict decimal: digits only, no sign, no leading zero but "0", fits in 64 bits. */
bool slice_parse_u64(struct slice s, uint64_t *ret);

/* Strict UTF-8 (RFC 3629): no overlongs, no surrogates, at most U+10FFFF. */
bool utf8_valid(const char *p, size_t n);

/* Length of the longest prefix that does not end inside a UTF-8 sequence which more bytes could
 * still complete. Used to cut a stream without splitting a character. */
size_t utf8_complete_prefix(const char *p, size_t n);

/* Standard base64 (RFC 4648 section 4, padded). `dst` needs base64_encoded_len(n) bytes (no NUL).
 */
size_t base64_encoded_len(size_t n);
void base64_encode(const void *src, size_t n, char *dst);
/* Accepts the standard alphabet, padded or not; `dst` needs n / 4 * 3 + 3 bytes.
 * Returns the decoded length, -1 when malformed. */
long base64_decode(const char *src, size_t n, void *dst);

/* Lower-case hex; `dst` gets 2 * n characters and a NUL. */
void hex_encode(const void *src, size_t n, char *dst);

#endif
