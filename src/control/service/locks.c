/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Transition locks.
 *
 * A list is enough: it holds as many entries as there are requests that change a sandbox right now.
 * All waiters share one condition; a release wakes them all, and those whose id is still held wait
 * on.
 */
#include "control/service/locks.h"

#include <assert.h>
#include <time.h>

#include "base/cleanup.h"
#include "base/clock.h"

void lock_table_init(struct lock_table *t)
{
    pthread_condattr_t attr;
    *t = (struct lock_table){0};
    (void)pthread_mutex_init(&t->mutex, NULL);
    (void)pthread_condattr_init(&attr);
    (void)pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    (void)pthread_cond_init(&t->released, &attr);
    (void)pthread_condattr_destroy(&attr);
}

void lock_table_done(struct lock_table *t)
{
    assert(!t->held);
    (void)pthread_cond_destroy(&t->released);
    (void)pthread_mutex_destroy(&t->mutex);
}

static const struct lock_entry *holder(const struct lock_table *t, const struct sandbox_id *id)
{
    for (const struct lock_entry *x = t->held; x; x = x->next)
        if (strcmp(x->id.text, id->text) == 0)
            return x;
    return NULL;
}

int lock_acquire(struct lock_table *t, const struct sandbox_id *id, int64_t deadline,
    struct lock_entry *ret, struct err *e)
{
    struct timespec until = {.tv_sec = deadline / 1000, .tv_nsec = deadline % 1000 * 1000000};
    MUTEX_GUARD(&t->mutex);
    while (holder(t, id)) {
        if (clock_mono_ms() >= deadline)
            return err_set(e, ERR_CONFLICT, "another transition of the sandbox is under way");
        (void)pthread_cond_timedwait(&t->released, &t->mutex, &until);
    }
    *ret = (struct lock_entry){.table = t, .id = *id, .next = t->held};
    t->held = ret;
    return 0;
}

void lock_let_break_off(struct lock_entry *held)
{
    MUTEX_GUARD(&held->table->mutex);
    held->breaks_off = true;
}

bool lock_breaks_off(struct lock_table *t, const struct sandbox_id *id)
{
    const struct lock_entry *x;
    MUTEX_GUARD(&t->mutex);
    x = holder(t, id);
    return x && x->breaks_off;
}

static void remove_entry(struct lock_table *t, struct lock_entry *entry)
{
    for (struct lock_entry **at = &t->held; *at; at = &(*at)->next)
        if (*at == entry) {
            *at = entry->next;
            break;
        }
    entry->table = NULL;
    (void)pthread_cond_broadcast(&t->released);
}

void lock_release(struct lock_entry *entry)
{
    struct lock_table *t = entry->table;
    if (!t)
        return;
    MUTEX_GUARD(&t->mutex);
    remove_entry(t, entry);
}

void lock_note_change(struct lock_table *t)
{
    MUTEX_GUARD(&t->mutex);
    t->changes++;
    (void)pthread_cond_broadcast(&t->released);
}

bool lock_release_and_wait(struct lock_entry *held, int64_t deadline)
{
    struct timespec until = {.tv_sec = deadline / 1000, .tv_nsec = deadline % 1000 * 1000000};
    struct lock_table *t = held->table;
    MUTEX_GUARD(&t->mutex);
    uint64_t seen = t->changes;
    remove_entry(t, held);
    while (t->changes == seen && clock_mono_ms() < deadline)
        (void)pthread_cond_timedwait(&t->released, &t->mutex, &until);
    return t->changes != seen;
}
