/* SPDX-License-Identifier: Apache-2.0 */
/* Randomness of the kernel. */
#include "base/rand.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/random.h>

void rand_bytes(void *dst, size_t n)
{
    char *p = dst;
    while (n > 0) {
        ssize_t got = getrandom(p, n, 0);
        if (got < 0) {
            if (errno == EINTR)
                continue;
            abort(); /* no kernel we support lacks it; going on without randomness is worse */
        }
        p += got;
        n -= (size_t)got;
    }
}

void rand_base32(char *dst, size_t n_chars)
{
    static const char alphabet[] = "abcdefghijklmnopqrstuvwxyz234567";
    for (size_t i = 0; i < n_chars; i++) {
        unsigned char c;
        rand_bytes(&c, 1);
        dst[i] = alphabet[c & 31];
    }
    dst[n_chars] = '\0';
}
