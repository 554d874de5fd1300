/* SPDX-License-Identifier: Apache-2.0 */
/* Descriptor and file input and output. */
#include "base/io.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/rand.h"

int io_wait(int fd, short events, int64_t deadline, struct err *e)
{
    struct pollfd p = {.fd = fd, .events = events};
    for (;;) {
        int rc = poll(&p, 1, deadline_poll_ms(deadline));
        if (rc > 0)
            return p.revents;
        if (rc == 0) {
            if (deadline != DEADLINE_NEVER && clock_mono_ms() >= deadline)
                return err_set(e, ERR_TIMEOUT, "timed out");
        } else if (errno != EINTR) {
            return err_sys(e, errno, "poll");
        }
    }
}

ssize_t io_read(int fd, void *dst, size_t n, int64_t deadline, struct err *e)
{
    for (;;) {
        ssize_t got;
        if (deadline != DEADLINE_NEVER && io_wait(fd, POLLIN, deadline, e) < 0)
            return -1;
        got = read(fd, dst, n);
        if (got >= 0)
            return got;
        if (errno == EAGAIN) {
            if (io_wait(fd, POLLIN, deadline, e) < 0)
                return -1;
        } else if (errno != EINTR) {
            return err_sys(e, errno, "read");
        }
    }
}

int io_read_full(int fd, void *dst, size_t n, int64_t deadline, struct err *e)
{
    char *p = dst;
    while (n > 0) {
        ssize_t got = io_read(fd, p, n, deadline, e);
        if (got < 0)
            return -1;
        if (got == 0)
            return err_set(e, ERR_PROTOCOL, "the other side closed early");
        p += got;
        n -= (size_t)got;
    }
    return 0;
}

/* A pipe that poll(2) calls writable takes PIPE_BUF bytes without blocking; more may block for
 * good, so a blocking descriptor gets no more at a time when there is a deadline. Returns -1 with
 * errno. */
static ssize_t write_patiently(int fd, const void *src, size_t n, int64_t deadline)
{
    struct pollfd p = {.fd = fd, .events = POLLOUT};
    int flags = fcntl(fd, F_GETFL);
    if (flags < 0)
        return -1;
    if (deadline == DEADLINE_NEVER || (flags & O_NONBLOCK))
        return write(fd, src, n);
    if (poll(&p, 1, /* timeout= */ 0) <= 0) {
        errno = EAGAIN;
        return -1;
    }
    return write(fd, src, n < PIPE_BUF ? n : PIPE_BUF);
}

static ssize_t write_some(int fd, const void *src, size_t n, int64_t deadline)
{
    ssize_t put = send(fd, src, n, MSG_NOSIGNAL | MSG_DONTWAIT);
    return put < 0 && errno == ENOTSOCK ? write_patiently(fd, src, n, deadline) : put;
}

int io_write_full(int fd, const void *src, size_t n, int64_t deadline, struct err *e)
{
    const char *p = src;
    while (n > 0) {
        ssize_t put = write_some(fd, p, n, deadline);
        if (put >= 0) {
            p += put;
            n -= (size_t)put;
        } else if (errno == EAGAIN) {
            if (io_wait(fd, POLLOUT, deadline, e) < 0)
                return -1;
        } else if (errno != EINTR) {
            return err_sys(e, errno, "write");
        }
    }
    return 0;
}

ssize_t io_read_at(int fd, void *dst, size_t n, uint64_t offset, struct err *e)
{
    size_t sum = 0;
    while (sum < n) {
        ssize_t got = pread(fd, (char *)dst + sum, n - sum, (off_t)(offset + sum));
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return err_sys(e, errno, "read");
        if (got == 0)
            break;
        sum += (size_t)got;
    }
    return (ssize_t)sum;
}

int io_read_file(int dirfd, const char *path, struct buf *dst, struct err *e)
{
    AUTO_CLOSE int fd = openat(dirfd, path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
    if (fd < 0)
        return err_sys(e, errno, "open %s", path);
    for (;;) {
        char chunk[4096];
        ssize_t got = read(fd, chunk, sizeof chunk);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return err_sys(e, errno, "read %s", path);
        if (got == 0)
            return 0;
        buf_append(dst, chunk, (size_t)got);
        if (dst->failed)
            return (size_t)got > dst->max - dst->len
                       ? err_set(e, ERR_TOO_LARGE, "%s is longer than %zu bytes", path, dst->max)
                       : err_set(e, ERR_NOMEM, "read %s: out of memory", path);
    }
}

static int write_aside(
    int dirfd, const char *tmp, const void *src, size_t n, mode_t mode, struct err *e)
{
    const char *p = src;
    AUTO_CLOSE int fd = openat(dirfd, tmp, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode);
    if (fd < 0)
        return err_sys(e, errno, "create %s", tmp);
    while (n > 0) {
        ssize_t put = write(fd, p, n);
        if (put < 0 && errno == EINTR)
            continue;
        if (put < 0)
            return err_sys(e, errno, "write %s", tmp);
        p += put;
        n -= (size_t)put;
    }
    if (fchmod(fd, mode) < 0)
        return err_sys(e, errno, "chmod %s", tmp);
    if (fsync(fd) < 0)
        return err_sys(e, errno, "fsync %s", tmp);
    return 0;
}

#define ASIDE ".tmp-"
enum { ASIDE_RANDOM = 8 };

bool io_is_leftover(const char *name)
{
    size_t tail = strlen(ASIDE) + ASIDE_RANDOM;
    size_t n = strlen(name);
    return n > tail && strncmp(name + n - tail, ASIDE, strlen(ASIDE)) == 0;
}

int io_replace_file(
    int dirfd, const char *name, const void *src, size_t n, mode_t mode, struct err *e)
{
    char tmp[NAME_MAX + 1];
    char suffix[ASIDE_RANDOM + 1];
    AUTO_CLOSE int dir = -1;
    rand_base32(suffix, ASIDE_RANDOM);
    if (snprintf(tmp, sizeof tmp, "%s" ASIDE "%s", name, suffix) >= (int)sizeof tmp)
        return err_set(e, ERR_INVALID, "file name too long");
    if (write_aside(dirfd, tmp, src, n, mode, e) < 0) {
        (void)unlinkat(dirfd, tmp, 0);
        return -1;
    }
    if (renameat(dirfd, tmp, dirfd, name) < 0) {
        err_sys(e, errno, "rename to %s", name);
        (void)unlinkat(dirfd, tmp, 0);
        return -1;
    }
    dir = openat(dirfd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (dir < 0 || fsync(dir) < 0)
        return err_sys(e, errno, "fsync of the folder of %s", name);
    return 0;
}

/* Makes the name of what was made at `path` durable. */
static int sync_parent(const char *path, struct err *e)
{
    char parent[PATH_MAX] = ".";
    const char *slash = strrchr(path, '/');
    AUTO_CLOSE int fd = -1;
    if (slash)
        (void)snprintf(
            parent, sizeof parent, "%.*s", slash == path ? 1 : (int)(slash - path), path);
    fd = open(parent, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0 || fsync(fd) < 0)
        return err_sys(e, errno, "fsync of the folder of %s", path);
    return 0;
}

int io_mkdir_p(const char *path, mode_t mode, struct err *e)
{
    char part[PATH_MAX];
    size_t len = strlen(path);
    if (len == 0 || len >= sizeof part)
        return err_set(e, ERR_INVALID, "bad folder path");
    for (size_t i = 1; i <= len; i++) {
        if (path[i] != '/' && path[i] != '\0')
            continue;
        memcpy(part, path, i);
        part[i] = '\0';
        if (mkdir(part, i == len ? mode : 0755) == 0) {
            if (sync_parent(part, e) < 0)
                return -1;
        } else if (errno != EEXIST) {
            return err_sys(e, errno, "mkdir %s", part);
        }
    }
    return 0;
}

int io_open_folder(int dirfd, const char *name, struct err *e)
{
    int fd;
    if (mkdirat(dirfd, name, 0700) < 0 && errno != EEXIST)
        return err_sys(e, errno, "make folder %s", name);
    if (fsync(dirfd) < 0)
        return err_sys(e, errno, "fsync of the folder of %s", name);
    fd = openat(dirfd, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return fd < 0 ? err_sys(e, errno, "open folder %s", name) : fd;
}

static int remove_children(int dirfd, struct err *e)
{
    DIR *d = fdopendir(dirfd);
    struct dirent *ent;
    int rc = 0;
    if (!d) {
        (void)close(dirfd);
        return err_sys(e, errno, "open folder");
    }
    while (rc == 0 && (ent = readdir(d)))
        if (strcmp(ent->d_name, ".") != 0 && strcmp(ent->d_name, "..") != 0)
            rc = io_remove_tree(dirfd, ent->d_name, e);
    (void)closedir(d);
    return rc;
}

int io_remove_tree(int dirfd, const char *name, struct err *e)
{
    int fd;
    if (unlinkat(dirfd, name, 0) == 0 || errno == ENOENT)
        return 0;
    if (errno != EISDIR && errno != EPERM)
        return err_sys(e, errno, "remove %s", name);
    fd = openat(dirfd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0)
        return errno == ENOENT ? 0 : err_sys(e, errno, "open %s", name);
    if (remove_children(fd, e) < 0)
        return -1;
    if (unlinkat(dirfd, name, AT_REMOVEDIR) < 0 && errno != ENOENT)
        return err_sys(e, errno, "remove %s", name);
    return 0;
}

int io_set_nonblock(int fd, int on, struct err *e)
{
    int flags = fcntl(fd, F_GETFL);
    if (flags < 0)
        return err_sys(e, errno, "fcntl");
    flags = on ? flags | O_NONBLOCK : flags & ~O_NONBLOCK;
    return fcntl(fd, F_SETFL, flags) < 0 ? err_sys(e, errno, "fcntl") : 0;
}
