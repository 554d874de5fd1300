/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of this folder share. Lock: generation_store.lock, and no other below it. */
#ifndef TORPOR_AGENT_SNAP_GENERATIONS_INT_H
#define TORPOR_AGENT_SNAP_GENERATIONS_INT_H

#include <pthread.h>
#include <stddef.h>
#include <sys/types.h>

#include "agent/snap/generations.h"
#include "base/buf.h"

/* --- layouts and manifests (layout.c, manifest.c) --- */

enum {
    GENERATION_FORMAT = 1, /* of manifest.json and layout.json */
    GENERATION_FILE_BYTES_MAX = 64 << 10,
    DIGEST_BYTES = 32, /* SHA-256 */
    MAP_NAME_MAX = 64,
    BLOB_NAME_MAX = UUID_TEXT + 5, /* with ".crc" and the NUL */
    LAYOUT_REFS_MAX = GENERATION_BLOBS_MAX + GENERATION_LAYERS_MAX + 1,
};

/* A blob as a layout names it: a foreign or damaged file is noticed without reading it all. */
struct blob_ref {
    struct uuid id;
    uint64_t bytes;
    unsigned char sums_digest[DIGEST_BYTES]; /* SHA-256 of its file of sums */
};

/* layout.json: memory blobs in the map's order, layers bottom first, then the device state. */
struct layout {
    char map[MAP_NAME_MAX]; /* "" without memory */
    size_t n_memory;
    size_t n_layers;
    size_t n_state; /* 0 or 1 */
    struct blob_ref refs[];
};
static inline size_t layout_n_refs(const struct layout *l)
{
    return l->n_memory + l->n_layers + l->n_state;
}
static inline const struct blob_ref *layout_layers(const struct layout *l)
{
    return l->refs + l->n_memory;
}

/* Zeroed, with that many refs; free() ends it. NULL with ERR_NOMEM. */
struct layout *layout_new(size_t n_memory, size_t n_layers, size_t n_state, struct err *e);
/* Reads layout.json of a generation's folder. */
int layout_read(int dirfd, struct layout **ret, struct err *e);
/* Appends its text. */
void layout_write(const struct layout *l, struct buf *dst);

int manifest_read(int dirfd, struct generation_manifest *ret, struct err *e);
void manifest_write(const struct generation_manifest *m, struct buf *dst);

/* --- counts by uuid (counts.c) --- */

struct uuid_node {
    struct uuid id;
    struct uuid_node *next;
};
struct uuid_table {
    struct uuid_node **buckets;
    size_t n_buckets; /* a power of two */
    size_t n;
};
int uuid_table_init(struct uuid_table *t, struct err *e);
/* Frees nodes too: each was malloc'ed with its node first. */
void uuid_table_done(struct uuid_table *t);
struct uuid_node *uuid_table_find(const struct uuid_table *t, const struct uuid *id);
/* Cannot fail: without memory to grow, chains get longer. */
void uuid_table_insert(struct uuid_table *t, struct uuid_node *node);
/* The node is the caller's again. */
void uuid_table_remove(struct uuid_table *t, const struct uuid_node *node);
/* Each node once; `visit` may not change the table. */
void uuid_table_each(
    const struct uuid_table *t, void (*visit)(struct uuid_node *, void *), void *ctx);

/* --- the store (store.c, release.c) --- */

struct generation_entry {
    struct uuid_node node; /* first */
    unsigned pins;
    bool pending;          /* its commit is under way: nobody may see it */
    bool damaged;          /* its layout could not be read; `layout` is NULL */
    bool gutted;           /* damaged: there is no layout. Its removal was cut off, or it is lost */
    bool tidying;          /* one thread at a time */
    struct layout *layout; /* as on disk */
};

/* A blob that a layout, a draft or an open generation names. */
struct blob_entry {
    struct uuid_node node; /* first */
    unsigned count;
    bool is_known; /* `ref` is complete */
    struct blob_ref ref;
};

struct generation_store {
    struct generation_store_config config;
    int blobs_fd;
    int generations_fd;
    int hints_fd;
    bool synced;          /* what was there at the start is durable */
    size_t unreadable;    /* generations; while there are any, no blob is removed */
    pthread_mutex_t lock; /* of the tables, and of which map file a layout names */
    struct uuid_table generations;
    struct uuid_table blobs;
};

/* A step of "merge" or "collect" is done. Not under the lock. */
static inline void store_step(
    const struct generation_store *s, const char *operation, const char *step)
{
    if (s->config.after_step)
        s->config.after_step(operation, step);
}
/* The entry that everybody may see; NULL with ERR_NOT_FOUND. Under the lock. */
struct generation_entry *store_find(
    const struct generation_store *s, const struct uuid *id, struct err *e);
/* One more name for a blob. A blob that is new gets an entry; -1 with ERR_NOMEM. Under the lock. */
int store_hold_blob(struct generation_store *s, const struct uuid *id,
    const struct blob_ref *ref_or_null, struct err *e);
/* One more name for a blob that has one; ERR_NOT_FOUND else. Under the lock. */
int store_hold_again(struct generation_store *s, const struct uuid *id, struct err *e);
/* All of a layout or none. Under the lock. */
int store_hold_layout(struct generation_store *s, const struct layout *l, struct err *e);
/* A copy of the layout of a generation that is neither pending nor damaged; its blobs are held
 * until store_release_layout. `ret_map_fd` (may be NULL) gets the map that this very layout names,
 * or -1. Takes the lock. */
int store_hold_generation(struct generation_store *s, const struct uuid *id, struct layout **ret,
    int *ret_map_fd, struct err *e);
/* Takes one name away from each; files of blobs without a name are removed. Takes the lock. */
void store_release(struct generation_store *s, const struct blob_ref *refs, size_t n);
/* Releases and frees; NULL is fine. */
void store_release_layout(struct generation_store *s, struct layout *l);
/* Removes the files of a blob. What cannot be removed is logged. */
void store_remove_blob(const struct generation_store *s, const struct uuid *id);
/* Removes the folders of a generation that is in no table any more. */
void store_remove_generation(const struct generation_store *s, const struct uuid *id);

/* --- files (files.c) --- */

void blob_name(const struct uuid *id, char dst[BLOB_NAME_MAX]);
void blob_sums_name(const struct uuid *id, char dst[BLOB_NAME_MAX]);
/* Opens for reading a plain file that is no link. */
int open_plain(int dirfd, const char *name, struct err *e);
int open_folder(int dirfd, const char *name, struct err *e);
/* The folder of a generation. */
int open_generation_folder(const struct generation_store *s, const struct uuid *id, struct err *e);
/* Fills in size and digest from the blob and its sums, which must fit each other. */
int blob_ref_make(
    const struct uuid *id, int blob_fd, int sums_fd, struct blob_ref *ret, struct err *e);
/* Opens a blob and checks it against its ref. Returns the descriptor; -1 with ERR_INVALID when it
 * is missing or not the one. */
int blob_open(const struct generation_store *s, const struct blob_ref *ref, struct err *e);
/* Makes a new file with these contents; not synced. Returns the descriptor. */
int file_create(int dirfd, const char *name, struct slice contents, mode_t mode, struct err *e);
/* A read-only mapping of a whole file; NULL and 0 bytes when empty. */
int file_map(int fd, void **ret, size_t *ret_n, struct err *e);
/* Brings the contents of all to the disk first, so that the syncs that follow share what the file
 * system still has to write; then syncs each. */
int files_sync(const int *fds, size_t n, struct err *e);

#endif
