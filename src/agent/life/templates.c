/* SPDX-License-Identifier: Apache-2.0 */
/* Base templates: manifests, images, builders. */
#define LOG_MODULE "life"
#include "agent/life/templates.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/io.h"
#include "base/log.h"
#include "json/json.h"

#define BUILDING_SUFFIX ".building"

enum {
    MANIFEST_BYTES_MAX = 64 * 1024,
    STAT_BLOCK_BYTES = 512, /* the unit of st_blocks */
    SECTOR_BYTES = 512,
};

static bool take_text(const struct json_value *v, const char *key, char *dst, size_t n)
{
    const struct json_value *m = json_get(v, key);
    return m && m->type == JSON_STRING && slice_copy_cstr(m->string, dst, n);
}

static int take_manifest(const struct json_value *v, struct host_template *t, struct err *e)
{
    const struct json_value *size = json_get(v, "size_bytes");
    if (!t->name[0] && !take_text(v, "name", t->name, sizeof t->name))
        return err_set(e, ERR_INVALID, "the manifest of an image names no template");
    if (!take_text(v, "digest", t->digest, sizeof t->digest) ||
        !take_text(v, "default_user", t->default_user, sizeof t->default_user) || !size ||
        size->type != JSON_INT || size->integer <= 0 || size->integer % SECTOR_BYTES != 0)
        return err_set(e, ERR_INVALID, "the manifest of template %s is malformed", t->name);
    t->size_bytes = (uint64_t)size->integer;
    return 0;
}

/* Reads manifest.json of the image's folder; its time is when the image was made. */
static int read_manifest(int image_fd, struct host_template *t, struct err *e)
{
    AUTO_BUF struct buf text = BUF_INIT(MANIFEST_BYTES_MAX);
    struct arena arena;
    const struct json_value *v = NULL;
    struct stat st;
    int rc;
    if (io_read_file(image_fd, "manifest.json", &text, e) < 0)
        return -1;
    if (fstatat(image_fd, "manifest.json", &st, 0) < 0)
        return err_sys(e, errno, "stat manifest.json");
    t->created_at_ms = (int64_t)st.st_mtim.tv_sec * 1000 + st.st_mtim.tv_nsec / 1000000;
    arena_init(&arena, (size_t)MANIFEST_BYTES_MAX * 4);
    rc = json_parse(buf_slice(&text), &arena, &v, e);
    if (rc == 0)
        rc = take_manifest(v, t, e);
    arena_done(&arena);
    return rc;
}

/* Path and size of the image file. */
static int find_image(int image_fd, struct host_template *t, struct err *e)
{
    char link[64];
    struct stat st;
    AUTO_FREE char *folder = NULL;
    if (fstatat(image_fd, "rootfs.img", &st, AT_SYMLINK_NOFOLLOW) < 0)
        return err_sys(e, errno, "image of template %s", t->name);
    if (!S_ISREG(st.st_mode))
        return err_set(e, ERR_INVALID, "the image of template %s is no file", t->name);
    t->allocated_bytes = (int64_t)st.st_blocks * STAT_BLOCK_BYTES;
    (void)snprintf(link, sizeof link, "/proc/self/fd/%d", image_fd);
    folder = realpath(link, NULL);
    if (!folder)
        return err_sys(e, errno, "folder of template %s", t->name);
    if (snprintf(t->image, sizeof t->image, "%s/rootfs.img", folder) >= (int)sizeof t->image)
        return err_set(e, ERR_INVALID, "path too long");
    return 0;
}

/* The image's folder, opened once through `entry`: all that is read of it is of one image, wherever
 * a name points a moment later. */
static int load(const struct host *h, const char *entry, struct host_template *t, struct err *e)
{
    char path[128];
    AUTO_CLOSE int fd = -1;
    (void)snprintf(path, sizeof path, "images/%s", entry);
    fd = openat(h->dir_fd, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return err_sys(e, errno, "open template %s", entry);
    if (read_manifest(fd, t, e) < 0)
        return err_wrap(e, "template %s", entry);
    return find_image(fd, t, e);
}

/* Lower-case hex: no way out of images/. */
static bool is_digest(const char *s)
{
    size_t n = strspn(s, "0123456789abcdef");
    return n > 0 && s[n] == '\0' && n < 72;
}

int host_image_find(
    const struct host *h, const char *digest, struct host_template *ret, struct err *e)
{
    struct host_template t = {0};
    if (!is_digest(digest))
        return err_set(e, ERR_INVALID, "not the digest of an image");
    if (load(h, digest, &t, e) < 0)
        return -1;
    *ret = t;
    return 0;
}

/* True while a builder of this template lives. Asking takes the lock for a moment; builders wait
 * for it, and another asker's shared lock is no obstacle. */
static bool is_building(const struct host *h, const char *name)
{
    char path[128];
    AUTO_CLOSE int fd = -1;
    (void)snprintf(path, sizeof path, "images/%s" BUILDING_SUFFIX, name);
    fd = openat(h->dir_fd, path, O_RDONLY | O_NONBLOCK | O_NOFOLLOW | O_CLOEXEC);
    return fd >= 0 && flock(fd, LOCK_SH | LOCK_NB) < 0 && errno == EWOULDBLOCK;
}

int host_template_find(
    const struct host *h, struct slice name, struct host_template *ret, struct err *e)
{
    struct host_template t = {0};
    if (!template_name_valid(name) || !slice_copy_cstr(name, t.name, sizeof t.name))
        return err_field(e, "template", "not a template name");
    if (load(h, t.name, &t, e) == 0) {
        *ret = t;
        return 0;
    }
    if (e->kind != ERR_NOT_FOUND)
        return -1;
    if (is_building(h, t.name))
        return err_set(e, ERR_TEMPLATE_BUILDING, "the template %s is being built", t.name);
    return err_set(e, ERR_NOT_FOUND, "no template %s", t.name);
}

/* If the entry of images/ stands for a template, its name: a link by its own name, a builder's lock
 * by what precedes the suffix. */
static bool entry_name(int fd, const char *entry, struct slice *ret, bool *ret_is_lock)
{
    struct stat st;
    struct slice name = slice_cstr(entry);
    size_t suffix = strlen(BUILDING_SUFFIX);
    if (fstatat(fd, entry, &st, AT_SYMLINK_NOFOLLOW) < 0)
        return false;
    *ret_is_lock = S_ISREG(st.st_mode);
    if (*ret_is_lock) {
        if (name.n <= suffix || strcmp(entry + name.n - suffix, BUILDING_SUFFIX) != 0)
            return false;
        name.n -= suffix;
    } else if (!S_ISLNK(st.st_mode)) {
        return false;
    }
    *ret = name;
    return template_name_valid(name);
}

/* Fills in what the entry stands for; false when that is nothing to list. */
static bool load_entry(const struct host *h, int fd, const char *entry, struct host_template *t)
{
    struct slice name;
    bool is_lock;
    struct err e = {0};
    if (!entry_name(fd, entry, &name, &is_lock))
        return false;
    if (host_template_find(h, name, t, &e) == 0)
        return !is_lock; /* the link stands for it */
    if (is_lock && e.kind == ERR_TEMPLATE_BUILDING) {
        *t = (struct host_template){.building = true};
        return slice_copy_cstr(name, t->name, sizeof t->name);
    }
    if (!is_lock)
        log_warn_limited("template left out: %s", e.msg);
    return false;
}

int host_templates_each(const struct host *h,
    void (*each)(void *ctx, const struct host_template *template), void *ctx, struct err *e)
{
    struct host_template t;
    DIR *d;
    struct dirent *ent;
    AUTO_CLOSE int fd = openat(h->dir_fd, "images", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return errno == ENOENT ? 0 : err_sys(e, errno, "open images");
    d = fdopendir(fd);
    if (!d)
        return err_sys(e, errno, "read images");
    fd = -1; /* closedir closes it */
    while ((ent = readdir(d)))
        if (load_entry(h, dirfd(d), ent->d_name, &t))
            each(ctx, &t);
    (void)closedir(d);
    return 0;
}
