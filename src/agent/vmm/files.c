/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The closure of a VMM over its shared objects.
 *
 * Theory of operation: the list of files is also the work list; each executable entry is read once
 * and what it needs is appended, until nothing new comes. A file keeps the path under which the
 * loader will look for it: the jail has neither /etc/ld.so.cache nor symbolic links, so the first
 * folder of the default search path that has a name decides, here as there.
 */
#include "agent/vmm/files.h"

#include <string.h>
#include <unistd.h>

#include "agent/vmm/elf_needs.h"
#include "base/cleanup.h"

enum { ARENA_BYTES = 256 << 10 }; /* 60 files take 10 KiB; module lists of other builds more */

static int no_room(struct err *e)
{
    return err_set(e, ERR_TOO_LARGE, "the VMM needs more than %d files", SHIM_FILES_MAX);
}

const struct vmm_file *vmm_files_find(const struct vmm_files *f, const char *target)
{
    for (size_t i = 0; i < f->n; i++)
        if (strcmp(f->items[i].target, target) == 0)
            return &f->items[i];
    return NULL;
}

static const char *copy_path(struct vmm_files *f, const char *path)
{
    return arena_strndup(&f->arena, path, strlen(path));
}

int vmm_files_add(struct vmm_files *f, const struct vmm_file *file, struct err *e)
{
    struct vmm_file copy = {.exec = file->exec};
    if (vmm_files_find(f, file->target))
        return 0;
    copy.target = copy_path(f, file->target);
    copy.source =
        strcmp(file->source, file->target) == 0 ? copy.target : copy_path(f, file->source);
    if (f->n == SHIM_FILES_MAX || !copy.source || !copy.target)
        return no_room(e);
    f->items[f->n++] = copy;
    return 0;
}

static int add_file(struct vmm_files *f, const char *path, bool exec, struct err *e)
{
    return vmm_files_add(f, &(struct vmm_file){.source = path, .target = path, .exec = exec}, e);
}

/* The first readable <dir>/<name>; NULL when there is none. Only absolute folders count. */
static const char *find_in(struct vmm_files *f, const char *const *dirs, const char *name)
{
    for (; *dirs; dirs++) {
        const char *path = arena_printf(&f->arena, "%s/%s", *dirs, name);
        if (path && path[0] == '/' && access(path, R_OK) == 0)
            return path;
    }
    return NULL;
}

/* As find_in, in the folders of a colon-separated run path. $ORIGIN is not known here. */
static const char *find_in_runpath(struct vmm_files *f, const char *runpath, const char *name)
{
    while (runpath && *runpath) {
        size_t n = strcspn(runpath, ":");
        const char *dirs[] = {arena_strndup(&f->arena, runpath, n), NULL};
        const char *found = find_in(f, dirs, name);
        if (found)
            return found;
        runpath += n + (runpath[n] == ':');
    }
    return NULL;
}

static const char *base_name(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

static int add_needed(struct vmm_files *f, const struct elf_needs *needs, const char *name,
    const char *const *dirs, struct err *e)
{
    const char *path = strchr(name, '/') ? name : find_in_runpath(f, needs->runpath, name);
    if (!path)
        path = find_in(f, dirs, name);
    if (!path || path[0] != '/')
        return err_set(e, ERR_NOT_FOUND, "shared object %s is not installed", name);
    return add_file(f, path, /* exec= */ true, e);
}

/* Appends what the executable entry `i` needs. The loader itself comes by the program's PT_INTERP
 * and is loaded by then, whoever else names it. */
static int add_needs_of(
    struct vmm_files *f, size_t i, const char **loader, const char *const *dirs, struct err *e)
{
    struct elf_needs needs;
    if (elf_read_needs(f->items[i].source, &f->arena, &needs, e) < 0)
        return -1;
    if (needs.interp && !*loader) {
        *loader = needs.interp;
        if (add_file(f, needs.interp, /* exec= */ true, e) < 0)
            return -1;
    }
    for (size_t k = 0; k < needs.n_needed; k++) {
        if (*loader && strcmp(needs.needed[k], base_name(*loader)) == 0)
            continue;
        if (add_needed(f, &needs, needs.needed[k], dirs, e) < 0)
            return err_wrap(e, "%s", f->items[i].source);
    }
    return 0;
}

static int add_modules(struct vmm_files *f, const struct vmm_file_dirs *dirs, struct err *e)
{
    for (const char *const *name = dirs->module_names; *name; name++) {
        const char *path = find_in(f, dirs->modules, *name);
        if (path && add_file(f, path, /* exec= */ true, e) < 0)
            return -1;
    }
    return 0;
}

/* The library maps its own needs by the loader's rules too. */
static int add_library(struct vmm_files *f, const char *library, struct err *e)
{
    const struct vmm_file file = {.source = library, .target = SHIM_LIBRARY, .exec = true};
    return library ? vmm_files_add(f, &file, e) : 0;
}

static int add_firmware(struct vmm_files *f, const struct vmm_file_dirs *dirs, struct err *e)
{
    f->bios = find_in(f, dirs->firmware, dirs->bios_name);
    if (!f->bios)
        return err_set(e, ERR_NOT_FOUND, "firmware %s is not installed", dirs->bios_name);
    return add_file(f, f->bios, /* exec= */ false, e);
}

static int collect(
    struct vmm_files *f, const char *program, const struct vmm_file_dirs *dirs, struct err *e)
{
    const char *loader = NULL;
    if (add_file(f, program, /* exec= */ true, e) < 0 || add_modules(f, dirs, e) < 0 ||
        add_library(f, dirs->library, e) < 0)
        return -1;
    for (size_t i = 0; i < f->n; i++)
        if (add_needs_of(f, i, &loader, dirs->libs, e) < 0)
            return -1;
    f->program = f->items[0].target;
    return add_firmware(f, dirs, e);
}

struct vmm_files *vmm_files_new_empty(struct err *e)
{
    struct vmm_files *f = calloc(1, sizeof *f);
    if (!f) {
        err_sys(e, ENOMEM, "list the files of a VMM");
        return NULL;
    }
    arena_init(&f->arena, ARENA_BYTES);
    return f;
}

struct vmm_files *vmm_files_new(
    const char *program, const struct vmm_file_dirs *dirs, struct err *e)
{
    struct vmm_files *f = vmm_files_new_empty(e);
    if (f && collect(f, program, dirs, e) < 0)
        return vmm_files_free(f);
    return f;
}

struct vmm_files *vmm_files_free(struct vmm_files *f)
{
    if (f)
        arena_done(&f->arena);
    free(f);
    return NULL;
}

struct vmm_file_dirs vmm_file_dirs_default(bool use_kvm)
{
    static const char *const libs[] = {"/lib/x86_64-linux-gnu", "/usr/lib/x86_64-linux-gnu",
        "/lib64", "/usr/lib64", "/lib", "/usr/lib", NULL};
    static const char *const modules[] = {
        "/usr/lib/x86_64-linux-gnu/qemu", "/usr/lib64/qemu", "/usr/lib/qemu", NULL};
    static const char *const firmware[] = {
        "/usr/share/qemu", "/usr/share/seabios", "/usr/share/qemu-firmware", NULL};
    static const char *const tcg[] = {"accel-tcg-x86_64.so", NULL};
    static const char *const none[] = {NULL};
    return (struct vmm_file_dirs){.libs = libs,
        .modules = modules,
        .firmware = firmware,
        .bios_name = "qboot.rom",
        .module_names = use_kvm ? none : tcg};
}
