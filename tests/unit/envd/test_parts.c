/* SPDX-License-Identifier: Apache-2.0 */
/* The pure parts of envd, and those that only touch a folder: paths, times, users, settings, etc.
 */
#include "harness.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "envd/etc.h"
#include "envd/paths.h"
#include "envd/settings.h"
#include "envd/timestamp.h"
#include "envd/users.h"
#include "base/cleanup.h"

static void assert_resolves(const char *path, const char *want)
{
    char got[PATH_MAX];
    struct err e = {0};
    assert_int_equal(path_resolve("/home/user", slice_cstr(path), got, &e), 0);
    assert_string_equal(got, want);
}

static void test_path_resolve(void **state)
{
    assert_resolves("a", "/home/user/a");
    assert_resolves("~", "/home/user");
    assert_resolves("~/", "/home/user");
    assert_resolves("~/a/./b//c/", "/home/user/a/b/c");
    assert_resolves("~a", "/home/user/~a");
    assert_resolves("/", "/");
    assert_resolves("//x//", "/x");
    assert_resolves("/../../x", "/x");
    assert_resolves("../../../..", "/");
    assert_resolves("a/../../b", "/home/b");
    assert_resolves("/...", "/...");
    assert_resolves("/a/..b", "/a/..b");
}

static void test_path_refused(void **state)
{
    char got[PATH_MAX] = "untouched";
    AUTO_FREE char *longest = malloc(PATH_MAX + 1);
    struct err e = {0};
    assert_non_null(longest);
    memset(longest, 'a', PATH_MAX + 1);
    longest[0] = '/';
    assert_int_equal(path_resolve("/h", SLICE_LIT(""), got, &e), -1);
    assert_int_equal(e.kind, ERR_INVALID);
    assert_int_equal(path_resolve("/h", SLICE_LIT("a\0b"), got, &e), -1);
    assert_int_equal(path_resolve("/h", slice_of(longest, PATH_MAX), got, &e), -1);
    assert_string_equal(got, "untouched");
    assert_int_equal(path_resolve("/h", slice_of(longest, PATH_MAX - 1), got, &e), 0);
    assert_int_equal(strlen(got), PATH_MAX - 1);
    assert_int_equal(path_resolve("/h", slice_of(longest + 1, PATH_MAX - 2), got, &e), -1);
}

static void test_path_base(void **state)
{
    assert_string_equal(path_base("/a/b.txt"), "b.txt");
    assert_string_equal(path_base("/a"), "a");
    assert_string_equal(path_base("/"), "/");
}

static void assert_time(const char *text, int64_t want)
{
    int64_t got = -1;
    if (!timestamp_parse(slice_cstr(text), &got))
        fail_msg("refused: %s", text);
    assert_true(got == want);
}

static void test_timestamps(void **state)
{
    static const char *const bad[] = {"", "now", "1", "-1", "1700000000", "2023-11-14",
        "2023-11-14T22:13:20", "2023-13-14T22:13:20Z", "2023-11-14T24:13:20Z",
        "2023-11-14T22:13:20.Z", "2023-11-14T22:13:20Zx", "2023-11-14T22:13:20+1:00",
        "1999-12-31T23:59:59Z", "2200-01-01T00:00:00Z", "9999999999999999999999",
        "18446744073709551615", "2023-11-14T22:13:20+24:00", "20231-1-14T22:13:20Z"};
    int64_t ns;
    assert_time("1700000000000000000", 1700000000000000000);
    assert_time("2023-11-14T22:13:20Z", 1700000000000000000);
    assert_time("2023-11-14t22:13:20.5z", 1700000000500000000);
    assert_time("2023-11-14T22:13:20.123456789012Z", 1700000000123456789);
    assert_time("2023-11-15T00:13:20+02:00", 1700000000000000000);
    assert_time("2023-11-14T16:43:20.000000001-05:30", 1700000000000000001);
    assert_time("2024-02-29T00:00:00Z", 1709164800000000000);
    for (size_t i = 0; i < ARRAY_LEN(bad); i++)
        if (timestamp_parse(slice_cstr(bad[i]), &ns))
            fail_msg("accepted: %s", bad[i]);
}

static void test_user_lookup(void **state)
{
    struct harness *h = *state;
    struct user u;
    struct err e = {0};
    assert_int_equal(user_lookup(h->etc, SLICE_LIT("user"), &u, &e), 0);
    assert_int_equal(u.uid, 1000);
    assert_int_equal(u.gid, 1000);
    assert_string_equal(u.shell, "/bin/bash");
    assert_int_equal(u.n_groups, 3);
    assert_int_equal(u.groups[0], 1000);
    assert_int_equal(u.groups[1], 50);
    assert_int_equal(u.groups[2], 60);
    assert_int_equal(user_lookup(h->etc, SLICE_LIT("me"), &u, &e), 0);
    assert_string_equal(u.home, h->home);
    assert_string_equal(u.shell, "/bin/sh");
    assert_int_equal(u.n_groups, 1);
}

static void test_user_unknown(void **state)
{
    static const char *const bad[] = {"", "us", "userx", "User", "broken", "x:1000", "user\n",
        "a234567890123456789012345678901234567890123456789012345678901234567890"};
    struct harness *h = *state;
    struct user u;
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        struct err e = {0};
        assert_int_equal(user_lookup(h->etc, slice_cstr(bad[i]), &u, &e), -1);
        assert_int_equal(e.kind, ERR_NOT_FOUND);
    }
}

static void test_user_without_files(void **state)
{
    struct harness *h = *state;
    char path[PATH_MAX];
    struct user u;
    struct err e = {0};
    (void)snprintf(path, sizeof path, "%s/group", h->etc);
    assert_int_equal(unlink(path), 0);
    assert_int_equal(user_lookup(h->etc, SLICE_LIT("user"), &u, &e), 0);
    assert_int_equal(u.n_groups, 1);
    assert_int_equal(user_lookup(h->dir, SLICE_LIT("user"), &u, &e), -1);
    assert_int_equal(e.errnum, ENOENT);
}

static void test_settings_token(void **state)
{
    struct settings *s = settings_new();
    struct settings_change c = {.token = SLICE_LIT("secret")};
    struct err e = {0};
    assert_int_equal(settings_check_token(s, (struct slice){0}), SETTINGS_NO_TOKEN_YET);
    assert_int_equal(settings_change(s, &c, &e), 0);
    assert_int_equal(settings_check_token(s, SLICE_LIT("secret")), SETTINGS_GRANTED);
    assert_int_equal(settings_check_token(s, SLICE_LIT("secre")), SETTINGS_DENIED);
    assert_int_equal(settings_check_token(s, SLICE_LIT("secrets")), SETTINGS_DENIED);
    assert_int_equal(settings_check_token(s, SLICE_LIT("Secret")), SETTINGS_DENIED);
    assert_int_equal(settings_check_token(s, (struct slice){0}), SETTINGS_DENIED);
    settings_free(s);
}

static void test_settings_vars(void **state)
{
    const struct settings_var var = {SLICE_LIT("K"), SLICE_LIT("")};
    struct settings *s = settings_new();
    struct settings_change c = {
        .sandbox_id = SLICE_LIT("sb1"), .replaces_vars = true, .vars = &var, .n_vars = 1};
    const struct settings_var *got;
    struct arena a;
    struct arena small;
    struct err e = {0};
    size_t n;
    arena_init(&a, 65536);
    arena_init(&small, 16);
    assert_int_equal(settings_change(s, &c, &e), 0);
    c = (struct settings_change){.default_user = SLICE_LIT("user")}; /* leaves the rest */
    assert_int_equal(settings_change(s, &c, &e), 0);
    assert_int_equal(settings_vars(s, &a, &got, &n, &e), 0);
    assert_int_equal(n, 3);
    assert_true(slice_is(got[0].key, "E2B_SANDBOX"));
    assert_true(slice_is(got[1].value, "sb1"));
    assert_true(slice_is(got[2].key, "K"));
    assert_int_equal(got[2].value.n, 0);
    assert_int_equal(settings_vars(s, &small, &got, &n, &e), -1);
    assert_int_equal(e.kind, ERR_TOO_LARGE);
    arena_done(&a);
    arena_done(&small);
    settings_free(s);
}

static void assert_text(struct harness *h, const char *name, const char *want)
{
    AUTO_FREE char *got = harness_read(h, name);
    assert_non_null(got);
    assert_string_equal(got, want);
}

static void test_etc(void **state)
{
    struct harness *h = *state;
    struct stat before;
    struct stat after;
    char path[TEXT_MAX];
    struct err e = {0};
    assert_int_equal(etc_set_hostname(h->etc, "sb1", &e), 0);
    assert_text(h, "etc/hostname", "sb1\n");
    assert_text(h, "etc/hosts", "127.0.0.1\tlocalhost\n127.0.1.1\tsb1\n");
    harness_write(h, "etc/hosts", "127.0.1.1 old\n10.0.0.1 db\n127.0.1.10 x");
    assert_int_equal(etc_set_hostname(h->etc, "sb2", &e), 0);
    assert_text(h, "etc/hosts", "10.0.0.1 db\n127.0.1.10 x\n127.0.1.1\tsb2\n");
    (void)snprintf(path, sizeof path, "%s/hosts", h->etc);
    assert_int_equal(stat(path, &before), 0);
    assert_int_equal(etc_set_hostname(h->etc, "sb2", &e), 0);
    assert_int_equal(stat(path, &after), 0);
    assert_int_equal(before.st_ino, after.st_ino); /* nothing to do, nothing done */
    assert_int_equal(etc_set_machine_id(h->etc, "0123456789abcdef0123456789abcdef", &e), 0);
    assert_text(h, "etc/machine-id", "0123456789abcdef0123456789abcdef\n");
    assert_int_equal(etc_set_machine_id("/nowhere", "0", &e), -1);
    assert_int_equal(e.kind, ERR_NOT_FOUND);
    assert_int_equal(harness_count(h, "etc"), 5);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_path_resolve),
        cmocka_unit_test(test_path_refused),
        cmocka_unit_test(test_path_base),
        cmocka_unit_test(test_timestamps),
        cmocka_unit_test(test_settings_token),
        cmocka_unit_test(test_settings_vars),
        cmocka_unit_test_setup_teardown(test_user_lookup, harness_set_up, harness_tear_down),
        cmocka_unit_test_setup_teardown(test_user_unknown, harness_set_up, harness_tear_down),
        cmocka_unit_test_setup_teardown(test_user_without_files, harness_set_up, harness_tear_down),
        cmocka_unit_test_setup_teardown(test_etc, harness_set_up, harness_tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
