/* SPDX-License-Identifier: Apache-2.0 */
/*
 * multipart/form-data: the first line is the Content-Type, the rest the body. However the body
 * arrives and however it is read, parts, data and the error's kind must be the same.
 */
#include <assert.h>

#include "http/multipart.h"

enum { TRACE_MAX = 4 << 20, PARTS_MAX = 4096 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct feed {
    struct slice rest;
    size_t piece;
};

static ssize_t feed_source(void *ctx, void *dst, size_t n, struct err *e)
{
    struct feed *f = ctx;
    assert(n > 0);
    if (n > f->piece)
        n = f->piece;
    if (n > f->rest.n)
        n = f->rest.n;
    if (n > 0)
        memcpy(dst, f->rest.p, n);
    f->rest = slice_of(f->rest.p + n, f->rest.n - n);
    return (ssize_t)n;
}

static int read_part(struct multipart *m, size_t piece, struct buf *trace, struct err *e)
{
    char dst[256];
    ssize_t n;
    assert(piece <= sizeof dst);
    while ((n = multipart_read(m, dst, piece, e)) > 0)
        buf_append(trace, dst, (size_t)n);
    return (int)n;
}

static void check_part(const struct multipart_part *p)
{
    assert(strnlen(p->name, sizeof p->name) < sizeof p->name);
    assert(strnlen(p->filename, sizeof p->filename) < sizeof p->filename);
    assert(strnlen(p->content_type, sizeof p->content_type) < sizeof p->content_type);
    assert(p->has_filename || p->filename[0] == '\0');
}

static void read_form(struct slice type, struct feed *f, size_t read_piece, struct buf *trace)
{
    struct err e = {0};
    struct multipart_part part;
    struct multipart *m = multipart_open(type, feed_source, f, &e);
    int rc = m ? 1 : -1;
    for (int i = 0; m && i < PARTS_MAX && (rc = multipart_next(m, &part, &e)) > 0; i++) {
        check_part(&part);
        buf_printf(trace, "[%s][%s][%s]", part.name, part.filename, part.content_type);
        if ((rc = read_part(m, read_piece, trace, &e)) < 0)
            break;
    }
    assert(rc >= 0 || e.kind == ERR_INVALID || e.kind == ERR_MEDIA_TYPE);
    buf_printf(trace, "%d %d", rc, (int)e.kind);
    (void)multipart_close(m);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    AUTO_BUF struct buf once = BUF_INIT(TRACE_MAX);
    AUTO_BUF struct buf dripped = BUF_INIT(TRACE_MAX);
    const char *p = (const char *)data;
    const char *line_end = size > 0 ? memchr(p, '\n', size) : NULL;
    struct slice type;
    struct slice body;
    if (!line_end)
        return 0;
    type = slice_of(p, (size_t)(line_end - p));
    body = slice_of(line_end + 1, size - type.n - 1);
    read_form(type, &(struct feed){body, SIZE_MAX}, 256, &once);
    read_form(type, &(struct feed){body, 1}, 3, &dripped);
    assert(slice_eq(buf_slice(&once), buf_slice(&dripped)));
    return 0;
}
