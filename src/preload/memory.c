/* SPDX-License-Identifier: Apache-2.0 */
/*
 * torpor-memory.so: preloaded into a VMM, it makes the VMM's memory what the shim says.
 *
 * Theory of operation: the VMM believes that its memory is a shared file at SHIM_RAM_PATH. Opening
 * that path gives a read-only placeholder of the right size, which the shim has sealed against
 * writing; mapping the placeholder gives private memory instead, made of runs of blobs or served
 * through a userfaultfd, and where it lies is told to the shim (the handshake). The memory can be
 * mapped once. Madvise is kept from tearing holes into it, and from collecting or merging its
 * pages. Everything else is passed on as it came, as plain system calls: no symbol is looked up.
 *
 * A VMM must never run on memory that is not as the shim believes: whatever fails here ends the
 * process with one line of a reason.
 *
 * The VMM maps its memory before it starts threads. Reads of `ram` by madvise later see what was
 * written then.
 */
/* open and open64, mmap and mmap64 are symbols of their own here. */
#undef _FILE_OFFSET_BITS

#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "proto/shim.h"

#define EXPORT __attribute__((visibility("default")))

/* Names of our own, and the library's symbols. */
EXPORT int hook_open(const char *path, int flags, ...) __asm__("open");
EXPORT int hook_open64(const char *path, int flags, ...) __asm__("open64")
    __attribute__((alias("open")));
/* The C library declares these only together with inline definitions of its own. */
EXPORT int __open_2(const char *path, int flags);
EXPORT int __open64_2(const char *path, int flags);

/* Newer than the headers of some systems; numbers of the kernel's userfaultfd.h. */
#ifndef USERFAULTFD_IOC_NEW
#define USERFAULTFD_IOC_NEW _IO(0xAA, 0x00)
#endif
#define FEATURE_WP_UNPOPULATED (1ull << 13)
#define FEATURE_WP_ASYNC (1ull << 15)

enum { NUMBERS = 6, PAGE = 4096 };

static struct {
    bool is_known;
    bool is_mapped;
    unsigned mode;
    uint64_t bytes;
    int placeholder;
    int socket;
    int source; /* of runs, or /dev/userfaultfd */
    uint64_t n_runs;
    char *base;
} ram = {.placeholder = -1};

static _Noreturn void fail(const char *what)
{
    char line[160];
    int n = snprintf(line, sizeof line, "torpor-memory: %s: %s\n", what, strerror(errno));
    (void)!write(STDERR_FILENO, line, (size_t)n);
    _exit(1);
}

static _Noreturn void fail_invalid(const char *what)
{
    errno = EINVAL;
    fail(what);
}

static void *plain_mmap(void *addr, size_t n, int prot, int flags, int fd, off_t offset)
{
    // NOLINTNEXTLINE(performance-no-int-to-ptr): what the system call returns
    return (void *)syscall(SYS_mmap, addr, n, prot, flags, fd, offset);
}

static void read_settings(void)
{
    uint64_t number[NUMBERS];
    const char *at = getenv(SHIM_LIBRARY_ENV);
    for (int i = 0; i < NUMBERS; i++) {
        char *end;
        if (!at || *at < '0' || *at > '9')
            fail_invalid("settings");
        number[i] = strtoull(at, &end, 10);
        if (*end != (i == NUMBERS - 1 ? '\0' : ':'))
            fail_invalid("settings");
        at = end + 1;
    }
    ram.mode = (unsigned)number[0];
    ram.bytes = number[1];
    ram.placeholder = (int)number[2];
    ram.socket = (int)number[3];
    ram.source = (int)number[4];
    ram.n_runs = number[5];
    ram.is_known = true;
}

static int open_ram(void)
{
    int fd;
    if (!ram.is_known)
        read_settings();
    if (ram.is_mapped)
        fail_invalid("memory is opened again");
    fd = fcntl(ram.placeholder, F_DUPFD_CLOEXEC, 0);
    if (fd < 0)
        fail("placeholder");
    return fd;
}

static int open_path(const char *path, int flags, mode_t mode)
{
    if (path && strcmp(path, SHIM_RAM_PATH) == 0)
        return open_ram();
    return (int)syscall(SYS_openat, AT_FDCWD, path, flags, mode);
}

static bool is_placeholder(int fd)
{
    struct stat a;
    struct stat b;
    if (!ram.is_known || ram.is_mapped || fd < 0)
        return false;
    return fstat(fd, &a) == 0 && fstat(ram.placeholder, &b) == 0 && a.st_dev == b.st_dev &&
           a.st_ino == b.st_ino;
}

static void close_blobs(const struct shim_run *runs)
{
    uint32_t last = 0;
    for (uint64_t i = 0; i < ram.n_runs; i++) {
        if (runs[i].fd != last)
            (void)close((int)runs[i].fd); /* twice for some: nothing else is open there yet */
        last = runs[i].fd;
    }
}

static void map_runs(int prot)
{
    size_t n = ram.n_runs * sizeof(struct shim_run);
    struct shim_run *runs;
    if (n == 0)
        return;
    runs = plain_mmap(NULL, n, PROT_READ, MAP_PRIVATE, ram.source, 0);
    if (runs == MAP_FAILED)
        fail("runs");
    for (uint64_t i = 0; i < ram.n_runs; i++) {
        const struct shim_run *r = &runs[i];
        if (r->offset > ram.bytes || r->length > ram.bytes - r->offset)
            fail_invalid("run");
        if (plain_mmap(ram.base + r->offset, r->length, prot,
                MAP_PRIVATE | MAP_FIXED | MAP_NORESERVE, (int)r->fd,
                (off_t)r->file_offset) == MAP_FAILED)
            fail("map a run");
    }
    close_blobs(runs);
    (void)munmap(runs, n);
}

/* A userfaultfd with these features, -1 where the kernel has none of them. */
static int new_userfaultfd(uint64_t features)
{
    struct uffdio_api api = {.api = UFFD_API, .features = features};
    int fd = ioctl(ram.source, USERFAULTFD_IOC_NEW, O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        fail("userfaultfd");
    if (ioctl(fd, UFFDIO_API, &api) == 0)
        return fd;
    (void)close(fd);
    return -1;
}

/* With write tracking where the kernel has it; *ret_tracked says whether. */
static int serve_by_shim(bool *ret_tracked)
{
    struct uffdio_register r = {
        .range = {(uintptr_t)ram.base, ram.bytes}, .mode = UFFDIO_REGISTER_MODE_MISSING};
    int fd = -1;
    *ret_tracked = false;
    if (ram.mode == SHIM_LIBRARY_UFFD)
        fd = new_userfaultfd(
            UFFD_FEATURE_PAGEFAULT_FLAG_WP | FEATURE_WP_UNPOPULATED | FEATURE_WP_ASYNC);
    if (fd >= 0) {
        r.mode |= UFFDIO_REGISTER_MODE_WP;
        *ret_tracked = true;
    } else {
        fd = new_userfaultfd(0);
    }
    if (fd < 0 || ioctl(fd, UFFDIO_REGISTER, &r) < 0)
        fail("register with userfaultfd");
    return fd;
}

/* The message that Firecracker sends, and one more number. */
static void shake_hands(int uffd, bool tracked)
{
    union {
        char bytes[CMSG_SPACE(sizeof(int))];
        struct cmsghdr align;
    } control = {{0}};
    char text[SHIM_HANDSHAKE_BYTES];
    int n = snprintf(text, sizeof text,
        "[{\"base_host_virt_addr\":%lu,\"size\":%lu,\"offset\":0,\"page_size\":%d,"
        "\"write_tracking\":%d}]",
        (unsigned long)(uintptr_t)ram.base, (unsigned long)ram.bytes, PAGE, tracked);
    struct iovec iov = {text, (size_t)n};
    struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
    if (uffd >= 0) {
        struct cmsghdr *c;
        msg.msg_control = control.bytes;
        msg.msg_controllen = sizeof control.bytes;
        c = CMSG_FIRSTHDR(&msg);
        c->cmsg_level = SOL_SOCKET;
        c->cmsg_type = SCM_RIGHTS;
        c->cmsg_len = CMSG_LEN(sizeof uffd);
        memcpy(CMSG_DATA(c), &uffd, sizeof uffd);
    }
    if (sendmsg(ram.socket, &msg, MSG_NOSIGNAL) != n)
        fail("handshake");
}

/* The userfaultfd itself stays open: were the shim the only one to hold it, pages would turn into
 * zeros in the moment between its end and the VMM's. The filter allows no requests on it. */
static void *map_ram(void *addr, size_t n, int prot, int flags)
{
    int uffd = -1;
    bool tracked = false;
    if (n != ram.bytes || prot != (PROT_READ | PROT_WRITE))
        fail_invalid("memory is mapped in another way than expected");
    ram.base = plain_mmap(
        addr, n, prot, (flags & MAP_FIXED) | MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (ram.base == MAP_FAILED)
        fail("memory");
    if (ram.mode == SHIM_LIBRARY_PRIVATE)
        map_runs(prot);
    if (syscall(SYS_madvise, ram.base, n, MADV_NOHUGEPAGE) < 0 && errno != EINVAL)
        fail("no huge pages");
    if (ram.mode != SHIM_LIBRARY_PRIVATE)
        uffd = serve_by_shim(&tracked);
    shake_hands(uffd, tracked);
    ram.is_mapped = true;
    (void)close(ram.socket);
    (void)close(ram.source);
    (void)close(ram.placeholder);
    return ram.base;
}

static bool touches_ram(const void *addr, size_t n)
{
    uintptr_t from = (uintptr_t)addr;
    uintptr_t base = (uintptr_t)ram.base;
    return ram.is_mapped && from < base + ram.bytes && n > 0 && from + n > base;
}

EXPORT int hook_open(const char *path, int flags, ...)
{
    mode_t mode = 0;
    va_list args;
    va_start(args, flags);
    if (flags & (O_CREAT | __O_TMPFILE))
        mode = va_arg(args, mode_t);
    va_end(args);
    return open_path(path, flags, mode);
}

EXPORT int __open_2(const char *path, int flags)
{
    return open_path(path, flags, 0);
}

EXPORT int __open64_2(const char *path, int flags)
{
    return open_path(path, flags, 0);
}

EXPORT void *mmap(void *addr, size_t n, int prot, int flags, int fd, off_t offset)
{
    if ((flags & MAP_TYPE) == MAP_SHARED && !(flags & MAP_ANONYMOUS) && is_placeholder(fd)) {
        if (offset != 0)
            fail_invalid("memory is mapped in parts");
        return map_ram(addr, n, prot, flags);
    }
    return plain_mmap(addr, n, prot, flags, fd, offset);
}

EXPORT void *mmap64(void *addr, size_t n, int prot, int flags, int fd, off_t offset)
    __attribute__((alias("mmap")));

/* Huge pages would copy 2 MiB where a guest writes a byte; merged ones can be told by timing. */
EXPORT int madvise(void *addr, size_t n, int advice)
{
    if (touches_ram(addr, n)) {
        if (advice == MADV_HUGEPAGE || advice == MADV_MERGEABLE)
            return 0;
        if (advice == MADV_DONTNEED || advice == MADV_REMOVE || advice == MADV_FREE) {
            errno = EPERM;
            return -1;
        }
    }
    return (int)syscall(SYS_madvise, addr, n, advice);
}
