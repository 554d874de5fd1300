/* SPDX-License-Identifier: Apache-2.0 */
/* Removes from the host what the database says is over. */
#ifndef TORPOR_CONTROL_SERVICE_REMOVER_H
#define TORPOR_CONTROL_SERVICE_REMOVER_H

#include <pthread.h>

#include "base/err.h"
#include "proto/sandbox.h"

enum {
    REMOVER_THREADS = 4, /* calls that hang at once before others wait */
    REMOVALS_MAX = 1024,
};

struct service;

struct removal {
    struct sandbox_id id;
    int64_t due_mono_ms;
    int64_t backoff_ms; /* before the next try, if this one fails */
    bool busy;
};

struct remover {
    struct service *service;
    pthread_mutex_t mutex; /* over what follows; nothing else is locked under it */
    pthread_cond_t changed;
    struct removal items[REMOVALS_MAX];
    size_t n;
    bool stopping;
    size_t n_threads;
    pthread_t threads[REMOVER_THREADS];
};

int remover_start(struct remover *r, struct service *s, struct err *e);
/* Waits for the calls under way; what is left is found again by the next start's first full look.
 */
void remover_stop(struct remover *r);
/* Notes a sandbox whose row is over. Never waits; false when there is no room. Noting it twice is
 * noting it once. */
bool remover_add(struct remover *r, const struct sandbox_id *id);
/* How many are noted. */
size_t remover_count(struct remover *r);

#endif
