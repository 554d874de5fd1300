/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The remover: a bounded set of sandboxes to destroy on the host, and a few threads that do it.
 *
 * Theory of operation
 * Whoever finds that the host still has what is over (the reconciler, a create that failed) notes
 * it here and goes on. Each try looks at the row again, under the sandbox's lock: only a row that
 * is over, and whose own host is the one that answers now, destroys. A try that fails comes again
 * after a second, doubling to a minute. So a call that hangs holds one thread and delays neither
 * the reconciler nor other removals. The set is only in memory: it follows from the database and
 * what the host says.
 */
#include "control/service/remover.h"

#include "control/service/decide.h"
#include "control/service/service_int.h"

#include <time.h>

#define LOG_MODULE "remover"
#include "base/arena.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/log.h"

enum {
    BACKOFF_FIRST_MS = 1000,
    BACKOFF_MAX_MS = 60000,
    ROW_ARENA_BYTES = 256 * 1024,
    FAR_MS = 3600000, /* waits without anything to do are renewed now and then */
};

/* --- one sandbox --- */

/* Whether its row asks for it. -1 when that could not be found out. */
static int is_wanted(struct service *s, const struct sandbox_id *id)
{
    CLEANUP(arena_done) struct arena arena = {0};
    struct sandbox_row row;
    struct host_id host = service_host(s);
    struct err e = {0};
    arena_init(&arena, ROW_ARENA_BYTES);
    if (service_load(s, NULL, id, &arena, &row, &e) < 0)
        return e.kind == ERR_NOT_FOUND ? 0 : -1;
    return sandbox_row_is_over(&row) && strcmp(row.host.text, host.text) == 0;
}

/* 0: nothing is left to do. -1: to be tried again. */
static int remove_one(struct service *s, const struct sandbox_id *id)
{
    struct err e = {0};
    AUTO_LOCK lock = {0};
    int wanted;
    if (lock_acquire(&s->locks, id, 0, &lock, &e) < 0)
        return -1;
    wanted = is_wanted(s, id);
    if (wanted <= 0)
        return wanted;
    if (service_destroy_on_host(s, id, &e) < 0) {
        log_warn_limited("sandbox_id=%s is over but not removed error=\"%s\"", id->text, e.msg);
        return -1;
    }
    log_info("what the host still had of sandbox_id=%s is removed", id->text);
    return 0;
}

/* --- the set --- */

static struct removal *find(struct remover *r, const struct sandbox_id *id)
{
    for (size_t i = 0; i < r->n; i++)
        if (strcmp(r->items[i].id.text, id->text) == 0)
            return &r->items[i];
    return NULL;
}

bool remover_add(struct remover *r, const struct sandbox_id *id)
{
    MUTEX_GUARD(&r->mutex);
    if (find(r, id))
        return true;
    if (r->n == REMOVALS_MAX)
        return false;
    r->items[r->n++] = (struct removal){.id = *id, .backoff_ms = BACKOFF_FIRST_MS};
    (void)pthread_cond_signal(&r->changed);
    return true;
}

size_t remover_count(struct remover *r)
{
    MUTEX_GUARD(&r->mutex);
    return r->n;
}

/* One that is due, or NULL and when the next one is. */
static struct removal *next_due(struct remover *r, int64_t now, int64_t *ret_next)
{
    *ret_next = now + FAR_MS;
    for (size_t i = 0; i < r->n; i++) {
        struct removal *x = &r->items[i];
        if (x->busy)
            continue;
        if (x->due_mono_ms <= now)
            return x;
        if (x->due_mono_ms < *ret_next)
            *ret_next = x->due_mono_ms;
    }
    return NULL;
}

/* Waits for one that is due and marks it busy. False at the stop. */
static bool take(struct remover *r, struct sandbox_id *ret)
{
    MUTEX_GUARD(&r->mutex);
    while (!r->stopping) {
        int64_t next;
        struct removal *x = next_due(r, clock_mono_ms(), &next);
        struct timespec until = {.tv_sec = next / 1000, .tv_nsec = next % 1000 * 1000000};
        if (x) {
            x->busy = true;
            *ret = x->id;
            return true;
        }
        (void)pthread_cond_timedwait(&r->changed, &r->mutex, &until);
    }
    return false;
}

static void put_back(struct remover *r, const struct sandbox_id *id, bool done)
{
    MUTEX_GUARD(&r->mutex);
    struct removal *x = find(r, id);
    if (done) {
        *x = r->items[--r->n];
        return;
    }
    x->busy = false;
    x->due_mono_ms = clock_mono_ms() + x->backoff_ms;
    x->backoff_ms = x->backoff_ms * 2 < BACKOFF_MAX_MS ? x->backoff_ms * 2 : BACKOFF_MAX_MS;
}

static void *run_remover(void *arg)
{
    struct remover *r = arg;
    struct sandbox_id id;
    while (take(r, &id))
        put_back(r, &id, /* done= */ remove_one(r->service, &id) == 0);
    return NULL;
}

int remover_start(struct remover *r, struct service *s, struct err *e)
{
    pthread_condattr_t attr;
    *r = (struct remover){.service = s};
    (void)pthread_mutex_init(&r->mutex, NULL);
    (void)pthread_condattr_init(&attr);
    (void)pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    (void)pthread_cond_init(&r->changed, &attr);
    (void)pthread_condattr_destroy(&attr);
    for (; r->n_threads < REMOVER_THREADS; r->n_threads++) {
        int rc = pthread_create(&r->threads[r->n_threads], NULL, run_remover, r);
        if (rc != 0) {
            remover_stop(r);
            return err_sys(e, rc, "start a thread");
        }
    }
    return 0;
}

void remover_stop(struct remover *r)
{
    {
        MUTEX_GUARD(&r->mutex);
        r->stopping = true;
        (void)pthread_cond_broadcast(&r->changed);
    }
    for (size_t i = 0; i < r->n_threads; i++)
        (void)pthread_join(r->threads[i], NULL);
    (void)pthread_cond_destroy(&r->changed);
    (void)pthread_mutex_destroy(&r->mutex);
}
