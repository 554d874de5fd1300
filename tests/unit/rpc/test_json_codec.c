/* SPDX-License-Identifier: Apache-2.0 */
/* Messages in JSON: the exact text we write, what we accept, what we refuse. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <cmocka.h>

#include "base/cleanup.h"
#include "sample.h"

enum { ARENA_BYTES = 16 << 20, TEXT_BYTES_MAX = 1 << 20 };

static struct arena arena;

static int setup(void **state)
{
    (void)state;
    arena_init(&arena, ARENA_BYTES);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    arena_done(&arena);
    return 0;
}

static struct sample decode(const char *text)
{
    struct sample got;
    struct err e = {0};
    if (rpc_decode(&sample_message, RPC_CODEC_JSON, slice_cstr(text), &arena, &got, &e) < 0)
        fail_msg("%s: %s", text, e.msg);
    return got;
}

static void text_is_proto3_json(void **state)
{
    AUTO_BUF struct buf text = BUF_INIT(TEXT_BYTES_MAX);
    double reals[] = {0.5, INFINITY, -INFINITY, NAN};
    int32_t numbers[] = {COLOR_BLUE, 99};
    struct rpc_entry entry = {SLICE_LIT("k\n"), SLICE_LIT("v")};
    struct sample_inner inner = {.number = -1};
    struct sample_inner *inners[] = {&inner, &inner};
    struct sample s = {.flag = true,
        .int64 = INT64_MIN,
        .uint64 = UINT64_MAX,
        .bytes = SLICE_LIT("\xff\xfe"),
        .color = COLOR_RED,
        .has_opt_uint64 = true,
        .has_one_inner = true,
        .reals = {reals, 4},
        .colors = {numbers, 2},
        .inners = {inners, 2},
        .map = {&entry, 1}};
    struct err e = {0};
    (void)state;
    assert_int_equal(rpc_encode(&sample_message, RPC_CODEC_JSON, &s, &text, &e), 0);
    assert_string_equal(text.p,
        "{\"flag\":true,\"int64\":\"-9223372036854775808\",\"uint64\":\"18446744073709551615\","
        "\"bytes\":\"//4=\",\"color\":\"COLOR_RED\",\"optUint64\":\"0\",\"oneInner\":{},"
        "\"reals\":[0.5,\"Infinity\",\"-Infinity\",\"NaN\"],\"colors\":[\"COLOR_BLUE\",99],"
        "\"inners\":[{\"number\":-1},{\"number\":-1}],\"map\":{\"k\\n\":\"v\"}}");
}

static void numbers_come_as_numbers_or_strings(void **state)
{
    struct sample s = decode("{\"int64\":\"-5\",\"uint64\":\"18446744073709551615\","
                             "\"int32\":\"-2147483648\",\"uint32\":4294967295,\"sint32\":1e2,"
                             "\"real\":\"2.5\",\"optReal\":\"-Infinity\",\"color\":\"COLOR_BLUE\","
                             "\"optColor\":12}");
    (void)state;
    assert_int_equal(s.int64, -5);
    assert_true(s.uint64 == UINT64_MAX);
    assert_int_equal(s.int32, INT32_MIN);
    assert_int_equal(s.uint32, UINT32_MAX);
    assert_int_equal(s.sint32, 100);
    assert_true(s.real == 2.5);
    assert_true(isinf(s.opt_real) && s.opt_real < 0);
    assert_int_equal(s.color, COLOR_BLUE);
    assert_int_equal(s.opt_color, 12);
    s = decode("{\"int64\":5,\"uint64\":7,\"real\":3,\"optReal\":\"NaN\",\"int32\":-0}");
    assert_int_equal(s.int64, 5);
    assert_int_equal(s.uint64, 7);
    assert_true(s.real == 3);
    assert_true(isnan(s.opt_real));
}

static void both_spellings_are_read(void **state)
{
    (void)state;
    assert_int_equal(decode("{\"optInt32\":3}").opt_int32, 3);
    assert_int_equal(decode("{\"opt_int32\":4}").opt_int32, 4);
}

static void unknown_names_and_nulls_are_skipped(void **state)
{
    struct sample s = decode("{\"nope\":{\"a\":[1,{}]},\"text\":\"x\",\"optText\":null,"
                             "\"inner\":null,\"oneText\":null,\"oneInt32\":1,\"texts\":null}");
    (void)state;
    assert_true(slice_is(s.text, "x"));
    assert_false(s.has_opt_text);
    assert_null(s.inner);
    assert_true(s.has_one_int32 && !s.has_one_text);
    assert_int_equal(s.texts.n, 0);
}

static void bytes_come_in_both_alphabets(void **state)
{
    struct sample s = decode("{\"bytes\":\"-_-_\",\"optBytes\":\"+/+/\",\"twoBytes\":\"_w\","
                             "\"blobs\":[\"\",\"_w==\"]}");
    const struct slice *blobs = s.blobs.items;
    (void)state;
    assert_true(slice_is(s.bytes, "\xfb\xff\xbf"));
    assert_true(slice_is(s.opt_bytes, "\xfb\xff\xbf"));
    assert_true(slice_is(s.two_bytes, "\xff"));
    assert_int_equal(s.blobs.n, 2);
    assert_int_equal(blobs[0].n, 0);
    assert_true(slice_is(blobs[1], "\xff"));
    assert_int_equal(s.bytes.p[s.bytes.n], 0);
}

static void maps_keep_their_order(void **state)
{
    struct sample s = decode("{\"map\":{\"b\":\"1\",\"a\":\"2\",\"\":\"\"}}");
    const struct rpc_entry *entries = s.map.items;
    (void)state;
    assert_int_equal(s.map.n, 3);
    assert_true(slice_is(entries[0].key, "b") && slice_is(entries[0].value, "1"));
    assert_true(slice_is(entries[1].key, "a") && slice_is(entries[1].value, "2"));
    assert_int_equal(entries[2].key.n, 0);
}

static void bad_texts_are_refused(void **state)
{
    static const struct {
        const char *text;
        const char *where;
    } cases[] = {
        {"", ""},
        {"[]", ""},
        {"null", ""},
        {"{\"flag\":1}", "flag"},
        {"{\"flag\":\"true\"}", "flag"},
        {"{\"int32\":2147483648}", "int32"},
        {"{\"int32\":-2147483649}", "int32"},
        {"{\"int32\":1.5}", "int32"},
        {"{\"int32\":\"\"}", "int32"},
        {"{\"int32\":\"-\"}", "int32"},
        {"{\"int32\":\"01\"}", "int32"},
        {"{\"int32\":\" 1\"}", "int32"},
        {"{\"int32\":true}", "int32"},
        {"{\"uint32\":-1}", "uint32"},
        {"{\"uint32\":4294967296}", "uint32"},
        {"{\"int64\":\"9223372036854775808\"}", "int64"},
        {"{\"int64\":1e19}", "int64"},
        {"{\"uint64\":\"18446744073709551616\"}", "uint64"},
        {"{\"uint64\":\"-1\"}", "uint64"},
        {"{\"real\":\"x\"}", "real"},
        {"{\"real\":\"\"}", "real"},
        {"{\"real\":[]}", "real"},
        {"{\"text\":1}", "text"},
        {"{\"bytes\":\"a\"}", "bytes"},
        {"{\"bytes\":\"a*==\"}", "bytes"},
        {"{\"bytes\":1}", "bytes"},
        {"{\"color\":\"GREEN\"}", "color"},
        {"{\"color\":1.5}", "color"},
        {"{\"inner\":[]}", "inner"},
        {"{\"inner\":{\"number\":\"x\"}}", "inner.number"},
        {"{\"self\":{\"inner\":{\"text\":0}}}", "self.inner.text"},
        {"{\"inners\":{}}", "inners"},
        {"{\"inners\":[{},{\"text\":1}]}", "inners.text"},
        {"{\"texts\":[null]}", "texts"},
        {"{\"map\":[]}", "map"},
        {"{\"map\":{\"a\":1}}", "map"},
        {"{\"map\":{\"a\":null}}", "map"},
        {"{\"opt_int32\":1,\"optInt32\":1}", "opt_int32"},
        {"{\"oneInt32\":1,\"oneText\":\"\"}", "one_text"},
    };
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct sample got;
        struct err e = {0};
        if (rpc_decode(
                &sample_message, RPC_CODEC_JSON, slice_cstr(cases[i].text), &arena, &got, &e) == 0)
            fail_msg("accepted %s", cases[i].text);
        assert_int_equal(e.kind, ERR_INVALID);
        if (strcmp(e.where, cases[i].where) != 0)
            fail_msg("%s: names \"%s\"", cases[i].text, e.where);
    }
}

static void arena_bound_is_an_error(void **state)
{
    struct arena small;
    struct sample got;
    struct err e = {0};
    (void)state;
    arena_init(&small, 4096);
    assert_int_equal(rpc_decode(&sample_message, RPC_CODEC_JSON,
                         SLICE_LIT("{\"inners\":[{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},"
                                   "{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{}]}"),
                         &small, &got, &e),
        -1);
    assert_int_equal(e.kind, ERR_TOO_LARGE);
    arena_done(&small);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(text_is_proto3_json),
        cmocka_unit_test(numbers_come_as_numbers_or_strings),
        cmocka_unit_test(both_spellings_are_read),
        cmocka_unit_test(unknown_names_and_nulls_are_skipped),
        cmocka_unit_test(bytes_come_in_both_alphabets),
        cmocka_unit_test(maps_keep_their_order),
        cmocka_unit_test(bad_texts_are_refused),
        cmocka_unit_test(arena_bound_is_an_error),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
