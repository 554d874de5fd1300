/* SPDX-License-Identifier: Apache-2.0 */
#include "base/alloc.h"

#include <malloc.h>

enum {
    ARENAS = 2,               /* threads of ours wait for others, not for malloc */
    LARGE_BYTES = 128 * 1024, /* from here on a mapping of its own, which free unmaps */
    KEPT_BYTES = 256 * 1024,  /* free memory at the top of an arena */
};

void alloc_init(void)
{
#ifdef __GLIBC__
    (void)mallopt(M_ARENA_MAX, ARENAS);
    (void)mallopt(M_MMAP_THRESHOLD, LARGE_BYTES);
    (void)mallopt(M_TRIM_THRESHOLD, KEPT_BYTES);
#endif
}
