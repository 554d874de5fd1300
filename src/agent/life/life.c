/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Opening and closing one host.
 *
 * Theory of operation: opening takes over what an earlier agent left (recover.c). There are two
 * ways to end. Leaving (restart, upgrade) notes each sandbox in the run folder and lets VMs, their
 * shims, their network and the host's rules be: the next agent adopts them. Closing puts every
 * sandbox to sleep, stops what cannot sleep, and removes everything of this instance from the host;
 * only files stay.
 */
#define LOG_MODULE "life"
#include "agent/life/life_int.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "agent/disk/disk.h"
#include "agent/life/crash.h"
#include "agent/life/phases.h"
#include "agent/life/snapshots.h"
#include "base/cleanup.h"
#include "base/io.h"
#include "base/log.h"

static int open_generations(struct life *l, struct err *e)
{
    const struct generation_store_config config = {.dir_fd = l->host.dir_fd,
        .merge_layers = disk_layers_merge,
        .after_step = crash_point_of_store};
    l->templates_fd = io_open_folder(l->host.dir_fd, "templates", e);
    l->warm_fd = l->templates_fd < 0 ? -1 : io_open_folder(l->host.dir_fd, "warm", e);
    if (l->warm_fd < 0)
        return -1;
    l->generations = generation_store_open(&config, e);
    return l->generations ? 0 : -1;
}

static int probe_vmm(struct life *l, const struct life_config *c, struct err *e)
{
    (void)snprintf(l->keep_dir, sizeof l->keep_dir, "%s/vmm", l->host.dir);
    l->vmm_host.shim = c->shim;
    l->vmm_host.run_dir = l->host.run_dir;
    l->vmm_host.library = c->library;
    l->vmm_host.keep_dir = l->keep_dir;
    return vmm_host_probe(c->accel, &l->vmm_host, e);
}

static void pin_snapshot(void *ctx, const struct snapshot *s)
{
    struct life *l = ctx;
    struct err e = {0};
    if (generation_pin(l->generations, &s->generation, &e) < 0)
        log_err("snapshot without its generation snapshot_id=%s: %s", s->id.text, e.msg);
}

/* What templates and warm starts keep. Before anything is unpinned: what is taken from a sandbox
 * may be theirs too. */
static int pin_kept(struct life *l, size_t *ret_damaged, struct err *e)
{
    if (snapshots_each(l->templates_fd, pin_snapshot, l, ret_damaged, e) < 0)
        return -1;
    l->warm = warm_open(l, e);
    return l->warm ? 0 : -1;
}

/* Sets of VMM files that a generation or a VM that runs may still need. */
struct used_sets {
    struct life *life;
    char (*digests)[JOURNAL_DIGEST_MAX];
    size_t n;
    size_t cap;
    bool failed;
};

static bool set_is_used(void *ctx, const char *digest)
{
    const struct used_sets *u = ctx;
    for (size_t i = 0; i < u->n; i++)
        if (strcmp(u->digests[i], digest) == 0)
            return true;
    return false;
}

static void use_set(struct used_sets *u, const char *digest)
{
    if (!digest[0] || set_is_used(u, digest))
        return;
    if (u->n == u->cap) {
        size_t cap = u->cap ? u->cap * 2 : 16;
        void *p = reallocarray(u->digests, cap, sizeof *u->digests);
        if (!p) {
            u->failed = true;
            return;
        }
        u->digests = p;
        u->cap = cap;
    }
    (void)snprintf(u->digests[u->n++], sizeof *u->digests, "%s", digest);
}

static void use_set_of_generation(void *ctx, const struct generation_manifest *m)
{
    use_set(ctx, m->machine.vmm_digest);
}

static void use_sets_of_machines(struct used_sets *u)
{
    MUTEX_GUARD(&u->life->lock);
    for (size_t b = 0; b < REGISTRY_BUCKETS; b++)
        for (const struct sandbox *s = u->life->buckets[b]; s; s = s->next)
            use_set(u, s->entry.vmm_digest);
}

/* Nothing goes when it is not certain what is needed. */
static void collect_sets(struct life *l)
{
    struct used_sets u = {.life = l};
    struct err e = {0};
    use_sets_of_machines(&u);
    if (generation_store_each(l->generations, use_set_of_generation, &u, &e) < 0 || u.failed ||
        vmm_sets_collect(&l->vmm_host, set_is_used, &u, &e) < 0)
        log_warn("sets of VMM files that nobody needs stay: %s", e.msg);
    free(u.digests);
}

/* Everything that is needed is pinned by now, or something could not be read and nothing goes. */
static int collect(struct life *l, bool all_known, struct err *e)
{
    if (all_known) {
        if (generation_store_collect(l->generations, e) < 0)
            return -1;
        collect_sets(l);
        return 0;
    }
    log_warn("some sandbox or snapshot cannot be read: no generation is removed");
    return 0;
}

static int open_parts(struct life *l, const struct life_config *c, struct err *e)
{
    bool all_known = false;
    size_t damaged = 0;
    l->memory = c->memory;
    if (host_open(&l->host, c->dir, c->run_base, e) < 0 ||
        (!c->only_stop && host_kernel_find(&l->host, &l->kernel, e) < 0) ||
        admission_init(&l->admission, c->memory_mb, c->vcpus_per_core, e) < 0 ||
        (probe_vmm(l, c, e) < 0 && !c->only_stop) || open_generations(l, e) < 0 ||
        pin_kept(l, &damaged, e) < 0 || monitor_start(l, e) < 0 ||
        recover_all(l, c, &all_known, e) < 0)
        return -1;
    if (c->only_stop)
        return 0;
    warm_drop_stale(l->warm);
    if (collect(l, all_known && damaged == 0, e) < 0)
        return -1;
    l->trial = c->try_memory ? trial_start(l, e) : NULL;
    if (c->try_memory && !l->trial)
        return -1;
    l->reaper = reaper_start(l, e);
    if (!l->reaper)
        return -1;
    return c->no_warm ? 0 : warm_start(l->warm, e);
}

/* Background work ends before the table is emptied. A pause under way is waited for. The trial goes
 * last, as whoever starts a VM asks for it. */
static void stop_background(struct life *l)
{
    warm_stop(TAKE_PTR(l->warm));
    reaper_stop(TAKE_PTR(l->reaper));
    trial_end(TAKE_PTR(l->trial));
}

static void init_locks(struct life *l)
{
    pthread_condattr_t attr;
    (void)pthread_mutex_init(&l->lock, NULL);
    (void)pthread_mutex_init(&l->snapshots_lock, NULL);
    (void)pthread_condattr_init(&attr);
    (void)pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    (void)pthread_cond_init(&l->transition_ended, &attr);
    (void)pthread_cond_init(&l->changed, &attr);
    (void)pthread_condattr_destroy(&attr);
}

static bool has_any(struct life *l)
{
    MUTEX_GUARD(&l->lock);
    for (size_t b = 0; b < REGISTRY_BUCKETS; b++)
        if (l->buckets[b])
            return true;
    return false;
}

struct life *life_open(const struct life_config *config, struct err *e)
{
    struct life *l = calloc(1, sizeof *l);
    struct err ignored = {0};
    if (!l) {
        (void)err_set(e, ERR_NOMEM, "out of memory");
        return NULL;
    }
    l->templates_fd = l->warm_fd = -1;
    histograms_init(&l->histograms);
    l->host.dir_fd = l->host.sandboxes_fd = l->host.run_fd = l->host.lock_fd = l->epoll_fd =
        l->wake_fd = -1;
    init_locks(l);
    if (open_parts(l, config, e) == 0)
        return l;
    /* What was adopted by then runs on. */
    if (has_any(l))
        (void)life_leave(l, &ignored);
    else
        (void)life_close(l, &ignored);
    return NULL;
}

/* What runs is put to sleep, so that it can be woken as it was; what cannot is stopped. */
static int stop_one(struct sandbox *s, struct err *e)
{
    struct machine_actions actions;
    struct phases phases;
    struct err pause = {0};
    int rc;
    if (sandbox_lock(s, e) < 0)
        return -1;
    rc = 0;
    phases_begin(&phases);
    if (s->entry.state.status == SANDBOX_RUNNING &&
        pause_sandbox(s, PAUSE_REQUESTED, &phases, &pause) < 0)
        log_warn("stopping without its memory id=%s: %s", s->entry.id.text, pause.msg);
    if (sandbox_event(s, EVENT_VM_EXITED, "the agent was stopped", &actions)) {
        /* The journal first, as in monitor.c. */
        rc = sandbox_journal(s, e);
        if (resources_release(s, e) < 0)
            rc = -1;
    }
    sandbox_unlock(s);
    return rc;
}

static int stop_all(struct life *l, struct err *all)
{
    struct err e = {0};
    size_t n = 0;
    struct sandbox **list = registry_all(l, &n, &e);
    int rc = 0;
    if (!list)
        return err_join(all, &e);
    for (size_t i = 0; i < n; i++) {
        struct err one = {0};
        if (stop_one(list[i], &one) < 0)
            rc = err_join(all, &one);
        registry_remove(l, list[i], /* unasked= */ false);
        sandbox_unref(list[i]);
    }
    free(list);
    return rc;
}

void life_wake(struct life *l)
{
    MUTEX_GUARD(&l->lock);
    l->closing = true;
    (void)pthread_cond_broadcast(&l->changed);
}

static void life_free(struct life *l)
{
    if (l->generations)
        generation_store_close(l->generations);
    if (l->templates_fd >= 0)
        (void)close(l->templates_fd);
    if (l->warm_fd >= 0)
        (void)close(l->warm_fd);
    histograms_done(&l->histograms);
    (void)pthread_mutex_destroy(&l->snapshots_lock);
    admission_done(&l->admission);
    vmm_host_done(&l->vmm_host);
    host_done(&l->host);
    (void)pthread_cond_destroy(&l->changed);
    (void)pthread_cond_destroy(&l->transition_ended);
    (void)pthread_mutex_destroy(&l->lock);
    free(l);
}

int life_close(struct life *l, struct err *e)
{
    struct err net = {0};
    int rc;
    life_wake(l);
    stop_background(l);
    rc = stop_all(l, e);
    monitor_stop(l);
    if (l->net && net_pool_close(l->net, &net) < 0)
        rc = err_join(e, &net);
    life_free(l);
    return rc;
}

/* Forgets a sandbox without touching what it has of the host. */
static int leave_one(struct sandbox *s, struct err *e)
{
    int rc = 0;
    if (sandbox_lock(s, e) < 0)
        return -1;
    monitor_forget(s);
    if (s->vmm && s->entry.state.status == SANDBOX_RUNNING)
        rc = sandbox_note(s, e);
    sandbox_unlock(s);
    return rc;
}

int life_leave(struct life *l, struct err *e)
{
    struct err all = {0};
    size_t n = 0;
    struct sandbox **list;
    life_wake(l);
    stop_background(l);
    list = registry_all(l, &n, e);
    if (!list)
        (void)err_join(&all, e);
    for (size_t i = 0; i < n; i++) {
        struct err one = {0};
        if (leave_one(list[i], &one) < 0)
            (void)err_join(&all, &one);
        registry_remove(l, list[i], /* unasked= */ false);
        sandbox_unref(list[i]);
    }
    free(list);
    monitor_stop(l);
    if (l->net && net_pool_leave(l->net, e) < 0)
        (void)err_join(&all, e);
    life_free(l);
    if (all.kind == ERR_NONE)
        return 0;
    *e = all;
    return -1;
}
