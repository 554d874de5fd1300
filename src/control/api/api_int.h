/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of the API share: one request on its way, and how to answer it. */
#ifndef TORPOR_CONTROL_API_API_INT_H
#define TORPOR_CONTROL_API_API_INT_H

#include <semaphore.h>

#include "base/cleanup.h"
#include "control/api/api.h"
#include "control/service/service.h"
#include "http/server.h"
#include "http/status.h"

/* 1xx to 5xx. */
enum { STATUS_CLASSES = 5 };

struct api {
    struct http_server *server;
    struct service *service;
    int stopping;                        /* atomic; set before the server stops */
    sem_t transfers;                     /* large files that may be in memory at once */
    uint64_t (*answers)[STATUS_CLASSES]; /* atomics: by route, those of no route behind them */
};

/* One request, on its handler's thread. */
struct call {
    struct http_exchange *x;
    struct api *api;
    struct service *service;
    struct arena *arena;
    char request_id[LIMIT_REQUEST_ID_MAX + 1];
    struct principal who;      /* unless the route is open */
    struct sandbox_id id;      /* where the route has {id} */
    struct slice name;         /* where it has {name}: the segment, unchecked */
    const struct route *route; /* NULL: there is none */
    int status;                /* answered; 0: not yet */
    int32_t met_pid;           /* with an exec that a pause met: its process, and */
    struct slice met_tag;      /* its tag */
    const char *allowed; /* with an error about a field: the values or the range it may have */
};

/* Every handler answers, or returns -1 with the error that is then answered for it. */
api_handler meta_healthz, meta_readyz, meta_version, meta_openapi, meta_metrics;
api_handler snapshot_list, snapshot_get, snapshot_create, snapshot_delete;
api_handler sandbox_create, sandbox_list, sandbox_get, sandbox_delete, sandbox_patch, sandbox_ping;
api_handler sandbox_pause, sandbox_resume;
api_handler exec_run;
api_handler file_write, file_read;

/* routes.c: the route of that method and path (HEAD goes to GET). NULL when there is none: then
 * `allow` holds the methods that the path has, "" for an unknown path. `ret_id` is what stands in
 * the place of {id} or {name}, p NULL for none. */
enum { ALLOW_MAX = 64 };
const struct route *route_find(
    struct slice method, struct slice path, struct slice *ret_id, char allow[ALLOW_MAX]);

/* auth.c */
int auth_check(struct call *c, struct err *e);

/* reply.c */
struct json_writer;
/* Answers with the error's status and body. */
void reply_error(struct call *c, const struct err *e, int status);
/* Whole answers go through one of these, which count them. */
int reply_bytes(struct call *c, int status, const char *content_type, struct slice body);
int reply_json(struct call *c, int status, const struct buf *body, struct err *e);
int reply_empty(struct call *c);
/* Members; nothing for an empty text or a time of 0. */
void write_text(struct json_writer *w, const char *key, const char *text);
void write_time(struct json_writer *w, const char *key, int64_t ms);
/* Writes one sandbox. The arena is for its metadata. */
int write_sandbox(
    struct json_writer *w, const struct sandbox_row *row, struct arena *a, struct err *e);
int reply_sandbox(struct call *c, int status, const struct sandbox_row *row, struct err *e);

/* The header Server-Timing: each phase in milliseconds. Before the reply. */
void reply_phases(struct call *c, const struct phase_list *phases);

/* ERR_INVALID about a field, with what it may be (static, or in the call's arena; may be NULL). */
int field_error(struct call *c, struct err *e, const char *field, const char *allowed,
    const char *fmt, ...) __attribute__((format(printf, 5, 6)));
/* What went wrong with a client's body, as an answer to that client. */
int body_error(struct err *e);

/* check.c: what strings may be. */
bool check_path(struct slice s); /* of a file in a guest: no NUL, at most LIMIT_PATH_MAX */
bool check_user(struct slice s); /* a user name of a guest, or empty */
bool check_metadata_key(struct slice s);
bool check_metadata_value(struct slice s);
bool check_env_name(struct slice s);
bool check_env_value(struct slice s);
extern const char user_pattern[], template_pattern[], path_allowed[];

#endif
