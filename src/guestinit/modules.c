/* SPDX-License-Identifier: Apache-2.0 */
/* Loading the kernel modules of the initramfs. */
#include "guestinit/modules.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sys/syscall.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/io.h"

enum { ORDER_BYTES_MAX = 4096 }; /* some ten names */

static int load_one(int dirfd, const char *name, struct err *e)
{
    AUTO_CLOSE int fd = openat(dirfd, name, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return err_sys(e, errno, "open module %s", name);
    if (syscall(SYS_finit_module, fd, /* params= */ "", /* flags= */ 0) < 0 && errno != EEXIST)
        return err_sys(e, errno, "load module %s", name);
    return 0;
}

/* Cuts the line at `s` out of its text (its newline becomes a NUL) and returns the next one. */
static char *cut_line(char *s)
{
    char *end = strchr(s, '\n');
    if (!end)
        return s + strlen(s);
    *end = '\0';
    return end + 1;
}

int modules_load(const char *dir, struct err *e)
{
    AUTO_BUF struct buf order = BUF_INIT(ORDER_BYTES_MAX);
    AUTO_CLOSE int dirfd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (dirfd < 0)
        return err_sys(e, errno, "open %s", dir);
    if (io_read_file(dirfd, "order", &order, e) < 0)
        return err_wrap(e, "%s", dir);
    for (char *line = order.p, *next; line && *line; line = next) {
        next = cut_line(line);
        if (*line && load_one(dirfd, line, e) < 0)
            return -1;
    }
    return 0;
}
