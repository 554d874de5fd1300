/* SPDX-License-Identifier: Apache-2.0 */
/* What the host has: files, the page cache, pages that a process has written. */
#include <dirent.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "bench_sleep.h"

/* --- files --- */

static struct tree measured; /* nftw has no context; one thread measures */

static int measure_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)path;
    (void)ftw;
    if (type == FTW_F) {
        measured.files++;
        measured.bytes += (uint64_t)st->st_blocks * 512;
    }
    return 0;
}

void tree_measure(const char *path, struct tree *ret)
{
    measured = (struct tree){0};
    (void)nftw(path, measure_one, 16, FTW_PHYS);
    *ret = measured;
}

void listing_take(const char *path, struct listing *ret)
{
    DIR *d = opendir(path);
    struct dirent *ent;
    ret->n = 0;
    while (d && (ent = readdir(d)) && ret->n < ARRAY_LEN(ret->names))
        (void)snprintf(ret->names[ret->n++], sizeof ret->names[0], "%.63s", ent->d_name);
    if (d)
        (void)closedir(d);
}

static bool listing_has(const struct listing *l, const char *name)
{
    for (size_t i = 0; i < l->n; i++)
        if (strcmp(l->names[i], name) == 0)
            return true;
    return false;
}

uint64_t listing_new_bytes(const char *path, const struct listing *before)
{
    static struct listing now;
    uint64_t bytes = 0;
    listing_take(path, &now);
    for (size_t i = 0; i < now.n; i++) {
        char one[256];
        struct tree t;
        if (listing_has(before, now.names[i]))
            continue;
        (void)snprintf(one, sizeof one, "%s/%s", path, now.names[i]);
        tree_measure(one, &t);
        bytes += t.bytes;
    }
    return bytes;
}

size_t entries_count(const char *path, const char *prefix)
{
    DIR *d = opendir(path);
    struct dirent *ent;
    size_t n = 0;
    while (d && (ent = readdir(d)))
        n += ent->d_name[0] != '.' && strncmp(ent->d_name, prefix, strlen(prefix)) == 0;
    if (d)
        (void)closedir(d);
    return n;
}

/* --- page cache --- */

static int cool_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    AUTO_CLOSE int fd = -1;
    (void)st;
    (void)ftw;
    if (type != FTW_F)
        return 0;
    fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd >= 0)
        (void)posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
    return 0;
}

void cool_tree(const char *path)
{
    char *real = realpath(path, NULL);
    if (real)
        (void)nftw(real, cool_one, 16, FTW_PHYS);
    free(real);
}

/* --- pages --- */

/* Of the kernel's linux/fs.h, which is older than 6.7 on some systems. */
struct scan_region {
    uint64_t start, end, categories;
};
struct scan_arg {
    uint64_t size, flags, start, end, walk_end, vec, vec_len, max_pages;
    uint64_t category_inverted, category_mask, category_anyof_mask, return_mask;
};
#define SCAN_REQUEST _IOWR('f', 16, struct scan_arg)
enum { SCAN_FILE = 1 << 2, SCAN_PRESENT = 1 << 3, SCAN_SWAPPED = 1 << 4, SCAN_REGIONS = 512 };

bool scan_written(pid_t pid, uint64_t start, uint64_t end,
    void (*each)(void *ctx, uint64_t start, uint64_t end), void *ctx)
{
    struct scan_region regions[SCAN_REGIONS];
    char path[64];
    AUTO_CLOSE int fd = -1;
    (void)snprintf(path, sizeof path, "/proc/%d/pagemap", (int)pid);
    fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return false;
    while (start < end) {
        struct scan_arg arg = {.size = sizeof arg,
            .start = start,
            .end = end,
            .vec = (uintptr_t)regions,
            .vec_len = SCAN_REGIONS,
            .category_inverted = SCAN_FILE,
            .category_mask = SCAN_FILE,
            .category_anyof_mask = SCAN_PRESENT | SCAN_SWAPPED,
            .return_mask = SCAN_PRESENT};
        int n = ioctl(fd, SCAN_REQUEST, &arg);
        if (n < 0)
            return false;
        for (int i = 0; i < n; i++)
            each(ctx, regions[i].start, regions[i].end);
        start = arg.walk_end;
    }
    return true;
}
