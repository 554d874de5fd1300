/* SPDX-License-Identifier: Apache-2.0 */
/* Time: clocks, deadlines, RFC 3339. */
#include "base/clock.h"

#include <limits.h>
#include <stdio.h>
#include <time.h>

static int64_t read_us(clockid_t id)
{
    struct timespec ts;
    (void)clock_gettime(id, &ts);
    return (int64_t)ts.tv_sec * 1000000 + ts.tv_nsec / 1000;
}

int64_t clock_mono_ms(void)
{
    return read_us(CLOCK_MONOTONIC) / 1000;
}

int64_t clock_mono_us(void)
{
    return read_us(CLOCK_MONOTONIC);
}

int64_t clock_real_ms(void)
{
    return read_us(CLOCK_REALTIME) / 1000;
}

int64_t deadline_in_ms(int64_t ms)
{
    return ms < 0 ? DEADLINE_NEVER : clock_mono_ms() + ms;
}

int deadline_poll_ms(int64_t deadline)
{
    int64_t left;
    if (deadline == DEADLINE_NEVER)
        return -1;
    left = deadline - clock_mono_ms();
    if (left < 0)
        return 0;
    return left > INT_MAX ? INT_MAX : (int)left;
}

void clock_format_rfc3339(int64_t real_ms, char dst[CLOCK_RFC3339_MAX])
{
    time_t secs = (time_t)(real_ms / 1000);
    struct tm tm;
    size_t n;
    (void)gmtime_r(&secs, &tm);
    n = strftime(dst, CLOCK_RFC3339_MAX, "%Y-%m-%dT%H:%M:%S", &tm);
    (void)snprintf(dst + n, CLOCK_RFC3339_MAX - n, ".%03dZ", (int)(real_ms % 1000));
}
