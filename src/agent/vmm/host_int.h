/* SPDX-License-Identifier: Apache-2.0 */
/* Parts of the host probe that tests look at. */
#ifndef TORPOR_AGENT_VMM_HOST_INT_H
#define TORPOR_AGENT_VMM_HOST_INT_H

#include "base/slice.h"

/* The words of the first "flags" line of a /proc/cpuinfo, with single spaces between; empty: none.
 */
struct slice host_flags(struct slice cpuinfo);
/* True when the first "flags" line of a /proc/cpuinfo has that word. */
bool host_flags_have(struct slice cpuinfo, const char *flag);
/* The TSC's frequency against CLOCK_MONOTONIC_RAW, rounded to 1 MHz. Busy for 20 ms. */
uint32_t host_measure_tsc_khz(void);

#endif
