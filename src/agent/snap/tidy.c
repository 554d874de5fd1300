/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Tidying: a generation that is spread over many blobs gets an equal layout with few.
 *
 * Theory of operation: new blobs and a new map are written beside the old ones and made durable;
 * then layout.json is replaced in one step; then the old ones lose a name. A crash leaves the old
 * or the new layout, and files that the next start sweeps. Whoever has the generation open goes on
 * with what it has. Old contents are verified against their sums before they are written anew:
 * damage must not get right sums. The thread that tidies pins the generation meanwhile.
 */
#define LOG_MODULE "generations"
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "agent/snap/generations_int.h"
#include "agent/snap/tidy_int.h"
#include "base/cleanup.h"
#include "base/io.h"
#include "base/log.h"
#include "snap/checksum.h"

int tidy_begin_blob(struct tidy *t, struct tidy_blob **ret, struct err *e)
{
    struct tidy_blob *b = &t->made[t->n_made];
    char name[BLOB_NAME_MAX];
    assert(t->n_made < ARRAY_LEN(t->made));
    *b = (struct tidy_blob){.fd = -1, .sums_fd = -1};
    uuid_new(&b->id);
    {
        MUTEX_GUARD(&t->store->lock);
        if (store_hold_blob(t->store, &b->id, /* ref_or_null= */ NULL, e) < 0)
            return -1;
    }
    t->n_made++;
    blob_name(&b->id, name);
    b->fd = file_create(t->store->blobs_fd, name, SLICE_LIT(""), 0400, e);
    blob_sums_name(&b->id, name);
    b->sums_fd = b->fd < 0 ? -1 : file_create(t->store->blobs_fd, name, SLICE_LIT(""), 0400, e);
    *ret = b;
    return b->sums_fd < 0 ? -1 : 0;
}

/* --- layers --- */

static int verify_all(int fd, const struct checksums *c, char *block, struct err *e)
{
    for (uint64_t i = 0; i < c->n_sums; i++) {
        ssize_t got = io_read_at(fd, block, CHECKSUM_BLOCK, i * CHECKSUM_BLOCK, e);
        if (got < 0)
            return err_wrap(e, "a blob");
        if (checksums_verify(c, i, block, (size_t)got, e) < 0)
            return -1;
    }
    return 0;
}

/* Opens the layers from `first` up, verified. */
static int open_layers(struct tidy *t, size_t first, int *fds, struct err *e)
{
    AUTO_FREE char *block = malloc(CHECKSUM_BLOCK);
    if (!block)
        return err_set(e, ERR_NOMEM, "out of memory");
    for (size_t i = first; i < t->old->n_layers; i++) {
        CLEANUP(tidy_source_done) struct tidy_source source = {.fd = -1};
        if (tidy_source_open(t, &layout_layers(t->old)[i], &source, e) < 0 ||
            verify_all(source.fd, &source.sums, block, e) < 0)
            return err_wrap(e, "disk layer %zu", i);
        fds[i - first] = TAKE_FD(source.fd);
    }
    return 0;
}

/* Where the run of upper layers starts that together are smaller than the one below it; 0 when
 * there is none, or too little would be merged. */
static size_t first_to_merge(const struct layout *l)
{
    uint64_t above = 0;
    size_t first = 0;
    for (size_t i = l->n_layers; i-- > 1;) {
        above += layout_layers(l)[i].bytes;
        if (above < layout_layers(l)[i - 1].bytes)
            first = i;
    }
    return l->n_layers - first < 2 || first + 1 > GENERATION_TIDY_BLOBS ? 0 : first;
}

struct layer_fds {
    int fds[GENERATION_LAYERS_MAX];
};

static void close_fds(const struct layer_fds *l)
{
    for (size_t i = 0; i < GENERATION_LAYERS_MAX; i++)
        if (l->fds[i] >= 0)
            (void)close(l->fds[i]);
}

static int merge_layers(struct tidy *t, struct err *e)
{
    CLEANUP(close_fds) struct layer_fds l;
    size_t first = first_to_merge(t->old);
    struct tidy_blob *b;
    int rc;
    memset(&l, -1, sizeof l);
    rc = open_layers(t, first, l.fds, e);
    if (rc == 0)
        rc = tidy_begin_blob(t, &b, e);
    if (rc == 0)
        rc = t->store->config.merge_layers(l.fds, t->old->n_layers - first, b->fd, e);
    if (rc == 0)
        rc = checksum_file(b->fd, b->sums_fd, &b->id, e);
    if (rc == 0)
        rc = blob_ref_make(&b->id, b->fd, b->sums_fd, &t->layers[first], e);
    t->n_layers = first + 1;
    return rc;
}

/* --- the new layout --- */

static int make_result(struct tidy *t, struct err *e)
{
    const struct layout *old = t->old;
    struct layout *l = layout_new(t->n_memory, t->n_layers, old->n_state, e);
    if (!l)
        return -1;
    memcpy(l->map, t->new_map[0] ? t->new_map : old->map, sizeof l->map);
    memcpy(l->refs, t->memory, t->n_memory * sizeof l->refs[0]);
    memcpy(l->refs + t->n_memory, t->layers, t->n_layers * sizeof l->refs[0]);
    memcpy(l->refs + t->n_memory + t->n_layers, layout_layers(old) + old->n_layers,
        old->n_state * sizeof l->refs[0]);
    t->result = l;
    return 0;
}

static int sync_parts(const struct tidy *t, struct err *e)
{
    int fds[2 * ARRAY_LEN(t->made) + 3];
    size_t n = 0;
    for (size_t i = 0; i < t->n_made; i++) {
        fds[n++] = t->made[i].fd;
        fds[n++] = t->made[i].sums_fd;
    }
    if (t->new_map_fd >= 0)
        fds[n++] = t->new_map_fd;
    fds[n++] = t->store->blobs_fd;
    fds[n++] = t->folder;
    return files_sync(fds, n, e);
}

/* Replaces layout.json. `ret_in_doubt`: it failed, but the new one may be on the disk. */
static int replace_layout(struct tidy *t, bool *ret_in_doubt, struct err *e)
{
    AUTO_BUF struct buf text = BUF_INIT(GENERATION_FILE_BYTES_MAX);
    const char *aside = "layout.json.new";
    int fd;
    layout_write(t->result, &text);
    if (text.failed)
        return err_set(e, ERR_NOMEM, "out of memory");
    (void)unlinkat(t->folder, aside, 0);
    fd = file_create(t->folder, aside, buf_slice(&text), 0600, e);
    if (fd < 0)
        return -1;
    if (fsync(fd) < 0 || renameat(t->folder, aside, t->folder, "layout.json") < 0) {
        (void)err_sys(e, errno, "replace layout.json");
        (void)close(fd);
        (void)unlinkat(t->folder, aside, 0);
        return -1;
    }
    (void)close(fd);
    if (fsync(t->folder) == 0)
        return 0;
    *ret_in_doubt = true;
    return err_sys(e, errno, "fsync of the folder of a generation");
}

/* The tables follow the disk. Gives the entry's old layout back, whose names are the caller's. */
static struct layout *swap_layout(struct tidy *t)
{
    struct layout *old = t->entry->layout;
    MUTEX_GUARD(&t->store->lock);
    t->entry->layout = TAKE_PTR(t->result);
    return old;
}

static int put_in_place(struct tidy *t, struct err *e)
{
    struct layout *old;
    bool in_doubt = false;
    {
        MUTEX_GUARD(&t->store->lock);
        if (store_hold_layout(t->store, t->result, e) < 0)
            return -1;
    }
    if (replace_layout(t, &in_doubt, e) < 0 && !in_doubt) {
        store_release_layout(t->store, TAKE_PTR(t->result));
        return -1;
    }
    store_step(t->store, "merge", "layout");
    old = swap_layout(t);
    t->placed = true;
    if (in_doubt) {
        free(old); /* its names stay counted: a crash may bring that layout back */
        return -1;
    }
    if (t->new_map[0] != '\0' && unlinkat(t->folder, old->map, 0) < 0)
        log_warn("cannot remove a memory map: %s", strerror(errno));
    store_release_layout(t->store, old);
    return 0;
}

static int tidy_parts(struct tidy *t, bool *ret_did, struct err *e)
{
    const struct layout *old = t->old;
    bool memory = old->n_memory > GENERATION_TIDY_BLOBS;
    bool layers = old->n_layers > GENERATION_TIDY_BLOBS && t->store->config.merge_layers;
    if (!memory && !layers)
        return 0;
    t->n_memory = old->n_memory;
    t->n_layers = old->n_layers;
    memcpy(t->memory, old->refs, old->n_memory * sizeof old->refs[0]);
    memcpy(t->layers, layout_layers(old), old->n_layers * sizeof old->refs[0]);
    t->folder = open_generation_folder(t->store, &t->entry->node.id, e);
    if (t->folder < 0 || (memory && tidy_memory(t, e) < 0) || (layers && merge_layers(t, e) < 0))
        return -1;
    store_step(t->store, "merge", "copy");
    if (sync_parts(t, e) < 0)
        return -1;
    store_step(t->store, "merge", "durable");
    if (make_result(t, e) < 0 || put_in_place(t, e) < 0)
        return -1;
    store_step(t->store, "merge", "release");
    *ret_did = true;
    return 0;
}

/* Closes everything; what was made but not put in place goes. */
static void end_tidy(struct tidy *t)
{
    for (size_t i = 0; i < t->n_made; i++) {
        const struct blob_ref ref = {.id = t->made[i].id};
        if (!t->placed)
            store_remove_blob(t->store, &ref.id);
        store_release(t->store, &ref, 1);
        if (t->made[i].fd >= 0)
            (void)close(t->made[i].fd);
        if (t->made[i].sums_fd >= 0)
            (void)close(t->made[i].sums_fd);
    }
    if (t->new_map_fd >= 0) {
        (void)close(t->new_map_fd);
        if (!t->placed)
            (void)unlinkat(t->folder, t->new_map, 0);
    }
    if (t->map_fd >= 0)
        (void)close(t->map_fd);
    if (t->folder >= 0)
        (void)close(t->folder);
    store_release_layout(t->store, t->old);
    free(t->result);
}

/* Pins it, so that it stays meanwhile. NULL without an error: another thread tidies it. */
static int begin(
    struct generation_store *s, const struct uuid *id, struct generation_entry **ret, struct err *e)
{
    MUTEX_GUARD(&s->lock);
    struct generation_entry *g = store_find(s, id, e);
    if (!g)
        return -1;
    if (g->pins == 0)
        return err_set(e, ERR_BAD_STATE, "nobody has it pinned");
    if (g->tidying) {
        *ret = NULL;
        return 0;
    }
    g->tidying = true;
    g->pins++;
    *ret = g;
    return 0;
}

static void end(struct generation_store *s, struct generation_entry *g)
{
    const struct uuid id = g->node.id;
    {
        MUTEX_GUARD(&s->lock);
        g->tidying = false;
    }
    generation_unpin(s, &id);
}

int generation_tidy(struct generation_store *s, const struct uuid *id, bool *ret_did, struct err *e)
{
    char name[UUID_TEXT + 1];
    bool did = false;
    int rc;
    struct tidy *t = calloc(1, sizeof *t);
    if (!t)
        return err_set(e, ERR_NOMEM, "out of memory");
    t->store = s;
    t->map_fd = t->new_map_fd = t->folder = -1;
    rc = begin(s, id, &t->entry, e);
    if (rc == 0 && t->entry) {
        rc = store_hold_generation(s, id, &t->old, &t->map_fd, e);
        if (rc == 0)
            rc = tidy_parts(t, &did, e);
        end_tidy(t);
        end(s, t->entry);
    }
    free(t);
    uuid_format(id, name);
    if (rc < 0)
        return err_wrap(e, "tidy generation %s", name);
    *ret_did = did;
    return 0;
}
