/* SPDX-License-Identifier: Apache-2.0 */
/* How a long-running program's memory goes back to the host. */
#ifndef TORPOR_BASE_ALLOC_H
#define TORPOR_BASE_ALLOC_H

/* Once, before threads start. By itself glibc's allocator makes an arena for each thread, and after
 * the first large buffer has been freed it keeps those that follow, too: a pool of threads that
 * sometimes handle a large body ends with the largest body in each of its arenas. */
void alloc_init(void);

#endif
