/* SPDX-License-Identifier: Apache-2.0 */
/* Deadlines and the written form of times. */
#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <cmocka.h>

#include "base/clock.h"

static void clocks_agree(void **state)
{
    int64_t ms = clock_mono_ms();
    int64_t us = clock_mono_us();
    (void)state;
    assert_true(us / 1000 >= ms && us / 1000 - ms < 10000);
    assert_true(clock_real_ms() > INT64_C(1700000000000)); /* after 2023 */
}

static void deadlines_count_down(void **state)
{
    int64_t now = clock_mono_ms();
    int64_t deadline = deadline_in_ms(60000);
    (void)state;
    assert_true(deadline >= now + 60000 && deadline < now + 70000);
    assert_in_range(deadline_poll_ms(deadline), 50000, 60000);
    assert_int_equal(deadline_in_ms(-1), DEADLINE_NEVER);
    assert_int_equal(deadline_poll_ms(DEADLINE_NEVER), -1);
    assert_int_equal(deadline_poll_ms(now - 1), 0);
    assert_int_equal(deadline_poll_ms(0), 0);
    assert_int_equal(deadline_poll_ms(DEADLINE_NEVER - 1), INT_MAX);
}

static void check_text(int64_t ms, const char *want)
{
    char text[CLOCK_RFC3339_MAX];
    clock_format_rfc3339(ms, text);
    assert_string_equal(text, want);
}

static void times_are_rfc3339(void **state)
{
    (void)state;
    check_text(0, "1970-01-01T00:00:00.000Z");
    check_text(1, "1970-01-01T00:00:00.001Z");
    check_text(INT64_C(1767323045123), "2026-01-02T03:04:05.123Z");
    check_text(INT64_C(951782400000), "2000-02-29T00:00:00.000Z");
    check_text(INT64_C(253402300799999), "9999-12-31T23:59:59.999Z");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(clocks_agree),
        cmocka_unit_test(deadlines_count_down),
        cmocka_unit_test(times_are_rfc3339),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
