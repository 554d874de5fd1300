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
#include "agent/life/phases.h"
#include "agent/life/templates.h"
#include "agent/net/net.h"
#include "agent/snap/generations.h"
#include "agent/vmm/vmm.h"
#include "proto/limits.h"

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
    bool hidden;            /* never will be: it is made for a warm start. Constant */
    uint64_t watch_key;     /* of its VMM in the monitor; 0: not watched */

    bool in_transition;    /* life.lock */
    bool is_unwanted;      /* whoever destroys it waits for the transition; life.lock */
    struct vmm *killable;  /* `vmm`, while others may kill it; life.lock */
    unsigned calls;        /* of ours into its guest, under way; life.lock */
    int cancel_fd;         /* eventfd that breaks off an auto-pause under way, else -1; life.lock */
    int64_t retry_ms;      /* monotonic: no auto-pause before; life.lock */
    uint64_t acknowledged; /* revision of an auto-pause that the database has; life.lock */
    unsigned failures;     /* auto-pauses that failed in a row; life.lock */
    bool journal_owed;     /* state.json may say something else: it is written again; life.lock */
    char last_request[LIMIT_REQUEST_ID_MAX + 1]; /* of the last pause or resume that worked */

    /* Owned by who holds the transition. */
    struct host_template template;
    const char *operation;            /* under way, for crash points: create, resume, ... */
    struct phases *phases;            /* of the operation under way, or NULL */
    const struct life_create *create; /* while it is being created */
    struct generation *source;        /* that its VM was restored from; its files are closed */
    /* Of a pause that failed, while journal_owed: state.json may name it. Pinned until that is
     * over; none otherwise. */
    struct uuid doubtful;
    int dir_fd; /* its folder, -1 when not open */
    bool reserved;
    bool booting; /* holds a boot place */
    bool has_slot;
    struct net_slot slot;
    struct vmm *vmm;
    int64_t noted_at_ms; /* last_active_at_ms of the last sandbox_note; life.lock */

    /* Set before the sandbox runs; whoever is counted in `calls` and has seen `running` may use it.
     * A resume replaces it when no call is left, under life.lock: whoever destroys closes it. */
    struct guest *guest;
};

struct life {
    struct host host;
    struct vmm_host vmm_host;
    struct host_kernel kernel;
    struct net_pool *net;
    struct admission admission;
    struct generation_store *generations;
    int templates_fd;               /* <dir>/templates */
    pthread_mutex_t snapshots_lock; /* removing from it */
    int warm_fd;                    /* <dir>/warm */
    enum life_memory memory;
    struct histograms histograms;
    struct reaper *reaper;
    struct warm *warm;
    struct trial *trial;          /* NULL: none is made */
    char keep_dir[HOST_PATH_MAX]; /* <dir>/vmm */

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
/* Takes it without waiting; false when it is taken. */
bool sandbox_trylock(struct sandbox *s);
void sandbox_unlock(struct sandbox *s);
/* Applies an event and publishes the new state. Holder of the transition only. */
bool sandbox_event(
    struct sandbox *s, enum machine_event event, const char *message, struct machine_actions *ret);
/* Counts a change of `s`, or of the table when NULL, and wakes who waits for one. Under life.lock.
 */
void registry_changed_locked(struct life *l, struct sandbox *s);
void sandbox_info(struct sandbox *s, struct life_info *ret);
/* Makes the present state durable. A failure leaves it owed: the reaper tries again. Holder of the
 * transition only. */
int sandbox_journal(struct sandbox *s, struct err *e);
/* Notes the present state and the slot in the run folder, which dies with the power. Holder of the
 * transition only, but for a sandbox that runs: then its slot is constant. */
int sandbox_note(struct sandbox *s, struct err *e);
int sandbox_unnote(struct sandbox *s, struct err *e);
/* Every sandbox in the table, each with a reference, in a malloc'd array. */
struct sandbox **registry_all(struct life *l, size_t *ret_n, struct err *e);

/* ERR_BAD_STATE with the status in `where`: "sandbox is paused, not running". */
int sandbox_bad_state(enum sandbox_status status, const char *wanted, struct err *e);
/* What this host cannot do with the sandbox as it is becomes ERR_BAD_STATE, with the reason. */
int sandbox_unsupported(const struct sandbox *s, struct err *e);
/* Waits until no call of ours is inside its guest. ERR_CONFLICT when that takes too long. Holder of
 * the transition only, of a sandbox that does not run. */
int sandbox_wait_calls(struct sandbox *s, struct err *e);
/* Opens its folder when it is not. */
int sandbox_open_dir(struct sandbox *s, struct err *e);
/* Whoever holds the transition of an auto-pause lets it be broken off. */
void sandbox_cancel_pause(struct sandbox *s);
/* Takes the transition of a sandbox that is to be destroyed. Nobody waits for what is under way:
 * its VMM is killed and its calls fail, so it ends. With another revision than `expected_revision`
 * (0: any) it only waits. ERR_CONFLICT as sandbox_lock. */
int sandbox_lock_to_destroy(struct sandbox *s, uint64_t expected_revision, struct err *e);
/* Holder of the transition: `v` is the VMM now (NULL: none any more), and may be killed by others.
 * ERR_UNAVAILABLE when the sandbox is to be destroyed meanwhile. */
int sandbox_set_vmm(struct sandbox *s, struct vmm *v, struct err *e);

/* --- resources.c: what a sandbox has of its host, as steps --- */

/* Makes all of it; returns when the guest has acknowledged its init. */
int resources_make(struct sandbox *s, struct err *e);
/* The same for a sandbox that has its folder already. `keep_disk`: its overlay is used as it is. On
 * failure the folder stays. */
int resources_resume(struct sandbox *s, bool keep_disk, struct err *e);
/* VM, network, admission. Idempotent. */
int resources_release(struct sandbox *s, struct err *e);
/* Overlay, journal, console, folder. Idempotent. */
int resources_remove_files(struct sandbox *s, struct err *e);

/* --- source.c: the generation that a VM comes from --- */

/* Opens the generation that the entry names, and finds its base image. */
int source_open(struct sandbox *s, struct err *e);
/* Lets its blobs go. Idempotent; once the VM is gone. */
void source_close(struct sandbox *s);
/* Takes the pins of the entry away: its generation, live snapshots, what state.json may name.
 * Idempotent. */
void source_unpin(struct sandbox *s);
/* The pins of live snapshots alone: their VM is gone. */
void source_unpin_live(struct sandbox *s);
/* Another live snapshot of this VM, pinned, that later ones may refer to. False when there are
 * enough already. */
bool source_add_live(struct sandbox *s, const struct uuid *generation);
/* Keeps the working set of a generation's first restore, for the ones after it. Nobody watches the
 * VM yet. */
void source_record_hints(struct sandbox *s);
void source_to_facts(const struct generation_machine *m, struct vmm_facts *ret);
void source_from_facts(const struct vmm_facts *f, struct generation_machine *ret);
/* How its memory comes back. ERR_UNSUPPORTED when this host cannot. */
int source_choose_memory(
    const struct life *l, const struct generation *g, enum vmm_memory *ret, struct err *e);

/* --- overlays.c: the disk files in a sandbox's folder --- */

#define OVERLAY_NAME "disk.qcow2"
enum { OVERLAY_LAYERS_MAX = 8, OVERLAY_NAME_MAX = 32 };
/* The name of frozen layer `i`, from 1 on; they lie below OVERLAY_NAME. */
void overlay_layer_name(unsigned i, char dst[OVERLAY_NAME_MAX]);
unsigned overlay_layers_count(const struct sandbox *s);
bool overlays_exist(const struct sandbox *s);
/* Removes all of them. */
int overlays_remove(struct sandbox *s, struct err *e);
/* Puts all of them aside, in a folder that goes with the sandbox: a restore from an older
 * generation does not need them, but nobody asked for them to go. */
int overlays_put_aside(struct sandbox *s, struct err *e);
/* What was put aside is the disk again: that restore came to nothing. Idempotent. */
int overlays_put_back(struct sandbox *s, struct err *e);
/* That restore worked: what was put aside stays there, until the next one. Idempotent. */
int overlays_keep_aside(struct sandbox *s, struct err *e);
/* Makes an empty overlay for the next freeze, durable; while the guest runs. */
int overlays_prepare(struct sandbox *s, struct err *e);
/* There will be no freeze. */
void overlays_unprepare(struct sandbox *s);
/* The present overlay becomes a layer, and the VM goes on in the one that was prepared. The vCPUs
 * stand still. */
int overlays_freeze(struct sandbox *s, int64_t deadline, struct err *e);
/* What a freeze left half-way when its agent ended. */
int overlays_settle(struct sandbox *s, struct err *e);

/* --- pause.c --- */

enum pause_kind { PAUSE_REQUESTED, PAUSE_IDLE };
/* Puts a running sandbox to sleep. Holder of the transition. After a failure it runs on, or is
 * stopped when its VM is gone. */
int pause_sandbox(struct sandbox *s, enum pause_kind kind, struct phases *phases, struct err *e);
/* A VM whose pause an earlier agent did not end: it runs on. */
int pause_undo(struct sandbox *s, struct err *e);
/* A generation of a sandbox that runs and goes on running, pinned for the caller. */
/* A generation of a booted guest that has had no init, pinned for the caller. The VM stands still
 * afterwards. */
int pause_hidden(struct sandbox *s, struct uuid *ret_generation, struct err *e);
int pause_snapshot(
    struct sandbox *s, struct uuid *ret_generation, struct phases *phases, struct err *e);

/* --- warm.c: base templates start warm --- */

/* Pins what an earlier agent made. */
struct warm *warm_open(struct life *l, struct err *e);
/* Those of another set of VMM files than today's go. */
void warm_drop_stale(struct warm *w);
/* From now on warm starts are made. */
int warm_start(struct warm *w, struct err *e);
/* Waits for the one being made. NULL is fine. */
void warm_stop(struct warm *w);
/* Counts a create of that size; when there is a warm start for it, makes it the sandbox's source.
 * `w` NULL: there are none. */
void warm_use(struct warm *w, struct sandbox *s);
/* The warm start that this sandbox was made from did not work: it goes. */
void warm_forget(struct warm *w, const struct sandbox *s);

/* --- trial.c: whether this host can save and restore --- */

/* Begins it, in a thread of its own. */
struct trial *trial_start(struct life *l, struct err *e);
/* Waits until it is over: before a VM is started. NULL is fine. */
void trial_await(struct trial *t);
/* Waits until it is over and frees it; nobody waits for it any more. NULL is fine. */
void trial_end(struct trial *t);

/* --- reaper.c: background --- */

struct reaper *reaper_start(struct life *l, struct err *e);
/* Waits for pauses under way. */
void reaper_stop(struct reaper *r);
/* A sandbox has gone to sleep: its generation may be merged. */
void reaper_tidy_later(struct reaper *r, const struct sandbox_id *id);

/* --- recover.c: what an earlier agent left --- */

/* Adopts VMs, ends those of unfinished creates, opens the network around the adopted ones, and
 * fills the table, with the pins of what it names. `ret_all_known`: each could be read. A sandbox
 * that cannot be recovered is said and is `stopped`; the others go on.
 */
int recover_all(
    struct life *l, const struct life_config *config, bool *ret_all_known, struct err *e);

/* --- monitor.c: notices VMMs that end --- */

int monitor_start(struct life *l, struct err *e);
void monitor_stop(struct life *l);
/* From now on the end of its VMM makes it `stopped`. Holder of the transition only. */
int monitor_watch(struct sandbox *s, struct err *e);
void monitor_forget(struct sandbox *s);

#endif
