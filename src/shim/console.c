/* SPDX-License-Identifier: Apache-2.0 */
/* The console log. A failing disk costs output, never the VM: nothing here reports an error. */
#include "shim/console.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "proto/limits.h"

enum { FILE_BYTES_MAX = CONSOLE_BYTES_MAX / 2 };

static const char file_name[] = "console.log";
static const char old_name[] = "console.log.1";

static int open_file(const struct console *c, int extra_flags)
{
    return openat(c->dirfd, file_name,
        O_WRONLY | O_APPEND | O_CREAT | O_NOFOLLOW | O_CLOEXEC | extra_flags, 0600);
}

int console_open(struct console *c, int dirfd, struct err *e)
{
    struct stat st;
    *c = (struct console){.dirfd = dirfd, .fd = -1};
    c->fd = open_file(c, 0);
    if (c->fd < 0 || fstat(c->fd, &st) < 0)
        return err_sys(e, errno, "open %s", file_name);
    c->bytes = st.st_size > FILE_BYTES_MAX ? FILE_BYTES_MAX : (size_t)st.st_size;
    return 0;
}

/* Where the old file cannot be renamed it is emptied: the bound holds in any case. */
static void rotate(struct console *c)
{
    bool moved = renameat(c->dirfd, file_name, c->dirfd, old_name) == 0;
    c->bytes = 0;
    if (!moved && c->fd >= 0) {
        (void)!ftruncate(c->fd, 0);
        return;
    }
    if (c->fd >= 0)
        (void)close(c->fd);
    c->fd = open_file(c, O_TRUNC);
}

void console_write(struct console *c, const char *p, size_t n)
{
    while (n > 0) {
        size_t room;
        ssize_t put;
        if (c->bytes >= FILE_BYTES_MAX || c->fd < 0)
            rotate(c);
        if (c->fd < 0)
            return;
        room = FILE_BYTES_MAX - c->bytes;
        put = write(c->fd, p, n < room ? n : room);
        if (put < 0 && errno == EINTR)
            continue;
        if (put <= 0)
            return;
        c->bytes += (size_t)put;
        p += put;
        n -= (size_t)put;
    }
}

static void end_line(struct last_line *l)
{
    if (l->len > 0) {
        memcpy(l->last, l->now, l->len);
        l->last[l->len] = '\0';
    }
    l->len = 0;
    l->now[0] = '\0';
}

void last_line_feed(struct last_line *l, const char *p, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (p[i] == '\n') {
            end_line(l);
        } else if (l->len < sizeof l->now - 1 && p[i] != '\r') {
            l->now[l->len++] = p[i] >= ' ' && p[i] <= '~' ? p[i] : '?';
            l->now[l->len] = '\0';
        }
    }
}

const char *last_line_get(const struct last_line *l)
{
    return l->len > 0 ? l->now : l->last;
}
