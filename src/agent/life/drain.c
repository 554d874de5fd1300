/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Putting everything to sleep before planned maintenance.
 *
 * Theory of operation: a few threads take one sandbox after the other. Nothing is stopped: one that
 * cannot be paused runs on and is said, and afterwards the host is left as by an agent that ends,
 * so that the next one adopts what runs. (life_close, in contrast, leaves nothing.)
 */
#define LOG_MODULE "drain"
#include "agent/life/life_int.h"

#include <stdlib.h>

#include "agent/life/phases.h"
#include "base/cleanup.h"
#include "base/log.h"

enum { WORKERS = 4 /* pauses at once, as the reaper's */ };

struct drain {
    struct sandbox **list;
    size_t n;
    pthread_mutex_t lock; /* the rest */
    size_t next;
    size_t slept;
    size_t failed;
    struct err all;
};

/* 1: it sleeps now. 0: it did not run. */
static int drain_one(struct sandbox *s, struct err *e)
{
    struct phases phases;
    int rc = 0;
    if (sandbox_lock(s, e) < 0)
        return -1;
    if (s->entry.state.status == SANDBOX_RUNNING) {
        phases_begin(&phases);
        s->operation = "pause";
        rc = pause_sandbox(s, PAUSE_REQUESTED, &phases, e) < 0 ? -1 : 1;
        s->operation = NULL;
    }
    sandbox_unlock(s);
    return rc;
}

static struct sandbox *take(struct drain *d)
{
    MUTEX_GUARD(&d->lock);
    return d->next < d->n ? d->list[d->next++] : NULL;
}

static void count(struct drain *d, const struct sandbox *s, int rc, struct err *e)
{
    MUTEX_GUARD(&d->lock);
    d->slept += rc > 0;
    d->failed += rc < 0;
    if (rc < 0) {
        (void)err_wrap(e, "%s", s->entry.id.text);
        (void)err_join(&d->all, e);
    }
}

static void *run(void *arg)
{
    struct drain *d = arg;
    struct sandbox *s;
    while ((s = take(d))) {
        struct err e = {0};
        int rc;
        log_context_set(NULL, s->entry.id.text);
        rc = drain_one(s, &e);
        log_context_set(NULL, NULL);
        count(d, s, rc, &e);
    }
    return NULL;
}

static void run_all(struct drain *d)
{
    pthread_t threads[WORKERS];
    size_t n = 0;
    while (n < WORKERS - 1 && pthread_create(&threads[n], NULL, run, d) == 0)
        n++;
    (void)run(d); /* this one too; alone if need be */
    while (n > 0)
        (void)pthread_join(threads[--n], NULL);
}

int life_drain(struct life *l, struct err *e)
{
    struct drain d = {0};
    struct err leave = {0};
    d.list = registry_all(l, &d.n, e);
    if (!d.list) {
        (void)life_leave(l, &leave);
        return -1;
    }
    (void)pthread_mutex_init(&d.lock, NULL);
    run_all(&d);
    (void)pthread_mutex_destroy(&d.lock);
    for (size_t i = 0; i < d.n; i++)
        sandbox_unref(d.list[i]);
    free(d.list);
    log_info("drained slept=%zu failed=%zu", d.slept, d.failed);
    if (life_leave(l, &leave) < 0)
        (void)err_join(&d.all, &leave);
    if (d.all.kind == ERR_NONE)
        return 0;
    *e = d.all;
    return -1;
}
