/* SPDX-License-Identifier: Apache-2.0 */
/* The JSON parser against the vectors and its bounds; the writer against exact text. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <cmocka.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "json/json.h"
#include "../../vectors/json.h"

enum { ARENA_BYTES = 64 << 20, MANY_KEYS = 100000 };

static int setup(void **state)
{
    static struct arena a;
    arena_init(&a, ARENA_BYTES);
    *state = &a;
    return 0;
}

static int teardown(void **state)
{
    arena_done(*state);
    return 0;
}

static const struct json_value *parse_ok(struct arena *a, const char *text)
{
    const struct json_value *v = NULL;
    struct err e = {0};
    if (json_parse(slice_cstr(text), a, &v, &e) < 0)
        fail_msg("%s: %s", text, e.msg);
    return v;
}

static void vectors_are_judged_right(void **state)
{
    for (size_t i = 0; i < ARRAY_LEN(V); i++) {
        const struct json_value *v = NULL;
        struct err e = {0};
        /* A copy of the exact size, so that a read past the end is seen by the sanitizer. */
        AUTO_FREE char *text = malloc(V[i].l ? V[i].l : 1);
        assert_non_null(text);
        memcpy(text, V[i].s, V[i].l);
        bool ok = json_parse(slice_of(text, V[i].l), *state, &v, &e) == 0;
        if (ok != (V[i].ok != 0))
            fail_msg("vector \"%s\" was %s", V[i].n, ok ? "accepted" : "refused");
        if (ok) {
            assert_non_null(v);
        } else {
            assert_int_equal(e.kind, ERR_INVALID);
            assert_null(v);
        }
    }
}

static void tree_holds_the_values(void **state)
{
    const struct json_value *v = parse_ok(*state,
        " {\"i\":-9223372036854775808, \"d\":1.5e1,\"t\":true,\"f\":false,\"n\":null,"
        "\"a\":[1,[],{}],\"s\":\"x\"} ");
    const struct json_value *a = json_get(v, "a");
    assert_int_equal(v->type, JSON_OBJECT);
    assert_int_equal(v->count, 7);
    assert_int_equal(json_get(v, "i")->integer, INT64_MIN);
    assert_int_equal(json_get(v, "d")->type, JSON_DOUBLE);
    assert_true(json_get(v, "d")->number == 15.0);
    assert_true(json_get(v, "t")->boolean);
    assert_int_equal(json_get(v, "f")->type, JSON_BOOL);
    assert_false(json_get(v, "f")->boolean);
    assert_int_equal(json_get(v, "n")->type, JSON_NULL);
    assert_int_equal(a->count, 3);
    assert_int_equal(a->first->integer, 1);
    assert_int_equal(a->first->next->type, JSON_ARRAY);
    assert_int_equal(a->first->next->next->type, JSON_OBJECT);
    assert_null(a->first->next->next->next);
    assert_null(json_get(v, "absent"));
    assert_null(json_get(a, "i"));
    assert_null(json_get(NULL, "i"));
}

static void strings_are_decoded(void **state)
{
    const struct json_value *v =
        parse_ok(*state, "[\"\\\"\\\\\\/\\b\\f\\n\\r\\t\",\"a\\u0000b\",\"\\ud83d\\ude00\","
                         "\"\\u00e9\\u20ac\",\"\xf0\x9f\x98\x80\",\"\"]");
    const struct json_value *s = v->first;
    assert_true(slice_is(s->string, "\"\\/\b\f\n\r\t"));
    s = s->next;
    assert_int_equal(s->string.n, 3);
    assert_memory_equal(s->string.p, "a\0b", 4);
    s = s->next;
    assert_true(slice_is(s->string, "\xf0\x9f\x98\x80"));
    s = s->next;
    assert_true(slice_is(s->string, "\xc3\xa9\xe2\x82\xac"));
    s = s->next;
    assert_true(slice_is(s->string, "\xf0\x9f\x98\x80"));
    assert_int_equal(s->next->string.n, 0);
}

static void bad_strings_are_refused(void **state)
{
    static const char *const texts[] = {"\"\\", "\"\\u", "\"\\u123", "\"\\u123\"", "\"\\ud83d\\\"",
        "\"\\ud83d\\u0041\"", "\"\\ud83d\\ud83d\"", "\"\\ud83dx\"", "\"abc\\\"", "\"\x01\"",
        "{\"a\xff\":1}", "\"\\U0041\"", "\"\xc3\\u00a9\""};
    for (size_t i = 0; i < ARRAY_LEN(texts); i++) {
        const struct json_value *v = NULL;
        struct err e = {0};
        if (json_parse(slice_cstr(texts[i]), *state, &v, &e) == 0)
            fail_msg("accepted %s", texts[i]);
        assert_int_equal(e.kind, ERR_INVALID);
    }
}

static void errors_name_the_byte(void **state)
{
    const struct json_value *v = NULL;
    struct err e = {0};
    assert_int_equal(json_parse(SLICE_LIT("[1, x]"), *state, &v, &e), -1);
    assert_string_equal(e.msg, "JSON: value expected at byte 4");
}

/* `n` nested arrays. */
static int parse_nested(struct arena *a, size_t n, struct err *e)
{
    AUTO_BUF struct buf text = BUF_INIT(1 << 20);
    const struct json_value *v = NULL;
    for (size_t i = 0; i < n; i++)
        buf_append_char(&text, '[');
    for (size_t i = 0; i < n; i++)
        buf_append_char(&text, ']');
    return json_parse(buf_slice(&text), a, &v, e);
}

static void depth_is_bounded(void **state)
{
    struct err e = {0};
    assert_int_equal(parse_nested(*state, JSON_DEPTH_MAX, &e), 0);
    assert_int_equal(parse_nested(*state, JSON_DEPTH_MAX + 1, &e), -1);
    assert_int_equal(e.kind, ERR_INVALID);
    assert_int_equal(parse_nested(*state, 400000, &e), -1);
    assert_int_equal(e.kind, ERR_INVALID);
}

static void siblings_do_not_add_to_depth(void **state)
{
    AUTO_BUF struct buf text = BUF_INIT(1 << 20);
    const struct json_value *v = NULL;
    struct err e = {0};
    buf_append_cstr(&text, "[[]");
    for (int i = 0; i < 1000; i++)
        buf_append_cstr(&text, ",[{}]");
    buf_append_char(&text, ']');
    assert_int_equal(json_parse(buf_slice(&text), *state, &v, &e), 0);
    assert_int_equal(v->count, 1001);
}

static void arena_bound_is_an_error(void **state)
{
    struct arena small;
    const struct json_value *v = NULL;
    struct err e = {0};
    arena_init(&small, 1024);
    assert_int_equal(
        json_parse(SLICE_LIT("[1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1]"), &small, &v, &e), -1);
    assert_int_equal(e.kind, ERR_TOO_LARGE);
    assert_null(v);
    arena_done(&small);
}

/* Many keys of equal length that share a long prefix: the worst for comparing. */
static void put_many_keys(struct buf *text, const char *last_key)
{
    buf_append_char(text, '{');
    for (int i = 0; i < MANY_KEYS; i++)
        buf_printf(text, "\"prefixprefixprefix%08d\":0,", i * 7 % MANY_KEYS);
    buf_printf(text, "\"%s\":0}", last_key);
}

static void many_keys_cost_no_quadratic_time(void **state)
{
    AUTO_BUF struct buf text = BUF_INIT(16 << 20);
    const struct json_value *v = NULL;
    struct err e = {0};
    int64_t start = clock_mono_ms();
    put_many_keys(&text, "another");
    assert_int_equal(json_parse(buf_slice(&text), *state, &v, &e), 0);
    assert_int_equal(v->count, MANY_KEYS + 1);
    assert_true(slice_is(v->first->next->key, "prefixprefixprefix00000007")); /* order kept */
    /* Comparing all pairs takes 5 * 10^9 steps, minutes under a sanitizer. */
    assert_true(clock_mono_ms() - start < 10000);
}

static void repeated_key_among_many_is_refused(void **state)
{
    AUTO_BUF struct buf text = BUF_INIT(16 << 20);
    const struct json_value *v = NULL;
    struct err e = {0};
    put_many_keys(&text, "prefixprefixprefix00000000");
    assert_int_equal(json_parse(buf_slice(&text), *state, &v, &e), -1);
    assert_int_equal(e.kind, ERR_INVALID);
    /* The escape makes it the same key only after decoding. */
    assert_int_equal(json_parse(SLICE_LIT("{\"a\":1,\"\\u0061\":2}"), *state, &v, &e), -1);
    assert_int_equal(json_parse(SLICE_LIT("[{\"a\":1},{\"a\":2}]"), *state, &v, &e), 0);
}

static void long_numbers_are_bounded(void **state)
{
    AUTO_BUF struct buf text = BUF_INIT(1 << 20);
    const struct json_value *v = NULL;
    struct err e = {0};
    buf_append_cstr(&text, "0.");
    for (int i = 0; i < 100000; i++)
        buf_append_char(&text, '1');
    assert_int_equal(json_parse(buf_slice(&text), *state, &v, &e), -1);
    assert_int_equal(e.kind, ERR_INVALID);
}

static void writer_places_commas(void **state)
{
    AUTO_BUF struct buf out = BUF_INIT(4096);
    struct json_writer w;
    (void)state;
    json_writer_init(&w, &out);
    json_object_begin(&w);
    json_key(&w, "a");
    json_array_begin(&w);
    json_int(&w, INT64_MIN);
    json_uint(&w, UINT64_MAX);
    json_object_begin(&w);
    json_object_end(&w);
    json_bool(&w, true);
    json_null(&w);
    json_array_end(&w);
    json_key(&w, "b");
    json_base64(&w, SLICE_LIT("hello"));
    json_key(&w, "c");
    json_cstr(&w, "");
    json_object_end(&w);
    assert_string_equal(out.p, "{\"a\":[-9223372036854775808,18446744073709551615,{},true,null],"
                               "\"b\":\"aGVsbG8=\",\"c\":\"\"}");
}

static void writer_escapes(void **state)
{
    AUTO_BUF struct buf out = BUF_INIT(4096);
    struct json_writer w;
    (void)state;
    json_writer_init(&w, &out);
    json_string(&w, SLICE_LIT("q\"b\\n\nr\rt\tz\0u\x1f\xc3\xa9"));
    assert_string_equal(out.p, "\"q\\\"b\\\\n\\nr\\rt\\tz\\u0000u\\u001f\xc3\xa9\"");
}

static void writer_repairs_utf8(void **state)
{
    AUTO_BUF struct buf out = BUF_INIT(4096);
    struct json_writer w;
    (void)state;
    json_writer_init(&w, &out);
    json_string(&w, SLICE_LIT("a\xff\xc3\xa9\xe2\x82\n"));
    assert_string_equal(out.p, "\"a\xef\xbf\xbd\xc3\xa9\xef\xbf\xbd\xef\xbf\xbd\\n\"");
}

static void check_double(struct arena *a, double v, const char *want)
{
    AUTO_BUF struct buf out = BUF_INIT(256);
    struct json_writer w;
    const struct json_value *back;
    json_writer_init(&w, &out);
    json_double(&w, v);
    assert_string_equal(out.p, want);
    back = parse_ok(a, out.p);
    if (back->type == JSON_DOUBLE)
        assert_true(back->number == v);
    else if (back->type == JSON_INT)
        assert_true((double)back->integer == v);
}

static void doubles_read_back(void **state)
{
    check_double(*state, 0.1, "0.1");
    check_double(*state, 1.0 / 3, "0.3333333333333333");
    check_double(*state, 5e-324, "4.94065645841247e-324");
    check_double(*state, 1.7976931348623157e308, "1.7976931348623157e+308");
    check_double(*state, 3, "3");
    check_double(*state, 0, "0");
    check_double(*state, -0.0, "-0.0");
    check_double(*state, INFINITY, "null");
    check_double(*state, NAN, "null");
}

static void parsed_value_is_copied(void **state)
{
    static const char text[] = "{\"a\":[1,2.5,\"x\\n\",null,true],\"\":{\"k\":{}},\"e\":[]}";
    AUTO_BUF struct buf out = BUF_INIT(4096);
    struct json_writer w;
    json_writer_init(&w, &out);
    json_value_write(&w, parse_ok(*state, text));
    assert_string_equal(out.p, text);
}

static void buffer_bound_is_sticky(void **state)
{
    AUTO_BUF struct buf out = BUF_INIT(4);
    struct json_writer w;
    (void)state;
    json_writer_init(&w, &out);
    json_array_begin(&w);
    json_base64(&w, SLICE_LIT("hello"));
    json_array_end(&w);
    assert_true(out.failed);
    assert_true(out.len <= 4);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(vectors_are_judged_right, setup, teardown),
        cmocka_unit_test_setup_teardown(tree_holds_the_values, setup, teardown),
        cmocka_unit_test_setup_teardown(strings_are_decoded, setup, teardown),
        cmocka_unit_test_setup_teardown(bad_strings_are_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(errors_name_the_byte, setup, teardown),
        cmocka_unit_test_setup_teardown(depth_is_bounded, setup, teardown),
        cmocka_unit_test_setup_teardown(siblings_do_not_add_to_depth, setup, teardown),
        cmocka_unit_test_setup_teardown(arena_bound_is_an_error, setup, teardown),
        cmocka_unit_test_setup_teardown(many_keys_cost_no_quadratic_time, setup, teardown),
        cmocka_unit_test_setup_teardown(repeated_key_among_many_is_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(long_numbers_are_bounded, setup, teardown),
        cmocka_unit_test(writer_places_commas),
        cmocka_unit_test(writer_escapes),
        cmocka_unit_test(writer_repairs_utf8),
        cmocka_unit_test_setup_teardown(doubles_read_back, setup, teardown),
        cmocka_unit_test_setup_teardown(parsed_value_is_copied, setup, teardown),
        cmocka_unit_test(buffer_bound_is_sticky),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
