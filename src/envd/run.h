/* SPDX-License-Identifier: Apache-2.0 */
/* Following a started process: its output, input, deadline and end. */
#ifndef TORPOR_ENVD_RUN_H
#define TORPOR_ENVD_RUN_H

#include "base/slice.h"
#include "envd/spawn.h"

enum { RUN_CHUNK_BYTES = 32 * 1024 }; /* of output in one event, as E2B's envd sends them */

struct gate_pass;
struct rpc_call;

struct run_params {
    struct spawned process;
    int stdin_fd;  /* our end, non-blocking when there is `input`; -1: none */
    int stdout_fd; /* our ends, blocking */
    int stderr_fd;
    struct slice input; /* written to stdin_fd, which is then closed */
    bool has_input;
    int keepalive_ms;       /* silence after which a keepalive is sent */
    char *chunk;            /* RUN_CHUNK_BYTES of the caller for what is read */
    struct gate_pass *pass; /* left early, with the stream */
};

/* Sends start, data and end of the process and reaps it; returns when that is done, by the thread
 * that started it. Takes over the descriptors. Returns 0, or -1 with ERR_TIMEOUT when the call's
 * deadline ended the process (the end event was sent before) or ERR_CANCELED when the client went
 * away, in which case there is nobody left to answer. A pause ends the stream with ABORTED
 * "paused"; the process is followed to its end all the same, as if the client had gone. */
int run_follow(struct rpc_call *call, const struct run_params *p, struct err *e);

#endif
