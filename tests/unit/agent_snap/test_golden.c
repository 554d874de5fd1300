/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A generation as format 1 wrote it, kept as bytes: every later version must still wake it. With a
 * folder as second argument this writes such a generation there, for the version after the next
 * format change; the bytes that are kept are never written again.
 */
#include "store_test.h"

#include <dirent.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/io.h"
#include "snap/checksum.h"
#include "snap/memory_map.h"

static const char golden_id[] = "f2c8bbb4-5d27-48a0-9d85-db7f2cd83847";

enum { PAGES = 64 };
/* One character a page: '.' is zeros, a capital letter is in the first blob, others in the second.
 */
static const char pages[PAGES + 1] =
    "..AB............bc..........................................C.a.";

static const struct generation_manifest golden = {.has_memory = true,
    .created_at_ms = 1767225600123,
    .template = "minimal",
    .image_digest = "sha256:0123",
    .kernel = "6.1.0-44-cloud-amd64",
    .envd_version = "0.2.10",
    .default_user = "user",
    .disk_bytes = 8ull << 30,
    .machine = {.driver = "qemu",
        .version = "7.2.19",
        .vmm_digest = "sha256:4567",
        .accel = "tcg",
        .machine = "microvm",
        .cpu = "max",
        .cpu_flags = "fpu vme sse4_2",
        .tsc_khz = 2600000,
        .snapshot_format = 1,
        .guest_abi = 1,
        .vcpus = 2,
        .memory_mb = 512}};

/* --- writing --- */

static void put_page(const struct generation_blob *b, unsigned at, char fill)
{
    char page[MEMORY_PAGE];
    memset(page, fill, sizeof page);
    assert_int_equal(pwrite(b->fd, page, sizeof page, (off_t)at * MEMORY_PAGE), sizeof page);
}

static void write_memory(struct generation_draft *d, struct err *e)
{
    struct generation_blob blobs[2];
    struct memory_map_blob table[2];
    struct memory_map_writer w;
    unsigned n[2] = {0, 0};
    int map_fd;
    assert_int_equal(generation_draft_map(d, &map_fd, e), 0);
    for (int i = 0; i < 2; i++)
        assert_int_equal(generation_draft_blob(d, &blobs[i], e), 0);
    memory_map_writer_init(&w, map_fd, PAGES * MEMORY_PAGE);
    for (unsigned i = 0; i < PAGES; i++) {
        unsigned which = pages[i] >= 'a';
        if (pages[i] == '.') {
            assert_int_equal(memory_map_write(&w, MEMORY_PAGE, 0, 0, e), 0);
            continue;
        }
        put_page(&blobs[which], n[which], pages[i]);
        assert_int_equal(
            memory_map_write(&w, MEMORY_PAGE, which + 1, (uint64_t)n[which]++ * MEMORY_PAGE, e), 0);
    }
    for (int i = 0; i < 2; i++) {
        assert_int_equal(checksum_file(blobs[i].fd, blobs[i].sums_fd, &blobs[i].id, e), 0);
        table[i].bytes = (uint64_t)n[i] * MEMORY_PAGE;
        memcpy(table[i].uuid, blobs[i].id.bytes, UUID_BYTES);
    }
    assert_int_equal(memory_map_write_end(&w, table, 2, e), 0);
}

static int write_golden(const char *path)
{
    struct generation_manifest m = golden;
    struct fixture f = {.dirfd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC)};
    struct generation_blob device;
    struct generation_draft *d;
    struct uuid layer;
    struct err e = {0};
    char id[UUID_TEXT + 1];
    assert_true(f.dirfd >= 0);
    reopen(&f);
    d = generation_draft_new(f.store, &m, &e);
    assert_non_null(d);
    memcpy(m.parent.bytes, "parent-of-golden", UUID_BYTES);
    write_memory(d, &e);
    assert_int_equal(generation_draft_blob(d, &device, &e), 0);
    assert_int_equal(pwrite(device.fd, "device state", 12, 0), 12);
    assert_int_equal(generation_draft_set_state(d, &device, &e), 0);
    make_layer_file(&f, "layer", 'L', 1000);
    assert_int_equal(generation_draft_add_layer_file(d, f.dirfd, "layer", &layer, &e), 0);
    assert_int_equal(generation_draft_commit(d, &m, test_secret, &e), 0);
    (void)generation_draft_free(d);
    generation_store_close(f.store);
    assert_int_equal(unlinkat(f.dirfd, "layer", 0), 0);
    (void)close(f.dirfd);
    uuid_format(&m.id, id);
    (void)printf("%s\n", id);
    return 0;
}

/* --- reading --- */

static const char *golden_dir;

static void copy_file(int from, int to, const char *name)
{
    AUTO_BUF struct buf bytes = BUF_INIT(1 << 20);
    struct err e = {0};
    assert_int_equal(io_read_file(from, name, &bytes, &e), 0);
    assert_int_equal(io_replace_file(to, name, bytes.p, bytes.len, 0400, &e), 0);
}

/* Opening sweeps, so a copy is opened. */
static void copy_folder(int from, int to, const char *path)
{
    AUTO_CLOSE int source = openat(from, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    AUTO_CLOSE int target = -1;
    const struct dirent *entry;
    DIR *d;
    (void)mkdirat(to, path, 0700);
    target = openat(to, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    assert_true(source >= 0 && target >= 0);
    d = fdopendir(fcntl(source, F_DUPFD_CLOEXEC, 0));
    assert_non_null(d);
    while ((entry = readdir(d)))
        if (entry->d_type != DT_DIR)
            copy_file(source, target, entry->d_name);
    (void)closedir(d);
}

static void copy_golden(struct fixture *f, struct uuid *ret)
{
    AUTO_CLOSE int from = open(golden_dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    char path[128];
    assert_true(from >= 0);
    assert_true(uuid_parse(slice_cstr(golden_id), ret));
    path_of(path, "generations", ret, "");
    copy_folder(from, f->dirfd, "blobs");
    copy_folder(from, f->dirfd, path);
    reopen(f);
}

static void expect_text(int fd, const char *want)
{
    char got[64] = "";
    assert_int_equal(pread(fd, got, sizeof got - 1, 0), strlen(want));
    assert_string_equal(got, want);
}

static void test_wakes(void **state)
{
    struct fixture *f = *state;
    struct generation_manifest want = golden;
    struct generation *g;
    struct uuid id;
    char layer[1001];
    copy_golden(f, &id);
    g = open_ok(f, &id);
    want.id = id;
    memcpy(want.parent.bytes, "parent-of-golden", UUID_BYTES);
    assert_memory_equal(&g->manifest, &want, sizeof want);
    assert_string_equal(g->secret, test_secret);
    assert_int_equal(g->n_blobs, 2);
    assert_int_equal(g->n_layers, 1);
    assert_int_equal(g->map_entries, 9);
    for (unsigned i = 0; i < PAGES; i++)
        expect_page(g, i, (char)(pages[i] == '.' ? 0 : pages[i]));
    expect_text(g->state_fd, "device state");
    assert_int_equal(pread(g->layer_fds[0], layer, sizeof layer, 0), 1000);
    for (int i = 0; i < 1000; i++)
        assert_int_equal(layer[i], 'L');
    (void)generation_close(g);
}

static void refused_later(struct fixture *f, const char *name, const char *text, const char *why)
{
    struct err e = {0};
    struct uuid id;
    char path[128];
    copy_golden(f, &id);
    path_of(path, "generations", &id, name);
    assert_int_equal(io_replace_file(f->dirfd, path, text, strlen(text), 0400, &e), 0);
    reopen(f);
    assert_null(generation_open(f->store, &id, &e));
    if (!strstr(e.msg, why))
        fail_msg("%s", e.msg);
}

/* What a later version wrote is refused with the reason, and kept. */
static void test_later_versions(void **state)
{
    struct fixture *f = *state;
    refused_later(f, "/manifest.json", "{\"format\":2}", "format 2, this program knows 1");
    refused_later(f, "/layout.json", "{\"format\":2}", "format 2, this program knows 1");
    assert_int_equal(generation_store_collect(f->store, &(struct err){0}), 0);
    assert_int_equal(count_names(f, "blobs"), 8);
}

static void test_later_map(void **state)
{
    const uint16_t version = MEMORY_MAP_VERSION + 1;
    struct fixture *f = *state;
    struct uuid id;
    struct err e = {0};
    char path[128];
    int fd;
    copy_golden(f, &id);
    path_of(path, "generations", &id, "/memory.map");
    assert_int_equal(fchmodat(f->dirfd, path, 0600, 0), 0);
    fd = openat(f->dirfd, path, O_RDWR | O_CLOEXEC);
    assert_int_equal(pwrite(fd, &version, sizeof version, 8), sizeof version);
    (void)close(fd);
    assert_null(generation_open(f->store, &id, &e));
    assert_int_equal(e.kind, ERR_UNSUPPORTED);
    assert_non_null(strstr(e.msg, "version 2, this program knows 1"));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        TEST(test_wakes), TEST(test_later_versions), TEST(test_later_map)};
    if (argc == 3)
        return write_golden(argv[2]);
    golden_dir = argc > 1 ? argv[1] : ".";
    return cmocka_run_group_tests(tests, NULL, NULL);
}
