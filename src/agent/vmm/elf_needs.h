/* SPDX-License-Identifier: Apache-2.0 */
/* What an ELF program or shared object asks the loader for. */
#ifndef TORPOR_AGENT_VMM_ELF_NEEDS_H
#define TORPOR_AGENT_VMM_ELF_NEEDS_H

#include "base/arena.h"
#include "base/err.h"

enum { ELF_NEEDED_MAX = 128 }; /* QEMU names 34 */

struct elf_needs {
    const char *interp;  /* the loader's path; NULL for shared objects */
    const char *runpath; /* DT_RUNPATH or DT_RPATH, colon-separated; NULL when absent */
    const char *needed[ELF_NEEDED_MAX];
    size_t n_needed;
};

/* Reads the dynamic section of the 64-bit little-endian x86 file at `path`. The strings live in
 * `a`. A file that is not such ELF, or that points outside itself, is ERR_UNSUPPORTED. A static
 * program has no needs. */
int elf_read_needs(const char *path, struct arena *a, struct elf_needs *ret, struct err *e);

#endif
