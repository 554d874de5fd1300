/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A server with handlers that show what a handler can do. What handlers saw is
 * counted in `fx`; tests wait for it there.
 */
#ifndef TORPOR_TEST_HTTP_FIXTURE_H
#define TORPOR_TEST_HTTP_FIXTURE_H

#include "peer.h"

#include <pthread.h>

#include "http/server.h"

enum { BODY_MAX = 1 << 20 }; /* of /echo */

struct fixture {
    struct http_server *server;
    uint16_t port;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    int blocked;   /* handlers of /block that wait */
    bool released; /* they may go on */
    int gone;      /* handlers that saw their client leave */
    enum err_kind body_error;
    int errors; /* calls of on_error */
};

extern struct fixture fx;

#define HOST " HTTP/1.1\r\nHost: x\r\n"

/* Counts up and tells wait_for. */
void note(int *counter);
void wait_for(const int *counter, int at_least);

/* The dispatcher over all handlers, and the error handler that replies with the kind's name. */
void handle(struct http_exchange *x, void *ctx);
void handle_error(struct http_exchange *x, const struct err *why, void *ctx);

/* Empties `fx`. */
void fixture_reset(void);
/* Starts on a free loopback port; listen_fd and handler of `config` are set here. */
void start(struct http_server_config config);
/* Lets blocked handlers go on. */
void release(void);
void stop(void);
int stop_if_running(void **state); /* as a teardown */
int dial(void);

#endif
