/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Generations of one host: frozen machines on disk, and the blobs that they consist of.
 *
 *   <dir>/blobs/<uuid>, <uuid>.crc        immutable bytes: memory pages, disk layers, device state
 *   <dir>/generations/<uuid>/manifest.json  what it is; written once
 *                            layout.json    which blobs hold it; may be replaced by an equal one
 *                            memory*.map    the map that layout.json names
 *                            secret         opens the guest's envd after a restore, mode 0600
 *   <dir>/hints/<uuid>/working-set          may be lost
 *
 * Nothing of a committed generation is ever written again. A generation lives as long as somebody
 * has it pinned (sandboxes, templates, warm starts: life/ says which); a blob as long as a layout
 * names it or a machine that runs was restored from it. Both counts are in memory and built when
 * the store is opened. All functions may be called from any thread.
 */
#ifndef TORPOR_AGENT_SNAP_GENERATIONS_H
#define TORPOR_AGENT_SNAP_GENERATIONS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/uuid.h"

enum {
    GENERATION_LAYERS_MAX = 16,
    GENERATION_BLOBS_MAX = 64,
    GENERATION_TIDY_BLOBS = 8, /* beyond, memory blobs and disk layers are merged */
    GENERATION_SECRET_CHARS = 64,
    GENERATION_DIGEST_MAX = 72,
};

struct generation_store;

/* What a restore must find again. Texts are "" where they do not apply. */
struct generation_machine {
    char driver[16]; /* "qemu" */
    char version[32];
    char vmm_digest[GENERATION_DIGEST_MAX]; /* names <dir>/vmm/<digest> */
    char accel[8];                          /* kvm, tcg */
    char machine[32];
    char cpu[64];         /* model */
    char cpu_flags[4096]; /* of the host, with KVM; a restore elsewhere needs a superset */
    uint32_t tsc_khz;
    int32_t snapshot_format;
    int32_t guest_abi;
    int32_t vcpus;
    int32_t memory_mb;
};

struct generation_manifest {
    struct uuid id;
    struct uuid parent; /* none for the first */
    bool has_memory;    /* false: the disk alone */
    int64_t created_at_ms;
    char template[65]; /* that the first ancestor was created from */
    char image_digest[GENERATION_DIGEST_MAX];
    char kernel[65]; /* version */
    char envd_version[33];
    char default_user[33];
    uint64_t disk_bytes; /* virtual size */
    struct generation_machine machine;
};

/* Merges frozen disk layers (bottom first, all but the base image) into one, written to the empty
 * file `out_fd`. Not synced. */
typedef int generation_merge_layers(const int *layer_fds, size_t n, int out_fd, struct err *e);

struct generation_store_config {
    int dir_fd; /* the data folder; stays the caller's */
    generation_merge_layers *merge_layers;
    /* Told after each step of merging and removing, for tests that let something die there; NULL:
     * nobody is. Outside of the lock. */
    void (*after_step)(const char *operation, const char *step);
};
/* Makes the folders, reads every generation's layout. A generation that cannot be read is logged,
 * kept, and makes this start collect nothing. Drafts that were never committed are removed. */
struct generation_store *generation_store_open(
    const struct generation_store_config *config, struct err *e);
void generation_store_close(struct generation_store *s);
/* Once all pins are taken, at the start: removes generations without a pin and blobs without a
 * layout. Does nothing when some generation could not be read. */
int generation_store_collect(struct generation_store *s, struct err *e);

/* Calls `each` with every manifest, outside of the lock. Fails with the first that cannot be read.
 */
int generation_store_each(struct generation_store *s,
    void (*each)(void *ctx, const struct generation_manifest *m), void *ctx, struct err *e);

/* ERR_NOT_FOUND when there is no such generation. */
int generation_pin(struct generation_store *s, const struct uuid *id, struct err *e);
/* Takes one pin away. With the last one the generation goes, and the blobs that only it had. What
 * cannot be removed is logged and left for the next start. */
void generation_unpin(struct generation_store *s, const struct uuid *id);

/* How many pins it has. */
unsigned generation_pins(struct generation_store *s, const struct uuid *id);

/* --- making one --- */

struct generation_draft;
/* NULL on failure. `manifest->id` is set here. */
struct generation_draft *generation_draft_new(
    struct generation_store *s, struct generation_manifest *manifest, struct err *e);
/* Makes an empty blob, root's and mode 0400, open for reading and writing. The descriptors stay the
 * draft's. */
struct generation_blob {
    struct uuid id;
    int fd;
    int sums_fd;
};
int generation_draft_blob(struct generation_draft *d, struct generation_blob *ret, struct err *e);
/* The empty file for memory.map; the draft's. */
int generation_draft_map(struct generation_draft *d, int *ret_fd, struct err *e);
/* What a restore needs besides memory.map: the blob of the device state. Its sums are made here. */
int generation_draft_set_state(
    struct generation_draft *d, const struct generation_blob *blob, struct err *e);
/* Makes the file `name` of the folder a frozen disk layer, without copying (a second link), owned
 * by root and mode 0400, on top of those so far; `ret_id` is the new blob. Until the commit the
 * file may be taken back: generation_draft_free gives it its owner and mode again. */
int generation_draft_add_layer_file(
    struct generation_draft *d, int dirfd, const char *name, struct uuid *ret_id, struct err *e);
/* Layers that an older generation has already, bottom first. */
int generation_draft_add_layer(struct generation_draft *d, const struct uuid *blob, struct err *e);
/* Makes everything durable: blobs, map, manifest, secret, folders; then it exists, with one pin for
 * the caller. `manifest` as it should be stored (the id of the draft). The draft is still to be
 * freed. */
int generation_draft_commit(struct generation_draft *d, const struct generation_manifest *manifest,
    const char secret[GENERATION_SECRET_CHARS + 1], struct err *e);
/* Removes what was not committed, and nothing else. NULL is fine; returns NULL. */
struct generation_draft *generation_draft_free(struct generation_draft *d);

/* --- reading one --- */

/* An open generation: its blobs stay, whatever is unpinned or merged, until it is closed. */
struct generation {
    struct generation_store *store;
    struct generation_manifest manifest;
    char secret[GENERATION_SECRET_CHARS + 1];
    int map_fd;     /* -1 without memory */
    size_t n_blobs; /* of memory, in the map's order */
    int blob_fds[GENERATION_BLOBS_MAX];
    struct uuid blobs[GENERATION_BLOBS_MAX];
    size_t n_layers; /* bottom first */
    int layer_fds[GENERATION_LAYERS_MAX];
    struct uuid layers[GENERATION_LAYERS_MAX];
    int state_fd;
    int hints_fd; /* -1: none */
    uint64_t map_entries;
};
/* NULL with ERR_NOT_FOUND, or ERR_INVALID when it is damaged. The caller has it pinned. */
struct generation *generation_open(
    struct generation_store *s, const struct uuid *id, struct err *e);
/* Closes the descriptors but goes on holding the blobs, for the life of the machine that was
 * restored from it. */
void generation_close_files(struct generation *g);
/* NULL is fine; returns NULL. */
struct generation *generation_close(struct generation *g);

/* The manifest alone. */
int generation_read(struct generation_store *s, const struct uuid *id,
    struct generation_manifest *ret, struct err *e);
/* Bytes as really allocated by everything that it needs, what it shares included. */
int generation_size(
    struct generation_store *s, const struct uuid *id, uint64_t *ret_bytes, struct err *e);
/* The empty file that a new working set is written to, and its replacement. */
int generation_hints_begin(
    struct generation_store *s, const struct uuid *id, int *ret_fd, struct err *e);
int generation_hints_end(struct generation_store *s, const struct uuid *id, int fd, struct err *e);

/* A guest touches much the same pages each time: `to`, which has none of its own, gets those of
 * `from`. One that fails costs page faults only. */
void generation_hints_inherit(
    struct generation_store *s, const struct uuid *from, const struct uuid *to);

/* Merges memory blobs and disk layers when there are more than GENERATION_TIDY_BLOBS, and replaces
 * the layout by the equal one. The smaller ones are merged; a large one stays while most of it is
 * in use. Whoever has the generation open keeps what it has. `ret_did` says whether it did
 * anything. */
int generation_tidy(
    struct generation_store *s, const struct uuid *id, bool *ret_did, struct err *e);

#endif
