/* SPDX-License-Identifier: Apache-2.0 */
/* What there must be: sandboxes, templates, files. */
#include <dirent.h>
#include <endian.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/io.h"
#include "base/uuid.h"
#include "scenes.h"
#include "snap/checksum.h"

enum { TEXT_MAX = 1 << 20 };

/* Follows the header to the reference counts. */
int check_disk(int fd, struct err *e)
{
    enum { TABLE_OFFSET = 48 }; /* in the header */
    char head[4];
    uint64_t at = 0;
    uint16_t count = 0;
    if (io_read_at(fd, head, sizeof head, 0, e) != (ssize_t)sizeof head ||
        memcmp(head, "QFI\xfb", sizeof head) != 0)
        return err_set(e, ERR_INTERNAL, "no header");
    if (io_read_at(fd, &at, sizeof at, TABLE_OFFSET, e) != (ssize_t)sizeof at || at == 0 ||
        io_read_at(fd, &at, sizeof at, be64toh(at), e) != (ssize_t)sizeof at || at == 0 ||
        io_read_at(fd, &count, sizeof count, be64toh(at), e) != (ssize_t)sizeof count || count == 0)
        return err_set(e, ERR_INTERNAL, "no reference counts");
    return 0;
}

bool outcome_is(struct fixture *f, const struct sandbox_id *id, const struct outcome *o)
{
    const struct found found = look(f, id);
    const struct journal_entry *now = &found.info.entry;
    switch (o->fate) {
    case ABSENT:
        return found.matches == 0;
    case BOOTS:
        return found.matches == 1 && now->state.status == SANDBOX_STOPPED && !now->owns_generation;
    case RESTORES:
        return found.matches == 1 && now->state.status == SANDBOX_STOPPED && now->owns_generation;
    case SLEEPS:
        return found.matches == 1 && now->state.status == SANDBOX_PAUSED;
    }
    return false;
}

void outcome_check(struct fixture *f, const struct sandbox_id *id, const struct outcome *o)
{
    struct life_resume r = resume_request(id);
    struct life_info info;
    struct phases phases;
    struct err e = {0};
    if (o->fate == ABSENT)
        return;
    r.from_last = o->fate == RESTORES;
    r.disk_only = o->fate == BOOTS;
    if (life_resume(f->life, &r, &info, &phases, &e) < 0)
        fail_msg("it does not wake: %s", e.msg);
    assert_int_equal(count_in(f, id), o->count + 1);
    (void)pause_ok(f, id);
    (void)resume_ok(f, id);
    assert_int_equal(count_in(f, id), o->count + 2);
}

bool has_template(struct fixture *f, const struct template_id *id)
{
    char path[256];
    (void)snprintf(path, sizeof path, "%s/templates/%s.json", f->dir, id->text);
    return access(path, F_OK) == 0;
}

void template_check(struct fixture *f, const struct template_id *id, int count)
{
    const struct snapshot s = {.id = *id};
    struct sandbox_id spawned = spawn_ok(f, &s);
    assert_int_equal(count_in(f, &spawned), count + 1);
    destroy_ok(f, &spawned);
}

/* --- files --- */

/* Calls `each` with every name in a folder. */
static void each_file(
    const char *folder, void (*each)(void *ctx, int dirfd, const char *name), void *ctx)
{
    DIR *d = opendir(folder);
    const struct dirent *entry;
    if (!d)
        return;
    while ((entry = readdir(d)))
        if (entry->d_name[0] != '.')
            each(ctx, dirfd(d), entry->d_name);
    (void)closedir(d);
}

/* Everything that may name something, one after the other. */
struct texts {
    struct buf names; /* of generations: sandboxes, templates, warm starts */
    struct buf layouts;
    const char *dir;
};

static void add_text(void *ctx, int dirfd, const char *name)
{
    struct err e = {0};
    if (io_read_file(dirfd, name, ctx, &e) < 0)
        fail_msg("%s: %s", name, e.msg);
}

static void add_state(void *ctx, int dirfd, const char *name)
{
    char path[320];
    (void)snprintf(path, sizeof path, "%s/state.json", name);
    add_text(ctx, dirfd, path);
}

static bool names(struct buf *text, const char *what, size_t n)
{
    return text->len >= n && memmem(text->p, text->len, what, n);
}

static void check_generation(void *ctx, int dirfd, const char *name)
{
    struct texts *t = ctx;
    char path[320];
    if (!names(&t->names, name, strlen(name)))
        fail_msg("nobody names generation %s", name);
    (void)snprintf(path, sizeof path, "%s/layout.json", name);
    add_text(&t->layouts, dirfd, path);
}

static void check_hints(void *ctx, int dirfd, const char *name)
{
    struct texts *t = ctx;
    if (!names(&t->names, name, strlen(name)))
        fail_msg("hints of generation %s, which nobody names", name);
}

static char *read_whole(int dirfd, const char *name, size_t *ret_n)
{
    AUTO_CLOSE int fd = openat(dirfd, name, O_RDONLY | O_CLOEXEC);
    struct stat st;
    char *p;
    if (fd < 0 || fstat(fd, &st) < 0)
        fail_msg("%s is not there", name);
    p = calloc(1, (size_t)st.st_size + 8);
    assert_int_equal(read(fd, p, (size_t)st.st_size), st.st_size);
    *ret_n = (size_t)st.st_size;
    return p;
}

/* The bytes are those of the sums. */
static void check_sums(int dirfd, const char *name)
{
    char sums_name[UUID_TEXT + 8];
    struct checksums c;
    struct err e = {0};
    size_t n_sums;
    size_t n;
    AUTO_FREE char *bytes = read_whole(dirfd, name, &n);
    AUTO_FREE char *sums = NULL;
    (void)snprintf(sums_name, sizeof sums_name, "%s.crc", name);
    sums = read_whole(dirfd, sums_name, &n_sums);
    if (checksums_parse(sums, n_sums, &c, &e) < 0)
        fail_msg("%s: %s", sums_name, e.msg);
    assert_int_equal(c.blob_bytes, n);
    for (size_t i = 0; i < c.n_sums; i++) {
        size_t at = i * CHECKSUM_BLOCK;
        if (checksums_verify(
                &c, i, bytes + at, n - at < CHECKSUM_BLOCK ? n - at : CHECKSUM_BLOCK, &e) < 0)
            fail_msg("%s: %s", name, e.msg);
    }
}

static void check_blob(void *ctx, int dirfd, const char *name)
{
    struct texts *t = ctx;
    if (strlen(name) < UUID_TEXT || !names(&t->layouts, name, UUID_TEXT))
        fail_msg("no layout names blob %s", name);
    if (strlen(name) == UUID_TEXT)
        check_sums(dirfd, name);
}

static void check_folder(const struct texts *t, const char *name,
    void (*each)(void *ctx, int dirfd, const char *name), const void *ctx)
{
    char path[256];
    (void)snprintf(path, sizeof path, "%s/%s", t->dir, name);
    each_file(path, each, (void *)(uintptr_t)ctx);
}

void assert_no_leaks(const char *data_dir)
{
    struct texts t = {.names = BUF_INIT(TEXT_MAX), .layouts = BUF_INIT(TEXT_MAX), .dir = data_dir};
    check_folder(&t, "sandboxes", add_state, &t.names);
    check_folder(&t, "templates", add_text, &t.names);
    check_folder(&t, "warm", add_text, &t.names);
    check_folder(&t, "generations", check_generation, &t);
    check_folder(&t, "hints", check_hints, &t);
    check_folder(&t, "blobs", check_blob, &t);
    buf_done(&t.names);
    buf_done(&t.layouts);
}

void remove_everything(struct fixture *f)
{
    bool warm = count_files(f, "warm") > 0;
    destroy_ok(f, &cast.id);
    destroy_ok(f, &cast.other);
    delete_snapshot_ok(f, &cast.a);
    delete_snapshot_ok(f, &cast.b);
    assert_int_equal(count_files(f, "sandboxes"), 0);
    assert_int_equal(count_files(f, "templates"), 0);
    assert_no_leaks(f->dir);
    if (warm)
        return;
    assert_int_equal(count_files(f, "generations"), 0);
    assert_int_equal(count_files(f, "blobs"), 0);
    assert_int_equal(count_files(f, "hints"), 0);
    assert_int_equal(fakes.slots_taken, 0);
    assert_int_equal(fakes.vmms_running, 0);
}
