/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is on the disk when the power goes.
 *
 * A recording is the order of all changes below one folder, of all threads: names, contents, syncs.
 * From a recording that ends after some operation, states are made of the folder as a power cut may
 * leave it. The disk promises no more than POSIX: an fsync of a file makes its contents durable, an
 * fsync of a folder its names, and neither the other. What is not synced
 *   - of a file's contents is there, or not, or torn at a sector or a page, or there behind a hole
 *     of zeros, write by write;
 *   - of names is there or not, whatever came after it; but a name's own changes keep their order,
 *     a rename happens at both names or at neither, and a folder goes after what was in it.
 * Owners and modes are not of interest here.
 */
#ifndef TORPOR_TESTS_DURABILITY_DISK_MODEL_H
#define TORPOR_TESTS_DURABILITY_DISK_MODEL_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

enum disk_op_kind {
    DISK_LINK,   /* `name` in `dir` is now `inode` */
    DISK_UNLINK, /* `name` in `dir` was `inode` */
    DISK_RENAME, /* `name` in `dir`, which was `inode`, is now `name2` in `dir2` */
    DISK_WRITE,
    DISK_TRUNCATE,
    DISK_SYNC, /* of `inode` */
    DISK_SYNC_ALL,
    DISK_MARK, /* something was answered */
};

enum { DISK_NAME_MAX = 96 };

struct disk_op {
    enum disk_op_kind kind;
    int inode;
    int dir, dir2;
    char name[DISK_NAME_MAX];
    char name2[DISK_NAME_MAX];
    int64_t offset; /* or the new size */
    size_t n;
    char *bytes;
    /* Filled in when the recording ends: */
    int before, before2; /* the operations before it on its names, -1: none */
    int durable;         /* the sync that made it durable, INT32_MAX: none */
};

enum disk_type { DISK_FILE, DISK_FOLDER, DISK_SYMLINK };

struct disk_inode {
    enum disk_type type;
    ino_t real; /* in the folder that is recorded */
    char *target;
};

struct disk_recording {
    struct disk_op *ops;
    size_t n, cap;
    struct disk_inode *inodes; /* the first is the folder itself */
    size_t n_inodes, cap_inodes;
    size_t n_base; /* operations that were before the recording: durable */
};

/* Records what is done below `root` from now on. What is there is durable. */
void disk_record(const char *root);
/* Goes on after the first `n` operations of `r`, all of which have happened in `root`, as disk_make
 * made it with DISK_ALL, though not all are durable. `r` stays the caller's. */
void disk_record_on(const struct disk_recording *r, size_t n, const char *root);
void disk_mark(void);
/* Operations so far. */
size_t disk_count(void);
/* The caller's, until disk_free. */
struct disk_recording disk_recorded(void);
void disk_free(struct disk_recording *r);

enum disk_variant {
    DISK_SYNCED,   /* nothing that was not synced */
    DISK_ALL,      /* all of it */
    DISK_NAMES,    /* all names, no contents */
    DISK_CONTENTS, /* all contents, no names */
    DISK_RANDOM,
    DISK_VARIANTS
};

/* Makes the empty folder `dst` what the disk has after a power cut behind operation `n`. Returns a
 * hash of it. */
uint64_t disk_make(
    const struct disk_recording *r, size_t n, enum disk_variant v, uint64_t *seed, const char *dst);
/* Of all names and contents below a folder. */
uint64_t disk_hash(const char *path);
uint64_t disk_random(uint64_t *seed);

/* --- for calls.c, which holds the lock --- */

extern pthread_mutex_t disk_lock;
#define DISK_GUARD() MUTEX_GUARD(&disk_lock)

void disk_saw_new(int dirfd, const char *path);
void disk_will_unlink(int dirfd, const char *path);
void disk_did_unlink(bool worked);
void disk_saw_rename(int from, const char *path, int to, const char *name);
/* `offset` -1: where the descriptor is now. */
void disk_saw_write(int fd, const void *p, size_t n, off_t offset);
void disk_saw_copy(int fd, size_t n, off_t offset);
void disk_saw_truncate(int fd, off_t size);
void disk_saw_sync(int fd);
void disk_saw_sync_all(int fd);

#endif
