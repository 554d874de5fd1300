/* SPDX-License-Identifier: Apache-2.0 */
#include "calls.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "disk_model.h"

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct fault fault;
bool disks_look_large;

void faults_begin(const struct fault *f)
{
    MUTEX_GUARD(&lock);
    fault = *f;
    fault.seen = 0;
    fault.site[0] = '\0';
    fault.broke_data = false;
}

struct fault faults_end(void)
{
    MUTEX_GUARD(&lock);
    struct fault f = fault;
    fault = (struct fault){0};
    return f;
}

static bool is_wanted(const char *call)
{
    char word[FAULT_SITE_MAX];
    (void)snprintf(word, sizeof word, " %s ", call);
    return !fault.calls || strstr(fault.calls, word);
}

/* Whether that is a file or folder of a data folder. */
static bool is_data(int fd)
{
    char link_path[64];
    char path[512] = "";
    (void)snprintf(link_path, sizeof link_path, "/proc/self/fd/%d", fd);
    return fd >= 0 && readlink(link_path, path, sizeof path - 1) > 0 && strstr(path, "/data");
}

/* What befalls this call: an errno, FAULT_SHORT or 0. `fd`: a file or folder that it changes, or
 * -1. `can`: the errors that it may have. */
static int befalls(const char *call, int fd, const int *can, size_t n)
{
    bool possible = false;
    if (__atomic_load_n(&fault.at, __ATOMIC_RELAXED) == 0)
        return 0;
    MUTEX_GUARD(&lock);
    for (size_t i = 0; i < n; i++)
        possible = possible || can[i] == fault.error;
    if (fault.at == 0 || !possible || !is_wanted(call) || (fault.data_only && !is_data(fd)))
        return 0;
    fault.seen++;
    if (fault.seen != fault.at && !(fault.lasting && fault.seen > fault.at))
        return 0;
    if (!fault.site[0])
        (void)snprintf(fault.site, sizeof fault.site, "%s", call);
    return fault.error;
}

#define BEFALLS_FILE(call, fd, ...)                                                                \
    befalls(call, fd, (const int[]){__VA_ARGS__}, sizeof((int[]){__VA_ARGS__}) / sizeof(int))
#define BEFALLS(call, ...) BEFALLS_FILE(call, -1, __VA_ARGS__)

/* Fails the calling function when that befalls it. */
#define MAY_FAIL(call, failed, ...) MAY_FAIL_FILE(call, -1, failed, __VA_ARGS__)
#define MAY_FAIL_FILE(call, fd, failed, ...)                                                       \
    do {                                                                                           \
        int fault_ = BEFALLS_FILE(call, fd, __VA_ARGS__);                                          \
        if (fault_) {                                                                              \
            errno = fault_;                                                                        \
            return failed;                                                                         \
        }                                                                                          \
    } while (0)

/* Declares both, as the linker names them. */
#define WRAP(type, name, ...)                                                                      \
    type __real_##name(__VA_ARGS__);                                                               \
    type __wrap_##name(__VA_ARGS__);                                                               \
    type __wrap_##name(__VA_ARGS__)

/* --- names --- */

int __real_openat64(int dirfd, const char *path, int flags, ...);
int __real_fstatat64(int dirfd, const char *path, struct stat *st, int flags);

static int open_any(int dirfd, const char *path, int flags, mode_t mode)
{
    struct stat st;
    bool creates = (flags & O_CREAT) && __real_fstatat64(dirfd, path, &st, AT_SYMLINK_NOFOLLOW) < 0;
    int fd;
    DISK_GUARD();
    fd = __real_openat64(dirfd, path, flags, mode);
    if (fd >= 0 && creates)
        disk_saw_new(dirfd, path);
    return fd;
}

int __wrap_openat64(int dirfd, const char *path, int flags, ...);
int __wrap_openat64(int dirfd, const char *path, int flags, ...)
{
    mode_t mode = 0;
    if (flags & O_CREAT) {
        va_list ap;
        va_start(ap, flags);
        mode = va_arg(ap, mode_t);
        va_end(ap);
        MAY_FAIL_FILE("create", dirfd, -1, ENOSPC, EIO, EMFILE, ENOMEM);
    } else {
        MAY_FAIL("open", -1, EIO, EMFILE, ENOMEM);
    }
    return open_any(dirfd, path, flags, mode);
}

int __wrap_open64(const char *path, int flags, ...);
int __wrap_open64(const char *path, int flags, ...)
{
    mode_t mode = 0;
    if (flags & O_CREAT) {
        va_list ap;
        va_start(ap, flags);
        mode = va_arg(ap, mode_t);
        va_end(ap);
    }
    MAY_FAIL("open", -1, EIO, EMFILE, ENOMEM);
    return open_any(AT_FDCWD, path, flags, mode);
}

WRAP(int, mkdirat, int dirfd, const char *path, mode_t mode)
{
    int rc;
    MAY_FAIL_FILE("mkdir", dirfd, -1, ENOSPC, EIO, ENOMEM);
    DISK_GUARD();
    rc = __real_mkdirat(dirfd, path, mode);
    if (rc == 0)
        disk_saw_new(dirfd, path);
    return rc;
}

WRAP(int, mkdir, const char *path, mode_t mode)
{
    return __wrap_mkdirat(AT_FDCWD, path, mode);
}

WRAP(int, linkat, int from, const char *path, int to, const char *name, int flags)
{
    int rc;
    MAY_FAIL_FILE("link", to, -1, ENOSPC, EIO, ENOMEM);
    DISK_GUARD();
    rc = __real_linkat(from, path, to, name, flags);
    if (rc == 0)
        disk_saw_new(to, name);
    return rc;
}

WRAP(int, unlinkat, int dirfd, const char *path, int flags)
{
    int rc;
    MAY_FAIL("unlink", -1, EIO, ENOMEM);
    DISK_GUARD();
    disk_will_unlink(dirfd, path);
    rc = __real_unlinkat(dirfd, path, flags);
    disk_did_unlink(rc == 0);
    return rc;
}

WRAP(int, renameat, int from, const char *path, int to, const char *name)
{
    int rc;
    MAY_FAIL_FILE("rename", to, -1, ENOSPC, EIO, ENOMEM);
    DISK_GUARD();
    rc = __real_renameat(from, path, to, name);
    if (rc == 0)
        disk_saw_rename(from, path, to, name);
    return rc;
}

/* --- contents --- */

WRAP(ssize_t, write, int fd, const void *p, size_t n)
{
    int short_one = n > 1 ? FAULT_SHORT : 0;
    int what = BEFALLS_FILE("write", fd, ENOSPC, EIO, EINTR, short_one);
    ssize_t put;
    if (what > 0) {
        errno = what;
        return -1;
    }
    DISK_GUARD();
    put = __real_write(fd, p, what ? n / 2 : n);
    if (put > 0)
        disk_saw_write(fd, p, (size_t)put, /* offset= */ -1);
    return put;
}

WRAP(ssize_t, pwrite64, int fd, const void *p, size_t n, off_t offset)
{
    int short_one = n > 1 ? FAULT_SHORT : 0;
    int what = BEFALLS_FILE("pwrite", fd, ENOSPC, EIO, EINTR, short_one);
    ssize_t put;
    if (what > 0) {
        errno = what;
        return -1;
    }
    DISK_GUARD();
    put = __real_pwrite64(fd, p, what ? n / 2 : n, offset);
    if (put > 0)
        disk_saw_write(fd, p, (size_t)put, offset);
    return put;
}

WRAP(ssize_t, copy_file_range, int in, off_t *from, int out, off_t *to, size_t n, unsigned flags)
{
    int what = BEFALLS_FILE("copy_file_range", out, ENOSPC, EIO, EINTR, FAULT_SHORT);
    ssize_t put;
    if (what > 0) {
        errno = what;
        return -1;
    }
    DISK_GUARD();
    put = __real_copy_file_range(in, from, out, to, what && n > 1 ? n / 2 : n, flags);
    if (put > 0)
        disk_saw_copy(out, (size_t)put, to ? *to - put : -1);
    return put;
}

WRAP(int, ftruncate64, int fd, off_t size)
{
    int rc;
    MAY_FAIL_FILE("ftruncate", fd, -1, ENOSPC, EIO, EINTR);
    DISK_GUARD();
    rc = __real_ftruncate64(fd, size);
    if (rc == 0)
        disk_saw_truncate(fd, size);
    return rc;
}

/* No real one: the model says what a power cut would leave. */
int __wrap_fsync(int fd);
int __wrap_fsync(int fd)
{
    int what = BEFALLS_FILE("fsync", fd, ENOSPC, EIO, EINTR);
    if (what) {
        fault.broke_data = fault.broke_data || is_data(fd);
        errno = what;
        return -1;
    }
    DISK_GUARD();
    disk_saw_sync(fd);
    return 0;
}

int __wrap_syncfs(int fd);
int __wrap_syncfs(int fd)
{
    MAY_FAIL("syncfs", -1, EIO);
    DISK_GUARD();
    disk_saw_sync_all(fd);
    return 0;
}

int __wrap_sync_file_range(int fd, off_t offset, off_t n, unsigned flags);
int __wrap_sync_file_range(int fd, off_t offset, off_t n, unsigned flags)
{
    MAY_FAIL("sync_file_range", -1, ENOSPC, EIO);
    return 0;
}

WRAP(ssize_t, read, int fd, void *p, size_t n)
{
    int short_one = n > 1 ? FAULT_SHORT : 0;
    int what = BEFALLS("read", EIO, EINTR, short_one);
    if (what > 0) {
        errno = what;
        return -1;
    }
    return __real_read(fd, p, what ? n / 2 : n);
}

WRAP(ssize_t, pread64, int fd, void *p, size_t n, off_t offset)
{
    int short_one = n > 1 ? FAULT_SHORT : 0;
    int what = BEFALLS("pread", EIO, EINTR, short_one);
    if (what > 0) {
        errno = what;
        return -1;
    }
    return __real_pread64(fd, p, what ? n / 2 : n, offset);
}

/* --- the rest that may fail --- */

WRAP(int, fchmod, int fd, mode_t mode)
{
    MAY_FAIL("fchmod", -1, EIO);
    return __real_fchmod(fd, mode);
}

WRAP(int, fchown, int fd, uid_t uid, gid_t gid)
{
    MAY_FAIL("fchown", -1, EIO);
    return __real_fchown(fd, uid, gid);
}

WRAP(int, fchownat, int fd, const char *path, uid_t uid, gid_t gid, int flags)
{
    MAY_FAIL("fchownat", -1, EIO);
    return __real_fchownat(fd, path, uid, gid, flags);
}

WRAP(int, fstat64, int fd, struct stat *st)
{
    MAY_FAIL("fstat", -1, EIO, ENOMEM);
    return __real_fstat64(fd, st);
}

WRAP(int, fstatat64, int fd, const char *path, struct stat *st, int flags)
{
    MAY_FAIL("fstatat", -1, EIO, ENOMEM);
    return __real_fstatat64(fd, path, st, flags);
}

WRAP(int, fstatvfs64, int fd, struct statvfs *st)
{
    MAY_FAIL("fstatvfs", -1, EIO, EINTR);
    if (__real_fstatvfs64(fd, st) < 0)
        return -1;
    if (disks_look_large)
        st->f_blocks = st->f_bavail = (fsblkcnt_t)1 << 30;
    return 0;
}

WRAP(void *, mmap64, void *at, size_t n, int prot, int flags, int fd, off_t offset)
{
    MAY_FAIL("mmap", MAP_FAILED, ENOMEM);
    return __real_mmap64(at, n, prot, flags, fd, offset);
}

WRAP(DIR *, fdopendir, int fd)
{
    MAY_FAIL("fdopendir", NULL, ENOMEM);
    return __real_fdopendir(fd);
}

int __real_fcntl64(int fd, int cmd, long arg);
int __wrap_fcntl64(int fd, int cmd, long arg);
int __wrap_fcntl64(int fd, int cmd, long arg)
{
    if (cmd == F_DUPFD_CLOEXEC)
        MAY_FAIL("dup", -1, EMFILE);
    return __real_fcntl64(fd, cmd, arg);
}

WRAP(int, eventfd, unsigned value, int flags)
{
    MAY_FAIL("eventfd", -1, EMFILE, ENOMEM);
    return __real_eventfd(value, flags);
}

WRAP(int, memfd_create, const char *name, unsigned flags)
{
    MAY_FAIL("memfd_create", -1, EMFILE, ENOMEM);
    return __real_memfd_create(name, flags);
}

struct epoll_event;
WRAP(int, epoll_ctl, int epoll, int op, int fd, struct epoll_event *event)
{
    MAY_FAIL("epoll_ctl", -1, ENOSPC, ENOMEM);
    return __real_epoll_ctl(epoll, op, fd, event);
}

WRAP(int, poll, struct pollfd *p, nfds_t n, int timeout)
{
    MAY_FAIL("poll", -1, EINTR, ENOMEM);
    return __real_poll(p, n, timeout);
}

WRAP(int, pthread_create, pthread_t *thread, const pthread_attr_t *attr, void *(*fn)(void *),
    void *arg)
{
    if (BEFALLS("pthread_create", ENOMEM))
        return EAGAIN;
    return __real_pthread_create(thread, attr, fn, arg);
}

WRAP(void *, malloc, size_t n)
{
    MAY_FAIL("malloc", NULL, ENOMEM);
    return __real_malloc(n);
}

WRAP(void *, calloc, size_t n, size_t size)
{
    MAY_FAIL("calloc", NULL, ENOMEM);
    return __real_calloc(n, size);
}

WRAP(void *, realloc, void *p, size_t n)
{
    MAY_FAIL("realloc", NULL, ENOMEM);
    return __real_realloc(p, n);
}

WRAP(void *, reallocarray, void *p, size_t n, size_t size)
{
    MAY_FAIL("reallocarray", NULL, ENOMEM);
    return __real_reallocarray(p, n, size);
}
