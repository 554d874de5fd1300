/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Instance locks: <run base>/<n>.lock, held with flock(2), holding "<host id> <data folder>".
 */
#include "agent/life/instance.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/io.h"

enum { OWNER_BYTES_MAX = 4096 + 64, PATH_BYTES_MAX = 128 };

/* True when the locked file is still the one at `path`, and not one that was removed meanwhile. */
static bool is_current(int fd, const char *path)
{
    struct stat held;
    struct stat named;
    return fstat(fd, &held) == 0 && stat(path, &named) == 0 && held.st_ino == named.st_ino &&
           held.st_dev == named.st_dev;
}

/* True when the instance's run folder has the socket of a shim, so maybe a VM. */
static bool has_shims(const char *run_base, unsigned n)
{
    char path[PATH_BYTES_MAX];
    bool found = false;
    struct dirent *ent;
    DIR *d;
    (void)snprintf(path, sizeof path, "%s/%u", run_base, n);
    d = opendir(path);
    while (d && !found && (ent = readdir(d))) {
        size_t len = strlen(ent->d_name);
        found = len > 5 && strcmp(ent->d_name + len - 5, ".shim") == 0;
    }
    if (d)
        (void)closedir(d);
    return found;
}

enum claim { CLAIM_OURS, CLAIM_ABANDONED, CLAIM_FOREIGN, CLAIM_ALIVE };

/* Whose the number was, by what its lock file says. */
static enum claim judge(const char *text, const struct instance_owner *o, bool shims)
{
    size_t id_len = strlen(o->host_id);
    const char *dir = strchr(text, ' ');
    if (!dir)
        return shims ? CLAIM_ALIVE : CLAIM_ABANDONED;
    dir++;
    if ((size_t)(dir - 1 - text) == id_len && memcmp(text, o->host_id, id_len) == 0)
        return CLAIM_OURS;
    if (shims)
        return CLAIM_ALIVE;
    return strcmp(dir, o->dir) != 0 && access(dir, F_OK) == 0 ? CLAIM_FOREIGN : CLAIM_ABANDONED;
}

/* The lock's descriptor, or -1 with ERR_CONFLICT. */
static int try_lock(const char *run_base, unsigned n, const struct instance_owner *o,
    enum claim worst, struct err *e)
{
    char path[PATH_BYTES_MAX];
    char text[OWNER_BYTES_MAX];
    int len;
    AUTO_BUF struct buf owner = BUF_INIT(OWNER_BYTES_MAX);
    AUTO_CLOSE int fd = -1;
    (void)snprintf(path, sizeof path, "%s/%u.lock", run_base, n);
    fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0)
        return err_sys(e, errno, "open %s", path);
    if (flock(fd, LOCK_EX | LOCK_NB) < 0)
        return err_set(e, ERR_CONFLICT, "instance %u is in use", n);
    if (!is_current(fd, path))
        return err_set(e, ERR_CONFLICT, "the lock of instance %u was removed", n);
    if (io_read_file(AT_FDCWD, path, &owner, e) < 0)
        return -1;
    if (judge(owner.p ? owner.p : "", o, has_shims(run_base, n)) > worst)
        return err_set(e, ERR_CONFLICT, "instance %u belongs to another data folder", n);
    len = snprintf(text, sizeof text, "%s %s", o->host_id, o->dir);
    if (ftruncate(fd, 0) < 0 || pwrite(fd, text, (size_t)len, 0) != len)
        return err_sys(e, errno, "write %s", path);
    return TAKE_FD(fd);
}

int instance_take(const char *run_base, const struct instance_owner *owner, int wanted,
    unsigned *ret_instance, struct err *e)
{
    int fd;
    if (wanted != INSTANCE_NONE) {
        fd = try_lock(run_base, (unsigned)wanted, owner, CLAIM_ABANDONED, e);
        if (fd >= 0) {
            *ret_instance = (unsigned)wanted;
            return fd;
        }
    }
    for (int worst = CLAIM_ABANDONED; worst <= CLAIM_FOREIGN; worst++)
        for (unsigned n = 0; n < INSTANCES; n++) {
            fd = try_lock(run_base, n, owner, (enum claim)worst, e);
            if (fd >= 0) {
                *ret_instance = n;
                return fd;
            }
        }
    return err_wrap(e, "no free instance of %d under %s", INSTANCES, run_base);
}
