/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Growable byte buffer with a bound and a sticky failure: append freely, check `failed` once.
 * After a failure the contents are what fitted before; nothing partial is appended.
 */
#ifndef TORPOR_BASE_BUF_H
#define TORPOR_BASE_BUF_H

#include "base/slice.h"

struct buf {
    char *p; /* NUL behind `len` whenever p is not NULL */
    size_t len;
    size_t cap;
    size_t max; /* bytes, not counting the NUL */
    bool failed;
};

#define BUF_INIT(max_bytes) ((struct buf){.max = (max_bytes)})

/* Frees the memory; the buffer is empty, keeps its bound and is not failed. */
void buf_done(struct buf *b);
/* Empties it but keeps the memory. Clears `failed`. */
void buf_reset(struct buf *b);
/* Room for `n` more bytes: where to write them, NULL (and failed) when over the bound. The caller
 * then adds to `len` what it wrote, with buf_commit. */
char *buf_reserve(struct buf *b, size_t n);
void buf_commit(struct buf *b, size_t n);
void buf_append(struct buf *b, const void *p, size_t n);
void buf_append_slice(struct buf *b, struct slice s);
void buf_append_cstr(struct buf *b, const char *s);
void buf_append_char(struct buf *b, char c);
void buf_printf(struct buf *b, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* Removes `n` bytes at the front. */
void buf_consume(struct buf *b, size_t n);

static inline struct slice buf_slice(const struct buf *b)
{
    return (struct slice){b->p, b->len};
}

#define AUTO_BUF __attribute__((cleanup(buf_done)))

#endif
