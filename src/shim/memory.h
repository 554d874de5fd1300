/* SPDX-License-Identifier: Apache-2.0 */
/* The memory of one VM: where its contents come from and where it lies in the VMM. */
#ifndef TORPOR_SHIM_MEMORY_H
#define TORPOR_SHIM_MEMORY_H

#include <stdbool.h>
#include <sys/types.h>

#include "shim/plan.h"
#include "snap/memory_map.h"

/* Contents by offset: a memory map and the blobs of its table. */
struct memory_source {
    struct memory_map map;
    void *file; /* the map's, mapped; NULL when all is zeros */
    size_t file_bytes;
    struct memory_map_entry zeros; /* the one entry of a map without a file */
    int fds[SHIM_BLOBS_MAX];       /* of map.blobs[i]; -1 beyond */
    bool ours[SHIM_BLOBS_MAX];     /* written by a SAVE of this VM: its pages are compared */
};

/* What a SAVE has written and no COMMIT confirmed. */
struct memory_pending {
    int map_fd; /* -1: none */
    int blob_fd;
    uint32_t n_blobs;
    uint32_t blob; /* the table's index of the new blob plus 1, 0 when it holds nothing */
    uint32_t old[SHIM_BLOBS_MAX]; /* index of each in the source's table */
};

enum { MEMORY_FAULTS_MAX = 512 }; /* each thread of the VMM waits for one page at most */

struct memory {
    enum shim_memory kind;
    bool old_pagemap;
    uint64_t bytes;
    struct memory_source source;
    struct memory_pending pending;
    /* For the VMM, closed once it has them. */
    int placeholder;
    int library_source; /* runs, or /dev/userfaultfd */
    int library_socket;
    uint64_t n_runs;
    /* From its start on. */
    int mem_fd;     /* /proc/PID/mem */
    int pagemap_fd; /* /proc/PID/pagemap */
    int maps_fd;    /* /proc/PID/maps, with SHIM_MEMORY_COPIED; -1 otherwise */
    int socket;     /* brings the handshake; -1 after it */
    bool is_mapped;
    uint64_t base;   /* in the VMM */
    bool is_tracked; /* the kernel tells written pages from others that were copied in */
    /* SHIM_MEMORY_UFFD. */
    int uffd;
    int hints_fd;
    uint64_t *touched; /* bitmaps of pages: served at faults, */
    uint64_t *removed; /* given back by the VMM: zeros now */
    bool any_removed;
    size_t bitmap_bytes;
    uint64_t waiting[MEMORY_FAULTS_MAX]; /* faults that were read and not served yet */
    size_t n_waiting;
    uint64_t n_faults;
    uint64_t n_ahead;
};

/* Nothing yet: SHIM_MEMORY_STOCK. */
void memory_init(struct memory *m);
/* Loads the plan's map, checks that every blob is as long as the map says, and makes what the
 * library needs. Takes the plan's descriptors of map, blobs and hints. Nothing to do with
 * SHIM_MEMORY_STOCK. */
int memory_prepare(struct memory *m, struct plan *p, struct err *e);

/* At most that many descriptors for the VMM: placeholder, socket, source, blobs. */
enum { MEMORY_FDS_MAX = 3 + SHIM_BLOBS_MAX };
/* Stores them, for numbers from memory_first_fd() on, and returns how many. */
int memory_child_fds(const struct memory *m, int *fds);
/* Writes "NAME=VALUE", at most MEMORY_ENV_BYTES; false when the VMM gets no environment. */
enum { MEMORY_ENV_BYTES = 128 };
bool memory_child_env(const struct memory *m, unsigned n_layers, char *dst);

/* After the VMM's exec, with all rights: opens its memory and closes what was for it. */
int memory_attach(struct memory *m, pid_t vmm, struct err *e);

/* `socket` is readable: takes the handshake, and copies in the hints. An error means that the VMM
 * must end. */
int memory_shake_hands(struct memory *m, struct err *e);

/* Reads `n` bytes at `offset` as the source has them; an earlier end of a blob is ERR_IO. All of it
 * is of one entry that is not zeros. */
int memory_source_read(const struct memory_source *s, const struct memory_map_entry *at,
    uint64_t offset, size_t n, void *dst, struct err *e);
/* A source of a map's file and nothing else: the descriptors of its blobs are -1. `fd` stays the
 * caller's. */
int memory_source_load(struct memory_source *s, int fd, uint64_t bytes, struct err *e);
/* Closes its blobs and unmaps its file. */
void memory_source_done(struct memory_source *s);

#endif
