/* SPDX-License-Identifier: Apache-2.0 */
/* The recorder. */
#include "disk_model.h"

#include <assert.h>
#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"

/* As the linker calls the real ones: nothing here may be made to fail. */
int __real_fstat64(int fd, struct stat *st);
int __real_fstatat64(int fd, const char *path, struct stat *st, int flags);
ssize_t __real_pread64(int fd, void *p, size_t n, off_t offset);
int __real_openat64(int dirfd, const char *path, int flags, ...);

pthread_mutex_t disk_lock = PTHREAD_MUTEX_INITIALIZER;
static struct disk_recording now;
static bool recording;
static dev_t device;
/* What is being unlinked. */
static struct disk_op unlinking;

static struct disk_op *add_op(enum disk_op_kind kind)
{
    if (now.n == now.cap) {
        now.cap = now.cap ? now.cap * 2 : 256;
        now.ops = reallocarray(now.ops, now.cap, sizeof *now.ops);
        assert(now.ops);
    }
    now.ops[now.n] = (struct disk_op){.kind = kind, .inode = -1, .dir = -1, .dir2 = -1};
    return &now.ops[now.n++];
}

static int add_inode(const struct stat *st, const char *target)
{
    if (now.n_inodes == now.cap_inodes) {
        now.cap_inodes = now.cap_inodes ? now.cap_inodes * 2 : 64;
        now.inodes = reallocarray(now.inodes, now.cap_inodes, sizeof *now.inodes);
        assert(now.inodes);
    }
    now.inodes[now.n_inodes] = (struct disk_inode){.real = st->st_ino,
        .type = S_ISDIR(st->st_mode)   ? DISK_FOLDER
                : S_ISLNK(st->st_mode) ? DISK_SYMLINK
                                       : DISK_FILE,
        .target = target ? strdup(target) : NULL};
    return (int)now.n_inodes++;
}

/* The newest with that number, as numbers are used again; -1: not one of ours. */
static int find_inode(const struct stat *st)
{
    if (st->st_dev != device)
        return -1;
    for (size_t i = now.n_inodes; i-- > 0;)
        if (now.inodes[i].real == st->st_ino)
            return (int)i;
    return -1;
}

static int inode_of_fd(int fd)
{
    struct stat st;
    return recording && __real_fstat64(fd, &st) == 0 ? find_inode(&st) : -1;
}

/* The folder that `path` is in, and its name there. False when that is not ours. */
static bool find_name(int dirfd, const char *path, int *ret_dir, char name[DISK_NAME_MAX])
{
    const char *slash = strrchr(path, '/');
    char folder[PATH_MAX] = ".";
    struct stat st;
    if (!recording)
        return false;
    if (slash == path)
        (void)snprintf(folder, sizeof folder, "/");
    else if (slash)
        (void)snprintf(folder, sizeof folder, "%.*s", (int)(slash - path), path);
    (void)snprintf(name, DISK_NAME_MAX, "%s", slash ? slash + 1 : path);
    if (__real_fstatat64(dirfd, folder, &st, 0) < 0)
        return false;
    *ret_dir = find_inode(&st);
    return *ret_dir >= 0;
}

void disk_saw_new(int dirfd, const char *path)
{
    char name[DISK_NAME_MAX];
    struct disk_op *op;
    struct stat st;
    int dir;
    int inode;
    if (!find_name(dirfd, path, &dir, name))
        return;
    assert(__real_fstatat64(dirfd, path, &st, AT_SYMLINK_NOFOLLOW) == 0);
    /* A second name of a file, or a new file. */
    inode = st.st_nlink > 1 && S_ISREG(st.st_mode) ? find_inode(&st) : add_inode(&st, NULL);
    op = add_op(DISK_LINK);
    op->dir = dir;
    op->inode = inode;
    memcpy(op->name, name, sizeof op->name);
}

void disk_will_unlink(int dirfd, const char *path)
{
    struct stat st;
    unlinking = (struct disk_op){.kind = DISK_UNLINK, .inode = -1, .dir2 = -1};
    if (find_name(dirfd, path, &unlinking.dir, unlinking.name) &&
        __real_fstatat64(dirfd, path, &st, AT_SYMLINK_NOFOLLOW) == 0)
        unlinking.inode = find_inode(&st);
}

void disk_did_unlink(bool worked)
{
    if (worked && unlinking.inode >= 0)
        *add_op(DISK_UNLINK) = unlinking;
}

void disk_saw_rename(int from, const char *path, int to, const char *name)
{
    char old_name[DISK_NAME_MAX];
    char new_name[DISK_NAME_MAX];
    struct disk_op *op;
    struct stat st;
    int dir;
    int dir2;
    if (!find_name(from, path, &dir, old_name) || !find_name(to, name, &dir2, new_name))
        return;
    assert(__real_fstatat64(to, name, &st, AT_SYMLINK_NOFOLLOW) == 0);
    op = add_op(DISK_RENAME);
    op->dir = dir;
    op->dir2 = dir2;
    op->inode = find_inode(&st);
    memcpy(op->name, old_name, sizeof op->name);
    memcpy(op->name2, new_name, sizeof op->name2);
}

static void add_write(int inode, const void *p, size_t n, off_t offset)
{
    struct disk_op *op = add_op(DISK_WRITE);
    op->inode = inode;
    op->offset = offset;
    op->n = n;
    op->bytes = malloc(n);
    assert(op->bytes);
    memcpy(op->bytes, p, n);
}

void disk_saw_write(int fd, const void *p, size_t n, off_t offset)
{
    int inode = inode_of_fd(fd);
    if (inode >= 0)
        add_write(inode, p, n, offset >= 0 ? offset : lseek(fd, 0, SEEK_CUR) - (off_t)n);
}

void disk_saw_copy(int fd, size_t n, off_t offset)
{
    int inode = inode_of_fd(fd);
    char *p = malloc(n);
    assert(p);
    if (offset < 0)
        offset = lseek(fd, 0, SEEK_CUR) - (off_t)n;
    if (inode >= 0 && __real_pread64(fd, p, n, offset) == (ssize_t)n)
        add_write(inode, p, n, offset);
    free(p);
}

static void add_of_file(enum disk_op_kind kind, int fd, off_t size)
{
    int inode = inode_of_fd(fd);
    struct disk_op *op;
    if (inode < 0)
        return;
    op = add_op(kind);
    op->inode = inode;
    op->offset = size;
}

void disk_saw_truncate(int fd, off_t size)
{
    add_of_file(DISK_TRUNCATE, fd, size);
}

void disk_saw_sync(int fd)
{
    add_of_file(DISK_SYNC, fd, 0);
}

void disk_saw_sync_all(int fd)
{
    add_of_file(DISK_SYNC_ALL, fd, 0);
}

void disk_mark(void)
{
    DISK_GUARD();
    if (recording)
        (void)add_op(DISK_MARK);
}

size_t disk_count(void)
{
    DISK_GUARD();
    return now.n;
}

/* --- what is there at the beginning --- */

static void read_contents(int fd, int inode)
{
    char chunk[8192];
    off_t at = 0;
    ssize_t got;
    while ((got = __real_pread64(fd, chunk, sizeof chunk, at)) > 0) {
        add_write(inode, chunk, (size_t)got, at);
        at += got;
    }
}

static void read_tree(int fd, int dir);

static void read_entry(int fd, int dir, const char *name)
{
    char target[PATH_MAX] = "";
    struct disk_op *op;
    struct stat st;
    int inode;
    int child;
    assert(__real_fstatat64(fd, name, &st, AT_SYMLINK_NOFOLLOW) == 0);
    inode = st.st_nlink > 1 && S_ISREG(st.st_mode) ? find_inode(&st) : -1;
    if (S_ISLNK(st.st_mode))
        (void)!readlinkat(fd, name, target, sizeof target - 1);
    if (inode < 0) {
        inode = add_inode(&st, S_ISLNK(st.st_mode) ? target : NULL);
        child = S_ISLNK(st.st_mode) ? -1 : __real_openat64(fd, name, O_RDONLY | O_CLOEXEC);
        if (S_ISREG(st.st_mode))
            read_contents(child, inode);
        else if (S_ISDIR(st.st_mode))
            read_tree(child, inode);
        if (child >= 0)
            (void)close(child);
    }
    op = add_op(DISK_LINK);
    op->dir = dir;
    op->inode = inode;
    (void)snprintf(op->name, sizeof op->name, "%s", name);
}

static void read_tree(int fd, int dir)
{
    DIR *d = fdopendir(__real_openat64(fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    const struct dirent *entry;
    assert(d);
    while ((entry = readdir(d)))
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
            read_entry(fd, dir, entry->d_name);
    (void)closedir(d);
}

void disk_record(const char *root)
{
    int fd = __real_openat64(AT_FDCWD, root, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    struct stat st;
    DISK_GUARD();
    assert(__real_fstat64(fd, &st) == 0);
    now = (struct disk_recording){0};
    device = st.st_dev;
    (void)add_inode(&st, NULL);
    read_tree(fd, 0);
    (void)close(fd);
    now.n_base = now.n;
    recording = true;
}

static void copy_ops(const struct disk_recording *r, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        const struct disk_op *from = &r->ops[i];
        struct disk_op *op = add_op(from->kind);
        *op = *from;
        if (from->bytes) {
            op->bytes = malloc(from->n);
            assert(op->bytes);
            memcpy(op->bytes, from->bytes, from->n);
        }
    }
}

void disk_record_on(const struct disk_recording *r, size_t n, const char *root)
{
    int fd = __real_openat64(AT_FDCWD, root, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    struct stat st;
    DISK_GUARD();
    now = (struct disk_recording){.n_base = r->n_base};
    assert(__real_fstat64(fd, &st) == 0);
    device = st.st_dev;
    (void)close(fd);
    for (size_t i = 0; i < r->n_inodes; i++) {
        st = (struct stat){.st_ino = r->inodes[i].real};
        (void)add_inode(&st, r->inodes[i].target);
        now.inodes[i].type = r->inodes[i].type;
    }
    copy_ops(r, n);
    recording = true;
}

/* --- the end --- */

static bool touches(const struct disk_op *op, int dir, const char *name)
{
    if (op->kind > DISK_RENAME)
        return false;
    return (op->dir == dir && strcmp(op->name, name) == 0) ||
           (op->kind == DISK_RENAME && op->dir2 == dir && strcmp(op->name2, name) == 0);
}

static int last_before(size_t i, int dir, const char *name)
{
    while (i-- > 0)
        if (touches(&now.ops[i], dir, name))
            return (int)i;
    return -1;
}

static bool makes_durable(const struct disk_op *sync, const struct disk_op *op)
{
    if (sync->kind == DISK_SYNC_ALL)
        return true;
    if (sync->kind != DISK_SYNC)
        return false;
    return op->kind <= DISK_RENAME ? sync->inode == op->dir || sync->inode == op->dir2
                                   : sync->inode == op->inode;
}

struct disk_recording disk_recorded(void)
{
    struct disk_recording ret;
    DISK_GUARD();
    recording = false;
    for (size_t i = 0; i < now.n; i++) {
        struct disk_op *op = &now.ops[i];
        op->before = op->kind <= DISK_RENAME ? last_before(i, op->dir, op->name) : -1;
        op->before2 = op->kind == DISK_RENAME ? last_before(i, op->dir2, op->name2) : -1;
        op->durable = i < now.n_base ? 0 : INT32_MAX;
        for (size_t j = i + 1; op->durable == INT32_MAX && j < now.n; j++)
            if (makes_durable(&now.ops[j], op))
                op->durable = (int)j;
    }
    ret = now;
    now = (struct disk_recording){0};
    return ret;
}

void disk_free(struct disk_recording *r)
{
    for (size_t i = 0; i < r->n; i++)
        free(r->ops[i].bytes);
    for (size_t i = 0; i < r->n_inodes; i++)
        free(r->inodes[i].target);
    free(r->ops);
    free(r->inodes);
    *r = (struct disk_recording){0};
}
