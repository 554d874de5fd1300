/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Uploads.
 *
 * Theory of operation. Whether and where the user may write is decided by the kernel, under the
 * user's identity (identity.h): the folder is opened once, and everything afterwards happens by
 * name inside that descriptor, so nothing that is moved or linked meanwhile changes the place. A
 * new file is created, written and renamed as the user. A file that is there already must be
 * writable for the user; then it is replaced with our own rights, because keeping a foreign owner
 * needs them, and because a file may be writable in a folder that is not. Nothing is synced: E2B's
 * envd does not either, and a snapshot takes the page cache along.
 */
#include "envd/upload.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/io.h"
#include "base/rand.h"
#include "envd/identity.h"
#include "envd/paths.h"
#include "envd/users.h"

#define TEMPORARY_PREFIX ".torpor-upload-"

enum { SUFFIX_CHARS = 16, FOLDER_MODE = 0755, SET_ID_BITS = S_ISUID | S_ISGID };

struct target {
    char path[PATH_MAX]; /* links resolved when the file exists */
    const char *name;    /* in `path` */
    char temporary[sizeof TEMPORARY_PREFIX + SUFFIX_CHARS];
    int dir; /* the folder, O_PATH */
    int fd;  /* the temporary file */
    bool exists;
    struct stat old;
};

/* Makes every missing folder above `path`. */
static int make_parents(const char *path, struct err *e)
{
    char part[PATH_MAX];
    for (size_t i = 1; path[i]; i++) {
        if (path[i] != '/')
            continue;
        memcpy(part, path, i);
        part[i] = '\0';
        if (mkdir(part, FOLDER_MODE) < 0 && errno != EEXIST) {
            int errnum = errno;
            struct stat st;
            if (stat(part, &st) < 0)
                return err_sys(e, errnum, "make folder '%s'", part);
        }
    }
    return 0;
}

static int check_old(const char *path, const struct stat *st, struct err *e)
{
    if (S_ISDIR(st->st_mode))
        return err_field(e, "path", "path '%s' is a directory", path);
    if (!S_ISREG(st->st_mode))
        return err_field(e, "path", "path '%s' is not a regular file", path);
    if (syscall(SYS_faccessat2, AT_FDCWD, path, W_OK, AT_EACCESS) < 0)
        return err_sys(e, errno, "write '%s'", path);
    return 0;
}

/* Finds out what is there, and opens the folder. As the user. */
static int find_target(const char *path, struct target *t, struct err *e)
{
    char folder[PATH_MAX];
    size_t len;
    if (stat(path, &t->old) == 0) {
        if (check_old(path, &t->old, e) < 0)
            return -1;
        if (!realpath(path, t->path))
            return err_sys(e, errno, "resolve '%s'", path);
        t->exists = true;
    } else if (errno == ENOENT) {
        if (make_parents(path, e) < 0)
            return -1;
        memcpy(t->path, path, strlen(path) + 1);
    } else {
        return err_sys(e, errno, "look at '%s'", path);
    }
    t->name = path_base(t->path);
    len = (size_t)(t->name - t->path);
    memcpy(folder, t->path, len);
    folder[len] = '\0';
    t->dir = open(folder, O_PATH | O_DIRECTORY | O_CLOEXEC);
    return t->dir < 0 ? err_sys(e, errno, "open folder '%s'", folder) : 0;
}

static int create_temporary(struct target *t, struct err *e)
{
    char suffix[SUFFIX_CHARS + 1];
    rand_base32(suffix, SUFFIX_CHARS);
    (void)snprintf(t->temporary, sizeof t->temporary, TEMPORARY_PREFIX "%s", suffix);
    t->fd = openat(t->dir, t->temporary, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC,
        S_IRUSR | S_IWUSR);
    return t->fd < 0 ? err_sys(e, errno, "create a file in the folder of '%s'", t->path) : 0;
}

static int open_target(const struct upload_params *p, struct target *t, struct err *e)
{
    int rc;
    if (identity_enter(p->user, e) < 0)
        return -1;
    rc = find_target(p->path, t, e);
    if (rc == 0 && !t->exists)
        rc = create_temporary(t, e);
    identity_leave();
    if (rc == 0 && t->exists)
        rc = create_temporary(t, e);
    if (rc < 0 && e->errnum == ENOTDIR)
        return err_field(e, "path", "a part of path '%s' is not a directory", p->path);
    return rc;
}

static int copy_source(const struct upload_params *p, int fd, struct err *e)
{
    for (;;) {
        ssize_t got = p->source(p->ctx, p->chunk, p->chunk_bytes, e);
        if (got <= 0)
            return (int)got;
        if (io_write_full(fd, p->chunk, (size_t)got, DEADLINE_NEVER, e) < 0)
            return err_wrap(e, "write '%s'", p->path);
    }
}

/* Gives a replacement the owner and mode of what it replaces. */
static int keep_attributes(const struct upload_params *p, const struct target *t, struct err *e)
{
    mode_t mode = t->old.st_mode & 07777;
    if (p->user->uid != 0)
        mode &= (mode_t)~SET_ID_BITS;
    if (fchown(t->fd, t->old.st_uid, t->old.st_gid) < 0)
        return err_sys(e, errno, "keep the owner of '%s'", t->path);
    if (fchmod(t->fd, mode) < 0)
        return err_sys(e, errno, "keep the mode of '%s'", t->path);
    return 0;
}

static int rename_target(const struct target *t, struct err *e)
{
    if (renameat(t->dir, t->temporary, t->dir, t->name) < 0)
        return errno == EISDIR ? err_field(e, "path", "path '%s' is a directory", t->path)
                               : err_sys(e, errno, "put '%s' in place", t->path);
    return 0;
}

static int place_new(const struct upload_params *p, const struct target *t, struct err *e)
{
    int rc;
    if (identity_enter(p->user, e) < 0)
        return -1;
    rc = fchmod(t->fd, p->mode) < 0 ? err_sys(e, errno, "set the mode of '%s'", t->path)
                                    : rename_target(t, e);
    identity_leave();
    return rc;
}

static int place(const struct upload_params *p, const struct target *t, struct err *e)
{
    if (!t->exists)
        return place_new(p, t, e);
    return keep_attributes(p, t, e) < 0 ? -1 : rename_target(t, e);
}

static void target_done(struct target *t)
{
    if (t->fd >= 0)
        (void)close(t->fd);
    if (t->dir >= 0)
        (void)close(t->dir);
}

int upload_file(const struct upload_params *p, struct err *e)
{
    CLEANUP(target_done) struct target t = {.dir = -1, .fd = -1};
    if (open_target(p, &t, e) < 0)
        return -1;
    if (copy_source(p, t.fd, e) == 0 && place(p, &t, e) == 0)
        return 0;
    (void)unlinkat(t.dir, t.temporary, 0);
    return -1;
}
