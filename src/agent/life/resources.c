/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What one sandbox has of its host, as do/undo steps in one table.
 *
 * Theory of operation: the first FILE_STEPS are what outlives a VM (removed only because of a
 * DELETE, or of a create that nobody was told of); the rest goes whenever the VM goes. Every undo
 * looks at the sandbox's own fields, so it is idempotent and also right for a sandbox read from
 * disk. The journal is written while the guest boots or wakes: durable before anybody is told of
 * the sandbox, and free.
 *
 * A create, a spawn from a template and a resume are one: new state of a sandbox from a generation,
 * or, without one (`source` is NULL, or `disk_only`), from a boot.
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
#include "agent/life/phases.h"
#include "agent/life/steps.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/io.h"
#include "proto/limits.h"

enum {
    SLOT_WAIT_MS = 10000, /* a slot may still be in preparation */
    STOP_MS = 10000,      /* SIGKILL needs milliseconds; a VM in deep I/O longer */
    RESTORE_MS = 60000,   /* 0.1 s; a host that swaps, or twenty at once, take their time */
    FILE_STEPS = 2,
    LAYERS_MAX = GENERATION_LAYERS_MAX + OVERLAY_LAYERS_MAX,
};

/* False: it is booted. */
static bool restores_memory(const struct sandbox *s)
{
    return s->source && s->source->manifest.has_memory && !s->entry.disk_only;
}

/* What an earlier create of the same id could not take away. It was in no table, so nobody has it;
 * with a journal it would be a sandbox that could not be read. */
static int remove_leftover(const struct sandbox *s, struct err *e)
{
    char journal[sizeof s->entry.id.text + sizeof "/" JOURNAL_STATE_FILE];
    (void)snprintf(journal, sizeof journal, "%s/" JOURNAL_STATE_FILE, s->entry.id.text);
    if (faccessat(s->life->host.sandboxes_fd, journal, F_OK, AT_SYMLINK_NOFOLLOW) == 0)
        return err_set(e, ERR_EXISTS, "its folder is there");
    return io_remove_tree(s->life->host.sandboxes_fd, s->entry.id.text, e);
}

static int folder_make(void *ctx, struct err *e)
{
    struct sandbox *s = ctx;
    int at = s->life->host.sandboxes_fd;
    int rc = mkdirat(at, s->entry.id.text, 0700);
    if (rc < 0 && errno == EEXIST) {
        if (remove_leftover(s, e) < 0)
            return -1;
        rc = mkdirat(at, s->entry.id.text, 0700);
    }
    if (rc < 0)
        return err_sys(e, errno, "mkdir");
    s->dir_fd = openat(at, s->entry.id.text, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return s->dir_fd < 0 ? err_sys(e, errno, "open") : 0;
}

/* Without its journal a folder is what an unfinished create left. From here on the sandbox is gone,
 * and nothing that it needed may go before this is durable. */
static int journal_remove(struct sandbox *s, struct err *e)
{
    if (sandbox_open_dir(s, e) < 0)
        return e->errnum == ENOENT ? 0 : -1;
    if (unlinkat(s->dir_fd, JOURNAL_STATE_FILE, 0) < 0 && errno != ENOENT)
        return err_sys(e, errno, "remove the journal");
    return fsync(s->dir_fd) < 0 ? err_sys(e, errno, "fsync of the sandbox's folder") : 0;
}

static int folder_remove(void *ctx, struct err *e)
{
    struct sandbox *s = ctx;
    if (!s->hidden && journal_remove(s, e) < 0)
        return -1;
    if (s->dir_fd >= 0)
        (void)close(TAKE_FD(s->dir_fd));
    if (io_remove_tree(s->life->host.sandboxes_fd, s->entry.id.text, e) < 0)
        return -1;
    source_unpin(s);
    return 0;
}

/* The VMM's uid is only known with its slot; the slot step hands the overlay over. */
static int overlay_make(void *ctx, struct err *e)
{
    struct sandbox *s = ctx;
    return disk_overlay_create(s->dir_fd, OVERLAY_NAME, s->template.size_bytes, geteuid(), e);
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
    if (fchownat(s->dir_fd, OVERLAY_NAME, s->slot.uid, (gid_t)s->slot.uid, AT_SYMLINK_NOFOLLOW) < 0)
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
    if (s->has_slot && net_slot_release(s->life->net, s->slot.index, e) < 0)
        return -1;
    s->has_slot = false;
    return sandbox_unnote(s, e); /* also when that failed before: it names the slot */
}

static int boot_place_take(void *ctx, struct err *e)
{
    struct sandbox *s = ctx;
    if (restores_memory(s))
        return 0;
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

/* Frozen layers of the disk, bottom first: the source's, then the folder's. */
struct layers {
    int fds[LAYERS_MAX];
    size_t n;
    size_t n_source; /* not ours to close */
};

static void layers_close(struct layers *l)
{
    for (size_t i = l->n_source; i < l->n; i++)
        (void)close(l->fds[i]);
}

static int layers_open(const struct sandbox *s, struct layers *l, struct err *e)
{
    unsigned own = overlay_layers_count(s);
    for (size_t i = 0; s->source && i < s->source->n_layers; i++)
        l->fds[l->n++] = s->source->layer_fds[i];
    l->n_source = l->n;
    for (unsigned i = 1; i <= own; i++) {
        char name[OVERLAY_NAME_MAX];
        overlay_layer_name(i, name);
        l->fds[l->n] = openat(s->dir_fd, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
        if (l->fds[l->n] < 0)
            return err_sys(e, errno, "open disk layer %s", name);
        l->n++;
    }
    return 0;
}

static int start_vmm(
    struct sandbox *s, const struct layers *layers, const struct vmm_source *source, struct err *e)
{
    char folder[HOST_PATH_MAX + 64];
    char overlay[HOST_PATH_MAX + 96];
    (void)snprintf(folder, sizeof folder, "%s/sandboxes/%s", s->life->host.dir, s->entry.id.text);
    (void)snprintf(overlay, sizeof overlay, "%s/%s", folder, OVERLAY_NAME);
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
            .console_dir = folder,
            .layer_fds = layers->fds,
            .n_layers = layers->n,
            .source = source},
        e);
    return s->vmm ? sandbox_set_vmm(s, s->vmm, e) : -1;
}

static int begin_restored(struct sandbox *s, const struct layers *layers, struct err *e)
{
    struct vmm_facts facts;
    struct vmm_source source = {.facts = &facts,
        .map_fd = s->source->map_fd,
        .blob_fds = s->source->blob_fds,
        .n_blobs = s->source->n_blobs,
        .hints_fd = s->source->hints_fd};
    source_to_facts(&s->source->manifest.machine, &facts);
    if (source_choose_memory(s->life, s->source, &source.memory, e) < 0)
        return -1;
    return start_vmm(s, layers, &source, e);
}

/* A pause must name the VMM that can restore it, also after this agent was replaced. */
static void remember_vmm(struct sandbox *s, const struct vmm_facts *f)
{
    MUTEX_GUARD(&s->life->lock);
    memcpy(s->entry.vmm_digest, f->digest, sizeof s->entry.vmm_digest);
    memcpy(s->entry.vmm_version, f->version, sizeof s->entry.vmm_version);
    memcpy(s->entry.vmm_accel, f->accel, sizeof s->entry.vmm_accel);
    s->entry.vmm_tsc_khz = (int32_t)f->tsc_khz;
}

static int vmm_begin(void *ctx, struct err *e)
{
    struct sandbox *s = ctx;
    CLEANUP(layers_close) struct layers layers = {0};
    if (layers_open(s, &layers, e) < 0)
        return -1;
    trial_await(s->life->trial);
    if (!restores_memory(s))
        remember_vmm(s, &s->life->vmm_host.facts);
    return restores_memory(s) ? begin_restored(s, &layers, e)
                              : start_vmm(s, &layers, /* source= */ NULL, e);
}

static int vmm_end(void *ctx, struct err *e)
{
    struct sandbox *s = ctx;
    if (!s->vmm)
        return 0;
    monitor_forget(s);
    (void)sandbox_set_vmm(s, NULL, e);
    if (vmm_stop(s->vmm, deadline_in_ms(STOP_MS), e) < 0)
        return -1;
    s->vmm = vmm_free(s->vmm);
    return 0;
}

/* What the VM referred to. The generation itself stays pinned: the sandbox sleeps in it. */
static int source_end(void *ctx, struct err *e)
{
    struct sandbox *s = ctx;
    (void)e;
    source_close(s);
    source_unpin_live(s);
    return 0;
}

static int source_begin(void *ctx, struct err *e)
{
    struct sandbox *s = ctx;
    struct vmm_facts facts;
    if (!restores_memory(s))
        return 0;
    source_to_facts(&s->source->manifest.machine, &facts);
    return vmm_can_restore(&s->life->vmm_host, &facts, e);
}

/* An overlay that is torn cannot be started from, whatever the guest has written out. */
static int overlay_sync(const struct sandbox *s, struct err *e)
{
    AUTO_CLOSE int fd = openat(s->dir_fd, OVERLAY_NAME, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0 || fsync(fd) < 0)
        return err_sys(e, errno, "fsync of the disk");
    return 0;
}

/* The journal syncs what is in the folder; the folder's own name is durable only after that. */
static int birth_write(void *ctx, struct err *e)
{
    struct sandbox *s = ctx;
    if (s->hidden)
        return 0;
    if (overlay_sync(s, e) < 0 || sandbox_journal(s, e) < 0)
        return -1;
    if (s->create && fsync(s->life->host.sandboxes_fd) < 0)
        return err_sys(e, errno, "fsync of the folder of sandboxes");
    return 0;
}

static void phase_end(struct sandbox *s, const char *name)
{
    if (s->phases)
        phases_end(s->phases, name);
}

/* Nobody is inside the former one: its calls were ended with the VM before. */
static int replace_guest(struct sandbox *s, struct err *e)
{
    char token[HOST_TOKEN_CHARS + 1];
    struct guest *g;
    struct guest *former;
    static_assert((int)HOST_TOKEN_CHARS == (int)GUEST_TOKEN_CHARS, "one token");
    if (host_token(&s->life->host, &s->entry.id, /* token_epoch= */ 0, token, e) < 0)
        return -1;
    g = guest_new(s->slot.host_ip, token);
    if (!g)
        return err_set(e, ERR_NOMEM, "out of memory");
    {
        MUTEX_GUARD(&s->life->lock);
        former = s->guest;
        s->guest = g;
    }
    (void)guest_free(former);
    return 0;
}

static int guest_failed(struct sandbox *s, struct err *e)
{
    if (e->kind == ERR_UNAVAILABLE)
        (void)err_set(e, ERR_INTERNAL, "%s before its guest was ready", vmm_exit_text(s->vmm));
    return -1;
}

static int boot_guest(struct sandbox *s, const struct guest_identity *identity, struct err *e)
{
    int64_t deadline = deadline_in_ms(LIMIT_BOOT_MS);
    if (guest_wait_ready(s->guest, vmm_event_fd(s->vmm), deadline, e) < 0)
        return guest_failed(s, e);
    if (!s->hidden && guest_init(s->guest, identity, deadline, e) < 0)
        return -1;
    phase_end(s, "boot");
    return 0;
}

static int wake_guest(struct sandbox *s, const struct guest_identity *identity, struct err *e)
{
    int64_t deadline = deadline_in_ms(RESTORE_MS);
    if (vmm_load(s->vmm, s->source->state_fd, deadline, e) < 0)
        return guest_failed(s, e);
    phase_end(s, "load");
    if (vmm_run(s->vmm, deadline, e) < 0)
        return guest_failed(s, e);
    phase_end(s, "run");
    if (guest_wake(s->guest, identity, vmm_event_fd(s->vmm), deadline, e) < 0)
        return guest_failed(s, e);
    phase_end(s, "guest");
    return 0;
}

/* A sandbox that wakes where it slept keeps its names; one that was spawned gets its own. */
static struct guest_identity identity_of(const struct sandbox *s)
{
    struct guest_identity id = {.sandbox_id = s->entry.id.text,
        .template = s->entry.template,
        .default_user = s->template.default_user};
    if (s->create) {
        id.env = s->create->env;
        id.n_env = s->create->n_env;
        id.keeps_env = s->source && id.n_env == 0;
    } else if (restores_memory(s)) {
        id.keeps_env = true;
        id.keeps_machine = s->entry.owns_generation != 0;
    }
    if (restores_memory(s))
        id.secret = s->source->secret;
    return id;
}

static int guest_begin(void *ctx, struct err *e)
{
    struct sandbox *s = ctx;
    const struct guest_identity identity = identity_of(s);
    int rc;
    phase_end(s, "journal");
    if (replace_guest(s, e) < 0)
        return -1;
    rc = restores_memory(s) ? wake_guest(s, &identity, e) : boot_guest(s, &identity, e);
    if (rc < 0)
        return -1;
    if (s->source)
        generation_close_files(s->source);
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
    {"generation", source_begin, source_end},
    {"network slot", slot_take, slot_give},
    {"boot place", boot_place_take, boot_place_give},
    {"virtual machine", vmm_begin, vmm_end},
    {"journal", birth_write, /* in the folder: */ NULL},
    {"guest", guest_begin, guest_end},
};

static void after_step(void *ctx, bool undone, const char *name)
{
    struct sandbox *s = ctx;
    crash_point(undone ? "undo" : s->operation ? s->operation : "warm", name, s);
    if (!undone && strcmp(name, "network slot") == 0)
        phase_end(s, "network");
    else if (!undone && strcmp(name, "virtual machine") == 0)
        phase_end(s, "vmm");
}

int resources_make(struct sandbox *s, struct err *e)
{
    return steps_do(steps, ARRAY_LEN(steps), s, after_step, e);
}

int resources_resume(struct sandbox *s, bool keep_disk, struct err *e)
{
    size_t first = keep_disk ? FILE_STEPS : FILE_STEPS - 1;
    return steps_do(steps + first, ARRAY_LEN(steps) - first, s, after_step, e);
}

int resources_release(struct sandbox *s, struct err *e)
{
    return steps_undo(steps + FILE_STEPS, ARRAY_LEN(steps) - FILE_STEPS, s, after_step, e);
}

int resources_remove_files(struct sandbox *s, struct err *e)
{
    return steps_undo(steps, FILE_STEPS, s, after_step, e);
}
