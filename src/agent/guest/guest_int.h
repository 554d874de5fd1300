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

enum guest_mode {
    GUEST_RUNS,
    GUEST_PAUSING, /* from a guest_prepare to the init that ends it: calls fail */
    GUEST_HELD,    /* the same with `keep`: calls wait */
};
void guest_set_mode(struct guest *g, enum guest_mode mode);
bool guest_is_pausing(const struct guest *g);

/* How long a call bears a live snapshot. */
struct guest_patience {
    int64_t until; /* monotonic ms */
    unsigned seen_holds;
};
/* Before a call that a pause or a live snapshot may meet: waits while the guest is held. Fails with
 * ERR_UNAVAILABLE while a pause is under way, and when the guest is held until `deadline`. */
int guest_begin(struct guest *g, struct guest_patience *ret, int64_t deadline, struct err *e);
/* After a call was refused: true when that was a live snapshot's doing and it is over, so the call
 * may be sent again; waits for it. */
bool guest_may_repeat(struct guest *g, struct guest_patience *p);
/* True when the guest has answered that it takes no calls now (503). Waits for nothing. */
bool guest_has_refused(struct http_conn *c);
/* Says so in `e` when a call failed because of it. Returns -1. */
int guest_explain(const struct guest *g, struct err *e);

/* The init handshake. `wakes`: the machine was restored, its old connections are void. */
int guest_send_init(struct guest *g, const struct guest_identity *identity, bool wakes,
    int64_t deadline, struct err *e);

/* Sends a call and receives the answer's head; a kept connection that turns out closed is replaced
 * once. `call->headers` must hold the token. Returns the connection, to be released, or NULL. */
struct http_conn *guest_call(struct guest *g, const struct http_call *call,
    const struct http_response_head **ret_head, int64_t deadline, struct err *e);

/* guest_call between guest_begin and, as often as needed, guest_may_repeat. */
struct http_conn *guest_call_patiently(struct guest *g, const struct http_call *call,
    const struct http_response_head **ret_head, int64_t deadline, struct err *e);

/* Turns an error answer of envd ({"code","message"}) into `e`; always returns -1. `where_404` and
 * such decisions are the caller's: only kind and message are set. */
int guest_answer_error(
    struct http_conn *c, const struct http_response_head *head, int64_t deadline, struct err *e);

#endif
