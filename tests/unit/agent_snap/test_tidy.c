/* SPDX-License-Identifier: Apache-2.0 */
/* Tidying: fewer blobs, the same memory; damage stays damage; a crash leaves one of both layouts.
 */
#include "store_test.h"

#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/io.h"

/* A step is a call that changes the disk; at `die_at` the process ends before it. */
static int step;
static int die_at;

static void count_step(void)
{
    if (++step == die_at)
        _exit(77);
}

int __real_fsync(int fd);
int __real_renameat(int a, const char *from, int b, const char *to);
int __real_unlinkat(int fd, const char *name, int flags);
int __real_linkat(int a, const char *from, int b, const char *to, int flags);
int __real_mkdirat(int fd, const char *name, mode_t mode);
int __real_fchmod(int fd, mode_t mode);
int __wrap_fsync(int fd);
int __wrap_renameat(int a, const char *from, int b, const char *to);
int __wrap_unlinkat(int fd, const char *name, int flags);
int __wrap_linkat(int a, const char *from, int b, const char *to, int flags);
int __wrap_mkdirat(int fd, const char *name, mode_t mode);
int __wrap_fchmod(int fd, mode_t mode);

static int n_fsyncs;
int __wrap_fsync(int fd)
{
    n_fsyncs++;
    count_step();
    return __real_fsync(fd);
}
int __wrap_renameat(int a, const char *from, int b, const char *to)
{
    count_step();
    return __real_renameat(a, from, b, to);
}
int __wrap_unlinkat(int fd, const char *name, int flags)
{
    count_step();
    return __real_unlinkat(fd, name, flags);
}
int __wrap_linkat(int a, const char *from, int b, const char *to, int flags)
{
    count_step();
    return __real_linkat(a, from, b, to, flags);
}
int __wrap_mkdirat(int fd, const char *name, mode_t mode)
{
    count_step();
    return __real_mkdirat(fd, name, mode);
}
int __wrap_fchmod(int fd, mode_t mode)
{
    count_step();
    return __real_fchmod(fd, mode);
}

enum { CHILDREN = 9 }; /* and the first: ten blobs, ten layers */

/* Each child has one new page; child 3's is zeros. Only the last one stays pinned. */
static void make_chain(struct fixture *f, struct uuid *ret)
{
    struct err e = {0};
    assert_int_equal(make_generation(f, 'a', ret, &e), 0);
    for (unsigned i = 1; i <= CHILDREN; i++) {
        struct uuid before = *ret;
        f->parent = open_ok(f, &before);
        f->page = i;
        if (make_generation(f, (char)(i == 3 ? 0 : 'a' + i), ret, &e) < 0)
            fail_msg("%s", e.msg);
        f->parent = generation_close(f->parent);
        generation_unpin(f->store, &before);
    }
}

static void expect_chain(const struct generation *g)
{
    for (unsigned i = 0; i < TEST_PAGES; i++)
        expect_page(g, i, (char)(i == 3 ? 0 : i <= CHILDREN ? 'a' + i : 'a'));
}

static void expect_tidied(const struct generation *g)
{
    char text[16] = "";
    assert_int_equal(g->n_blobs, 1); /* 7 of 16 pages are live in the first: all are merged */
    assert_int_equal(lseek(g->blob_fds[0], 0, SEEK_END), (TEST_PAGES - 1) * 4096);
    assert_int_equal(g->n_layers, 2);
    assert_int_equal(pread(g->layer_fds[1], text, 15, 0), 10);
    assert_memory_equal(text, "9bc\0efghij", 10); /* the upper nine */
    expect_chain(g);
}

static void test_merges(void **state)
{
    struct fixture *f = *state;
    struct uuid id;
    struct err e = {0};
    struct generation *before;
    struct generation *g;
    bool did = false;
    make_chain(f, &id);
    assert_int_equal(count_names(f, "blobs"), 2 * (10 + 10 + 1));
    before = open_ok(f, &id);
    assert_int_equal(before->n_blobs, 10);
    expect_chain(before);
    if (generation_tidy(f->store, &id, &did, &e) < 0)
        fail_msg("%s", e.msg);
    assert_true(did);
    expect_chain(before); /* goes on with what it has */
    assert_int_equal(count_names(f, "blobs"), 2 * (10 + 10 + 1 + 2));
    (void)generation_close(before);
    assert_int_equal(count_names(f, "blobs"), 2 * (1 + 2 + 1));
    for (int again = 0; again < 2; again++) {
        g = open_ok(f, &id);
        expect_tidied(g);
        (void)generation_close(g);
        reopen(f);
        assert_int_equal(generation_pin(f->store, &id, &e), 0);
    }
    assert_int_equal(generation_tidy(f->store, &id, &did, &e), 0);
    assert_false(did); /* nothing left to do */
    generation_unpin(f->store, &id);
    assert_int_equal(count_names(f, "blobs"), 0);
}

/* A large blob that is mostly in use stays. */
static void test_keeps_large(void **state)
{
    struct fixture *f = *state;
    struct uuid id;
    struct uuid first;
    struct err e = {0};
    struct generation *g;
    bool did = false;
    assert_int_equal(make_generation(f, 'a', &id, &e), 0);
    for (unsigned i = 0; i < CHILDREN; i++) {
        struct uuid before = id;
        f->parent = open_ok(f, &before);
        first = f->parent->blobs[f->parent->n_blobs - 1];
        f->page = i % 2 ? 5 : 6; /* the same pages again: most small blobs are dead */
        assert_int_equal(make_generation(f, (char)('b' + i), &id, &e), 0);
        f->parent = generation_close(f->parent);
        generation_unpin(f->store, &before);
    }
    assert_int_equal(generation_tidy(f->store, &id, &did, &e), 0);
    assert_true(did);
    g = open_ok(f, &id);
    assert_int_equal(g->n_blobs, 2);
    assert_true(uuid_equal(&g->blobs[0], &first));
    expect_page(g, 6, 'b' + CHILDREN - 1);
    expect_page(g, 5, 'b' + CHILDREN - 2);
    expect_page(g, 0, 'a');
    (void)generation_close(g);
}

/* A wrong byte in an old blob must not get right sums in the new one. */
static void test_damage_is_not_laundered(void **state)
{
    struct fixture *f = *state;
    struct uuid id;
    struct err e = {0};
    struct generation *g;
    char path[128];
    bool did = false;
    size_t n;
    int fd;
    make_chain(f, &id);
    g = open_ok(f, &id);
    path_of(path, "blobs", &g->blobs[9], "");
    (void)generation_close(g);
    n = count_names(f, "blobs");
    assert_int_equal(fchmodat(f->dirfd, path, 0600, 0), 0);
    fd = openat(f->dirfd, path, O_RDWR | O_CLOEXEC);
    assert_int_equal(pwrite(fd, "X", 1, 4096 + 7), 1);
    (void)close(fd);
    assert_int_equal(generation_tidy(f->store, &id, &did, &e), -1);
    assert_int_equal(e.kind, ERR_IO);
    assert_false(did);
    assert_int_equal(count_names(f, "blobs"), n);
    g = open_ok(f, &id);
    assert_int_equal(g->n_blobs, 10);
    (void)generation_close(g);
}

static void test_refuses(void **state)
{
    struct fixture *f = *state;
    struct uuid id;
    struct err e = {0};
    bool did = true;
    uuid_new(&id);
    assert_int_equal(generation_tidy(f->store, &id, &did, &e), -1);
    assert_int_equal(e.kind, ERR_NOT_FOUND);
    assert_int_equal(make_generation(f, 'a', &id, &e), 0);
    assert_int_equal(generation_tidy(f->store, &id, &did, &e), 0);
    assert_false(did);
}

/* --- crashes: the process ends before each step in turn --- */

/* Runs it in a child that ends at `at`; false when it came to its end. */
static bool dies_at(struct fixture *f, int at, void (*run)(struct fixture *, const struct uuid *),
    const struct uuid *id)
{
    int status;
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        step = 0;
        die_at = at;
        run(f, id);
        _exit(0);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    assert_true(WEXITSTATUS(status) == 77 || WEXITSTATUS(status) == 0);
    return WEXITSTATUS(status) == 77;
}

static void run_tidy(struct fixture *f, const struct uuid *id)
{
    struct err e = {0};
    bool did;
    if (generation_tidy(f->store, id, &did, &e) < 0)
        _exit(1);
}

static void test_crash_in_tidy(void **state)
{
    struct fixture *f = *state;
    struct uuid id;
    struct err e = {0};
    bool died = true;
    make_chain(f, &id);
    for (int at = 1; died; at++) {
        struct generation *g;
        size_t n;
        char path[128];
        died = dies_at(f, at, run_tidy, &id);
        reopen(f);
        assert_int_equal(generation_pin(f->store, &id, &e), 0);
        assert_int_equal(generation_store_collect(f->store, &e), 0);
        g = open_ok(f, &id);
        expect_chain(g);
        n = g->n_blobs;
        assert_true(n == 1 || n == 10);
        if (!died)
            expect_tidied(g);
        assert_int_equal(count_names(f, "blobs"), 2 * (n + g->n_layers + 1));
        (void)generation_close(g);
        path_of(path, "generations", &id, "");
        assert_int_equal(count_names(f, path), 4);
        assert_true(at < 200);
        if (n == 1)
            break;
    }
}

static void run_commit(struct fixture *f, const struct uuid *id)
{
    struct uuid made;
    struct err e = {0};
    f->parent = generation_open(f->store, id, &e);
    if (!f->parent || make_generation(f, 'b', &made, &e) < 0)
        _exit(1);
}

/* Nothing of a generation whose commit was cut off stays, and its parent is whole. */
static void test_crash_in_commit(void **state)
{
    struct fixture *f = *state;
    struct uuid id;
    struct err e = {0};
    bool died = true;
    int at = 1;
    assert_int_equal(make_generation(f, 'a', &id, &e), 0);
    for (; died; at++) {
        size_t n;
        died = dies_at(f, at, run_commit, &id);
        reopen(f);
        n = count_names(f, "generations"); /* drafts went */
        assert_true(died ? n == 1 || n == 2 : n == 2);
        assert_int_equal(generation_pin(f->store, &id, &e), 0);
        assert_int_equal(generation_store_collect(f->store, &e), 0);
        assert_int_equal(count_names(f, "generations"), 1);
        assert_int_equal(count_names(f, "blobs"), 6);
        (void)generation_close(open_ok(f, &id));
        generation_store_close(f->store);
        f->store = NULL;
        reopen(f);
        assert_int_equal(generation_pin(f->store, &id, &e), 0);
        assert_true(at < 200);
    }
    assert_true(at > 15); /* it did have steps */
}

static void run_unpin(struct fixture *f, const struct uuid *id)
{
    generation_unpin(f->store, id);
}

static void test_crash_in_removal(void **state)
{
    struct fixture *f = *state;
    struct err e = {0};
    bool died = true;
    for (int at = 1; died; at++) {
        struct uuid id;
        assert_int_equal(make_generation(f, 'a', &id, &e), 0);
        died = dies_at(f, at, run_unpin, &id);
        reopen(f);
        assert_int_equal(generation_store_collect(f->store, &e), 0);
        assert_int_equal(count_names(f, "generations"), 0);
        assert_int_equal(count_names(f, "blobs"), 0);
        assert_true(at < 200);
    }
}

/* Each is a wait for the disk inside a pause: memory, device state and layer with their sums, map,
 * three small files, three folders. */
static void test_syncs_of_a_commit(void **state)
{
    struct fixture *f = *state;
    struct uuid id;
    struct err e = {0};
    n_fsyncs = 0;
    assert_int_equal(make_generation(f, 'a', &id, &e), 0);
    assert_int_equal(n_fsyncs, 6 + 1 + 3 + 3);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {TEST(test_merges), TEST(test_keeps_large),
        TEST(test_damage_is_not_laundered), TEST(test_refuses), TEST(test_crash_in_tidy),
        TEST(test_crash_in_commit), TEST(test_crash_in_removal), TEST(test_syncs_of_a_commit)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
