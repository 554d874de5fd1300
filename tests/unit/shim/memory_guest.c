/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What stands for a VMM in memory_test.c: maps its memory as QEMU does, with the library or without
 * it, then fills and checks pages as it is told by a connection to its monitor.
 */
#include "memory_guest.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "proto/shim.h"

static uint64_t *memory;
static uint64_t n_pages;

static uint64_t word(uint64_t page, uint64_t i, uint8_t value)
{
    return value == 0 ? 0 : (page * 512 + i + 1) * 0x9e3779b97f4a7c15ull + value;
}

static void fill(const struct order *o)
{
    for (uint64_t p = o->page; p < o->page + o->n; p++)
        for (uint64_t i = 0; i < 512; i++)
            memory[p * 512 + i] = word(p, i, o->value);
}

static int page_is(uint64_t p, uint8_t value)
{
    for (uint64_t i = 0; i < 512; i++)
        if (memory[p * 512 + i] != word(p, i, value))
            return 0;
    return 1;
}

static int read_full(int fd, void *dst, size_t n)
{
    char *p = dst;
    while (n > 0) {
        ssize_t got = read(fd, p, n);
        if (got <= 0)
            return -1;
        p += got;
        n -= (size_t)got;
    }
    return 0;
}

/* How many pages are not as the values that follow say. */
static uint64_t compare(int fd)
{
    static uint8_t values[GUEST_PAGES];
    uint64_t wrong = 0;
    if (read_full(fd, values, sizeof values) < 0)
        _exit(3);
    for (uint64_t p = 0; p < n_pages; p++)
        wrong += !page_is(p, values[p]);
    return wrong;
}

/* Without the library there is no such file. Advised so that nothing grows together with it. */
static int map_memory(void)
{
    int fd = open(SHIM_RAM_PATH, O_RDWR | O_CLOEXEC);
    int flags = fd < 0 ? MAP_PRIVATE | MAP_ANONYMOUS : MAP_SHARED;
    memory = mmap(NULL, n_pages * 4096, PROT_READ | PROT_WRITE, flags, fd, 0);
    if (memory == MAP_FAILED)
        return 2;
    if (fd < 0)
        return madvise(memory, n_pages * 4096, MADV_DONTFORK) < 0 ? 5 : 0;
    if (madvise(memory, 4096, MADV_DONTNEED) == 0 || madvise(memory, 4096, MADV_HUGEPAGE) < 0 ||
        mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0) != MAP_FAILED)
        return 4;
    return 0;
}

int main(int argc, char **argv)
{
    struct order o;
    int conn;
    int rc;
    n_pages = argc > 1 ? strtoull(argv[1], NULL, 10) : 0;
    if (n_pages != GUEST_PAGES)
        return 2;
    rc = map_memory();
    if (rc != 0)
        return rc;
    conn = accept(SHIM_VMM_FD_MONITOR, NULL, NULL);
    while (read_full(conn, &o, sizeof o) == 0) {
        uint64_t answer = 0;
        if (o.what == ORDER_FILL)
            fill(&o);
        else
            answer = compare(conn);
        if (write(conn, &answer, sizeof answer) != (ssize_t)sizeof answer)
            return 1;
    }
    return 0;
}
