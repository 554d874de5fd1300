/* SPDX-License-Identifier: Apache-2.0 */
/* Drafts: what is not committed leaves no trace, and what is wrong is not committed. */
#include "store_test.h"

#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/io.h"
#include "snap/checksum.h"
#include "snap/memory_map.h"

static void expect_nothing(const struct fixture *f)
{
    assert_int_equal(count_names(f, "generations"), 0);
    assert_int_equal(count_names(f, "blobs"), 0);
}

static void test_free_gives_layer_back(void **state)
{
    struct fixture *f = *state;
    struct generation_manifest m = {0};
    struct err e = {0};
    struct generation_draft *d = generation_draft_new(f->store, &m, &e);
    struct uuid layer;
    struct stat st;
    uid_t owner = geteuid() == 0 ? 12345 : geteuid();
    make_layer_file(f, "disk", 'd', 100000);
    assert_int_equal(fchownat(f->dirfd, "disk", owner, (gid_t)-1, 0), 0);
    assert_int_equal(generation_draft_add_layer_file(d, f->dirfd, "disk", &layer, &e), 0);
    assert_int_equal(fstatat(f->dirfd, "disk", &st, 0), 0);
    assert_int_equal(st.st_uid, geteuid());
    assert_int_equal(st.st_mode & 07777, 0400);
    assert_int_equal(st.st_nlink, 2);
    assert_null(generation_draft_free(d));
    assert_int_equal(fstatat(f->dirfd, "disk", &st, 0), 0);
    assert_int_equal(st.st_uid, owner);
    assert_int_equal(st.st_mode & 07777, 0640);
    assert_int_equal(st.st_nlink, 1);
    assert_int_equal(st.st_size, 100000);
    expect_nothing(f);
}

static void test_free_removes_only_its_own(void **state)
{
    struct fixture *f = *state;
    struct generation_manifest m = {.has_memory = true};
    struct err e = {0};
    struct uuid id;
    struct generation_blob blob;
    struct generation_draft *d;
    int map_fd;
    assert_int_equal(make_generation(f, 'a', &id, &e), 0);
    f->parent = open_ok(f, &id);
    d = generation_draft_new(f->store, &m, &e);
    assert_int_equal(generation_draft_blob(d, &blob, &e), 0);
    assert_int_equal(generation_draft_map(d, &map_fd, &e), 0);
    assert_int_equal(generation_draft_map(d, &map_fd, &e), -1);
    assert_int_equal(generation_draft_add_layer(d, &f->parent->layers[0], &e), 0);
    assert_int_equal(generation_draft_add_layer(d, &f->parent->layers[0], &e), -1); /* twice */
    assert_int_equal(count_names(f, "blobs"), 8);
    assert_int_equal(generation_store_collect(f->store, &e), 0); /* takes nothing of a draft */
    assert_int_equal(count_names(f, "blobs"), 8);
    (void)generation_draft_free(d);
    assert_int_equal(count_names(f, "blobs"), 6);
    assert_int_equal(count_names(f, "generations"), 1);
    f->parent = generation_close(f->parent);
    (void)generation_close(open_ok(f, &id));
}

static void test_refuses_layers(void **state)
{
    static const char *const names[] = {"", ".", "..", "a/b", "absent", "blobs", "link"};
    struct fixture *f = *state;
    struct generation_manifest m = {0};
    struct err e = {0};
    struct uuid layer;
    struct generation_draft *d = generation_draft_new(f->store, &m, &e);
    assert_int_equal(symlinkat("/etc/passwd", f->dirfd, "link"), 0);
    for (size_t i = 0; i < ARRAY_LEN(names); i++)
        assert_int_equal(generation_draft_add_layer_file(d, f->dirfd, names[i], &layer, &e), -1);
    uuid_new(&layer);
    assert_int_equal(generation_draft_add_layer(d, &layer, &e), -1);
    assert_int_equal(e.kind, ERR_NOT_FOUND);
    assert_int_equal(count_names(f, "blobs"), 0);
    for (size_t i = 0; i < GENERATION_LAYERS_MAX; i++) {
        make_layer_file(f, "disk", 'd', 10);
        assert_int_equal(generation_draft_add_layer_file(d, f->dirfd, "disk", &layer, &e), 0);
        assert_int_equal(unlinkat(f->dirfd, "disk", 0), 0);
    }
    make_layer_file(f, "disk", 'd', 10);
    assert_int_equal(generation_draft_add_layer_file(d, f->dirfd, "disk", &layer, &e), -1);
    assert_int_equal(e.kind, ERR_TOO_LARGE);
    (void)generation_draft_free(d);
    expect_nothing(f);
}

static void test_blobs_are_bounded(void **state)
{
    struct fixture *f = *state;
    struct generation_manifest m = {0};
    struct generation_blob blob;
    struct err e = {0};
    struct generation_draft *d = generation_draft_new(f->store, &m, &e);
    int n = 0;
    while (generation_draft_blob(d, &blob, &e) == 0)
        assert_true(++n < 1000);
    assert_int_equal(e.kind, ERR_TOO_LARGE);
    assert_true(n > GENERATION_LAYERS_MAX + 2);
    (void)generation_draft_free(d);
    expect_nothing(f);
}

/* A draft with memory of one page in `blob`; the caller spoils it. */
static struct generation_draft *memory_draft(struct fixture *f, struct generation_manifest *m,
    struct generation_blob *blob, int *map_fd, struct generation_blob *device)
{
    struct memory_map_writer w;
    struct err e = {0};
    struct generation_draft *d = generation_draft_new(f->store, m, &e);
    struct memory_map_blob table = {.bytes = MEMORY_PAGE};
    char page[MEMORY_PAGE] = {1};
    m->has_memory = true;
    assert_int_equal(generation_draft_blob(d, blob, &e), 0);
    assert_int_equal(pwrite(blob->fd, page, sizeof page, 0), sizeof page);
    assert_int_equal(checksum_file(blob->fd, blob->sums_fd, &blob->id, &e), 0);
    assert_int_equal(generation_draft_map(d, map_fd, &e), 0);
    memcpy(table.uuid, blob->id.bytes, UUID_BYTES);
    memory_map_writer_init(&w, *map_fd, MEMORY_PAGE);
    assert_int_equal(memory_map_write(&w, MEMORY_PAGE, 1, 0, &e), 0);
    assert_int_equal(memory_map_write_end(&w, &table, 1, &e), 0);
    assert_int_equal(generation_draft_blob(d, device, &e), 0);
    assert_int_equal(generation_draft_set_state(d, device, &e), 0);
    assert_int_equal(generation_draft_set_state(d, device, &e), -1); /* once */
    return d;
}

enum spoil {
    NOTHING,
    BLOB_CUT,
    SUMS_EMPTY,
    MAP_CUT,
    MAP_FOREIGN,
    WRONG_ID,
    SHORT_SECRET,
    NO_MEMORY
};

static int commit_spoilt(struct fixture *f, enum spoil what, struct err *e)
{
    struct generation_manifest m = {0};
    struct generation_blob blob;
    struct generation_blob device;
    int map_fd;
    int rc;
    struct generation_draft *d = memory_draft(f, &m, &blob, &map_fd, &device);
    if (what == BLOB_CUT)
        assert_int_equal(ftruncate(blob.fd, 100), 0);
    if (what == SUMS_EMPTY)
        assert_int_equal(ftruncate(blob.sums_fd, 0), 0);
    if (what == MAP_CUT)
        assert_int_equal(ftruncate(map_fd, 70), 0);
    if (what == MAP_FOREIGN) {
        const struct memory_map_blob foreign = {.uuid = {9}, .bytes = MEMORY_PAGE};
        struct memory_map_writer w;
        memory_map_writer_init(&w, map_fd, MEMORY_PAGE);
        assert_int_equal(memory_map_write(&w, MEMORY_PAGE, 1, 0, e), 0);
        assert_int_equal(memory_map_write_end(&w, &foreign, 1, e), 0);
    }
    if (what == WRONG_ID)
        uuid_new(&m.id);
    if (what == NO_MEMORY)
        m.has_memory = false;
    rc = generation_draft_commit(d, &m, what == SHORT_SECRET ? "short" : test_secret, e);
    (void)generation_draft_free(d);
    return rc;
}

static void test_refuses_commit(void **state)
{
    struct fixture *f = *state;
    struct err e = {0};
    for (int what = BLOB_CUT; what <= NO_MEMORY; what++) {
        assert_int_equal(commit_spoilt(f, what, &e), -1);
        assert_int_equal(e.kind, ERR_INVALID);
        expect_nothing(f);
    }
    assert_int_equal(commit_spoilt(f, NOTHING, &e), 0);
    assert_int_equal(count_names(f, "generations"), 1);
}

/* What was made and not needed goes when the draft goes. */
static void test_unused_blob_goes(void **state)
{
    struct fixture *f = *state;
    struct generation_manifest m = {0};
    struct generation_blob blob;
    struct generation_blob device;
    struct generation_blob spare;
    struct err e = {0};
    int map_fd;
    struct generation_draft *d = memory_draft(f, &m, &blob, &map_fd, &device);
    assert_int_equal(generation_draft_blob(d, &spare, &e), 0);
    assert_int_equal(generation_draft_commit(d, &m, test_secret, &e), 0);
    assert_int_equal(generation_draft_commit(d, &m, test_secret, &e), -1);
    assert_int_equal(count_names(f, "blobs"), 6);
    (void)generation_draft_free(d);
    assert_int_equal(count_names(f, "blobs"), 4);
    (void)generation_close(open_ok(f, &m.id));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {TEST(test_free_gives_layer_back),
        TEST(test_free_removes_only_its_own), TEST(test_refuses_layers),
        TEST(test_blobs_are_bounded), TEST(test_refuses_commit), TEST(test_unused_blob_goes)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
