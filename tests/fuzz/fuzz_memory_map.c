/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The binary files of generations: the first byte selects memory map, working set or sums; each is
 * tried as it is and with its sum put right, so that a mutation gets past the sum. What passes must
 * keep the promises that page faults are served on.
 */
#include <assert.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "snap/checksum.h"
#include "snap/memory_map.h"
#include "snap/working_set.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void try_map(const void *p, size_t n)
{
    struct memory_map m;
    struct err e = {0};
    uint64_t at = 0;
    if (memory_map_parse(p, n, &m, &e) < 0) {
        assert(e.kind == ERR_INVALID || e.kind == ERR_UNSUPPORTED);
        return;
    }
    assert(m.memory_bytes > 0 && m.n_blobs <= MEMORY_MAP_BLOBS_MAX);
    for (size_t i = 0; i < m.n_entries; i++) {
        const struct memory_map_entry *en = &m.entries[i];
        assert(en->offset == at && en->length > 0 && en->length % MEMORY_PAGE == 0);
        assert(memory_map_find(&m, at) == en && memory_map_find(&m, at + en->length - 1) == en);
        assert(en->blob <= m.n_blobs);
        if (en->blob > 0)
            assert(en->blob_offset + en->length > en->blob_offset &&
                   en->blob_offset + en->length <= m.blobs[en->blob - 1].bytes);
        at += en->length;
    }
    assert(at == m.memory_bytes);
}

static void try_set(const void *p, size_t n)
{
    struct working_set s;
    struct err e = {0};
    uint64_t at = 0;
    if (working_set_parse(p, n, &s, &e) < 0) {
        assert(e.kind == ERR_INVALID || e.kind == ERR_UNSUPPORTED);
        return;
    }
    for (size_t i = 0; i < s.n_runs; i++) {
        assert(s.runs[i].offset >= at && s.runs[i].length > 0);
        at = s.runs[i].offset + s.runs[i].length;
        assert(at > s.runs[i].offset && at <= s.memory_bytes);
    }
}

static void try_sums(const void *p, size_t n)
{
    struct checksums c;
    struct err e = {0};
    if (checksums_parse(p, n, &c, &e) < 0) {
        assert(e.kind == ERR_INVALID || e.kind == ERR_UNSUPPORTED);
        return;
    }
    assert(c.n_sums <= n / 4);
    if (c.n_sums > 0)
        (void)checksums_verify(&c, c.n_sums - 1, "x", 1, &e);
    assert(checksums_verify(&c, c.n_sums, "x", 1, &e) < 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct {
        void (*run)(const void *, size_t);
        size_t crc_at;
        size_t head_bytes;
    } formats[] = {
        {try_map, offsetof(struct memory_map_head, crc), sizeof(struct memory_map_head)},
        {try_set, offsetof(struct working_set_head, crc), sizeof(struct working_set_head)},
        {try_sums, offsetof(struct checksum_head, crc), sizeof(struct checksum_head)},
    };
    uint32_t crc = 0;
    unsigned format;
    uint8_t *copy; /* aligned, and exactly as long */
    if (size < 1)
        return 0;
    format = data[0] % 3;
    size--;
    copy = malloc(size > 0 ? size : 1);
    if (!copy)
        return 0;
    memcpy(copy, data + 1, size);
    formats[format].run(copy, size);
    if (size >= formats[format].head_bytes) {
        memcpy(copy + formats[format].crc_at, &crc, sizeof crc);
        crc = crc32c(0, copy, size);
        memcpy(copy + formats[format].crc_at, &crc, sizeof crc);
        formats[format].run(copy, size);
    }
    free(copy);
    return 0;
}
