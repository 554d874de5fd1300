/* SPDX-License-Identifier: Apache-2.0 */
/* Mounting at boot. A failure is reported and the boot goes on: a guest with a missing /dev/shm is
 * better than none. */
#include "envd/mounts.h"

#include <errno.h>
#include <stdbool.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"

struct mount_point {
    const char *path;
    const char *type;
    unsigned long flags;
    const char *options;
    const char *marker; /* when this exists it is mounted already; NULL: never */
    bool is_optional;   /* the kernel may not have it */
};

enum { STRICT = MS_NOSUID | MS_NODEV | MS_NOEXEC };

static const struct mount_point mount_points[] = {
    {"/proc", "proc", STRICT, NULL, "/proc/self", false},
    {"/sys", "sysfs", STRICT, NULL, "/sys/kernel", false},
    {"/dev", "devtmpfs", MS_NOSUID, "mode=0755", "/dev/null", false},
    {"/dev/pts", "devpts", MS_NOSUID | MS_NOEXEC, "gid=5,mode=0620,ptmxmode=0666", "/dev/pts/ptmx",
        false},
    {"/dev/shm", "tmpfs", MS_NOSUID | MS_NODEV, "mode=1777", NULL, false},
    {"/run", "tmpfs", MS_NOSUID | MS_NODEV, "mode=0755", NULL, false},
    {"/sys/fs/cgroup", "cgroup2", STRICT, NULL, "/sys/fs/cgroup/cgroup.controllers", true},
};

/* devtmpfs has devices only. */
static const struct {
    const char *path;
    const char *target;
} links[] = {
    {"/dev/fd", "/proc/self/fd"},
    {"/dev/stdin", "/proc/self/fd/0"},
    {"/dev/stdout", "/proc/self/fd/1"},
    {"/dev/stderr", "/proc/self/fd/2"},
};

static int mount_one(const struct mount_point *m, struct err *e)
{
    if (m->marker && access(m->marker, F_OK) == 0)
        return 0;
    (void)mkdir(m->path, 0755); /* if that fails the mount says why */
    if (mount(m->type, m->path, m->type, m->flags, m->options) == 0 || errno == EBUSY)
        return 0;
    if (m->is_optional && (errno == ENODEV || errno == ENOENT))
        return 0;
    return err_sys(e, errno, "mount %s", m->path);
}

static int link_one(const char *path, const char *target, struct err *e)
{
    if (symlink(target, path) < 0 && errno != EEXIST)
        return err_sys(e, errno, "link %s", path);
    return 0;
}

/* /tmp belongs to the image; one without gets a folder. */
static int make_tmp(struct err *e)
{
    if (mkdir("/tmp", 01777) == 0)
        return chmod("/tmp", 01777) < 0 ? err_sys(e, errno, "chmod /tmp") : 0;
    return errno == EEXIST ? 0 : err_sys(e, errno, "make /tmp");
}

int mounts_set_up(struct err *e)
{
    struct err all = {0};
    for (size_t i = 0; i < ARRAY_LEN(mount_points); i++) {
        struct err one = {0};
        if (mount_one(&mount_points[i], &one) < 0)
            err_join(&all, &one);
    }
    for (size_t i = 0; i < ARRAY_LEN(links); i++) {
        struct err one = {0};
        if (link_one(links[i].path, links[i].target, &one) < 0)
            err_join(&all, &one);
    }
    struct err one = {0};
    if (make_tmp(&one) < 0)
        err_join(&all, &one);
    if (all.kind == ERR_NONE)
        return 0;
    *e = all;
    return -1;
}
