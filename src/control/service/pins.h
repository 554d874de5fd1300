/* SPDX-License-Identifier: Apache-2.0 */
/* Snapshots that a create is using right now: their bytes are not removed meanwhile. */
#ifndef TORPOR_CONTROL_SERVICE_PINS_H
#define TORPOR_CONTROL_SERVICE_PINS_H

#include <pthread.h>
#include <stdbool.h>

#include "proto/sandbox.h"

/* A list of the users' own entries; one snapshot may have many. */
struct pin_table {
    pthread_mutex_t mutex;
    struct pin *held;
};

struct pin {
    struct pin_table *table; /* NULL: not held */
    struct template_id id;
    struct pin *next;
};

void pin_table_init(struct pin_table *t);
/* Nobody may hold any. */
void pin_table_done(struct pin_table *t);
/* Holds `id` by `ret` until pin_release. Never waits. */
void pin_acquire(struct pin_table *t, const struct template_id *id, struct pin *ret);
/* Not held is fine. */
void pin_release(struct pin *p);
bool pin_is_held(struct pin_table *t, const struct template_id *id);

#define AUTO_PIN __attribute__((cleanup(pin_release))) struct pin

#endif
