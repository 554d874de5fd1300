/* SPDX-License-Identifier: Apache-2.0 */
/* Files of sums: written beside a blob, checked, and used to verify a block of it. */
#include "snap/checksum.h"

#include <assert.h>
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "snap/snap_int.h"

static_assert(sizeof(struct checksum_head) == 48, "the file format");

int snap_write_at(int fd, uint64_t offset, const void *p, size_t n, struct err *e)
{
    const char *bytes = p;
    while (n > 0) {
        ssize_t put = pwrite(fd, bytes, n, (off_t)offset);
        if (put < 0 && errno == EINTR)
            continue;
        if (put <= 0)
            return err_sys(e, put < 0 ? errno : ENOSPC, "write");
        bytes += put;
        offset += (uint64_t)put;
        n -= (size_t)put;
    }
    return 0;
}

static uint64_t n_blocks(uint64_t bytes)
{
    return bytes / CHECKSUM_BLOCK + (bytes % CHECKSUM_BLOCK != 0);
}

static uint32_t sum_of_head(const struct checksum_head *head)
{
    struct checksum_head h = *head;
    h.crc = 0;
    return crc32c(0, &h, sizeof h);
}

void checksum_writer_init(struct checksum_writer *w, int fd, const struct uuid *blob)
{
    memset(w, 0, sizeof *w);
    w->fd = fd;
    w->blob = *blob;
}

static int flush_sums(struct checksum_writer *w, struct err *e)
{
    size_t n = w->n_buffered * sizeof w->buffered[0];
    uint64_t at =
        sizeof(struct checksum_head) + (w->n_sums - w->n_buffered) * sizeof w->buffered[0];
    if (snap_write_at(w->fd, at, w->buffered, n, e) < 0)
        return err_wrap(e, "sums of a blob");
    w->crc = crc32c(w->crc, w->buffered, n);
    w->n_buffered = 0;
    return 0;
}

static int end_block(struct checksum_writer *w, struct err *e)
{
    if (w->n_buffered == CHECKSUM_WRITER_SUMS && flush_sums(w, e) < 0)
        return -1;
    w->buffered[w->n_buffered++] = w->block;
    w->n_sums++;
    w->block = 0;
    return 0;
}

int checksum_write(struct checksum_writer *w, const void *p, size_t n, struct err *e)
{
    const char *bytes = p;
    while (n > 0) {
        size_t room = CHECKSUM_BLOCK - (size_t)(w->bytes % CHECKSUM_BLOCK);
        size_t piece = n < room ? n : room;
        w->block = crc32c(w->block, bytes, piece);
        w->bytes += piece;
        bytes += piece;
        n -= piece;
        if (piece == room && end_block(w, e) < 0)
            return -1;
    }
    return 0;
}

int checksum_write_end(struct checksum_writer *w, struct err *e)
{
    struct checksum_head h = {
        .magic = CHECKSUM_MAGIC,
        .version = CHECKSUM_VERSION,
        .head_bytes = sizeof h,
        .block_bytes = CHECKSUM_BLOCK,
        .blob_bytes = w->bytes,
    };
    if ((w->bytes % CHECKSUM_BLOCK != 0 && end_block(w, e) < 0) || flush_sums(w, e) < 0)
        return -1;
    memcpy(h.uuid, w->blob.bytes, sizeof h.uuid);
    h.crc = crc32c_join(sum_of_head(&h), w->crc, w->n_sums * sizeof w->buffered[0]);
    if (snap_write_at(w->fd, 0, &h, sizeof h, e) < 0)
        return err_wrap(e, "sums of a blob");
    return 0;
}

int checksum_file(int blob_fd, int sums_fd, const struct uuid *blob, struct err *e)
{
    struct checksum_writer w;
    char piece[8192]; /* small: this also runs in programs that have little memory */
    checksum_writer_init(&w, sums_fd, blob);
    for (;;) {
        ssize_t got = pread(blob_fd, piece, sizeof piece, (off_t)w.bytes);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return err_sys(e, errno, "read a blob");
        if (got == 0)
            return checksum_write_end(&w, e);
        if (checksum_write(&w, piece, (size_t)got, e) < 0)
            return -1;
    }
}

static int check_head(const struct checksum_head *h, size_t n, struct err *e)
{
    if (h->magic != CHECKSUM_MAGIC)
        return err_set(e, ERR_INVALID, "not a file of sums");
    if (h->version != CHECKSUM_VERSION || h->head_bytes != sizeof *h ||
        h->block_bytes != CHECKSUM_BLOCK)
        return err_set(e, ERR_UNSUPPORTED, "sums of version %u, this program knows %d",
            (unsigned)h->version, CHECKSUM_VERSION);
    n -= sizeof *h;
    if (n % sizeof(uint32_t) != 0 || n_blocks(h->blob_bytes) != n / sizeof(uint32_t))
        return err_set(e, ERR_INVALID, "sums: the file has the wrong length");
    if (h->reserved != 0)
        return err_set(e, ERR_INVALID, "sums: the head is damaged");
    return 0;
}

int checksums_parse(const void *bytes, size_t n, struct checksums *ret, struct err *e)
{
    struct checksum_head h;
    const char *sums = (const char *)bytes + sizeof h;
    if (n < sizeof h)
        return err_set(e, ERR_INVALID, "sums: the file is too short");
    memcpy(&h, bytes, sizeof h);
    if (check_head(&h, n, e) < 0)
        return -1;
    if (crc32c(sum_of_head(&h), sums, n - sizeof h) != h.crc)
        return err_set(e, ERR_INVALID, "sums: the file is damaged");
    ret->sums = (const uint32_t *)(const void *)sums;
    ret->n_sums = (n - sizeof h) / sizeof(uint32_t);
    ret->blob_bytes = h.blob_bytes;
    memcpy(ret->blob.bytes, h.uuid, sizeof h.uuid);
    return 0;
}

int checksums_verify(
    const struct checksums *c, uint64_t index, const void *p, size_t n, struct err *e)
{
    uint64_t left;
    if (index >= c->n_sums)
        return err_set(e, ERR_IO, "block %llu is beyond the blob", (unsigned long long)index);
    left = c->blob_bytes - index * CHECKSUM_BLOCK;
    if (n != (left < CHECKSUM_BLOCK ? left : CHECKSUM_BLOCK))
        return err_set(e, ERR_IO, "block %llu was cut", (unsigned long long)index);
    if (crc32c(0, p, n) != c->sums[index])
        return err_set(e, ERR_IO, "block %llu is not what was written", (unsigned long long)index);
    return 0;
}
