/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Memory without the library: slower to bring back, and no other VMM's pages are shared.
 *
 * Theory of operation: QEMU maps the guest's memory as one anonymous private mapping, which nothing
 * can grow together with: it is advised otherwise than what lies beside it. It is the one that is
 * writable, not executable (the translator's buffer is both), and exactly as large as the guest's
 * memory. Before the guest runs, all that is not zeros is written into it through /proc/PID/mem. So
 * from then on a page that is not there is zeros, and all others are compared with their source
 * when they are saved.
 *
 * The VMM is not trusted, but could only spoil snapshots of its own.
 */
#include "shim/copied.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum {
    MAPS_BYTES_MAX = 1 << 20, /* some 300 lines of 100 bytes are usual */
    COPY_BYTES = 256 << 10,
};

/* What stands in a line of /proc/PID/maps: "from-to rw-p offset device inode path". */
static bool parse_line(const char *line, uint64_t bytes, uint64_t *ret_from)
{
    char *at;
    uint64_t from = strtoull(line, &at, 16);
    uint64_t to = *at == '-' ? strtoull(at + 1, &at, 16) : 0;
    if (to - from != bytes || strncmp(at, " rw-p 00000000 00:00 0", 22) != 0)
        return false;
    at += 22 + strspn(at + 22, " ");
    if (*at != '\0' && *at != '\n' && strncmp(at, "[anon:", 6) != 0)
        return false; /* heap, stack */
    *ret_from = from;
    return true;
}

/* `text` ends with a NUL. Returns how many mappings fit. */
static unsigned find_in(const char *text, uint64_t bytes, uint64_t *ret_from)
{
    unsigned n = 0;
    for (const char *line = text; *line;) {
        const char *end = strchr(line, '\n');
        n += parse_line(line, bytes, ret_from);
        line = end ? end + 1 : line + strlen(line);
    }
    return n;
}

/* The kernel gives it in pieces. Leaves room for a NUL. */
static int read_maps(int fd, char *dst, struct err *e)
{
    size_t n = 0;
    while (n < MAPS_BYTES_MAX - 1) {
        ssize_t got = pread(fd, dst + n, MAPS_BYTES_MAX - 1 - n, (off_t)n);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return err_sys(e, errno, "read the VMM's mappings");
        if (got == 0)
            return 0;
        n += (size_t)got;
    }
    return err_set(e, ERR_IO, "the VMM has too many mappings");
}

static void *map_buffer(size_t bytes, struct err *e)
{
    void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p != MAP_FAILED)
        return p;
    err_sys(e, errno, "memory for a copy");
    return NULL;
}

int copied_find(struct memory *m, struct err *e)
{
    uint64_t base = 0;
    unsigned n = 0;
    char *text = map_buffer(MAPS_BYTES_MAX, e);
    int rc = text ? read_maps(m->maps_fd, text, e) : -1;
    if (rc == 0)
        n = find_in(text, m->bytes, &base);
    if (text)
        (void)munmap(text, MAPS_BYTES_MAX);
    if (rc < 0)
        return -1;
    if (n != 1)
        return err_set(e, ERR_NOT_FOUND, "%u of the VMM's mappings look like its memory", n);
    m->base = base;
    return 0;
}

static int write_memory(
    const struct memory *m, uint64_t offset, const char *src, size_t n, struct err *e)
{
    while (n > 0) {
        ssize_t put = pwrite(m->mem_fd, src, n, (off_t)(m->base + offset));
        if (put < 0 && errno == EINTR)
            continue;
        if (put < 0)
            return err_sys(e, errno, "write the VMM's memory");
        if (put == 0)
            return err_set(e, ERR_IO, "the VMM's memory is gone");
        src += put;
        offset += (uint64_t)put;
        n -= (size_t)put;
    }
    return 0;
}

static int fill_entry(
    const struct memory *m, const struct memory_map_entry *at, char *buffer, struct err *e)
{
    uint64_t end = at->offset + at->length;
    if (at->blob == 0)
        return 0;
    for (uint64_t offset = at->offset; offset < end;) {
        size_t n = end - offset < COPY_BYTES ? (size_t)(end - offset) : COPY_BYTES;
        if (memory_source_read(&m->source, at, offset, n, buffer, e) < 0 ||
            write_memory(m, offset, buffer, n, e) < 0)
            return -1;
        offset += n;
    }
    return 0;
}

int copied_fill(struct memory *m, struct err *e)
{
    char *buffer = map_buffer(COPY_BYTES, e);
    int rc = buffer ? 0 : -1;
    for (size_t i = 0; rc == 0 && i < m->source.map.n_entries; i++)
        rc = fill_entry(m, &m->source.map.entries[i], buffer, e);
    if (buffer)
        (void)munmap(buffer, COPY_BYTES);
    return rc;
}
