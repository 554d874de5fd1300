/* SPDX-License-Identifier: Apache-2.0 */
/* Encoding the launch plan that torpor-shim executes. */
#ifndef TORPOR_AGENT_VMM_LAUNCH_PLAN_H
#define TORPOR_AGENT_VMM_LAUNCH_PLAN_H

#include <sys/types.h>

#include "agent/vmm/files.h"
#include "base/buf.h"

struct launch_plan {
    const char *id;
    uid_t uid;
    uint64_t fsize_bytes;
    bool use_kvm;
    const char *const *argv; /* NULL-terminated */
    const struct vmm_files *files;
    const char *kernel; /* on the host; JAIL_KERNEL and JAIL_INITRD in the jail. NULL: neither */
    const char *initrd;
    enum shim_memory memory;
    uint64_t memory_bytes; /* 0 with SHIM_MEMORY_STOCK */
    uint16_t n_layers;
    bool restores; /* a memory map comes along, and `n_blobs` blobs */
    uint16_t n_blobs;
    bool has_hints;
    bool old_pagemap;
};

/* Where the jail has what the guest boots. */
#define JAIL_KERNEL "/boot/kernel"
#define JAIL_INITRD "/boot/initrd"

/* Appends head and body to `dst`, as proto/shim.h says. ERR_TOO_LARGE beyond its bounds. */
int launch_plan_encode(const struct launch_plan *p, struct buf *dst, struct err *e);

#endif
