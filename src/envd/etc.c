/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Identity files. They are renamed into place but not synced: a machine that loses its power gets
 * them anew with the /init of its next boot, and a sync costs milliseconds of every boot and
 * resume.
 */
#include "envd/etc.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/io.h"

#define HOSTS_OWN_ADDRESS "127.0.1.1"
#define HOSTS_DEFAULT "127.0.0.1\tlocalhost\n"

enum { FILE_BYTES_MAX = 256 * 1024 };

/* The file's text; an absent file is empty. */
static int read_text(int dirfd, const char *name, struct buf *ret, struct err *e)
{
    return io_read_file(dirfd, name, ret, e) < 0 && e->errnum != ENOENT ? -1 : 0;
}

static int write_aside(int dirfd, const char *tmp, struct slice text, mode_t mode, struct err *e)
{
    AUTO_CLOSE int fd =
        openat(dirfd, tmp, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, mode);
    if (fd < 0)
        return err_sys(e, errno, "create %s", tmp);
    if (fchmod(fd, mode) < 0)
        return err_sys(e, errno, "chmod %s", tmp);
    return io_write_full(fd, text.p, text.n, DEADLINE_NEVER, e);
}

/* Makes the file hold `text`, whole or not at all. */
static int put_text(int dirfd, const char *name, mode_t mode, struct slice text, struct err *e)
{
    AUTO_BUF struct buf old = BUF_INIT(FILE_BYTES_MAX);
    char tmp[64];
    if (read_text(dirfd, name, &old, e) == 0 && slice_eq(buf_slice(&old), text))
        return 0;
    (void)snprintf(tmp, sizeof tmp, ".%s.torpor", name);
    if (write_aside(dirfd, tmp, text, mode, e) == 0) {
        if (renameat(dirfd, tmp, dirfd, name) == 0)
            return 0;
        err_sys(e, errno, "rename");
    }
    (void)unlinkat(dirfd, tmp, 0);
    return err_wrap(e, "write %s", name);
}

static int put_line(int dirfd, const char *name, mode_t mode, const char *line, struct err *e)
{
    char text[256];
    int n = snprintf(text, sizeof text, "%s\n", line);
    if (n >= (int)sizeof text)
        return err_set(e, ERR_INVALID, "%s too long", name);
    return put_text(dirfd, name, mode, slice_of(text, (size_t)n), e);
}

static bool is_own_line(const char *line)
{
    size_t n = strlen(HOSTS_OWN_ADDRESS);
    return strncmp(line, HOSTS_OWN_ADDRESS, n) == 0 && (line[n] == ' ' || line[n] == '\t');
}

/* Copies all lines of `old` but ours, then adds ours. */
static void compose_hosts(const char *old, const char *hostname, struct buf *out)
{
    while (*old) {
        size_t n = strcspn(old, "\n");
        if (!is_own_line(old)) {
            buf_append(out, old, n);
            buf_append_char(out, '\n');
        }
        old += n + (old[n] == '\n');
    }
    buf_printf(out, HOSTS_OWN_ADDRESS "\t%s\n", hostname);
}

static int put_hosts(int dirfd, const char *hostname, struct err *e)
{
    AUTO_BUF struct buf old = BUF_INIT(FILE_BYTES_MAX);
    AUTO_BUF struct buf text = BUF_INIT(FILE_BYTES_MAX + 512);
    if (read_text(dirfd, "hosts", &old, e) < 0)
        return -1;
    compose_hosts(old.len > 0 ? old.p : HOSTS_DEFAULT, hostname, &text);
    if (text.failed)
        return err_set(e, ERR_TOO_LARGE, "hosts is too long");
    return put_text(dirfd, "hosts", 0644, buf_slice(&text), e);
}

static int open_etc(const char *etc_dir, struct err *e)
{
    int fd = open(etc_dir, O_PATH | O_DIRECTORY | O_CLOEXEC);
    return fd < 0 ? err_sys(e, errno, "open %s", etc_dir) : fd;
}

int etc_set_hostname(const char *etc_dir, const char *hostname, struct err *e)
{
    AUTO_CLOSE int dir = open_etc(etc_dir, e);
    if (dir < 0)
        return -1;
    if (put_line(dir, "hostname", 0644, hostname, e) < 0)
        return -1;
    return put_hosts(dir, hostname, e);
}

int etc_set_machine_id(const char *etc_dir, const char *machine_id, struct err *e)
{
    AUTO_CLOSE int dir = open_etc(etc_dir, e);
    if (dir < 0)
        return -1;
    return put_line(dir, "machine-id", 0444, machine_id, e);
}
