/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of the service share. */
#ifndef TORPOR_CONTROL_SERVICE_SERVICE_INT_H
#define TORPOR_CONTROL_SERVICE_SERVICE_INT_H

#include "control/service/activity.h"
#include "control/service/agent.h"
#include "control/service/catalog.h"
#include "control/service/discard.h"
#include "control/service/locks.h"
#include "control/service/pins.h"
#include "control/service/remover.h"
#include "control/service/service.h"

enum { ACKS_MAX = 256 };

/* An auto-paused sandbox that the database has taken note of. */
struct ack {
    struct sandbox_id id;
    uint64_t revision;
};

/* Where the reconciler is; its thread's own. */
struct poll_state {
    struct host_id host;
    char known_cluster_id[CLUSTER_ID_MAX + 1];
    uint64_t agent_epoch;
    uint64_t host_revision; /* all up to here is in the database */
    int64_t full_mono_ms;   /* when everything was asked for; 0: must be now */
    int64_t noted_mono_ms;  /* when the hosts table was written */
    int gap_ms;             /* before the next poll */
    struct ack acks[ACKS_MAX];
    size_t n_acks; /* to be sent with the next poll */
};

/* Lock order: a sandbox's lock (the reconciler and the remover take it without waiting), then any
 * of the others, of which nobody holds two. */
struct service {
    struct service_config config;
    struct store *store;
    struct agent *agent;
    struct lock_table locks;
    struct activity activity;
    struct catalog catalog;
    struct remover remover;
    struct pin_table pins;
    struct discarder discarder;
    struct poll_state poll;
    int want_full; /* atomic: the next poll asks for everything */
    pthread_t reconciler;
    pthread_t housekeeper;
    pthread_mutex_t stop_mutex;
    pthread_cond_t stop_cond;
    bool stopping;
};

/* A unique id of a changing call, so that repeating it on a broken connection changes nothing. */
#define CALL_ID_MAX 24
void call_id_new(char dst[CALL_ID_MAX + 1]);

/* One look at the agent; waits there for a change (reconcile.c). The reconciler's thread only. */
int service_poll(struct service *s, struct err *e);
/* Notes in the database that this host has answered; gives what was known of it. */
int service_see_host(struct service *s, const struct host_id *id,
    const struct agent_list_response *said, struct host_row *ret_known, struct err *e);
/* Asks the agent for its templates now. */
int service_refresh_catalog(struct service *s, struct err *e);
/* Asks the agent to destroy; "not there" is success. Under the sandbox's lock. */
int service_destroy_on_host(struct service *s, const struct sandbox_id *id, struct err *e);
/* A row has become over and the host may still have the sandbox: that is taken care of. */
void service_remove_later(struct service *s, const struct sandbox_id *id);
/* What the agent said becomes a change of the row; false for a status or reason we do not know. */
bool service_change_from_info(const struct agent_sandbox_info *info, struct sandbox_change *ret,
    char message[ERR_MSG_MAX], char host_ip[HOST_IP_MAX + 1]);
/* The row, with activity that is not written yet. `who` NULL: any team. */
int service_load(struct service *s, const struct principal *who, const struct sandbox_id *id,
    struct arena *a, struct sandbox_row *ret, struct err *e);
/* ERR_BAD_STATE, with the status in `where`, unless the sandbox runs. */
int service_check_running(const struct sandbox_row *row, struct err *e);
/* 0 when the host is to be asked: the sandbox runs, or falls asleep unasked, which the host breaks
 * off for whoever needs it. Another transition is waited for (ERR_CONFLICT when that takes too
 * long); then as service_check_running says. */
int service_await_running(
    struct service *s, const struct principal *who, const struct sandbox_id *id, struct err *e);
/* The template of that name or id, asking the host once more before it says no. A snapshot is held
 * by `pin`, so that it is not removed before the sandbox is made. */
int service_template_for_create(struct service *s, const struct principal *who,
    struct slice name_or_id, struct pin *pin, struct template_entry *ret, struct err *e);
/* Whether a base template has that name or id, or might have. */
int service_is_base(struct service *s, struct slice name_or_id, bool *ret, struct err *e);
void service_entry_from_row(const struct template_row *row, struct template_entry *ret);
/* Takes the sandbox's lock when no transition of it is under way, not even one that the reconciler
 * still has to settle, and reads the row, without its metadata. On failure the lock may be held: it
 * is the caller's to release (AUTO_LOCK). */
int service_lock_settled(struct service *s, const struct principal *who,
    const struct sandbox_id *id, struct lock_entry *lock, struct sandbox_row *ret, struct err *e);
/* ERR_BAD_STATE, with the status in `where`: "sandbox is stopped, not <wanted>". Returns -1. */
int service_bad_state(const struct sandbox_row *row, const char *wanted, struct err *e);
/* Whether the failed call was answered by the host: then what was asked is not under way there. */
bool service_host_refused(const struct err *e);
/* ERR_UNAVAILABLE when another host answers than the row's: it would say "not there". */
int service_check_host(struct service *s, const struct sandbox_row *row, struct err *e);
/* What a user may read of a failure: the texts of inner ones name things of the host. */
const char *service_public_message(const struct err *why);
/* Copies the phases of an answer (struct agent_phase *); those beyond the bounds are left out. */
void service_take_phases(const struct rpc_list *said, struct phase_list *ret);
/* The host's id as last heard, empty if never. */
struct host_id service_host(struct service *s);

#endif
