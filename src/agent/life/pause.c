/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Putting a machine on disk.
 *
 * Theory of operation: take_machine writes a new generation in a draft: the guest prepares, the
 * vCPUs stop, device state and written pages are saved, the disk's layers are linked. Nothing that
 * an older generation needs is touched. The draft's commit makes all of it durable; for a pause,
 * the journal that names it is the commit of the pause. Until then any failure lets the guest run
 * on, and only what this pause wrote is removed; after it the VM goes, then the names of its disk
 * in the folder (the generation has the files), then the pin of the generation before.
 *
 * An auto-pause can be broken off by whoever needs the sandbox: between the steps, inside the
 * saving of memory, and while the commit waits for the disk, which then goes on in its thread while
 * the guest runs already.
 *
 * A live snapshot is the same without the end: the vCPUs run again before anything is made durable.
 */
#define LOG_MODULE "pause"
#include "agent/life/life_int.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "agent/guest/guest.h"
#include "agent/life/crash.h"
#include "agent/life/phases.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/rand.h"

enum {
    QUIESCE_MS = 30000,       /* the guest writes its file systems out */
    VMM_MS = 60000,           /* a VMM that does not answer for so long is gone */
    SAVE_MS = 30 * 60 * 1000, /* the memory of the largest guest onto a slow disk */
    WAKE_MS = 30000,
    SECRET_BYTES = 32,
    GUEST_ABI = 1,
};

struct taking {
    struct sandbox *s;
    bool live;     /* it goes on afterwards, in this VM */
    int cancel_fd; /* -1: cannot be broken off */
    struct phases *phases;
    struct generation_manifest manifest;
    struct generation_draft *draft;
    struct generation_blob memory;
    struct vmm_saved saved;
};

static void step_done(struct taking *t, const char *name)
{
    phases_end(t->phases, name);
    crash_point(t->live ? "snapshot" : "pause", name, t->s);
}

static int check_cancel(const struct taking *t, struct err *e)
{
    struct pollfd p = {.fd = t->cancel_fd, .events = POLLIN};
    if (t->cancel_fd >= 0 && poll(&p, 1, 0) > 0)
        return err_set(e, ERR_CANCELED, "the sandbox is needed");
    return 0;
}

static void make_secret(struct sandbox *s)
{
    unsigned char random[SECRET_BYTES];
    rand_bytes(random, sizeof random);
    MUTEX_GUARD(&s->life->lock);
    hex_encode(random, sizeof random, s->entry.secret);
}

/* What opens envd again is noted before envd knows it, so that no end of this agent locks the guest
 * up. A guest that could not be woken after an earlier pause still waits for that one's. */
static int quiesce(struct taking *t, struct err *e)
{
    struct sandbox *s = t->s;
    if (s->entry.secret[0])
        return 0;
    make_secret(s);
    if (s->hidden)
        return 0; /* it has no token yet, and nothing is open in it */
    if (sandbox_note(s, e) < 0)
        return -1;
    return guest_prepare(
        s->guest, s->entry.secret, /* keep= */ t->live, deadline_in_ms(QUIESCE_MS), e);
}

/* Of a VM that was booted: the files it was started from, whatever this agent would start now. */
static void booted_machine(const struct sandbox *s, struct generation_machine *m)
{
    source_from_facts(&s->life->vmm_host.facts, m);
    m->snapshot_format = vmm_snapshot_format(s->vmm);
    if (!s->entry.vmm_digest[0])
        return;
    memcpy(m->vmm_digest, s->entry.vmm_digest, sizeof m->vmm_digest);
    memcpy(m->version, s->entry.vmm_version, sizeof m->version);
    memcpy(m->accel, s->entry.vmm_accel, sizeof m->accel);
    m->tsc_khz = (uint32_t)s->entry.vmm_tsc_khz;
}

static void fill_manifest(struct taking *t)
{
    const struct sandbox *s = t->s;
    struct generation_manifest *m = &t->manifest;
    struct uuid parent = {0};
    (void)uuid_parse(slice_cstr(s->entry.generation), &parent);
    *m = (struct generation_manifest){.parent = parent,
        .has_memory = true,
        .created_at_ms = clock_real_ms(),
        .disk_bytes = s->template.size_bytes};
    if (s->source && !s->entry.disk_only)
        m->machine = s->source->manifest.machine;
    else
        booted_machine(s, &m->machine);
    m->machine.vcpus = s->entry.vcpus;
    m->machine.memory_mb = s->entry.memory_mb;
    m->machine.guest_abi = GUEST_ABI;
    (void)snprintf(m->template, sizeof m->template, "%s", s->template.name);
    (void)snprintf(m->image_digest, sizeof m->image_digest, "%s", s->template.digest);
    (void)snprintf(m->default_user, sizeof m->default_user, "%s", s->template.default_user);
}

/* The layers below the VM's overlay, then the overlay itself. */
static int add_layers(struct taking *t, struct err *e)
{
    struct sandbox *s = t->s;
    char name[OVERLAY_NAME_MAX];
    struct uuid ignored;
    unsigned own;
    if (overlays_settle(s, e) < 0)
        return -1;
    own = overlay_layers_count(s);
    for (size_t i = 0; s->source && i < s->source->n_layers; i++)
        if (generation_draft_add_layer(t->draft, &s->source->layers[i], e) < 0)
            return -1;
    for (unsigned i = 1; i <= own; i++) {
        overlay_layer_name(i, name);
        if (generation_draft_add_layer_file(t->draft, s->dir_fd, name, &ignored, e) < 0)
            return -1;
    }
    if (t->live) /* the frozen one was the last of those; what it is called now stays so */
        return fsync(s->dir_fd) < 0 ? err_sys(e, errno, "fsync of the sandbox's folder") : 0;
    return generation_draft_add_layer_file(t->draft, s->dir_fd, OVERLAY_NAME, &ignored, e);
}

static int save_state(struct taking *t, struct err *e)
{
    struct generation_blob state;
    if (generation_draft_blob(t->draft, &state, e) < 0 ||
        vmm_save_state(t->s->vmm, state.fd, deadline_in_ms(VMM_MS), e) < 0)
        return -1;
    return generation_draft_set_state(t->draft, &state, e);
}

static int save_memory(struct taking *t, struct err *e)
{
    struct vmm_save save = {.cancel_fd = t->cancel_fd, .write_back = !t->live};
    if (generation_draft_blob(t->draft, &t->memory, e) < 0 ||
        generation_draft_map(t->draft, &save.map_fd, e) < 0)
        return -1;
    save.blob = t->memory.id;
    save.blob_fd = t->memory.fd;
    save.sums_fd = t->memory.sums_fd;
    return vmm_save_memory(t->s->vmm, &save, &t->saved, deadline_in_ms(SAVE_MS), e);
}

static int stop_machine(struct taking *t, struct err *e)
{
    struct sandbox *s = t->s;
    if (quiesce(t, e) < 0 || check_cancel(t, e) < 0)
        return err_wrap(e, "the guest cannot be prepared");
    step_done(t, "quiesce");
    if (vmm_pause(s->vmm, deadline_in_ms(VMM_MS), e) < 0)
        return -1;
    step_done(t, "stop");
    fill_manifest(t);
    t->draft = generation_draft_new(s->life->generations, &t->manifest, e);
    return t->draft ? 0 : -1;
}

/* All that must happen while the guest stands still. */
static int take_machine(struct taking *t, struct err *e)
{
    struct sandbox *s = t->s;
    if (t->live && overlays_prepare(s, e) < 0)
        return -1;
    if (stop_machine(t, e) < 0) {
        if (t->live)
            overlays_unprepare(s);
        return -1;
    }
    if ((t->live && overlays_freeze(s, deadline_in_ms(VMM_MS), e) < 0) || save_state(t, e) < 0 ||
        check_cancel(t, e) < 0)
        return -1;
    step_done(t, "state");
    if (save_memory(t, e) < 0)
        return -1;
    step_done(t, "memory");
    return 0;
}

/* Lets the guest run again, in the same VM. `ret_gone`: it will not. */
static int go_on(struct sandbox *s, bool *ret_gone, struct err *e)
{
    const struct guest_identity identity = {.sandbox_id = s->entry.id.text,
        .template = s->entry.template,
        .default_user = s->template.default_user,
        .keeps_env = true,
        .keeps_machine = true,
        .secret = s->entry.secret};
    *ret_gone = false;
    if (vmm_run(s->vmm, deadline_in_ms(VMM_MS), e) < 0) {
        *ret_gone = true;
        return -1;
    }
    if (!s->entry.secret[0])
        return 0;
    if (guest_init(s->guest, &identity, deadline_in_ms(WAKE_MS), e) < 0)
        return -1;
    {
        MUTEX_GUARD(&s->life->lock);
        s->entry.secret[0] = '\0';
    }
    return sandbox_note(s, e);
}

/* --- commit --- */

static int make_durable(struct taking *t, const char *secret, struct err *e)
{
    return add_layers(t, e) < 0 ? -1 : generation_draft_commit(t->draft, &t->manifest, secret, e);
}

struct commit {
    struct taking *taking;
    int done_fd; /* eventfd */
    int rc;
    struct err e;
};

static void *run_commit(void *arg)
{
    struct commit *c = arg;
    struct taking *t = c->taking;
    c->rc = make_durable(t, t->s->entry.secret, &c->e);
    (void)eventfd_write(c->done_fd, 1);
    return NULL;
}

/* True when it is done, false when it was broken off first. */
static bool wait_commit(const struct commit *c)
{
    struct pollfd p[] = {
        {.fd = c->done_fd, .events = POLLIN}, {.fd = c->taking->cancel_fd, .events = POLLIN}};
    while (poll(p, ARRAY_LEN(p), -1) < 0)
        if (errno != EINTR)
            return true; /* pthread_join waits as well */
    return p[0].revents != 0;
}

/* Commits in a thread, as nobody can break off an fsync. When it is broken off the guest runs on at
 * once, and what was committed meanwhile goes again. */
static int commit_unless_needed(struct taking *t, struct err *e)
{
    struct commit c = {.taking = t, .done_fd = eventfd(0, EFD_CLOEXEC)};
    struct err ignored = {0};
    pthread_t thread;
    bool needed;
    int rc = c.done_fd < 0 ? errno : pthread_create(&thread, NULL, run_commit, &c);
    if (rc != 0) {
        if (c.done_fd >= 0)
            (void)close(c.done_fd);
        return err_sys(e, rc, "thread of a commit");
    }
    needed = !wait_commit(&c);
    if (needed) /* that this works is seen to by run_on */
        (void)vmm_run(t->s->vmm, deadline_in_ms(VMM_MS), &ignored);
    (void)pthread_join(thread, NULL);
    (void)close(c.done_fd);
    if (c.rc == 0 && needed) {
        generation_unpin(t->s->life->generations, &t->manifest.id);
        return err_set(e, ERR_CANCELED, "the sandbox is needed");
    }
    if (c.rc < 0)
        *e = c.e;
    return c.rc;
}

static int commit(struct taking *t, struct err *e)
{
    int rc =
        t->cancel_fd >= 0 ? commit_unless_needed(t, e) : make_durable(t, t->s->entry.secret, e);
    if (rc == 0)
        step_done(t, "durable");
    return rc;
}

/* --- pause --- */

/* Names of the disk that the generation has now; the pin of the one before. */
static void leave_former(struct sandbox *s, const struct uuid *former, const struct uuid *now)
{
    struct err e = {0};
    if (overlays_remove(s, &e) < 0)
        log_warn("disk files of a sandbox that sleeps stay: %s", e.msg);
    if (!uuid_is_none(former)) {
        generation_hints_inherit(s->life->generations, former, now);
        generation_unpin(s->life->generations, former);
    }
    if (s->dir_fd >= 0)
        (void)close(TAKE_FD(s->dir_fd));
}

/* The generation is durable: from here on the sandbox sleeps, whatever happens. Only the journal
 * can still fail; then the guest runs on. */
static int fall_asleep(struct taking *t, struct err *e)
{
    struct sandbox *s = t->s;
    struct machine_actions actions;
    struct journal_entry before = s->entry;
    struct uuid former = {0};
    struct err release = {0};
    (void)uuid_parse(slice_cstr(before.generation), &former);
    {
        struct machine_state next = s->entry.state;
        struct journal_entry entry = before;
        (void)machine_next(&next, EVENT_PAUSED, &actions);
        entry.state = next;
        entry.message[0] = entry.secret[0] = entry.live[0] = '\0';
        entry.status_since_ms = clock_real_ms();
        entry.owns_generation = 1;
        entry.disk_only = 0;
        entry.slot = 0;
        uuid_format(&t->manifest.id, entry.generation);
        /* A write that failed may be there all the same: until another one has worked, the
         * generation that it names stays. */
        if (journal_write(s->dir_fd, JOURNAL_STATE_FILE, &entry, e) < 0) {
            s->doubtful = t->manifest.id;
            return -1;
        }
    }
    step_done(t, "commit");
    {
        MUTEX_GUARD(&s->life->lock);
        uuid_format(&t->manifest.id, s->entry.generation);
        s->entry.owns_generation = 1;
        s->entry.disk_only = 0;
        s->entry.secret[0] = '\0';
    }
    (void)sandbox_event(s, EVENT_PAUSED, NULL, &actions);
    if (resources_release(s, &release) < 0)
        log_err("release after a pause failed: %s", release.msg);
    leave_former(s, &former, &t->manifest.id);
    step_done(t, "release");
    return 0;
}

/* Its VM is gone: there is nothing left to pause. */
static void stop_gone(struct sandbox *s, const struct err *why)
{
    struct machine_actions actions;
    struct err e = {0};
    if (!sandbox_event(s, EVENT_VM_EXITED, why->msg, &actions))
        return;
    log_warn("sandbox stopped reason=vm_exited detail=\"%s\"", why->msg);
    if (sandbox_journal(s, &e) < 0)
        log_err("journal after the VM's exit failed: %s", e.msg);
    if (resources_release(s, &e) < 0)
        log_err("release after the VM's exit failed: %s", e.msg);
}

/* `why` of the failure becomes the answer. */
static void run_on(struct sandbox *s, const struct err *why)
{
    struct machine_actions actions;
    struct err e = {0};
    bool gone;
    bool canceled = why->kind == ERR_CANCELED;
    if (go_on(s, &gone, &e) < 0) {
        log_err("after a pause that failed the guest does not go on: %s", e.msg);
        if (gone) {
            stop_gone(s, &e);
            return;
        }
    }
    (void)sandbox_event(s, canceled ? EVENT_PAUSE_CANCELED : EVENT_PAUSE_FAILED,
        canceled ? NULL : why->msg, &actions);
    if (sandbox_journal(s, &e) < 0 || sandbox_note(s, &e) < 0)
        log_err("journal after a pause that failed: %s", e.msg);
}

static void watch_again(struct sandbox *s)
{
    struct err e = {0};
    if (s->entry.state.status == SANDBOX_RUNNING && monitor_watch(s, &e) < 0)
        log_err("the end of a VM will not be noticed: %s", e.msg);
}

/* What failed is the host's, and its details are for its log, but for a few that say what to do. */
static int pause_error(const struct sandbox *s, struct err *e)
{
    if (e->kind == ERR_CANCELED)
        return err_set(e, ERR_CONFLICT, "the pause was broken off: the sandbox is needed");
    if (e->kind == ERR_UNSUPPORTED)
        return sandbox_unsupported(s, e);
    if (e->kind == ERR_TIMEOUT)
        return -1;
    if (e->kind == ERR_NO_SPACE)
        return err_set(e, ERR_NO_SPACE, "no space left on the host for the snapshot");
    return err_set(e, ERR_INTERNAL, "the host could not save the sandbox; its log says why");
}

static void set_cancel_fd(struct sandbox *s, int fd)
{
    MUTEX_GUARD(&s->life->lock);
    s->cancel_fd = fd;
}

static void log_pause(const struct taking *t)
{
    char text[384];
    phases_format(t->phases, text, sizeof text);
    log_info("sandbox %s pages=%llu zero=%llu referred=%llu entries=%llu blobs=%llu %s",
        t->live ? "snapshotted" : "paused", (unsigned long long)t->saved.pages_stored,
        (unsigned long long)t->saved.pages_zero, (unsigned long long)t->saved.pages_referred,
        (unsigned long long)t->saved.map_entries, (unsigned long long)t->saved.map_blobs, text);
}

/* Calls that come from now on see `pausing` and break it off; those before were counted. */
static bool is_idle(struct sandbox *s)
{
    MUTEX_GUARD(&s->life->lock);
    return s->calls == 0;
}

int pause_sandbox(struct sandbox *s, enum pause_kind kind, struct phases *phases, struct err *e)
{
    struct taking t = {.s = s, .phases = phases, .cancel_fd = -1};
    struct machine_actions actions;
    int rc;
    if (s->journal_owed && sandbox_journal(s, e) < 0) {
        log_err("cannot pause, its journal cannot be written: %s", e->msg);
        return pause_error(s, e);
    }
    if (!sandbox_event(s, kind == PAUSE_IDLE ? EVENT_IDLE : EVENT_PAUSE, NULL, &actions))
        return sandbox_bad_state(s->entry.state.status, "running", e);
    monitor_forget(s);
    if (kind == PAUSE_IDLE) {
        t.cancel_fd = eventfd(0, EFD_CLOEXEC);
        set_cancel_fd(s, t.cancel_fd);
    }
    rc = sandbox_note(s, e);
    if (rc == 0 && kind == PAUSE_IDLE && !is_idle(s))
        rc = err_set(e, ERR_CANCELED, "the sandbox is needed");
    if (rc == 0)
        rc = take_machine(&t, e);
    if (rc == 0)
        rc = commit(&t, e);
    if (t.cancel_fd >= 0) {
        set_cancel_fd(s, -1);
        (void)close(t.cancel_fd);
        t.cancel_fd = -1;
    }
    if (rc == 0)
        rc = fall_asleep(&t, e);
    t.draft = generation_draft_free(t.draft);
    if (rc == 0) {
        histograms_add(&s->life->histograms, "pause", phases);
        log_pause(&t);
        reaper_tidy_later(s->life->reaper, &s->entry.id);
        return 0;
    }
    if (e->kind == ERR_CANCELED)
        log_info("auto-pause broken off");
    else
        log_err("pause failed: %s", e->msg);
    run_on(s, e);
    watch_again(s);
    return pause_error(s, e);
}

int pause_undo(struct sandbox *s, struct err *e)
{
    struct machine_actions actions;
    bool gone;
    if (overlays_settle(s, e) < 0 || go_on(s, &gone, e) < 0)
        return -1;
    if (sandbox_event(s, EVENT_PAUSE_CANCELED, NULL, &actions) && actions.write_journal &&
        sandbox_journal(s, e) < 0)
        return -1;
    return sandbox_note(s, e);
}

/* --- live snapshot --- */

/* Refers later saves to this one, when there is room to keep it pinned for that. */
static void keep_live(struct taking *t)
{
    struct sandbox *s = t->s;
    struct life *l = s->life;
    struct err e = {0};
    if (generation_pin(l->generations, &t->manifest.id, &e) < 0)
        return;
    if (!source_add_live(s, &t->manifest.id)) {
        generation_unpin(l->generations, &t->manifest.id);
        return;
    }
    /* Noted first: a later agent must keep it as long as the shim refers to it. */
    if (sandbox_note(s, &e) < 0 || vmm_save_commit(s->vmm, deadline_in_ms(VMM_MS), &e) < 0)
        log_warn("the next snapshot will store everything again: %s", e.msg);
}

/* The layer that this snapshot freezes must leave room for the one of the next pause, and a sandbox
 * that is spawned from it must be able to sleep too. */
static bool has_room_for_layer(const struct sandbox *s)
{
    size_t own = overlay_layers_count(s);
    size_t below = s->source ? s->source->n_layers : 0;
    return own < OVERLAY_LAYERS_MAX && below + own + 1 < GENERATION_LAYERS_MAX;
}

int pause_snapshot(
    struct sandbox *s, struct uuid *ret_generation, struct phases *phases, struct err *e)
{
    struct taking t = {.s = s, .live = true, .phases = phases, .cancel_fd = -1};
    char secret[GENERATION_SECRET_CHARS + 1];
    struct err on = {0};
    bool gone = false;
    int rc = 0;
    if (!has_room_for_layer(s))
        return err_set(e, ERR_BAD_STATE,
            "too many snapshots were made of this sandbox since it woke: pause and resume it "
            "first");
    monitor_forget(s); /* its link carries replies now */
    rc = take_machine(&t, e);
    memcpy(secret, s->entry.secret, sizeof secret);
    if (go_on(s, &gone, &on) < 0) {
        log_err("after a snapshot the guest does not go on: %s", on.msg);
        if (gone)
            stop_gone(s, &on);
        if (rc == 0)
            *e = on;
        rc = -1;
    }
    step_done(&t, "run");
    if (rc == 0)
        rc = make_durable(&t, secret, e);
    if (rc == 0)
        keep_live(&t);
    t.draft = generation_draft_free(t.draft);
    watch_again(s);
    if (rc < 0) {
        log_err("snapshot failed: %s", e->msg);
        return pause_error(s, e);
    }
    step_done(&t, "durable");
    *ret_generation = t.manifest.id;
    histograms_add(&s->life->histograms, "snapshot", phases);
    log_pause(&t);
    return 0;
}

int pause_hidden(struct sandbox *s, struct uuid *ret_generation, struct err *e)
{
    struct phases phases;
    struct taking t = {.s = s, .phases = &phases, .cancel_fd = -1};
    int rc;
    phases_begin(&phases);
    rc = take_machine(&t, e);
    if (rc == 0)
        rc = make_durable(&t, s->entry.secret, e);
    t.draft = generation_draft_free(t.draft);
    if (rc == 0)
        *ret_generation = t.manifest.id;
    return rc;
}
