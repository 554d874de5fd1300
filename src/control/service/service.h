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
#include "rpc/agent_v1.h"

struct agent;
struct service;

struct service_config {
    struct store *store; /* borrowed, as is the agent */
    struct agent *agent;
    const char *agent_address; /* what the hosts table shows */
    int poll_ms;               /* at most between two looks at the agent; 0: 5000 */
    int gap_ms;                /* at least between them; 0: 200 */
    int full_every_ms;         /* how often everything is asked for; 0: 300000 */
    int snapshot_doubt_ms;     /* a snapshot without an answer is removed after; 0: 600000 */
    int lock_wait_ms;          /* for another transition; 0: LIMIT_TRANSITION_WAIT_MS */
};

/* Makes the service and starts its background threads (reconciler, remover, gathered writes). */
int service_open(const struct service_config *config, struct service **ret, struct err *e);
/* Breaks off calls to the agent, stops the threads and writes what is gathered. No other call may
 * run or follow. NULL is fine. */
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

/* What can be created from: the base templates of the host and the team's snapshots. */
struct template_entry {
    struct template_id id;
    char name[LIMIT_NAME_MAX + 1];
    char default_user[TEMPLATE_USER_MAX + 1]; /* empty: the host did not say */
    int64_t size_bytes;                       /* as really allocated there */
    int64_t created_at_ms;                    /* 0: the host did not say */
    bool is_snapshot;                         /* what follows is its */
    int vcpus, memory_mb;
    struct host_id host;
};
struct template_list {
    struct template_entry *entries; /* newest first */
    size_t n;
    bool more; /* there are older ones behind the last */
};
struct template_filter {
    bool base, snapshot;       /* which types */
    int64_t before_created_ms; /* below 0: from the newest; else older than (this, before_id) */
    struct template_id before_id;
    size_t limit;
};
/* Those that can be created from now; one that is still being built is not listed. */
int service_templates(struct service *s, const struct principal *who,
    const struct template_filter *f, struct arena *a, struct template_list *ret, struct err *e);
/* By name or id. ERR_NOT_FOUND; ERR_TEMPLATE_BUILDING for one that is not there yet. */
int service_template(struct service *s, const struct principal *who, struct slice name,
    struct template_entry *ret, struct err *e);

/* How long the steps of something took on the host. */
enum { PHASE_NAME_MAX = 31, PHASES_MAX = 24 };
struct phase_time {
    char name[PHASE_NAME_MAX + 1]; /* lower-case letters, digits and '_' */
    int64_t duration_us;
};
struct phase_list {
    struct phase_time items[PHASES_MAX];
    size_t n;
};

/* How long a phase took on the host, since its agent started. */
enum { HISTOGRAMS_MAX = 48, HISTOGRAM_NAME_MAX = 15 };
struct phase_histogram {
    char name[HISTOGRAM_NAME_MAX + 1]; /* "pause", "resume" */
    char phase[PHASE_NAME_MAX + 1];
    uint64_t buckets[AGENT_HISTOGRAM_BUCKETS]; /* of how many it was at most so long */
    uint64_t sum_us, count;
};

/* What the server knows of itself and its host, of all teams, for who runs it. */
enum { UNKNOWN_MAX = 64 };
struct service_stats {
    struct host_id host; /* empty: never heard of one */
    bool agent_up;       /* the last look at it worked */
    int64_t poll_age_ms; /* since its last answer; -1: never */
    bool has_capacity;
    int64_t memory_mb_total, memory_mb_used;
    int64_t slots_total, slots_used;
    int64_t disk_free_bytes;
    uint64_t sandboxes[SANDBOX_STATUS_COUNT];
    size_t removals; /* sandboxes that are over and not yet off the host */
    size_t n_unknown;
    char unknown[UNKNOWN_MAX][ID_TEXT_MAX + 1]; /* the first of them */
    size_t n_histograms;
    struct phase_histogram histograms[HISTOGRAMS_MAX];
};
int service_stats(struct service *s, struct service_stats *ret, struct err *e);

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
/* Boots a sandbox and returns when exec works. `template` is a name or an id. ERR_NOT_FOUND on the
 * field "template", or ERR_TEMPLATE_BUILDING, before anything is made; any later failure leaves a
 * row `error` with its reason and nothing on the host.
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
/* Puts a running sandbox to sleep, and wakes a paused one. ERR_UNAVAILABLE and ERR_TIMEOUT leave
 * the outcome to be found out: the sandbox is `pausing` or `resuming` until it is. */
struct slept {
    struct sandbox_row row;
    struct phase_list phases;
};
int service_pause(struct service *s, const struct principal *who, const struct sandbox_id *id,
    struct arena *a, struct slept *ret, struct err *e);
struct resume_params {
    bool last_generation; /* a stopped one (vm_exited, lost), as it was when it slept last */
    bool disk_only;       /* boots its disk, without its memory */
};
int service_resume(struct service *s, const struct principal *who, const struct sandbox_id *id,
    const struct resume_params *p, struct arena *a, struct slept *ret, struct err *e);

struct snapshot_params {
    struct sandbox_id sandbox;
    struct slice name; /* empty: a new one */
    bool overwrite;
};
struct snapshot_made {
    struct template_entry entry;
    struct phase_list phases;
};
/* Makes a template of a running or paused sandbox. ERR_EXISTS when the name is taken, unless it is
 * to be overwritten; ERR_FORBIDDEN for overwriting a base template. */
int service_snapshot_create(struct service *s, const struct principal *who,
    const struct snapshot_params *p, struct snapshot_made *ret, struct err *e);
/* By name or id. ERR_NOT_FOUND; ERR_FORBIDDEN for a base template. */
int service_snapshot_delete(
    struct service *s, const struct principal *who, struct slice name_or_id, struct err *e);

int service_ping(
    struct service *s, const struct principal *who, const struct sandbox_id *id, struct err *e);

/* Runs a program in the guest. `req->sandbox_id` is set here. ERR_BAD_STATE also when a pause met
 * it: then `ret->paused` is set, with its pid and tag. */
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
