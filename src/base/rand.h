/* SPDX-License-Identifier: Apache-2.0 */
/* Randomness of the kernel. */
#ifndef TORPOR_BASE_RAND_H
#define TORPOR_BASE_RAND_H

#include <stddef.h>

/* Fills `dst` from getrandom(2); blocks until the kernel's pool is ready. Cannot fail. */
void rand_bytes(void *dst, size_t n);

/* Writes `n_chars` random lower-case base32 characters (RFC 4648 alphabet, 5 bits each) and a NUL.
 */
void rand_base32(char *dst, size_t n_chars);

#endif
