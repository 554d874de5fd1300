/* SPDX-License-Identifier: Apache-2.0 */
/* Tables, ages, sizes, times. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "cli/output.h"

static const char *const titles[] = {"ID", "STATE", "NOTE"};

static void assert_table(const struct table *t, int width, const char *expected)
{
    AUTO_FREE char *text = NULL;
    size_t n;
    FILE *f = open_memstream(&text, &n);
    table_print(t, f, width);
    (void)fclose(f);
    assert_string_equal(text, expected);
}

static void columns_are_aligned_and_cut(void **state)
{
    AUTO_TABLE struct table t;
    table_init(&t, titles, 3);
    table_cell(&t, "sb1");
    table_cell(&t, "running");
    table_cell(&t, "a rather long note");
    table_cell(&t, "sb22");
    table_cell(&t, "x");
    table_cell(&t, "%s", "");
    assert_table(&t, 0, "ID    STATE    NOTE\nsb1   running  a rather long note\nsb22  x\n");
    assert_table(&t, 26, "ID    STATE    NOTE\nsb1   running  a rather l…\nsb22  x\n");
    /* The id is never cut, nor anything to less than it can be read. */
    assert_table(&t, 5, "ID    STATE    NOTE\nsb1   running  a rathe…\nsb22  x\n");
}

static void hostile_text_is_harmless(void **state)
{
    AUTO_TABLE struct table t;
    table_init(&t, titles, 3);
    table_cell(&t, "a\033[2Jb");
    table_cell(&t, "c\nd\x7f");
    table_cell(&t, "äöü");
    assert_table(&t, 0, "ID      STATE  NOTE\na?[2Jb  c?d?   äöü\n");
}

static void characters_are_not_split(void **state)
{
    AUTO_TABLE struct table t;
    table_init(&t, titles, 3);
    table_cell(&t, "1");
    table_cell(&t, "2");
    table_cell(&t, "ääääääääääää");
    assert_table(&t, 19, "ID  STATE  NOTE\n1   2      äääääää…\n");
}

static void ages_and_sizes(void **state)
{
    static const struct {
        int64_t ago_ms;
        const char *text;
    } ages[] = {{0, "0s"}, {-5000, "0s"}, {119000, "119s"}, {120000, "2m"}, {7199000, "119m"},
        {7200000, "2h"}, {172800000, "2d"}, {8640000000, "100d"}};
    static const struct {
        int64_t bytes;
        const char *text;
    } sizes[] = {{0, "0 B"}, {1023, "1023 B"}, {1536, "1.5 KiB"}, {512ll << 20, "512 MiB"},
        {2ll << 30, "2 GiB"}, {15ll << 29, "7.5 GiB"}};
    const int64_t now = 1000000000000;
    char text[24];
    for (size_t i = 0; i < ARRAY_LEN(ages); i++) {
        format_age(now - ages[i].ago_ms, now, text);
        assert_string_equal(text, ages[i].text);
    }
    format_age(0, now, text);
    assert_string_equal(text, "-");
    for (size_t i = 0; i < ARRAY_LEN(sizes); i++) {
        format_bytes(sizes[i].bytes, text);
        assert_string_equal(text, sizes[i].text);
    }
}

static void times_are_read(void **state)
{
    assert_int_equal(parse_time("1970-01-01T00:00:01.500Z"), 1500);
    assert_int_equal(parse_time("2026-01-02T03:04:05.678Z"), 1767323045678);
    assert_int_equal(parse_time(""), 0);
    assert_int_equal(parse_time("yesterday"), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(columns_are_aligned_and_cut),
        cmocka_unit_test(hostile_text_is_harmless),
        cmocka_unit_test(characters_are_not_split),
        cmocka_unit_test(ages_and_sizes),
        cmocka_unit_test(times_are_read),
    };
    return cmocka_run_group_tests_name("cli/output", tests, NULL, NULL);
}
