/* SPDX-License-Identifier: Apache-2.0 */
/* What the formats of this folder share. */
#ifndef TORPOR_SNAP_SNAP_INT_H
#define TORPOR_SNAP_SNAP_INT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

/* The sum of two runs of bytes from the sums of each; the second is `n_second` bytes long. A file's
 * head is written last but summed first, and nobody has to read the file back. */
uint32_t crc32c_join(uint32_t first, uint32_t second, uint64_t n_second);

/* The two ways to compute it, for tests. The instruction's may only be called where the CPU has
 * it. */
bool crc32c_has_instruction(void);
uint32_t crc32c_by_instruction(uint32_t crc, const void *p, size_t n);
uint32_t crc32c_by_table(uint32_t crc, const void *p, size_t n);

/* Writes all of it at an offset, or fails. */
int snap_write_at(int fd, uint64_t offset, const void *p, size_t n, struct err *e);

#endif
