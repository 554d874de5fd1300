/* SPDX-License-Identifier: Apache-2.0 */
/* The service itself: its parts, its background thread, and what only reads. */
#include "control/service/service_int.h"

#include <time.h>

#define LOG_MODULE "service"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/rand.h"

enum {
    POLL_MS = 5000,
    GAP_MS = 200,
    AWAY_MS = 1000, /* between two tries to reach an agent that is away */
    FULL_EVERY_MS = 300000,
    SNAPSHOT_DOUBT_MS = 600000, /* twice what the call may take: the host may go on with it */
    FLUSH_MS = 1000,
    READY_GRACE_MS = 2000, /* an agent that was silent for longer is away */
    PURGE_EVERY_MS = 3600000,
};
#define KEEP_OVER_MS (30LL * 24 * 3600 * 1000) /* destroyed sandboxes are shown for 30 days */

void call_id_new(char dst[CALL_ID_MAX + 1])
{
    rand_base32(dst, CALL_ID_MAX);
}

struct host_id service_host(struct service *s)
{
    MUTEX_GUARD(&s->catalog.mutex);
    return s->catalog.host;
}

int service_ready(struct service *s, struct err *e)
{
    int64_t seen;
    if (s->store->ops->check(s->store, e) < 0)
        return -1;
    {
        MUTEX_GUARD(&s->catalog.mutex);
        seen = s->catalog.seen_mono_ms;
    }
    if (seen == 0 || clock_mono_ms() - seen > READY_GRACE_MS + s->config.poll_ms)
        return err_set(e, ERR_UNAVAILABLE, "the host agent does not answer");
    return 0;
}

static void overlay_activity(struct service *s, struct sandbox_row *row)
{
    int64_t at = activity_get(&s->activity, row->id.text);
    if (at > row->last_active_at_ms)
        row->last_active_at_ms = at;
}

int service_load(struct service *s, const struct principal *who, const struct sandbox_id *id,
    struct arena *a, struct sandbox_row *ret, struct err *e)
{
    struct sandbox_row row;
    if (s->store->ops->sandbox_get(s->store, who ? &who->team : NULL, id, a, &row, e) < 0)
        return -1;
    overlay_activity(s, &row);
    *ret = row;
    return 0;
}

int service_get(struct service *s, const struct principal *who, const struct sandbox_id *id,
    struct arena *a, struct sandbox_row *ret, struct err *e)
{
    return service_load(s, who, id, a, ret, e);
}

int service_list(struct service *s, const struct principal *who, struct sandbox_query *q,
    struct arena *a, struct sandbox_list *ret, struct err *e)
{
    q->team = who->team;
    if (s->store->ops->sandbox_list(s->store, q, a, ret, e) < 0)
        return -1;
    for (size_t i = 0; i < ret->n; i++)
        overlay_activity(s, &ret->rows[i]);
    return 0;
}

/* --- the background threads --- */

/* Waits until `until` or the stop. True to go on. */
static bool wait_until(struct service *s, int64_t until)
{
    struct timespec ts = {.tv_sec = until / 1000, .tv_nsec = until % 1000 * 1000000};
    MUTEX_GUARD(&s->stop_mutex);
    while (!s->stopping && clock_mono_ms() < until)
        (void)pthread_cond_timedwait(&s->stop_cond, &s->stop_mutex, &ts);
    return !s->stopping;
}

static void flush_activity(struct service *s)
{
    struct err e = {0};
    if (activity_flush(&s->activity, s->store, &e) < 0)
        log_warn_limited("activity is not written error=\"%s\"", e.msg);
}

static void purge_old(struct service *s)
{
    struct err e = {0};
    size_t removed = 0;
    if (s->store->ops->sandbox_purge(s->store, clock_real_ms() - KEEP_OVER_MS, &removed, &e) < 0)
        log_warn("old sandboxes are not removed error=\"%s\"", e.msg);
    else if (removed > 0)
        log_info("old sandboxes removed count=%zu", removed);
}

static bool is_stopping(struct service *s)
{
    MUTEX_GUARD(&s->stop_mutex);
    return s->stopping;
}

/* Says once that the agent is away, and once that it is back. What we broke off ourselves at the
 * stop is no news. */
static void poll_agent(struct service *s, bool *away)
{
    struct err e = {0};
    bool failed = service_poll(s, &e) < 0;
    if (failed && is_stopping(s))
        return;
    if (failed && !*away)
        log_warn("the agent does not answer error=\"%s\"", e.msg);
    if (!failed && *away)
        log_info("the agent answers again");
    *away = failed;
}

static void *run_reconciler(void *arg)
{
    struct service *s = arg;
    const struct service_config *c = &s->config;
    bool away = false;
    int64_t pause_ms;
    do {
        poll_agent(s, &away);
        pause_ms = away && AWAY_MS < c->poll_ms ? AWAY_MS : s->poll.gap_ms;
    } while (wait_until(s, clock_mono_ms() + pause_ms));
    return NULL;
}

static void *run_housekeeper(void *arg)
{
    struct service *s = arg;
    int64_t next_purge = clock_mono_ms();
    do {
        flush_activity(s);
        if (clock_mono_ms() >= next_purge) {
            purge_old(s);
            next_purge = clock_mono_ms() + PURGE_EVERY_MS;
        }
    } while (wait_until(s, clock_mono_ms() + FLUSH_MS));
    flush_activity(s);
    return NULL;
}

static void init_stop_cond(struct service *s)
{
    pthread_condattr_t attr;
    (void)pthread_condattr_init(&attr);
    (void)pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    (void)pthread_cond_init(&s->stop_cond, &attr);
    (void)pthread_condattr_destroy(&attr);
}

static void service_free(struct service *s)
{
    activity_done(&s->activity);
    lock_table_done(&s->locks);
    pin_table_done(&s->pins);
    catalog_done(&s->catalog);
    (void)pthread_mutex_destroy(&s->stop_mutex);
    (void)pthread_cond_destroy(&s->stop_cond);
    free(s);
}

static void set_config(struct service *s, const struct service_config *config)
{
    s->config = *config;
    s->config.poll_ms = config->poll_ms ? config->poll_ms : POLL_MS;
    s->config.gap_ms = config->gap_ms ? config->gap_ms : GAP_MS;
    s->config.full_every_ms = config->full_every_ms ? config->full_every_ms : FULL_EVERY_MS;
    s->config.snapshot_doubt_ms =
        config->snapshot_doubt_ms ? config->snapshot_doubt_ms : SNAPSHOT_DOUBT_MS;
    s->config.lock_wait_ms = config->lock_wait_ms ? config->lock_wait_ms : LIMIT_TRANSITION_WAIT_MS;
    s->store = config->store;
    s->agent = config->agent;
    s->poll.gap_ms = s->config.gap_ms;
}

/* Ends the threads that run; `reconciler` says whether that one does. */
static void stop_threads(struct service *s, bool reconciler)
{
    {
        MUTEX_GUARD(&s->stop_mutex);
        s->stopping = true;
        (void)pthread_cond_broadcast(&s->stop_cond);
    }
    agent_interrupt(s->agent);
    if (reconciler)
        (void)pthread_join(s->reconciler, NULL);
    discarder_stop(&s->discarder);
    remover_stop(&s->remover);
}

static int start_threads(struct service *s, struct err *e)
{
    int rc;
    if (remover_start(&s->remover, s, e) < 0)
        return -1;
    if (discarder_start(&s->discarder, s, e) < 0) {
        remover_stop(&s->remover);
        return -1;
    }
    rc = pthread_create(&s->reconciler, NULL, run_reconciler, s);
    if (rc != 0) {
        stop_threads(s, /* reconciler= */ false);
        return err_sys(e, rc, "start a thread");
    }
    rc = pthread_create(&s->housekeeper, NULL, run_housekeeper, s);
    if (rc != 0) {
        stop_threads(s, /* reconciler= */ true);
        return err_sys(e, rc, "start a thread");
    }
    return 0;
}

int service_open(const struct service_config *config, struct service **ret, struct err *e)
{
    struct service *s = calloc(1, sizeof *s);
    if (!s)
        return err_set(e, ERR_NOMEM, "out of memory");
    set_config(s, config);
    lock_table_init(&s->locks);
    pin_table_init(&s->pins);
    catalog_init(&s->catalog);
    (void)pthread_mutex_init(&s->stop_mutex, NULL);
    init_stop_cond(s);
    if (activity_init(&s->activity, e) < 0 || start_threads(s, e) < 0) {
        service_free(s);
        return -1;
    }
    *ret = s;
    return 0;
}

struct service *service_close(struct service *s)
{
    if (!s)
        return NULL;
    stop_threads(s, /* reconciler= */ true);
    (void)pthread_join(s->housekeeper, NULL);
    service_free(s);
    return NULL;
}
