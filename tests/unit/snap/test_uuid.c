/* SPDX-License-Identifier: Apache-2.0 */
/* UUIDs: one text for each, and no other text for it. */
#include "snap_test.h"

static const char text[] = "0123abcd-4567-49ef-8a0b-cdef01234567";

static void test_text(void **state)
{
    static const unsigned char want[UUID_BYTES] = {0x01, 0x23, 0xab, 0xcd, 0x45, 0x67, 0x49, 0xef,
        0x8a, 0x0b, 0xcd, 0xef, 0x01, 0x23, 0x45, 0x67};
    char again[UUID_TEXT + 1];
    struct uuid u;
    assert_true(uuid_parse(slice_cstr(text), &u));
    assert_memory_equal(u.bytes, want, UUID_BYTES);
    uuid_format(&u, again);
    assert_string_equal(again, text);
}

/* Each byte, in each of its values: only lower-case hex and the hyphens in their places. */
static void test_refuses(void **state)
{
    struct uuid u = {{7}};
    const struct uuid before = u;
    char wrong[UUID_TEXT];
    assert_false(uuid_parse(slice_of(text, UUID_TEXT - 1), &u));
    assert_false(uuid_parse(slice_of(text, UUID_TEXT + 1), &u));
    assert_false(uuid_parse((struct slice){0}, &u));
    for (size_t i = 0; i < UUID_TEXT; i++) {
        for (int c = 0; c < 256; c++) {
            bool hex = (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f');
            bool hyphen = text[i] == '-';
            memcpy(wrong, text, UUID_TEXT);
            wrong[i] = (char)c;
            if (hyphen ? c == '-' : hex)
                continue;
            assert_false(uuid_parse(slice_of(wrong, UUID_TEXT), &u));
        }
    }
    assert_true(uuid_equal(&u, &before));
}

static void test_new(void **state)
{
    struct uuid a;
    struct uuid b;
    uuid_new(&a);
    uuid_new(&b);
    assert_false(uuid_equal(&a, &b));
    assert_int_equal(a.bytes[6] >> 4, 4);
    assert_int_equal(a.bytes[8] >> 6, 2);
    assert_false(uuid_is_none(&a));
    assert_true(uuid_is_none(&(struct uuid){{0}}));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_text),
        cmocka_unit_test(test_refuses),
        cmocka_unit_test(test_new),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
