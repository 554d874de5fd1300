/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Building the jail.
 *
 * Theory of operation: in a new mount namespace, cut off from the host's propagation, a small tmpfs
 * becomes the root. Each file of the plan is a bind mount of its own over an empty file: read-only,
 * no setuid, no devices, and executable only where the VMM maps code. Then the old root is
 * detached, and what was the way back is gone. The tmpfs turns read-only last; so does /dev, where
 * the only nodes are null, zero, urandom and, for KVM, kvm, owned by the VMM's uid. There is no
 * /proc, no /sys and no writable place: what the VMM writes goes through descriptors.
 *
 * The new root is mounted over /proc for a moment: that folder exists everywhere and no file of a
 * plan lies in it.
 */
#include "shim/jail.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>

#include "base/cleanup.h"

#define STAGING "/proc"
/* One folder or file a mount and the folders between; each is an inode without data. */
#define ROOT_OPTIONS "size=64k,nr_inodes=1024,mode=0755"
#define DEV_OPTIONS "size=16k,nr_inodes=16,mode=0755"

static const char host_name[] = "vmm";

static int enter_namespaces(struct err *e)
{
    if (unshare(CLONE_NEWNS | CLONE_NEWIPC | CLONE_NEWUTS) < 0)
        return err_sys(e, errno, "new namespaces");
    if (sethostname(host_name, sizeof host_name - 1) < 0)
        return err_sys(e, errno, "set the host name");
    if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
        return err_sys(e, errno, "make mounts private");
    return 0;
}

static int mount_tmpfs(const char *where, unsigned long flags, const char *options, struct err *e)
{
    if (mount("tmpfs", where, "tmpfs", flags, options) < 0)
        return err_sys(e, errno, "mount a tmpfs");
    return 0;
}

/* Makes the folders above `target` (without its leading slash) below `root`. */
static int make_parents(int root, const char *target, struct err *e)
{
    char part[1024];
    size_t n = strlen(target);
    if (n >= sizeof part)
        return err_set(e, ERR_PROTOCOL, "path too long");
    for (size_t i = 0; i < n; i++) {
        part[i] = '\0';
        if (target[i] == '/' && mkdirat(root, part, 0755) < 0 && errno != EEXIST)
            return err_sys(e, errno, "make folder /%s", part);
        part[i] = target[i];
    }
    return 0;
}

static int make_target(int root, const char *target, struct err *e)
{
    int fd;
    if (make_parents(root, target, e) < 0)
        return -1;
    fd = openat(root, target, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0444);
    if (fd < 0)
        return err_sys(e, errno, "make file /%s", target);
    (void)close(fd);
    return 0;
}

/* A detached mount of one regular file with the flags of the jail. */
static int clone_file(const struct plan_file *f, struct err *e)
{
    struct mount_attr attr = {.attr_set = MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV};
    struct stat st;
    AUTO_CLOSE int fd = open_tree(AT_FDCWD, f->source, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
    if (fd < 0)
        return err_sys(e, errno, "open %s", f->source);
    if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode))
        return err_set(e, ERR_INVALID, "%s is not a regular file", f->source);
    if (!f->exec)
        attr.attr_set |= MOUNT_ATTR_NOEXEC;
    if (mount_setattr(fd, "", AT_EMPTY_PATH, &attr, sizeof attr) < 0)
        return err_sys(e, errno, "make %s read-only", f->source);
    return TAKE_FD(fd);
}

static int add_file(int root, const struct plan_file *f, struct err *e)
{
    const char *target = f->target + 1;
    AUTO_CLOSE int fd = clone_file(f, e);
    if (fd < 0 || make_target(root, target, e) < 0)
        return -1;
    if (move_mount(fd, "", root, target, MOVE_MOUNT_F_EMPTY_PATH) < 0)
        return err_sys(e, errno, "mount %s", f->target);
    return 0;
}

static int fill_root(const struct plan *p, struct err *e)
{
    AUTO_CLOSE int root = open(STAGING, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (root < 0)
        return err_sys(e, errno, "open the jail");
    for (unsigned i = 0; i < p->head.n_files; i++)
        if (add_file(root, &p->files[i], e) < 0)
            return -1;
    return 0;
}

/* pivot_root(".", ".") stacks the old root over the new one, from where it is detached. */
static int leave_old_root(struct err *e)
{
    if (chdir(STAGING) < 0)
        return err_sys(e, errno, "enter the jail");
    if (syscall(SYS_pivot_root, ".", ".") < 0)
        return err_sys(e, errno, "pivot_root");
    if (umount2(".", MNT_DETACH) < 0)
        return err_sys(e, errno, "detach the old root");
    return chdir("/") < 0 ? err_sys(e, errno, "enter the jail") : 0;
}

static int make_node(const char *path, mode_t mode, dev_t dev, uid_t owner, struct err *e)
{
    if (mknod(path, S_IFCHR | mode, dev) < 0 || chmod(path, mode) < 0 ||
        chown(path, owner, (gid_t)owner) < 0)
        return err_sys(e, errno, "make %s", path);
    return 0;
}

/* Numbers from the kernel's Documentation/admin-guide/devices.txt. */
static int fill_dev(const struct plan *p, struct err *e)
{
    const dev_t null = makedev(1, 3);
    const dev_t zero = makedev(1, 5);
    const dev_t urandom = makedev(1, 9);
    const dev_t kvm = makedev(10, 232);
    if (mkdir("/dev", 0755) < 0)
        return err_sys(e, errno, "make /dev");
    if (mount_tmpfs("/dev", MS_NOSUID | MS_NOEXEC, DEV_OPTIONS, e) < 0 ||
        make_node("/dev/null", 0666, null, 0, e) < 0 ||
        make_node("/dev/zero", 0666, zero, 0, e) < 0 ||
        make_node("/dev/urandom", 0444, urandom, 0, e) < 0)
        return -1;
    if (p->head.flags & SHIM_PLAN_KVM)
        return make_node("/dev/kvm", 0600, kvm, p->head.uid, e);
    return 0;
}

static int make_read_only(const char *path, struct err *e)
{
    struct mount_attr attr = {.attr_set = MOUNT_ATTR_RDONLY};
    if (mount_setattr(AT_FDCWD, path, 0, &attr, sizeof attr) < 0)
        return err_sys(e, errno, "make %s read-only", path);
    return 0;
}

int jail_enter(const struct plan *p, struct err *e)
{
    (void)umask(022);
    if (enter_namespaces(e) < 0 ||
        mount_tmpfs(STAGING, MS_NOSUID | MS_NODEV | MS_NOEXEC, ROOT_OPTIONS, e) < 0 ||
        fill_root(p, e) < 0 || leave_old_root(e) < 0 || fill_dev(p, e) < 0 ||
        make_read_only("/dev", e) < 0 || make_read_only("/", e) < 0)
        return err_wrap(e, "jail");
    (void)umask(077);
    return 0;
}
