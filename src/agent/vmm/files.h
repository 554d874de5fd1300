/* SPDX-License-Identifier: Apache-2.0 */
/* The host's files that a VMM needs in its mount namespace. */
#ifndef TORPOR_AGENT_VMM_FILES_H
#define TORPOR_AGENT_VMM_FILES_H

#include <stdbool.h>

#include "base/arena.h"
#include "base/err.h"
#include "proto/shim.h"

struct vmm_file {
    const char *source; /* absolute path on the host; may be a symbolic link */
    const char *target; /* absolute path in the jail */
    bool exec;
};

/* Immutable once made, so any thread may read it. */
struct vmm_files {
    struct vmm_file items[SHIM_FILES_MAX];
    size_t n;
    const char *program; /* path of the VMM in the jail */
    const char *bios;    /* path of the firmware in the jail */
    struct arena arena;
};

/* Where to look, each list NULL-terminated. */
struct vmm_file_dirs {
    const char *const *libs;     /* the loader's order */
    const char *const *modules;  /* folders of QEMU's modules */
    const char *const *firmware; /* folders that may hold `bios_name` */
    const char *bios_name;
    const char *const *module_names; /* taken where they exist */
    const char *library;             /* the preloaded one, SHIM_LIBRARY in the jail; NULL: none */
};
/* Debian's and Fedora's places; the TCG module unless KVM runs the guests. */
struct vmm_file_dirs vmm_file_dirs_default(bool use_kvm);

/* Everything the loader would map for `program`, found as ld.so without a cache finds it, its
 * modules, and its firmware. ERR_NOT_FOUND names what is missing. Freed with vmm_files_free. */
struct vmm_files *vmm_files_new(
    const char *program, const struct vmm_file_dirs *dirs, struct err *e);
struct vmm_files *vmm_files_free(struct vmm_files *f);

/* An empty list, for those who know the files. Freed with vmm_files_free. */
struct vmm_files *vmm_files_new_empty(struct err *e);
/* Appends one file, with copies of its paths; fine, and without effect, when its target is there
 * already. ERR_TOO_LARGE beyond SHIM_FILES_MAX. */
int vmm_files_add(struct vmm_files *f, const struct vmm_file *file, struct err *e);
/* The entry with that path in the jail, NULL: none. */
const struct vmm_file *vmm_files_find(const struct vmm_files *f, const char *target);

#endif
