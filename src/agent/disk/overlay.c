/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Empty qcow2 overlays, written without a program.
 *
 * Theory of operation: a fresh overlay is four clusters of 64 KiB: header, refcount table, one
 * refcount block, L1 table. All but about 140 bytes are zeros, so the file is sparse and three
 * small writes make it. One L1 cluster maps 4 TiB, which is the bound on a disk here; one refcount
 * block counts 2 GiB of file, QEMU adds further blocks as the file grows. The header names no
 * backing file: whoever opens the image says what lies under it. Nothing is synced: who answers
 * for a sandbox does that, beside its boot. The format is QEMU's
 * docs/interop/qcow2.txt.
 */
#include "agent/disk/disk.h"

#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

#include "agent/disk/qcow2_int.h"
#include "base/cleanup.h"

/* Clusters of the new file, in order. */
enum { CLUSTER_HEADER, CLUSTER_REFCOUNT_TABLE, CLUSTER_REFCOUNT_BLOCK, CLUSTER_L1, CLUSTER_COUNT };

static uint64_t cluster_offset(unsigned cluster)
{
    return (uint64_t)cluster * QCOW2_CLUSTER;
}

int qcow2_write_at(int fd, uint64_t offset, const void *src, size_t n, struct err *e)
{
    for (size_t done = 0; done < n;) {
        ssize_t put = pwrite(fd, (const char *)src + done, n - done, (off_t)(offset + done));
        if (put == 0 || (put < 0 && errno != EINTR))
            return err_sys(e, put < 0 ? errno : ENOSPC, "write");
        done += put > 0 ? (size_t)put : 0;
    }
    return 0;
}

uint64_t qcow2_l1_entries(uint64_t virtual_bytes)
{
    return (virtual_bytes + QCOW2_L1_REACH - 1) / QCOW2_L1_REACH;
}

int qcow2_check_size(uint64_t virtual_bytes, struct err *e)
{
    if (virtual_bytes == 0 || virtual_bytes % QCOW2_SECTOR != 0 ||
        virtual_bytes > QCOW2_VIRTUAL_MAX)
        return err_set(
            e, ERR_INVALID, "a disk cannot have %llu bytes", (unsigned long long)virtual_bytes);
    return 0;
}

int qcow2_write_header(
    int fd, uint64_t virtual_bytes, const struct qcow2_layout *layout, struct err *e)
{
    struct qcow2_header h = {
        .magic = htobe32(QCOW2_MAGIC),
        .version = htobe32(3),
        .cluster_bits = htobe32(QCOW2_CLUSTER_BITS),
        .size = htobe64(virtual_bytes),
        .l1_size = htobe32((uint32_t)qcow2_l1_entries(virtual_bytes)),
        .l1_table_offset = htobe64(layout->l1 * QCOW2_CLUSTER),
        .refcount_table_offset = htobe64(layout->refcount_table * QCOW2_CLUSTER),
        .refcount_table_clusters = htobe32(layout->refcount_table_clusters),
        .refcount_order = htobe32(QCOW2_REFCOUNT_ORDER),
        .header_length = htobe32(QCOW2_HEADER_BYTES),
    };
    return qcow2_write_at(fd, 0, &h, sizeof h, e);
}

/* The table names one block; the block counts each cluster of the new file once. */
static int write_refcounts(int fd, struct err *e)
{
    uint64_t table = htobe64(cluster_offset(CLUSTER_REFCOUNT_BLOCK));
    uint16_t counts[CLUSTER_COUNT];
    for (int i = 0; i < CLUSTER_COUNT; i++)
        counts[i] = htobe16(1);
    if (qcow2_write_at(fd, cluster_offset(CLUSTER_REFCOUNT_TABLE), &table, sizeof table, e) < 0)
        return -1;
    return qcow2_write_at(fd, cluster_offset(CLUSTER_REFCOUNT_BLOCK), counts, sizeof counts, e);
}

static int fill_overlay(int fd, uint64_t virtual_bytes, uid_t owner, struct err *e)
{
    static const struct qcow2_layout layout = {
        .l1 = CLUSTER_L1, .refcount_table = CLUSTER_REFCOUNT_TABLE, .refcount_table_clusters = 1};
    if (fchmod(fd, 0600) < 0)
        return err_sys(e, errno, "chmod");
    if (ftruncate(fd, (off_t)cluster_offset(CLUSTER_COUNT)) < 0)
        return err_sys(e, errno, "set the size");
    if (write_refcounts(fd, e) < 0 || qcow2_write_header(fd, virtual_bytes, &layout, e) < 0)
        return -1;
    /* Last, so that the new owner never sees half a file. */
    if (fchown(fd, owner, (gid_t)owner) < 0)
        return err_sys(e, errno, "chown to %u", (unsigned)owner);
    return 0;
}

/* A name is one path component, so that `dirfd` alone decides where the file lies. */
static int check_name(const char *name, struct err *e)
{
    if (name[0] == '\0' || strchr(name, '/') || strcmp(name, ".") == 0 || strcmp(name, "..") == 0)
        return err_set(e, ERR_INVALID, "not the name of a file: \"%s\"", name);
    return 0;
}

int disk_overlay_create(
    int dirfd, const char *name, uint64_t virtual_bytes, uid_t owner, struct err *e)
{
    AUTO_CLOSE int fd = -1;
    if (check_name(name, e) < 0)
        return -1;
    if (qcow2_check_size(virtual_bytes, e) < 0)
        return -1;
    /* O_EXCL does not follow a symbolic link either. */
    fd = openat(dirfd, name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0)
        return err_sys(e, errno, "create overlay %s", name);
    if (fill_overlay(fd, virtual_bytes, owner, e) < 0) {
        (void)unlinkat(dirfd, name, 0);
        return err_wrap(e, "overlay %s", name);
    }
    return 0;
}

int disk_overlay_remove(int dirfd, const char *name, struct err *e)
{
    if (check_name(name, e) < 0)
        return -1;
    if (unlinkat(dirfd, name, 0) < 0 && errno != ENOENT)
        return err_sys(e, errno, "remove overlay %s", name);
    return 0;
}

int disk_allocated_bytes(int dirfd, const char *name, uint64_t *ret, struct err *e)
{
    struct stat st;
    if (check_name(name, e) < 0)
        return -1;
    if (fstatat(dirfd, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
        return err_sys(e, errno, "stat %s", name);
    if (!S_ISREG(st.st_mode))
        return err_set(e, ERR_INVALID, "%s is not a regular file", name);
    *ret = (uint64_t)st.st_blocks * 512; /* the unit of st_blocks, whatever the file system's */
    return 0;
}
