/* SPDX-License-Identifier: Apache-2.0 */
/* The store: what is committed is found again, what nobody wants goes, what is damaged is told. */
#include "store_test.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/io.h"
#include "snap/checksum.h"
#include "snap/memory_map.h"
#include "snap/working_set.h"

static void test_round_trip(void **state)
{
    struct fixture *f = *state;
    struct uuid id;
    struct err e = {0};
    struct generation *g;
    struct stat st;
    assert_int_equal(make_generation(f, 'a', &id, &e), 0);
    for (int again = 0; again < 2; again++) {
        g = open_ok(f, &id);
        assert_int_equal(g->n_blobs, 1);
        assert_int_equal(g->n_layers, 1);
        assert_string_equal(g->secret, test_secret);
        assert_true(uuid_equal(&g->manifest.id, &id));
        assert_int_equal(g->hints_fd, -1);
        for (unsigned page = 0; page < TEST_PAGES; page++)
            expect_page(g, page, 'a');
        assert_int_equal(fstat(g->state_fd, &st), 0);
        assert_int_equal(st.st_size, 100);
        assert_int_equal(st.st_mode & 07777, 0400);
        assert_int_equal(fstat(g->layer_fds[0], &st), 0);
        assert_int_equal(st.st_size, 5000);
        assert_int_equal(st.st_nlink, 2); /* not a copy */
        assert_int_equal(st.st_mode & 07777, 0400);
        assert_null(generation_close(g));
        reopen(f);
    }
}

static void test_manifest(void **state)
{
    struct fixture *f = *state;
    struct generation_manifest got;
    struct generation_manifest m = {.has_memory = false,
        .created_at_ms = 1234567890123,
        .template = "base",
        .image_digest = "sha256:abc",
        .kernel = "6.1.0",
        .envd_version = "0.2.10",
        .default_user = "us\"er",
        .disk_bytes = 8ull << 30,
        .machine = {.driver = "qemu",
            .version = "7.2",
            .vmm_digest = "d1",
            .accel = "tcg",
            .machine = "microvm",
            .cpu = "max",
            .cpu_flags = "fpu sse",
            .tsc_khz = UINT32_MAX,
            .snapshot_format = 3,
            .guest_abi = 1,
            .vcpus = 2,
            .memory_mb = INT32_MAX}};
    struct err e = {0};
    struct generation_draft *d;
    uuid_new(&m.parent);
    memset(m.machine.cpu_flags, 'f', sizeof m.machine.cpu_flags - 1);
    d = generation_draft_new(f->store, &m, &e);
    assert_non_null(d);
    assert_int_equal(generation_read(f->store, &m.id, &got, &e), -1); /* not before the commit */
    assert_int_equal(e.kind, ERR_NOT_FOUND);
    assert_int_equal(generation_draft_commit(d, &m, test_secret, &e), 0);
    assert_null(generation_draft_free(d));
    memset(&got, 0, sizeof got);
    assert_int_equal(generation_read(f->store, &m.id, &got, &e), 0);
    assert_memory_equal(&got, &m, sizeof m);
}

static void test_unknown(void **state)
{
    struct fixture *f = *state;
    struct generation_manifest m;
    struct uuid id;
    struct err e = {0};
    uint64_t bytes;
    int fd;
    uuid_new(&id);
    assert_null(generation_open(f->store, &id, &e));
    assert_int_equal(e.kind, ERR_NOT_FOUND);
    assert_true(generation_read(f->store, &id, &m, &e) < 0 && e.kind == ERR_NOT_FOUND);
    assert_true(generation_pin(f->store, &id, &e) < 0 && e.kind == ERR_NOT_FOUND);
    assert_true(generation_size(f->store, &id, &bytes, &e) < 0 && e.kind == ERR_NOT_FOUND);
    assert_true(generation_hints_begin(f->store, &id, &fd, &e) < 0 && e.kind == ERR_NOT_FOUND);
    assert_true(generation_hints_end(f->store, &id, -1, &e) < 0 && e.kind == ERR_NOT_FOUND);
    generation_unpin(f->store, &id); /* only logged */
}

/* A child names its parent's blobs: they stay until the last of both is gone. */
static void test_shared_blobs(void **state)
{
    struct fixture *f = *state;
    struct uuid parent;
    struct uuid child;
    struct err e = {0};
    struct generation *g;
    assert_int_equal(make_generation(f, 'a', &parent, &e), 0);
    f->parent = open_ok(f, &parent);
    assert_int_equal(make_generation(f, 'b', &child, &e), 0);
    f->parent = generation_close(f->parent);
    assert_int_equal(count_names(f, "blobs"), 12);
    generation_unpin(f->store, &parent);
    assert_int_equal(count_names(f, "generations"), 1);
    assert_int_equal(count_names(f, "blobs"), 10); /* the parent's device state went */
    g = open_ok(f, &child);
    assert_int_equal(g->n_layers, 2);
    expect_page(g, 0, 'b');
    expect_page(g, 1, 'a');
    (void)generation_close(g);
    generation_unpin(f->store, &child);
    assert_int_equal(count_names(f, "generations"), 0);
    assert_int_equal(count_names(f, "blobs"), 0);
}

static void test_open_holds_blobs(void **state)
{
    struct fixture *f = *state;
    struct uuid id;
    struct uuid next;
    struct err e = {0};
    assert_int_equal(make_generation(f, 'a', &id, &e), 0);
    f->parent = open_ok(f, &id);
    generation_unpin(f->store, &id);
    assert_int_equal(count_names(f, "generations"), 0);
    assert_int_equal(count_names(f, "blobs"), 6);
    expect_page(f->parent, 3, 'a');
    assert_int_equal(make_generation(f, 'b', &next, &e), 0); /* from what is mapped */
    generation_close_files(f->parent);
    assert_int_equal(f->parent->map_fd, -1);
    assert_int_equal(count_names(f, "blobs"), 12);
    f->parent = generation_close(f->parent);
    assert_int_equal(count_names(f, "blobs"), 10);
    generation_unpin(f->store, &next);
    assert_int_equal(count_names(f, "blobs"), 0);
}

static void test_pins(void **state)
{
    struct fixture *f = *state;
    struct uuid id;
    struct err e = {0};
    assert_int_equal(make_generation(f, 'a', &id, &e), 0);
    assert_int_equal(generation_pin(f->store, &id, &e), 0);
    generation_unpin(f->store, &id);
    assert_int_equal(count_names(f, "generations"), 1);
    generation_unpin(f->store, &id);
    assert_int_equal(count_names(f, "generations"), 0);
    assert_true(generation_pin(f->store, &id, &e) < 0);
}

static void test_collect(void **state)
{
    struct fixture *f = *state;
    struct uuid ids[2];
    struct uuid stray;
    struct err e = {0};
    char path[128];
    for (int i = 0; i < 2; i++)
        assert_int_equal(make_generation(f, 'a', &ids[i], &e), 0);
    uuid_new(&stray);
    path_of(path, "blobs", &stray, "");
    make_layer_file(f, path, 'x', 1);
    path_of(path, "blobs", &stray, ".crc");
    make_layer_file(f, path, 'x', 1);
    make_layer_file(f, "blobs/README", 'x', 1);
    path_of(path, "generations", &stray, ".draft");
    assert_int_equal(mkdirat(f->dirfd, path, 0700), 0);
    path_of(path, "generations", &ids[0], ".gone");
    assert_int_equal(mkdirat(f->dirfd, path, 0700), 0);
    path_of(path, "hints", &stray, "");
    assert_int_equal(mkdirat(f->dirfd, path, 0700), 0);
    reopen(f);
    assert_int_equal(count_names(f, "generations"), 2);
    assert_int_equal(count_names(f, "blobs"), 15);
    assert_int_equal(generation_pin(f->store, &ids[1], &e), 0);
    assert_int_equal(generation_store_collect(f->store, &e), 0);
    assert_int_equal(count_names(f, "generations"), 1);
    assert_int_equal(count_names(f, "blobs"), 7); /* what is not ours stays */
    assert_int_equal(count_names(f, "hints"), 0);
    (void)generation_close(open_ok(f, &ids[1]));
}

static void replace(const struct fixture *f, const char *path, const char *text)
{
    struct err e = {0};
    assert_int_equal(io_replace_file(f->dirfd, path, text, strlen(text), 0600, &e), 0);
}

/* With a layout that cannot be read, nobody knows which blobs are wanted. */
static void nothing_collected(struct fixture *f, const char *layout)
{
    struct uuid ids[2];
    struct err e = {0};
    char path[128];
    size_t n_blobs;
    for (int i = 0; i < 2; i++)
        assert_int_equal(make_generation(f, 'a', &ids[i], &e), 0);
    n_blobs = count_names(f, "blobs");
    path_of(path, "generations", &ids[0], "/layout.json");
    if (layout)
        replace(f, path, layout);
    else
        assert_int_equal(unlinkat(f->dirfd, path, 0), 0);
    reopen(f);
    /* One that somebody names has a layout, wherever that is. */
    assert_int_equal(generation_pin(f->store, &ids[0], &e), 0);
    if (layout)
        generation_unpin(f->store, &ids[0]);
    assert_int_equal(generation_store_collect(f->store, &e), 0);
    assert_int_equal(count_names(f, "blobs"), n_blobs);
    if (layout)
        assert_int_equal(generation_pin(f->store, &ids[0], &e), 0);
    assert_null(generation_open(f->store, &ids[0], &e));
    assert_true(e.kind == ERR_INVALID || e.kind == ERR_UNSUPPORTED);
    generation_unpin(f->store, &ids[0]);
    /* An explicit end of another one removes its folder, but no blob. */
    assert_int_equal(generation_pin(f->store, &ids[1], &e), 0);
    generation_unpin(f->store, &ids[1]);
    assert_int_equal(count_names(f, "blobs"), n_blobs);
    path_of(path, "generations", &ids[0], "");
    assert_int_equal(faccessat(f->dirfd, path, F_OK, 0), 0);
    assert_int_equal(io_remove_tree(f->dirfd, path, &e), 0);
}

static void test_unreadable(void **state)
{
    static const char *const layouts[] = {NULL, "", "{", "[]", "{\"format\":2}", "{\"format\":1}",
        "{\"format\":1,\"map\":\"../x.map\",\"memory\":[],\"layers\":[],\"state\":[]}",
        "{\"format\":1,\"map\":\"memory.map\",\"memory\":[],\"layers\":[],\"state\":[]}",
        "{\"format\":1,\"map\":\"\",\"memory\":[],\"layers\":[{}],\"state\":[]}",
        "{\"format\":1,\"map\":\"\",\"memory\":[],\"state\":[],\"layers\":[{\"blob\":"
        "\"../../../../../../../../../etc/passwd\",\"bytes\":1,\"sums_sha256\":\"\"}]}"};
    for (size_t i = 0; i < ARRAY_LEN(layouts); i++)
        nothing_collected(*state, layouts[i]);
}

/* What a power cut left of a generation that was being removed keeps nothing. */
static void test_gutted(void **state)
{
    struct fixture *f = *state;
    struct uuid ids[2];
    struct err e = {0};
    char path[128];
    for (int i = 0; i < 2; i++)
        assert_int_equal(make_generation(f, 'a', &ids[i], &e), 0);
    path_of(path, "generations", &ids[0], "/layout.json");
    assert_int_equal(unlinkat(f->dirfd, path, 0), 0);
    reopen(f);
    assert_int_equal(generation_pin(f->store, &ids[1], &e), 0);
    assert_int_equal(generation_store_collect(f->store, &e), 0);
    assert_int_equal(count_names(f, "generations"), 1);
    assert_int_equal(count_names(f, "blobs"), 6);
    generation_unpin(f->store, &ids[1]);
    assert_int_equal(count_names(f, "blobs"), 0);
}

static void test_foreign_folder(void **state)
{
    struct fixture *f = *state;
    struct uuid id;
    struct err e = {0};
    assert_int_equal(make_generation(f, 'a', &id, &e), 0);
    assert_int_equal(mkdirat(f->dirfd, "generations/other", 0700), 0);
    reopen(f);
    assert_int_equal(generation_store_collect(f->store, &e), 0);
    assert_int_equal(count_names(f, "generations"), 2);
    assert_int_equal(count_names(f, "blobs"), 6);
}

/* --- damage --- */

static void refused_with(struct fixture *f, const struct uuid *id, const char *why)
{
    struct err e = {0};
    assert_null(generation_open(f->store, id, &e));
    if (e.kind != ERR_INVALID || !strstr(e.msg, why))
        fail_msg("kind %d, %s", (int)e.kind, e.msg);
}

/* Replaces a file by `n` bytes of `fill`; -1 removes it. */
static void spoil(const struct fixture *f, const char *path, int fill, size_t n)
{
    assert_int_equal(unlinkat(f->dirfd, path, 0), 0);
    if (fill >= 0)
        make_layer_file(f, path, (char)fill, n);
}

static void test_damaged_blobs(void **state)
{
    struct fixture *f = *state;
    struct uuid id;
    struct err e = {0};
    struct generation *g;
    char path[128];
    struct uuid blob;
    assert_int_equal(make_generation(f, 'a', &id, &e), 0);
    g = open_ok(f, &id);
    blob = g->blobs[0];
    (void)generation_close(g);
    path_of(path, "blobs", &blob, "");
    spoil(f, path, 'a', TEST_PAGES * MEMORY_PAGE - 1);
    refused_with(f, &id, "length");
    spoil(f, path, 'a', 0);
    refused_with(f, &id, "length");
    spoil(f, path, -1, 0);
    refused_with(f, &id, "open");
    assert_int_equal(symlinkat("/etc/passwd", f->dirfd, path), 0);
    refused_with(f, &id, "open");
    spoil(f, path, 'a', TEST_PAGES * MEMORY_PAGE);
    (void)generation_close(open_ok(f, &id));
    path_of(path, "blobs", &blob, ".crc");
    spoil(f, path, 'a', 52);
    refused_with(f, &id, "sums");
    spoil(f, path, -1, 0);
    refused_with(f, &id, "open");
    /* All of it: the pins of the tables do not depend on files. */
    generation_unpin(f->store, &id);
    assert_int_equal(count_names(f, "blobs"), 0);
}

/* Another blob with right sums and the same length is still not this one. */
static void test_foreign_blob(void **state)
{
    struct fixture *f = *state;
    struct uuid ids[2];
    struct uuid blob;
    struct err e = {0};
    struct generation *g;
    char path[128];
    int fd;
    int sums_fd;
    for (int i = 0; i < 2; i++)
        assert_int_equal(make_generation(f, (char)('a' + i), &ids[i], &e), 0);
    g = open_ok(f, &ids[0]);
    blob = g->blobs[0];
    (void)generation_close(g);
    path_of(path, "blobs", &blob, "");
    spoil(f, path, 'b', TEST_PAGES * MEMORY_PAGE);
    fd = openat(f->dirfd, path, O_RDONLY | O_CLOEXEC);
    path_of(path, "blobs", &blob, ".crc");
    spoil(f, path, 'x', 0);
    sums_fd = openat(f->dirfd, path, O_RDWR | O_CLOEXEC);
    assert_int_equal(checksum_file(fd, sums_fd, &blob, &e), 0);
    (void)close(fd);
    (void)close(sums_fd);
    refused_with(f, &ids[0], "not the one of the layout");
    (void)generation_close(open_ok(f, &ids[1]));
}

static void test_damaged_folder(void **state)
{
    static const char *const names[] = {"/memory.map", "/manifest.json", "/secret"};
    struct fixture *f = *state;
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        struct uuid id;
        struct generation_manifest m;
        struct err e = {0};
        char path[128];
        assert_int_equal(make_generation(f, 'a', &id, &e), 0);
        path_of(path, "generations", &id, names[i]);
        spoil(f, path, 'x', 65);
        refused_with(f, &id, "");
        spoil(f, path, -1, 0);
        refused_with(f, &id, "");
        assert_int_equal(generation_read(f->store, &id, &m, &e), i == 1 ? -1 : 0);
        assert_int_equal(make_generation(f, 'a', &id, &e), 0); /* others still work */
        (void)generation_close(open_ok(f, &id));
    }
}

static void test_newer_manifest(void **state)
{
    struct fixture *f = *state;
    struct uuid id;
    struct err e = {0};
    char path[128];
    assert_int_equal(make_generation(f, 'a', &id, &e), 0);
    path_of(path, "generations", &id, "/manifest.json");
    replace(f, path, "{\"format\":2,\"soul\":{}}");
    assert_null(generation_open(f->store, &id, &e));
    assert_int_equal(e.kind, ERR_UNSUPPORTED);
    assert_non_null(strstr(e.msg, "format 2"));
}

static void test_size(void **state)
{
    struct fixture *f = *state;
    struct uuid parent;
    struct uuid child;
    struct err e = {0};
    uint64_t alone;
    uint64_t with_parent;
    assert_int_equal(make_generation(f, 'a', &parent, &e), 0);
    assert_int_equal(generation_size(f->store, &parent, &alone, &e), 0);
    assert_true(alone >= TEST_PAGES * MEMORY_PAGE && alone < 4 * TEST_PAGES * MEMORY_PAGE);
    f->parent = open_ok(f, &parent);
    assert_int_equal(make_generation(f, 'b', &child, &e), 0);
    assert_int_equal(generation_size(f->store, &child, &with_parent, &e), 0);
    assert_true(with_parent > alone); /* what it shares counts too */
}

static void test_hints(void **state)
{
    const uint64_t bitmap[1] = {5};
    struct fixture *f = *state;
    struct uuid id;
    struct uuid next;
    struct err e = {0};
    struct generation *g;
    uint64_t pages;
    int fd;
    assert_int_equal(make_generation(f, 'a', &id, &e), 0);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(generation_hints_begin(f->store, &id, &fd, &e), 0);
        assert_true(generation_hints_end(f->store, &id, fd, &e) < 0); /* nothing written yet */
        assert_int_equal(working_set_write(fd, bitmap, TEST_PAGES * MEMORY_PAGE, &pages, &e), 0);
        assert_int_equal(generation_hints_end(f->store, &id, fd, &e), 0);
        (void)close(fd);
    }
    g = open_ok(f, &id);
    assert_true(g->hints_fd >= 0);
    assert_int_equal(lseek(g->hints_fd, 0, SEEK_END), 32 + 2 * 16);
    (void)generation_close(g);
    assert_int_equal(count_names(f, "hints"), 1);
    assert_int_equal(make_generation(f, 'b', &next, &e), 0);
    generation_hints_inherit(f->store, &id, &next);
    generation_unpin(f->store, &id);
    assert_int_equal(count_names(f, "hints"), 1);
    g = open_ok(f, &next);
    assert_int_equal(lseek(g->hints_fd, 0, SEEK_END), 32 + 2 * 16);
    (void)generation_close(g);
    generation_hints_inherit(f->store, &id, &next); /* of nobody: nothing happens */
    generation_unpin(f->store, &next);
    assert_int_equal(count_names(f, "hints"), 0);
}

/* More than the tables start with, removed in another order. */
static void test_many(void **state)
{
    enum { N = 100 };
    struct fixture *f = *state;
    struct uuid ids[N];
    struct err e = {0};
    for (size_t i = 0; i < N; i++)
        assert_int_equal(make_disk_generation(f, (char)i, &ids[i], &e), 0);
    for (size_t i = 0; i < N; i++)
        generation_unpin(f->store, &ids[i * 37 % N]);
    assert_int_equal(count_names(f, "generations"), 0);
    assert_int_equal(count_names(f, "blobs"), 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {TEST(test_round_trip), TEST(test_manifest),
        TEST(test_unknown), TEST(test_shared_blobs), TEST(test_open_holds_blobs), TEST(test_pins),
        TEST(test_collect), TEST(test_unreadable), TEST(test_gutted), TEST(test_foreign_folder),
        TEST(test_collect), TEST(test_gutted), TEST(test_foreign_folder), TEST(test_damaged_blobs),
        TEST(test_foreign_blob), TEST(test_damaged_folder), TEST(test_newer_manifest),
        TEST(test_size), TEST(test_hints), TEST(test_many)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
