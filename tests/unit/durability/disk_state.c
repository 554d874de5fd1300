/* SPDX-License-Identifier: Apache-2.0 */
/* States of the disk after a power cut, made of a recording. */
#include <assert.h>
#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "disk_model.h"

enum { SECTOR = 512, PAGE = 4096, FILE_MAX = 8 << 20 };

uint64_t disk_random(uint64_t *seed)
{
    /* splitmix64 */
    uint64_t z = (*seed += 0x9e3779b97f4a7c15ull);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return z ^ (z >> 31);
}

static uint64_t hash_more(uint64_t h, const void *p, size_t n)
{
    for (const unsigned char *c = p; n-- > 0; c++)
        h = (h ^ *c) * 0x100000001b3ull;
    return h;
}

/* --- which operations have reached the disk --- */

struct cut {
    const struct disk_recording *r;
    size_t n;
    bool *there; /* one for each operation */
    enum disk_variant variant;
    uint64_t *seed;
    unsigned odds; /* of 8, that a name has reached it */
};

/* What must be there before an operation can be. */
static void close_over(struct cut *c)
{
    for (size_t i = c->n; i-- > 0;) {
        const struct disk_op *op = &c->r->ops[i];
        if (!c->there[i] || op->kind > DISK_RENAME)
            continue;
        if (op->before >= 0)
            c->there[op->before] = true;
        if (op->before2 >= 0)
            c->there[op->before2] = true;
        if (op->kind == DISK_UNLINK && c->r->inodes[op->inode].type == DISK_FOLDER)
            for (size_t j = 0; j < i; j++)
                if (c->r->ops[j].kind <= DISK_RENAME &&
                    (c->r->ops[j].dir == op->inode || c->r->ops[j].dir2 == op->inode))
                    c->there[j] = true;
    }
}

static bool has_reached(const struct cut *c, const struct disk_op *op)
{
    bool is_name = op->kind <= DISK_RENAME;
    switch (c->variant) {
    case DISK_SYNCED:
        return false;
    case DISK_ALL:
        return true;
    case DISK_NAMES:
        return is_name;
    case DISK_CONTENTS:
        return !is_name;
    default:
        return disk_random(c->seed) % 8 < c->odds;
    }
}

static void choose(struct cut *c)
{
    if (c->variant == DISK_RANDOM)
        c->odds = 1 + disk_random(c->seed) % 7;
    for (size_t i = 0; i < c->n; i++) {
        const struct disk_op *op = &c->r->ops[i];
        c->there[i] = op->durable < (int)c->n || has_reached(c, op);
    }
    close_over(c);
}

/* --- files --- */

struct contents {
    char *p; /* FILE_MAX, zeros behind `n` */
    size_t n;
    size_t most; /* ever */
};

static void put(struct contents *f, size_t at, const char *p, size_t n)
{
    assert(at + n <= FILE_MAX);
    memcpy(f->p + at, p, n);
    if (at + n > f->n)
        f->n = at + n;
    if (f->n > f->most)
        f->most = f->n;
}

/* A write that was under way: up to a border, or with a hole in front, or only the new size. */
static void put_torn(struct contents *f, const struct disk_op *op, uint64_t *seed)
{
    size_t unit = disk_random(seed) % 2 ? SECTOR : PAGE;
    size_t end = (size_t)op->offset + op->n;
    size_t border = ((size_t)op->offset / unit + disk_random(seed) % (op->n / unit + 2)) * unit;
    if (border < (size_t)op->offset)
        border = (size_t)op->offset;
    if (border > end)
        border = end;
    switch (disk_random(seed) % 3) {
    case 0:
        put(f, (size_t)op->offset, op->bytes, border - (size_t)op->offset);
        break;
    case 1:
        put(f, border, op->bytes + (border - (size_t)op->offset), end - border);
        break;
    default:
        if (end > f->n)
            f->n = end;
        if (f->n > f->most)
            f->most = f->n;
    }
}

static void set_size(struct contents *f, size_t n)
{
    assert(n <= FILE_MAX);
    if (n < f->n)
        memset(f->p + n, 0, f->n - n);
    f->n = n;
    if (n > f->most)
        f->most = n;
}

static void fill(struct cut *c, int inode, struct contents *f)
{
    for (size_t i = 0; i < c->n; i++) {
        const struct disk_op *op = &c->r->ops[i];
        bool loose = op->durable >= (int)c->n;
        if (op->inode != inode || (op->kind != DISK_WRITE && op->kind != DISK_TRUNCATE))
            continue;
        if (op->kind == DISK_TRUNCATE && c->there[i])
            set_size(f, (size_t)op->offset);
        else if (op->kind == DISK_WRITE && loose && c->variant == DISK_RANDOM &&
                 disk_random(c->seed) % 3 == 0)
            put_torn(f, op, c->seed);
        else if (op->kind == DISK_WRITE && c->there[i])
            put(f, (size_t)op->offset, op->bytes, op->n);
    }
}

static uint64_t make_file(struct cut *c, int inode, int fd)
{
    static struct contents f;
    uint64_t h;
    if (!f.p)
        f.p = calloc(1, FILE_MAX);
    assert(f.p);
    fill(c, inode, &f);
    for (size_t at = 0; at < f.n;) {
        /* Zeros stay holes. */
        size_t n = f.n - at < PAGE ? f.n - at : PAGE;
        bool zeros = f.p[at] == 0 && memcmp(f.p + at, f.p + at + 1, n - 1) == 0;
        assert(zeros || pwrite(fd, f.p + at, n, (off_t)at) == (ssize_t)n);
        at += n;
    }
    assert(ftruncate(fd, (off_t)f.n) == 0);
    h = hash_more(0xcbf29ce484222325ull, f.p, f.n);
    memset(f.p, 0, f.most);
    f.n = f.most = 0;
    return h;
}

/* --- the tree --- */

struct entry {
    const char *name;
    int inode;
};

struct names {
    struct entry *items;
    size_t n, cap;
};

static void set_name(struct names *d, const char *name, int inode)
{
    for (size_t i = 0; i < d->n; i++) {
        if (strcmp(d->items[i].name, name) != 0)
            continue;
        d->items[i].inode = inode;
        return;
    }
    if (d->n == d->cap) {
        d->cap = d->cap ? d->cap * 2 : 16;
        d->items = reallocarray(d->items, d->cap, sizeof *d->items);
        assert(d->items);
    }
    d->items[d->n++] = (struct entry){name, inode};
}

/* What the folder has, in the order of names; -1 for a name that went again. */
static struct names read_names(const struct cut *c, int dir)
{
    struct names d = {0};
    for (size_t i = 0; i < c->n; i++) {
        const struct disk_op *op = &c->r->ops[i];
        if (!c->there[i] || op->kind > DISK_RENAME)
            continue;
        if (op->dir == dir)
            set_name(&d, op->name, op->kind == DISK_LINK ? op->inode : -1);
        if (op->kind == DISK_RENAME && op->dir2 == dir)
            set_name(&d, op->name2, op->inode);
    }
    return d;
}

/* Inodes of what is made, for the second name of a file. */
struct made {
    char (*paths)[PATH_MAX / 8];
    uint64_t *hashes;
};

static uint64_t make_folder(struct cut *c, const struct made *made, int inode, const char *path);

static uint64_t make_entry(
    struct cut *c, const struct made *made, const struct entry *en, const char *folder)
{
    struct disk_inode *inode = &c->r->inodes[en->inode];
    char *path = made->paths[en->inode];
    char here[sizeof made->paths[0]];
    struct stat st;
    int fd;
    assert(snprintf(here, sizeof here, "%s/%s", folder, en->name) < (int)sizeof here);
    if (path[0] && inode->type == DISK_FILE) {
        assert(link(path, here) == 0);
        return made->hashes[en->inode];
    }
    memcpy(path, here, sizeof here);
    if (inode->type == DISK_SYMLINK) {
        assert(symlink(inode->target, here) == 0);
    } else if (inode->type == DISK_FOLDER) {
        assert(mkdir(here, 0700) == 0);
        made->hashes[en->inode] = make_folder(c, made, en->inode, here);
    } else {
        fd = open(here, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
        assert(fd >= 0);
        made->hashes[en->inode] = make_file(c, en->inode, fd);
        (void)close(fd);
    }
    assert(lstat(here, &st) == 0);
    inode->real = st.st_ino;
    return made->hashes[en->inode];
}

/* The hash does not depend on the order of names. */
static uint64_t make_folder(struct cut *c, const struct made *made, int inode, const char *path)
{
    struct names d = read_names(c, inode);
    uint64_t h = 0;
    for (size_t i = 0; i < d.n; i++) {
        uint64_t one;
        if (d.items[i].inode < 0)
            continue;
        one = make_entry(c, made, &d.items[i], path);
        h += hash_more(one, d.items[i].name, strlen(d.items[i].name));
    }
    free(d.items);
    return hash_more(h, &h, sizeof h);
}

uint64_t disk_make(
    const struct disk_recording *r, size_t n, enum disk_variant v, uint64_t *seed, const char *dst)
{
    struct cut c = {.r = r, .n = n, .variant = v, .seed = seed};
    struct made made;
    struct stat st;
    uint64_t h;
    c.there = calloc(n + 1, sizeof *c.there);
    made.paths = calloc(r->n_inodes, sizeof *made.paths);
    made.hashes = calloc(r->n_inodes, sizeof *made.hashes);
    assert(c.there && made.paths && made.hashes);
    for (size_t i = 0; i < r->n_inodes; i++)
        r->inodes[i].real = 0;
    choose(&c);
    assert(stat(dst, &st) == 0);
    r->inodes[0].real = st.st_ino;
    h = make_folder(&c, &made, 0, dst);
    free(c.there);
    free(made.paths);
    free(made.hashes);
    return h;
}

static uint64_t hash_entry(int dirfd, const char *name);

static uint64_t hash_folder(int fd)
{
    DIR *d = fdopendir(fd);
    const struct dirent *entry;
    uint64_t h = 0;
    assert(d);
    while ((entry = readdir(d)))
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
            h += hash_entry(fd, entry->d_name);
    (void)closedir(d);
    return hash_more(h, &h, sizeof h);
}

static uint64_t hash_entry(int dirfd, const char *name)
{
    char chunk[PAGE];
    struct stat st;
    uint64_t h = 0xcbf29ce484222325ull;
    ssize_t got;
    int fd = openat(dirfd, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0)
        return hash_more(h, name, strlen(name)); /* a symbolic link */
    assert(fstat(fd, &st) == 0);
    if (S_ISDIR(st.st_mode))
        return hash_more(hash_folder(fd), name, strlen(name));
    while ((got = read(fd, chunk, sizeof chunk)) > 0)
        h = hash_more(h, chunk, (size_t)got);
    (void)close(fd);
    return hash_more(h, name, strlen(name));
}

uint64_t disk_hash(const char *path)
{
    return hash_entry(AT_FDCWD, path);
}
