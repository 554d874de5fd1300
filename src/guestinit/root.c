/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The way from the initramfs to the root file system and to the guest agent.
 *
 * Theory of operation: the agent is part of the initramfs, not of the image. A cold boot always
 * runs the agent that belongs to the host's installation, whatever the user of the guest (root, if
 * they like) did to their disk; an upgrade of the agent needs no new images; and an image needs
 * nothing of ours but a /dev to mount on. After the switch of the root the initramfs has no path
 * any more, and the agent is started relative to a descriptor of its top folder. So it stays out of
 * sight and out of reach of everything else in the guest, without a mount, a copy or a file in the
 * image.
 */
#include "guestinit/root.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdbool.h>
#include <stdio.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/syscall.h>

#include "base/cleanup.h"
#include "base/io.h"

#define NEW_ROOT "/newroot"

/* Descriptors 0, 1 and 2 are the console, or /dev/null on a machine without one. The kernel opens
 * them only if it had a console before /dev was mounted. */
static int open_console(struct err *e)
{
    int fd = open("/dev/console", O_RDWR | O_NOCTTY | O_CLOEXEC);
    if (fd < 0)
        fd = open("/dev/null", O_RDWR | O_CLOEXEC);
    if (fd < 0)
        return err_sys(e, errno, "open /dev/console");
    for (int std = STDIN_FILENO; std <= STDERR_FILENO; std++)
        if (fd == std ? fcntl(fd, F_SETFD, 0) < 0 : dup2(fd, std) < 0)
            return err_sys(e, errno, "dup2 of the console");
    if (fd > STDERR_FILENO)
        (void)close(fd);
    return 0;
}

int root_prepare_dev(struct err *e)
{
    if (mkdir("/dev", 0755) < 0 && errno != EEXIST)
        return err_sys(e, errno, "mkdir /dev");
    if (mount("devtmpfs", "/dev", "devtmpfs", MS_NOSUID, "mode=0755") < 0)
        return err_sys(e, errno, "mount devtmpfs");
    return open_console(e);
}

/* Moves the mounts, makes the new root "/". */
static int switch_root(struct err *e)
{
    if (mount("/dev", NEW_ROOT "/dev", NULL, MS_MOVE, NULL) < 0)
        return err_sys(e, errno, "move /dev into the image (has it a /dev?)");
    if (chdir(NEW_ROOT) < 0)
        return err_sys(e, errno, "chdir " NEW_ROOT);
    if (mount(".", "/", NULL, MS_MOVE, NULL) < 0)
        return err_sys(e, errno, "move the root");
    if (chroot(".") < 0 || chdir("/") < 0)
        return err_sys(e, errno, "chroot");
    return 0;
}

/* True for the two kinds of file system an initramfs can be. Whatever else is there is never
 * emptied. */
static bool is_initramfs(int fd)
{
    struct statfs fs;
    return fstatfs(fd, &fs) == 0 && (fs.f_type == RAMFS_MAGIC || fs.f_type == TMPFS_MAGIC);
}

/* Frees the memory of all entries but `keep`. */
static int empty_initramfs(int initramfs, const char *keep, struct err *e)
{
    struct dirent *ent;
    int rc = 0, fd;
    DIR *d;
    if (!is_initramfs(initramfs))
        return err_set(e, ERR_BAD_STATE, "the first root is not an initramfs");
    fd = openat(initramfs, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    d = fd < 0 ? NULL : fdopendir(fd);
    if (!d)
        return err_sys(e, errno, "list the initramfs");
    while (rc == 0 && (ent = readdir(d))) {
        const char *name = ent->d_name;
        if (strcmp(name, ".") != 0 && strcmp(name, "..") != 0 && strcmp(name, keep) != 0)
            rc = io_remove_tree(initramfs, name, e);
    }
    (void)closedir(d);
    return rc;
}

int root_enter(const char *device, const char *agent, struct err *e)
{
    AUTO_CLOSE int initramfs = open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (initramfs < 0)
        return err_sys(e, errno, "open the initramfs");
    if (mkdir(NEW_ROOT, 0755) < 0 && errno != EEXIST)
        return err_sys(e, errno, "mkdir " NEW_ROOT);
    if (mount(device, NEW_ROOT, "ext4", 0, NULL) < 0)
        return err_sys(e, errno, "mount %s as ext4", device);
    if (switch_root(e) < 0 || empty_initramfs(initramfs, agent, e) < 0)
        return -1;
    return TAKE_FD(initramfs);
}

int root_exec_agent(int initramfs, const char *agent, struct err *e)
{
    const char *const argv[] = {agent, NULL};
    const char *const envp[] = {
        "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "TERM=linux", NULL};
    (void)syscall(SYS_execveat, initramfs, agent, argv, envp, /* flags= */ 0);
    return err_sys(e, errno, "start %s", agent);
}
