/* SPDX-License-Identifier: Apache-2.0 */
/*
 * HTTP heads, chunked bodies, percent-encoding. The first byte chooses which. However the bytes are
 * cut up, the result must be the same, and slices must point into the input.
 */
#include <assert.h>
#include <stdlib.h>

#include "base/buf.h"
#include "http/parse.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* The path of "http://host" is a literal. */
static bool is_inside(struct slice s, const char *p, size_t n)
{
    return s.n == 0 || slice_is(s, "/") || (s.p >= p && s.p + s.n <= p + n);
}

static void check_headers(const struct http_header *h, size_t n_headers, const char *p, size_t n)
{
    assert(n_headers <= HTTP_HEADERS_MAX);
    for (size_t i = 0; i < n_headers; i++) {
        assert(h[i].name.n > 0 && is_inside(h[i].name, p, n) && is_inside(h[i].value, p, n));
        assert(h[i].value.n == 0 || !memchr(h[i].value.p, '\n', h[i].value.n));
        assert(h[i].value.n == 0 || !memchr(h[i].value.p, '\0', h[i].value.n));
    }
}

static void check_error(const struct err *e)
{
    assert(e->kind == ERR_INVALID || e->kind == ERR_TOO_LARGE || e->kind == ERR_UNSUPPORTED ||
           e->kind == ERR_HEADERS_TOO_LARGE);
    assert(e->msg[0] != '\0');
}

static void try_request(const char *p, size_t n)
{
    struct http_request_head h;
    struct err e = {0};
    ssize_t len = http_parse_request(p, n, &h, &e);
    if (len < 0)
        check_error(&e);
    if (len <= 0)
        return;
    assert((size_t)len <= n && len <= HTTP_HEAD_BYTES_MAX);
    check_headers(h.headers, h.n_headers, p, (size_t)len);
    assert(h.method.n > 0 && is_inside(h.method, p, (size_t)len));
    assert(h.path.n > 0 && is_inside(h.path, p, (size_t)len) && is_inside(h.query, p, (size_t)len));
    assert(!(h.framing == HTTP_BODY_CHUNKED && h.minor == 0));
    assert(h.framing != HTTP_BODY_UNTIL_CLOSE);
    /* exactly its bytes are the head: all of them are enough, fewer are never wrong */
    for (size_t part = (size_t)len - 1; part > 0; part /= 2)
        assert(http_parse_request(p, part, &h, &e) == 0);
    assert(http_parse_request(p, (size_t)len, &h, &e) == len);
}

static void try_response(const char *p, size_t n)
{
    struct http_response_head h;
    struct err e = {0};
    ssize_t len = http_parse_response(p, n, &h, &e);
    if (len < 0)
        check_error(&e);
    if (len <= 0)
        return;
    assert((size_t)len <= n && h.status >= 100 && h.status <= 599);
    check_headers(h.headers, h.n_headers, p, (size_t)len);
    assert(!(h.framing == HTTP_BODY_UNTIL_CLOSE && h.keep_alive));
    for (size_t part = (size_t)len - 1; part > 0; part /= 2)
        assert(http_parse_response(p, part, &h, &e) == 0);
    assert(http_parse_response(p, (size_t)len, &h, &e) == len);
}

/* Decodes in pieces; returns how many bytes were used, -1 when malformed. */
static ssize_t decode(const char *p, size_t n, size_t piece, struct buf *out, bool *ret_end)
{
    struct http_chunks c = {0};
    size_t at = 0;
    *ret_end = false;
    while (at < n && !*ret_end) {
        struct slice run;
        struct err e = {0};
        size_t give = n - at < piece ? n - at : piece;
        ssize_t used = http_chunks_feed(&c, p + at, give, &run, ret_end, &e);
        if (used < 0) {
            assert(e.kind == ERR_INVALID);
            return -1;
        }
        assert((size_t)used <= give && (used > 0 || *ret_end) && is_inside(run, p + at, give));
        buf_append_slice(out, run);
        at += (size_t)used;
    }
    return (ssize_t)at;
}

static void try_chunks(const char *p, size_t n)
{
    static const size_t pieces[] = {1, 3};
    AUTO_BUF struct buf whole = BUF_INIT(1 << 20);
    bool end;
    ssize_t used = decode(p, n, n ? n : 1, &whole, &end);
    for (size_t i = 0; i < 2; i++) {
        AUTO_BUF struct buf cut = BUF_INIT(1 << 20);
        bool cut_end;
        assert(decode(p, n, pieces[i], &cut, &cut_end) == used);
        assert(used < 0 || cut_end == end);
        assert(used < 0 || slice_eq(buf_slice(&cut), buf_slice(&whole)));
    }
}

static void try_percent(const char *p, size_t n, bool is_query)
{
    char *dst = malloc(n + 1);
    size_t got;
    assert(dst);
    if (http_percent_decode(slice_of(p, n), is_query, dst, &got))
        assert(got <= n && dst[got] == '\0' && strlen(dst) == got);
    free(dst);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const char *p = (const char *)data + 1;
    if (size == 0)
        return 0;
    switch (data[0] % 5) {
    case 0:
        try_request(p, size - 1);
        break;
    case 1:
        try_response(p, size - 1);
        break;
    case 2:
        try_chunks(p, size - 1);
        break;
    default:
        try_percent(p, size - 1, data[0] % 5 == 3);
    }
    return 0;
}
