/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The disk files in a sandbox's folder: disk.qcow2, which its VM writes, and below it the layers
 * that live snapshots froze, layer-1.qcow2 the lowest. Below these lie the layers of the generation
 * that the VM was restored from, and the base image.
 *
 * Theory of operation: before a freeze the new overlay is made aside (disk.next.qcow2); then the VM
 * goes on in it, and only then renames: disk.qcow2 becomes the next layer, the new one disk.qcow2.
 * Wherever the agent ends in between, renaming both later is right: an overlay that the VM was not
 * switched to is empty, and an empty one on top changes nothing. So too when the VMM says that it
 * failed.
 *
 * A restore from an older generation puts all of them aside, into before-restore.new. When it works
 * that becomes before-restore; when it does not, now or because the agent ended, they are put back:
 * each name there is one that was here, whatever has its name now was made for that restore.
 */
#include "agent/life/life_int.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent/disk/disk.h"
#include "base/cleanup.h"
#include "base/io.h"

static const char next_name[] = "disk.next.qcow2";
static const char making_name[] = "disk.making.qcow2";
static const char aside_name[] = "before-restore";
static const char aside_new_name[] = "before-restore.new";

void overlay_layer_name(unsigned i, char dst[OVERLAY_NAME_MAX])
{
    (void)snprintf(dst, OVERLAY_NAME_MAX, "layer-%u.qcow2", i);
}

static bool exists(int dirfd, const char *name)
{
    return faccessat(dirfd, name, F_OK, AT_SYMLINK_NOFOLLOW) == 0;
}

unsigned overlay_layers_count(const struct sandbox *s)
{
    char name[OVERLAY_NAME_MAX];
    unsigned n = 0;
    do
        overlay_layer_name(n + 1, name);
    while (exists(s->dir_fd, name) && ++n < OVERLAY_LAYERS_MAX);
    return n;
}

bool overlays_exist(const struct sandbox *s)
{
    return exists(s->dir_fd, OVERLAY_NAME) || exists(s->dir_fd, next_name) ||
           overlay_layers_count(s) > 0;
}

/* Calls `fn` for every disk file that is there; the names are given up from the top. */
static int each_overlay(
    struct sandbox *s, int (*fn)(struct sandbox *s, const char *name, struct err *e), struct err *e)
{
    char name[OVERLAY_NAME_MAX];
    unsigned layers = overlay_layers_count(s);
    if ((exists(s->dir_fd, next_name) && fn(s, next_name, e) < 0) ||
        (exists(s->dir_fd, OVERLAY_NAME) && fn(s, OVERLAY_NAME, e) < 0))
        return -1;
    for (; layers > 0; layers--) {
        overlay_layer_name(layers, name);
        if (fn(s, name, e) < 0)
            return -1;
    }
    return 0;
}

static int remove_one(struct sandbox *s, const char *name, struct err *e)
{
    return disk_overlay_remove(s->dir_fd, name, e);
}

int overlays_remove(struct sandbox *s, struct err *e)
{
    if (disk_overlay_remove(s->dir_fd, making_name, e) < 0)
        return -1;
    return each_overlay(s, remove_one, e);
}

static int open_aside(const struct sandbox *s, struct err *e)
{
    int fd = openat(s->dir_fd, aside_new_name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    return fd < 0 ? err_sys(e, errno, "open %s", aside_new_name) : fd;
}

static int put_aside_one(struct sandbox *s, const char *name, struct err *e)
{
    AUTO_CLOSE int aside = open_aside(s, e);
    if (aside < 0)
        return -1;
    if (renameat(s->dir_fd, name, aside, name) < 0)
        return err_sys(e, errno, "put %s aside", name);
    return 0;
}

int overlays_put_aside(struct sandbox *s, struct err *e)
{
    if (!exists(s->dir_fd, OVERLAY_NAME))
        return 0;
    if (mkdirat(s->dir_fd, aside_new_name, 0700) < 0)
        return err_sys(e, errno, "make %s", aside_new_name);
    return each_overlay(s, put_aside_one, e);
}

static int put_back_one(struct sandbox *s, int aside, const char *name, struct err *e)
{
    if (renameat(aside, name, s->dir_fd, name) < 0 && errno != ENOENT)
        return err_sys(e, errno, "put %s back", name);
    return 0;
}

int overlays_put_back(struct sandbox *s, struct err *e)
{
    AUTO_CLOSE int aside = -1;
    char name[OVERLAY_NAME_MAX];
    if (!exists(s->dir_fd, aside_new_name))
        return 0;
    aside = open_aside(s, e);
    if (aside < 0)
        return -1;
    for (unsigned i = 1; i <= OVERLAY_LAYERS_MAX; i++) {
        overlay_layer_name(i, name);
        if (put_back_one(s, aside, name, e) < 0)
            return -1;
    }
    if (put_back_one(s, aside, OVERLAY_NAME, e) < 0 || put_back_one(s, aside, next_name, e) < 0)
        return -1;
    if (unlinkat(s->dir_fd, aside_new_name, AT_REMOVEDIR) < 0)
        return err_sys(e, errno, "remove %s", aside_new_name);
    return 0;
}

int overlays_keep_aside(struct sandbox *s, struct err *e)
{
    if (!exists(s->dir_fd, aside_new_name))
        return 0;
    if (io_remove_tree(s->dir_fd, aside_name, e) < 0)
        return -1;
    if (renameat(s->dir_fd, aside_new_name, s->dir_fd, aside_name) < 0)
        return err_sys(e, errno, "rename %s", aside_new_name);
    return 0;
}

static int rename_in(struct sandbox *s, const char *from, const char *to, struct err *e)
{
    if (renameat(s->dir_fd, from, s->dir_fd, to) < 0)
        return err_sys(e, errno, "rename %s", from);
    return 0;
}

static int take_next(struct sandbox *s, struct err *e)
{
    char layer[OVERLAY_NAME_MAX];
    overlay_layer_name(overlay_layers_count(s) + 1, layer);
    if (exists(s->dir_fd, OVERLAY_NAME) && rename_in(s, OVERLAY_NAME, layer, e) < 0)
        return -1;
    return rename_in(s, next_name, OVERLAY_NAME, e);
}

int overlays_settle(struct sandbox *s, struct err *e)
{
    return exists(s->dir_fd, next_name) ? take_next(s, e) : 0;
}

static int sync_file(const struct sandbox *s, const char *name, struct err *e)
{
    AUTO_CLOSE int fd = openat(s->dir_fd, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0 || fsync(fd) < 0)
        return err_sys(e, errno, "fsync of %s", name);
    return 0;
}

/* Under its name once it is whole, so that a settling never takes half of one; and durable, so that
 * what the guest will have written out is found in it. */
int overlays_prepare(struct sandbox *s, struct err *e)
{
    if (overlays_settle(s, e) < 0 || disk_overlay_remove(s->dir_fd, making_name, e) < 0 ||
        disk_overlay_create(s->dir_fd, making_name, s->template.size_bytes, s->slot.uid, e) < 0 ||
        sync_file(s, making_name, e) < 0 || rename_in(s, making_name, next_name, e) < 0)
        return -1;
    return fsync(s->dir_fd) < 0 ? err_sys(e, errno, "fsync of the sandbox's folder") : 0;
}

void overlays_unprepare(struct sandbox *s)
{
    struct err ignored = {0};
    (void)disk_overlay_remove(s->dir_fd, next_name, &ignored);
}

int overlays_freeze(struct sandbox *s, int64_t deadline, struct err *e)
{
    struct err settle = {0};
    AUTO_CLOSE int fd = -1;
    fd = openat(s->dir_fd, next_name, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0)
        return err_sys(e, errno, "open the new overlay");
    if (vmm_swap_overlay(s->vmm, fd, deadline, e) == 0)
        return take_next(s, e);
    if (take_next(s, &settle) < 0) /* whether it was switched or not */
        (void)err_join(e, &settle);
    return -1;
}
