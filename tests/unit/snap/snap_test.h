/* SPDX-License-Identifier: Apache-2.0 */
/* What the tests of the formats share: files in memory, and their bytes. */
#ifndef TORPOR_TESTS_SNAP_TEST_H
#define TORPOR_TESTS_SNAP_TEST_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/err.h"
#include "base/uuid.h"
#include "snap/checksum.h"

static inline int memory_file(void)
{
    int fd = memfd_create("test", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    assert_true(fd >= 0);
    return fd;
}

/* The whole file, malloc'ed to its size so that a sanitizer sees a read beyond. */
static inline void *file_bytes(int fd, size_t *ret_n)
{
    off_t n = lseek(fd, 0, SEEK_END);
    char *p = malloc(n > 0 ? (size_t)n : 1);
    assert_non_null(p);
    assert_int_equal(pread(fd, p, (size_t)n, 0), n);
    *ret_n = (size_t)n;
    return p;
}

/* Sums the file again after a test changed it: `crc_at` is where the head keeps its sum. */
static inline void sum_again(void *bytes, size_t n, size_t crc_at)
{
    uint32_t crc = 0;
    memcpy((char *)bytes + crc_at, &crc, sizeof crc);
    crc = crc32c(0, bytes, n);
    memcpy((char *)bytes + crc_at, &crc, sizeof crc);
}

#endif
