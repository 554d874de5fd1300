/* SPDX-License-Identifier: Apache-2.0 */
/* What tidying layouts shares with tidying memory. */
#ifndef TORPOR_AGENT_SNAP_TIDY_INT_H
#define TORPOR_AGENT_SNAP_TIDY_INT_H

#include "agent/snap/generations_int.h"
#include "snap/checksum.h"

/* A blob that is being made. */
struct tidy_blob {
    struct uuid id;
    int fd;
    int sums_fd;
};

/* One generation's tidying; one thread. */
struct tidy {
    struct generation_store *store;
    struct generation_entry *entry; /* pinned */
    struct layout *old;             /* held */
    int map_fd;                     /* of the old layout */
    int folder;
    size_t n_made;
    struct tidy_blob made[2]; /* held: memory, layers */
    int new_map_fd;
    char new_map[MAP_NAME_MAX]; /* "": the map stays */
    size_t n_memory;
    struct blob_ref memory[GENERATION_BLOBS_MAX];
    size_t n_layers;
    struct blob_ref layers[GENERATION_LAYERS_MAX];
    struct layout *result;
    bool placed; /* the layout that names what was made is on the disk */
};

/* A new blob, the tidy's. */
int tidy_begin_blob(struct tidy *t, struct tidy_blob **ret, struct err *e);
/* Writes the live pages of the small memory blobs into one, and the map of all. */
int tidy_memory(struct tidy *t, struct err *e);

/* A blob to read from, with its sums. */
struct tidy_source {
    int fd;
    void *sums_bytes;
    size_t n_sums_bytes;
    struct checksums sums;
};
int tidy_source_open(
    const struct tidy *t, const struct blob_ref *ref, struct tidy_source *ret, struct err *e);
void tidy_source_done(const struct tidy_source *source);

#endif
