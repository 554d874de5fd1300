/* SPDX-License-Identifier: Apache-2.0 */
/* Descriptors with deadlines, and files: replacing, reading, making and removing trees. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <cmocka.h>

#include "base/clock.h"
#include "base/cleanup.h"
#include "base/io.h"

enum { PATIENCE_MS = 10000, BIG_BYTES = 1 << 20 };

static char folder[] = "/tmp/torpor-test-io-XXXXXX";
static int dirfd_ = -1;

static int make_folder(void **state)
{
    (void)state;
    if (!mkdtemp(folder))
        return -1;
    dirfd_ = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return dirfd_ < 0 ? -1 : 0;
}

static int remove_folder(void **state)
{
    struct err e = {0};
    (void)state;
    (void)close(dirfd_);
    return io_remove_tree(AT_FDCWD, folder, &e);
}

static void make_file(const char *path, const char *text)
{
    AUTO_CLOSE int fd = openat(dirfd_, path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, strlen(text)), strlen(text));
}

static void check_file(const char *path, const char *want)
{
    AUTO_BUF struct buf text = BUF_INIT(4096);
    struct err e = {0};
    if (io_read_file(dirfd_, path, &text, &e) < 0)
        fail_msg("%s", e.msg);
    assert_string_equal(text.p ? text.p : "", want);
}

static bool exists(const char *path)
{
    struct stat st;
    return fstatat(dirfd_, path, &st, AT_SYMLINK_NOFOLLOW) == 0;
}

/* Number of names in the folder. */
static int count_names(void)
{
    DIR *d = opendir(folder);
    int n = 0;
    assert_non_null(d);
    while (readdir(d))
        n++;
    (void)closedir(d);
    return n - 2; /* "." and ".." */
}

/* --- waiting, reading, writing --- */

struct ends {
    int fds[2];
};

static struct ends make_socket_pair(void)
{
    struct ends p;
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, p.fds), 0);
    return p;
}

static struct ends make_pipe(void)
{
    struct ends p;
    assert_int_equal(pipe2(p.fds, O_CLOEXEC), 0);
    return p;
}

static void close_ends(struct ends *p)
{
    for (int i = 0; i < 2; i++)
        if (p->fds[i] >= 0)
            (void)close(p->fds[i]);
}
#define AUTO_ENDS CLEANUP(close_ends)

static void nothing_to_read_times_out(void **state)
{
    AUTO_ENDS struct ends p = make_pipe();
    struct err e = {0};
    char c;
    int64_t start = clock_mono_ms();
    (void)state;
    for (int nonblock = 0; nonblock < 2; nonblock++) {
        assert_int_equal(io_set_nonblock(p.fds[0], nonblock, &e), 0);
        assert_int_equal(io_wait(p.fds[0], POLLIN, deadline_in_ms(20), &e), -1);
        assert_int_equal(e.kind, ERR_TIMEOUT);
        assert_int_equal(io_read(p.fds[0], &c, 1, deadline_in_ms(20), &e), -1);
        assert_int_equal(e.kind, ERR_TIMEOUT);
        assert_int_equal(io_read_full(p.fds[0], &c, 1, deadline_in_ms(20), &e), -1);
        assert_int_equal(e.kind, ERR_TIMEOUT);
    }
    assert_true(clock_mono_ms() - start >= 2 * 3 * 20);
}

static void reading_reports_the_end(void **state)
{
    AUTO_ENDS struct ends p = make_pipe();
    int64_t deadline = deadline_in_ms(PATIENCE_MS);
    struct err e = {0};
    char text[8];
    (void)state;
    assert_int_equal(io_write_full(p.fds[1], "abc", 3, deadline, &e), 0);
    (void)close(p.fds[1]);
    p.fds[1] = -1;
    assert_int_equal(io_read(p.fds[0], text, sizeof text, deadline, &e), 3);
    assert_memory_equal(text, "abc", 3);
    assert_int_equal(io_read(p.fds[0], text, sizeof text, deadline, &e), 0);
    assert_int_equal(io_read_full(p.fds[0], text, 1, deadline, &e), -1);
    assert_int_equal(e.kind, ERR_PROTOCOL);
}

struct slow_reader {
    int fd;
    size_t got;
    bool in_order;
};

static void *read_slowly(void *arg)
{
    struct slow_reader *r = arg;
    unsigned char chunk[997];
    struct err e = {0};
    ssize_t n;
    r->in_order = true;
    while ((n = io_read(r->fd, chunk, sizeof chunk, deadline_in_ms(PATIENCE_MS), &e)) > 0)
        for (ssize_t i = 0; i < n; i++)
            if (chunk[i] != (unsigned char)(r->got++ % 251))
                r->in_order = false;
    return NULL;
}

/* More than a pipe or socket buffers: the writer has to wait for the reader. */
static void check_big_write(struct ends *p)
{
    struct slow_reader reader = {.fd = p->fds[0]};
    AUTO_FREE unsigned char *big = malloc(BIG_BYTES);
    pthread_t thread;
    struct err e = {0};
    assert_non_null(big);
    for (size_t i = 0; i < BIG_BYTES; i++)
        big[i] = (unsigned char)(i % 251);
    assert_int_equal(pthread_create(&thread, NULL, read_slowly, &reader), 0);
    assert_int_equal(io_write_full(p->fds[1], big, BIG_BYTES, deadline_in_ms(PATIENCE_MS), &e), 0);
    (void)close(p->fds[1]);
    p->fds[1] = -1;
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_int_equal(reader.got, BIG_BYTES);
    assert_true(reader.in_order);
}

static void big_writes_arrive_whole(void **state)
{
    AUTO_ENDS struct ends pipe = make_pipe();
    AUTO_ENDS struct ends sockets = make_socket_pair();
    (void)state;
    check_big_write(&pipe);
    check_big_write(&sockets);
}

/* Nobody reads: writing ends at the deadline, also on a descriptor that blocks. */
static void full_pipes_time_out(void **state)
{
    static const char big[BIG_BYTES];
    (void)state;
    for (int i = 0; i < 4; i++) {
        AUTO_ENDS struct ends p = i < 2 ? make_pipe() : make_socket_pair();
        struct err e = {0};
        assert_int_equal(io_set_nonblock(p.fds[1], i % 2, &e), 0);
        assert_int_equal(io_write_full(p.fds[1], big, sizeof big, deadline_in_ms(20), &e), -1);
        assert_int_equal(e.kind, ERR_TIMEOUT);
    }
}

static void closed_peer_is_an_error_and_no_signal(void **state)
{
    AUTO_ENDS struct ends p = make_socket_pair();
    struct err e = {0};
    (void)state;
    (void)close(p.fds[0]);
    p.fds[0] = -1;
    assert_int_equal(io_write_full(p.fds[1], "x", 1, deadline_in_ms(PATIENCE_MS), &e), -1);
    assert_int_equal(e.errnum, EPIPE);
}

/* --- files --- */

static void files_are_read_up_to_a_bound(void **state)
{
    AUTO_BUF struct buf small = BUF_INIT(4);
    struct err e = {0};
    (void)state;
    make_file("five", "12345");
    check_file("five", "12345");
    assert_int_equal(io_read_file(dirfd_, "five", &small, &e), -1);
    assert_int_equal(e.kind, ERR_TOO_LARGE);
    buf_reset(&small);
    assert_int_equal(io_read_file(dirfd_, "absent", &small, &e), -1);
    assert_int_equal(e.kind, ERR_NOT_FOUND);
    assert_int_equal(unlinkat(dirfd_, "five", 0), 0);
}

static void replacing_makes_and_replaces(void **state)
{
    int names = count_names();
    struct err e = {0};
    struct stat st;
    (void)state;
    assert_int_equal(io_replace_file(dirfd_, "state", "one", 3, 0600, &e), 0);
    check_file("state", "one");
    assert_int_equal(fstatat(dirfd_, "state", &st, 0), 0);
    assert_int_equal(st.st_mode & 07777, 0600);
    assert_int_equal(io_replace_file(dirfd_, "state", "", 0, 0664, &e), 0);
    check_file("state", "");
    assert_int_equal(fstatat(dirfd_, "state", &st, 0), 0);
    assert_int_equal(st.st_mode & 07777, 0664); /* whatever the umask is */
    assert_int_equal(count_names(), names + 1); /* nothing is left aside */
    assert_int_equal(unlinkat(dirfd_, "state", 0), 0);
}

static void replacing_does_not_follow_links(void **state)
{
    struct err e = {0};
    (void)state;
    make_file("target", "untouched");
    assert_int_equal(symlinkat("target", dirfd_, "link"), 0);
    assert_int_equal(io_replace_file(dirfd_, "link", "new", 3, 0600, &e), 0);
    check_file("target", "untouched");
    check_file("link", "new");
    assert_int_equal(unlinkat(dirfd_, "target", 0), 0);
    assert_int_equal(unlinkat(dirfd_, "link", 0), 0);
}

static void failed_replacing_leaves_all_as_it_was(void **state)
{
    char name[300];
    int names;
    struct err e = {0};
    (void)state;
    assert_int_equal(mkdirat(dirfd_, "busy", 0755), 0);
    names = count_names();
    assert_int_equal(io_replace_file(dirfd_, "busy", "x", 1, 0600, &e), -1);
    assert_int_equal(io_replace_file(dirfd_, "absent/file", "x", 1, 0600, &e), -1);
    assert_int_equal(e.kind, ERR_NOT_FOUND);
    memset(name, 'n', sizeof name);
    name[sizeof name - 1] = '\0';
    assert_int_equal(io_replace_file(dirfd_, name, "x", 1, 0600, &e), -1);
    assert_int_equal(e.kind, ERR_INVALID);
    assert_int_equal(count_names(), names);
    assert_int_equal(unlinkat(dirfd_, "busy", AT_REMOVEDIR), 0);
}

static void folders_are_made_with_their_parents(void **state)
{
    char path[128];
    struct stat st;
    struct err e = {0};
    (void)state;
    (void)snprintf(path, sizeof path, "%s/a/b/c", folder);
    assert_int_equal(io_mkdir_p(path, 0700, &e), 0);
    assert_int_equal(fstatat(dirfd_, "a/b/c", &st, 0), 0);
    assert_int_equal(st.st_mode & 07777, 0700);
    assert_int_equal(io_mkdir_p(path, 0755, &e), 0);
    assert_int_equal(fstatat(dirfd_, "a/b/c", &st, 0), 0);
    assert_int_equal(st.st_mode & 07777, 0700); /* kept */
    make_file("a/file", "x");
    (void)snprintf(path, sizeof path, "%s/a/file/b", folder);
    assert_int_equal(io_mkdir_p(path, 0755, &e), -1);
    assert_int_equal(io_mkdir_p("", 0755, &e), -1);
    assert_int_equal(io_remove_tree(dirfd_, "a", &e), 0);
    assert_false(exists("a"));
}

static void trees_go_but_link_targets_stay(void **state)
{
    struct err e = {0};
    (void)state;
    assert_int_equal(mkdirat(dirfd_, "outside", 0755), 0);
    make_file("outside/kept", "kept");
    assert_int_equal(mkdirat(dirfd_, "tree", 0755), 0);
    assert_int_equal(mkdirat(dirfd_, "tree/deep", 0755), 0);
    assert_int_equal(mkdirat(dirfd_, "tree/deep/deeper", 0500), 0);
    make_file("tree/deep/file", "x");
    assert_int_equal(symlinkat("../outside", dirfd_, "tree/folder_link"), 0);
    assert_int_equal(symlinkat("../outside/kept", dirfd_, "tree/file_link"), 0);
    assert_int_equal(symlinkat("nowhere", dirfd_, "tree/broken_link"), 0);
    assert_int_equal(mkfifoat(dirfd_, "tree/fifo", 0600), 0);
    assert_int_equal(io_remove_tree(dirfd_, "tree", &e), 0);
    assert_false(exists("tree"));
    check_file("outside/kept", "kept");
    /* A link itself goes, not what it points to. */
    assert_int_equal(symlinkat("outside", dirfd_, "link"), 0);
    assert_int_equal(io_remove_tree(dirfd_, "link", &e), 0);
    assert_false(exists("link"));
    check_file("outside/kept", "kept");
    assert_int_equal(io_remove_tree(dirfd_, "outside", &e), 0);
}

static void removing_what_is_absent_is_fine(void **state)
{
    struct err e = {0};
    (void)state;
    assert_int_equal(io_remove_tree(dirfd_, "absent", &e), 0);
    make_file("file", "x");
    assert_int_equal(io_remove_tree(dirfd_, "file", &e), 0);
    assert_false(exists("file"));
    make_file("file", "x");
    assert_int_equal(io_remove_tree(dirfd_, "file/below", &e), -1);
    assert_true(exists("file"));
    assert_int_equal(unlinkat(dirfd_, "file", 0), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_to_read_times_out),
        cmocka_unit_test(reading_reports_the_end),
        cmocka_unit_test(big_writes_arrive_whole),
        cmocka_unit_test(full_pipes_time_out),
        cmocka_unit_test(closed_peer_is_an_error_and_no_signal),
        cmocka_unit_test(files_are_read_up_to_a_bound),
        cmocka_unit_test(replacing_makes_and_replaces),
        cmocka_unit_test(replacing_does_not_follow_links),
        cmocka_unit_test(failed_replacing_leaves_all_as_it_was),
        cmocka_unit_test(folders_are_made_with_their_parents),
        cmocka_unit_test(trees_go_but_link_targets_stay),
        cmocka_unit_test(removing_what_is_absent_is_fine),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
