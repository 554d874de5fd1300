/* SPDX-License-Identifier: Apache-2.0 */
/* Settings from environment and file; notes about processes. */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "base/io.h"
#include "cli/home.h"
#include "cli/settings.h"

static char dir[] = "/tmp/torpor-cli-XXXXXX";

static int setup(void **state)
{
    (void)memcpy(dir + strlen(dir) - 6, "XXXXXX", 6);
    assert_non_null(mkdtemp(dir));
    (void)unsetenv("TORPOR_URL");
    (void)unsetenv("TORPOR_API_KEY");
    return setenv("TORPOR_DIR", dir, 1);
}

static int teardown(void **state)
{
    struct err e = {0};
    return io_remove_tree(AT_FDCWD, dir, &e);
}

static void write_env_file(const char *text)
{
    char path[64];
    FILE *f;
    (void)snprintf(path, sizeof path, "%s/env", dir);
    f = fopen(path, "we");
    assert_non_null(f);
    (void)fputs(text, f);
    assert_int_equal(fclose(f), 0);
}

static void settings_come_from_the_file(void **state)
{
    struct settings s;
    struct err e = {0};
    write_env_file("TORPOR_URL=http://127.0.0.1:8123\nTORPOR_API_KEY=tpr_1\n");
    assert_int_equal(settings_find(&s, &e), 0);
    assert_string_equal(s.host, "127.0.0.1");
    assert_int_equal(s.port, 8123);
    assert_string_equal(s.key, "tpr_1");
}

static void environment_wins(void **state)
{
    struct settings s;
    struct err e = {0};
    write_env_file("TORPOR_URL=http://127.0.0.1:8123\nTORPOR_API_KEY=tpr_1\n");
    (void)setenv("TORPOR_API_KEY", "tpr_2", 1);
    assert_int_equal(settings_find(&s, &e), 0);
    assert_string_equal(s.key, "tpr_2");
    assert_int_equal(s.port, 8123);
    (void)setenv("TORPOR_URL", "http://localhost/", 1);
    assert_int_equal(settings_find(&s, &e), 0);
    assert_string_equal(s.host, "localhost");
    assert_int_equal(s.port, 80);
}

static void a_files_key_goes_to_no_other_server(void **state)
{
    struct settings s;
    struct err e = {0};
    write_env_file("TORPOR_URL=http://127.0.0.1:8123\nTORPOR_API_KEY=tpr_1\n");
    (void)setenv("TORPOR_URL", "http://192.0.2.1:80", 1);
    assert_int_equal(settings_find(&s, &e), -1);
    assert_non_null(strstr(e.msg, "TORPOR_API_KEY is not"));
}

static void nothing_known_is_said(void **state)
{
    struct settings s;
    struct err e = {0};
    assert_int_equal(settings_find(&s, &e), -1);
    assert_non_null(strstr(e.msg, dir));
    assert_non_null(strstr(e.msg, "TORPOR_URL"));
    write_env_file("TORPOR_URL=http://127.0.0.1:8123\n");
    assert_int_equal(settings_find(&s, &e), -1);
    assert_string_equal(e.msg, "the env file holds no TORPOR_API_KEY");
}

static void urls_are_strict(void **state)
{
    static const char *const bad[] = {"https://x", "x", "http://", "http://:80", "http://x:0",
        "http://x:65536", "http://x:8a", "http://x/path", "ftp://x"};
    struct settings s;
    struct err e = {0};
    for (size_t i = 0; i < ARRAY_LEN(bad); i++)
        if (settings_parse_url(bad[i], &s, &e) == 0)
            fail_msg("%s was taken", bad[i]);
}

static void notes_know_the_process(void **state)
{
    AUTO_HOME struct home h = {.fd = -1};
    struct proc_id self;
    struct note n;
    struct err e = {0};
    char word[32];
    assert_int_equal(home_open(&h, NULL, NULL, &e), 0);
    assert_false(home_noted(&h, "agent", &n));
    assert_int_equal(proc_identify(getpid(), &self, &e), 0);
    assert_int_equal(home_note(&h, "agent", &self, "instance=3 socket=/run/x", &e), 0);
    assert_true(home_noted(&h, "agent", &n));
    assert_true(note_is_alive(&n));
    assert_true(note_word(&n, "instance", word, sizeof word));
    assert_string_equal(word, "3");
    assert_true(note_word(&n, "socket", word, sizeof word));
    assert_string_equal(word, "/run/x");
    assert_false(note_word(&n, "sock", word, sizeof word));
    /* The same pid, started at another time, is another process. */
    self.start_ticks++;
    assert_int_equal(home_note(&h, "agent", &self, "", &e), 0);
    assert_true(home_noted(&h, "agent", &n));
    assert_false(note_is_alive(&n));
    home_forget(&h, "agent");
    assert_false(home_noted(&h, "agent", &n));
}

static void a_note_of_another_boot_is_over(void **state)
{
    AUTO_HOME struct home h = {.fd = -1};
    struct proc_id self;
    struct note n;
    struct err e = {0};
    assert_int_equal(home_open(&h, NULL, NULL, &e), 0);
    assert_int_equal(proc_identify(getpid(), &self, &e), 0);
    assert_int_equal(home_note(&h, "agent", &self, "", &e), 0);
    assert_true(home_noted(&h, "agent", &n));
    n.boot[0] = n.boot[0] == '0' ? '1' : '0';
    assert_false(note_is_of_this_boot(&n));
    assert_false(note_is_alive(&n));
}

static void moved_data_is_found_again(void **state)
{
    struct home h;
    struct home again;
    struct err e = {0};
    assert_int_equal(home_open(&h, NULL, NULL, &e), 0);
    assert_string_equal(h.data, dir);
    assert_int_equal(home_move_data(&h, "/var/lib/torpor/x", &e), 0);
    home_close(&h);
    assert_int_equal(home_find(&again, &e), 0);
    assert_string_equal(again.home, dir);
    assert_string_equal(again.data, "/var/lib/torpor/x");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(settings_come_from_the_file, setup, teardown),
        cmocka_unit_test_setup_teardown(environment_wins, setup, teardown),
        cmocka_unit_test_setup_teardown(a_files_key_goes_to_no_other_server, setup, teardown),
        cmocka_unit_test_setup_teardown(nothing_known_is_said, setup, teardown),
        cmocka_unit_test(urls_are_strict),
        cmocka_unit_test_setup_teardown(notes_know_the_process, setup, teardown),
        cmocka_unit_test_setup_teardown(a_note_of_another_boot_is_over, setup, teardown),
        cmocka_unit_test_setup_teardown(moved_data_is_found_again, setup, teardown),
    };
    return cmocka_run_group_tests_name("cli/home", tests, NULL, NULL);
}
