/* SPDX-License-Identifier: Apache-2.0 */
#include "fakes_memory.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent/vmm/vmm.h"
#include "base/clock.h"
#include "base/io.h"
#include "snap/checksum.h"
#include "snap/memory_map.h"

enum { PAGES = 128 }; /* those without a number are zeros */

int fake_read_at(int fd, void *dst, size_t n, uint64_t offset, struct err *e)
{
    for (size_t done = 0; done < n;) {
        ssize_t got = pread(fd, (char *)dst + done, n - done, (off_t)(offset + done));
        if (got == 0 || (got < 0 && errno != EINTR))
            return err_sys(e, got ? errno : EIO, "read");
        done += got > 0 ? (size_t)got : 0;
    }
    return 0;
}

static int read_page(struct fake_memory *m, size_t i, const struct memory_map *map,
    const struct vmm_source *source, struct err *e)
{
    const struct memory_map_entry *en = memory_map_find(map, i * MEMORY_PAGE);
    const struct memory_map_blob *blob;
    if (en->blob == 0)
        return 0;
    blob = &map->blobs[en->blob - 1];
    m->pages[i].is_stored = true;
    m->pages[i].offset = en->blob_offset + i * MEMORY_PAGE - en->offset;
    m->pages[i].blob_bytes = blob->bytes;
    memcpy(m->pages[i].blob.bytes, blob->uuid, UUID_BYTES);
    return fake_read_at(source->blob_fds[en->blob - 1], &m->pages[i].number,
        sizeof m->pages[i].number, m->pages[i].offset, e);
}

int fake_memory_restore(struct fake_memory *m, const struct vmm_source *source, struct err *e)
{
    struct memory_map map;
    struct stat st;
    void *p;
    int rc;
    *m = (struct fake_memory){0};
    if (fstat(source->map_fd, &st) < 0)
        return err_sys(e, errno, "stat");
    p = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, source->map_fd, 0);
    if (p == MAP_FAILED)
        return err_sys(e, errno, "mmap");
    rc = memory_map_parse(p, (size_t)st.st_size, &map, e);
    for (size_t i = 0; rc == 0 && i < FAKE_PAGES; i++)
        rc = read_page(m, i, &map, source, e);
    (void)munmap(p, (size_t)st.st_size);
    return rc;
}

/* The new pages, one after the other. */
static int write_blob(struct fake_memory *m, const int numbers[FAKE_PAGES],
    const struct vmm_save *save, uint64_t *ret_bytes, struct err *e)
{
    struct checksum_writer sums;
    uint64_t bytes = 0;
    checksum_writer_init(&sums, save->sums_fd, &save->blob);
    for (size_t i = 0; i < FAKE_PAGES; i++) {
        char page[MEMORY_PAGE] = {0};
        if (numbers[i] == m->pages[i].number)
            continue;
        memcpy(page, &numbers[i], sizeof numbers[i]);
        if (io_write_full(save->blob_fd, page, sizeof page, DEADLINE_NEVER, e) < 0 ||
            checksum_write(&sums, page, sizeof page, e) < 0)
            return -1;
        m->pages[i].number = numbers[i];
        m->pages[i].is_stored = true;
        m->pages[i].blob = save->blob;
        m->pages[i].offset = bytes;
        bytes += sizeof page;
    }
    for (size_t i = 0; i < FAKE_PAGES; i++)
        if (uuid_equal(&m->pages[i].blob, &save->blob))
            m->pages[i].blob_bytes = bytes;
    *ret_bytes = bytes;
    return checksum_write_end(&sums, e);
}

/* Its index in the table, where it is put when it is not there yet. */
static uint32_t find_blob(
    struct memory_map_blob *table, size_t *n, const struct uuid *id, uint64_t bytes)
{
    for (size_t i = 0; i < *n; i++)
        if (memcmp(table[i].uuid, id->bytes, UUID_BYTES) == 0)
            return (uint32_t)i + 1;
    memcpy(table[*n].uuid, id->bytes, UUID_BYTES);
    table[*n].bytes = bytes;
    return (uint32_t)++ * n;
}

int fake_memory_save(struct fake_memory *m, const int numbers[FAKE_PAGES],
    const struct vmm_save *save, struct err *e)
{
    struct memory_map_blob table[FAKE_PAGES];
    struct memory_map_writer map;
    uint64_t bytes;
    size_t n = 0;
    if (write_blob(m, numbers, save, &bytes, e) < 0)
        return -1;
    memory_map_writer_init(&map, save->map_fd, PAGES * MEMORY_PAGE);
    for (size_t i = 0; i < FAKE_PAGES; i++) {
        uint32_t blob = m->pages[i].is_stored
                            ? find_blob(table, &n, &m->pages[i].blob, m->pages[i].blob_bytes)
                            : 0;
        if (memory_map_write(&map, MEMORY_PAGE, blob, blob ? m->pages[i].offset : 0, e) < 0)
            return -1;
    }
    if (memory_map_write(&map, (PAGES - FAKE_PAGES) * MEMORY_PAGE, 0, 0, e) < 0)
        return -1;
    return memory_map_write_end(&map, table, n, e);
}
