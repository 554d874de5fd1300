/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Finding written pages.
 *
 * Theory of operation: in a private mapping a page that was written is anonymous, present or
 * swapped; PAGEMAP_SCAN (Linux 6.7) lists these, and so do the entries of /proc/PID/pagemap on any
 * kernel, more slowly. Behind a userfaultfd all pages are anonymous: there PAGEMAP_SCAN lists those
 * that lost their write protection, if the library could ask for tracking; else all that are there
 * count, and are compared with their source. So they are in memory that was copied in whole, where
 * one that is not there is zeros, whatever its source has (save.c). Only pages that are there are
 * ever named: reading another one through /proc/PID/mem would wait for a fault that this very
 * thread has to serve.
 *
 * A page that maps the kernel's page of zeros is listed as such; it need not be read.
 */
#include "shim/pages.h"

#include <errno.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "base/clock.h"

/* Of the kernel's linux/fs.h, which is older than 6.7 on some systems. */
struct scan_arg {
    uint64_t size;
    uint64_t flags;
    uint64_t start;
    uint64_t end;
    uint64_t walk_end;
    uint64_t vec;
    uint64_t vec_len;
    uint64_t max_pages;
    uint64_t category_inverted;
    uint64_t category_mask;
    uint64_t category_anyof_mask;
    uint64_t return_mask;
};
#define SCAN_REQUEST _IOWR('f', 16, struct scan_arg)

enum {
    SCAN_WRITTEN = 1 << 1,
    SCAN_FILE = 1 << 2,
    SCAN_PRESENT = 1 << 3,
    SCAN_SWAPPED = 1 << 4,
    SCAN_ZERO = 1 << 5,
};

/* Of Documentation/admin-guide/mm/pagemap.rst. */
#define ENTRY_PRESENT (1ull << 63)
#define ENTRY_SWAPPED (1ull << 62)
#define ENTRY_FILE (1ull << 61)

void pages_init(struct pages *p, const struct memory *m)
{
    p->m = m;
    p->scans = !m->old_pagemap;
    p->at = 0;
    p->us = 0;
    p->n = 0;
    p->i = 0;
}

bool pages_are_written(const struct pages *p)
{
    return p->m->kind == SHIM_MEMORY_PRIVATE || (p->scans && p->m->is_tracked);
}

/* Returns 1 where the kernel has no such request. */
static int scan(struct pages *p, struct err *e)
{
    const struct memory *m = p->m;
    struct scan_arg arg = {.size = sizeof arg,
        .start = m->base + p->at,
        .end = m->base + m->bytes,
        .vec = (uintptr_t)p->regions,
        .vec_len = PAGES_REGIONS,
        .category_anyof_mask = SCAN_PRESENT | SCAN_SWAPPED,
        .return_mask = SCAN_ZERO};
    long n;
    if (m->kind == SHIM_MEMORY_PRIVATE)
        arg.category_mask = arg.category_inverted = SCAN_FILE;
    else if (m->is_tracked)
        arg.category_mask = SCAN_WRITTEN;
    n = ioctl(m->pagemap_fd, SCAN_REQUEST, &arg);
    if (n < 0 && errno == ENOTTY)
        return 1;
    if (n < 0)
        return err_sys(e, errno, "scan the VMM's pages");
    if (arg.walk_end <= arg.start || arg.walk_end > arg.end)
        return err_set(e, ERR_IO, "scan the VMM's pages: no progress");
    p->at = arg.walk_end - m->base;
    p->n = (size_t)n;
    p->i = 0;
    return 0;
}

static int read_entries(struct pages *p, struct err *e)
{
    const struct memory *m = p->m;
    size_t want = (m->bytes - p->at) / MEMORY_PAGE;
    ssize_t got;
    if (want > PAGES_ENTRIES)
        want = PAGES_ENTRIES;
    got = pread(m->pagemap_fd, p->entries, want * sizeof *p->entries,
        (off_t)((m->base + p->at) / MEMORY_PAGE * sizeof *p->entries));
    if (got < 0)
        return err_sys(e, errno, "read the VMM's page entries");
    p->n = (size_t)got / sizeof *p->entries;
    if (p->n == 0)
        return err_set(e, ERR_IO, "the VMM's page entries end early");
    p->i = 0;
    p->at += p->n * MEMORY_PAGE;
    return 0;
}

static int more(struct pages *p, struct err *e)
{
    int64_t started_us = clock_mono_us();
    int rc = p->scans ? scan(p, e) : 1;
    if (rc == 1) {
        p->scans = false;
        rc = read_entries(p, e);
    }
    p->us += clock_mono_us() - started_us;
    return rc;
}

static bool is_there(const struct pages *p, uint64_t entry)
{
    if (entry & ENTRY_SWAPPED)
        return true;
    return (entry & ENTRY_PRESENT) && (p->m->kind != SHIM_MEMORY_PRIVATE || !(entry & ENTRY_FILE));
}

/* The next run of what is buffered, false when there is none. */
static bool next_buffered(struct pages *p, struct page_run *ret)
{
    size_t first;
    if (p->scans) {
        const struct page_region *r = &p->regions[p->i];
        if (p->i == p->n)
            return false;
        *ret =
            (struct page_run){r->start - p->m->base, r->end - r->start, r->categories & SCAN_ZERO};
        p->i++;
        return true;
    }
    while (p->i < p->n && !is_there(p, p->entries[p->i]))
        p->i++;
    first = p->i;
    while (p->i < p->n && is_there(p, p->entries[p->i]))
        p->i++;
    *ret = (struct page_run){
        .offset = p->at - (p->n - first) * MEMORY_PAGE, .length = (p->i - first) * MEMORY_PAGE};
    return ret->length > 0;
}

int pages_next(struct pages *p, struct page_run *ret, struct err *e)
{
    while (!next_buffered(p, ret)) {
        if (p->at == p->m->bytes)
            return 0;
        if (more(p, e) < 0)
            return -1;
    }
    return 1;
}
