/* SPDX-License-Identifier: Apache-2.0 */
/* Memory of one request: allocated piecemeal, freed at once. One thread at a time. */
#ifndef TORPOR_BASE_ARENA_H
#define TORPOR_BASE_ARENA_H

#include "base/slice.h"

struct arena_block;

struct arena {
    struct arena_block *blocks;
    size_t used_bytes; /* handed out so far */
    size_t max_bytes;  /* beyond this, arena_alloc returns NULL */
};

/* An empty arena that will hand out at most `max_bytes`. Allocates nothing. */
void arena_init(struct arena *a, size_t max_bytes);
/* Frees all blocks; the arena is empty and usable again. */
void arena_done(struct arena *a);

/* Zeroed, 16-byte aligned. NULL when over the limit or out of memory. */
void *arena_alloc(struct arena *a, size_t size);
/* As arena_alloc for n items, NULL on overflow of n * size. */
void *arena_calloc(struct arena *a, size_t n, size_t size);
/* Copy with a NUL behind it. NULL as for arena_alloc. */
char *arena_strndup(struct arena *a, const char *s, size_t n);
/* The formatted string, NULL as for arena_alloc. */
char *arena_printf(struct arena *a, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

#endif
