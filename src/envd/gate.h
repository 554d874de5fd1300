/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The gate that a pause closes: while it is open requests are served, while it is closed only the
 * holder of the secret is heard. Any thread.
 */
#ifndef TORPOR_ENVD_GATE_H
#define TORPOR_ENVD_GATE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/slice.h"

enum { GATE_SECRET_CHARS = 64 };

struct gate;

/* One request that is inside. Leaving twice is fine. */
struct gate_pass {
    struct gate *gate;
    bool inside;
};

/* Open. NULL when out of memory or descriptors. gate_free takes NULL. */
struct gate *gate_new(void);
void gate_free(struct gate *g);

/* ERR_UNAVAILABLE unless the gate is open. */
int gate_enter(struct gate *g, struct gate_pass *ret, struct err *e);
void gate_leave(struct gate_pass *pass);

/* Lets nobody in any more. `keeps`: those inside may stay, until somebody evicts them. ERR_CONFLICT
 * when it is closed already. */
int gate_close(struct gate *g, const char secret[GATE_SECRET_CHARS + 1], bool keeps, struct err *e);
/* True when it is closed and was told to keep those inside. */
bool gate_keeps(struct gate *g);
/* Tells those inside who wait for something else to leave. Their last words to their clients may
 * take until `words_until` (monotonic ms); passed already: only what does not have to wait. */
void gate_evict(struct gate *g, int64_t words_until);
/* Readable from gate_evict to gate_open. */
int gate_evict_fd(const struct gate *g);
/* What the last gate_evict said. */
int64_t gate_words_until(struct gate *g);
/* Waits until all who were inside have left; false at the deadline. */
bool gate_wait_empty(struct gate *g, int64_t deadline);
/* Lets everybody in again and forgets the secret. */
void gate_open(struct gate *g);

bool gate_is_open(struct gate *g);
/* True when it is closed and that is its secret. In time that depends on the length only. */
bool gate_check_secret(struct gate *g, struct slice secret);

#endif
