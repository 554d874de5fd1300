/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Opening and closing one host.
 *
 * Theory of operation: opening first ends what an earlier agent left running (its shims and VMMs by
 * their sockets, its network by its names), then reads the sandboxes on disk. A sandbox whose
 * journal says that it ran has lost its VM: it becomes `stopped`, reason vm_exited, and keeps its
 * files until a DELETE. A folder without a journal is a create that nobody was told of: it is
 * removed.
 */
#define LOG_MODULE "life"
#include "agent/life/life_int.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/io.h"
#include "base/log.h"

enum { SLOTS_READY = 16 }; /* enough for a burst; each costs a namespace */

/* Takes a journalled sandbox into the table. */
static int adopt(struct life *l, struct sandbox *s, struct err *e)
{
    struct machine_actions actions;
    struct sandbox *other = NULL;
    if (sandbox_event(s, EVENT_AGENT_STARTED, "the agent was restarted", &actions) &&
        actions.write_journal && sandbox_journal(s, e) < 0)
        return -1;
    if (registry_add(l, s, &other, e) == 0)
        return 0;
    sandbox_unref(other);
    return -1;
}

/* Keeps a damaged sandbox visible; its files are left as they are. */
static int keep_damaged(struct life *l, struct sandbox *s, struct err *e)
{
    struct sandbox *other = NULL;
    log_err("cannot read sandbox id=%s: %s", s->entry.id.text, e->msg);
    s->entry.state.status = SANDBOX_ERROR;
    s->entry.state.reason = REASON_RESTORE_FAILED;
    (void)snprintf(s->entry.message, sizeof s->entry.message, "its state on disk is damaged");
    if (registry_add(l, s, &other, e) == 0)
        return 0;
    sandbox_unref(other);
    return -1;
}

static int load_one(struct life *l, const struct sandbox_id *id, struct err *e)
{
    struct sandbox *s = sandbox_new(l, id);
    struct journal_entry found;
    int rc;
    if (!s)
        return err_set(e, ERR_NOMEM, "out of memory");
    s->dir_fd = openat(l->host.sandboxes_fd, id->text, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (s->dir_fd < 0) {
        rc = err_sys(e, errno, "open");
    } else if (journal_read(s->dir_fd, &found, e) == 0) {
        if (strcmp(found.id.text, id->text) == 0) {
            s->entry = found;
            rc = adopt(l, s, e);
        } else {
            (void)err_set(e, ERR_INVALID, "its journal names another sandbox");
            rc = keep_damaged(l, s, e);
        }
    } else if (e->errnum == ENOENT) {
        log_warn("removing a sandbox folder without a journal name=%s", id->text);
        rc = io_remove_tree(l->host.sandboxes_fd, id->text, e);
    } else {
        rc = keep_damaged(l, s, e);
    }
    sandbox_unref(s);
    return rc;
}

/* What cannot be read is said and left alone; the others are served. */
static int load_all(struct life *l, struct err *e)
{
    int fd = openat(l->host.sandboxes_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *d = fd < 0 ? NULL : fdopendir(fd);
    struct dirent *ent;
    if (!d) {
        (void)err_sys(e, errno, "read the sandboxes' folder");
        if (fd >= 0)
            (void)close(fd);
        return -1;
    }
    while ((ent = readdir(d))) {
        struct sandbox_id id;
        struct err one = {0};
        if (sandbox_id_parse(slice_cstr(ent->d_name), &id) && load_one(l, &id, &one) < 0)
            log_err("cannot read sandbox id=%s: %s", ent->d_name, one.msg);
    }
    (void)closedir(d);
    return 0;
}

static int open_network(struct life *l, const struct life_config *c, struct err *e)
{
    const struct net_config net = {.instance = l->host.instance,
        .range = c->net_range,
        .slots = c->slots,
        .ready = c->slots < SLOTS_READY ? c->slots : SLOTS_READY,
        .uid_base = c->uid_base + l->host.instance * HOST_UIDS,
        .helper = c->self,
        .resolver = c->resolver};
    l->net = net_pool_open(&net, e);
    return l->net ? 0 : err_wrap(e, "network");
}

static int open_parts(struct life *l, const struct life_config *c, struct err *e)
{
    if (host_open(&l->host, c->dir, c->run_base, e) < 0 ||
        host_kernel_find(&l->host, &l->kernel, e) < 0 ||
        admission_init(&l->admission, c->memory_mb, e) < 0 ||
        vmm_host_probe(c->accel, &l->vmm_host, e) < 0)
        return -1;
    l->vmm_host.shim = c->shim;
    l->vmm_host.run_dir = l->host.run_dir;
    if (vmm_remove_leftovers(&l->vmm_host, /* keep= */ NULL, /* ctx= */ NULL, e) < 0 ||
        open_network(l, c, e) < 0 || load_all(l, e) < 0)
        return -1;
    return monitor_start(l, e);
}

static void init_locks(struct life *l)
{
    pthread_condattr_t attr;
    (void)pthread_mutex_init(&l->lock, NULL);
    (void)pthread_condattr_init(&attr);
    (void)pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    (void)pthread_cond_init(&l->transition_ended, &attr);
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
    l->host.dir_fd = l->host.sandboxes_fd = l->host.lock_fd = l->epoll_fd = l->wake_fd = -1;
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
        rc = resources_release(s, e);
        if (sandbox_journal(s, e) < 0)
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
        registry_remove(l, list[i]);
        sandbox_unref(list[i]);
    }
    free(list);
    return rc;
}

int life_close(struct life *l, struct err *e)
{
    struct err net = {0};
    int rc;
    {
        MUTEX_GUARD(&l->lock);
        l->closing = true;
    }
    rc = stop_all(l, e);
    monitor_stop(l);
    if (l->net && net_pool_close(l->net, &net) < 0)
        rc = err_join(e, &net);
    admission_done(&l->admission);
    vmm_host_done(&l->vmm_host);
    host_done(&l->host);
    (void)pthread_cond_destroy(&l->transition_ended);
    (void)pthread_mutex_destroy(&l->lock);
    free(l);
    return rc;
}
