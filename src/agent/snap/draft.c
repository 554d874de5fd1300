/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Drafts: generations under way.
 *
 * Theory of operation: the folder is "<uuid>.draft" until everything in it and every blob that it
 * names is on the disk; the rename to "<uuid>" is the commit. The blobs that a draft makes or names
 * are held from the first moment, so that no collection takes them. A draft that ends without a
 * commit takes back what it did in reverse and touches nothing else. One thread at a time uses a
 * draft.
 */
#define LOG_MODULE "generations"
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "agent/snap/generations_int.h"
#include "base/cleanup.h"
#include "base/io.h"
#include "base/log.h"
#include "snap/checksum.h"
#include "snap/memory_map.h"

enum {
    DRAFT_BLOBS_MAX = 24, /* memory and state, and a layer for each GENERATION_LAYERS_MAX */
    /* Each blob with its sums; map, manifest, layout, secret; three folders less one. */
    SYNCS_MAX = 2 * DRAFT_BLOBS_MAX + 6,
};

/* A blob that this draft made. */
struct draft_blob {
    struct uuid id;
    int fd;
    int sums_fd;
    int source_dirfd; /* of a layer file that may be taken back; else -1 */
    struct stat source;
};

struct generation_draft {
    struct generation_store *store;
    struct uuid id;
    char name[UUID_TEXT + sizeof ".draft"];
    int folder; /* -1 when it was not made */
    int map_fd;
    size_t n_blobs;
    struct draft_blob blobs[DRAFT_BLOBS_MAX];
    size_t n_layers;
    struct uuid layers[GENERATION_LAYERS_MAX];
    size_t n_named;
    struct uuid named[GENERATION_LAYERS_MAX]; /* layers that were there before: held */
    struct uuid state;
    bool committed;
};

static const char map_name[] = "memory.map";

static int make_draft_folder(struct generation_draft *d, struct err *e)
{
    int dirfd = d->store->generations_fd;
    if (mkdirat(dirfd, d->name, 0700) < 0)
        return err_sys(e, errno, "make folder %s", d->name);
    d->folder = open_folder(dirfd, d->name, e);
    if (d->folder < 0)
        (void)unlinkat(dirfd, d->name, AT_REMOVEDIR);
    return d->folder < 0 ? -1 : 0;
}

struct generation_draft *generation_draft_new(
    struct generation_store *s, struct generation_manifest *manifest, struct err *e)
{
    char id[UUID_TEXT + 1];
    struct generation_draft *d = calloc(1, sizeof *d);
    if (!d) {
        (void)err_set(e, ERR_NOMEM, "out of memory");
        return NULL;
    }
    d->store = s;
    d->folder = d->map_fd = -1;
    uuid_new(&d->id);
    uuid_format(&d->id, id);
    (void)snprintf(d->name, sizeof d->name, "%s.draft", id);
    if (make_draft_folder(d, e) < 0)
        return generation_draft_free(d);
    manifest->id = d->id;
    return d;
}

/* --- blobs --- */

/* Undoes the making of a blob: names, files, and what a layer file was before. */
static void take_back_blob(struct generation_draft *d, const struct draft_blob *b)
{
    const struct blob_ref ref = {.id = b->id};
    if (b->source_dirfd >= 0) {
        if (fchown(b->fd, b->source.st_uid, b->source.st_gid) < 0 ||
            fchmod(b->fd, b->source.st_mode & 07777) < 0)
            log_warn("cannot give a disk layer back: %s", strerror(errno));
    }
    /* Even when nothing may be collected: nobody else can know a blob of a draft. */
    store_remove_blob(d->store, &b->id);
    store_release(d->store, &ref, 1);
}

static void close_blob(const struct draft_blob *b)
{
    if (b->fd >= 0)
        (void)close(b->fd);
    if (b->sums_fd >= 0)
        (void)close(b->sums_fd);
    if (b->source_dirfd >= 0)
        (void)close(b->source_dirfd);
}

/* Names a new blob, and makes the file of its sums. It counts from here on. */
static struct draft_blob *begin_blob(struct generation_draft *d, struct err *e)
{
    struct draft_blob *b = &d->blobs[d->n_blobs];
    char name[BLOB_NAME_MAX];
    if (d->n_blobs == DRAFT_BLOBS_MAX) {
        (void)err_set(e, ERR_TOO_LARGE, "a generation makes at most %d blobs", DRAFT_BLOBS_MAX);
        return NULL;
    }
    *b = (struct draft_blob){.fd = -1, .sums_fd = -1, .source_dirfd = -1};
    uuid_new(&b->id);
    {
        MUTEX_GUARD(&d->store->lock);
        if (store_hold_blob(d->store, &b->id, /* ref_or_null= */ NULL, e) < 0)
            return NULL;
    }
    d->n_blobs++;
    blob_sums_name(&b->id, name);
    b->sums_fd = file_create(d->store->blobs_fd, name, SLICE_LIT(""), 0400, e);
    return b->sums_fd < 0 ? NULL : b;
}

/* The last blob came to nothing. */
static int abort_blob(struct generation_draft *d)
{
    const struct draft_blob *b = &d->blobs[--d->n_blobs];
    take_back_blob(d, b);
    close_blob(b);
    return -1;
}

int generation_draft_blob(struct generation_draft *d, struct generation_blob *ret, struct err *e)
{
    char name[BLOB_NAME_MAX];
    size_t n_before = d->n_blobs;
    struct draft_blob *b = begin_blob(d, e);
    if (b) {
        blob_name(&b->id, name);
        b->fd = file_create(d->store->blobs_fd, name, SLICE_LIT(""), 0400, e);
    }
    if (!b || b->fd < 0)
        return d->n_blobs > n_before ? abort_blob(d) : -1;
    *ret = (struct generation_blob){.id = b->id, .fd = b->fd, .sums_fd = b->sums_fd};
    return 0;
}

int generation_draft_map(struct generation_draft *d, int *ret_fd, struct err *e)
{
    if (d->map_fd >= 0)
        return err_set(e, ERR_EXISTS, "the draft has a memory map already");
    d->map_fd = file_create(d->folder, map_name, SLICE_LIT(""), 0400, e);
    if (d->map_fd < 0)
        return -1;
    *ret_fd = d->map_fd;
    return 0;
}

static const struct draft_blob *find_own(const struct generation_draft *d, const struct uuid *id)
{
    for (size_t i = 0; i < d->n_blobs; i++)
        if (uuid_equal(&d->blobs[i].id, id))
            return &d->blobs[i];
    return NULL;
}

int generation_draft_set_state(
    struct generation_draft *d, const struct generation_blob *blob, struct err *e)
{
    const struct draft_blob *b = find_own(d, &blob->id);
    if (!b || !uuid_is_none(&d->state))
        return err_set(e, ERR_INVALID, "not a blob of this draft, or a second device state");
    if (checksum_file(b->fd, b->sums_fd, &b->id, e) < 0)
        return err_wrap(e, "device state");
    d->state = b->id;
    return 0;
}

/* --- layers --- */

static int check_layer(const struct generation_draft *d, struct err *e)
{
    if (d->n_layers < GENERATION_LAYERS_MAX)
        return 0;
    return err_set(e, ERR_TOO_LARGE, "a disk has at most %d layers", GENERATION_LAYERS_MAX);
}

int generation_draft_add_layer(struct generation_draft *d, const struct uuid *blob, struct err *e)
{
    if (check_layer(d, e) < 0)
        return -1;
    for (size_t i = 0; i < d->n_layers; i++)
        if (uuid_equal(&d->layers[i], blob))
            return err_set(e, ERR_INVALID, "the disk has that layer already");
    if (!find_own(d, blob)) {
        MUTEX_GUARD(&d->store->lock);
        if (store_hold_again(d->store, blob, e) < 0)
            return -1;
        d->named[d->n_named++] = *blob;
    }
    d->layers[d->n_layers++] = *blob;
    return 0;
}

/* Links the open file itself, not whatever has its name by now. */
static int link_layer(
    const struct generation_draft *d, const struct draft_blob *b, const char *name, struct err *e)
{
    char blob[BLOB_NAME_MAX];
    struct stat st;
    blob_name(&b->id, blob);
    if (linkat(b->source_dirfd, name, d->store->blobs_fd, blob, 0) < 0)
        return err_sys(e, errno, "link %s", name);
    if (fstatat(d->store->blobs_fd, blob, &st, AT_SYMLINK_NOFOLLOW) < 0)
        return err_sys(e, errno, "stat %s", blob);
    if (st.st_ino != b->source.st_ino || st.st_dev != b->source.st_dev)
        return err_set(e, ERR_CONFLICT, "%s was replaced meanwhile", name);
    return 0;
}

static int freeze_layer(
    struct generation_draft *d, struct draft_blob *b, int dirfd, const char *name, struct err *e)
{
    b->fd = open_plain(dirfd, name, e);
    if (b->fd < 0)
        return -1;
    if (fstat(b->fd, &b->source) < 0)
        return err_sys(e, errno, "stat %s", name);
    b->source_dirfd = fcntl(dirfd, F_DUPFD_CLOEXEC, 0);
    if (b->source_dirfd < 0)
        return err_sys(e, errno, "duplicate a descriptor");
    if (link_layer(d, b, name, e) < 0)
        return -1;
    if (fchown(b->fd, geteuid(), getegid()) < 0 || fchmod(b->fd, 0400) < 0)
        return err_sys(e, errno, "make %s root's", name);
    return checksum_file(b->fd, b->sums_fd, &b->id, e);
}

int generation_draft_add_layer_file(
    struct generation_draft *d, int dirfd, const char *name, struct uuid *ret_id, struct err *e)
{
    size_t n_before = d->n_blobs;
    struct draft_blob *b;
    if (check_layer(d, e) < 0)
        return -1;
    if (name[0] == '\0' || strchr(name, '/') || strcmp(name, ".") == 0 || strcmp(name, "..") == 0)
        return err_set(e, ERR_INVALID, "not the name of a file: \"%s\"", name);
    b = begin_blob(d, e);
    if (!b || freeze_layer(d, b, dirfd, name, e) < 0) {
        (void)err_wrap(e, "disk layer");
        return d->n_blobs > n_before ? abort_blob(d) : -1;
    }
    d->layers[d->n_layers++] = b->id;
    *ret_id = b->id;
    return 0;
}

/* --- commit --- */

/* The memory map as the layout sees it. */
struct draft_memory {
    void *bytes;
    size_t n;
    struct memory_map map; /* zeros without memory */
};

static void unmap_memory(struct draft_memory *m)
{
    if (m->bytes)
        (void)munmap(m->bytes, m->n);
}

static int map_memory(const struct generation_draft *d, struct draft_memory *ret, struct err *e)
{
    if (d->map_fd < 0)
        return 0;
    if (file_map(d->map_fd, &ret->bytes, &ret->n, e) < 0)
        return -1;
    return memory_map_parse(ret->bytes, ret->n, &ret->map, e);
}

/* Of a blob that this draft made, or that a layout names already. */
static int make_ref(
    struct generation_draft *d, const struct uuid *id, struct blob_ref *ret, struct err *e)
{
    const struct draft_blob *b = find_own(d, id);
    const struct blob_entry *old;
    char name[BLOB_NAME_MAX];
    if (b)
        return blob_ref_make(id, b->fd, b->sums_fd, ret, e);
    MUTEX_GUARD(&d->store->lock);
    old = (const void *)uuid_table_find(&d->store->blobs, id);
    if (old && old->is_known) {
        *ret = old->ref;
        return 0;
    }
    blob_name(id, name);
    return err_set(e, ERR_INVALID, "there is no blob %s", name);
}

static int fill_memory_refs(
    struct generation_draft *d, const struct memory_map *m, struct blob_ref *refs, struct err *e)
{
    for (size_t i = 0; i < m->n_blobs; i++) {
        struct uuid id;
        memcpy(id.bytes, m->blobs[i].uuid, sizeof id.bytes);
        if (make_ref(d, &id, &refs[i], e) < 0)
            return err_wrap(e, "memory map");
        if (refs[i].bytes != m->blobs[i].bytes)
            return err_set(e, ERR_INVALID, "memory map: blob %zu has another length", i + 1);
    }
    return 0;
}

static int fill_layout(
    struct generation_draft *d, const struct memory_map *m, struct layout *l, struct err *e)
{
    struct blob_ref *layers = l->refs + l->n_memory;
    if (fill_memory_refs(d, m, l->refs, e) < 0)
        return -1;
    for (size_t i = 0; i < l->n_layers; i++)
        if (make_ref(d, &d->layers[i], &layers[i], e) < 0)
            return err_wrap(e, "disk layer");
    if (l->n_state > 0 && make_ref(d, &d->state, &layers[l->n_layers], e) < 0)
        return err_wrap(e, "device state");
    return 0;
}

static int make_layout(struct generation_draft *d, struct layout **ret, struct err *e)
{
    CLEANUP(unmap_memory) struct draft_memory m = {0};
    AUTO_FREE struct layout *l = NULL;
    if (map_memory(d, &m, e) < 0)
        return -1;
    l = layout_new(m.map.n_blobs, d->n_layers, uuid_is_none(&d->state) ? 0 : 1, e);
    if (!l || fill_layout(d, &m.map, l, e) < 0)
        return -1;
    if (d->map_fd >= 0)
        memcpy(l->map, map_name, sizeof map_name);
    *ret = TAKE_PTR(l);
    return 0;
}

struct sync_list {
    int fds[SYNCS_MAX];
    size_t n;
    size_t n_own; /* at the front: descriptors that this list closes */
};

static void close_list(const struct sync_list *l)
{
    for (size_t i = 0; i < l->n_own; i++)
        (void)close(l->fds[i]);
}

static int add_file(const struct generation_draft *d, struct sync_list *l, const char *name,
    struct slice contents, struct err *e)
{
    int fd = file_create(d->folder, name, contents, 0600, e);
    if (fd < 0)
        return -1;
    l->fds[l->n++] = fd;
    l->n_own++;
    return 0;
}

static bool is_in_layout(const struct layout *l, const struct uuid *id)
{
    for (size_t i = 0; i < layout_n_refs(l); i++)
        if (uuid_equal(&l->refs[i].id, id))
            return true;
    return false;
}

/* Everything that the generation consists of, then the folders that name it. */
static int write_all(struct generation_draft *d, const struct layout *layout,
    const struct generation_manifest *manifest, const char *secret, struct err *e)
{
    AUTO_BUF struct buf manifest_text = BUF_INIT(GENERATION_FILE_BYTES_MAX);
    AUTO_BUF struct buf layout_text = BUF_INIT(GENERATION_FILE_BYTES_MAX);
    CLEANUP(close_list) struct sync_list l = {0};
    manifest_write(manifest, &manifest_text);
    layout_write(layout, &layout_text);
    if (manifest_text.failed || layout_text.failed)
        return err_set(e, ERR_NOMEM, "out of memory");
    if (add_file(d, &l, "manifest.json", buf_slice(&manifest_text), e) < 0 ||
        add_file(d, &l, "layout.json", buf_slice(&layout_text), e) < 0 ||
        add_file(d, &l, "secret", slice_cstr(secret), e) < 0)
        return -1;
    if (d->map_fd >= 0)
        l.fds[l.n++] = d->map_fd;
    for (size_t i = 0; i < d->n_blobs; i++) {
        if (!is_in_layout(layout, &d->blobs[i].id))
            continue;
        l.fds[l.n++] = d->blobs[i].fd;
        l.fds[l.n++] = d->blobs[i].sums_fd;
    }
    l.fds[l.n++] = d->folder;
    l.fds[l.n++] = d->store->blobs_fd;
    return files_sync(l.fds, l.n, e);
}

/* The commit: from the rename on it exists, and only when that is durable is it reported. */
static int make_visible(struct generation_draft *d, struct err *e)
{
    int dirfd = d->store->generations_fd;
    char name[UUID_TEXT + 1];
    uuid_format(&d->id, name);
    if (renameat(dirfd, d->name, dirfd, name) < 0)
        return err_sys(e, errno, "rename to %s", name);
    if (fsync(dirfd) == 0)
        return 0;
    (void)err_sys(e, errno, "fsync of the folder of generations");
    (void)renameat(dirfd, name, dirfd, d->name);
    return -1;
}

/* The entry comes first, so that nothing can fail once the generation is on the disk. */
static struct generation_entry *enter_pending(
    struct generation_draft *d, struct layout *l, struct err *e)
{
    struct generation_entry *g = calloc(1, sizeof *g);
    if (!g) {
        (void)err_set(e, ERR_NOMEM, "out of memory");
        return NULL;
    }
    g->node.id = d->id;
    g->pins = 1;
    g->pending = true;
    MUTEX_GUARD(&d->store->lock);
    for (size_t i = 0; i < layout_n_refs(l); i++) {
        /* Between reading the map and now an old blob may have gone: then this is damaged. */
        if (!uuid_table_find(&d->store->blobs, &l->refs[i].id)) {
            (void)err_set(e, ERR_INVALID, "a blob that the draft names is gone");
            free(g);
            return NULL;
        }
    }
    if (store_hold_layout(d->store, l, e) < 0) {
        free(g);
        return NULL;
    }
    g->layout = l;
    uuid_table_insert(&d->store->generations, &g->node);
    return g;
}

static void leave_pending(struct generation_draft *d, struct generation_entry *g)
{
    {
        MUTEX_GUARD(&d->store->lock);
        uuid_table_remove(&d->store->generations, &g->node);
    }
    store_release_layout(d->store, g->layout);
    free(g);
}

static int check_commit(const struct generation_draft *d, const struct generation_manifest *m,
    const char *secret, struct err *e)
{
    if (d->committed || !uuid_equal(&m->id, &d->id))
        return err_set(e, ERR_INVALID, "not the draft of that manifest, or committed already");
    if (strlen(secret) != GENERATION_SECRET_CHARS)
        return err_set(e, ERR_INVALID, "a secret has %d characters", GENERATION_SECRET_CHARS);
    if (m->has_memory != (d->map_fd >= 0) || m->has_memory != !uuid_is_none(&d->state))
        return err_set(e, ERR_INVALID, "memory map and device state come together or not at all");
    return 0;
}

int generation_draft_commit(struct generation_draft *d, const struct generation_manifest *manifest,
    const char secret[GENERATION_SECRET_CHARS + 1], struct err *e)
{
    struct layout *l = NULL;
    struct generation_entry *g;
    if (check_commit(d, manifest, secret, e) < 0 || make_layout(d, &l, e) < 0)
        return err_wrap(e, "commit of a generation");
    g = enter_pending(d, l, e);
    if (!g) {
        free(l);
        return err_wrap(e, "commit of a generation");
    }
    if (write_all(d, l, manifest, secret, e) < 0 || make_visible(d, e) < 0) {
        leave_pending(d, g);
        return err_wrap(e, "commit of a generation");
    }
    MUTEX_GUARD(&d->store->lock);
    g->pending = false;
    d->committed = true;
    return 0;
}

/* What it made but the layout does not name goes now, the rest stays with the layout's count. */
static void release_committed(struct generation_draft *d)
{
    for (size_t i = 0; i < d->n_blobs; i++) {
        const struct blob_ref ref = {.id = d->blobs[i].id};
        store_release(d->store, &ref, 1);
    }
}

struct generation_draft *generation_draft_free(struct generation_draft *d)
{
    struct err e = {0};
    if (!d)
        return NULL;
    if (d->committed)
        release_committed(d);
    for (size_t i = d->n_blobs; !d->committed && i-- > 0;)
        take_back_blob(d, &d->blobs[i]);
    for (size_t i = 0; i < d->n_named; i++) {
        const struct blob_ref ref = {.id = d->named[i]};
        store_release(d->store, &ref, 1);
    }
    for (size_t i = 0; i < d->n_blobs; i++)
        close_blob(&d->blobs[i]);
    if (d->map_fd >= 0)
        (void)close(d->map_fd);
    if (d->folder >= 0) {
        (void)close(d->folder);
        if (!d->committed && io_remove_tree(d->store->generations_fd, d->name, &e) < 0)
            log_warn("cannot remove draft %s: %s", d->name, e.msg);
    }
    free(d);
    return NULL;
}
