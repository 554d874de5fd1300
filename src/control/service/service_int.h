/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of the service share. */
#ifndef TORPOR_CONTROL_SERVICE_SERVICE_INT_H
#define TORPOR_CONTROL_SERVICE_SERVICE_INT_H

#include "control/service/activity.h"
#include "control/service/agent.h"
#include "control/service/locks.h"
#include "control/service/service.h"

enum { CATALOG_MAX = 64 };

/* What the last answer of the agent said about the host itself. */
struct catalog {
    pthread_mutex_t mutex;
    struct host_id host; /* empty: never heard of it */
    char templates[CATALOG_MAX][LIMIT_NAME_MAX + 1];
    size_t n_templates;
    int64_t seen_mono_ms; /* when it answered last */
};

/* Where the reconciler is. Only touched under `mutex`, which is held for a whole poll. */
struct poll_state {
    pthread_mutex_t mutex;
    struct host_id host;
    char known_cluster_id[CLUSTER_ID_MAX + 1];
    uint64_t agent_epoch;
    uint64_t host_revision; /* all up to here is in the database */
    int64_t full_mono_ms;   /* when everything was asked for; 0: must be now */
    int64_t noted_mono_ms;  /* when the hosts table was written */
};

/* Lock order: poll.mutex, then a sandbox's lock (there without waiting), then any of the others. */
struct service {
    struct service_config config;
    struct store *store;
    struct agent *agent;
    struct lock_table locks;
    struct activity activity;
    struct catalog catalog;
    struct poll_state poll;
    int want_full; /* atomic: the next poll asks for everything */
    pthread_t thread;
    pthread_mutex_t stop_mutex;
    pthread_cond_t stop_cond;
    bool stopping;
};

/* A unique id of a changing call, so that repeating it on a broken connection changes nothing. */
#define CALL_ID_MAX 24
void call_id_new(char dst[CALL_ID_MAX + 1]);

/* One look at the agent (reconcile.c), unless another look had its answer after `began_ms`. */
int service_poll(struct service *s, int64_t began_ms, struct err *e);
/* Asks the agent to destroy; "not there" is success. Under the sandbox's lock. */
int service_destroy_on_host(struct service *s, const struct sandbox_id *id, struct err *e);
/* What the agent said becomes a change of the row; false for a status or reason we do not know. */
bool service_change_from_info(const struct agent_sandbox_info *info, struct sandbox_change *ret,
    char message[ERR_MSG_MAX], char host_ip[HOST_IP_MAX + 1]);
/* The row, with activity that is not written yet. `who` NULL: any team. */
int service_load(struct service *s, const struct principal *who, const struct sandbox_id *id,
    struct arena *a, struct sandbox_row *ret, struct err *e);
/* ERR_BAD_STATE, with the status in `where`, unless the sandbox runs. */
int service_check_running(const struct sandbox_row *row, struct err *e);
/* The host's id as last heard, empty if never. */
struct host_id service_host(struct service *s);

#endif
