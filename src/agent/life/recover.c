/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What an earlier agent left, and what becomes of it.
 *
 * Theory of operation. Two journals say what a sandbox was: state.json in its folder outlives the
 * power, the file in the run folder dies with it. A sandbox that had been reported is never lost:
 * it is adopted with its running VM, or it is `stopped` and keeps its files. Only what carries
 * positive evidence of an unfinished create (a folder without state.json, or a run file that still
 * says pending) is undone. VMs whose sandbox has no folder at all are left alone: the folder may be
 * on a file system that is not mounted.
 *
 * Order: read the journals; adopt VMs; end the VMs of what is undone or stopped; open the network
 * around the slots that are in use; take everything into the table. Whatever cannot be adopted half
 * way is stopped like a VM that died.
 */
#define LOG_MODULE "recover"
#include "agent/life/life_int.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "agent/guest/guest.h"
#include "base/cleanup.h"
#include "base/io.h"
#include "base/log.h"

enum { SLOTS_READY = 16 }; /* prepared ahead: enough for a burst, each costs a namespace */

/* One sandbox found on disk, and what was decided. */
struct found {
    struct sandbox *s;
    enum recovery what;
    bool unsaid; /* others may have seen newer revisions than the journal's */
};

struct recovery_list {
    struct life *life;
    bool all_known; /* every sandbox could be read */
    struct found *items;
    size_t n;
    size_t cap;
    unsigned *slots; /* to be kept */
    size_t n_slots;
};

static int list_add(struct recovery_list *r, const struct found *f, struct err *e)
{
    if (r->n == r->cap) {
        size_t cap = r->cap ? r->cap * 2 : 64;
        struct found *items = reallocarray(r->items, cap, sizeof *items);
        if (!items)
            return err_set(e, ERR_NOMEM, "out of memory");
        r->items = items;
        r->cap = cap;
    }
    r->items[r->n++] = *f;
    return 0;
}

/* Reads both journals of the sandbox; sets its entry to the newer of what they say. One that sleeps
 * has a run file only while it is being woken, or while what it had is being given back. */
static struct found read_one(struct sandbox *s)
{
    char name[RUN_FILE_NAME_MAX];
    struct journal_entry state;
    struct journal_entry run;
    struct err e = {0};
    struct err e_run = {0};
    bool has_state;
    bool has_run;
    enum recovery what;
    (void)snprintf(name, sizeof name, "%s" JOURNAL_RUN_SUFFIX, s->entry.id.text);
    has_state = journal_read(s->dir_fd, JOURNAL_STATE_FILE, &state, &e) == 0;
    has_run = journal_read(s->life->host.run_fd, name, &run, &e_run) == 0;
    if (has_state && strcmp(state.id.text, s->entry.id.text) != 0) {
        has_state = false;
        (void)err_set(&e, ERR_INVALID, "its journal names another sandbox");
    }
    what = recover_decide(has_state ? &state.state : NULL, !has_state && e.errnum != ENOENT,
        has_run && strcmp(run.id.text, s->entry.id.text) == 0 ? &run.state : NULL);
    /* Whoever was told of it had its disk: the folder was durable by then. */
    if (what == RECOVER_STOP && state.state.status == SANDBOX_PENDING && !overlays_exist(s))
        what = RECOVER_UNDO;
    if (what == RECOVER_DAMAGED)
        log_err("sandbox is damaged id=%s: %s", s->entry.id.text, e.msg);
    else if (what == RECOVER_ADOPT)
        s->entry = run;
    else if (has_state)
        s->entry = state;
    if (what == RECOVER_ADOPT)
        s->slot.index = (unsigned)run.slot;
    return (struct found){s, what, .unsaid = has_run && what == RECOVER_KEEP};
}

static int read_folder(struct recovery_list *r, const struct sandbox_id *id, struct err *e)
{
    struct sandbox *s = sandbox_new(r->life, id);
    struct found f;
    if (!s)
        return err_set(e, ERR_NOMEM, "out of memory");
    s->dir_fd = openat(r->life->host.sandboxes_fd, id->text, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (s->dir_fd < 0) {
        (void)err_sys(e, errno, "open sandbox folder %s", id->text);
        sandbox_unref(s);
        return -1;
    }
    f = read_one(s);
    return list_add(r, &f, e);
}

/* Calls `each` with every name in a folder. */
static int each_name(
    int dirfd, int (*each)(void *ctx, const char *name, struct err *e), void *ctx, struct err *e)
{
    int fd = openat(dirfd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *d = fd < 0 ? NULL : fdopendir(fd);
    struct dirent *ent;
    int rc = 0;
    if (!d) {
        (void)err_sys(e, errno, "read a folder");
        if (fd >= 0)
            (void)close(fd);
        return -1;
    }
    while (rc == 0 && (ent = readdir(d)))
        rc = each(ctx, ent->d_name, e);
    (void)closedir(d);
    return rc;
}

/* What cannot be read is said and left alone. */
static int read_name(void *ctx, const char *name, struct err *e)
{
    struct sandbox_id id;
    struct err one = {0};
    if (sandbox_id_parse(slice_cstr(name), &id) && read_folder(ctx, &id, &one) < 0) {
        if (one.kind == ERR_NOMEM) {
            *e = one;
            return -1;
        }
        log_err("cannot read a sandbox: %s", one.msg);
        ((struct recovery_list *)ctx)->all_known = false;
    }
    return 0;
}

/* The VM of a sandbox that was reported running. Without it the sandbox is stopped. */
static void adopt_vmm(struct found *f)
{
    struct err e = {0};
    f->s->vmm = vmm_adopt(&f->s->life->vmm_host, &f->s->entry.id, &e);
    if (f->s->vmm && sandbox_set_vmm(f->s, f->s->vmm, &e) == 0)
        return;
    f->what = RECOVER_STOP;
    log_warn("no VM to adopt id=%s: %s", f->s->entry.id.text, e.msg);
}

static const struct found *find(const struct recovery_list *r, const struct sandbox_id *id)
{
    for (size_t i = 0; i < r->n; i++)
        if (strcmp(r->items[i].s->entry.id.text, id->text) == 0)
            return &r->items[i];
    return NULL;
}

/* VMs stay that were adopted, and those without a folder. */
static bool keep_vmm(void *ctx, const struct sandbox_id *id)
{
    const struct found *f = find(ctx, id);
    if (!f) {
        log_warn("a VM without a folder is left alone id=%s", id->text);
        return true;
    }
    return f->what == RECOVER_ADOPT;
}

static void keep_slot(struct recovery_list *r, int32_t slot)
{
    if (slot >= 0 && slot < NET_SLOTS_MAX && r->n_slots < NET_SLOTS_MAX)
        r->slots[r->n_slots++] = (unsigned)slot;
}

/* Slots of adopted VMs, and of those without a folder as their run files say. Run files of nobody
 * are removed. */
static int read_run_name(void *ctx, const char *name, struct err *e)
{
    struct recovery_list *r = ctx;
    size_t n = strlen(name);
    size_t suffix = strlen(JOURNAL_RUN_SUFFIX);
    struct journal_entry run;
    struct sandbox_id id;
    struct err ignored = {0};
    const struct found *f;
    if (n <= suffix || !sandbox_id_parse(slice_of(name, n - suffix), &id))
        return 0;
    f = find(r, &id);
    if (!f) {
        if (journal_read(r->life->host.run_fd, name, &run, &ignored) == 0)
            keep_slot(r, run.slot);
    } else if (f->what == RECOVER_ADOPT) {
        keep_slot(r, (int32_t)f->s->slot.index);
    } else if (unlinkat(r->life->host.run_fd, name, 0) < 0 && errno != ENOENT) {
        return err_sys(e, errno, "remove %s", name);
    }
    return 0;
}

static int open_network(struct recovery_list *r, const struct life_config *c, struct err *e)
{
    struct life *l = r->life;
    const struct net_config net = {.instance = l->host.instance,
        .range = c->net_range,
        .slots = c->slots,
        .ready = c->only_stop             ? 0
                 : c->slots < SLOTS_READY ? c->slots
                                          : SLOTS_READY,
        .uid_base = c->uid_base + l->host.instance * HOST_UIDS,
        .helper = c->self,
        .resolver = c->resolver,
        .keep = r->slots,
        .n_keep = r->n_slots};
    l->net = net_pool_open(&net, e);
    return l->net ? 0 : err_wrap(e, "network");
}

static int pin_text(struct life *l, struct slice text, struct err *e)
{
    struct uuid id;
    return uuid_parse(text, &id) ? generation_pin(l->generations, &id, e) : 0;
}

/* What it sleeps in, or runs from. One that is not there leaves the sandbox as it is, for a person
 * to look at; above all, it is not forgotten that there should be one. */
static void pin(struct sandbox *s)
{
    struct err e = {0};
    if (pin_text(s->life, slice_cstr(s->entry.generation), &e) < 0)
        log_err("sandbox without its generation id=%s: %s", s->entry.id.text, e.msg);
    for (const char *p = s->entry.live; strlen(p) > UUID_TEXT; p += UUID_TEXT + 1)
        if (pin_text(s->life, slice_of(p, UUID_TEXT), &e) < 0)
            log_err("a live snapshot is gone id=%s: %s", s->entry.id.text, e.msg);
}

/* All before anything is undone: what one gives back, another may need. */
static void pin_all(struct recovery_list *r)
{
    for (size_t i = 0; i < r->n; i++)
        if (r->items[i].what == RECOVER_DAMAGED)
            r->all_known = false;
        else
            pin(r->items[i].s);
}

/* Which layers lie below the overlay of a VM that runs; and its template. */
static int adopt_source(struct sandbox *s, struct err *e)
{
    struct err ignored = {0};
    if (!s->entry.generation[0]) {
        /* Without its image it can run, but not be put to sleep. */
        (void)host_image_find(&s->life->host, s->entry.image_digest, &s->template, &ignored);
        return 0;
    }
    if (source_open(s, e) < 0)
        return -1;
    generation_close_files(s->source);
    return 0;
}

/* A pause that the earlier agent did not end. */
static int adopt_pausing(struct sandbox *s, struct err *e)
{
    if (s->entry.state.status != SANDBOX_PAUSING && !s->entry.secret[0])
        return 0;
    log_warn("a pause or a snapshot was under way, the guest goes on id=%s", s->entry.id.text);
    return pause_undo(s, e);
}

/* The rest of an adopted sandbox. */
static int adopt_rest(struct sandbox *s, struct err *e)
{
    char token[HOST_TOKEN_CHARS + 1];
    struct sandbox *other = NULL;
    if (net_slot_adopt(s->life->net, s->slot.index, &s->slot, e) < 0)
        return err_wrap(e, "network slot");
    s->has_slot = true;
    (void)snprintf(s->host_ip, sizeof s->host_ip, "%s", s->slot.host_ip);
    if (host_token(&s->life->host, &s->entry.id, /* token_epoch= */ 0, token, e) < 0)
        return -1;
    s->guest = guest_new(s->slot.host_ip, token);
    if (!s->guest)
        return err_set(e, ERR_NOMEM, "out of memory");
    admission_take(&s->life->admission, s->entry.vcpus, s->entry.memory_mb);
    s->reserved = true;
    if (adopt_source(s, e) < 0 || overlays_keep_aside(s, e) < 0 || adopt_pausing(s, e) < 0)
        return -1;
    if (registry_add(s->life, s, &other, e) < 0) {
        sandbox_unref(other);
        return -1;
    }
    return monitor_watch(s, e);
}

static int keep(struct sandbox *s, struct err *e)
{
    struct sandbox *other = NULL;
    if (registry_add(s->life, s, &other, e) == 0)
        return 0;
    sandbox_unref(other);
    return -1;
}

static int keep_unsaid(struct sandbox *s, struct err *e)
{
    s->entry.state.revision += MACHINE_UNJOURNALLED_MAX;
    return sandbox_journal(s, e) < 0 ? -1 : keep(s, e);
}

/* Its VM is gone, or goes now; its files stay. */
static int stop(struct sandbox *s, struct err *e)
{
    struct machine_actions actions;
    if (sandbox_event(s, EVENT_AGENT_STARTED, "its VM was gone when the agent started", &actions) &&
        actions.write_journal && sandbox_journal(s, e) < 0)
        return -1;
    if (resources_release(s, e) < 0)
        return -1;
    return s->listed ? 0 : keep(s, e);
}

/* A resume that nobody was told of: it sleeps on, or stays stopped. */
static int take_back(struct sandbox *s, struct err *e)
{
    struct machine_actions actions;
    s->entry.state.status = SANDBOX_RESUMING;
    s->entry.state.revision += MACHINE_UNJOURNALLED_MAX;
    (void)sandbox_event(
        s, EVENT_RESUME_FAILED, "the agent ended while it was being resumed", &actions);
    log_warn("taking back an unfinished resume id=%s", s->entry.id.text);
    return sandbox_journal(s, e) < 0 ? -1 : keep(s, e);
}

static int keep_damaged(struct sandbox *s, struct err *e)
{
    s->entry.state.status = SANDBOX_ERROR;
    s->entry.state.reason = REASON_RESTORE_FAILED;
    (void)snprintf(s->entry.message, sizeof s->entry.message, "its state on disk is damaged");
    return keep(s, e);
}

static int settle(struct found *f, struct err *e)
{
    struct sandbox *s = f->s;
    switch (f->what) {
    case RECOVER_UNDO:
        log_warn("undoing an unfinished create id=%s", s->entry.id.text);
        return resources_remove_files(s, e);
    case RECOVER_ADOPT:
        if (adopt_rest(s, e) == 0) {
            log_info("adopted a running sandbox id=%s slot=%u", s->entry.id.text, s->slot.index);
            return 0;
        }
        log_err("cannot adopt, stopping id=%s: %s", s->entry.id.text, e->msg);
        return stop(s, e);
    case RECOVER_STOP:
        return stop(s, e);
    case RECOVER_KEEP:
        return f->unsaid ? keep_unsaid(s, e) : keep(s, e);
    case RECOVER_BACK:
        return take_back(s, e);
    case RECOVER_DAMAGED:
        return keep_damaged(s, e);
    case RECOVERY_COUNT:
        break;
    }
    return 0;
}

static void list_done(struct recovery_list *r)
{
    for (size_t i = 0; i < r->n; i++)
        sandbox_unref(r->items[i].s);
    free(r->items);
    free(r->slots);
}

static int recover(struct recovery_list *r, const struct life_config *config, struct err *e)
{
    struct life *l = r->life;
    if (each_name(l->host.sandboxes_fd, read_name, r, e) < 0)
        return -1;
    pin_all(r);
    for (size_t i = 0; i < r->n; i++)
        if (r->items[i].what == RECOVER_ADOPT)
            adopt_vmm(&r->items[i]);
    if (vmm_remove_leftovers(&l->vmm_host, keep_vmm, r, e) < 0 ||
        each_name(l->host.run_fd, read_run_name, r, e) < 0 || open_network(r, config, e) < 0)
        return -1;
    for (size_t i = 0; i < r->n; i++) {
        struct err one = {0};
        if (settle(&r->items[i], &one) < 0)
            log_err("cannot recover id=%s: %s", r->items[i].s->entry.id.text, one.msg);
    }
    return 0;
}

int recover_all(
    struct life *l, const struct life_config *config, bool *ret_all_known, struct err *e)
{
    struct recovery_list r = {
        .life = l, .all_known = true, .slots = calloc(NET_SLOTS_MAX, sizeof(unsigned))};
    int rc = r.slots ? recover(&r, config, e) : err_set(e, ERR_NOMEM, "out of memory");
    *ret_all_known = r.all_known;
    list_done(&r);
    return rc;
}
