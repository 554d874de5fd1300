/* SPDX-License-Identifier: Apache-2.0 */
/* Time: monotonic for waiting, realtime for records. Deadlines are monotonic milliseconds. */
#ifndef TORPOR_BASE_CLOCK_H
#define TORPOR_BASE_CLOCK_H

#include <stdint.h>

#define DEADLINE_NEVER INT64_MAX

int64_t clock_mono_ms(void);
int64_t clock_mono_us(void);
/* Milliseconds since 1970-01-01 UTC. */
int64_t clock_real_ms(void);

/* The deadline `ms` from now; negative `ms` means never. */
int64_t deadline_in_ms(int64_t ms);
/* What poll(2) wants: milliseconds left, 0 when passed, -1 for DEADLINE_NEVER. */
int deadline_poll_ms(int64_t deadline);

#define CLOCK_RFC3339_MAX 32
/* "2026-01-02T03:04:05.123Z" of milliseconds since 1970. */
void clock_format_rfc3339(int64_t real_ms, char dst[CLOCK_RFC3339_MAX]);

#endif
