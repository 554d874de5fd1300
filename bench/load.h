/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Load for an HTTP server in a process of its own, and the raw server it is compared with: one
 * thread, one epoll set, fixed bytes, no parsing. Both are asked by the same generator.
 */
#ifndef TORPOR_BENCH_LOAD_H
#define TORPOR_BENCH_LOAD_H

#include <sys/types.h>

#include "bench.h"

/* A server process; a byte written to `keep` ends it. */
struct served {
    pid_t pid;
    uint16_t port;
    int keep;
};

/* Forks; the child runs `serve` on a listening loopback socket until `stop_fd` can be read. */
void served_start(struct served *s, void (*serve)(int listen_fd, int stop_fd));
void served_stop(struct served *s);
/* Resident KiB of the process. */
long served_resident_kib(const struct served *s);

/* The raw server. */
void serve_raw(int listen_fd, int stop_fd);

#define LOAD_BODY "hello"
/* GET / over `connections` keep-alive connections from two threads for `ms` milliseconds. Returns
 * requests per second; samples of single requests are added until `latency` is full. */
double load_run(const struct served *s, unsigned connections, int ms, struct samples *latency);
/* A connection that has sent GET `path`; -1 on failure. */
int load_open(const struct served *s, const char *path);

#endif
