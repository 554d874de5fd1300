/* SPDX-License-Identifier: Apache-2.0 */
/* What the request handlers share: the service and how they answer. */
#ifndef TORPOR_ENVD_ENVD_INT_H
#define TORPOR_ENVD_ENVD_INT_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>

#include "envd/envd.h"

struct gate;
struct http_exchange;
struct http_server;
struct settings;

struct envd {
    struct http_server *server;
    struct settings *settings;
    const char *etc_dir;
    const struct system_ops *system;
    pthread_mutex_t init_lock; /* one /init at a time; taken before the lock of the settings */
    int null_fd;               /* /dev/null, the input of processes without one */
    struct gate *gate;         /* closed while the host takes a snapshot, and until it woke us */
    uint16_t port;             /* the service's */
    int processes_max;
    atomic_int processes; /* running now */
};

/* POST /init: see init.c. */
void init_handle(struct envd *d, struct http_exchange *x);
/* POST /snapshot/prepare: see snapshot.c. */
void snapshot_handle_prepare(struct envd *d, struct http_exchange *x);
/* In a machine that wakes, before its gate opens: ends what a live snapshot left open, as prepare
 * does at once otherwise, but for the connection of `x`. Does nothing where prepare has done it.
 * Waits for no peer; at most 2.1 s. Under the init_lock. */
void snapshot_end_former_life(struct envd *d, struct http_exchange *x);
/* GET and POST /files: see files.c. */
void files_handle(struct envd *d, struct http_exchange *x);

/* {"code":404,"message":"..."} with the status of the error's kind: the shape of E2B's REST errors.
 * Does nothing when a reply has begun; then cuts the connection. */
void envd_reply_error(struct http_exchange *x, const struct err *why);

#endif
