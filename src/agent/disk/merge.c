/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Merging overlays.
 *
 * Theory of operation. The layers are walked side by side, one L2 table (512 MiB of the disk) at a
 * time: of each guest cluster the topmost layer that says anything decides, be it data or zeros.
 * Data is copied in runs, by copy_file_range where the file systems can (then it may cost nothing
 * but references), into a new file that is written front to back: header, L1, then for each table
 * the table and its data, at last refcount blocks and their table, because only then is the size
 * known. The header comes last of all, so a file that was left half written is no qcow2.
 *
 * The layers were written by VMMs, which their guests may own: every number is read once, checked
 * against the file's size, and each cluster of a file may be named once, so that neither a
 * loop nor a small file that stands for a huge one gets through. Their refcounts are not read; the
 * new file has its own. What lies behind the end of a layer's file reads as zeros, as for QEMU.
 */
#include <endian.h>
#include <errno.h>
#include <limits.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent/disk/disk.h"
#include "agent/disk/qcow2_int.h"
#include "base/cleanup.h"

enum { LAYERS_MAX = 64 }; /* each costs two tables of memory */
#define FILE_BYTES_MAX (2 * QCOW2_VIRTUAL_MAX)

#define ENTRY_COPIED (1ull << 63)
#define ENTRY_COMPRESSED (1ull << 62)
#define ENTRY_ZERO 1ull
#define ENTRY_OFFSET 0x00ffffffffff0000ull /* bits 16 to 55: whole clusters */

struct layer {
    int fd;
    uint64_t file_clusters;
    unsigned char *used; /* a bit for each cluster of the file */
    uint64_t *l1;        /* QCOW2_L1_ENTRIES_MAX */
    uint64_t *l2;        /* of the present round */
    bool has_l2;
};

/* Clusters that are copied together. */
struct run {
    int fd;
    uint64_t from, to, n; /* clusters */
};

struct merge {
    struct layer layers[LAYERS_MAX]; /* bottom first */
    size_t n_layers;
    uint64_t virtual_bytes;
    int out;
    uint64_t next; /* free cluster of the new file */
    uint64_t *l1;
    uint64_t *l2;
    char *chunk; /* a cluster, for copying by hand */
    struct run run;
};

static int bad(struct err *e, const char *what)
{
    return err_set(e, ERR_INVALID, "not an overlay of ours: %s", what);
}

/* --- reading --- */

/* What is behind the end of the file is zeros. */
static int read_at(int fd, uint64_t offset, void *dst, size_t n, struct err *e)
{
    size_t sum = 0;
    while (sum < n) {
        ssize_t got = pread(fd, (char *)dst + sum, n - sum, (off_t)(offset + sum));
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return err_sys(e, errno, "read");
        if (got == 0)
            break;
        sum += (size_t)got;
    }
    memset((char *)dst + sum, 0, n - sum);
    return 0;
}

/* Takes a cluster of the file for one purpose. `entry` has only known bits. */
static int claim(struct layer *l, uint64_t offset, struct err *e)
{
    uint64_t cluster = offset / QCOW2_CLUSTER;
    if (cluster >= l->file_clusters)
        return bad(e, "a table reaches behind the end");
    if (l->used[cluster / CHAR_BIT] & 1u << cluster % CHAR_BIT)
        return bad(e, "a cluster is used twice");
    l->used[cluster / CHAR_BIT] |= (unsigned char)(1u << cluster % CHAR_BIT);
    return 0;
}

static int check_header(const struct qcow2_header *h, struct err *e)
{
    uint32_t length = be32toh(h->header_length);
    if (be32toh(h->magic) != QCOW2_MAGIC || be32toh(h->version) != 3)
        return bad(e, "no qcow2 of version 3");
    if (be32toh(h->cluster_bits) != QCOW2_CLUSTER_BITS ||
        be32toh(h->refcount_order) != QCOW2_REFCOUNT_ORDER)
        return bad(e, "another size of clusters or refcounts");
    if (h->backing_file_offset || h->backing_file_size || h->crypt_method || h->nb_snapshots)
        return bad(e, "it has a backing file, encryption or snapshots");
    if (h->incompatible_features || h->compatible_features || h->autoclear_features)
        return bad(e, "it has features");
    if (length != QCOW2_HEADER_BYTES || h->compression_type)
        return bad(e, "its header is of another length or says compression");
    return qcow2_check_size(be64toh(h->size), e);
}

static int read_l1(struct layer *l, const struct qcow2_header *h, struct err *e)
{
    uint64_t at = be64toh(h->l1_table_offset);
    uint64_t n = qcow2_l1_entries(be64toh(h->size));
    if (be32toh(h->l1_size) != n)
        return bad(e, "the L1 table does not fit the disk");
    if (at == 0 || at & ~ENTRY_OFFSET)
        return bad(e, "the L1 table lies askew");
    if (claim(l, at, e) < 0)
        return -1;
    return read_at(l->fd, at, l->l1, n * sizeof *l->l1, e);
}

static int alloc_layer(struct layer *l, struct err *e)
{
    struct stat st;
    if (fstat(l->fd, &st) < 0)
        return err_sys(e, errno, "stat");
    if (!S_ISREG(st.st_mode) || (uint64_t)st.st_size > FILE_BYTES_MAX)
        return bad(e, "no regular file, or too large");
    l->file_clusters = ((uint64_t)st.st_size + QCOW2_CLUSTER - 1) / QCOW2_CLUSTER;
    l->used = calloc(l->file_clusters / CHAR_BIT + 1, 1);
    l->l1 = calloc(QCOW2_L1_ENTRIES_MAX, sizeof *l->l1);
    l->l2 = malloc(QCOW2_CLUSTER);
    if (!l->used || !l->l1 || !l->l2)
        return err_set(e, ERR_NOMEM, "no memory for the tables of a layer");
    return 0;
}

static int open_layer(struct merge *m, int fd, struct err *e)
{
    struct layer *l = &m->layers[m->n_layers++];
    struct qcow2_header h;
    l->fd = fd;
    if (alloc_layer(l, e) < 0 || read_at(fd, 0, &h, sizeof h, e) < 0 || check_header(&h, e) < 0 ||
        claim(l, 0, e) < 0 || read_l1(l, &h, e) < 0)
        return -1;
    if (m->n_layers > 1 && be64toh(h.size) != m->virtual_bytes)
        return bad(e, "the layers' disks have different sizes");
    m->virtual_bytes = be64toh(h.size);
    return 0;
}

/* Checks and claims the entries of a fresh table; `n` of them may be used. */
static int check_l2(struct layer *l, size_t n, struct err *e)
{
    for (size_t i = 0; i < QCOW2_L2_ENTRIES; i++) {
        uint64_t entry = be64toh(l->l2[i]);
        l->l2[i] = entry;
        if (entry & ENTRY_COMPRESSED)
            return bad(e, "it has compressed clusters");
        if (entry & ~(ENTRY_OFFSET | ENTRY_COPIED | ENTRY_ZERO))
            return bad(e, "an L2 entry has unknown bits");
        if (i >= n && entry)
            return bad(e, "it has clusters behind the end of the disk");
        if (entry & ENTRY_OFFSET && claim(l, entry & ENTRY_OFFSET, e) < 0)
            return -1;
    }
    return 0;
}

static int load_l2(struct layer *l, size_t index, size_t n, struct err *e)
{
    uint64_t entry = be64toh(l->l1[index]);
    l->has_l2 = (entry & ENTRY_OFFSET) != 0;
    if (entry & ~(ENTRY_OFFSET | ENTRY_COPIED))
        return bad(e, "an L1 entry has unknown bits");
    if (!l->has_l2)
        return 0;
    if (claim(l, entry & ENTRY_OFFSET, e) < 0 ||
        read_at(l->fd, entry & ENTRY_OFFSET, l->l2, QCOW2_CLUSTER, e) < 0)
        return -1;
    return check_l2(l, n, e);
}

/* --- writing --- */

static bool cannot_copy_range(int errnum)
{
    return errnum == EXDEV || errnum == EINVAL || errnum == ENOSYS || errnum == EOPNOTSUPP ||
           errnum == EPERM || errnum == ETXTBSY;
}

/* By hand, a cluster at a time; the end of the source ends it. */
static int copy_by_hand(struct merge *m, uint64_t from, uint64_t to, uint64_t n, struct err *e)
{
    while (n > 0) {
        size_t want = n < QCOW2_CLUSTER ? (size_t)n : QCOW2_CLUSTER;
        ssize_t got = pread(m->run.fd, m->chunk, want, (off_t)from);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return err_sys(e, errno, "read");
        if (got == 0)
            return 0;
        if (qcow2_write_at(m->out, to, m->chunk, (size_t)got, e) < 0)
            return -1;
        from += (uint64_t)got;
        to += (uint64_t)got;
        n -= (uint64_t)got;
    }
    return 0;
}

static int copy_data(
    struct merge *m, uint64_t from_byte, uint64_t to_byte, uint64_t n, struct err *e)
{
    off_t from = (off_t)from_byte;
    off_t to = (off_t)to_byte;
    while (n > 0) {
        ssize_t got = copy_file_range(m->run.fd, &from, m->out, &to, n, /* flags= */ 0);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0 && !cannot_copy_range(errno))
            return err_sys(e, errno, "copy a layer");
        if (got <= 0)
            break;
        n -= (uint64_t)got;
    }
    return copy_by_hand(m, (uint64_t)from, (uint64_t)to, n, e);
}

/* Where the next data at or behind `at` begins (SEEK_DATA) or ends (SEEK_HOLE), at most `end`. */
static uint64_t seek(int fd, uint64_t at, uint64_t end, int whence)
{
    off_t found = lseek(fd, (off_t)at, whence);
    if (found < 0 && errno != ENXIO) /* no such thing here: all is data */
        return whence == SEEK_DATA ? at : end;
    return found < 0 || (uint64_t)found > end ? end : (uint64_t)found;
}

/* Holes stay holes. */
static int flush_run(struct merge *m, struct err *e)
{
    const struct run *r = &m->run;
    uint64_t at = r->from * QCOW2_CLUSTER;
    uint64_t end = at + r->n * QCOW2_CLUSTER;
    uint64_t to = r->to * QCOW2_CLUSTER - at; /* modulo 2^64 */
    while (at < end) {
        uint64_t until;
        at = seek(r->fd, at, end, SEEK_DATA);
        until = seek(r->fd, at, end, SEEK_HOLE);
        if (until > at && copy_data(m, at, at + to, until - at, e) < 0)
            return -1;
        at = until > at ? until : end; /* a file that changes under us must not make a loop */
    }
    m->run.n = 0;
    return 0;
}

static int add_cluster(struct merge *m, int fd, uint64_t from, struct err *e)
{
    struct run *r = &m->run;
    if (r->n > 0 && (r->fd != fd || r->from + r->n != from || r->to + r->n != m->next))
        if (flush_run(m, e) < 0)
            return -1;
    if (r->n == 0)
        *r = (struct run){.fd = fd, .from = from, .to = m->next};
    r->n++;
    m->next++;
    return 0;
}

/* What the topmost layer that says anything says; 0: none does. */
static uint64_t decide(const struct merge *m, size_t i, int *ret_fd)
{
    for (size_t k = m->n_layers; k-- > 0;) {
        const struct layer *l = &m->layers[k];
        if (l->has_l2 && l->l2[i] & (ENTRY_ZERO | ENTRY_OFFSET)) {
            *ret_fd = l->fd;
            return l->l2[i];
        }
    }
    return 0;
}

static int merge_entries(struct merge *m, size_t n, struct err *e)
{
    for (size_t i = 0; i < n; i++) {
        int fd = -1;
        uint64_t entry = decide(m, i, &fd);
        m->l2[i] = htobe64(entry & ENTRY_ZERO);
        if (entry == 0 || entry & ENTRY_ZERO)
            continue;
        m->l2[i] = htobe64(m->next * QCOW2_CLUSTER | ENTRY_COPIED);
        if (add_cluster(m, fd, (entry & ENTRY_OFFSET) / QCOW2_CLUSTER, e) < 0)
            return -1;
    }
    return flush_run(m, e);
}

/* The part of the disk that one L2 table maps. */
static int merge_table(struct merge *m, size_t index, struct err *e)
{
    uint64_t left = m->virtual_bytes - index * QCOW2_L1_REACH;
    size_t n = left >= QCOW2_L1_REACH ? QCOW2_L2_ENTRIES
                                      : (size_t)((left + QCOW2_CLUSTER - 1) / QCOW2_CLUSTER);
    bool has_any = false;
    uint64_t at;
    for (size_t k = 0; k < m->n_layers; k++) {
        if (load_l2(&m->layers[k], index, n, e) < 0)
            return -1;
        has_any = has_any || m->layers[k].has_l2;
    }
    if (!has_any)
        return 0;
    at = m->next++ * QCOW2_CLUSTER;
    memset(m->l2, 0, QCOW2_CLUSTER);
    m->l1[index] = htobe64(at | ENTRY_COPIED);
    if (merge_entries(m, n, e) < 0)
        return -1;
    return qcow2_write_at(m->out, at, m->l2, QCOW2_CLUSTER, e);
}

static uint64_t div_up(uint64_t a, uint64_t b)
{
    return (a + b - 1) / b;
}

/* Every cluster of the file, these blocks and their table too, is counted once. */
static int write_refcounts(struct merge *m, struct qcow2_layout *layout, struct err *e)
{
    uint64_t first = m->next;
    uint64_t blocks = 1;
    uint64_t tables = 1;
    uint64_t total;
    /* More of them need more of them, but each covers 32768 others. */
    while ((total = first + blocks + tables) > blocks * QCOW2_REFCOUNTS ||
           blocks > tables * QCOW2_L2_ENTRIES) {
        blocks = div_up(total, QCOW2_REFCOUNTS);
        tables = div_up(blocks, QCOW2_L2_ENTRIES);
    }
    for (uint64_t b = 0; b < blocks; b++) {
        uint64_t left = total - b * QCOW2_REFCOUNTS;
        uint16_t *counts = (uint16_t *)(void *)m->chunk;
        uint64_t entry = htobe64((first + b) * QCOW2_CLUSTER);
        memset(counts, 0, QCOW2_CLUSTER);
        for (uint64_t i = 0; i < QCOW2_REFCOUNTS && i < left; i++)
            counts[i] = htobe16(1);
        if (qcow2_write_at(m->out, (first + b) * QCOW2_CLUSTER, counts, QCOW2_CLUSTER, e) < 0 ||
            qcow2_write_at(m->out, (first + blocks) * QCOW2_CLUSTER + b * sizeof entry, &entry,
                sizeof entry, e) < 0)
            return -1;
    }
    m->next = total;
    layout->refcount_table = first + blocks;
    layout->refcount_table_clusters = (uint32_t)tables;
    return 0;
}

static int merge_all(struct merge *m, struct err *e)
{
    struct qcow2_layout layout = {.l1 = 1};
    m->next = 2; /* behind header and L1 */
    for (size_t i = 0; i < qcow2_l1_entries(m->virtual_bytes); i++)
        if (merge_table(m, i, e) < 0)
            return -1;
    if (qcow2_write_at(m->out, layout.l1 * QCOW2_CLUSTER, m->l1, QCOW2_CLUSTER, e) < 0 ||
        write_refcounts(m, &layout, e) < 0)
        return -1;
    if (ftruncate(m->out, (off_t)(m->next * QCOW2_CLUSTER)) < 0)
        return err_sys(e, errno, "set the size");
    return qcow2_write_header(m->out, m->virtual_bytes, &layout, e);
}

static void merge_done(struct merge *m)
{
    for (size_t i = 0; i < m->n_layers; i++) {
        free(m->layers[i].used);
        free(m->layers[i].l1);
        free(m->layers[i].l2);
    }
    free(m->l1);
    free(m->l2);
    free(m->chunk);
    free(m);
}

static int check_out(int fd, struct err *e)
{
    struct stat st;
    if (fstat(fd, &st) < 0)
        return err_sys(e, errno, "stat");
    if (!S_ISREG(st.st_mode) || st.st_size != 0)
        return err_set(e, ERR_INVALID, "the new overlay is no empty file");
    return 0;
}

int disk_layers_merge(const int *layer_fds, size_t n, int out_fd, struct err *e)
{
    struct merge *m;
    int rc = -1;
    if (n == 0 || n > LAYERS_MAX)
        return err_set(e, ERR_INVALID, "cannot merge %zu layers", n);
    if (check_out(out_fd, e) < 0)
        return -1;
    m = calloc(1, sizeof *m);
    if (!m)
        return err_set(e, ERR_NOMEM, "no memory to merge layers");
    m->out = out_fd;
    m->l1 = calloc(QCOW2_L1_ENTRIES_MAX, sizeof *m->l1);
    m->l2 = malloc(QCOW2_CLUSTER);
    m->chunk = malloc(QCOW2_CLUSTER);
    if (!m->l1 || !m->l2 || !m->chunk) {
        err_set(e, ERR_NOMEM, "no memory to merge layers");
    } else {
        for (rc = 0; rc == 0 && m->n_layers < n;)
            rc = open_layer(m, layer_fds[m->n_layers], e);
        if (rc == 0)
            rc = merge_all(m, e);
    }
    merge_done(m);
    return rc < 0 ? err_wrap(e, "merge layers") : 0;
}
