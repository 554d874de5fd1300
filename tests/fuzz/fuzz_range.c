/* SPDX-License-Identifier: Apache-2.0 */
/* Range headers and entity tags: the first bytes are the body's size. What is served lies in it. */
#include <assert.h>
#include <stdint.h>
#include <stdio.h>

#include "http/range.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void try_range(struct slice value, uint64_t size)
{
    struct http_range r = {0};
    struct http_range again;
    char text[HTTP_CONTENT_RANGE_MAX];
    char back[HTTP_CONTENT_RANGE_MAX];
    enum http_range_answer answer = http_range_choose(value, size, &r);
    if (answer != HTTP_RANGE_PART) {
        assert(r.first == 0 && r.length == 0);
        return;
    }
    assert(r.length > 0 && r.first < size && r.length <= size - r.first);
    http_range_format(&r, size, text);
    assert(strncmp(text, "bytes ", 6) == 0);
    /* what we say is a range that we would serve alike */
    text[strcspn(text, "/")] = '\0';
    (void)snprintf(back, sizeof back, "bytes=%.*s", (int)sizeof back - 7, text + 6);
    assert(http_range_choose(slice_cstr(back), size, &again) == HTTP_RANGE_PART);
    assert(again.first == r.first && again.length == r.length);
}

static void try_tags(struct slice s)
{
    struct slice tag = SLICE_LIT("\"v1\"");
    if (http_etag_in_list(s, tag, /* weak= */ false))
        assert(http_etag_in_list(s, tag, /* weak= */ true));
    if (s.p && http_if_range_holds(s, tag))
        assert(slice_eq(s, tag));
    if (http_etag_valid(s))
        assert(http_etag_in_list(s, s, /* weak= */ true));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uint64_t body = 0;
    struct slice rest;
    if (size < 2)
        return 0;
    /* sizes of every magnitude: a mantissa and an exponent */
    body = (uint64_t)data[0] << data[1] % 64;
    rest = slice_of((const char *)data + 2, size - 2);
    try_range(rest, body);
    try_range(rest, UINT64_MAX);
    try_tags(rest);
    return 0;
}
