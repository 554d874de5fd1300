/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Plain HTTP of the conformance server: bodies of every framing in and out, a form, a page.
 *
 *   /bytes?n=N     N bytes, of a pattern that repeats every 251 bytes; ranges of it too
 *   /stream?n=N    the same without a length
 *   /count         how many bytes came, and their sum, as text
 *   /refuse        403 without reading the body
 *   /page          a page with a form
 *   /upload        takes that form and keeps its file, /file gives it back
 *   /events?id=ID  five events, each but the first when /release?id=ID is asked for
 */
#include "pages.h"

#include <pthread.h>
#include <stdio.h>

#include "base/cleanup.h"
#include "echo.h"
#include "http/multipart.h"
#include "http/range.h"
#include "http/server.h"
#include "http/status.h"

enum {
    PATTERN = 251,
    BLOCK_BYTES = PATTERN * 16, /* whole patterns: blocks follow each other without a seam */
    FILE_BYTES_MAX = 64 << 20,
    EVENTS = 5,
    PARTIAL_CONTENT = 206,
    RANGE_NOT_SATISFIABLE = 416
};

/* The file that was uploaded last. */
static struct {
    pthread_mutex_t lock;
    struct buf bytes;
    struct multipart_part part;
} kept = {.lock = PTHREAD_MUTEX_INITIALIZER, .bytes = BUF_INIT(FILE_BYTES_MAX)};

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

/* The pattern from `at` on, and the end of the reply. */
static int send_pattern(struct http_exchange *x, uint64_t at, uint64_t n, struct err *e)
{
    unsigned char block[BLOCK_BYTES];
    for (size_t i = 0; i < sizeof block; i++)
        block[i] = (unsigned char)((at + i) % PATTERN);
    while (n > 0) {
        size_t now = n < sizeof block ? (size_t)n : sizeof block;
        if (http_reply_write(x, block, now, e) < 0)
            return -1;
        n -= now;
    }
    return http_reply_end(x, e);
}

static void reply_pattern(
    struct http_exchange *x, int status, const struct http_range *range, bool says_length)
{
    int64_t length = says_length ? (int64_t)range->length : -1;
    struct err e = {0};
    if (http_reply_begin(x, status, "application/octet-stream", length, &e) == 0)
        (void)send_pattern(x, range->first, range->length, &e);
}

static void serve_bytes(struct http_exchange *x)
{
    char text[HTTP_CONTENT_RANGE_MAX];
    struct http_range range = {0};
    if (!wanted_bytes(x, &range.length)) {
        reply_text(x, ERR_INVALID, "n must be a number");
        return;
    }
    uint64_t size = range.length;
    switch (http_range_choose(http_request_header(x, "Range"), size, &range)) {
    case HTTP_RANGE_WHOLE:
        reply_pattern(x, HTTP_OK, &range, /* says_length= */ true);
        break;
    case HTTP_RANGE_PART:
        http_range_format(&range, size, text);
        http_reply_header(x, "Content-Range", "%s", text);
        reply_pattern(x, PARTIAL_CONTENT, &range, /* says_length= */ true);
        break;
    default:
        http_range_format(/* range= */ NULL, size, text);
        http_reply_header(x, "Content-Range", "%s", text);
        (void)http_reply(x, RANGE_NOT_SATISFIABLE, /* content_type= */ NULL, SLICE_LIT(""));
        break;
    }
}

static void serve_stream(struct http_exchange *x)
{
    struct http_range range = {0};
    if (wanted_bytes(x, &range.length))
        reply_pattern(x, HTTP_OK, &range, /* says_length= */ false);
    else
        reply_text(x, ERR_INVALID, "n must be a number");
}

static void serve_count(struct http_exchange *x)
{
    unsigned char block[BLOCK_BYTES];
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

static void serve_page(struct http_exchange *x)
{
    (void)http_reply(x, HTTP_OK, "text/html; charset=utf-8",
        SLICE_LIT("<!doctype html><title>conformance</title>"
                  "<form method=post action=/upload enctype=multipart/form-data>"
                  "<input name=note><input type=file name=file><button>send</button></form>"));
}

static ssize_t read_body(void *ctx, void *dst, size_t n, struct err *e)
{
    return http_body_read(ctx, dst, n, e);
}

/* Keeps the part if it is the file; others are passed over. */
static int keep_part(struct multipart *m, const struct multipart_part *part, struct err *e)
{
    if (strcmp(part->name, "file") != 0)
        return 0;
    MUTEX_GUARD(&kept.lock);
    kept.part = *part;
    buf_reset(&kept.bytes);
    return multipart_read_all(m, &kept.bytes, e);
}

static int take_form(struct http_exchange *x, struct err *e)
{
    struct multipart_part part;
    struct multipart *m = multipart_open(http_request_header(x, "Content-Type"), read_body, x, e);
    int rc = -1;
    if (m)
        while ((rc = multipart_next(m, &part, e)) > 0)
            if ((rc = keep_part(m, &part, e)) < 0)
                break;
    (void)multipart_close(m);
    return rc;
}

static void serve_upload(struct http_exchange *x)
{
    char text[sizeof kept.part.filename + 16];
    struct err e = {0};
    if (take_form(x, &e) < 0) {
        reply_text(x, e.kind, e.msg);
        return;
    }
    MUTEX_GUARD(&kept.lock);
    (void)snprintf(text, sizeof text, "kept %s\n", kept.part.filename);
    reply_text(x, ERR_NONE, text);
}

static void serve_file(struct http_exchange *x)
{
    MUTEX_GUARD(&kept.lock);
    (void)http_reply(x, HTTP_OK, "application/octet-stream", buf_slice(&kept.bytes));
}

static int send_events(struct http_exchange *x, struct slice id, struct err *e)
{
    if (http_reply_begin(x, HTTP_OK, "text/event-stream", /* length= */ -1, e) < 0)
        return -1;
    for (int i = 0; i < EVENTS; i++) {
        char text[32];
        int n = snprintf(text, sizeof text, "data: %d\n\n", i);
        if ((i > 0 && echo_wait_released(id, i, e) < 0) ||
            http_reply_write(x, text, (size_t)n, e) < 0)
            return -1;
    }
    return http_reply_end(x, e);
}

static void serve_events(struct http_exchange *x)
{
    struct slice id;
    struct err e = {0};
    if (!http_request_query(x, "id", &id))
        reply_text(x, ERR_INVALID, "an id is needed");
    else if (send_events(x, id, &e) < 0)
        http_reply_abort(x);
}

static void serve_release(struct http_exchange *x)
{
    struct slice id;
    if (http_request_query(x, "id", &id))
        echo_release(id);
    reply_text(x, ERR_NONE, "");
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
        {"/page", serve_page},
        {"/upload", serve_upload},
        {"/file", serve_file},
        {"/events", serve_events},
        {"/release", serve_release},
    };
    for (size_t i = 0; i < ARRAY_LEN(pages); i++) {
        if (slice_is(http_request(x)->path, pages[i].path)) {
            pages[i].serve(x);
            return;
        }
    }
    reply_text(x, ERR_NOT_FOUND, "no such page\n");
}
