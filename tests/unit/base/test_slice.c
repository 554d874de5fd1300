/* SPDX-License-Identifier: Apache-2.0 */
/* Byte runs: comparing, strict numbers, UTF-8, base64, hex. */
#include <stdlib.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <cmocka.h>

#include "base/cleanup.h"
#include "base/slice.h"

static void slices_compare(void **state)
{
    (void)state;
    assert_true(slice_eq(slice_of(NULL, 0), SLICE_LIT("")));
    assert_true(slice_eq(SLICE_LIT("a\0b"), SLICE_LIT("a\0b")));
    assert_false(slice_eq(SLICE_LIT("a\0b"), SLICE_LIT("a\0c")));
    assert_false(slice_eq(SLICE_LIT("a"), SLICE_LIT("ab")));
    assert_true(slice_is(slice_cstr(NULL), ""));
    assert_true(slice_eq_nocase(SLICE_LIT("Content-TYPE"), SLICE_LIT("content-type")));
    assert_false(slice_eq_nocase(SLICE_LIT("a@"), SLICE_LIT("a`"))); /* 0x40 and 0x60 */
    assert_false(slice_eq_nocase(SLICE_LIT("a["), SLICE_LIT("a{")));
    assert_false(slice_eq_nocase(SLICE_LIT("a"), SLICE_LIT("ab")));
}

static void copy_needs_room_and_no_nul(void **state)
{
    char dst[4] = "old";
    (void)state;
    assert_false(slice_copy_cstr(SLICE_LIT("1234"), dst, sizeof dst));
    assert_false(slice_copy_cstr(SLICE_LIT("a\0b"), dst, sizeof dst));
    assert_string_equal(dst, "old");
    assert_true(slice_copy_cstr(SLICE_LIT("123"), dst, sizeof dst));
    assert_string_equal(dst, "123");
    assert_true(slice_copy_cstr(slice_of(NULL, 0), dst, sizeof dst));
    assert_string_equal(dst, "");
}

static void numbers_are_strict(void **state)
{
    static const char *const bad[] = {"", "-1", "+1", " 1", "1 ", "01", "00", "1a", "0x1",
        "18446744073709551616", "99999999999999999999", "184467440737095516150"};
    uint64_t v = 7;
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(bad); i++)
        assert_false(slice_parse_u64(slice_cstr(bad[i]), &v));
    assert_int_equal(v, 7);
    assert_true(slice_parse_u64(SLICE_LIT("0"), &v));
    assert_int_equal(v, 0);
    assert_true(slice_parse_u64(SLICE_LIT("18446744073709551615"), &v));
    assert_true(v == UINT64_MAX);
}

static void utf8_is_strict(void **state)
{
    static const struct {
        const char *text;
        bool ok;
    } cases[] = {{"", true}, {"ascii", true}, {"\xc2\x80", true}, {"\xdf\xbf", true},
        {"\xe0\xa0\x80", true}, {"\xed\x9f\xbf", true}, {"\xee\x80\x80", true},
        {"\xf0\x90\x80\x80", true}, {"\xf4\x8f\xbf\xbf", true}, {"\x80", false},
        {"\xc0\x80", false}, {"\xc1\xbf", false}, {"\xe0\x9f\xbf", false}, {"\xed\xa0\x80", false},
        {"\xf0\x8f\xbf\xbf", false}, {"\xf4\x90\x80\x80", false}, {"\xf5\x80\x80\x80", false},
        {"\xff", false}, {"\xc3", false}, {"\xe2\x82", false}, {"\xf0\x9f\x98", false},
        {"\xc3(", false}, {"\xe2(\xa1", false}, {"\xe2\x82(", false}, {"a\xc3\xa9z\xff", false}};
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++)
        if (utf8_valid(cases[i].text, strlen(cases[i].text)) != cases[i].ok)
            fail_msg("case %zu", i);
    assert_true(utf8_valid("a\0b", 3));
    assert_true(utf8_valid(NULL, 0));
}

static size_t prefix(const char *text)
{
    return utf8_complete_prefix(text, strlen(text));
}

static void streams_are_cut_between_characters(void **state)
{
    (void)state;
    assert_int_equal(prefix(""), 0);
    assert_int_equal(prefix("abc"), 3);
    assert_int_equal(prefix("ab\xc3"), 2);
    assert_int_equal(prefix("ab\xc3\xa9"), 4);
    assert_int_equal(prefix("ab\xe2"), 2);
    assert_int_equal(prefix("ab\xe2\x82"), 2);
    assert_int_equal(prefix("ab\xe2\x82\xac"), 5);
    assert_int_equal(prefix("\xf0\x9f\x98"), 0);
    assert_int_equal(prefix("x\xf0\x9f\x98\x80"), 5);
    /* What no byte could complete is not held back. */
    assert_int_equal(prefix("ab\x80"), 3);
    assert_int_equal(prefix("ab\xff"), 3);
    assert_int_equal(prefix("ab\xe0\x80"), 4);
    assert_int_equal(prefix("ab\xed\xa0"), 4);
    assert_int_equal(prefix("\x80\x80\x80\x80"), 4);
}

static void base64_follows_the_rfc(void **state)
{
    static const char *const plain[] = {"", "f", "fo", "foo", "foob", "fooba", "foobar"};
    static const char *const coded[] = {
        "", "Zg==", "Zm8=", "Zm9v", "Zm9vYg==", "Zm9vYmE=", "Zm9vYmFy"};
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(plain); i++) {
        char text[16] = "";
        size_t len = base64_encoded_len(strlen(plain[i]));
        assert_int_equal(len, strlen(coded[i]));
        base64_encode(plain[i], strlen(plain[i]), text);
        assert_memory_equal(text, coded[i], len);
        assert_int_equal(base64_decode(coded[i], len, text), strlen(plain[i]));
        assert_memory_equal(text, plain[i], strlen(plain[i]));
    }
}

static void base64_keeps_all_bytes(void **state)
{
    unsigned char bytes[256];
    unsigned char back[512];
    char text[512];
    (void)state;
    for (int i = 0; i < 256; i++)
        bytes[i] = (unsigned char)i;
    for (size_t n = 0; n <= sizeof bytes; n++) {
        size_t len = base64_encoded_len(n);
        base64_encode(bytes, n, text);
        assert_int_equal(base64_decode(text, len, back), n);
        assert_memory_equal(back, bytes, n);
        while (len > 0 && text[len - 1] == '=')
            len--;
        assert_int_equal(base64_decode(text, len, back), n); /* unpadded */
    }
}

static void bad_base64_is_refused(void **state)
{
    static const char *const bad[] = {"A", "=",
        "==", "====", "A===", "Zg=", "Zg===", "Zm9v=", "Z=g=", "Zh==", "Zm9=", "Zm 9", "Zm9\n",
        "Zm-_", "Zm9v\x80", "=Zm9"};
    char out[16];
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(bad); i++)
        if (base64_decode(bad[i], strlen(bad[i]), out) != -1)
            fail_msg("accepted %s", bad[i]);
}

static void base64_decodes_in_place(void **state)
{
    char text[] = "Zm9vYmFy";
    (void)state;
    assert_int_equal(base64_decode(text, strlen(text), text), 6);
    assert_memory_equal(text, "foobar", 6);
}

static void hex_is_lower_case(void **state)
{
    char text[9];
    (void)state;
    hex_encode("\x00\x1f\xab\xff", 4, text);
    assert_string_equal(text, "001fabff");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(slices_compare),
        cmocka_unit_test(copy_needs_room_and_no_nul),
        cmocka_unit_test(numbers_are_strict),
        cmocka_unit_test(utf8_is_strict),
        cmocka_unit_test(streams_are_cut_between_characters),
        cmocka_unit_test(base64_follows_the_rfc),
        cmocka_unit_test(base64_keeps_all_bytes),
        cmocka_unit_test(bad_base64_is_refused),
        cmocka_unit_test(base64_decodes_in_place),
        cmocka_unit_test(hex_is_lower_case),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
