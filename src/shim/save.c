/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Saving memory.
 *
 * Theory of operation: the next map is the source's with the written pages put over it, front to
 * back. A written page is one of four: zeros, a zero entry; as the source has it, where that is
 * known to be worth a look (the page lies in a blob of an earlier SAVE, or the kernel does not say
 * what was written), a reference; else new, and appended to the blob. Pages are read through
 * /proc/PID/mem in large runs into one buffer, from which the ones that need no storing are
 * squeezed out, and written when it is full. All of that is one piece of memory, given back at the
 * end.
 *
 * Blobs get their numbers in the new map when they are first referred to, so its table lists no
 * others.
 *
 * A SAVE changes nothing until COMMIT: then its map is the source of the next one, and the blobs'
 * descriptors move along. What was not written is the same in both.
 */
#include "shim/save.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/io.h"
#include "shim/pages.h"
#include "snap/checksum.h"

enum { BUFFER_BYTES = 128 << 10, COMPARE_BYTES = 32 << 10, WRITE_BACK_BYTES = 2 << 20 };

struct save {
    struct memory *m;
    const struct save_params *params;
    struct save_numbers n;
    struct memory_map_writer map;
    struct checksum_writer sums;
    struct pages pages;
    uint64_t blob_bytes;   /* written */
    uint64_t written_back; /* of them, given to the disk */
    size_t n_buffered;     /* to be written after them */
    struct memory_map_blob table[SHIM_BLOBS_MAX];
    uint32_t old[SHIM_BLOBS_MAX];     /* index of each in the source's table */
    uint32_t renamed[SHIM_BLOBS_MAX]; /* of the source's: index in the new table plus 1, or 0 */
    uint32_t n_blobs;
    uint32_t new_blob;                 /* index plus 1, or 0 */
    const struct memory_map_entry *at; /* the source's where the map ends */
    size_t unwatched;                  /* bytes since somebody looked whether to go on */
    char buffer[BUFFER_BYTES];
    char compare[COMPARE_BYTES];
};

static const char zero_page[MEMORY_PAGE];

static int take_number(struct save *s, uint32_t *number, struct err *e)
{
    if (*number > 0)
        return 0;
    if (s->n_blobs == SHIM_BLOBS_MAX)
        return err_set(
            e, ERR_TOO_LARGE, "the memory map would name more than %d blobs", SHIM_BLOBS_MAX);
    *number = ++s->n_blobs;
    return 0;
}

/* The entry of the source at the map's end. */
static const struct memory_map_entry *source_at(struct save *s)
{
    while (s->at->offset + s->at->length <= s->map.at)
        s->at++;
    return s->at;
}

/* The next `length` bytes, in one entry, are the source's. */
static int refer(struct save *s, const struct memory_map_entry *at, uint64_t length, struct err *e)
{
    uint32_t *number;
    uint64_t from = at->blob_offset + (s->map.at - at->offset);
    if (at->blob == 0)
        return memory_map_write(&s->map, length, 0, 0, e);
    number = &s->renamed[at->blob - 1];
    if (*number == 0) {
        if (take_number(s, number, e) < 0)
            return -1;
        s->table[*number - 1] = s->m->source.map.blobs[at->blob - 1];
        s->old[*number - 1] = at->blob - 1;
    }
    return memory_map_write(&s->map, length, *number, from, e);
}

static bool is_removed(const struct memory *m, uint64_t offset)
{
    uint64_t page = offset / MEMORY_PAGE;
    return m->removed[page / 64] >> (page % 64) & 1;
}

/* Pages that the VMM has given back and not touched again are zeros: the length of those, or of the
 * others, from the map's end on. */
static uint64_t same_from(const struct save *s, uint64_t end)
{
    uint64_t to = s->map.at + MEMORY_PAGE;
    if (!s->m->any_removed)
        return end - s->map.at;
    while (to < end && is_removed(s->m, to) == is_removed(s->m, s->map.at))
        to += MEMORY_PAGE;
    return to - s->map.at;
}

static uint64_t min_u64(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

/* Zeros, as the kernel says, up to `end`. */
static int save_zeros(struct save *s, uint64_t end, struct err *e)
{
    while (s->map.at < end) {
        const struct memory_map_entry *at = source_at(s);
        uint64_t n = min_u64(end, at->offset + at->length) - s->map.at;
        s->n.pages_zero += at->blob > 0 ? n / MEMORY_PAGE : 0;
        if (memory_map_write(&s->map, n, 0, 0, e) < 0)
            return -1;
    }
    return 0;
}

/* Nothing was written up to `end`. Memory that was copied in whole has no page there. */
static int inherit(struct save *s, uint64_t end, struct err *e)
{
    if (s->m->kind == SHIM_MEMORY_COPIED)
        return save_zeros(s, end, e);
    while (s->map.at < end) {
        const struct memory_map_entry *at = source_at(s);
        uint64_t stop = at->offset + at->length < end ? at->offset + at->length : end;
        uint64_t n = same_from(s, stop);
        if (s->m->any_removed && is_removed(s->m, s->map.at)) {
            if (memory_map_write(&s->map, n, 0, 0, e) < 0)
                return -1;
        } else if (refer(s, at, n, e) < 0) {
            return -1;
        }
    }
    return 0;
}

/* In pieces that a disk likes. Whether it works is for the sync to say. */
static void begin_write_back(struct save *s)
{
    uint64_t n = s->blob_bytes - s->written_back;
    if (!s->params->write_back || n < WRITE_BACK_BYTES)
        return;
    (void)sync_file_range(
        s->params->fds[0], (off_t)s->written_back, (off_t)n, SYNC_FILE_RANGE_WRITE);
    s->written_back = s->blob_bytes;
}

static int flush(struct save *s, struct err *e)
{
    size_t n = s->n_buffered;
    if (n == 0)
        return 0;
    if (io_write_full(s->params->fds[0], s->buffer, n, DEADLINE_NEVER, e) < 0 ||
        checksum_write(&s->sums, s->buffer, n, e) < 0)
        return err_wrap(e, "blob");
    s->blob_bytes += n;
    s->n_buffered = 0;
    begin_write_back(s);
    return 0;
}

/* The page at `page`, which is in the buffer at or after the end of what is to be written. */
static int store(struct save *s, const char *page, struct err *e)
{
    char *dst = s->buffer + s->n_buffered;
    if (take_number(s, &s->new_blob, e) < 0)
        return -1;
    if (dst != page)
        memmove(dst, page, MEMORY_PAGE);
    s->n.pages_stored++;
    s->n_buffered += MEMORY_PAGE;
    return memory_map_write(
        &s->map, MEMORY_PAGE, s->new_blob, s->blob_bytes + s->n_buffered - MEMORY_PAGE, e);
}

/* `compare` has what the source has there, NULL where that is not asked for. */
static int save_page(struct save *s, const char *page, const char *compare, struct err *e)
{
    const struct memory_map_entry *at = source_at(s);
    if (memcmp(page, zero_page, MEMORY_PAGE) == 0) {
        s->n.pages_zero += at->blob > 0;
        return memory_map_write(&s->map, MEMORY_PAGE, 0, 0, e);
    }
    if (compare && memcmp(page, compare, MEMORY_PAGE) == 0) {
        s->n.pages_referred += s->m->source.ours[at->blob - 1];
        return refer(s, at, MEMORY_PAGE, e);
    }
    return store(s, page, e);
}

static bool is_compared(const struct save *s, const struct memory_map_entry *at)
{
    return at->blob > 0 && (!pages_are_written(&s->pages) || s->m->source.ours[at->blob - 1]);
}

/* Pages at `pages` in the buffer: one entry of the source, at most COMPARE_BYTES. */
static int save_part(struct save *s, const char *pages, size_t n, struct err *e)
{
    const struct memory_map_entry *at = source_at(s);
    bool compared = is_compared(s, at);
    if (compared && memory_source_read(&s->m->source, at, s->map.at, n, s->compare, e) < 0)
        return -1;
    for (size_t i = 0; i < n; i += MEMORY_PAGE)
        if (save_page(s, pages + i, compared ? s->compare + i : NULL, e) < 0)
            return -1;
    return 0;
}

static int read_memory(struct save *s, size_t n, struct err *e)
{
    char *dst = s->buffer + s->n_buffered;
    uint64_t from = s->m->base + s->map.at;
    while (n > 0) {
        ssize_t got = pread(s->m->mem_fd, dst, n, (off_t)from);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return err_sys(e, errno, "read the VMM's memory");
        if (got == 0)
            return err_set(e, ERR_IO, "the VMM's memory is gone");
        dst += got;
        from += (uint64_t)got;
        n -= (size_t)got;
    }
    return 0;
}

static int look_around(struct save *s, size_t n, struct err *e)
{
    s->unwatched += n;
    if (s->unwatched < BUFFER_BYTES)
        return 0;
    s->unwatched = 0;
    return s->params->should_stop(s->params->arg) ? err_sys(e, ECANCELED, "broken off") : 0;
}

/* The next `n` bytes were written; there is room for them. */
static int save_chunk(struct save *s, size_t n, struct err *e)
{
    const char *pages = s->buffer + s->n_buffered;
    if (read_memory(s, n, e) < 0)
        return -1;
    while (n > 0) {
        const struct memory_map_entry *at = source_at(s);
        size_t part = min_u64(min_u64(n, COMPARE_BYTES), at->offset + at->length - s->map.at);
        if (save_part(s, pages, part, e) < 0)
            return -1;
        pages += part;
        n -= part;
    }
    return 0;
}

static int save_run(struct save *s, const struct page_run *r, struct err *e)
{
    uint64_t end = r->offset + r->length;
    if (r->offset < s->map.at || end > s->m->bytes || r->length == 0)
        return err_set(e, ERR_IO, "the kernel lists pages out of order");
    if (inherit(s, r->offset, e) < 0)
        return -1;
    if (r->is_zero)
        return save_zeros(s, end, e);
    while (s->map.at < end) {
        size_t n = min_u64(BUFFER_BYTES - s->n_buffered, end - s->map.at);
        if (save_chunk(s, n, e) < 0 || look_around(s, n, e) < 0)
            return -1;
        if (s->n_buffered == BUFFER_BYTES && flush(s, e) < 0)
            return -1;
    }
    return 0;
}

static int finish(struct save *s, struct err *e)
{
    if (inherit(s, s->m->bytes, e) < 0 || flush(s, e) < 0)
        return -1;
    if (s->new_blob > 0) {
        struct memory_map_blob *b = &s->table[s->new_blob - 1];
        memcpy(b->uuid, s->params->blob.bytes, sizeof b->uuid);
        b->bytes = s->blob_bytes;
    }
    if (checksum_write_end(&s->sums, e) < 0 ||
        memory_map_write_end(&s->map, s->table, s->n_blobs, e) < 0)
        return -1;
    s->n.map_entries = s->map.n_entries;
    s->n.map_blobs = s->n_blobs;
    return 0;
}

static int save_all(struct save *s, struct err *e)
{
    struct page_run run;
    int rc;
    while ((rc = pages_next(&s->pages, &run, e)) > 0)
        if (save_run(s, &run, e) < 0)
            return -1;
    return rc < 0 ? -1 : finish(s, e);
}

static void forget_pending(struct memory *m)
{
    if (m->pending.map_fd >= 0)
        (void)close(m->pending.map_fd);
    if (m->pending.blob_fd >= 0)
        (void)close(m->pending.blob_fd);
    m->pending = (struct memory_pending){.map_fd = -1, .blob_fd = -1};
}

static void keep_pending(struct save *s)
{
    struct memory_pending *p = &s->m->pending;
    p->blob_fd = TAKE_FD(s->params->fds[0]);
    p->map_fd = TAKE_FD(s->params->fds[2]);
    p->n_blobs = s->n_blobs;
    p->blob = s->new_blob;
    memcpy(p->old, s->old, sizeof p->old);
}

static void start(struct save *s, struct memory *m, const struct save_params *params)
{
    s->m = m;
    s->params = params;
    s->at = m->source.map.entries;
    memory_map_writer_init(&s->map, params->fds[2], m->bytes);
    checksum_writer_init(&s->sums, params->fds[1], &params->blob);
    pages_init(&s->pages, m);
}

static void close_all(const struct save_params *params)
{
    for (int i = 0; i < SAVE_FDS; i++)
        if (params->fds[i] >= 0)
            (void)close(TAKE_FD(params->fds[i]));
}

int save_memory(
    struct memory *m, const struct save_params *params, struct save_numbers *ret, struct err *e)
{
    int64_t started_us = clock_mono_us();
    int rc;
    struct save *s =
        mmap(NULL, sizeof *s, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    forget_pending(m);
    if (s == MAP_FAILED) {
        close_all(params);
        return err_sys(e, ENOMEM, "save");
    }
    start(s, m, params);
    rc = save_all(s, e);
    if (rc == 0) {
        keep_pending(s);
        s->n.scan_us = (uint64_t)s->pages.us;
        s->n.write_us = (uint64_t)(clock_mono_us() - started_us - s->pages.us);
        *ret = s->n;
    }
    close_all(params);
    (void)munmap(s, sizeof *s);
    return rc;
}

int save_commit(struct memory *m, struct err *e)
{
    struct memory_pending *p = &m->pending;
    struct memory_source next;
    if (p->map_fd < 0)
        return 0;
    if (memory_source_load(&next, p->map_fd, m->bytes, e) < 0)
        return -1;
    for (uint32_t i = 0; i < p->n_blobs; i++) {
        bool is_new = i + 1 == p->blob;
        next.ours[i] = is_new || m->source.ours[p->old[i]];
        next.fds[i] = is_new ? TAKE_FD(p->blob_fd) : TAKE_FD(m->source.fds[p->old[i]]);
    }
    memory_source_done(&m->source);
    m->source = next;
    forget_pending(m);
    return 0;
}
