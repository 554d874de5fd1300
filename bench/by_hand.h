/* SPDX-License-Identifier: Apache-2.0 */
/* The same machine started by hand: QEMU with the driver's command line, but without agent, shim
 * and confinement, on a TAP in a namespace of its own. */
#ifndef TORPOR_BENCH_BY_HAND_H
#define TORPOR_BENCH_BY_HAND_H

#include "agent/vmm/qemu_args.h"
#include "e2e/stack.h"

struct vmm_files;

/* What the driver makes its command line of, as the stack's folder has it. */
struct by_hand_parts {
    struct qemu_facts facts; /* without size, name and disk */
    const char *image;       /* the base image "minimal" */
    uint64_t disk_bytes;
    const struct vmm_files *files; /* that QEMU opens */
};
/* Looks once; the same answer afterwards. One thread. */
const struct by_hand_parts *by_hand_parts(const struct stack *s);

/* Makes the namespace with its TAP; by_hand_done removes it. */
void by_hand_init(void);
void by_hand_done(void);
/* Boots one, returns the microseconds from before QEMU's start until envd answered, and ends it. */
int64_t by_hand_boot(const struct stack *s, uint32_t vcpus, uint32_t memory_mb);

#endif
