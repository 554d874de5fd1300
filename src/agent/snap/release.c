/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Holding and releasing blobs, and removing what nobody names any more.
 *
 * A blob's count is the number of its names: layouts, drafts and open generations. The count of a
 * blob without one cannot rise again, because its entry is gone and uuids are never used twice; so
 * files are removed without the lock.
 */
#define LOG_MODULE "generations"
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/snap/generations_int.h"
#include "base/cleanup.h"
#include "base/io.h"
#include "base/log.h"

static struct blob_entry *find_blob(const struct generation_store *s, const struct uuid *id)
{
    return (struct blob_entry *)(void *)uuid_table_find(&s->blobs, id);
}

int store_hold_blob(struct generation_store *s, const struct uuid *id,
    const struct blob_ref *ref_or_null, struct err *e)
{
    struct blob_entry *b = find_blob(s, id);
    if (!b) {
        b = calloc(1, sizeof *b);
        if (!b)
            return err_set(e, ERR_NOMEM, "out of memory");
        b->node.id = *id;
        uuid_table_insert(&s->blobs, &b->node);
    }
    if (ref_or_null) {
        b->ref = *ref_or_null;
        b->is_known = true;
    }
    b->count++;
    return 0;
}

int store_hold_again(struct generation_store *s, const struct uuid *id, struct err *e)
{
    struct blob_entry *b = find_blob(s, id);
    char name[BLOB_NAME_MAX];
    if (!b) {
        blob_name(id, name);
        return err_set(e, ERR_NOT_FOUND, "there is no blob %s", name);
    }
    b->count++;
    return 0;
}

/* Takes one name away. True when it was the last: the files are to be removed. */
static bool drop(struct generation_store *s, const struct uuid *id)
{
    struct blob_entry *b = find_blob(s, id);
    assert(b && b->count > 0);
    if (--b->count > 0)
        return false;
    uuid_table_remove(&s->blobs, &b->node);
    free(b);
    return true;
}

int store_hold_layout(struct generation_store *s, const struct layout *l, struct err *e)
{
    for (size_t i = 0; i < layout_n_refs(l); i++) {
        if (store_hold_blob(s, &l->refs[i].id, &l->refs[i], e) == 0)
            continue;
        while (i-- > 0)
            (void)drop(s, &l->refs[i].id);
        return -1;
    }
    return 0;
}

void store_release(struct generation_store *s, const struct blob_ref *refs, size_t n)
{
    bool is_last[LAYOUT_REFS_MAX];
    assert(n <= LAYOUT_REFS_MAX);
    {
        MUTEX_GUARD(&s->lock);
        for (size_t i = 0; i < n; i++)
            is_last[i] = drop(s, &refs[i].id) && s->unreadable == 0;
    }
    for (size_t i = 0; i < n; i++)
        if (is_last[i]) {
            store_remove_blob(s, &refs[i].id);
            store_step(s, "collect", "blob");
        }
}

void store_release_layout(struct generation_store *s, struct layout *l)
{
    if (l)
        store_release(s, l->refs, layout_n_refs(l));
    free(l);
}

static struct layout *copy_layout(const struct layout *l, struct err *e)
{
    struct layout *copy = layout_new(l->n_memory, l->n_layers, l->n_state, e);
    if (copy)
        memcpy(copy, l, sizeof *l + layout_n_refs(l) * sizeof l->refs[0]);
    return copy;
}

/* The map's name is only good under the lock: the folder may be tidied. */
static int open_map(const struct generation_store *s, const struct uuid *id, const char *name,
    int *ret_fd, struct err *e)
{
    AUTO_CLOSE int folder = open_generation_folder(s, id, e);
    int fd = folder < 0 ? -1 : open_plain(folder, name, e);
    if (fd < 0) {
        if (e->kind == ERR_NOT_FOUND)
            e->kind = ERR_INVALID;
        return -1;
    }
    *ret_fd = fd;
    return 0;
}

/* Why its layout could not be read at the start. */
static int tell_damage(const struct generation_store *s, const struct uuid *id, struct err *e)
{
    AUTO_FREE struct layout *l = NULL;
    AUTO_CLOSE int folder = open_generation_folder(s, id, e);
    if (folder < 0 || layout_read(folder, &l, e) < 0) {
        if (e->kind == ERR_NOT_FOUND)
            e->kind = ERR_INVALID;
        return -1;
    }
    return err_set(e, ERR_INVALID, "its layout could not be read at the start");
}

int store_hold_generation(struct generation_store *s, const struct uuid *id, struct layout **ret,
    int *ret_map_fd, struct err *e)
{
    AUTO_FREE struct layout *copy = NULL;
    AUTO_CLOSE int map_fd = -1;
    MUTEX_GUARD(&s->lock);
    const struct generation_entry *g = store_find(s, id, e);
    if (!g)
        return -1;
    if (g->damaged)
        return tell_damage(s, id, e);
    copy = copy_layout(g->layout, e);
    if (!copy)
        return -1;
    if (ret_map_fd && copy->map[0] != '\0' && open_map(s, id, copy->map, &map_fd, e) < 0)
        return -1;
    if (store_hold_layout(s, copy, e) < 0)
        return -1;
    *ret = TAKE_PTR(copy);
    if (ret_map_fd)
        *ret_map_fd = TAKE_FD(map_fd);
    return 0;
}

static void remove_file(int dirfd, const char *name)
{
    if (unlinkat(dirfd, name, 0) < 0 && errno != ENOENT)
        log_warn("cannot remove blob %s: %s", name, strerror(errno));
}

void store_remove_blob(const struct generation_store *s, const struct uuid *id)
{
    char name[BLOB_NAME_MAX];
    blob_name(id, name);
    remove_file(s->blobs_fd, name);
    blob_sums_name(id, name);
    remove_file(s->blobs_fd, name);
}

void store_remove_generation(const struct generation_store *s, const struct uuid *id)
{
    char name[UUID_TEXT + 1];
    char gone[UUID_TEXT + sizeof ".gone"];
    struct err e = {0};
    uuid_format(id, name);
    (void)snprintf(gone, sizeof gone, "%s.gone", name);
    /* First out of sight in one step, so that no half of it is ever read. */
    if (renameat(s->generations_fd, name, s->generations_fd, gone) < 0 && errno != ENOENT)
        log_warn("cannot remove generation %s: %s", name, strerror(errno));
    store_step(s, "collect", "hidden");
    if (io_remove_tree(s->generations_fd, gone, &e) < 0)
        log_warn("cannot remove generation %s: %s", name, e.msg);
    if (io_remove_tree(s->hints_fd, name, &e) < 0)
        log_warn("cannot remove hints of generation %s: %s", name, e.msg);
    store_step(s, "collect", "folder");
}
