/* SPDX-License-Identifier: Apache-2.0 */
/* The memory of a fake VM: a few pages, each with a number, in real blobs and maps. */
#ifndef TORPOR_TESTS_LIFE_FAKES_MEMORY_H
#define TORPOR_TESTS_LIFE_FAKES_MEMORY_H

#include <stdbool.h>
#include <stddef.h>

#include "base/uuid.h"

enum { FAKE_PAGES = 16 };

/* Where each page was when the memory was last restored or saved. */
struct fake_memory {
    struct {
        int number;
        bool is_stored; /* in the blob; else it is zeros */
        struct uuid blob;
        uint64_t blob_bytes;
        uint64_t offset;
    } pages[FAKE_PAGES];
};

struct err;
struct vmm_save;
struct vmm_source;

int fake_read_at(int fd, void *dst, size_t n, uint64_t offset, struct err *e);
/* Reads every page through the map. */
int fake_memory_restore(struct fake_memory *m, const struct vmm_source *source, struct err *e);
/* Stores the pages whose number is another one now, and refers to where the others are. `m`
 * follows.
 */
int fake_memory_save(struct fake_memory *m, const int numbers[FAKE_PAGES],
    const struct vmm_save *save, struct err *e);

#endif
