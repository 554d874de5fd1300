/* SPDX-License-Identifier: Apache-2.0 */
/* The public API over HTTP. */
#ifndef TORPOR_CONTROL_API_API_H
#define TORPOR_CONTROL_API_API_H

#include <stdbool.h>

#include "base/err.h"

struct api;
struct service;

/* Serves on the listening descriptor, which it takes over (also on failure). The service is
 * borrowed and must outlive it. */
int api_start(int listen_fd, struct service *service, struct api **ret, struct err *e);
/* Stops accepting, lets the requests under way end, frees. NULL is fine. Returns NULL. */
struct api *api_stop(struct api *api);

/* Kinds of work with a bound each, so that none takes all threads: what is beyond gets 503
 * no_capacity. WORK_HEALTH is never refused. */
enum work { WORK_HEALTH = -1, WORK_SHORT, WORK_LIFE, WORK_EXEC, WORK_FILES, WORK_COUNT };

/* One line of the route table. `path` may hold the segment "{id}", a sandbox's id, or
 * "{name}". */
struct call;
typedef int api_handler(struct call *c, struct err *e);
struct route {
    const char *method;
    const char *path;
    bool open; /* no authentication */
    enum work work;
    api_handler *handler;
};
extern const struct route *const api_routes;
extern const size_t n_api_routes;

#endif
