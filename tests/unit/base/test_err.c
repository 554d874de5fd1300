/* SPDX-License-Identifier: Apache-2.0 */
/* The error type: setting, wrapping, joining, its tables; never beyond its fixed sizes. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <cmocka.h>

#include "base/err.h"
#include "base/slice.h"

static void set_fills_and_clears(void **state)
{
    struct err e = {.errnum = 7, .where = "old"};
    (void)state;
    assert_int_equal(err_set(&e, ERR_QUOTA, "only %d", 5), -1);
    assert_int_equal(e.kind, ERR_QUOTA);
    assert_int_equal(e.errnum, 0);
    assert_string_equal(e.where, "");
    assert_string_equal(e.msg, "only 5");
}

static void field_is_named(void **state)
{
    struct err e = {.errnum = 7};
    (void)state;
    assert_int_equal(err_field(&e, "vcpus", "at most %d", 32), -1);
    assert_int_equal(e.kind, ERR_INVALID);
    assert_int_equal(e.errnum, 0);
    assert_string_equal(e.where, "vcpus");
    assert_string_equal(e.msg, "at most 32");
}

static void sys_appends_the_reason(void **state)
{
    struct err e = {.where = "old"};
    (void)state;
    assert_int_equal(err_sys(&e, ENOENT, "open %s", "/x"), -1);
    assert_int_equal(e.kind, ERR_NOT_FOUND);
    assert_int_equal(e.errnum, ENOENT);
    assert_string_equal(e.where, "");
    assert_string_equal(e.msg, "open /x: No such file or directory");
}

static void wrap_keeps_all_but_the_text(void **state)
{
    struct err e = {0};
    (void)state;
    err_sys(&e, ENOSPC, "write");
    (void)snprintf(e.where, sizeof e.where, "disk");
    assert_int_equal(err_wrap(&e, "sandbox %s", "sb1"), -1);
    assert_int_equal(e.kind, ERR_NO_SPACE);
    assert_int_equal(e.errnum, ENOSPC);
    assert_string_equal(e.where, "disk");
    assert_string_equal(e.msg, "sandbox sb1: write: No space left on device");
}

static void join_collects(void **state)
{
    struct err all = {0};
    struct err more = {0};
    (void)state;
    assert_int_equal(err_join(&all, &more), -1);
    assert_int_equal(all.kind, ERR_NONE);
    err_set(&more, ERR_IO, "first");
    err_join(&all, &more);
    assert_int_equal(all.kind, ERR_IO);
    assert_string_equal(all.msg, "first");
    err_set(&more, ERR_TIMEOUT, "second");
    err_join(&all, &more);
    assert_int_equal(all.kind, ERR_IO);
    assert_string_equal(all.msg, "first; second");
}

static void long_texts_are_cut(void **state)
{
    char text[2 * ERR_MSG_MAX];
    struct err e = {0};
    struct err more = {0};
    (void)state;
    memset(text, 'x', sizeof text);
    text[sizeof text - 1] = '\0';
    err_field(&e, text, "%s", text);
    assert_int_equal(strlen(e.msg), ERR_MSG_MAX - 1);
    assert_int_equal(strlen(e.where), ERR_WHERE_MAX - 1);
    err_wrap(&e, "prefix");
    assert_int_equal(strlen(e.msg), ERR_MSG_MAX - 1);
    assert_memory_equal(e.msg, "prefix: xx", 10);
    err_wrap(&e, "%s", text);
    assert_int_equal(strlen(e.msg), ERR_MSG_MAX - 1);
    err_sys(&e, EIO, "%s", text);
    assert_int_equal(strlen(e.msg), ERR_MSG_MAX - 1);
    err_set(&more, ERR_IO, "more");
    err_join(&e, &more);
    assert_int_equal(strlen(e.msg), ERR_MSG_MAX - 1);
}

static void names_go_both_ways(void **state)
{
    (void)state;
    for (int kind = ERR_INVALID; kind < ERR_KIND_COUNT; kind++) {
        const char *name = err_kind_name((enum err_kind)kind);
        assert_int_equal(err_kind_from_name(name, strlen(name)), kind);
        for (int other = ERR_INVALID; other < kind; other++)
            assert_string_not_equal(name, err_kind_name((enum err_kind)other));
    }
    assert_int_equal(err_kind_from_name("not_found", 9), ERR_NOT_FOUND);
    assert_int_equal(err_kind_from_name("not_found", 8), ERR_NONE);
    assert_int_equal(err_kind_from_name("none", 4), ERR_NONE);
    assert_int_equal(err_kind_from_name("", 0), ERR_NONE);
}

static void errno_has_a_kind(void **state)
{
    (void)state;
    assert_int_equal(err_kind_from_errno(EEXIST), ERR_EXISTS);
    assert_int_equal(err_kind_from_errno(ECONNREFUSED), ERR_UNAVAILABLE);
    assert_int_equal(err_kind_from_errno(ENOMEM), ERR_NOMEM);
    assert_int_equal(err_kind_from_errno(EIO), ERR_IO);
    assert_int_equal(err_kind_from_errno(123456), ERR_IO);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(set_fills_and_clears),
        cmocka_unit_test(field_is_named),
        cmocka_unit_test(sys_appends_the_reason),
        cmocka_unit_test(wrap_keeps_all_but_the_text),
        cmocka_unit_test(join_collects),
        cmocka_unit_test(long_texts_are_cut),
        cmocka_unit_test(names_go_both_ways),
        cmocka_unit_test(errno_has_a_kind),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
