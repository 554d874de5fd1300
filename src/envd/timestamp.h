/* SPDX-License-Identifier: Apache-2.0 */
/* Points in time as the host writes them. */
#ifndef TORPOR_ENVD_TIMESTAMP_H
#define TORPOR_ENVD_TIMESTAMP_H

#include "base/slice.h"

/* Reads an RFC 3339 time (any offset, fraction of any length) or decimal nanoseconds since 1970.
 * False when malformed or outside the years 2000 to 2199: a clock set there by mistake would break
 * every program of the guest. Pure. */
bool timestamp_parse(struct slice s, int64_t *ret_real_ns);

#endif
