/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the product means: who may do what to which sandbox, and what happens then. Knows nothing of
 * HTTP or SQL. All functions may be called by any thread. Rows live in the arena given.
 *
 * Errors that every function may return: ERR_NOT_FOUND for a sandbox that is not there or is
 * another team's; ERR_UNAVAILABLE when the host's agent does not answer; ERR_BAD_STATE with the
 * sandbox's status in `where`; ERR_CONFLICT when another transition did not end in time.
 */
#ifndef TORPOR_CONTROL_SERVICE_SERVICE_H
#define TORPOR_CONTROL_SERVICE_SERVICE_H

#include "control/service/metadata.h"
#include "control/store/store.h"

struct agent;
struct agent_exec_request;
struct agent_exec_response;
struct service;

struct service_config {
    struct store *store; /* borrowed, as is the agent */
    struct agent *agent;
    const char *agent_address; /* what the hosts table shows */
    int poll_ms;               /* between two looks at the agent; 0: 1000 */
    int full_every_ms;         /* how often everything is asked for; 0: 300000 */
    int lock_wait_ms;          /* for another transition; 0: LIMIT_TRANSITION_WAIT_MS */
};

/* Makes the service and starts its background thread (reconciler, gathered writes). */
int service_open(const struct service_config *config, struct service **ret, struct err *e);
/* Stops the thread and writes what is gathered. No other call may run or follow. NULL is fine. */
struct service *service_close(struct service *s);
/* 0 when the database answers and the agent has answered lately. */
int service_ready(struct service *s, struct err *e);

struct principal {
    struct team_id team;
    struct key_id key;
};
/* Whose request this is. ERR_UNAUTHORIZED for anything but a key that is stored. */
int service_authenticate(struct service *s, struct slice key, struct principal *ret, struct err *e);

enum { KEY_TEXT_MAX = 44 };
/* A fresh key: the row to store, and the text that only its owner gets to see. */
int key_new(const struct team_id *team, const char *name, struct key_row *ret,
    char ret_text[KEY_TEXT_MAX + 1], struct err *e);

/* At the first start (no team yet): a team and a key, written to the file "api-key" (mode 0600) in
 * the folder `dirfd`. Later starts change nothing. */
int service_bootstrap(struct store *store, int dirfd, struct err *e);

struct create_params {
    struct slice template;
    int vcpus;
    int memory_mb;
    int timeout_sec;
    const struct rpc_entry *env;
    size_t n_env;
    const struct metadata_edit *metadata;
    size_t n_metadata;
};
/* Boots a sandbox and returns when exec works. ERR_NOT_FOUND on the field "template" before
 * anything is made; any later failure leaves a row `error` with its reason and nothing on the host.
 */
int service_create(struct service *s, const struct principal *who, const struct create_params *p,
    struct arena *a, struct sandbox_row *ret, struct err *e);
/* The client of a create was gone when it ended: undoes it. Cannot fail: what does not work at once
 * is done by the reconciler. */
void service_undo_create(struct service *s, const struct sandbox_id *id);

int service_get(struct service *s, const struct principal *who, const struct sandbox_id *id,
    struct arena *a, struct sandbox_row *ret, struct err *e);
/* `q->team` is set here. */
int service_list(struct service *s, const struct principal *who, struct sandbox_query *q,
    struct arena *a, struct sandbox_list *ret, struct err *e);
/* In any state; already destroyed is fine. When the agent fails, the row stays as it is. */
int service_destroy(
    struct service *s, const struct principal *who, const struct sandbox_id *id, struct err *e);

struct update_params {
    bool has_timeout_sec;
    int timeout_sec;
    const struct metadata_edit *metadata;
    size_t n_metadata;
};
int service_update(struct service *s, const struct principal *who, const struct sandbox_id *id,
    const struct update_params *p, struct arena *a, struct sandbox_row *ret, struct err *e);
int service_ping(
    struct service *s, const struct principal *who, const struct sandbox_id *id, struct err *e);

/* Runs a program in the guest. `req->sandbox_id` is set here. */
int service_exec(struct service *s, const struct principal *who, const struct sandbox_id *id,
    struct agent_exec_request *req, struct arena *a, struct agent_exec_response *ret,
    struct err *e);

struct write_file_params {
    struct slice path;
    struct slice content;
    struct slice user; /* empty: the template's default */
    bool has_mode;
    unsigned mode;
};
int service_write_file(struct service *s, const struct principal *who, const struct sandbox_id *id,
    const struct write_file_params *p, struct err *e);
/* The bytes live in the arena, which must have room for LIMIT_FILE_UNARY_BYTES. */
int service_read_file(struct service *s, const struct principal *who, const struct sandbox_id *id,
    struct slice path, struct arena *a, struct slice *ret, struct err *e);

#endif
