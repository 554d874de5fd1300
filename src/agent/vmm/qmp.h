/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Client of QEMU's monitor protocol (QEMU's docs/interop/qmp-spec.rst): one JSON object a line.
 *
 * A VMM may be its guest's: lines are bounded, parsed strictly, and nothing waits beyond its
 * deadline.
 */
#ifndef TORPOR_AGENT_VMM_QMP_H
#define TORPOR_AGENT_VMM_QMP_H

#include "base/arena.h"
#include "base/buf.h"
#include "base/err.h"
#include "json/json.h"

struct qmp;

/* Connects to the socket at which a VMM takes commands, and takes the greeting. ERR_UNAVAILABLE
 * when nobody listens or it ends, ERR_TIMEOUT when it serves somebody else or hangs. */
struct qmp *qmp_open(const char *path, int64_t deadline, struct err *e);
/* The same on a connection, which becomes the client's. */
struct qmp *qmp_attach(int fd, int64_t deadline, struct err *e);
/* NULL is fine; returns NULL. */
struct qmp *qmp_close(struct qmp *q);

struct qmp_command {
    const char *name;
    const char *arguments; /* a JSON object, NULL for none; the caller's words only */
    int fd;                /* goes with it (SCM_RIGHTS), -1: none */
};
/* One command and its answer; events in between are dropped. `ret_return` (NULL: not wanted) lives
 * until the next call. What QEMU refuses is ERR_INTERNAL with its words; anything that is not the
 * protocol ERR_PROTOCOL, and the connection is of no more use. */
int qmp_execute(struct qmp *q, const struct qmp_command *c, const struct json_value **ret_return,
    int64_t deadline, struct err *e);

/* Events of a migration count from here on. Needs the capability "events". */
void qmp_migration_begin(struct qmp *q);
/* Waits until it has completed. ERR_INTERNAL when it has failed. */
int qmp_migration_wait(struct qmp *q, int64_t deadline, struct err *e);

#endif
