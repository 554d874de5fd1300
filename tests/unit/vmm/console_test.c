/* SPDX-License-Identifier: Apache-2.0 */
/* The bounded console log and the last line of a stream. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "base/io.h"
#include "proto/limits.h"
#include "shim/console.h"

enum { HALF = CONSOLE_BYTES_MAX / 2 };

struct fixture {
    char dir[64];
    int dirfd;
    struct console console;
};

static int set_up(void **state)
{
    static struct fixture f;
    struct err e = {0};
    (void)snprintf(f.dir, sizeof f.dir, "/tmp/torpor-console-XXXXXX");
    if (!mkdtemp(f.dir))
        return -1;
    f.dirfd = open(f.dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    *state = &f;
    return console_open(&f.console, f.dirfd, &e);
}

static int tear_down(void **state)
{
    const struct fixture *f = *state;
    struct err e = {0};
    (void)close(f->console.fd);
    (void)close(f->dirfd);
    return io_remove_tree(AT_FDCWD, f->dir, &e);
}

static off_t size_of(const struct fixture *f, const char *name)
{
    struct stat st;
    return fstatat(f->dirfd, name, &st, AT_SYMLINK_NOFOLLOW) < 0 ? -1 : st.st_size;
}

/* Writes `n` bytes of `c` in pieces of an odd size. */
static void write_many(struct fixture *f, char c, size_t n)
{
    char piece[4093];
    memset(piece, c, sizeof piece);
    while (n > 0) {
        size_t k = n < sizeof piece ? n : sizeof piece;
        console_write(&f->console, piece, k);
        n -= k;
    }
}

static void test_short(void **state)
{
    struct fixture *f = *state;
    struct err e = {0};
    AUTO_BUF struct buf b = BUF_INIT(100);
    console_write(&f->console, "one\n", 4);
    console_write(&f->console, "two\n", 4);
    assert_int_equal(io_read_file(f->dirfd, "console.log", &b, &e), 0);
    assert_string_equal(b.p, "one\ntwo\n");
    assert_int_equal(size_of(f, "console.log.1"), -1);
}

static void test_rotates_at_half(void **state)
{
    struct fixture *f = *state;
    write_many(f, 'a', HALF);
    assert_int_equal(size_of(f, "console.log"), HALF);
    assert_int_equal(size_of(f, "console.log.1"), -1);
    write_many(f, 'b', 10);
    assert_int_equal(size_of(f, "console.log"), 10);
    assert_int_equal(size_of(f, "console.log.1"), HALF);
    write_many(f, 'c', 3 * HALF + 5);
    assert_int_equal(size_of(f, "console.log"), 15);
    assert_int_equal(size_of(f, "console.log.1"), HALF);
}

static void test_goes_on_after_restart(void **state)
{
    struct fixture *f = *state;
    struct err e = {0};
    write_many(f, 'a', HALF - 10);
    (void)close(f->console.fd);
    assert_int_equal(console_open(&f->console, f->dirfd, &e), 0);
    write_many(f, 'b', 20);
    assert_int_equal(size_of(f, "console.log"), 10);
    assert_int_equal(size_of(f, "console.log.1"), HALF);
}

/* A file that is too long already, from whatever cause, is not added to. */
static void test_oversized_file(void **state)
{
    struct fixture *f = *state;
    struct err e = {0};
    assert_int_equal(ftruncate(f->console.fd, 10 * (off_t)HALF), 0);
    (void)close(f->console.fd);
    assert_int_equal(console_open(&f->console, f->dirfd, &e), 0);
    write_many(f, 'b', 20);
    assert_int_equal(size_of(f, "console.log"), 20);
}

/* Where the old file cannot be moved, it is emptied. */
static void test_bound_holds_without_rename(void **state)
{
    struct fixture *f = *state;
    assert_int_equal(mkdirat(f->dirfd, "console.log.1", 0700), 0);
    write_many(f, 'a', HALF + 7);
    assert_int_equal(size_of(f, "console.log"), 7);
}

/* Once opening failed (here: a symbolic link lies in the way), output is dropped until it works. */
static void test_no_file_drops(void **state)
{
    struct fixture *f = *state;
    (void)close(f->console.fd);
    f->console.fd = -1;
    assert_int_equal(unlinkat(f->dirfd, "console.log", 0), 0);
    assert_int_equal(symlinkat("/dev/full", f->dirfd, "console.log"), 0);
    assert_int_equal(mkdirat(f->dirfd, "console.log.1", 0700), 0);
    write_many(f, 'a', 10);
    assert_int_equal(f->console.fd, -1);
    assert_int_equal(unlinkat(f->dirfd, "console.log", 0), 0);
    write_many(f, 'b', 10);
    assert_int_equal(size_of(f, "console.log"), 10);
}

static void test_last_line(void **state)
{
    static struct last_line l;
    char many[1000];
    (void)state;
    assert_string_equal(last_line_get(&l), "");
    last_line_feed(&l, "first\r\nsec", 10);
    assert_string_equal(last_line_get(&l), "sec");
    last_line_feed(&l, "ond\n\n\n", 6);
    assert_string_equal(last_line_get(&l), "second");
    last_line_feed(&l, "\x1b[31m\xff\n", 7);
    assert_string_equal(last_line_get(&l), "?[31m?");
    memset(many, 'x', sizeof many);
    last_line_feed(&l, many, sizeof many);
    assert_int_equal(strlen(last_line_get(&l)), SHIM_TEXT_BYTES - 1);
    last_line_feed(&l, "\nshort\n", 7);
    assert_string_equal(last_line_get(&l), "short");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_short, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_rotates_at_half, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_goes_on_after_restart, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_oversized_file, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_bound_holds_without_rename, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_no_file_drops, set_up, tear_down),
        cmocka_unit_test(test_last_line),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
