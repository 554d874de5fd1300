/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Plain HTTP of the conformance server: bodies of every framing in and out, a form, a page.
 *
 *   /bytes?n=N   N bytes, of a pattern that repeats every 251 bytes
 *   /stream?n=N  the same without a length
 *   /count       how many bytes came, and their sum, as text
 *   /refuse      403 without reading the body
 */
#include "pages.h"

#include <assert.h>
#include <stdio.h>

#include "base/cleanup.h"
#include "http/server.h"
#include "http/status.h"

enum { PATTERN = 251, BLOCK_BYTES = PATTERN * 256 };

static void reply_text(struct http_exchange *x, enum err_kind kind, const char *text)
{
    int status = kind == ERR_NONE ? HTTP_OK : http_status_from_kind(kind);
    (void)http_reply(x, status, "text/plain; charset=utf-8", slice_cstr(text));
}

static bool wanted_bytes(struct http_exchange *x, uint64_t *ret)
{
    struct slice n;
    return http_request_query(x, "n", &n) && slice_parse_u64(n, ret) && *ret <= INT64_MAX;
}

static int send_pattern(struct http_exchange *x, uint64_t n, struct err *e)
{
    unsigned char block[BLOCK_BYTES / 16];
    static_assert(sizeof block % PATTERN == 0, "blocks follow each other without a seam");
    for (size_t i = 0; i < sizeof block; i++)
        block[i] = (unsigned char)(i % PATTERN);
    while (n > 0) {
        size_t now = n < sizeof block ? (size_t)n : sizeof block;
        if (http_reply_write(x, block, now, e) < 0)
            return -1;
        n -= now;
    }
    return http_reply_end(x, e);
}

static void serve_pattern(struct http_exchange *x, bool says_length)
{
    struct err e = {0};
    uint64_t n;
    if (!wanted_bytes(x, &n))
        reply_text(x, ERR_INVALID, "n must be a number");
    else if (http_reply_begin(
                 x, HTTP_OK, "application/octet-stream", says_length ? (int64_t)n : -1, &e) == 0)
        (void)send_pattern(x, n, &e);
}

static void serve_bytes(struct http_exchange *x)
{
    serve_pattern(x, /* says_length= */ true);
}

static void serve_stream(struct http_exchange *x)
{
    serve_pattern(x, /* says_length= */ false);
}

static void serve_count(struct http_exchange *x)
{
    unsigned char block[BLOCK_BYTES / 16];
    char text[64];
    uint64_t bytes = 0;
    uint64_t sum = 0;
    struct err e = {0};
    ssize_t got;
    while ((got = http_body_read(x, block, sizeof block, &e)) > 0) {
        bytes += (uint64_t)got;
        for (ssize_t i = 0; i < got; i++)
            sum += block[i];
    }
    (void)snprintf(text, sizeof text, "%llu bytes, sum %llu\n", (unsigned long long)bytes,
        (unsigned long long)sum);
    reply_text(x, got < 0 ? e.kind : ERR_NONE, got < 0 ? e.msg : text);
}

static void serve_refuse(struct http_exchange *x)
{
    reply_text(x, ERR_FORBIDDEN, "not read\n");
}

void pages_serve(struct http_exchange *x)
{
    static const struct {
        const char *path;
        void (*serve)(struct http_exchange *x);
    } pages[] = {
        {"/bytes", serve_bytes},
        {"/stream", serve_stream},
        {"/count", serve_count},
        {"/refuse", serve_refuse},
    };
    for (size_t i = 0; i < ARRAY_LEN(pages); i++) {
        if (slice_is(http_request(x)->path, pages[i].path)) {
            pages[i].serve(x);
            return;
        }
    }
    reply_text(x, ERR_NOT_FOUND, "no such page\n");
}
