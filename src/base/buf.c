/* SPDX-License-Identifier: Apache-2.0 */
/* Growable byte buffer with a bound. */
#include "base/buf.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

enum { CAP_MIN = 256 };

void buf_done(struct buf *b)
{
    free(b->p);
    *b = BUF_INIT(b->max);
}

void buf_reset(struct buf *b)
{
    b->len = 0;
    b->failed = false;
    if (b->p)
        b->p[0] = '\0';
}

static bool grow(struct buf *b, size_t need)
{
    size_t cap = b->cap ? b->cap : CAP_MIN;
    char *p;
    while (cap < need)
        cap = cap > SIZE_MAX / 2 ? need : cap * 2;
    p = realloc(b->p, cap);
    if (!p)
        return false;
    b->p = p;
    b->cap = cap;
    return true;
}

char *buf_reserve(struct buf *b, size_t n)
{
    if (b->failed || n > b->max - b->len || (b->len + n + 1 > b->cap && !grow(b, b->len + n + 1))) {
        b->failed = true;
        return NULL;
    }
    return b->p + b->len;
}

void buf_commit(struct buf *b, size_t n)
{
    assert(b->p && b->len + n < b->cap);
    b->len += n;
    b->p[b->len] = '\0';
}

void buf_append(struct buf *b, const void *p, size_t n)
{
    char *at = buf_reserve(b, n);
    if (!at)
        return;
    if (n > 0)
        memcpy(at, p, n);
    buf_commit(b, n);
}

void buf_append_slice(struct buf *b, struct slice s)
{
    buf_append(b, s.p, s.n);
}

void buf_append_cstr(struct buf *b, const char *s)
{
    buf_append(b, s, strlen(s));
}

void buf_append_char(struct buf *b, char c)
{
    buf_append(b, &c, 1);
}

void buf_printf(struct buf *b, const char *fmt, ...)
{
    va_list ap;
    int n;
    char *at;
    va_start(ap, fmt);
    n = vsnprintf(NULL, 0, fmt, ap);
    va_end(ap);
    at = n < 0 ? NULL : buf_reserve(b, (size_t)n);
    if (!at) {
        b->failed = true;
        return;
    }
    va_start(ap, fmt);
    (void)vsnprintf(at, (size_t)n + 1, fmt, ap);
    va_end(ap);
    buf_commit(b, (size_t)n);
}

void buf_consume(struct buf *b, size_t n)
{
    assert(n <= b->len);
    if (n == 0)
        return;
    memmove(b->p, b->p + n, b->len - n);
    b->len -= n;
    b->p[b->len] = '\0';
}
