/* SPDX-License-Identifier: Apache-2.0 */
/* Removes from the host the snapshots that no template stands for any more. */
#ifndef TORPOR_CONTROL_SERVICE_DISCARD_H
#define TORPOR_CONTROL_SERVICE_DISCARD_H

#include <pthread.h>
#include <stdbool.h>

#include "base/err.h"

struct service;

struct discarder {
    struct service *service;
    pthread_t thread;
    pthread_mutex_t mutex; /* over what follows */
    pthread_cond_t changed;
    bool kicked;
    bool stopping;
};

int discarder_start(struct discarder *d, struct service *s, struct err *e);
/* Waits for the call under way. */
void discarder_stop(struct discarder *d);
/* Something has become due: look now. Never waits. */
void discarder_kick(struct discarder *d);

#endif
