/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Network namespaces with names, the way ip-netns(8) keeps them: bind mounts below /run/netns, a
 * shared mount of its own, so that removing one in any mount namespace removes it in all.
 * Changing the namespace is per thread; only the single-threaded helper does it.
 */
#include "agent/net/net_int.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/mount.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "base/io.h"

static int open_current(struct err *e)
{
    int fd = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
    return fd < 0 ? err_sys(e, errno, "open /proc/self/ns/net") : fd;
}

/* The folder, a shared mount point. The lock on it is the one that ip-netns takes. */
static int prepare_dir(struct err *e)
{
    if (io_mkdir_p(NET_NETNS_DIR, 0755, e) < 0)
        return -1;
    AUTO_CLOSE int lock = open(NET_NETNS_DIR, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (lock < 0 || flock(lock, LOCK_EX) < 0)
        return err_sys(e, errno, "lock " NET_NETNS_DIR);
    if (mount("", NET_NETNS_DIR, "none", MS_SHARED | MS_REC, NULL) == 0)
        return 0;
    /* EINVAL: not a mount point yet. */
    if (errno != EINVAL)
        return err_sys(e, errno, "share " NET_NETNS_DIR);
    if (mount(NET_NETNS_DIR, NET_NETNS_DIR, "none", MS_BIND | MS_REC, NULL) < 0)
        return err_sys(e, errno, "bind " NET_NETNS_DIR);
    if (mount("", NET_NETNS_DIR, "none", MS_SHARED | MS_REC, NULL) < 0)
        return err_sys(e, errno, "share " NET_NETNS_DIR);
    return 0;
}

void net_netns_leave(int home_fd)
{
    if (setns(home_fd, CLONE_NEWNET) < 0)
        abort();
    (void)close(home_fd);
}

int net_netns_enter(const char *path, struct err *e)
{
    AUTO_CLOSE int home = open_current(e);
    if (home < 0)
        return -1;
    AUTO_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return err_sys(e, errno, "open %s", path);
    /* EINVAL: a file without a namespace on it, left between two steps. */
    if (setns(fd, CLONE_NEWNET) < 0)
        return errno == EINVAL ? err_set(e, ERR_NOT_FOUND, "no namespace at %s", path)
                               : err_sys(e, errno, "enter %s", path);
    return TAKE_FD(home);
}

int net_netns_make(const char *path, struct err *e)
{
    if (prepare_dir(e) < 0)
        return -1;
    AUTO_CLOSE int file = open(path, O_RDONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0444);
    if (file < 0)
        return err_sys(e, errno, "create %s", path);
    AUTO_CLOSE int home = open_current(e);
    if (home < 0)
        return -1;
    if (unshare(CLONE_NEWNET) < 0)
        return err_sys(e, errno, "new network namespace");
    int rc = mount("/proc/self/ns/net", path, "none", MS_BIND, NULL);
    int errnum = errno;
    net_netns_leave(TAKE_FD(home));
    return rc < 0 ? err_sys(e, errnum, "mount %s", path) : 0;
}

int net_netns_remove(const char *path, struct err *e)
{
    /* EINVAL: nothing is mounted there. More than once only if someone mounted over it. */
    while (umount2(path, MNT_DETACH) == 0)
        ;
    if (errno != EINVAL && errno != ENOENT)
        return err_sys(e, errno, "unmount %s", path);
    if (unlink(path) < 0 && errno != ENOENT)
        return err_sys(e, errno, "remove %s", path);
    return 0;
}

int net_sysctl_write(const char *path, const char *value, struct err *e)
{
    char full[128];
    (void)snprintf(full, sizeof full, "/proc/sys/%s", path);
    AUTO_CLOSE int fd = open(full, O_WRONLY | O_CLOEXEC);
    if (fd < 0)
        return err_sys(e, errno, "open %s", full);
    if (write(fd, value, strlen(value)) < 0)
        return err_sys(e, errno, "write %s to %s", value, full);
    return 0;
}

int net_sysctl_read(const char *path, int *ret, struct err *e)
{
    char full[128];
    char text[16] = {0};
    (void)snprintf(full, sizeof full, "/proc/sys/%s", path);
    AUTO_CLOSE int fd = open(full, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || read(fd, text, sizeof text - 1) < 0)
        return err_sys(e, errno, "read %s", full);
    *ret = atoi(text);
    return 0;
}
