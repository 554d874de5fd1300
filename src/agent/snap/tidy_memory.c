/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The memory of a generation in fewer blobs: one large blob may stay, the live pages of all others
 * go into a new one, in the order of memory, so that a restore reads front to back. Pages of zeros
 * become zero entries.
 */
#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "agent/snap/tidy_int.h"
#include "base/cleanup.h"
#include "base/io.h"
#include "snap/memory_map.h"

enum { NO_BLOCK = -1 };

/* A blob of the old map while it is copied from: its last block, verified. */
struct copy_source {
    struct tidy_source source;
    int64_t block; /* in `bytes`, or NO_BLOCK */
    size_t n;
    char *bytes; /* CHECKSUM_BLOCK */
};

struct copy {
    struct memory_map map; /* the old one */
    void *map_bytes;
    size_t n_map_bytes;
    struct copy_source sources[GENERATION_BLOBS_MAX];
    size_t keep; /* index in the old table of the blob that stays; 0: none */
    struct tidy_blob *out;
    uint64_t out_bytes;
    struct checksum_writer sums;
    struct memory_map_writer writer;
};

int tidy_source_open(
    const struct tidy *t, const struct blob_ref *ref, struct tidy_source *ret, struct err *e)
{
    char name[BLOB_NAME_MAX];
    AUTO_CLOSE int fd = blob_open(t->store, ref, e);
    AUTO_CLOSE int sums_fd = -1;
    struct tidy_source source = {.fd = -1};
    if (fd < 0)
        return -1;
    blob_sums_name(&ref->id, name);
    sums_fd = open_plain(t->store->blobs_fd, name, e);
    if (sums_fd < 0 || file_map(sums_fd, &source.sums_bytes, &source.n_sums_bytes, e) < 0)
        return -1;
    if (checksums_parse(source.sums_bytes, source.n_sums_bytes, &source.sums, e) < 0) {
        tidy_source_done(&source);
        return -1;
    }
    source.fd = TAKE_FD(fd);
    *ret = source;
    return 0;
}

void tidy_source_done(const struct tidy_source *source)
{
    if (source->fd >= 0)
        (void)close(source->fd);
    if (source->sums_bytes)
        (void)munmap(source->sums_bytes, source->n_sums_bytes);
}

static struct copy *copy_free(struct copy *c)
{
    for (size_t i = 0; i < GENERATION_BLOBS_MAX; i++) {
        tidy_source_done(&c->sources[i].source);
        free(c->sources[i].bytes);
    }
    if (c->map_bytes)
        (void)munmap(c->map_bytes, c->n_map_bytes);
    free(c);
    return NULL;
}

/* The blob with most live bytes, when those are more than half of it. */
static size_t choose_kept(const struct memory_map *m)
{
    uint64_t live[MEMORY_MAP_BLOBS_MAX + 1] = {0};
    size_t best = 1;
    for (size_t i = 0; i < m->n_entries; i++)
        live[m->entries[i].blob] += m->entries[i].length;
    for (size_t i = 2; i <= m->n_blobs; i++)
        if (live[i] > live[best])
            best = i;
    return live[best] > m->blobs[best - 1].bytes / 2 ? best : 0;
}

static int open_copy(struct tidy *t, struct copy *c, struct err *e)
{
    if (file_map(t->map_fd, &c->map_bytes, &c->n_map_bytes, e) < 0 ||
        memory_map_parse(c->map_bytes, c->n_map_bytes, &c->map, e) < 0)
        return -1;
    if (c->map.n_blobs != t->old->n_memory)
        return err_set(e, ERR_INVALID, "memory map: not the one of the layout");
    c->keep = choose_kept(&c->map);
    for (size_t i = 0; i < c->map.n_blobs; i++) {
        struct copy_source *from = &c->sources[i];
        from->block = NO_BLOCK;
        if (memcmp(c->map.blobs[i].uuid, t->old->refs[i].id.bytes, UUID_BYTES) != 0)
            return err_set(e, ERR_INVALID, "memory map: not the one of the layout");
        if (i + 1 == c->keep)
            continue;
        from->bytes = malloc(CHECKSUM_BLOCK);
        if (!from->bytes)
            return err_set(e, ERR_NOMEM, "out of memory");
        if (tidy_source_open(t, &t->old->refs[i], &from->source, e) < 0)
            return -1;
    }
    return 0;
}

static int load_block(struct copy_source *from, uint64_t block, struct err *e)
{
    ssize_t got;
    if (from->block == (int64_t)block)
        return 0;
    from->block = NO_BLOCK;
    got = io_read_at(from->source.fd, from->bytes, CHECKSUM_BLOCK, block * CHECKSUM_BLOCK, e);
    if (got < 0)
        return err_wrap(e, "a blob");
    if (checksums_verify(&from->source.sums, block, from->bytes, (size_t)got, e) < 0)
        return -1;
    from->block = (int64_t)block;
    return 0;
}

static bool is_zero_page(const char *p)
{
    return p[0] == 0 && memcmp(p, p + 1, MEMORY_PAGE - 1) == 0;
}

/* The table's index of the new blob. */
static uint32_t new_index(const struct copy *c)
{
    return c->keep ? 2 : 1;
}

static int put_bytes(struct copy *c, const char *p, size_t n, struct err *e)
{
    size_t done = 0;
    while (done < n) {
        ssize_t put = pwrite(c->out->fd, p + done, n - done, (off_t)(c->out_bytes + done));
        if (put < 0 && errno == EINTR)
            continue;
        if (put <= 0)
            return err_sys(e, put < 0 ? errno : ENOSPC, "write a blob");
        done += (size_t)put;
    }
    if (checksum_write(&c->sums, p, n, e) < 0 ||
        memory_map_write(&c->writer, n, new_index(c), c->out_bytes, e) < 0)
        return -1;
    c->out_bytes += n;
    return 0;
}

/* Whole pages: runs of zeros become zero entries, the others are written. */
static int put_pages(struct copy *c, const char *p, size_t n, struct err *e)
{
    while (n > 0) {
        bool zero = is_zero_page(p);
        size_t run = MEMORY_PAGE;
        int rc;
        while (run < n && is_zero_page(p + run) == zero)
            run += MEMORY_PAGE;
        rc = zero ? memory_map_write(&c->writer, run, 0, 0, e) : put_bytes(c, p, run, e);
        if (rc < 0)
            return -1;
        p += run;
        n -= run;
    }
    return 0;
}

static int copy_entry(struct copy *c, const struct memory_map_entry *en, struct err *e)
{
    struct copy_source *from = &c->sources[en->blob - 1];
    uint64_t at = en->blob_offset;
    uint64_t end = at + en->length;
    while (at < end) {
        size_t within = (size_t)(at % CHECKSUM_BLOCK);
        uint64_t piece = CHECKSUM_BLOCK - within;
        if (piece > end - at)
            piece = end - at;
        if (load_block(from, at / CHECKSUM_BLOCK, e) < 0 ||
            put_pages(c, from->bytes + within, (size_t)piece, e) < 0)
            return -1;
        at += piece;
    }
    return 0;
}

static int copy_entries(struct copy *c, struct err *e)
{
    for (size_t i = 0; i < c->map.n_entries; i++) {
        const struct memory_map_entry *en = &c->map.entries[i];
        int rc;
        if (en->blob == 0)
            rc = memory_map_write(&c->writer, en->length, 0, 0, e);
        else if (en->blob == c->keep)
            rc = memory_map_write(&c->writer, en->length, 1, en->blob_offset, e);
        else
            rc = copy_entry(c, en, e);
        if (rc < 0)
            return -1;
    }
    return 0;
}

static int end_copy(struct tidy *t, struct copy *c, struct err *e)
{
    struct memory_map_blob table[2];
    t->n_memory = 0;
    if (c->keep)
        t->memory[t->n_memory++] = t->old->refs[c->keep - 1];
    if (checksum_write_end(&c->sums, e) < 0)
        return -1;
    if (c->out_bytes > 0 &&
        blob_ref_make(&c->out->id, c->out->fd, c->out->sums_fd, &t->memory[t->n_memory++], e) < 0)
        return -1;
    for (size_t i = 0; i < t->n_memory; i++) {
        table[i].bytes = t->memory[i].bytes;
        memcpy(table[i].uuid, t->memory[i].id.bytes, UUID_BYTES);
    }
    return memory_map_write_end(&c->writer, table, t->n_memory, e);
}

static int begin_map(struct tidy *t, struct err *e)
{
    struct uuid id;
    char text[UUID_TEXT + 1];
    uuid_new(&id);
    uuid_format(&id, text);
    (void)snprintf(t->new_map, sizeof t->new_map, "memory-%s.map", text);
    t->new_map_fd = file_create(t->folder, t->new_map, SLICE_LIT(""), 0400, e);
    return t->new_map_fd < 0 ? -1 : 0;
}

static int copy_all(struct tidy *t, struct copy *c, struct err *e)
{
    if (open_copy(t, c, e) < 0 || begin_map(t, e) < 0 || tidy_begin_blob(t, &c->out, e) < 0)
        return -1;
    checksum_writer_init(&c->sums, c->out->sums_fd, &c->out->id);
    memory_map_writer_init(&c->writer, t->new_map_fd, c->map.memory_bytes);
    return copy_entries(c, e) < 0 ? -1 : end_copy(t, c, e);
}

int tidy_memory(struct tidy *t, struct err *e)
{
    int rc;
    struct copy *c = calloc(1, sizeof *c);
    if (!c)
        return err_set(e, ERR_NOMEM, "out of memory");
    for (size_t i = 0; i < GENERATION_BLOBS_MAX; i++)
        c->sources[i].source.fd = -1;
    rc = copy_all(t, c, e);
    (void)copy_free(c);
    return rc;
}
