/* SPDX-License-Identifier: Apache-2.0 */
/* What /init changes in the machine, behind one struct so that a test changes none. */
#ifndef TORPOR_ENVD_SYSTEM_H
#define TORPOR_ENVD_SYSTEM_H

#include <stdint.h>

#include "base/err.h"
#include "base/slice.h"

enum { SYSTEM_ENTROPY_MAX = 512 };

struct system_ops {
    /* Sets the wall clock, nanoseconds since 1970. */
    int (*set_clock)(void *ctx, int64_t real_ns, struct err *e);
    /* Credits the bytes (at most SYSTEM_ENTROPY_MAX) and makes the kernel's generator take a new
     * key from them at once, so that two machines of one snapshot part ways. */
    int (*add_entropy)(void *ctx, struct slice bytes, struct err *e);
    int (*set_hostname)(void *ctx, const char *name, struct err *e);
    /* Writes the file systems out. */
    void (*sync)(void *ctx);
    /* Ends the connections that the guest's programs have with other machines. */
    int (*drop_connections)(void *ctx, struct err *e);
    void *ctx;
};

/* The real ones; they need root. */
extern const struct system_ops system_ops_real;

#endif
