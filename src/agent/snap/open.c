/* SPDX-License-Identifier: Apache-2.0 */
/* Reading generations: opening one with all its files, its manifest, its size, its hints. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "agent/snap/generations_int.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/io.h"
#include "base/rand.h"
#include "snap/memory_map.h"
#include "snap/working_set.h"

/* What generation_open gives out, and the names that it holds. */
struct open_generation {
    struct generation g; /* first */
    struct layout *held;
};

/* A generation without one of its files is damaged, not unknown. */
static int damaged(struct err *e)
{
    if (e->kind == ERR_NOT_FOUND || e->kind == ERR_TOO_LARGE)
        e->kind = ERR_INVALID;
    return -1;
}

static int read_secret(int folder, char dst[GENERATION_SECRET_CHARS + 1], struct err *e)
{
    AUTO_BUF struct buf text = BUF_INIT(GENERATION_SECRET_CHARS);
    if (io_read_file(folder, "secret", &text, e) < 0)
        return damaged(e);
    if (text.len != GENERATION_SECRET_CHARS ||
        !slice_copy_cstr(buf_slice(&text), dst, GENERATION_SECRET_CHARS + 1))
        return err_set(e, ERR_INVALID, "secret: has the wrong length");
    return 0;
}

static int read_folder(struct open_generation *o, const struct uuid *id, struct err *e)
{
    struct generation *g = &o->g;
    AUTO_CLOSE int folder = open_generation_folder(g->store, id, e);
    if (folder < 0 || manifest_read(folder, &g->manifest, e) < 0)
        return damaged(e);
    if (!uuid_equal(&g->manifest.id, id) || g->manifest.has_memory != (o->held->map[0] != '\0'))
        return err_set(e, ERR_INVALID, "manifest.json: of another generation");
    return read_secret(folder, g->secret, e);
}

/* The map must name just the blobs that the layout says are its. */
static int compare_map(const struct memory_map *m, const struct layout *l, struct err *e)
{
    if (m->n_blobs != l->n_memory)
        return err_set(e, ERR_INVALID, "memory map: not the one of the layout");
    for (size_t i = 0; i < m->n_blobs; i++)
        if (memcmp(m->blobs[i].uuid, l->refs[i].id.bytes, UUID_BYTES) != 0 ||
            m->blobs[i].bytes != l->refs[i].bytes)
            return err_set(e, ERR_INVALID, "memory map: not the one of the layout");
    return 0;
}

static int check_map(struct open_generation *o, struct err *e)
{
    struct memory_map m = {0};
    void *bytes;
    size_t n;
    int rc;
    if (o->g.map_fd < 0)
        return 0;
    if (file_map(o->g.map_fd, &bytes, &n, e) < 0)
        return -1;
    rc = memory_map_parse(bytes, n, &m, e);
    if (rc == 0)
        rc = compare_map(&m, o->held, e);
    o->g.map_entries = m.n_entries;
    if (bytes)
        (void)munmap(bytes, n);
    return rc;
}

static int open_blobs(struct open_generation *o, struct err *e)
{
    struct generation *g = &o->g;
    const struct layout *l = o->held;
    for (; g->n_blobs < l->n_memory; g->n_blobs++) {
        g->blobs[g->n_blobs] = l->refs[g->n_blobs].id;
        g->blob_fds[g->n_blobs] = blob_open(g->store, &l->refs[g->n_blobs], e);
        if (g->blob_fds[g->n_blobs] < 0)
            return -1;
    }
    for (; g->n_layers < l->n_layers; g->n_layers++) {
        g->layers[g->n_layers] = layout_layers(l)[g->n_layers].id;
        g->layer_fds[g->n_layers] = blob_open(g->store, &layout_layers(l)[g->n_layers], e);
        if (g->layer_fds[g->n_layers] < 0)
            return -1;
    }
    if (l->n_state > 0)
        g->state_fd = blob_open(g->store, &layout_layers(l)[l->n_layers], e);
    return l->n_state > 0 && g->state_fd < 0 ? -1 : 0;
}

static int hints_folder(const struct generation_store *s, const struct uuid *id, struct err *e)
{
    char name[UUID_TEXT + 1];
    uuid_format(id, name);
    return open_folder(s->hints_fd, name, e);
}

/* A hint may be lost: no failure here counts. */
static int open_hints(const struct generation_store *s, const struct uuid *id)
{
    struct err e = {0};
    AUTO_CLOSE int folder = hints_folder(s, id, &e);
    return folder < 0 ? -1 : open_plain(folder, "working-set", &e);
}

struct generation *generation_open(struct generation_store *s, const struct uuid *id, struct err *e)
{
    char name[UUID_TEXT + 1];
    struct open_generation *o = calloc(1, sizeof *o);
    if (!o) {
        (void)err_set(e, ERR_NOMEM, "out of memory");
        return NULL;
    }
    o->g.store = s;
    o->g.map_fd = o->g.state_fd = o->g.hints_fd = -1;
    if (store_hold_generation(s, id, &o->held, &o->g.map_fd, e) < 0 || read_folder(o, id, e) < 0 ||
        check_map(o, e) < 0 || open_blobs(o, e) < 0) {
        uuid_format(id, name);
        (void)err_wrap(e, "generation %s", name);
        return generation_close(&o->g);
    }
    o->g.hints_fd = open_hints(s, id);
    return &o->g;
}

static void close_fd(int *fd)
{
    if (*fd >= 0)
        (void)close(*fd);
    *fd = -1;
}

void generation_close_files(struct generation *g)
{
    close_fd(&g->map_fd);
    close_fd(&g->state_fd);
    close_fd(&g->hints_fd);
    for (size_t i = 0; i < g->n_blobs; i++)
        close_fd(&g->blob_fds[i]);
    for (size_t i = 0; i < g->n_layers; i++)
        close_fd(&g->layer_fds[i]);
}

struct generation *generation_close(struct generation *g)
{
    struct open_generation *o = (struct open_generation *)(void *)g;
    if (!o)
        return NULL;
    generation_close_files(g);
    store_release_layout(g->store, o->held);
    explicit_bzero(g->secret, sizeof g->secret);
    free(o);
    return NULL;
}

int generation_read(struct generation_store *s, const struct uuid *id,
    struct generation_manifest *ret, struct err *e)
{
    AUTO_CLOSE int folder = -1;
    struct generation_manifest m;
    {
        MUTEX_GUARD(&s->lock);
        if (!store_find(s, id, e))
            return -1;
    }
    folder = open_generation_folder(s, id, e);
    if (folder < 0)
        return -1;
    if (manifest_read(folder, &m, e) < 0)
        return damaged(e);
    if (!uuid_equal(&m.id, id))
        return err_set(e, ERR_INVALID, "manifest.json: of another generation");
    *ret = m;
    return 0;
}

/* --- sizes --- */

static int add_size(int dirfd, const char *name, uint64_t *bytes, struct err *e)
{
    struct stat st;
    if (fstatat(dirfd, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
        return err_sys(e, errno, "stat %s", name);
    *bytes += (uint64_t)st.st_blocks * 512; /* the unit of st_blocks, whatever the file system's */
    return 0;
}

static int add_blob_sizes(
    const struct generation_store *s, const struct layout *l, uint64_t *bytes, struct err *e)
{
    for (size_t i = 0; i < layout_n_refs(l); i++) {
        char name[BLOB_NAME_MAX];
        blob_name(&l->refs[i].id, name);
        if (add_size(s->blobs_fd, name, bytes, e) < 0)
            return damaged(e);
        blob_sums_name(&l->refs[i].id, name);
        if (add_size(s->blobs_fd, name, bytes, e) < 0)
            return damaged(e);
    }
    return 0;
}

static int add_folder_sizes(const struct generation_store *s, const struct uuid *id, int map_fd,
    uint64_t *bytes, struct err *e)
{
    static const char *const names[] = {"manifest.json", "layout.json", "secret"};
    struct stat st;
    AUTO_CLOSE int folder = open_generation_folder(s, id, e);
    if (folder < 0)
        return damaged(e);
    for (size_t i = 0; i < ARRAY_LEN(names); i++)
        if (add_size(folder, names[i], bytes, e) < 0)
            return damaged(e);
    if (map_fd >= 0 && fstat(map_fd, &st) == 0)
        *bytes += (uint64_t)st.st_blocks * 512;
    return 0;
}

int generation_size(
    struct generation_store *s, const struct uuid *id, uint64_t *ret_bytes, struct err *e)
{
    struct layout *l;
    uint64_t bytes = 0;
    AUTO_CLOSE int map_fd = -1;
    int rc;
    if (store_hold_generation(s, id, &l, &map_fd, e) < 0)
        return -1;
    rc = add_blob_sizes(s, l, &bytes, e);
    if (rc == 0)
        rc = add_folder_sizes(s, id, map_fd, &bytes, e);
    store_release_layout(s, l);
    if (rc == 0)
        *ret_bytes = bytes;
    return rc;
}

/* --- hints --- */

int generation_hints_begin(
    struct generation_store *s, const struct uuid *id, int *ret_fd, struct err *e)
{
    int fd;
    {
        MUTEX_GUARD(&s->lock);
        if (!store_find(s, id, e))
            return -1;
    }
    /* In memory until it is whole: two restores may record at once, and a crash leaves nothing. */
    fd = memfd_create("working-set", MFD_CLOEXEC);
    if (fd < 0)
        return err_sys(e, errno, "make a file for the working set");
    *ret_fd = fd;
    return 0;
}

static int check_working_set(int fd, void **ret, size_t *ret_n, struct err *e)
{
    struct working_set set;
    if (file_map(fd, ret, ret_n, e) < 0)
        return -1;
    if (working_set_parse(*ret, *ret_n, &set, e) == 0)
        return 0;
    if (*ret)
        (void)munmap(*ret, *ret_n);
    return -1;
}

/* Whoever reads sees the old or the new one. Not synced: a hint may be lost. */
static int replace_hints(int folder, struct slice contents, struct err *e)
{
    char aside[32] = "working-set.";
    AUTO_CLOSE int fd = -1;
    rand_base32(aside + strlen(aside), 8);
    fd = file_create(folder, aside, contents, 0600, e);
    if (fd >= 0 && renameat(folder, aside, folder, "working-set") == 0)
        return 0;
    if (fd >= 0)
        (void)err_sys(e, errno, "rename to working-set");
    (void)unlinkat(folder, aside, 0);
    return -1;
}

int generation_hints_end(struct generation_store *s, const struct uuid *id, int fd, struct err *e)
{
    char name[UUID_TEXT + 1];
    AUTO_CLOSE int folder = -1;
    void *bytes;
    size_t n;
    int rc;
    {
        MUTEX_GUARD(&s->lock);
        if (!store_find(s, id, e))
            return -1;
    }
    uuid_format(id, name);
    if (mkdirat(s->hints_fd, name, 0700) < 0 && errno != EEXIST)
        return err_sys(e, errno, "make folder of hints");
    folder = hints_folder(s, id, e);
    if (folder < 0 || check_working_set(fd, &bytes, &n, e) < 0)
        return -1;
    rc = replace_hints(folder, slice_of(bytes, n), e);
    (void)munmap(bytes, n);
    return rc;
}

void generation_hints_inherit(
    struct generation_store *s, const struct uuid *from, const struct uuid *to)
{
    char name[UUID_TEXT + 1];
    struct err ignored = {0};
    AUTO_CLOSE int source = hints_folder(s, from, &ignored);
    AUTO_CLOSE int folder = -1;
    if (source < 0)
        return;
    uuid_format(to, name);
    if (mkdirat(s->hints_fd, name, 0700) < 0)
        return;
    folder = hints_folder(s, to, &ignored);
    if (folder >= 0)
        (void)linkat(source, "working-set", folder, "working-set", 0);
}
