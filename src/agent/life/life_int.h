/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Registry and sandbox, shared inside this folder.
 *
 * One transition at a time per sandbox: who has set `in_transition` (sandbox_lock) owns the
 * sandbox's resources until it clears it. life.lock is short and guards the table and what is
 * published of each sandbox; nobody waits or calls out while holding it.
 */
#ifndef TORPOR_AGENT_LIFE_LIFE_INT_H
#define TORPOR_AGENT_LIFE_LIFE_INT_H

#include <pthread.h>

#include "agent/life/admission.h"
#include "agent/life/host.h"
#include "agent/life/life.h"
#include "agent/life/templates.h"
#include "agent/net/net.h"
#include "agent/vmm/vmm.h"

enum { REGISTRY_BUCKETS = 1024, RUN_FILE_NAME_MAX = 40 };

struct sandbox {
    struct sandbox *next; /* in its bucket; life.lock */
    unsigned refs;        /* life.lock; the table holds one */
    struct life *life;

    /* Published: life.lock. */
    struct journal_entry entry;
    char host_ip[16];
    uint64_t host_revision; /* of the host when this sandbox last changed */
    bool listed;            /* in the table */
    uint64_t watch_key;     /* of its VMM in the monitor; 0: not watched */

    bool in_transition; /* life.lock */

    /* Owned by who holds the transition. */
    struct host_template template;
    const struct life_create *create; /* while it is being created */
    int dir_fd;                       /* its folder, -1 when not open */
    bool reserved;
    bool booting; /* holds a boot place */
    bool has_slot;
    struct net_slot slot;
    struct vmm *vmm;
    int64_t noted_at_ms; /* last_active_at_ms of the last sandbox_note; life.lock */

    /* Set once before the sandbox runs, freed with it: whoever holds a reference and has seen
     * `running` may use it. */
    struct guest *guest;
};

struct life {
    struct host host;
    struct vmm_host vmm_host;
    struct host_kernel kernel;
    struct net_pool *net;
    struct admission admission;

    pthread_mutex_t lock;
    pthread_cond_t transition_ended; /* monotonic */
    pthread_cond_t changed;          /* host_revision has grown, or closing; monotonic */
    struct sandbox *buckets[REGISTRY_BUCKETS];
    uint64_t host_revision;
    uint64_t last_forgotten; /* host_revision when a create failed and its sandbox was forgotten */
    uint64_t last_watch_key;
    bool closing;

    int epoll_fd; /* the monitor's: VMMs, and wake_fd */
    int wake_fd;  /* eventfd that ends the monitor */
    bool monitoring;
    pthread_t monitor;
};

/* --- registry.c --- */

/* A sandbox outside the table with one reference, status pending. NULL when out of memory. */
struct sandbox *sandbox_new(struct life *l, const struct sandbox_id *id);
/* Adds it to the table (which takes a reference of its own). ERR_EXISTS with `ret_other` set, and a
 * reference on that one, when the id is taken. */
int registry_add(struct life *l, struct sandbox *s, struct sandbox **ret_other, struct err *e);
/* Takes it out of the table; idempotent. `unasked`: nobody has asked for it, so whoever lists
 * changes must look at everything. */
void registry_remove(struct life *l, struct sandbox *s, bool unasked);
/* With a reference; NULL with ERR_NOT_FOUND. */
struct sandbox *registry_find(struct life *l, const struct sandbox_id *id, struct err *e);
void sandbox_unref(struct sandbox *s);
/* One transition at a time: ERR_CONFLICT when another one takes longer than 30 s. */
int sandbox_lock(struct sandbox *s, struct err *e);
void sandbox_unlock(struct sandbox *s);
/* Applies an event and publishes the new state. Holder of the transition only. */
bool sandbox_event(
    struct sandbox *s, enum machine_event event, const char *message, struct machine_actions *ret);
/* Counts a change of `s`, or of the table when NULL, and wakes who waits for one. Under life.lock.
 */
void registry_changed_locked(struct life *l, struct sandbox *s);
void sandbox_info(struct sandbox *s, struct life_info *ret);
/* Makes the present state durable. Holder of the transition only. */
int sandbox_journal(struct sandbox *s, struct err *e);
/* Notes the present state and the slot in the run folder, which dies with the power. Holder of the
 * transition only, but for a sandbox that runs: then its slot is constant. */
int sandbox_note(struct sandbox *s, struct err *e);
int sandbox_unnote(struct sandbox *s, struct err *e);
/* Every sandbox in the table, each with a reference, in a malloc'd array. */
struct sandbox **registry_all(struct life *l, size_t *ret_n, struct err *e);

/* --- resources.c: what a sandbox has of its host, as steps --- */

/* Makes all of it; returns when the guest has acknowledged its init. */
int resources_make(struct sandbox *s, struct err *e);
/* VM, network, admission. Idempotent. */
int resources_release(struct sandbox *s, struct err *e);
/* Overlay, journal, console, folder. Idempotent. */
int resources_remove_files(struct sandbox *s, struct err *e);

/* --- recover.c: what an earlier agent left --- */

/* What becomes of a sandbox, by what the two journals say of it. */
enum recovery {
    RECOVER_UNDO,    /* nobody was told of it: it goes, with its VM */
    RECOVER_ADOPT,   /* it was reported running: its VM is looked for */
    RECOVER_STOP,    /* it ran, and not on this boot, or nothing is known of its VM */
    RECOVER_KEEP,    /* it had ended: stays as it is */
    RECOVER_DAMAGED, /* stays visible and untouched */
    RECOVERY_COUNT
};
/* Pure. `state` and `run` are NULL when there is no such file. */
enum recovery recover_decide(
    const struct journal_entry *state, bool state_damaged, const struct journal_entry *run);

/* Adopts VMs, ends those of unfinished creates, opens the network around the adopted ones, and
 * fills the table. A sandbox that cannot be recovered is said and is `stopped`; the others go on.
 */
int recover_all(struct life *l, const struct life_config *config, struct err *e);

/* --- monitor.c: notices VMMs that end --- */

int monitor_start(struct life *l, struct err *e);
void monitor_stop(struct life *l);
/* From now on the end of its VMM makes it `stopped`. Holder of the transition only. */
int monitor_watch(struct sandbox *s, struct err *e);
void monitor_forget(struct sandbox *s);

#endif
