/* SPDX-License-Identifier: Apache-2.0 */
/* Sockets: listening, connecting with a deadline, passing descriptors, who the peer is.
 * All descriptors are O_CLOEXEC; the caller closes them. */
#ifndef TORPOR_BASE_SOCK_H
#define TORPOR_BASE_SOCK_H

#include <stdint.h>
#include <sys/types.h>

#include "base/err.h"

/* Listens on a unix stream socket; an old file at `path` is replaced, the mode set before
 * listening. `path` at most 107 bytes. Returns the descriptor (blocking) or -1. */
int sock_listen_unix(const char *path, mode_t mode, struct err *e);
int sock_connect_unix(const char *path, struct err *e);

/* IPv4 only. `port` 0 takes a free one. SO_REUSEADDR is set. */
int sock_listen_tcp(const char *ipv4, uint16_t port, struct err *e);
/* TCP_NODELAY is set. The returned descriptor is blocking. */
int sock_connect_tcp(const char *ipv4, uint16_t port, int64_t deadline, struct err *e);
/* The local port of a bound TCP socket, 0 on error. */
uint16_t sock_local_port(int fd);

/* Sends `n` > 0 bytes together with `n_fds` descriptors (at most 128) in one message. */
int sock_send_fds(int fd, const void *src, size_t n, const int *fds, size_t n_fds, struct err *e);
/* Receives one message of at most `n` bytes. Stores the descriptors and their count; more than
 * `max_fds` is ERR_PROTOCOL and all are closed. Returns the byte count, 0 at the end, -1. */
ssize_t sock_recv_fds(
    int fd, void *dst, size_t n, int *fds, size_t max_fds, size_t *ret_n_fds, struct err *e);

struct sock_peer {
    pid_t pid;
    uid_t uid;
    gid_t gid;
};
/* SO_PEERCRED of a connected unix socket. */
int sock_peer_get(int fd, struct sock_peer *ret, struct err *e);

#endif
