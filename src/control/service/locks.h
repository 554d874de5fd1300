/* SPDX-License-Identifier: Apache-2.0 */
/* One transition at a time per sandbox. */
#ifndef TORPOR_CONTROL_SERVICE_LOCKS_H
#define TORPOR_CONTROL_SERVICE_LOCKS_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "proto/sandbox.h"

/* A set of ids that are in transition. The entries are the holders' own memory. */
struct lock_table {
    pthread_mutex_t mutex;
    pthread_cond_t released;
    struct lock_entry *held;
    uint64_t changes; /* of rows, by those who held the lock; see lock_note_change */
};

struct lock_entry {
    struct lock_table *table; /* NULL: not held */
    struct sandbox_id id;
    bool breaks_off; /* a destroy on the host ends what the holder does */
    struct lock_entry *next;
};

void lock_table_init(struct lock_table *t);
/* Nobody may hold or wait for anything. */
void lock_table_done(struct lock_table *t);

/* Waits until `deadline` (0: not at all) for the transition that is under way on `id` to end, then
 * holds it by `ret` until lock_release. ERR_CONFLICT when the time has passed. */
int lock_acquire(struct lock_table *t, const struct sandbox_id *id, int64_t deadline,
    struct lock_entry *ret, struct err *e);
/* Says of a lock that is held that whoever destroys the sandbox need not wait for it. */
void lock_let_break_off(struct lock_entry *held);
/* True when `id` is held by somebody who lets it be broken off. */
bool lock_breaks_off(struct lock_table *t, const struct sandbox_id *id);
/* The caller, who holds the sandbox's lock, has changed its row. */
void lock_note_change(struct lock_table *t);
/* Lets go of the lock and waits until somebody has changed some row since it was held; false when
 * `deadline` has passed. */
bool lock_release_and_wait(struct lock_entry *held, int64_t deadline);
/* Not held is fine. */
void lock_release(struct lock_entry *entry);

#define AUTO_LOCK __attribute__((cleanup(lock_release))) struct lock_entry

#endif
