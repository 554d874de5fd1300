/* SPDX-License-Identifier: Apache-2.0 */
/* Connections of a guest, shared inside this folder. */
#ifndef TORPOR_AGENT_GUEST_GUEST_INT_H
#define TORPOR_AGENT_GUEST_GUEST_INT_H

#include "agent/guest/guest.h"
#include "http/client.h"

enum {
    GUEST_IDLE_MAX = 4,            /* kept connections of one guest */
    GUEST_CONNECT_MS = 5000,       /* to a guest that runs */
    GUEST_CALL_MS = 30000,         /* an answer to a short call */
    GUEST_FILE_MS = 120000,        /* a whole unary file */
    GUEST_ERROR_BYTES = 16 * 1024, /* of an error answer that is read */
};

/* A connection for one call: an idle one or a fresh one. NULL with ERR_UNAVAILABLE. The caller
 * gives it back with guest_conn_release. `ret_reused` says that the guest may have closed it
 * meanwhile. */
struct http_conn *guest_conn_acquire(
    struct guest *g, bool *ret_reused, int64_t deadline, struct err *e);
/* Keeps it when it can be used again, closes it otherwise. */
void guest_conn_release(struct guest *g, struct http_conn *c);

/* Closes it, whatever its state. */
void guest_conn_drop(struct guest *g, struct http_conn *c);
/* Keeps a fresh connection for the next call; closes it when the sandbox is going away. */
int guest_conn_keep(struct guest *g, struct http_conn *c, struct err *e);
/* Closes the kept ones. */
void guest_drop_idle(struct guest *g);

const char *guest_token(const struct guest *g);
const char *guest_host_ip(const struct guest *g);

/* From a guest_prepare to the init that ends it. */
void guest_set_pausing(struct guest *g, bool pausing);
bool guest_is_pausing(const struct guest *g);
/* For calls that a pause may meet: ERR_UNAVAILABLE while one is under way. */
int guest_check_running(const struct guest *g, struct err *e);
/* Says so in `e` when a call failed because of it. Returns -1. */
int guest_explain(const struct guest *g, struct err *e);

/* The init handshake. `wakes`: the machine was restored, its old connections are void. */
int guest_send_init(struct guest *g, const struct guest_identity *identity, bool wakes,
    int64_t deadline, struct err *e);

/* Sends a call and receives the answer's head; a kept connection that turns out closed is replaced
 * once. `call->headers` must hold the token. Returns the connection, to be released, or NULL. */
struct http_conn *guest_call(struct guest *g, const struct http_call *call,
    const struct http_response_head **ret_head, int64_t deadline, struct err *e);

/* Turns an error answer of envd ({"code","message"}) into `e`; always returns -1. `where_404` and
 * such decisions are the caller's: only kind and message are set. */
int guest_answer_error(
    struct http_conn *c, const struct http_response_head *head, int64_t deadline, struct err *e);

#endif
