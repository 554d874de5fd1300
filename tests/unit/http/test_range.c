/* SPDX-License-Identifier: Apache-2.0 */
/* Byte ranges and entity tags: tables of what is asked and what is answered. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "base/cleanup.h"
#include "http/range.h"

static const struct {
    const char *value;
    uint64_t size;
    enum http_range_answer answer;
    uint64_t first;
    uint64_t length;
} ranges[] = {
    {"bytes=0-0", 10, HTTP_RANGE_PART, 0, 1},
    {"bytes=0-9", 10, HTTP_RANGE_PART, 0, 10},
    {"bytes=2-4", 10, HTTP_RANGE_PART, 2, 3},
    {"BYTES=2-4", 10, HTTP_RANGE_PART, 2, 3},
    {"bytes= 2-4 ", 10, HTTP_RANGE_PART, 2, 3},
    {"bytes=9-", 10, HTTP_RANGE_PART, 9, 1},
    {"bytes=0-", 10, HTTP_RANGE_PART, 0, 10},
    {"bytes=5-1000", 10, HTTP_RANGE_PART, 5, 5},
    {"bytes=5-99999999999999999999999", 10, HTTP_RANGE_PART, 5, 5},
    {"bytes=-3", 10, HTTP_RANGE_PART, 7, 3},
    {"bytes=-1000", 10, HTTP_RANGE_PART, 0, 10},
    {"bytes=0-", UINT64_MAX, HTTP_RANGE_PART, 0, UINT64_MAX},
    {"bytes=007-008", 10, HTTP_RANGE_PART, 7, 2},
    {"bytes=10-", 10, HTTP_RANGE_UNSATISFIABLE, 0, 0},
    {"bytes=10-20", 10, HTTP_RANGE_UNSATISFIABLE, 0, 0},
    {"bytes=99999999999999999999999-", 10, HTTP_RANGE_UNSATISFIABLE, 0, 0},
    {"bytes=-0", 10, HTTP_RANGE_UNSATISFIABLE, 0, 0},
    {"bytes=0-", 0, HTTP_RANGE_UNSATISFIABLE, 0, 0},
    {"bytes=-5", 0, HTTP_RANGE_UNSATISFIABLE, 0, 0},
    {"bytes=4-2", 10, HTTP_RANGE_WHOLE, 0, 0},
    {"bytes=0-1,3-4", 10, HTTP_RANGE_WHOLE, 0, 0},
    {"bytes=-1,-2", 10, HTTP_RANGE_WHOLE, 0, 0},
    {"bytes=0-1,", 10, HTTP_RANGE_WHOLE, 0, 0},
    {"bytes=", 10, HTTP_RANGE_WHOLE, 0, 0},
    {"bytes=-", 10, HTTP_RANGE_WHOLE, 0, 0},
    {"bytes=--1", 10, HTTP_RANGE_WHOLE, 0, 0},
    {"bytes=+1-2", 10, HTTP_RANGE_WHOLE, 0, 0},
    {"bytes=1 -2", 10, HTTP_RANGE_WHOLE, 0, 0},
    {"bytes=0x1-2", 10, HTTP_RANGE_WHOLE, 0, 0},
    {"bytes 0-1", 10, HTTP_RANGE_WHOLE, 0, 0},
    {"lines=0-1", 10, HTTP_RANGE_WHOLE, 0, 0},
    {"", 10, HTTP_RANGE_WHOLE, 0, 0},
};

static void test_choose(void **state)
{
    for (size_t i = 0; i < ARRAY_LEN(ranges); i++) {
        struct http_range r = {77, 77};
        enum http_range_answer got =
            http_range_choose(slice_cstr(ranges[i].value), ranges[i].size, &r);
        if (got != ranges[i].answer)
            fail_msg("\"%s\": answer %d", ranges[i].value, (int)got);
        if (got == HTTP_RANGE_PART)
            assert_true(r.first == ranges[i].first && r.length == ranges[i].length);
        else
            assert_true(r.first == 77 && r.length == 77);
    }
    assert_int_equal(http_range_choose(slice_cstr(NULL), 10, NULL), HTTP_RANGE_WHOLE);
}

static void test_format(void **state)
{
    char text[HTTP_CONTENT_RANGE_MAX];
    http_range_format(&(struct http_range){2, 3}, 10, text);
    assert_string_equal(text, "bytes 2-4/10");
    http_range_format(NULL, 10, text);
    assert_string_equal(text, "bytes */10");
    http_range_format(&(struct http_range){UINT64_MAX - 1, 1}, UINT64_MAX, text);
    assert_string_equal(
        text, "bytes 18446744073709551614-18446744073709551614/18446744073709551615");
}

static void test_etags(void **state)
{
    assert_true(http_etag_valid(SLICE_LIT("\"\"")));
    assert_true(http_etag_valid(SLICE_LIT("\"a,b\"")));
    assert_true(http_etag_valid(SLICE_LIT("W/\"x\"")));
    assert_false(http_etag_valid(SLICE_LIT("w/\"x\"")));
    assert_false(http_etag_valid(SLICE_LIT("x")));
    assert_false(http_etag_valid(SLICE_LIT("\"x")));
    assert_false(http_etag_valid(SLICE_LIT("\"x y\"")));
    assert_false(http_etag_valid(SLICE_LIT("\"x\"y")));
    assert_false(http_etag_valid(SLICE_LIT("W/")));
    assert_false(http_etag_valid(slice_of(NULL, 0)));
}

static void test_if_range(void **state)
{
    struct slice tag = SLICE_LIT("\"v1\"");
    assert_true(http_if_range_holds(slice_of(NULL, 0), tag));
    assert_true(http_if_range_holds(SLICE_LIT("\"v1\""), tag));
    assert_false(http_if_range_holds(SLICE_LIT("\"v2\""), tag));
    assert_false(http_if_range_holds(SLICE_LIT("W/\"v1\""), tag));
    assert_false(http_if_range_holds(SLICE_LIT("W/\"v1\""), SLICE_LIT("W/\"v1\"")));
    assert_false(http_if_range_holds(SLICE_LIT("Sun, 06 Nov 1994 08:49:37 GMT"), tag));
    assert_false(http_if_range_holds(SLICE_LIT(""), tag));
}

static void test_lists(void **state)
{
    struct slice tag = SLICE_LIT("\"b,c\"");
    assert_true(http_etag_in_list(SLICE_LIT("*"), tag, /* weak= */ false));
    assert_true(http_etag_in_list(SLICE_LIT("\"a\", \"b,c\""), tag, /* weak= */ false));
    assert_true(http_etag_in_list(SLICE_LIT("\"b,c\",\"a\""), tag, /* weak= */ false));
    assert_true(http_etag_in_list(SLICE_LIT("W/\"b,c\""), tag, /* weak= */ true));
    assert_false(http_etag_in_list(SLICE_LIT("W/\"b,c\""), tag, /* weak= */ false));
    assert_false(http_etag_in_list(SLICE_LIT("\"a\", \"b\""), tag, /* weak= */ true));
    assert_false(http_etag_in_list(SLICE_LIT("\"b,c\" junk"), tag, /* weak= */ true));
    assert_false(http_etag_in_list(SLICE_LIT(""), tag, /* weak= */ true));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_choose),
        cmocka_unit_test(test_format),
        cmocka_unit_test(test_etags),
        cmocka_unit_test(test_if_range),
        cmocka_unit_test(test_lists),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
