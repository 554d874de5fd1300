/* SPDX-License-Identifier: Apache-2.0 */
/* QEMU's command line: a pure function from what a boot wants to arguments. */
#ifndef TORPOR_AGENT_VMM_QEMU_ARGS_H
#define TORPOR_AGENT_VMM_QEMU_ARGS_H

#include <stdbool.h>

#include "base/arena.h"
#include "base/buf.h"
#include "base/err.h"
#include "proto/shim.h"

/* For a person or a benchmark that starts the same machine without agent and shim: paths and a TAP
 * of the caller's namespace instead of descriptors, the console on standard output. */
struct qemu_by_hand {
    const char *overlay;
    const char *base;
    const char *tap;
    const char *memory_file;   /* of the guest's size; NULL: anonymous memory */
    bool memory_private;       /* what is written stays out of the file */
    const char *const *layers; /* qemu_facts' n_layers of them */
    const char *monitor;       /* path at which it will listen, NULL: nowhere */
};

struct qemu_facts {
    const char *id;      /* sandbox id, for people who read ps */
    const char *program; /* absolute paths, as the VMM will see them */
    const char *bios;
    const char *kernel; /* vmlinux with a PVH note */
    const char *initrd;
    bool use_kvm;
    uint32_t tsc_khz; /* under TCG only */
    uint32_t vcpus;
    uint32_t memory_mb;
    bool use_library;                   /* memory is a file that torpor-memory.so stands in for */
    bool is_copied;                     /* it is not, and yet it can be saved and restored */
    bool restores;                      /* waits for a device state instead of booting */
    unsigned n_layers;                  /* frozen overlays between base and overlay, bottom first */
    const struct qemu_by_hand *by_hand; /* NULL: the descriptors of proto/shim.h */
};

struct qemu_args {
    const char *argv[SHIM_ARGS_MAX + 1]; /* NULL behind the last */
    size_t n;
    bool failed;
    struct arena arena;
};

/* Fills `ret`, which qemu_args_done frees. ERR_INVALID for a path that an argument cannot hold. */
int qemu_args_build(const struct qemu_facts *f, struct qemu_args *ret, struct err *e);
void qemu_args_done(struct qemu_args *a);
/* Appends the command line, each argument quoted for a POSIX shell where it must be. */
void qemu_args_print(const struct qemu_args *a, struct buf *dst);

#endif
