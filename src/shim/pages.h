/* SPDX-License-Identifier: Apache-2.0 */
/* Which pages of the VMM's memory were written. */
#ifndef TORPOR_SHIM_PAGES_H
#define TORPOR_SHIM_PAGES_H

#include "shim/memory.h"

struct page_run {
    uint64_t offset; /* in the memory */
    uint64_t length;
    bool is_zero; /* the kernel says so; false says nothing */
};

/* As the kernel's PAGEMAP_SCAN fills it. */
struct page_region {
    uint64_t start;
    uint64_t end;
    uint64_t categories;
};

enum { PAGES_REGIONS = 512, PAGES_ENTRIES = 1536 };

struct pages {
    const struct memory *m;
    bool scans;  /* false: reads entries of pagemap */
    uint64_t at; /* all before has been looked at */
    int64_t us;  /* spent so far */
    size_t n;
    size_t i;
    union {
        struct page_region regions[PAGES_REGIONS];
        uint64_t entries[PAGES_ENTRIES];
    };
};

/* The memory is mapped. The VMM must stand still until the last run has been returned. */
void pages_init(struct pages *p, const struct memory *m);
/* The next run, front to back. Returns 1, 0 at the end, -1. Where pages_are_written() is false,
 * runs may hold pages that were not written. */
int pages_next(struct pages *p, struct page_run *ret, struct err *e);
/* Whether the kernel tells written pages from others; if not, each must be compared with its
 * source. */
bool pages_are_written(const struct pages *p);

#endif
