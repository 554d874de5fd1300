/* SPDX-License-Identifier: Apache-2.0 */
/* Parses times. */
#include "envd/timestamp.h"

#include <time.h>

static const int64_t ns_per_sec = 1000000000;
static const int64_t year_2000_sec = 946684800;
static const int64_t year_2200_sec = 7258118400;

/* Takes exactly `n` digits off the front. */
static bool take_number(struct slice *s, size_t n, int *ret)
{
    int v = 0;
    if (s->n < n)
        return false;
    for (size_t i = 0; i < n; i++) {
        if (s->p[i] < '0' || s->p[i] > '9')
            return false;
        v = v * 10 + (s->p[i] - '0');
    }
    *s = slice_of(s->p + n, s->n - n);
    *ret = v;
    return true;
}

/* Takes one of the characters in `set` off the front. */
static bool take_char(struct slice *s, const char *set, char *ret)
{
    if (s->n == 0 || s->p[0] == '\0' || !strchr(set, s->p[0]))
        return false;
    *ret = s->p[0];
    *s = slice_of(s->p + 1, s->n - 1);
    return true;
}

static bool take_date_time(struct slice *s, struct tm *tm)
{
    char c;
    *tm = (struct tm){0};
    if (!take_number(s, 4, &tm->tm_year) || !take_char(s, "-", &c) ||
        !take_number(s, 2, &tm->tm_mon) || !take_char(s, "-", &c) ||
        !take_number(s, 2, &tm->tm_mday) || !take_char(s, "Tt ", &c) ||
        !take_number(s, 2, &tm->tm_hour) || !take_char(s, ":", &c) ||
        !take_number(s, 2, &tm->tm_min) || !take_char(s, ":", &c) ||
        !take_number(s, 2, &tm->tm_sec))
        return false;
    tm->tm_year -= 1900;
    tm->tm_mon -= 1;
    return tm->tm_mon >= 0 && tm->tm_mon < 12 && tm->tm_mday >= 1 && tm->tm_mday <= 31 &&
           tm->tm_hour < 24 && tm->tm_min < 60 && tm->tm_sec <= 60;
}

/* Takes an optional fraction; digits beyond nanoseconds are dropped. */
static bool take_fraction(struct slice *s, int64_t *ret_ns)
{
    int64_t unit = ns_per_sec;
    char c;
    int digit;
    *ret_ns = 0;
    if (!take_char(s, ".", &c))
        return true;
    if (!take_number(s, 1, &digit))
        return false;
    do {
        unit /= 10;
        *ret_ns += unit * digit;
    } while (take_number(s, 1, &digit));
    return true;
}

static bool take_offset(struct slice *s, int64_t *ret_sec)
{
    int hours;
    int minutes;
    char sign;
    char c;
    *ret_sec = 0;
    if (take_char(s, "Zz", &c))
        return true;
    if (!take_char(s, "+-", &sign) || !take_number(s, 2, &hours) || !take_char(s, ":", &c) ||
        !take_number(s, 2, &minutes) || hours > 23 || minutes > 59)
        return false;
    *ret_sec = (hours * 60 + minutes) * 60 * (sign == '-' ? -1 : 1);
    return true;
}

static bool parse_rfc3339(struct slice s, int64_t *ret_ns)
{
    struct tm tm;
    int64_t fraction;
    int64_t offset;
    if (!take_date_time(&s, &tm) || !take_fraction(&s, &fraction) || !take_offset(&s, &offset) ||
        s.n > 0 || tm.tm_year < 0 || tm.tm_year > 300)
        return false;
    *ret_ns = ((int64_t)timegm(&tm) - offset) * ns_per_sec + fraction;
    return true;
}

bool timestamp_parse(struct slice s, int64_t *ret_real_ns)
{
    uint64_t number;
    int64_t ns;
    if (slice_parse_u64(s, &number) && number <= INT64_MAX)
        ns = (int64_t)number;
    else if (!parse_rfc3339(s, &ns))
        return false;
    if (ns < year_2000_sec * ns_per_sec || ns >= year_2200_sec * ns_per_sec)
        return false;
    *ret_real_ns = ns;
    return true;
}
