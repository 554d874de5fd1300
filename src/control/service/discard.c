/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The discarder: one thread that works off the snapshot removals of the database.
 *
 * Theory of operation
 * Nothing is kept in memory: each look reads what is due on the host that answers now, asks that
 * host to delete it, and takes it out of the database when the host has. A try that fails comes
 * again after a while. A snapshot that a create is using right now waits: the create has seen the
 * template before it went, and must not lose it (pins.h). Bytes that sandboxes still need are the
 * host's to keep.
 */
#include "control/service/discard.h"

#include "control/service/service_int.h"

#include <time.h>

#define LOG_MODULE "discard"
#include "base/arena.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/log.h"

enum {
    LOOK_MS = 2000,  /* between two looks when nothing is said to be due */
    RETRY_MS = 1000, /* before the next try of one that did not work */
    DELETE_MS = 60000,
};

static int delete_on_host(struct service *s, const struct template_id *id, struct err *e)
{
    CLEANUP(arena_done) struct arena arena = {0};
    char call_id[CALL_ID_MAX + 1];
    struct agent_delete_snapshot_response resp = {0};
    struct agent_delete_snapshot_request req = {
        .snapshot_id = slice_cstr(id->text),
        .request_id = {call_id, CALL_ID_MAX},
    };
    arena_init(&arena, 4096);
    call_id_new(call_id);
    if (agent_call(s->agent, AGENT_DELETE_SNAPSHOT, &req, &resp, &arena, DELETE_MS, e) == 0 ||
        e->kind == ERR_NOT_FOUND)
        return 0;
    return -1;
}

static int discard_one(struct service *s, const struct template_id *id, struct err *e)
{
    if (pin_is_held(&s->pins, id) || delete_on_host(s, id, e) < 0)
        return s->store->ops->removal_delay(s->store, id, clock_real_ms() + RETRY_MS, e);
    log_info("snapshot removed template_id=%s", id->text);
    return s->store->ops->removal_done(s->store, id, e);
}

static void discard_due(struct service *s)
{
    const struct host_id host = service_host(s);
    struct removals_due due;
    struct err e = {0};
    if (!host.text[0])
        return;
    if (s->store->ops->removal_due(s->store, &host, clock_real_ms(), &due, &e) < 0) {
        log_warn_limited("removals of snapshots cannot be read error=\"%s\"", e.msg);
        return;
    }
    for (size_t i = 0; i < due.n; i++) {
        e = (struct err){0};
        (void)discard_one(s, &due.ids[i], &e);
        if (e.kind != ERR_NONE && e.kind != ERR_NOT_FOUND)
            log_warn_limited(
                "snapshot is not removed template_id=%s error=\"%s\"", due.ids[i].text, e.msg);
    }
}

/* Waits for a kick, or some time. False at the stop. */
static bool wait_kick(struct discarder *d)
{
    int64_t until = clock_mono_ms() + LOOK_MS;
    struct timespec ts = {.tv_sec = until / 1000, .tv_nsec = until % 1000 * 1000000};
    MUTEX_GUARD(&d->mutex);
    while (!d->stopping && !d->kicked && clock_mono_ms() < until)
        (void)pthread_cond_timedwait(&d->changed, &d->mutex, &ts);
    d->kicked = false;
    return !d->stopping;
}

static void *run_discarder(void *arg)
{
    struct discarder *d = arg;
    while (wait_kick(d))
        discard_due(d->service);
    return NULL;
}

int discarder_start(struct discarder *d, struct service *s, struct err *e)
{
    pthread_condattr_t attr;
    int rc;
    *d = (struct discarder){.service = s};
    (void)pthread_mutex_init(&d->mutex, NULL);
    (void)pthread_condattr_init(&attr);
    (void)pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    (void)pthread_cond_init(&d->changed, &attr);
    (void)pthread_condattr_destroy(&attr);
    rc = pthread_create(&d->thread, NULL, run_discarder, d);
    if (rc == 0)
        return 0;
    (void)pthread_cond_destroy(&d->changed);
    (void)pthread_mutex_destroy(&d->mutex);
    return err_sys(e, rc, "start a thread");
}

void discarder_stop(struct discarder *d)
{
    {
        MUTEX_GUARD(&d->mutex);
        d->stopping = true;
        (void)pthread_cond_broadcast(&d->changed);
    }
    (void)pthread_join(d->thread, NULL);
    (void)pthread_cond_destroy(&d->changed);
    (void)pthread_mutex_destroy(&d->mutex);
}

void discarder_kick(struct discarder *d)
{
    MUTEX_GUARD(&d->mutex);
    d->kicked = true;
    (void)pthread_cond_signal(&d->changed);
}
