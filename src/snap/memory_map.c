/* SPDX-License-Identifier: Apache-2.0 */
/* Memory maps: checked, looked up, written. */
#include "snap/memory_map.h"

#include <assert.h>
#include <stdbool.h>
#include <string.h>

#include "snap/checksum.h"
#include "snap/snap_int.h"

static_assert(sizeof(struct memory_map_head) == 64, "the file format");
static_assert(sizeof(struct memory_map_entry) == 32, "the file format");
static_assert(sizeof(struct memory_map_blob) == 24, "the file format");

static bool is_whole_pages(uint64_t bytes)
{
    return bytes % MEMORY_PAGE == 0;
}

static uint32_t sum_of_head(const struct memory_map_head *head)
{
    struct memory_map_head h = *head;
    h.crc = 0;
    return crc32c(0, &h, sizeof h);
}

static int check_version(const struct memory_map_head *h, struct err *e)
{
    if (h->magic != MEMORY_MAP_MAGIC)
        return err_set(e, ERR_INVALID, "not a memory map");
    if (h->version != MEMORY_MAP_VERSION || h->head_bytes != sizeof *h ||
        h->entry_bytes != sizeof(struct memory_map_entry) ||
        h->blob_bytes != sizeof(struct memory_map_blob) || h->page_bytes != MEMORY_PAGE)
        return err_set(e, ERR_UNSUPPORTED, "memory map of version %u, this program knows %d",
            (unsigned)h->version, MEMORY_MAP_VERSION);
    if (h->incompatible != 0)
        return err_set(e, ERR_UNSUPPORTED, "memory map with unknown features %llx",
            (unsigned long long)h->incompatible);
    return 0;
}

/* The length of the file follows from the head; nothing may overflow on the way. */
static int check_length(const struct memory_map_head *h, size_t n, struct err *e)
{
    size_t rest = n - sizeof *h;
    if (h->n_blobs > MEMORY_MAP_BLOBS_MAX)
        return err_set(e, ERR_INVALID, "memory map: too many blobs (%u)", (unsigned)h->n_blobs);
    if (h->n_entries > rest / sizeof(struct memory_map_entry))
        return err_set(e, ERR_INVALID, "memory map: the file is too short");
    rest -= (size_t)h->n_entries * sizeof(struct memory_map_entry);
    if (rest != h->n_blobs * sizeof(struct memory_map_blob))
        return err_set(e, ERR_INVALID, "memory map: the file has the wrong length");
    if (h->memory_bytes == 0 || !is_whole_pages(h->memory_bytes) || h->reserved != 0)
        return err_set(e, ERR_INVALID, "memory map: the head is wrong");
    return 0;
}

static int check_blobs(const struct memory_map *m, struct err *e)
{
    for (size_t i = 0; i < m->n_blobs; i++) {
        struct uuid id;
        memcpy(id.bytes, m->blobs[i].uuid, sizeof id.bytes);
        if (uuid_is_none(&id))
            return err_set(e, ERR_INVALID, "memory map: blob %zu has no name", i + 1);
        for (size_t j = 0; j < i; j++)
            if (memcmp(m->blobs[i].uuid, m->blobs[j].uuid, UUID_BYTES) == 0)
                return err_set(e, ERR_INVALID, "memory map: blob %zu is there twice", i + 1);
    }
    return 0;
}

/* NULL, or what is wrong with it. */
static const char *entry_fault(
    const struct memory_map *m, const struct memory_map_entry *en, uint64_t at)
{
    if (en->offset != at)
        return en->offset < at ? "overlaps the one before" : "leaves a gap";
    if (en->length == 0 || !is_whole_pages(en->length))
        return "is not whole pages";
    if (en->length > m->memory_bytes - at)
        return "is beyond the memory";
    if (en->blob > m->n_blobs)
        return "names no blob of the table";
    if (en->reserved != 0)
        return "has unknown fields";
    if (en->blob == 0)
        return en->blob_offset == 0 ? NULL : "has an offset in zeros";
    if (!is_whole_pages(en->blob_offset))
        return "starts within a page of its blob";
    if (en->blob_offset > m->blobs[en->blob - 1].bytes ||
        en->length > m->blobs[en->blob - 1].bytes - en->blob_offset)
        return "is beyond its blob";
    return NULL;
}

static int check_entries(const struct memory_map *m, struct err *e)
{
    uint64_t at = 0;
    for (size_t i = 0; i < m->n_entries; i++) {
        const char *fault = entry_fault(m, &m->entries[i], at);
        if (fault)
            return err_set(e, ERR_INVALID, "memory map: entry %zu %s", i, fault);
        at += m->entries[i].length;
    }
    if (at != m->memory_bytes)
        return err_set(e, ERR_INVALID, "memory map: does not cover the memory");
    return 0;
}

int memory_map_parse(const void *bytes, size_t n, struct memory_map *ret, struct err *e)
{
    const struct memory_map_head *h = bytes;
    const char *rest = (const char *)bytes + sizeof *h;
    struct memory_map m;
    if (n < sizeof *h)
        return err_set(e, ERR_INVALID, "memory map: the file is too short");
    if (check_version(h, e) < 0 || check_length(h, n, e) < 0)
        return -1;
    if (crc32c(sum_of_head(h), rest, n - sizeof *h) != h->crc)
        return err_set(e, ERR_INVALID, "memory map: the file is damaged");
    m.entries = (const void *)rest;
    m.n_entries = (size_t)h->n_entries;
    m.blobs = (const void *)(rest + m.n_entries * sizeof *m.entries);
    m.n_blobs = h->n_blobs;
    m.memory_bytes = h->memory_bytes;
    if (check_blobs(&m, e) < 0 || check_entries(&m, e) < 0)
        return -1;
    *ret = m;
    return 0;
}

const struct memory_map_entry *memory_map_find(const struct memory_map *m, uint64_t offset)
{
    size_t low = 0; /* entries[low].offset <= offset */
    size_t high = m->n_entries;
    assert(offset < m->memory_bytes);
    while (high - low > 1) {
        size_t middle = low + (high - low) / 2;
        if (m->entries[middle].offset <= offset)
            low = middle;
        else
            high = middle;
    }
    return &m->entries[low];
}

void memory_map_writer_init(struct memory_map_writer *w, int fd, uint64_t memory_bytes)
{
    memset(w, 0, sizeof *w);
    w->fd = fd;
    w->memory_bytes = memory_bytes;
    w->file_offset = sizeof(struct memory_map_head);
}

/* Writes the first `n` buffered entries and keeps the others. */
static int flush_entries(struct memory_map_writer *w, size_t n, struct err *e)
{
    size_t bytes = n * sizeof w->buffered[0];
    if (snap_write_at(w->fd, w->file_offset, w->buffered, bytes, e) < 0)
        return err_wrap(e, "memory map");
    w->crc = crc32c(w->crc, w->buffered, bytes);
    w->file_offset += bytes;
    w->n_buffered -= n;
    memmove(w->buffered, w->buffered + n, w->n_buffered * sizeof w->buffered[0]);
    return 0;
}

/* Whether the next part only makes the last entry longer. */
static bool extends_last(const struct memory_map_writer *w, uint32_t blob, uint64_t blob_offset)
{
    const struct memory_map_entry *last;
    if (w->n_buffered == 0)
        return false;
    last = &w->buffered[w->n_buffered - 1];
    return last->blob == blob && (blob == 0 || last->blob_offset + last->length == blob_offset);
}

int memory_map_write(struct memory_map_writer *w, uint64_t length, uint32_t blob,
    uint64_t blob_offset, struct err *e)
{
    if (length == 0 || !is_whole_pages(length) || length > w->memory_bytes - w->at ||
        blob > MEMORY_MAP_BLOBS_MAX || !is_whole_pages(blob_offset) ||
        (blob == 0 && blob_offset != 0) || blob_offset > UINT64_MAX - length)
        return err_set(e, ERR_INVALID, "memory map: no such part (%llu bytes at %llu)",
            (unsigned long long)length, (unsigned long long)w->at);
    if (extends_last(w, blob, blob_offset)) {
        w->buffered[w->n_buffered - 1].length += length;
    } else {
        if (w->n_buffered == MEMORY_MAP_WRITER_ENTRIES &&
            flush_entries(w, MEMORY_MAP_WRITER_ENTRIES - 1, e) < 0)
            return -1;
        w->buffered[w->n_buffered++] = (struct memory_map_entry){
            .offset = w->at, .length = length, .blob_offset = blob_offset, .blob = blob};
        w->n_entries++;
    }
    w->at += length;
    return 0;
}

int memory_map_write_end(
    struct memory_map_writer *w, const struct memory_map_blob *blobs, size_t n, struct err *e)
{
    struct memory_map_head h = {
        .magic = MEMORY_MAP_MAGIC,
        .version = MEMORY_MAP_VERSION,
        .head_bytes = sizeof h,
        .entry_bytes = sizeof(struct memory_map_entry),
        .blob_bytes = sizeof(struct memory_map_blob),
        .memory_bytes = w->memory_bytes,
        .page_bytes = MEMORY_PAGE,
        .n_blobs = (uint32_t)n,
        .n_entries = w->n_entries,
    };
    size_t table = n * sizeof *blobs;
    if (w->at != w->memory_bytes || w->at == 0 || n > MEMORY_MAP_BLOBS_MAX)
        return err_set(e, ERR_INVALID, "memory map: %llu of %llu bytes were mapped",
            (unsigned long long)w->at, (unsigned long long)w->memory_bytes);
    if (flush_entries(w, w->n_buffered, e) < 0)
        return -1;
    if (snap_write_at(w->fd, w->file_offset, blobs, table, e) < 0)
        return err_wrap(e, "memory map");
    w->crc = crc32c(w->crc, blobs, table);
    h.crc = crc32c_join(sum_of_head(&h), w->crc, w->file_offset - sizeof h + table);
    if (snap_write_at(w->fd, 0, &h, sizeof h, e) < 0)
        return err_wrap(e, "memory map");
    return 0;
}
