/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Gathered activity.
 *
 * Theory of operation
 * A hash table of fixed size, three quarters full at most, so notes cost no allocation and an exec
 * no write. A flush copies the notes out, writes them in one transaction without holding the mutex,
 * and then removes those that were not renewed meanwhile: a note is visible through activity_get
 * until the database has it.
 */
#include "control/service/activity.h"

#include <stdio.h>

#include "base/cleanup.h"

enum { FILL_MAX = ACTIVITY_SLOTS / 4 * 3 };

int activity_init(struct activity *a, struct err *e)
{
    *a = (struct activity){.slots = calloc(ACTIVITY_SLOTS, sizeof *a->slots)};
    if (!a->slots)
        return err_set(e, ERR_NOMEM, "out of memory");
    (void)pthread_mutex_init(&a->mutex, NULL);
    return 0;
}

void activity_done(struct activity *a)
{
    if (!a->slots)
        return;
    free(TAKE_PTR(a->slots));
    (void)pthread_mutex_destroy(&a->mutex);
}

/* The slot of `id`, or the free one where it would go. */
static struct touch *find(struct touch *slots, const char *id)
{
    uint32_t h = 2166136261u; /* FNV-1a; ids are random, nobody chooses collisions */
    for (const char *p = id; *p; p++)
        h = (h ^ (unsigned char)*p) * 16777619u;
    while (slots[h % ACTIVITY_SLOTS].id[0] && strcmp(slots[h % ACTIVITY_SLOTS].id, id) != 0)
        h++;
    return &slots[h % ACTIVITY_SLOTS];
}

static void put(struct activity *a, const char *id, int64_t at_ms)
{
    struct touch *t = find(a->slots, id);
    if (!t->id[0]) {
        if (a->n == FILL_MAX)
            return;
        (void)snprintf(t->id, sizeof t->id, "%s", id);
        t->at_ms = 0;
        a->n++;
    }
    if (at_ms > t->at_ms)
        t->at_ms = at_ms;
}

void activity_note(struct activity *a, const char *id, int64_t at_ms)
{
    MUTEX_GUARD(&a->mutex);
    put(a, id, at_ms);
}

int64_t activity_get(struct activity *a, const char *id)
{
    MUTEX_GUARD(&a->mutex);
    const struct touch *t = find(a->slots, id);
    return t->id[0] ? t->at_ms : 0;
}

static size_t copy_out(struct activity *a, struct touch *dst)
{
    size_t n = 0;
    MUTEX_GUARD(&a->mutex);
    for (size_t i = 0; i < ACTIVITY_SLOTS; i++)
        if (a->slots[i].id[0])
            dst[n++] = a->slots[i];
    return n;
}

/* Rebuilds the table without the notes that were written and not renewed. */
static void drop_written(
    struct activity *a, const struct touch *written, size_t n, struct touch *scratch)
{
    size_t left = 0;
    MUTEX_GUARD(&a->mutex);
    for (size_t i = 0; i < n; i++) {
        struct touch *t = find(a->slots, written[i].id);
        if (t->at_ms == written[i].at_ms)
            t->at_ms = 0;
    }
    for (size_t i = 0; i < ACTIVITY_SLOTS; i++)
        if (a->slots[i].id[0] && a->slots[i].at_ms != 0)
            scratch[left++] = a->slots[i];
    memset(a->slots, 0, ACTIVITY_SLOTS * sizeof *a->slots);
    a->n = 0;
    for (size_t i = 0; i < left; i++)
        put(a, scratch[i].id, scratch[i].at_ms);
}

int activity_flush(struct activity *a, struct store *store, struct err *e)
{
    AUTO_FREE struct touch *out = NULL;
    size_t n;
    {
        MUTEX_GUARD(&a->mutex);
        n = a->n;
    }
    if (n == 0)
        return 0;
    out = calloc(2 * (size_t)FILL_MAX, sizeof *out);
    if (!out)
        return err_set(e, ERR_NOMEM, "out of memory");
    n = copy_out(a, out);
    if (store->ops->touch(store, out, n, e) < 0)
        return -1;
    drop_written(a, out, n, out + FILL_MAX);
    return 0;
}
