/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The store: what is there, who wants it, what goes.
 *
 * Theory of operation: opening reads every layout once; from then on the tables say what exists,
 * and the disk is only asked for contents. A generation's entry goes when its last pin goes; under
 * the lock it leaves the tables, without the lock its files are removed. What a crash leaves is
 * told by its name: "<uuid>.draft" was never committed, "<uuid>.gone" was no longer wanted; both
 * are swept at the start. Blobs that no layout names are swept by generation_store_collect, unless
 * some layout could not be read, since that one may name them.
 */
#define LOG_MODULE "generations"
#include <assert.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "agent/snap/generations_int.h"
#include "base/cleanup.h"
#include "base/io.h"
#include "base/log.h"

/* Calls `visit` with each name; `.` and `..` are left out. Stops at the first failure. */
static int each_name(int dirfd, int (*visit)(struct generation_store *, const char *, struct err *),
    struct generation_store *s, struct err *e)
{
    int fd = open_folder(dirfd, ".", e);
    DIR *d = fd < 0 ? NULL : fdopendir(fd);
    int rc = 0;
    if (!d) {
        if (fd < 0)
            return -1;
        rc = err_sys(e, errno, "read a folder");
        (void)close(fd);
        return rc;
    }
    while (rc == 0) {
        const struct dirent *entry;
        errno = 0;
        entry = readdir(d);
        if (!entry) {
            rc = errno == 0 ? 1 : err_sys(e, errno, "read a folder");
        } else if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0) {
            rc = visit(s, entry->d_name, e);
        }
    }
    (void)closedir(d);
    return rc < 0 ? -1 : 0;
}

static bool has_suffix(const char *name, const char *suffix)
{
    struct uuid id;
    return strlen(name) > UUID_TEXT && uuid_parse(slice_of(name, UUID_TEXT), &id) &&
           strcmp(name + UUID_TEXT, suffix) == 0;
}

/* What a tidying that was cut off left: maps and a layout that are not, or no longer, in place. The
 * one that is must be durable first. */
static void sweep_folder(int folder, const struct layout *l)
{
    bool synced = false;
    struct err e = {0};
    int fd = open_folder(folder, ".", &e);
    DIR *d = fd < 0 ? NULL : fdopendir(fd);
    const struct dirent *entry;
    if (!d)
        return;
    while ((entry = readdir(d))) {
        bool is_old_map = strncmp(entry->d_name, "memory", strlen("memory")) == 0 &&
                          strcmp(entry->d_name, l->map) != 0;
        if (!is_old_map && strcmp(entry->d_name, "layout.json.new") != 0)
            continue;
        if (!synced && fsync(folder) < 0)
            break;
        synced = true;
        (void)unlinkat(folder, entry->d_name, 0);
    }
    (void)closedir(d);
}

static int read_entry(
    const struct generation_store *s, const struct uuid *id, struct layout **ret, struct err *e)
{
    AUTO_CLOSE int folder = open_generation_folder(s, id, e);
    if (folder < 0 || layout_read(folder, ret, e) < 0)
        return -1;
    sweep_folder(folder, *ret);
    return 0;
}

/* Enters one generation. One that cannot be read is entered as damaged. */
static int enter(struct generation_store *s, const struct uuid *id, const char *name, struct err *e)
{
    struct err why = {0};
    struct generation_entry *g = calloc(1, sizeof *g);
    if (!g)
        return err_set(e, ERR_NOMEM, "out of memory");
    g->node.id = *id;
    uuid_table_insert(&s->generations, &g->node);
    if (read_entry(s, id, &g->layout, &why) < 0) {
        g->damaged = true;
        g->gutted = why.errnum == ENOENT;
        s->unreadable++;
        if (!g->gutted)
            log_err(
                "generation %s cannot be read and stays; nothing is collected: %s", name, why.msg);
        return 0;
    }
    if (store_hold_layout(s, g->layout, e) == 0)
        return 0;
    free(g->layout);
    g->layout = NULL;
    return -1;
}

static int visit_generation(struct generation_store *s, const char *name, struct err *e)
{
    struct uuid id;
    struct err why = {0};
    if (uuid_parse(slice_cstr(name), &id))
        return enter(s, &id, name, e);
    if (!has_suffix(name, ".draft") && !has_suffix(name, ".gone")) {
        log_err("%s is no generation and stays; nothing is collected", name);
        s->unreadable++;
    } else if (io_remove_tree(s->generations_fd, name, &why) < 0) {
        log_warn("cannot remove %s: %s", name, why.msg);
    }
    return 0;
}

static int open_parts(struct generation_store *s, struct err *e)
{
    int dirfd = s->config.dir_fd;
    if (uuid_table_init(&s->generations, e) < 0 || uuid_table_init(&s->blobs, e) < 0)
        return -1;
    if ((s->blobs_fd = io_open_folder(dirfd, "blobs", e)) < 0 ||
        (s->generations_fd = io_open_folder(dirfd, "generations", e)) < 0 ||
        (s->hints_fd = io_open_folder(dirfd, "hints", e)) < 0)
        return -1;
    return each_name(s->generations_fd, visit_generation, s, e);
}

struct generation_store *generation_store_open(
    const struct generation_store_config *config, struct err *e)
{
    struct generation_store *s = calloc(1, sizeof *s);
    if (!s) {
        (void)err_set(e, ERR_NOMEM, "out of memory");
        return NULL;
    }
    s->config = *config;
    s->blobs_fd = s->generations_fd = s->hints_fd = -1;
    (void)pthread_mutex_init(&s->lock, /* attr= */ NULL);
    if (open_parts(s, e) < 0) {
        (void)err_wrap(e, "generations");
        generation_store_close(s);
        return NULL;
    }
    return s;
}

static void free_layout(struct uuid_node *node, void *ctx)
{
    free(((struct generation_entry *)(void *)node)->layout);
}

static void close_fd(int fd)
{
    if (fd >= 0)
        (void)close(fd);
}

void generation_store_close(struct generation_store *s)
{
    if (!s)
        return;
    if (s->generations.buckets)
        uuid_table_each(&s->generations, free_layout, /* ctx= */ NULL);
    uuid_table_done(&s->generations);
    uuid_table_done(&s->blobs);
    close_fd(s->blobs_fd);
    close_fd(s->generations_fd);
    close_fd(s->hints_fd);
    (void)pthread_mutex_destroy(&s->lock);
    free(s);
}

struct generation_entry *store_find(
    const struct generation_store *s, const struct uuid *id, struct err *e)
{
    struct generation_entry *g =
        (struct generation_entry *)(void *)uuid_table_find(&s->generations, id);
    char name[UUID_TEXT + 1];
    if (g && !g->pending)
        return g;
    uuid_format(id, name);
    (void)err_set(e, ERR_NOT_FOUND, "there is no generation %s", name);
    return NULL;
}

int generation_pin(struct generation_store *s, const struct uuid *id, struct err *e)
{
    MUTEX_GUARD(&s->lock);
    struct generation_entry *g = store_find(s, id, e);
    if (!g)
        return -1;
    g->pins++;
    return 0;
}

/* Removes the files of an entry that has left the table. */
static void remove_entry(struct generation_store *s, struct generation_entry *g)
{
    store_remove_generation(s, &g->node.id);
    store_release_layout(s, g->layout);
    free(g);
}

unsigned generation_pins(struct generation_store *s, const struct uuid *id)
{
    struct err ignored;
    MUTEX_GUARD(&s->lock);
    const struct generation_entry *g = store_find(s, id, &ignored);
    return g ? g->pins : 0;
}

void generation_unpin(struct generation_store *s, const struct uuid *id)
{
    struct generation_entry *g;
    struct err e = {0};
    {
        MUTEX_GUARD(&s->lock);
        g = store_find(s, id, &e);
        if (!g || g->pins == 0) {
            log_err("unpinned what nobody had pinned: %s", g ? "no pins" : e.msg);
            return;
        }
        g->pins--;
        if (g->pins > 0 || g->damaged)
            return;
        uuid_table_remove(&s->generations, &g->node);
    }
    remove_entry(s, g);
}

/* One unpinned entry. */
struct unpinned {
    bool gutted;
    struct generation_entry *found;
};

static void find_unpinned(struct uuid_node *node, void *ctx)
{
    struct generation_entry *g = (struct generation_entry *)(void *)node;
    struct unpinned *u = ctx;
    if (g->pins == 0 && !g->pending && g->damaged == u->gutted && g->gutted == u->gutted)
        u->found = g;
}

static bool has_unpinned(struct generation_store *s, bool gutted)
{
    struct unpinned u = {.gutted = gutted};
    MUTEX_GUARD(&s->lock);
    uuid_table_each(&s->generations, find_unpinned, &u);
    return u.found != NULL;
}

static struct generation_entry *take_unpinned(struct generation_store *s, bool gutted)
{
    struct unpinned u = {.gutted = gutted};
    MUTEX_GUARD(&s->lock);
    uuid_table_each(&s->generations, find_unpinned, &u);
    if (!u.found)
        return NULL;
    uuid_table_remove(&s->generations, &u.found->node);
    s->unreadable -= gutted;
    return u.found;
}

/* What an agent reads may not be durable yet, when the one before it was killed. Nothing goes on
 * account of what a power cut could still take back. */
static bool sync_before_removal(struct generation_store *s)
{
    if (!s->synced && syncfs(s->blobs_fd) < 0)
        log_warn_limited("nothing is collected, the disk does not sync: %s", strerror(errno));
    else
        s->synced = true;
    return s->synced;
}

static void collect_unpinned(struct generation_store *s, bool gutted)
{
    struct generation_entry *g;
    while (has_unpinned(s, gutted) && sync_before_removal(s) && (g = take_unpinned(s, gutted)))
        remove_entry(s, g);
}

static bool is_held(struct generation_store *s, const struct uuid *id)
{
    MUTEX_GUARD(&s->lock);
    return uuid_table_find(&s->blobs, id) != NULL;
}

/* What a blob's file is called, with or without ".crc"; others are not ours and stay. */
static int visit_blob(struct generation_store *s, const char *name, struct err *e)
{
    struct uuid id;
    bool ours = has_suffix(name, ".crc") || uuid_parse(slice_cstr(name), &id);
    if (!ours || !uuid_parse(slice_of(name, UUID_TEXT), &id) || is_held(s, &id) ||
        !sync_before_removal(s))
        return 0;
    if (unlinkat(s->blobs_fd, name, 0) < 0 && errno != ENOENT)
        log_warn("cannot remove blob %s: %s", name, strerror(errno));
    store_step(s, "collect", "leftover");
    return 0;
}

static int visit_hints(struct generation_store *s, const char *name, struct err *e)
{
    struct uuid id;
    struct err why = {0};
    bool wanted = false;
    if (uuid_parse(slice_cstr(name), &id)) {
        MUTEX_GUARD(&s->lock);
        wanted = uuid_table_find(&s->generations, &id) != NULL;
    }
    if (!wanted && io_remove_tree(s->hints_fd, name, &why) < 0)
        log_warn("cannot remove hints %s: %s", name, why.msg);
    return 0;
}

struct id_list {
    struct uuid *ids;
    size_t n;
};

static void add_id(struct uuid_node *node, void *ctx)
{
    struct id_list *l = ctx;
    l->ids[l->n++] = node->id;
}

int generation_store_each(struct generation_store *s,
    void (*each)(void *ctx, const struct generation_manifest *m), void *ctx, struct err *e)
{
    struct id_list list = {0};
    int rc = 0;
    {
        MUTEX_GUARD(&s->lock);
        list.ids = calloc(s->generations.n + 1, sizeof *list.ids);
        if (list.ids)
            uuid_table_each(&s->generations, add_id, &list);
    }
    if (!list.ids)
        return err_set(e, ERR_NOMEM, "out of memory");
    for (size_t i = 0; rc == 0 && i < list.n; i++) {
        struct generation_manifest m;
        rc = generation_read(s, &list.ids[i], &m, e);
        if (rc == 0)
            each(ctx, &m);
    }
    free(list.ids);
    return rc;
}

int generation_store_collect(struct generation_store *s, struct err *e)
{
    collect_unpinned(s, /* gutted= */ true);
    if (s->unreadable > 0) {
        log_err("%zu generations cannot be read: nothing is collected", s->unreadable);
        return 0;
    }
    collect_unpinned(s, /* gutted= */ false);
    if (each_name(s->blobs_fd, visit_blob, s, e) < 0 ||
        each_name(s->hints_fd, visit_hints, s, e) < 0)
        return err_wrap(e, "collect generations");
    return 0;
}
