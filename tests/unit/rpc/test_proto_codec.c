/* SPDX-License-Identifier: Apache-2.0 */
/* Messages in protobuf: the exact bytes we write, what we accept, what we refuse. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <cmocka.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "sample.h"

enum { ARENA_BYTES = 64 << 20, TEXT_BYTES_MAX = 16 << 20, MANY = 100000, DEPTH_MAX = 32 };

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

static int try_decode(struct slice bytes, struct sample *got, struct err *e)
{
    /* A copy of the exact size, so that a read past the end is seen by the sanitizer. */
    AUTO_FREE char *copy = malloc(bytes.n ? bytes.n : 1);
    assert_non_null(copy);
    memcpy(copy, bytes.p, bytes.n);
    return rpc_decode(&sample_message, RPC_CODEC_PROTO, slice_of(copy, bytes.n), &arena, got, e);
}

static struct sample decode_bytes(struct slice bytes)
{
    struct sample got;
    struct err e = {0};
    if (try_decode(bytes, &got, &e) < 0)
        fail_msg("%s", e.msg);
    return got;
}
#define DECODE(text) decode_bytes(SLICE_LIT(text))

static void check_bytes(const struct sample *s, struct slice want)
{
    AUTO_BUF struct buf text = BUF_INIT(TEXT_BYTES_MAX);
    struct err e = {0};
    assert_int_equal(rpc_encode(&sample_message, RPC_CODEC_PROTO, s, &text, &e), 0);
    assert_int_equal(text.len, want.n);
    assert_memory_equal(text.p, want.p, want.n);
}
#define CHECK(want, ...) check_bytes(&(struct sample){__VA_ARGS__}, SLICE_LIT(want))

static void bytes_are_protobuf(void **state)
{
    uint32_t numbers[] = {1, 300};
    struct rpc_entry entry = {SLICE_LIT("k"), SLICE_LIT("")};
    struct sample_inner inner = {.number = 150};
    (void)state;
    CHECK("\x10\x96\x01", .int32 = 150);
    CHECK("\x10\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", .int32 = -1);
    CHECK("\x18\x01", .sint32 = -1);
    CHECK("\x18\xff\xff\xff\xff\x0f", .sint32 = INT32_MIN);
    CHECK("\x28\xff\xff\xff\xff\x0f", .uint32 = UINT32_MAX);
    CHECK("\x39\0\0\0\0\0\0\xf0\x3f", .real = 1);
    CHECK("\x42\x02hi", .text = SLICE_LIT("hi"));
    CHECK("\x5a\x03\x08\x96\x01", .inner = &inner);
    CHECK("\xea\x02\x00", .two_bytes = SLICE_LIT(""), .has_two_bytes = true);
    CHECK("\x8a\x04\x03\x01\xac\x02", .uint32s = {numbers, 2});
    CHECK("\x82\x05\x05\x0a\x01k\x12\x00", .map = {&entry, 1});
}

static void packed_and_single_items_are_read(void **state)
{
    struct sample s = DECODE("\x8a\x04\x03\x01\xac\x02"
                             "\x88\x04\x05"
                             "\x8a\x04\x00"
                             "\x8a\x04\x01\x07");
    const uint32_t *numbers = s.uint32s.items;
    (void)state;
    assert_int_equal(s.uint32s.n, 4);
    assert_int_equal(numbers[0], 1);
    assert_int_equal(numbers[1], 300);
    assert_int_equal(numbers[2], 5);
    assert_int_equal(numbers[3], 7);
}

static void last_value_wins(void **state)
{
    (void)state;
    assert_int_equal(DECODE("\x10\x01\x10\x02").int32, 2);
    assert_true(slice_is(DECODE("\x42\x01"
                                "a\x42\x01"
                                "b")
                             .text,
        "b"));
}

static void inner_messages_merge(void **state)
{
    struct sample s = DECODE("\x5a\x02\x08\x05"
                             "\x5a\x03\x12\x01x");
    (void)state;
    assert_int_equal(s.inner->number, 5);
    assert_true(slice_is(s.inner->text, "x"));
}

static void oneof_members_replace_each_other(void **state)
{
    /* one_inner {number: 5}, then one_int32: 3. */
    struct sample s = DECODE("\xda\x02\x02\x08\x05"
                             "\xc8\x02\x03");
    (void)state;
    assert_true(s.has_one_int32 && !s.has_one_inner && !s.has_one_text);
    assert_int_equal(s.one_int32, 3);
    assert_null(s.one_inner);
    /* Back again: nothing of the first message is left. */
    s = DECODE("\xda\x02\x02\x08\x05"
               "\xc8\x02\x03"
               "\xda\x02\x03\x12\x01x");
    assert_true(s.has_one_inner && !s.has_one_int32);
    assert_int_equal(s.one_int32, 0);
    assert_int_equal(s.one_inner->number, 0);
    assert_true(slice_is(s.one_inner->text, "x"));
}

static void numbers_are_cut_to_their_type(void **state)
{
    (void)state;
    assert_int_equal(DECODE("\x10\xff\xff\xff\xff\x0f").int32, -1); /* not sign-extended */
    assert_int_equal(DECODE("\x28\x81\x80\x80\x80\x10").uint32, 1);
    assert_true(DECODE("\x08\x02").flag);
    assert_true(DECODE("\x30\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01").uint64 == UINT64_MAX);
}

static void unknown_fields_are_skipped(void **state)
{
    struct sample s = DECODE("\x98\x06\x96\x01"           /* 99: a number */
                             "\x99\x06\1\2\3\4\5\6\7\x08" /* 99: 64 bits */
                             "\x9a\x06\x03xyz"            /* 99: bytes */
                             "\x9d\x06\1\2\3\4"           /* 99: 32 bits */
                             "\x10\x07");
    (void)state;
    assert_int_equal(s.int32, 7);
}

static void map_entries_may_lack_parts(void **state)
{
    struct sample s = DECODE("\x82\x05\x00"
                             "\x82\x05\x08\x12\x01v\x0a\x01k\x18\x05");
    const struct rpc_entry *entries = s.map.items;
    (void)state;
    assert_int_equal(s.map.n, 2);
    assert_int_equal(entries[0].key.n + entries[0].value.n, 0);
    assert_true(slice_is(entries[1].key, "k") && slice_is(entries[1].value, "v"));
}

static void last_of_equal_keys_wins(void **state)
{
    struct sample s = DECODE("\x82\x05\x06\x0a\x01"
                             "a\x12\x01"
                             "1\x82\x05\x06\x0a\x01"
                             "b\x12\x01"
                             "2\x82\x05\x06\x0a\x01"
                             "a\x12\x01"
                             "3");
    const struct rpc_entry *entries = s.map.items;
    (void)state;
    assert_int_equal(s.map.n, 2);
    assert_true(slice_is(entries[0].key, "b") && slice_is(entries[0].value, "2"));
    assert_true(slice_is(entries[1].key, "a") && slice_is(entries[1].value, "3"));
}

static void bad_bytes_are_refused(void **state)
{
#define BAD(text, where)                                                                           \
    {                                                                                              \
        SLICE_LIT(text), where                                                                     \
    }
    static const struct {
        struct slice bytes;
        const char *where;
    } cases[] = {
        BAD("\x10", ""),                                             /* no value */
        BAD("\x80", ""),                                             /* cut tag */
        BAD("\x10\xff", ""),                                         /* cut number */
        BAD("\x10\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02", ""),     /* 65 bits */
        BAD("\x10\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", ""), /* 11 bytes */
        BAD("\x42\x05hell", ""),                                     /* length beyond the end */
        BAD("\x42\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", ""),     /* length 2^64 - 1 */
        BAD("\x42\xff\xff\xff\xff\xff\xff\xff\xff\x7f", ""),         /* length 2^63 - 1 */
        BAD("\x9a\x06\x04xyz", ""),                                  /* unknown, too long */
        BAD("\x9d\x06\1\2\3", ""),                                   /* unknown, cut 32 bits */
        BAD("\x99\x06\1\2\3", ""),                                   /* unknown, cut 64 bits */
        BAD("\x39\1\2\3\4\5\6\7", ""),                               /* cut double */
        BAD("\x00\x01", ""),                                         /* field 0 */
        BAD("\xf8\xff\xff\xff\x1f\x01", ""),                         /* field beyond 2^29 */
        BAD("\x9b\x06\x9c\x06", ""),                                 /* unknown group */
        BAD("\x9c\x06", ""),                                         /* end of no group */
        BAD("\x9e\x06\x01", ""),                                     /* wire type 6 */
        BAD("\x9f\x06\x01", ""),                                     /* wire type 7 */
        BAD("\x13\x14", "int32"),                                    /* known field as group */
        BAD("\x12\x01\x01", "int32"), /* bytes for a singular number */
        BAD("\x40\x01", "text"),      /* number for a string */
        BAD("\x45\1\2\3\4", "text"),  /* 32 bits for a string */
        BAD("\x38\x01", "real"),      /* number for a double */
        BAD("\x42\x01\xff", "text"),  /* not UTF-8 */
        BAD("\x42\x03\xed\xa0\x80", "text"), BAD("\x5a\x03\x12\x01\xff", "inner.text"),
        BAD("\x5a\x02\x10\x01", "inner.text"),
        BAD("\x82\x05\x03\x0a\x01\xff", "map"), /* key not UTF-8 */
        BAD("\x82\x05\x03\x12\x01\xff", "map"), /* value not UTF-8 */
        BAD("\x82\x05\x02\x08\x01", "map"),     /* key as a number */
        BAD("\x80\x05\x01", "map"),             /* map as a number */
        BAD("\x82\x05\x03\x0a\x05k", ""),       /* key beyond its entry */
        BAD("\x8a\x04\x02\x01\x80", ""),        /* packed number cut by its run */
        BAD("\x9a\x04\x07\1\2\3\4\5\6\7", ""),  /* packed doubles, not a multiple */
        BAD("\xa2\x04\x02\xc3(", "texts"),      /* item not UTF-8 */
    };
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct sample got;
        struct err e = {0};
        if (try_decode(cases[i].bytes, &got, &e) == 0)
            fail_msg("accepted case %zu", i);
        assert_int_equal(e.kind, ERR_INVALID);
        if (strcmp(e.where, cases[i].where) != 0)
            fail_msg("case %zu names \"%s\": %s", i, e.where, e.msg);
    }
}

/* `self` nested n times. */
static int decode_nested(int n, struct err *e)
{
    AUTO_BUF struct buf bytes = BUF_INIT(TEXT_BYTES_MAX);
    AUTO_BUF struct buf inner = BUF_INIT(TEXT_BYTES_MAX);
    struct sample got;
    for (int i = 0; i < n; i++) {
        size_t len = inner.len;
        buf_reset(&bytes);
        buf_append(&bytes, "\xfa\xff\xff\xff\x0f", 5); /* 536870911, bytes */
        for (; len >= 0x80; len >>= 7)
            buf_append_char(&bytes, (char)(len | 0x80));
        buf_append_char(&bytes, (char)len);
        buf_append_slice(&bytes, buf_slice(&inner));
        buf_reset(&inner);
        buf_append_slice(&inner, buf_slice(&bytes));
    }
    return try_decode(buf_slice(&inner), &got, e);
}

static void depth_is_bounded(void **state)
{
    struct err e = {0};
    (void)state;
    assert_int_equal(decode_nested(DEPTH_MAX, &e), 0);
    assert_int_equal(decode_nested(DEPTH_MAX + 1, &e), -1);
    assert_int_equal(e.kind, ERR_INVALID);
    assert_int_equal(decode_nested(2000, &e), -1);
    assert_int_equal(e.kind, ERR_INVALID);
}

static void arena_bound_is_an_error(void **state)
{
    AUTO_BUF struct buf bytes = BUF_INIT(TEXT_BYTES_MAX);
    struct arena small;
    struct sample got;
    struct err e = {0};
    (void)state;
    arena_init(&small, 64 * 1024);
    for (int i = 0; i < 100; i++)
        buf_append(&bytes, "\xba\x04\x00", 3); /* empty inners */
    assert_int_equal(
        rpc_decode(&sample_message, RPC_CODEC_PROTO, buf_slice(&bytes), &small, &got, &e), 0);
    assert_int_equal(got.inners.n, 100);
    for (int i = 0; i < MANY; i++)
        buf_append(&bytes, "\xba\x04\x00", 3);
    assert_int_equal(
        rpc_decode(&sample_message, RPC_CODEC_PROTO, buf_slice(&bytes), &small, &got, &e), -1);
    assert_int_equal(e.kind, ERR_TOO_LARGE);
    arena_done(&small);
}

/* One entry per occurrence of the inner message, most keys twice: merging and dropping repeated
 * keys must not become quadratic. */
static void many_merges_cost_no_quadratic_time(void **state)
{
    AUTO_BUF struct buf bytes = BUF_INIT(TEXT_BYTES_MAX);
    int64_t start = clock_mono_ms();
    struct sample got;
    (void)state;
    for (int i = 0; i < MANY; i++) {
        buf_append(&bytes, "\x5a\x0a\x1a\x08\x0a\x06", 6);
        buf_printf(&bytes, "%06d", i % (MANY / 2));
    }
    got = decode_bytes(buf_slice(&bytes));
    assert_int_equal(got.inner->labels.n, MANY / 2);
    assert_true(clock_mono_ms() - start < 10000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bytes_are_protobuf),
        cmocka_unit_test(packed_and_single_items_are_read),
        cmocka_unit_test(last_value_wins),
        cmocka_unit_test(inner_messages_merge),
        cmocka_unit_test(oneof_members_replace_each_other),
        cmocka_unit_test(numbers_are_cut_to_their_type),
        cmocka_unit_test(unknown_fields_are_skipped),
        cmocka_unit_test(map_entries_may_lack_parts),
        cmocka_unit_test(last_of_equal_keys_wins),
        cmocka_unit_test(bad_bytes_are_refused),
        cmocka_unit_test(depth_is_bounded),
        cmocka_unit_test(arena_bound_is_an_error),
        cmocka_unit_test(many_merges_cost_no_quadratic_time),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
