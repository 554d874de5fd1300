/* SPDX-License-Identifier: Apache-2.0 */
/* The launch plan's encoder; the shim has the decoder, and trusts nothing here. */
#include "agent/vmm/launch_plan.h"

#include <string.h>

#include "proto/limits.h"

static void add_string(struct buf *dst, const char *s)
{
    buf_append(dst, s, strlen(s) + 1);
}

static void add_file(struct buf *dst, const char *mode, const char *source, const char *target)
{
    add_string(dst, mode);
    add_string(dst, source);
    add_string(dst, target);
}

static size_t add_args(struct buf *dst, const char *const *argv)
{
    size_t n = 0;
    for (; argv[n]; n++)
        add_string(dst, argv[n]);
    return n;
}

static size_t add_files(struct buf *dst, const struct launch_plan *p)
{
    for (size_t i = 0; i < p->files->n; i++) {
        const struct vmm_file *f = &p->files->items[i];
        add_file(dst, f->exec ? SHIM_FILE_EXEC : SHIM_FILE_READ, f->source, f->target);
    }
    if (!p->kernel)
        return p->files->n;
    add_file(dst, SHIM_FILE_READ, p->kernel, JAIL_KERNEL);
    add_file(dst, SHIM_FILE_READ, p->initrd, JAIL_INITRD);
    return p->files->n + 2;
}

static uint32_t plan_flags(const struct launch_plan *p)
{
    uint32_t flags = p->use_kvm ? SHIM_PLAN_KVM : 0;
    if (p->restores)
        flags |= SHIM_PLAN_RESTORE;
    if (p->has_hints)
        flags |= SHIM_PLAN_HINTS;
    if (p->old_pagemap)
        flags |= SHIM_PLAN_OLD_PAGEMAP;
    return flags;
}

int launch_plan_encode(const struct launch_plan *p, struct buf *dst, struct err *e)
{
    AUTO_BUF struct buf body = BUF_INIT(SHIM_BODY_MAX);
    struct shim_plan_head head = {
        .magic = SHIM_PLAN_MAGIC,
        .version = SHIM_VERSION,
        .n_fds = SHIM_FD_COUNT,
        .flags = plan_flags(p),
        .memory = p->memory,
        .memory_bytes = p->memory_bytes,
        .n_layers = p->n_layers,
        .n_blobs = p->n_blobs,
        .uid = p->uid,
        .fsize_bytes = p->fsize_bytes,
        .tap = GUEST_TAP,
    };
    size_t n_args = add_args(&body, p->argv);
    size_t n_files = add_files(&body, p);
    if (body.failed || n_args > SHIM_ARGS_MAX || n_files > SHIM_FILES_MAX ||
        strlen(p->id) >= sizeof head.id)
        return err_set(e, ERR_TOO_LARGE, "the launch plan is too large");
    memcpy(head.id, p->id, strlen(p->id));
    head.n_args = (uint16_t)n_args;
    head.n_files = (uint16_t)n_files;
    head.body_bytes = (uint32_t)body.len;
    buf_append(dst, &head, sizeof head);
    buf_append_slice(dst, buf_slice(&body));
    return dst->failed ? err_set(e, ERR_TOO_LARGE, "the launch plan is too large") : 0;
}
