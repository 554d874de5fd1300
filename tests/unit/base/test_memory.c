/* SPDX-License-Identifier: Apache-2.0 */
/* Bounded memory: the growable buffer with its sticky failure, and the arena. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <cmocka.h>

#include "base/arena.h"
#include "base/buf.h"

enum { BOUND = 1000 };

static void buffer_grows_to_its_bound(void **state)
{
    AUTO_BUF struct buf b = BUF_INIT(BOUND);
    (void)state;
    for (int i = 0; i < BOUND; i++)
        buf_append_char(&b, (char)('a' + i % 26));
    assert_false(b.failed);
    assert_int_equal(b.len, BOUND);
    assert_int_equal(b.p[BOUND - 1], 'a' + (BOUND - 1) % 26);
    assert_int_equal(b.p[BOUND], '\0');
    buf_append_char(&b, 'x');
    assert_true(b.failed);
    assert_int_equal(b.len, BOUND);
}

static void nothing_partial_is_appended(void **state)
{
    AUTO_BUF struct buf b = BUF_INIT(8);
    (void)state;
    buf_append_cstr(&b, "12345");
    buf_append_cstr(&b, "6789");
    assert_true(b.failed);
    assert_string_equal(b.p, "12345");
    buf_append_cstr(&b, "6"); /* would fit, but the failure is sticky */
    buf_printf(&b, "%d", 6);
    assert_null(buf_reserve(&b, 0));
    assert_string_equal(b.p, "12345");
    buf_reset(&b);
    assert_false(b.failed);
    buf_append_cstr(&b, "12345678");
    assert_false(b.failed);
    assert_string_equal(b.p, "12345678");
}

static void huge_reservations_fail(void **state)
{
    AUTO_BUF struct buf b = BUF_INIT(BOUND);
    (void)state;
    buf_append_cstr(&b, "abc");
    assert_null(buf_reserve(&b, SIZE_MAX));
    assert_true(b.failed);
    assert_string_equal(b.p, "abc");
}

static void reserved_room_is_committed(void **state)
{
    AUTO_BUF struct buf b = BUF_INIT(BOUND);
    char *at = buf_reserve(&b, 10);
    (void)state;
    assert_non_null(at);
    assert_int_equal(b.len, 0);
    memcpy(at, "abc", 3);
    buf_commit(&b, 3);
    assert_string_equal(b.p, "abc");
}

static void printf_appends(void **state)
{
    AUTO_BUF struct buf b = BUF_INIT(10);
    (void)state;
    buf_append_cstr(&b, "a=");
    buf_printf(&b, "%d,%s", 12, "bcd");
    assert_string_equal(b.p, "a=12,bcd");
    assert_int_equal(b.len, 8);
    buf_printf(&b, "%s", "xyz");
    assert_true(b.failed);
    assert_string_equal(b.p, "a=12,bcd");
}

static void consume_takes_from_the_front(void **state)
{
    AUTO_BUF struct buf b = BUF_INIT(BOUND);
    (void)state;
    buf_consume(&b, 0);
    buf_append(&b, "ab\0cd", 5);
    buf_consume(&b, 3);
    assert_string_equal(b.p, "cd");
    assert_int_equal(b.len, 2);
    buf_consume(&b, 2);
    assert_int_equal(b.len, 0);
    assert_string_equal(b.p, "");
}

static void done_leaves_a_usable_buffer(void **state)
{
    struct buf b = BUF_INIT(4);
    (void)state;
    buf_append_cstr(&b, "12345");
    buf_done(&b);
    assert_null(b.p);
    assert_int_equal(b.max, 4);
    assert_false(b.failed);
    buf_append_cstr(&b, "1234");
    assert_string_equal(b.p, "1234");
    buf_done(&b);
}

static void arena_hands_out_zeroed_aligned_memory(void **state)
{
    struct arena a;
    (void)state;
    arena_init(&a, 1 << 20);
    for (size_t n = 1; n < 2000; n += 13) {
        unsigned char *p = arena_alloc(&a, n);
        assert_non_null(p);
        assert_int_equal((uintptr_t)p % 16, 0);
        for (size_t i = 0; i < n; i++)
            assert_int_equal(p[i], 0);
        memset(p, 0xff, n);
    }
    arena_done(&a);
}

static void arena_is_bounded(void **state)
{
    struct arena a;
    size_t got = 0;
    (void)state;
    arena_init(&a, 1000);
    while (arena_alloc(&a, 100))
        got++;
    assert_int_equal(got, 8); /* each takes 112 bytes */
    assert_non_null(arena_alloc(&a, 100 - 16));
    assert_null(arena_alloc(&a, 16));
    arena_done(&a);
    assert_int_equal(a.used_bytes, 0);
    assert_non_null(arena_alloc(&a, 900)); /* usable again */
    arena_done(&a);
}

static void arena_refuses_overflow(void **state)
{
    struct arena a;
    (void)state;
    arena_init(&a, SIZE_MAX);
    assert_null(arena_alloc(&a, SIZE_MAX));
    assert_null(arena_alloc(&a, SIZE_MAX - 15));
    assert_null(arena_calloc(&a, SIZE_MAX / 2, 3));
    assert_null(arena_strndup(&a, "", SIZE_MAX));
    assert_int_equal(a.used_bytes, 0);
    arena_done(&a);
}

static void arena_copies_text(void **state)
{
    struct arena a;
    const char *p;
    (void)state;
    arena_init(&a, 4096);
    p = arena_strndup(&a, "a\0bc", 3);
    assert_memory_equal(p, "a\0b", 4);
    p = arena_strndup(&a, NULL, 0);
    assert_string_equal(p, "");
    assert_string_equal(arena_printf(&a, "%s-%d", "x", 5), "x-5");
    assert_null(arena_printf(&a, "%5000d", 1));
    arena_done(&a);
}

/* Large ones get blocks of their own; what came before stays as it was. */
static void arena_keeps_what_it_gave(void **state)
{
    struct arena a;
    char *small[50];
    (void)state;
    arena_init(&a, 64 << 20);
    for (int i = 0; i < 50; i++) {
        char *large = arena_alloc(&a, 600000);
        assert_non_null(large);
        small[i] = arena_printf(&a, "number %d", i);
        memset(large, 'x', 600000);
    }
    for (int i = 0; i < 50; i++) {
        char want[32];
        (void)snprintf(want, sizeof want, "number %d", i);
        assert_string_equal(small[i], want);
    }
    arena_done(&a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(buffer_grows_to_its_bound),
        cmocka_unit_test(nothing_partial_is_appended),
        cmocka_unit_test(huge_reservations_fail),
        cmocka_unit_test(reserved_room_is_committed),
        cmocka_unit_test(printf_appends),
        cmocka_unit_test(consume_takes_from_the_front),
        cmocka_unit_test(done_leaves_a_usable_buffer),
        cmocka_unit_test(arena_hands_out_zeroed_aligned_memory),
        cmocka_unit_test(arena_is_bounded),
        cmocka_unit_test(arena_refuses_overflow),
        cmocka_unit_test(arena_copies_text),
        cmocka_unit_test(arena_keeps_what_it_gave),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
