/* SPDX-License-Identifier: Apache-2.0 */
/* What the parts of the loop share: its state and its connections. */
#ifndef TORPOR_SHIM_SERVE_INT_H
#define TORPOR_SHIM_SERVE_INT_H

#include "shim/console.h"
#include "shim/save.h"
#include "shim/serve.h"

enum {
    CONNS_MAX = 8,
    SERVE_HANDSHAKE_MS = 30 * 1000, /* a VMM maps its memory some 20 ms after exec */
};

struct conn {
    int fd;      /* -1: free */
    int peer_fd; /* pidfd of the agent, -1 when it has no control or is not to be seen */
    pid_t peer_pid;
    uint16_t version;
    bool has_control;
    int fds[SAVE_FDS]; /* came with the message; -1 */
    size_t n_fds;
    size_t got;
    struct shim_msg msg;
};

struct server {
    struct proc_id shim;
    struct launched vmm;
    struct memory *memory;
    const char *id;
    int listen_fd;
    int64_t started_ms;
    bool ended;
    bool acknowledged;
    int wait_status;
    int64_t orphan_deadline;
    int64_t handshake_deadline;
    bool memory_failed;
    struct err memory_error; /* why the VMM was ended; no message: its own words say */
    struct console console;
    struct last_line words;
    struct conn conns[CONNS_MAX];
};

/* What a message says beyond the state. */
struct reply {
    enum shim_msg_type type;
    enum shim_refusal why;
    const struct save_numbers *numbers;
    const struct err *error;
};

/* Sends a message in the connection's version. A peer that does not read is dropped. */
void conn_reply(struct server *s, struct conn *c, const struct reply *r);
/* The same with nothing but the state. */
void conn_send(struct server *s, struct conn *c, enum shim_msg_type type);
void conn_refuse(struct server *s, struct conn *c, enum shim_refusal why);
/* True when the other end has been closed; what it sent before does not matter then. */
bool conn_is_closed(const struct conn *c);

/* What the loop waits for to be readable on behalf of the memory, -1 for nothing. */
int serve_memory_fd(const struct server *s);
/* It is readable: takes the handshake, serves faults. What fails ends the VMM. */
void serve_memory(struct server *s);
/* Ends a VMM whose handshake is overdue and returns true then. */
bool serve_memory_deadline(struct server *s);
/* Answers SAVE, COMMIT, CANCEL, HINTS or FILL, c->msg. */
void serve_memory_request(struct server *s, struct conn *c);

#endif
