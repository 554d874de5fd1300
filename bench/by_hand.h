/* SPDX-License-Identifier: Apache-2.0 */
/* The same machine started by hand: QEMU with the driver's command line, but without agent, shim
 * and confinement, on a TAP in a namespace of its own. */
#ifndef TORPOR_BENCH_BY_HAND_H
#define TORPOR_BENCH_BY_HAND_H

#include "e2e/stack.h"

/* Makes the namespace with its TAP; by_hand_done removes it. */
void by_hand_init(void);
void by_hand_done(void);
/* Boots one, returns the microseconds from before QEMU's start until envd answered, and ends it. */
int64_t by_hand_boot(const struct stack *s, uint32_t vcpus, uint32_t memory_mb);

#endif
