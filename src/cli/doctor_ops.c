/* SPDX-License-Identifier: Apache-2.0 */
/* What doctor tries out on a real host. Everything is undone by closing a descriptor. */
#include <errno.h>
#include <fcntl.h>
#include <linux/dm-ioctl.h>
#include <linux/fs.h>
#include <linux/userfaultfd.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/io.h"
#include "cli/doctor.h"
#include "cli/tool.h"

enum { DM_BUFFER = 16 * 1024, SOFT_DIRTY_BIT = 55, PAGE_BYTES = 4096 };

static int open_device(const char *path)
{
    AUTO_CLOSE int fd = open(path, O_RDWR | O_CLOEXEC);
    return fd < 0 ? -errno : 0;
}

static int try_userfaultfd(uint64_t *ret_features)
{
    AUTO_CLOSE int fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
    struct uffdio_api api = {.api = UFFD_API};
    if (fd < 0 || ioctl(fd, UFFDIO_API, &api) < 0)
        return -errno;
    *ret_features = api.features;
    return 0;
}

/* struct pm_scan_arg of Linux 6.7, which older headers do not have. */
struct scan_arg {
    uint64_t size, flags, start, end, walk_end, vec, vec_len, max_pages;
    uint64_t category_inverted, category_mask, category_anyof_mask, return_mask;
};

static int try_pagemap_scan(void)
{
    AUTO_CLOSE int fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
    void *page = mmap(NULL, PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    uint64_t region[3] = {0};
    struct scan_arg arg = {.size = sizeof arg,
        .start = (uint64_t)(uintptr_t)page,
        .end = (uint64_t)(uintptr_t)page + PAGE_BYTES,
        .vec = (uint64_t)(uintptr_t)region,
        .vec_len = 1,
        .category_mask = 1 << 3, /* present */
        .return_mask = 1 << 3};
    int rc;
    if (fd < 0 || page == MAP_FAILED)
        return -errno;
    rc = ioctl(fd, _IOWR('f', 16, struct scan_arg), &arg) < 0 ? -errno : 0;
    (void)munmap(page, PAGE_BYTES);
    return rc;
}

/* Clears the marks of this process, writes a page, and looks whether it is marked. */
static int try_soft_dirty(void)
{
    AUTO_CLOSE int refs = open("/proc/self/clear_refs", O_WRONLY | O_CLOEXEC);
    AUTO_CLOSE int map = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
    volatile char *page =
        mmap(NULL, PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    uint64_t before = 0;
    uint64_t after = 0;
    off_t at = (off_t)((uintptr_t)page / PAGE_BYTES * sizeof after);
    int rc = -ENOTSUP;
    if (refs < 0 || map < 0 || page == MAP_FAILED)
        return -errno;
    page[0] = 1;
    if (write(refs, "4", 1) == 1 && pread(map, &before, sizeof before, at) == sizeof before) {
        page[0] = 2;
        if (pread(map, &after, sizeof after, at) == sizeof after &&
            !(before >> SOFT_DIRTY_BIT & 1) && (after >> SOFT_DIRTY_BIT & 1))
            rc = 0;
    }
    (void)munmap((void *)(uintptr_t)page, PAGE_BYTES);
    return rc;
}

static int try_dm_snapshot(void)
{
    AUTO_CLOSE int fd = open("/dev/mapper/control", O_RDWR | O_CLOEXEC);
    AUTO_FREE struct dm_ioctl *io = calloc(1, DM_BUFFER);
    uint32_t at;
    if (fd < 0 || !io)
        return fd < 0 && errno == ENOENT ? -ENODEV : -errno;
    io->version[0] = DM_VERSION_MAJOR;
    io->data_size = DM_BUFFER;
    io->data_start = sizeof *io;
    if (ioctl(fd, DM_LIST_VERSIONS, io) < 0)
        return -errno;
    at = io->data_start;
    while (at + sizeof(struct dm_target_versions) < io->data_size) {
        const struct dm_target_versions *t = (const void *)((const char *)io + at);
        if (strcmp(t->name, "snapshot") == 0)
            return 0;
        if (t->next == 0)
            break;
        at += t->next;
    }
    return -ENOENT;
}

/* Shares a block between two files without names: they are gone when closed. */
static int try_reflink(const char *dir)
{
    AUTO_CLOSE int from = open(dir, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    AUTO_CLOSE int to = open(dir, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    char block[PAGE_BYTES] = {1};
    if (from < 0 || to < 0 || write(from, block, sizeof block) != sizeof block)
        return -errno;
    return ioctl(to, FICLONE, from) < 0 ? -errno : 0;
}

static int look_disk(const char *dir, struct doctor_disk *ret)
{
    struct statvfs v;
    if (statvfs(dir, &v) < 0)
        return -errno;
    ret->total_bytes = (int64_t)v.f_blocks * (int64_t)v.f_frsize;
    ret->free_bytes = (int64_t)v.f_bavail * (int64_t)v.f_frsize;
    return 0;
}

static int64_t look_max_files(void)
{
    struct rlimit r;
    return getrlimit(RLIMIT_NOFILE, &r) == 0 ? (int64_t)r.rlim_max : 0;
}

static bool look_is_root(void)
{
    return geteuid() == 0;
}

const struct doctor_ops doctor_real_ops = {
    .open_device = open_device,
    .userfaultfd = try_userfaultfd,
    .pagemap_scan = try_pagemap_scan,
    .soft_dirty = try_soft_dirty,
    .dm_snapshot = try_dm_snapshot,
    .reflink = try_reflink,
    .disk = look_disk,
    .max_files = look_max_files,
    .is_root = look_is_root,
    .run = tool_run,
};
