/* SPDX-License-Identifier: Apache-2.0 */
/* The guest agent's HTTP service, as PID 1 runs it and as a test runs it in a normal process. */
#ifndef TORPOR_ENVD_ENVD_H
#define TORPOR_ENVD_ENVD_H

#include "base/err.h"

struct envd;
struct system_ops;

struct envd_config {
    int listen_fd;       /* the service owns it once started */
    const char *etc_dir; /* users are looked up there, /init writes there; outlives the service */
    const struct system_ops *system; /* outlives the service */
    int processes_max;               /* at once, each holds a thread; 0: 256 */
};

/* Starts serving. Its threads block every signal but those of our own faults, so that SIGPIPE from
 * a process's input is an error number and nothing else interrupts them. Errors: those of
 * http_server_start, ERR_NOMEM. */
struct envd *envd_start(const struct envd_config *config, struct err *e);
/* Waits for the requests under way, also for processes that run without a client. NULL is fine. */
void envd_stop(struct envd *d);

#endif
