/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Serving page faults through a userfaultfd.
 *
 * Theory of operation: a fault brings in its block of FAULT_BLOCK bytes, as far as that lies in one
 * entry of the map and has not been given back by the VMM. Zeros need no copy. Blobs are read, not
 * mapped: a disk that fails then is an error here and not a signal.
 *
 * What the kernel answers to a copy: less than asked for, and the rest is tried again; EEXIST, a
 * page that is there already, which is as good; EAGAIN, an event that must be read first; ESRCH, a
 * VMM that has ended. The kernel gives all faults before any event, so they are kept in
 * m->waiting, which has room for one of each thread that the VMM may have.
 */
#include "shim/faults.h"

#include <errno.h>
#include <linux/userfaultfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "snap/working_set.h"

enum { FAULT_BLOCK = 64 << 10, MESSAGES = 16, EVENT_ROUNDS_MAX = 1000 };

static char block[FAULT_BLOCK] __attribute__((aligned(MEMORY_PAGE)));

static bool get_bit(const uint64_t *bitmap, uint64_t page)
{
    return bitmap[page / 64] >> (page % 64) & 1;
}

static void set_bits(uint64_t *bitmap, uint64_t offset, uint64_t n)
{
    for (uint64_t page = offset / MEMORY_PAGE; page < (offset + n) / MEMORY_PAGE; page++)
        bitmap[page / 64] |= 1ull << (page % 64);
}

static bool is_removed(const struct memory *m, uint64_t offset)
{
    return get_bit(m->removed, offset / MEMORY_PAGE);
}

static void handle_removal(struct memory *m, uint64_t start, uint64_t end)
{
    if (start >= m->base && end >= start && end - m->base <= m->bytes) {
        set_bits(m->removed, start - m->base, end - start);
        m->any_removed = true;
    }
}

static int handle_message(struct memory *m, const struct uffd_msg *msg, struct err *e)
{
    if (msg->event == UFFD_EVENT_REMOVE) {
        handle_removal(m, msg->arg.remove.start, msg->arg.remove.end);
        return 0;
    }
    if (msg->event != UFFD_EVENT_PAGEFAULT)
        return 0;
    if (msg->arg.pagefault.address - m->base >= m->bytes)
        return err_set(e, ERR_PROTOCOL, "outside of the memory");
    m->waiting[m->n_waiting++] =
        (msg->arg.pagefault.address - m->base) & ~(uint64_t)(MEMORY_PAGE - 1);
    return 0;
}

/* Reads what has come. Returns how many messages, 0 when there is none or the VMM has ended. */
static int read_messages(struct memory *m, struct err *e)
{
    struct uffd_msg msgs[MESSAGES];
    ssize_t got;
    if (m->n_waiting + MESSAGES > MEMORY_FAULTS_MAX)
        return err_set(e, ERR_PROTOCOL, "more faults than the VMM has threads");
    got = read(m->uffd, msgs, sizeof msgs);
    if (got < 0 && (errno == EAGAIN || errno == EINTR))
        return 0;
    if (got < 0)
        return err_sys(e, errno, "read page faults");
    for (size_t i = 0; i < (size_t)got / sizeof *msgs; i++)
        if (handle_message(m, &msgs[i], e) < 0)
            return -1;
    return (int)((size_t)got / sizeof *msgs);
}

static void wake(const struct memory *m, uint64_t offset)
{
    struct uffdio_range range = {m->base + offset, MEMORY_PAGE};
    (void)ioctl(m->uffd, UFFDIO_WAKE, &range);
}

/* One request for [offset, offset + n): zeros where `src` is NULL. Returns the bytes that are done,
 * or a negative errno. */
static int64_t fill_once(const struct memory *m, uint64_t offset, uint64_t n, const char *src)
{
    if (src) {
        struct uffdio_copy copy = {.dst = m->base + offset,
            .src = (uintptr_t)src,
            .len = n,
            .mode = m->is_tracked ? UFFDIO_COPY_MODE_WP : 0};
        if (ioctl(m->uffd, UFFDIO_COPY, &copy) == 0)
            return (int64_t)n;
        return copy.copy > 0 ? copy.copy : -errno;
    }
    struct uffdio_zeropage zero = {.range = {m->base + offset, n}};
    if (ioctl(m->uffd, UFFDIO_ZEROPAGE, &zero) == 0)
        return (int64_t)n;
    return zero.zeropage > 0 ? zero.zeropage : -errno;
}

static int fill(struct memory *m, uint64_t offset, uint64_t n, const char *src, struct err *e)
{
    int rounds = 0;
    while (n > 0) {
        int64_t done = fill_once(m, offset, n, src);
        if (done == -ESRCH)
            return 0;
        if (done == -EAGAIN && rounds++ < EVENT_ROUNDS_MAX) {
            if (read_messages(m, e) < 0)
                return -1;
            continue;
        }
        if (done == -EEXIST) {
            wake(m, offset);
            done = MEMORY_PAGE;
        }
        if (done <= 0)
            return err_sys(e, (int)-done, "copy a page in");
        offset += (uint64_t)done;
        src = src ? src + done : NULL;
        n -= (uint64_t)done;
    }
    return 0;
}

/* [offset, offset + n) lies in one entry, and n is at most FAULT_BLOCK unless it is zeros. */
static int serve_part(
    struct memory *m, const struct memory_map_entry *at, uint64_t offset, uint64_t n, struct err *e)
{
    if (at->blob == 0)
        return fill(m, offset, n, NULL, e);
    if (memory_source_read(&m->source, at, offset, n, block, e) < 0)
        return -1;
    return fill(m, offset, n, block, e);
}

static uint64_t max_u64(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

static uint64_t min_u64(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

static int serve_fault(struct memory *m, uint64_t offset, struct err *e)
{
    const struct memory_map_entry *at = memory_map_find(&m->source.map, offset);
    uint64_t block_from = offset & ~(uint64_t)(FAULT_BLOCK - 1);
    uint64_t least = max_u64(block_from, at->offset);
    uint64_t most = min_u64(block_from + FAULT_BLOCK, at->offset + at->length);
    uint64_t from = offset;
    uint64_t to = offset + MEMORY_PAGE;
    m->n_faults++;
    if (is_removed(m, offset))
        return fill(m, offset, MEMORY_PAGE, NULL, e);
    while (from > least && !is_removed(m, from - MEMORY_PAGE))
        from -= MEMORY_PAGE;
    while (to < most && !is_removed(m, to))
        to += MEMORY_PAGE;
    set_bits(m->touched, from, to - from);
    return serve_part(m, at, from, to - from, e);
}

int faults_serve(struct memory *m, struct err *e)
{
    int got;
    do {
        got = read_messages(m, e);
        while (got >= 0 && m->n_waiting > 0)
            if (serve_fault(m, m->waiting[--m->n_waiting], e) < 0)
                got = -1;
    } while (got == MESSAGES);
    return got < 0 ? err_wrap(e, "a page of its memory could not be served") : 0;
}

/* A run of hints, entry by entry, block by block. */
static int copy_run(struct memory *m, const struct working_set_run *r, struct err *e)
{
    uint64_t offset = r->offset;
    while (offset < r->offset + r->length) {
        const struct memory_map_entry *at = memory_map_find(&m->source.map, offset);
        uint64_t end = min_u64(r->offset + r->length, at->offset + at->length);
        uint64_t n = at->blob == 0 ? end - offset : min_u64(end - offset, FAULT_BLOCK);
        if (serve_part(m, at, offset, n, e) < 0)
            return -1;
        m->n_ahead += n / MEMORY_PAGE;
        offset += n;
    }
    return 0;
}

static int copy_set(struct memory *m, const struct working_set *w, struct err *e)
{
    for (size_t i = 0; i < w->n_runs; i++)
        if (copy_run(m, &w->runs[i], e) < 0)
            return err_wrap(e, "a page of its memory could not be served");
    return 0;
}

int faults_copy_ahead(struct memory *m, struct err *e)
{
    struct err ignored;
    struct working_set set;
    struct stat st;
    void *p = MAP_FAILED;
    int rc = 0;
    if (fstat(m->hints_fd, &st) == 0 && st.st_size > 0)
        p = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, m->hints_fd, 0);
    (void)close(TAKE_FD(m->hints_fd));
    if (p == MAP_FAILED)
        return 0;
    if (working_set_parse(p, (size_t)st.st_size, &set, &ignored) == 0 &&
        set.memory_bytes == m->bytes)
        rc = copy_set(m, &set, e);
    (void)munmap(p, (size_t)st.st_size);
    return rc;
}
