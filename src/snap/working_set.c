/* SPDX-License-Identifier: Apache-2.0 */
/* Working sets: checked, written. */
#include "snap/working_set.h"

#include <assert.h>
#include <stdbool.h>
#include <string.h>

#include "snap/checksum.h"
#include "snap/memory_map.h"
#include "snap/snap_int.h"

static_assert(sizeof(struct working_set_head) == 32, "the file format");
static_assert(sizeof(struct working_set_run) == 16, "the file format");

static uint32_t sum_of_head(const struct working_set_head *head)
{
    struct working_set_head h = *head;
    h.crc = 0;
    return crc32c(0, &h, sizeof h);
}

static int check_head(const struct working_set_head *h, size_t n, struct err *e)
{
    if (h->magic != WORKING_SET_MAGIC)
        return err_set(e, ERR_INVALID, "not a working set");
    if (h->version != WORKING_SET_VERSION)
        return err_set(e, ERR_UNSUPPORTED, "working set of version %u, this program knows %d",
            (unsigned)h->version, WORKING_SET_VERSION);
    if (n - sizeof *h != (uint64_t)h->n_runs * sizeof(struct working_set_run))
        return err_set(e, ERR_INVALID, "working set: the file has the wrong length");
    if (h->reserved != 0 || h->reserved_2 != 0 || h->memory_bytes % MEMORY_PAGE != 0)
        return err_set(e, ERR_INVALID, "working set: the head is wrong");
    return 0;
}

static int check_runs(const struct working_set *s, struct err *e)
{
    uint64_t at = 0;
    for (size_t i = 0; i < s->n_runs; i++) {
        const struct working_set_run *r = &s->runs[i];
        if (r->offset < at || r->offset > s->memory_bytes || r->length == 0 ||
            r->length > s->memory_bytes - r->offset || r->offset % MEMORY_PAGE != 0 ||
            r->length % MEMORY_PAGE != 0)
            return err_set(e, ERR_INVALID, "working set: run %zu is wrong", i);
        at = r->offset + r->length;
    }
    return 0;
}

int working_set_parse(const void *bytes, size_t n, struct working_set *ret, struct err *e)
{
    const struct working_set_head *h = bytes;
    const char *runs = (const char *)bytes + sizeof *h;
    struct working_set s;
    if (n < sizeof *h)
        return err_set(e, ERR_INVALID, "working set: the file is too short");
    if (check_head(h, n, e) < 0)
        return -1;
    if (crc32c(sum_of_head(h), runs, n - sizeof *h) != h->crc)
        return err_set(e, ERR_INVALID, "working set: the file is damaged");
    s = (struct working_set){
        .runs = (const void *)runs, .n_runs = h->n_runs, .memory_bytes = h->memory_bytes};
    if (check_runs(&s, e) < 0)
        return -1;
    *ret = s;
    return 0;
}

/* The first page from `from` on whose bit is `set`, or `n_pages`. */
static uint64_t next_page(const uint64_t *bitmap, uint64_t from, uint64_t n_pages, bool set)
{
    while (from < n_pages) {
        uint64_t word = set ? bitmap[from / 64] : ~bitmap[from / 64];
        word >>= from % 64;
        if (word != 0) {
            from += (uint64_t)__builtin_ctzll(word);
            return from < n_pages ? from : n_pages;
        }
        from += 64 - from % 64;
    }
    return n_pages;
}

/* What has been written so far. */
struct run_writer {
    int fd;
    uint64_t at; /* in the file */
    uint32_t crc;
    size_t n_buffered;
    struct working_set_run buffered[64];
};

static int flush_runs(struct run_writer *w, struct err *e)
{
    size_t bytes = w->n_buffered * sizeof w->buffered[0];
    if (snap_write_at(w->fd, w->at, w->buffered, bytes, e) < 0)
        return err_wrap(e, "working set");
    w->crc = crc32c(w->crc, w->buffered, bytes);
    w->at += bytes;
    w->n_buffered = 0;
    return 0;
}

static int write_head(const struct run_writer *w, uint64_t memory_bytes, struct err *e)
{
    uint64_t run_bytes = w->at - sizeof(struct working_set_head);
    struct working_set_head h = {
        .magic = WORKING_SET_MAGIC,
        .version = WORKING_SET_VERSION,
        .n_runs = (uint32_t)(run_bytes / sizeof w->buffered[0]),
        .memory_bytes = memory_bytes,
    };
    h.crc = crc32c_join(sum_of_head(&h), w->crc, run_bytes);
    return snap_write_at(w->fd, 0, &h, sizeof h, e) < 0 ? err_wrap(e, "working set") : 0;
}

int working_set_write(
    int fd, const uint64_t *bitmap, uint64_t memory_bytes, uint64_t *ret_pages, struct err *e)
{
    struct run_writer w = {.fd = fd, .at = sizeof(struct working_set_head)};
    uint64_t n_pages = memory_bytes / MEMORY_PAGE;
    uint64_t pages = 0;
    if (memory_bytes % MEMORY_PAGE != 0 || n_pages > UINT32_MAX)
        return err_set(e, ERR_INVALID, "working set of %llu bytes of memory",
            (unsigned long long)memory_bytes);
    for (uint64_t page = next_page(bitmap, 0, n_pages, true); page < n_pages;) {
        uint64_t end = next_page(bitmap, page, n_pages, false);
        if (w.n_buffered == sizeof w.buffered / sizeof w.buffered[0] && flush_runs(&w, e) < 0)
            return -1;
        w.buffered[w.n_buffered++] = (struct working_set_run){
            .offset = page * MEMORY_PAGE, .length = (end - page) * MEMORY_PAGE};
        pages += end - page;
        page = next_page(bitmap, end, n_pages, true);
    }
    if (flush_runs(&w, e) < 0 || write_head(&w, memory_bytes, e) < 0)
        return -1;
    *ret_pages = pages;
    return 0;
}
