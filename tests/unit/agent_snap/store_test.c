/* SPDX-License-Identifier: Apache-2.0 */
#include "store_test.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/io.h"
#include "snap/checksum.h"
#include "snap/memory_map.h"

const char test_secret[GENERATION_SECRET_CHARS + 1] =
    "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

int set_up(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);
    assert_non_null(f);
    (void)snprintf(f->dir, sizeof f->dir, "/tmp/torpor-snap-XXXXXX");
    assert_non_null(mkdtemp(f->dir));
    f->dirfd = open(f->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    assert_true(f->dirfd >= 0);
    reopen(f);
    *state = f;
    return 0;
}

int tear_down(void **state)
{
    struct fixture *f = *state;
    struct err e = {0};
    (void)generation_close(f->parent);
    generation_store_close(f->store);
    (void)close(f->dirfd);
    assert_int_equal(io_remove_tree(AT_FDCWD, f->dir, &e), 0);
    free(f);
    return 0;
}

/* Stands for a merge: how many layers there were, and the first byte of each. */
static int merge_layers(const int *layer_fds, size_t n, int out_fd, struct err *e)
{
    char text[GENERATION_LAYERS_MAX + 1] = {(char)('0' + n)};
    for (size_t i = 0; i < n; i++)
        if (pread(layer_fds[i], text + 1 + i, 1, 0) != 1)
            return err_set(e, ERR_IO, "short layer");
    return write(out_fd, text, n + 1) == (ssize_t)n + 1 ? 0 : err_set(e, ERR_IO, "short write");
}

void reopen(struct fixture *f)
{
    const struct generation_store_config config = {
        .dir_fd = f->dirfd, .merge_layers = merge_layers};
    struct err e = {0};
    f->parent = generation_close(f->parent);
    generation_store_close(f->store);
    f->store = generation_store_open(&config, &e);
    if (!f->store)
        fail_msg("%s", e.msg);
}

static void fill_file(int fd, char fill, size_t n)
{
    char page[4096];
    memset(page, fill, sizeof page);
    for (size_t at = 0; at < n; at += sizeof page) {
        size_t piece = n - at < sizeof page ? n - at : sizeof page;
        assert_int_equal(pwrite(fd, page, piece, (off_t)at), piece);
    }
}

void make_layer_file(const struct fixture *f, const char *name, char fill, size_t n)
{
    /* It may be a frozen layer by now. */
    int gone = unlinkat(f->dirfd, name, 0);
    AUTO_CLOSE int fd = openat(f->dirfd, name, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0640);
    (void)gone; /* or was not there */
    assert_true(fd >= 0);
    assert_int_equal(fchmod(fd, 0640), 0);
    fill_file(fd, fill, n);
}

static int add_blob(
    struct generation_draft *d, char fill, size_t n, struct generation_blob *ret, struct err *e)
{
    if (generation_draft_blob(d, ret, e) < 0)
        return -1;
    fill_file(ret->fd, fill, n);
    return 0;
}

/* All memory in the new blob, or only the first page and the rest as the parent has it. */
static int write_map(struct fixture *f, int fd, const struct generation_blob *blob, struct err *e)
{
    struct memory_map_blob table[MEMORY_MAP_BLOBS_MAX] = {
        {.bytes = f->parent ? MEMORY_PAGE : TEST_PAGES * MEMORY_PAGE}};
    struct memory_map_writer w;
    struct memory_map m;
    void *old;
    int rc = 0;
    off_t n;
    unsigned page = f->page;
    memcpy(table[0].uuid, blob->id.bytes, UUID_BYTES);
    memory_map_writer_init(&w, fd, TEST_PAGES * MEMORY_PAGE);
    if (!f->parent) {
        assert_int_equal(memory_map_write(&w, TEST_PAGES * MEMORY_PAGE, 1, 0, e), 0);
        return memory_map_write_end(&w, table, 1, e);
    }
    n = lseek(f->parent->map_fd, 0, SEEK_END);
    old = mmap(NULL, (size_t)n, PROT_READ, MAP_PRIVATE, f->parent->map_fd, 0);
    assert_true(old != MAP_FAILED);
    assert_int_equal(memory_map_parse(old, (size_t)n, &m, e), 0);
    for (unsigned i = 0; i < TEST_PAGES; i++) {
        const struct memory_map_entry *en = memory_map_find(&m, (uint64_t)i * MEMORY_PAGE);
        uint64_t within = (uint64_t)i * MEMORY_PAGE - en->offset;
        uint32_t index = i == page ? 1 : en->blob == 0 ? 0 : en->blob + 1;
        uint64_t at = i == page || en->blob == 0 ? 0 : en->blob_offset + within;
        assert_int_equal(memory_map_write(&w, MEMORY_PAGE, index, at, e), 0);
    }
    memcpy(&table[1], m.blobs, m.n_blobs * sizeof table[0]);
    rc = memory_map_write_end(&w, table, m.n_blobs + 1, e);
    (void)munmap(old, (size_t)n);
    return rc;
}

static int fill_draft(struct fixture *f, struct generation_draft *d, char fill, struct err *e)
{
    struct generation_blob memory;
    struct generation_blob state;
    struct uuid layer;
    int map_fd;
    if (add_blob(d, fill, f->parent ? MEMORY_PAGE : TEST_PAGES * MEMORY_PAGE, &memory, e) < 0)
        return -1;
    if (checksum_file(memory.fd, memory.sums_fd, &memory.id, e) < 0)
        return -1;
    if (generation_draft_map(d, &map_fd, e) < 0 || write_map(f, map_fd, &memory, e) < 0)
        return -1;
    if (add_blob(d, 's', 100, &state, e) < 0 || generation_draft_set_state(d, &state, e) < 0)
        return -1;
    for (size_t i = 0; f->parent && i < f->parent->n_layers; i++)
        if (generation_draft_add_layer(d, &f->parent->layers[i], e) < 0)
            return -1;
    make_layer_file(f, "layer", fill, f->parent ? 50 : 5000);
    return generation_draft_add_layer_file(d, f->dirfd, "layer", &layer, e);
}

int make_generation(struct fixture *f, char fill, struct uuid *ret, struct err *e)
{
    struct generation_manifest m = {.has_memory = true, .disk_bytes = 1 << 30};
    struct generation_draft *d = generation_draft_new(f->store, &m, e);
    int rc = -1;
    if (d && fill_draft(f, d, fill, e) == 0)
        rc = generation_draft_commit(d, &m, test_secret, e);
    (void)generation_draft_free(d);
    if (rc == 0)
        *ret = m.id;
    return rc;
}

int make_disk_generation(struct fixture *f, char fill, struct uuid *ret, struct err *e)
{
    struct generation_manifest m = {.disk_bytes = 1 << 30};
    struct generation_draft *d = generation_draft_new(f->store, &m, e);
    struct uuid layer;
    int rc = -1;
    make_layer_file(f, "layer", fill, 5000);
    if (d && generation_draft_add_layer_file(d, f->dirfd, "layer", &layer, e) == 0)
        rc = generation_draft_commit(d, &m, test_secret, e);
    (void)generation_draft_free(d);
    if (rc == 0)
        *ret = m.id;
    return rc;
}

size_t count_names(const struct fixture *f, const char *folder)
{
    int fd = openat(f->dirfd, folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *d = fd < 0 ? NULL : fdopendir(fd);
    const struct dirent *entry;
    size_t n = 0;
    assert_non_null(d);
    while ((entry = readdir(d)))
        n += entry->d_name[0] != '.';
    (void)closedir(d);
    return n;
}

void expect_page(const struct generation *g, unsigned page, char fill)
{
    off_t n = lseek(g->map_fd, 0, SEEK_END);
    void *bytes = mmap(NULL, (size_t)n, PROT_READ, MAP_PRIVATE, g->map_fd, 0);
    const struct memory_map_entry *en;
    struct memory_map m;
    struct err e = {0};
    char got[MEMORY_PAGE] = {0};
    char want[MEMORY_PAGE];
    memset(want, fill, sizeof want);
    assert_true(bytes != MAP_FAILED);
    assert_int_equal(memory_map_parse(bytes, (size_t)n, &m, &e), 0);
    assert_int_equal(m.n_entries, g->map_entries);
    en = memory_map_find(&m, (uint64_t)page * MEMORY_PAGE);
    if (en->blob > 0) {
        off_t at = (off_t)(en->blob_offset + (uint64_t)page * MEMORY_PAGE - en->offset);
        assert_memory_equal(m.blobs[en->blob - 1].uuid, g->blobs[en->blob - 1].bytes, UUID_BYTES);
        assert_int_equal(pread(g->blob_fds[en->blob - 1], got, sizeof got, at), sizeof got);
    }
    assert_memory_equal(got, want, sizeof want);
    (void)munmap(bytes, (size_t)n);
}

struct generation *open_ok(const struct fixture *f, const struct uuid *id)
{
    struct err e = {0};
    struct generation *g = generation_open(f->store, id, &e);
    if (!g)
        fail_msg("%s", e.msg);
    return g;
}

void path_of(char *dst, const char *folder, const struct uuid *id, const char *suffix)
{
    char text[UUID_TEXT + 1];
    uuid_format(id, text);
    (void)snprintf(dst, 128, "%s/%s%s", folder, text, suffix);
}
