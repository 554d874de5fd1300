/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reading and writing descriptors and files, with deadlines.
 *
 * A `deadline` is monotonic milliseconds (base/clock.h). Functions with one work on blocking and
 * non-blocking descriptors and never wait longer; passing it is ERR_TIMEOUT.
 */
#ifndef TORPOR_BASE_IO_H
#define TORPOR_BASE_IO_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/buf.h"
#include "base/err.h"

/* Waits until poll(2) reports one of `events` (or an error or hang-up) on `fd`.
 * Returns the revents (> 0), or -1 with ERR_TIMEOUT or a system error. */
int io_wait(int fd, short events, int64_t deadline, struct err *e);

/* Reads at least 1 byte, at most `n`. Returns the count, 0 at the end, -1 on error. */
ssize_t io_read(int fd, void *dst, size_t n, int64_t deadline, struct err *e);
/* Reads exactly `n` bytes; an earlier end is ERR_PROTOCOL. Returns 0 or -1. */
int io_read_full(int fd, void *dst, size_t n, int64_t deadline, struct err *e);
/* Writes all of it. Sockets are written with MSG_NOSIGNAL. Returns 0 or -1. */
int io_write_full(int fd, const void *src, size_t n, int64_t deadline, struct err *e);

/* Reads up to `n` bytes at `offset` of a file; fewer only at its end. Returns the count or -1. */
ssize_t io_read_at(int fd, void *dst, size_t n, uint64_t offset, struct err *e);

/* Appends the whole file to `dst`; a file longer than the buffer's bound is ERR_TOO_LARGE. */
int io_read_file(int dirfd, const char *path, struct buf *dst, struct err *e);

/* Replaces `name` in the folder `dirfd` atomically and durably: writes aside, fsync, rename, fsync
 * of the folder. A crash leaves the old or the new contents. Returns 0 or -1. */
int io_replace_file(
    int dirfd, const char *name, const void *src, size_t n, mode_t mode, struct err *e);

/* Whether that is the name of what an io_replace_file left that was cut off: it can go. */
bool io_is_leftover(const char *name);

/* Makes a folder and its missing parents, 0755 but for the last, which gets `mode`. Existing ones
 * are fine and keep their mode; what was made is durable. */
int io_mkdir_p(const char *path, mode_t mode, struct err *e);

/* Opens the folder `name`, 0700 when it has to be made. Its name is durable then, whoever made it.
 * Returns the descriptor or -1. */
int io_open_folder(int dirfd, const char *name, struct err *e);

/* Removes a tree below `dirfd` without following symbolic links; absent is fine. */
int io_remove_tree(int dirfd, const char *name, struct err *e);

int io_set_nonblock(int fd, int on, struct err *e);

#endif
