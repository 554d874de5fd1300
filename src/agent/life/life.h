/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The sandboxes of one host: create, destroy, list, and what is done inside one. All functions may
 * be called from any thread.
 */
#ifndef TORPOR_AGENT_LIFE_LIFE_H
#define TORPOR_AGENT_LIFE_LIFE_H

#include <sys/types.h>

#include "agent/life/journal.h"
#include "base/buf.h"

struct agent_exec_request;
struct agent_exec_response;
struct guest_write;
struct host_template;
struct rpc_entry;

/* TORPOR_MEMORY: how the memory of a restored guest comes back. */
enum life_memory {
    LIFE_MEMORY_AUTO, /* as the generation is */
    LIFE_MEMORY_FILE, /* blobs mapped privately */
    LIFE_MEMORY_UFFD, /* page faults served by the shim */
};

struct life_config {
    const char *dir;       /* data folder */
    const char *run_base;  /* sockets and locks of all instances, e.g. /run/torpor */
    const char *shim;      /* absolute path of torpor-shim */
    const char *self;      /* absolute path of this program, for its net-helper */
    const char *accel;     /* auto, kvm, tcg */
    const char *net_range; /* IPv4 /16 that all instances share */
    const char *resolver;  /* NULL: of /etc/resolv.conf */
    uid_t uid_base;        /* of the host; an instance has HOST_UIDS from it */
    size_t slots;
    int64_t memory_mb;      /* 0: by the machine */
    int32_t vcpus_per_core; /* 0: 8 */
    bool only_stop;         /* opened to be closed: nothing is prepared ahead */
    enum life_memory memory;
    const char *library; /* absolute path of torpor-memory.so */
    bool no_warm;        /* base templates always boot */
    bool try_memory;     /* finds out at the start whether machines can be saved and restored */
};

enum { HOST_UIDS = 4096 }; /* uids of one instance: slots, then the control plane's */

struct life;

/* Takes the data folder and its instance, adopts the running VMs of an earlier agent, undoes its
 * unfinished creates, prepares the network. */
struct life *life_open(const struct life_config *config, struct err *e);
/* Puts every running sandbox to sleep (one that cannot is `stopped`, its files stay) and removes
 * everything of this instance from the host. Does every step. Returns 0, or -1 with all errors
 * joined. */
int life_close(struct life *l, struct err *e);
/* Ends the agent's part only: VMs run on, for the next agent. Errors as life_close. */
int life_leave(struct life *l, struct err *e);
/* Puts every running sandbox to sleep, some at a time, then leaves. One that cannot sleep runs on,
 * for the next agent; -1 with the errors of all those joined. */
int life_drain(struct life *l, struct err *e);
/* Ends the waiting of life_wait_change and refuses creates. Before the callers are waited for. */
void life_wake(struct life *l);

unsigned life_instance(const struct life *l);
const char *life_run_dir(const struct life *l);

struct histogram;
struct phases;

/* What every call has that changes a sandbox. */
struct life_change {
    struct sandbox_id id;
    struct slice request_id;    /* the same again gives the first answer */
    uint64_t expected_revision; /* 0: any */
};

/* A sandbox as others see it. */
struct life_info {
    struct journal_entry entry;
    char host_ip[16]; /* "" when it has no network */
    bool auto_paused; /* and nobody has acknowledged it yet */
};

struct life_create {
    struct sandbox_id id;
    struct slice template;
    struct slice snapshot_id; /* spawn from that; then template, vcpus and memory do not count */
    struct slice request_id; /* the same id with the same request id gives the first answer again */
    int32_t vcpus;
    int32_t memory_mb;
    int32_t timeout_sec;
    const struct rpc_entry *env;
    size_t n_env;
};
/* Returns when exec works in the guest. On failure nothing is left. Errors: ERR_INVALID with the
 * field, ERR_NOT_FOUND (template), ERR_EXISTS, ERR_NO_CAPACITY, ERR_TIMEOUT, ERR_INTERNAL. */
int life_create(struct life *l, const struct life_create *c, struct life_info *ret, struct err *e);

/* Works in every state; what is not there is destroyed already. `expected_revision` 0: any. */
int life_destroy(struct life *l, const struct sandbox_id *id, uint64_t expected_revision,
    uint64_t *ret_revision, struct err *e);

/* Puts a running sandbox to sleep: its machine is on disk and durable, and its host resources are
 * free, when it returns. On failure it runs on (state_reason pause_failed), or is stopped when its
 * VM is gone. ERR_BAD_STATE; ERR_CONFLICT (revision); ERR_UNSUPPORTED when this host cannot save.
 */
int life_pause(struct life *l, const struct life_change *c, struct life_info *ret,
    struct phases *phases, struct err *e);

struct life_resume {
    struct life_change change;
    bool has_timeout_sec;
    int32_t timeout_sec;
    bool from_last; /* a stopped sandbox, as it was when its last generation was made */
    bool disk_only; /* its disk without the memory: a cold boot */
};
/* Wakes it where it was; returns when its guest has acknowledged its init. On failure it is as it
 * was before. ERR_BAD_STATE, ERR_CONFLICT, ERR_NO_CAPACITY, ERR_UNSUPPORTED with the reason why its
 * generation cannot be restored here. */
int life_resume(struct life *l, const struct life_resume *r, struct life_info *ret,
    struct phases *phases, struct err *e);

struct snapshot;
struct template_id;
/* Makes a template of a running sandbox, which goes on running, or of a sleeping one. The same id
 * again gives the first answer. */
int life_snapshot(struct life *l, const struct life_change *c, const struct template_id *id,
    struct snapshot *ret, struct life_info *ret_sandbox, struct phases *phases, struct err *e);
/* Takes the template away; sandboxes that came from it keep what they need. */
int life_snapshot_delete(struct life *l, const struct template_id *id, struct err *e);
void life_histograms(
    struct life *l, void (*each)(void *ctx, const struct histogram *histogram), void *ctx);

int life_ping(
    struct life *l, const struct sandbox_id *id, int64_t *ret_last_active_ms, struct err *e);
int life_set_timeout(struct life *l, const struct sandbox_id *id, int32_t timeout_sec,
    struct life_info *ret, struct err *e);

/* Exec and files need a running sandbox (ERR_BAD_STATE otherwise) and count as activity. */
int life_exec(struct life *l, const struct sandbox_id *id, const struct agent_exec_request *req,
    struct buf *out_stdout, struct buf *out_stderr, struct agent_exec_response *resp,
    struct err *e);
int life_read_file(struct life *l, const struct sandbox_id *id, struct slice path,
    struct slice user, struct buf *dst, struct err *e);
int life_write_file(
    struct life *l, const struct sandbox_id *id, const struct guest_write *w, struct err *e);

struct life_summary {
    const char *host_id;
    const char *cluster_id;
    uint64_t epoch;
    uint64_t host_revision;
    bool full; /* nothing was left out */
    int64_t memory_mb_total, memory_mb_used;
    size_t slots_total, slots_used;
    int64_t disk_free_bytes;
};
/* Calls `each` for every sandbox changed after `since` (0: all; all too when one has been forgotten
 * since then that a list of changes cannot name), under the registry's lock: it must
 * not call back. */
int life_list(struct life *l, uint64_t since, void (*each)(void *ctx, const struct life_info *info),
    void *ctx, struct life_summary *ret, struct err *e);
/* The database has taken note that this one was auto-paused, at that revision. */
void life_acknowledge(struct life *l, const struct sandbox_id *id, uint64_t revision);
/* Calls `each` for every base template, also for those whose first image is being built. */
int life_templates(struct life *l, void (*each)(void *ctx, const struct host_template *template),
    void *ctx, struct err *e);
/* Returns when something has changed after `since`, at the deadline, or when the agent ends. */
void life_wait_change(struct life *l, uint64_t since, int64_t deadline);

#endif
