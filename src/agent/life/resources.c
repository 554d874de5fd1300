/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What one sandbox has of its host, as do/undo steps in one table.
 *
 * Theory of operation: the first FILE_STEPS are what outlives a VM (removed only because of a
 * DELETE, or of a create that nobody was told of); the rest goes whenever the VM goes. Every undo
 * looks at the sandbox's own fields, so it is idempotent and also right for a sandbox read from
 * disk. The journal is written while the guest boots: durable before anybody is told of the
 * sandbox, and free.
 */
#include "agent/life/life_int.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent/disk/disk.h"
#include "agent/guest/guest.h"
#include "agent/life/crash.h"
#include "agent/life/steps.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/io.h"
#include "proto/limits.h"

enum {
    SLOT_WAIT_MS = 10000, /* a slot may still be in preparation */
    STOP_MS = 10000,      /* SIGKILL needs milliseconds; a VM in deep I/O longer */
    FILE_STEPS = 2,
};
static const char overlay_name[] = "disk.qcow2";

static int folder_make(void *ctx, struct err *e)
{
    struct sandbox *s = ctx;
    int at = s->life->host.sandboxes_fd;
    if (mkdirat(at, s->entry.id.text, 0700) < 0)
        return err_sys(e, errno, "mkdir");
    s->dir_fd = openat(at, s->entry.id.text, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return s->dir_fd < 0 ? err_sys(e, errno, "open") : 0;
}

static int folder_remove(void *ctx, struct err *e)
{
    struct sandbox *s = ctx;
    if (s->dir_fd >= 0)
        (void)close(TAKE_FD(s->dir_fd));
    return io_remove_tree(s->life->host.sandboxes_fd, s->entry.id.text, e);
}

/* The VMM's uid is only known with its slot; the slot step hands the overlay over. */
static int overlay_make(void *ctx, struct err *e)
{
    struct sandbox *s = ctx;
    return disk_overlay_create(s->dir_fd, overlay_name, s->template.size_bytes, geteuid(), e);
}

static int reserve(void *ctx, struct err *e)
{
    struct sandbox *s = ctx;
    int64_t spare;
    int64_t available;
    if (host_disk_spare(&s->life->host, &spare, &available, e) < 0)
        return -1;
    if (spare <= 0)
        return err_set(e, ERR_NO_CAPACITY, "this host's disk is full but for its reserve");
    if (admission_reserve(&s->life->admission, s->entry.vcpus, s->entry.memory_mb, e) < 0)
        return -1;
    s->reserved = true;
    return 0;
}

static int unreserve(void *ctx, struct err *e)
{
    struct sandbox *s = ctx;
    if (s->reserved)
        admission_release(&s->life->admission, s->entry.vcpus, s->entry.memory_mb);
    s->reserved = false;
    return 0;
}

static int slot_take(void *ctx, struct err *e)
{
    struct sandbox *s = ctx;
    if (net_slot_acquire(s->life->net, deadline_in_ms(SLOT_WAIT_MS), &s->slot, e) < 0)
        return -1;
    s->has_slot = true;
    if (fchownat(s->dir_fd, overlay_name, s->slot.uid, (gid_t)s->slot.uid, AT_SYMLINK_NOFOLLOW) < 0)
        return err_sys(e, errno, "hand over the disk");
    {
        MUTEX_GUARD(&s->life->lock);
        (void)snprintf(s->host_ip, sizeof s->host_ip, "%s", s->slot.host_ip);
    }
    return sandbox_note(s, e);
}

static int slot_give(void *ctx, struct err *e)
{
    struct sandbox *s = ctx;
    if (!s->has_slot)
        return 0;
    if (net_slot_release(s->life->net, s->slot.index, e) < 0)
        return -1;
    s->has_slot = false;
    return sandbox_unnote(s, e);
}

static int boot_place_take(void *ctx, struct err *e)
{
    struct sandbox *s = ctx;
    if (admission_boot_begin(&s->life->admission, deadline_in_ms(LIMIT_BOOT_QUEUE_MS), e) < 0)
        return -1;
    s->booting = true;
    return 0;
}

static int boot_place_give(void *ctx, struct err *e)
{
    struct sandbox *s = ctx;
    if (s->booting)
        admission_boot_end(&s->life->admission);
    s->booting = false;
    return 0;
}

static int vmm_begin(void *ctx, struct err *e)
{
    struct sandbox *s = ctx;
    char folder[HOST_PATH_MAX + 64];
    char overlay[HOST_PATH_MAX + 96];
    (void)snprintf(folder, sizeof folder, "%s/sandboxes/%s", s->life->host.dir, s->entry.id.text);
    (void)snprintf(overlay, sizeof overlay, "%s/%s", folder, overlay_name);
    s->vmm = vmm_start(&s->life->vmm_host,
        &(struct vmm_boot){.id = s->entry.id,
            .vcpus = (uint32_t)s->entry.vcpus,
            .memory_mb = (uint32_t)s->entry.memory_mb,
            .kernel = s->life->kernel.vmlinux,
            .initrd = s->life->kernel.initrd,
            .base_image = s->template.image,
            .overlay = overlay,
            .netns = s->slot.netns,
            .uid = s->slot.uid,
            .console_dir = folder},
        e);
    return s->vmm ? 0 : -1;
}

static int vmm_end(void *ctx, struct err *e)
{
    struct sandbox *s = ctx;
    if (!s->vmm)
        return 0;
    monitor_forget(s);
    if (vmm_stop(s->vmm, deadline_in_ms(STOP_MS), e) < 0)
        return -1;
    s->vmm = vmm_free(s->vmm);
    return 0;
}

static int birth_write(void *ctx, struct err *e)
{
    struct sandbox *s = ctx;
    return sandbox_journal(s, e);
}

static int guest_begin(void *ctx, struct err *e)
{
    struct sandbox *s = ctx;
    int64_t deadline = deadline_in_ms(LIMIT_BOOT_MS);
    char token[HOST_TOKEN_CHARS + 1];
    const struct guest_identity identity = {.sandbox_id = s->entry.id.text,
        .template = s->entry.template,
        .default_user = s->template.default_user,
        .env = s->create->env,
        .n_env = s->create->n_env};
    static_assert((int)HOST_TOKEN_CHARS == (int)GUEST_TOKEN_CHARS, "one token");
    if (host_token(&s->life->host, &s->entry.id, /* token_epoch= */ 0, token, e) < 0)
        return -1;
    s->guest = guest_new(s->slot.host_ip, token);
    if (!s->guest)
        return err_set(e, ERR_NOMEM, "out of memory");
    if (guest_wait_ready(s->guest, vmm_event_fd(s->vmm), deadline, e) < 0) {
        if (e->kind == ERR_UNAVAILABLE)
            (void)err_set(e, ERR_INTERNAL, "%s before its guest was ready", vmm_exit_text(s->vmm));
        return -1;
    }
    if (guest_init(s->guest, &identity, deadline, e) < 0)
        return -1;
    return boot_place_give(s, e);
}

static int guest_end(void *ctx, struct err *e)
{
    struct sandbox *s = ctx;
    if (s->guest)
        guest_close(s->guest);
    return 0;
}

static const struct step steps[] = {
    {"sandbox folder", folder_make, folder_remove},
    {"disk", overlay_make, /* in the folder: */ NULL},
    {"capacity", reserve, unreserve},
    {"network slot", slot_take, slot_give},
    {"boot place", boot_place_take, boot_place_give},
    {"virtual machine", vmm_begin, vmm_end},
    {"journal", birth_write, /* in the folder: */ NULL},
    {"guest", guest_begin, guest_end},
};

static void after_step(void *ctx, bool undone, const char *name)
{
    crash_point(undone ? "undo" : "create", name, ctx);
}

int resources_make(struct sandbox *s, struct err *e)
{
    return steps_do(steps, ARRAY_LEN(steps), s, after_step, e);
}

int resources_release(struct sandbox *s, struct err *e)
{
    return steps_undo(steps + FILE_STEPS, ARRAY_LEN(steps) - FILE_STEPS, s, after_step, e);
}

int resources_remove_files(struct sandbox *s, struct err *e)
{
    return steps_undo(steps, FILE_STEPS, s, after_step, e);
}
