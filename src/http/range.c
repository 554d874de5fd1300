/* SPDX-License-Identifier: Apache-2.0 */
/* Byte ranges and entity tags. */
#include "http/range.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>

#include "http/http_int.h"

/* A position: digits, leading zeros allowed as the grammar has them; what exceeds 64 bits is as far
 * as anything can be. */
static bool parse_position(struct slice s, uint64_t *ret)
{
    uint64_t v = 0;
    for (size_t i = 0; i < s.n; i++) {
        uint64_t digit = (uint64_t)(s.p[i] - '0');
        if (s.p[i] < '0' || s.p[i] > '9')
            return false;
        v = v > (UINT64_MAX - digit) / 10 ? UINT64_MAX : v * 10 + digit;
    }
    *ret = v;
    return s.n > 0;
}

/* "-n": the last n bytes. */
static enum http_range_answer choose_suffix(
    struct slice digits, uint64_t size, struct http_range *ret)
{
    uint64_t n;
    if (!parse_position(digits, &n))
        return HTTP_RANGE_WHOLE;
    if (n == 0 || size == 0)
        return HTTP_RANGE_UNSATISFIABLE;
    n = n < size ? n : size;
    *ret = (struct http_range){.first = size - n, .length = n};
    return HTTP_RANGE_PART;
}

/* "a-b" or "a-". */
static enum http_range_answer choose_from(
    struct slice from, struct slice to, uint64_t size, struct http_range *ret)
{
    uint64_t first;
    uint64_t last = UINT64_MAX;
    if (!parse_position(from, &first) || (to.n > 0 && !parse_position(to, &last)) || last < first)
        return HTTP_RANGE_WHOLE;
    if (first >= size)
        return HTTP_RANGE_UNSATISFIABLE;
    last = last < size ? last : size - 1;
    *ret = (struct http_range){.first = first, .length = last - first + 1};
    return HTTP_RANGE_PART;
}

enum http_range_answer http_range_choose(struct slice value, uint64_t size, struct http_range *ret)
{
    struct slice unit;
    struct slice spec;
    struct slice from;
    struct slice to;
    if (!value.p || !http_cut(value, '=', &unit, &spec) ||
        !slice_eq_nocase(unit, SLICE_LIT("bytes")))
        return HTTP_RANGE_WHOLE;
    spec = http_trim(spec);
    if (!http_cut(spec, '-', &from, &to)) /* several: "," is no digit, so that is no position */
        return HTTP_RANGE_WHOLE;
    return from.n == 0 ? choose_suffix(to, size, ret) : choose_from(from, to, size, ret);
}

void http_range_format(
    const struct http_range *range, uint64_t size, char dst[HTTP_CONTENT_RANGE_MAX])
{
    if (!range) {
        (void)snprintf(dst, HTTP_CONTENT_RANGE_MAX, "bytes */%" PRIu64, size);
        return;
    }
    assert(range->length > 0 && range->first < size && range->length <= size - range->first);
    (void)snprintf(dst, HTTP_CONTENT_RANGE_MAX, "bytes %" PRIu64 "-%" PRIu64 "/%" PRIu64,
        range->first, range->first + range->length - 1, size);
}

static bool is_weak(struct slice etag)
{
    return etag.n >= 2 && etag.p[0] == 'W' && etag.p[1] == '/';
}

static struct slice without_weak(struct slice etag)
{
    return is_weak(etag) ? slice_of(etag.p + 2, etag.n - 2) : etag;
}

/* The bytes of the tag at the start of `s`, 0 when there is none. */
static size_t etag_len(struct slice s)
{
    size_t i = is_weak(s) ? 2 : 0;
    if (i >= s.n || s.p[i] != '"')
        return 0;
    for (i++; i < s.n; i++) {
        unsigned char c = (unsigned char)s.p[i];
        if (c == '"')
            return i + 1;
        if (c < 0x21 || c == 0x7f)
            return 0;
    }
    return 0;
}

bool http_etag_valid(struct slice s)
{
    return s.n > 0 && etag_len(s) == s.n;
}

bool http_if_range_holds(struct slice value, struct slice etag)
{
    return !value.p || (http_etag_valid(value) && !is_weak(value) && slice_eq(value, etag));
}

static bool etags_match(struct slice a, struct slice b, bool weak)
{
    if (!weak && (is_weak(a) || is_weak(b)))
        return false;
    return slice_eq(without_weak(a), without_weak(b));
}

bool http_etag_in_list(struct slice list, struct slice etag, bool weak)
{
    bool found = false;
    list = http_trim(list);
    if (slice_is(list, "*"))
        return true;
    while (list.n > 0) { /* a comma may stand inside a tag, so the list cannot simply be cut */
        size_t len = etag_len(list);
        if (len == 0)
            return false;
        found = found || etags_match(slice_of(list.p, len), etag, weak);
        list = http_trim(slice_of(list.p + len, list.n - len));
        if (list.n > 0 && list.p[0] != ',')
            return false;
        if (list.n > 0)
            list = http_trim(slice_of(list.p + 1, list.n - 1));
    }
    return found;
}
