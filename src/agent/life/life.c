/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Opening and closing one host.
 *
 * Theory of operation: opening takes over what an earlier agent left (recover.c). There are two
 * ways to end. Leaving (restart, upgrade) notes each sandbox in the run folder and lets VMs, their
 * shims, their network and the host's rules be: the next agent adopts them. Closing stops every VM
 * and removes everything of this instance from the host; only files stay.
 */
#include "agent/life/life_int.h"

#include <stdlib.h>
#include <time.h>

#include "base/cleanup.h"

static int open_parts(struct life *l, const struct life_config *c, struct err *e)
{
    if (host_open(&l->host, c->dir, c->run_base, e) < 0 ||
        (!c->only_stop && host_kernel_find(&l->host, &l->kernel, e) < 0) ||
        admission_init(&l->admission, c->memory_mb, c->vcpus_per_core, e) < 0 ||
        (vmm_host_probe(c->accel, &l->vmm_host, e) < 0 && !c->only_stop))
        return -1;
    l->vmm_host.shim = c->shim;
    l->vmm_host.run_dir = l->host.run_dir;
    if (monitor_start(l, e) < 0)
        return -1;
    return recover_all(l, c, e);
}

static void init_locks(struct life *l)
{
    pthread_condattr_t attr;
    (void)pthread_mutex_init(&l->lock, NULL);
    (void)pthread_condattr_init(&attr);
    (void)pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    (void)pthread_cond_init(&l->transition_ended, &attr);
    (void)pthread_cond_init(&l->changed, &attr);
    (void)pthread_condattr_destroy(&attr);
}

struct life *life_open(const struct life_config *config, struct err *e)
{
    struct life *l = calloc(1, sizeof *l);
    struct err ignored = {0};
    if (!l) {
        (void)err_set(e, ERR_NOMEM, "out of memory");
        return NULL;
    }
    l->host.dir_fd = l->host.sandboxes_fd = l->host.run_fd = l->host.lock_fd = l->epoll_fd =
        l->wake_fd = -1;
    init_locks(l);
    if (open_parts(l, config, e) == 0)
        return l;
    (void)life_close(l, &ignored);
    return NULL;
}

static int stop_one(struct sandbox *s, struct err *e)
{
    struct machine_actions actions;
    int rc;
    if (sandbox_lock(s, e) < 0)
        return -1;
    rc = 0;
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
