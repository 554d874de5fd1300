/* SPDX-License-Identifier: Apache-2.0 */
/* Stand-ins for disks: files with nothing in them. Tests of what the disk keeps link the real ones.
 */
#include "fakes.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include "agent/disk/disk.h"

int disk_overlay_create(
    int dirfd, const char *name, uint64_t virtual_bytes, uid_t owner, struct err *e)
{
    int fd = openat(dirfd, name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0)
        return err_sys(e, errno, "create");
    (void)close(fd);
    return fake_fails(FAKE_OVERLAY, e) ? -1 : 0; /* a failure may leave the file */
}

int disk_overlay_remove(int dirfd, const char *name, struct err *e)
{
    return unlinkat(dirfd, name, 0) < 0 && errno != ENOENT ? err_sys(e, errno, "remove") : 0;
}

int disk_layers_merge(const int *layer_fds, size_t n, int out_fd, struct err *e)
{
    return write(out_fd, "merged", 6) == 6 ? 0 : err_sys(e, errno, "write");
}
