/* SPDX-License-Identifier: Apache-2.0 */
/* last_active_at of sandboxes and last_used of keys: gathered here, written at most once a second.
 */
#ifndef TORPOR_CONTROL_SERVICE_ACTIVITY_H
#define TORPOR_CONTROL_SERVICE_ACTIVITY_H

#include <pthread.h>

#include "control/store/store.h"

enum { ACTIVITY_SLOTS = 4096 };

struct activity {
    pthread_mutex_t mutex;
    struct touch *slots; /* open addressing over ACTIVITY_SLOTS; an empty id is a free slot */
    size_t n;
};

int activity_init(struct activity *a, struct err *e);
void activity_done(struct activity *a);
/* Notes that `id` was active. Never blocks on the database. When more ids than fit are active
 * within a second, the surplus notes are dropped. */
void activity_note(struct activity *a, const char *id, int64_t at_ms);
/* What was noted and is not written yet, 0 if nothing. */
int64_t activity_get(struct activity *a, const char *id);
/* Writes what was noted. On failure the notes are kept. */
int activity_flush(struct activity *a, struct store *store, struct err *e);

#endif
