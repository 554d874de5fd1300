/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Background work: sandboxes that nobody uses are put to sleep, generations of sleeping ones are
 * merged.
 *
 * Theory of operation: one thread looks every LOOK_MS for sandboxes whose timeout has passed,
 * longest idle first, and hands them to WORKERS threads, each of which pauses one at a time; a
 * worker takes the transition, looks again, and pauses. A failure is tried again after 5 s, then
 * twice as long each time up to 5 min. Tidying comes after all pauses, as nobody waits for it, and
 * leaves alone what a template uses too: machines may run from that.
 */
#define LOG_MODULE "reaper"
#include "agent/life/life_int.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "agent/life/phases.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/log.h"

enum {
    LOOK_MS = 2000, /* requirement A6 */
    WORKERS = 4,    /* pauses at once: what a disk takes before they slow each other down */
    QUEUE_MAX = 256,
    RETRY_MS = 5000,
    RETRY_MS_MAX = 5 * 60 * 1000,
};

struct queue {
    struct sandbox_id ids[QUEUE_MAX];
    size_t n;
};

struct reaper {
    struct life *life;
    pthread_mutex_t lock; /* everything below; life.lock may be taken inside, never the reverse */
    pthread_cond_t wake;  /* monotonic: work has come, or it is to end */
    bool ending;
    struct queue idle;
    struct queue untidy;
    struct sandbox_id busy[WORKERS]; /* being worked on; "" for none */
    pthread_t looker;
    pthread_t workers[WORKERS];
    size_t n_threads; /* of the workers */
    bool looking;
};

/* --- queue --- */

static bool queue_has(const struct queue *q, const struct sandbox_id *id)
{
    for (size_t i = 0; i < q->n; i++)
        if (strcmp(q->ids[i].text, id->text) == 0)
            return true;
    return false;
}

static void queue_add(struct queue *q, const struct sandbox_id *id)
{
    if (q->n < QUEUE_MAX && !queue_has(q, id))
        q->ids[q->n++] = *id;
}

static void queue_take(struct queue *q, struct sandbox_id *ret)
{
    *ret = q->ids[0];
    memmove(q->ids, q->ids + 1, --q->n * sizeof q->ids[0]);
}

static bool is_busy(const struct reaper *r, const struct sandbox_id *id)
{
    for (size_t i = 0; i < WORKERS; i++)
        if (strcmp(r->busy[i].text, id->text) == 0)
            return true;
    return false;
}

/* --- who is idle --- */

/* How long it has been idle beyond its timeout, -1 when it is not to be paused. life.lock. */
static int64_t overdue_ms(const struct sandbox *s, int64_t now_ms, int64_t mono_ms)
{
    int64_t timeout_ms = (int64_t)s->entry.timeout_sec * 1000;
    int64_t idle_ms = now_ms - s->entry.last_active_at_ms;
    if (s->entry.state.status != SANDBOX_RUNNING || timeout_ms == 0 || s->calls > 0 ||
        mono_ms < s->retry_ms || idle_ms < timeout_ms)
        return -1;
    return idle_ms - timeout_ms;
}

struct overdue {
    struct sandbox_id id;
    int64_t ms;
};

static int longest_first(const void *a, const void *b)
{
    const struct overdue *x = a;
    const struct overdue *y = b;
    return (x->ms < y->ms) - (x->ms > y->ms);
}

static size_t find_overdue(struct life *l, struct overdue *dst, size_t max)
{
    int64_t now = clock_real_ms();
    int64_t mono = clock_mono_ms();
    size_t n = 0;
    MUTEX_GUARD(&l->lock);
    for (size_t b = 0; b < REGISTRY_BUCKETS; b++)
        for (struct sandbox *s = l->buckets[b]; s && n < max; s = s->next) {
            int64_t ms = s->in_transition ? -1 : s->journal_owed ? 0 : overdue_ms(s, now, mono);
            if (ms >= 0)
                dst[n++] = (struct overdue){s->entry.id, ms};
        }
    return n;
}

static void look(struct reaper *r)
{
    struct overdue found[QUEUE_MAX];
    size_t n = find_overdue(r->life, found, ARRAY_LEN(found));
    if (n == 0)
        return;
    qsort(found, n, sizeof found[0], longest_first);
    MUTEX_GUARD(&r->lock);
    for (size_t i = 0; i < n; i++)
        if (!is_busy(r, &found[i].id))
            queue_add(&r->idle, &found[i].id);
    (void)pthread_cond_broadcast(&r->wake);
}

/* --- work --- */

static bool still_overdue(struct sandbox *s)
{
    MUTEX_GUARD(&s->life->lock);
    return s->listed && overdue_ms(s, clock_real_ms(), clock_mono_ms()) >= 0;
}

static void note_failure(struct sandbox *s)
{
    int64_t wait = RETRY_MS;
    MUTEX_GUARD(&s->life->lock);
    for (unsigned i = 0; i < s->failures && wait < RETRY_MS_MAX; i++)
        wait *= 2;
    s->failures++;
    s->retry_ms = clock_mono_ms() + (wait < RETRY_MS_MAX ? wait : RETRY_MS_MAX);
}

static void forget_failures(struct sandbox *s)
{
    MUTEX_GUARD(&s->life->lock);
    s->failures = 0;
}

/* Whoever needs the sandbox meanwhile breaks it off; that is no failure. */
static void pause_idle(struct sandbox *s)
{
    struct phases phases;
    struct err e = {0};
    if (!sandbox_trylock(s))
        return;
    if (s->listed && s->journal_owed && sandbox_journal(s, &e) < 0)
        log_warn_limited("what a sandbox is cannot be written down: %s", e.msg);
    if (still_overdue(s)) {
        phases_begin(&phases);
        s->operation = "pause";
        if (pause_sandbox(s, PAUSE_IDLE, &phases, &e) == 0)
            forget_failures(s);
        else if (e.kind != ERR_CONFLICT)
            note_failure(s);
        s->operation = NULL;
    }
    sandbox_unlock(s);
}

static void tidy(struct sandbox *s)
{
    struct uuid id;
    struct err e = {0};
    bool did = false;
    if (sandbox_lock(s, &e) < 0)
        return;
    if (s->listed && s->entry.state.status == SANDBOX_PAUSED &&
        uuid_parse(slice_cstr(s->entry.generation), &id) &&
        generation_pins(s->life->generations, &id) == 1) {
        if (generation_tidy(s->life->generations, &id, &did, &e) < 0)
            log_warn("a generation is not merged: %s", e.msg);
        else if (did)
            log_debug("generation merged");
    }
    sandbox_unlock(s);
}

static void work(struct reaper *r, const struct sandbox_id *id, void (*fn)(struct sandbox *s))
{
    struct err ignored = {0};
    struct sandbox *s = registry_find(r->life, id, &ignored);
    if (!s)
        return;
    log_context_set(NULL, id->text);
    fn(s);
    log_context_set(NULL, NULL);
    sandbox_unref(s);
}

/* The next thing to do; NULL when it is to end. */
static void (*take_work(struct reaper *r, size_t worker, struct sandbox_id *ret))(struct sandbox *)
{
    MUTEX_GUARD(&r->lock);
    r->busy[worker].text[0] = '\0';
    while (!r->ending && r->idle.n == 0 && r->untidy.n == 0)
        (void)pthread_cond_wait(&r->wake, &r->lock);
    if (r->ending)
        return NULL;
    if (r->idle.n > 0) {
        queue_take(&r->idle, ret);
        r->busy[worker] = *ret;
        return pause_idle;
    }
    queue_take(&r->untidy, ret);
    return tidy;
}

struct worker {
    struct reaper *reaper;
    size_t number;
};

static void *run_worker(void *arg)
{
    struct worker w = *(struct worker *)arg;
    struct sandbox_id id;
    void (*fn)(struct sandbox * s);
    free(arg);
    while ((fn = take_work(w.reaper, w.number, &id)))
        work(w.reaper, &id, fn);
    return NULL;
}

/* Waits for the time to look again; false when it is to end. */
static bool wait_look(struct reaper *r)
{
    struct timespec until;
    (void)clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += LOOK_MS / 1000;
    MUTEX_GUARD(&r->lock);
    while (!r->ending)
        if (pthread_cond_timedwait(&r->wake, &r->lock, &until) == ETIMEDOUT)
            break;
    return !r->ending;
}

static void *run_looker(void *arg)
{
    struct reaper *r = arg;
    while (wait_look(r))
        look(r);
    return NULL;
}

/* --- start and stop --- */

static int start_threads(struct reaper *r, struct err *e)
{
    int rc = 0;
    while (rc == 0 && r->n_threads < WORKERS) {
        struct worker *w = malloc(sizeof *w);
        if (!w)
            return err_set(e, ERR_NOMEM, "out of memory");
        *w = (struct worker){r, r->n_threads};
        rc = pthread_create(&r->workers[r->n_threads], NULL, run_worker, w);
        if (rc == 0)
            r->n_threads++;
        else
            free(w);
    }
    if (rc == 0)
        rc = pthread_create(&r->looker, NULL, run_looker, r);
    r->looking = rc == 0;
    return rc == 0 ? 0 : err_sys(e, rc, "reaper thread");
}

struct reaper *reaper_start(struct life *l, struct err *e)
{
    struct reaper *r = calloc(1, sizeof *r);
    pthread_condattr_t attr;
    if (!r) {
        (void)err_set(e, ERR_NOMEM, "out of memory");
        return NULL;
    }
    r->life = l;
    (void)pthread_mutex_init(&r->lock, NULL);
    (void)pthread_condattr_init(&attr);
    (void)pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    (void)pthread_cond_init(&r->wake, &attr);
    (void)pthread_condattr_destroy(&attr);
    if (start_threads(r, e) == 0)
        return r;
    reaper_stop(r);
    return NULL;
}

void reaper_stop(struct reaper *r)
{
    if (!r)
        return;
    {
        MUTEX_GUARD(&r->lock);
        r->ending = true;
        (void)pthread_cond_broadcast(&r->wake);
    }
    if (r->looking)
        (void)pthread_join(r->looker, NULL);
    for (size_t i = 0; i < r->n_threads; i++)
        (void)pthread_join(r->workers[i], NULL);
    (void)pthread_cond_destroy(&r->wake);
    (void)pthread_mutex_destroy(&r->lock);
    free(r);
}

void reaper_tidy_later(struct reaper *r, const struct sandbox_id *id)
{
    if (!r)
        return;
    MUTEX_GUARD(&r->lock);
    queue_add(&r->untidy, id);
    (void)pthread_cond_broadcast(&r->wake);
}
