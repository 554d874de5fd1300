/* SPDX-License-Identifier: Apache-2.0 */
/* Files of the store: names, blobs checked against what a layout says, syncing. */
#include <errno.h>
#include <fcntl.h>
#include <openssl/sha.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "agent/snap/generations_int.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/io.h"
#include "snap/checksum.h"

void blob_name(const struct uuid *id, char dst[BLOB_NAME_MAX])
{
    uuid_format(id, dst);
}

void blob_sums_name(const struct uuid *id, char dst[BLOB_NAME_MAX])
{
    uuid_format(id, dst);
    memcpy(dst + UUID_TEXT, ".crc", sizeof ".crc");
}

int open_plain(int dirfd, const char *name, struct err *e)
{
    struct stat st;
    AUTO_CLOSE int fd =
        openat(dirfd, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NOCTTY | O_NONBLOCK);
    if (fd < 0 && errno == ELOOP)
        return err_set(e, ERR_INVALID, "open %s: it is a symbolic link", name);
    if (fd < 0 || fstat(fd, &st) < 0)
        return err_sys(e, errno, "open %s", name);
    if (!S_ISREG(st.st_mode))
        return err_set(e, ERR_INVALID, "%s is not a plain file", name);
    return TAKE_FD(fd);
}

int open_folder(int dirfd, const char *name, struct err *e)
{
    int fd = openat(dirfd, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
    return fd < 0 ? err_sys(e, errno, "open folder %s", name) : fd;
}

int open_generation_folder(const struct generation_store *s, const struct uuid *id, struct err *e)
{
    char name[UUID_TEXT + 1];
    uuid_format(id, name);
    return open_folder(s->generations_fd, name, e);
}

int file_map(int fd, void **ret, size_t *ret_n, struct err *e)
{
    struct stat st;
    void *p = NULL;
    if (fstat(fd, &st) < 0)
        return err_sys(e, errno, "stat");
    if (st.st_size > 0) {
        p = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
        if (p == MAP_FAILED)
            return err_sys(e, errno, "map a file");
    }
    *ret = p;
    *ret_n = (size_t)st.st_size;
    return 0;
}

static int check_sums(const struct blob_ref *ref, const void *sums, size_t n, struct err *e)
{
    struct checksums c;
    if (checksums_parse(sums, n, &c, e) < 0)
        return -1;
    if (!uuid_equal(&c.blob, &ref->id) || c.blob_bytes != ref->bytes)
        return err_set(e, ERR_INVALID, "sums of another blob or another length");
    return 0;
}

int blob_ref_make(
    const struct uuid *id, int blob_fd, int sums_fd, struct blob_ref *ret, struct err *e)
{
    struct blob_ref ref = {.id = *id};
    char name[BLOB_NAME_MAX];
    struct stat st;
    void *sums;
    size_t n;
    int rc;
    blob_name(id, name);
    if (fstat(blob_fd, &st) < 0)
        return err_sys(e, errno, "stat blob %s", name);
    ref.bytes = (uint64_t)st.st_size;
    if (file_map(sums_fd, &sums, &n, e) < 0)
        return err_wrap(e, "sums of blob %s", name);
    rc = check_sums(&ref, sums, n, e);
    if (rc == 0)
        (void)SHA256(sums, n, ref.sums_digest);
    if (sums)
        (void)munmap(sums, n);
    if (rc < 0)
        return err_wrap(e, "blob %s", name);
    *ret = ref;
    return 0;
}

/* A generation whose blob is gone is damaged; that is not the same as no such generation. */
static int damaged(struct err *e, const char *name)
{
    if (e->kind == ERR_NOT_FOUND)
        e->kind = ERR_INVALID;
    return err_wrap(e, "blob %s", name);
}

int blob_open(const struct generation_store *s, const struct blob_ref *ref, struct err *e)
{
    char name[BLOB_NAME_MAX];
    char sums_name[BLOB_NAME_MAX];
    struct blob_ref found;
    AUTO_CLOSE int fd = -1;
    AUTO_CLOSE int sums_fd = -1;
    blob_name(&ref->id, name);
    blob_sums_name(&ref->id, sums_name);
    fd = open_plain(s->blobs_fd, name, e);
    if (fd < 0)
        return damaged(e, name);
    sums_fd = open_plain(s->blobs_fd, sums_name, e);
    if (sums_fd < 0)
        return damaged(e, name);
    if (blob_ref_make(&ref->id, fd, sums_fd, &found, e) < 0)
        return -1;
    if (found.bytes != ref->bytes || memcmp(found.sums_digest, ref->sums_digest, DIGEST_BYTES) != 0)
        return err_set(e, ERR_INVALID, "blob %s is not the one of the layout", name);
    return TAKE_FD(fd);
}

int file_create(int dirfd, const char *name, struct slice contents, mode_t mode, struct err *e)
{
    AUTO_CLOSE int fd = openat(dirfd, name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, mode);
    if (fd < 0)
        return err_sys(e, errno, "create %s", name);
    if (io_write_full(fd, contents.p, contents.n, DEADLINE_NEVER, e) < 0)
        return err_wrap(e, "%s", name);
    return TAKE_FD(fd);
}

int files_sync(const int *fds, size_t n, struct err *e)
{
    /* Only ahead of the syncs, which report what fails: a file system may not have these. */
    for (size_t i = 0; i < n; i++)
        (void)sync_file_range(fds[i], 0, 0, SYNC_FILE_RANGE_WRITE);
    for (size_t i = 0; i < n; i++)
        (void)sync_file_range(fds[i], 0, 0, SYNC_FILE_RANGE_WRITE | SYNC_FILE_RANGE_WAIT_AFTER);
    for (size_t i = 0; i < n; i++)
        if (fsync(fds[i]) < 0)
            return err_sys(e, errno, "fsync");
    return 0;
}
