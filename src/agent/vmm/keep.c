/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The store of the VMM's files.
 *
 * Theory of operation: <keep_dir>/<digest>/ holds one set: its files, named by number, and a
 * manifest. A set is immutable, but for the part of the manifest that says which files of the host
 * it was copied from; the last start wins. What is hashed is the copy, so a digest is always that
 * of what is kept, whatever happens to the host's files meanwhile; a file that changed while it was
 * copied has another time of change at the next start.
 *
 * A set is made aside, in .new-<random>, synced, and renamed to its digest. Its maker holds a lock
 * (flock) on the folder; a folder aside that nobody has locked was left by a crash and is swept by
 * whoever comes next. A set to be removed is renamed to .old-<random> first, so what has a digest's
 * name is complete; if it is damaged nevertheless, the next start that makes it exchanges it. VMs
 * run on: their jails hold the files themselves.
 */
#include "agent/vmm/keep.h"

#include <assert.h>
#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/fs.h>
#include <openssl/evp.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/stat.h>

#include "agent/vmm/keep_manifest.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/io.h"
#include "base/proc.h"
#include "base/rand.h"

#define ASIDE_NEW ".new-"
#define ASIDE_OLD ".old-"

enum {
    CHUNK_BYTES = 128 << 10,
    COPY_STEP_BYTES = 64 << 20,
    FILE_BYTES_MAX = 1 << 30, /* Debian's largest is QEMU itself, 18 MB */
    ASIDE_RANDOM = 12,        /* 60 bits */
    ASIDE_BYTES = sizeof ASIDE_NEW + ASIDE_RANDOM,
    ASIDE_TRIES = 8,
    VERSION_MS = 30 * 1000, /* 10 ms; 0.5 s from a cold disk */
};

static_assert(sizeof((struct vmm_facts *)NULL)->digest > KEPT_DIGEST_CHARS, "a digest fits");
static_assert(sizeof((struct vmm_facts *)NULL)->version == KEPT_VERSION_BYTES, "so does it");

static void free_set(struct kept_set **set)
{
    (void)kept_set_free(*set);
}
#define AUTO_SET CLEANUP(free_set)

static void close_folder(DIR **d)
{
    if (*d)
        (void)closedir(*d);
}

/* A stream of its own over the folder, NULL on failure. */
static DIR *list_folder(int dir_fd, struct err *e)
{
    AUTO_CLOSE int fd = openat(dir_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *d = fd < 0 ? NULL : fdopendir(fd);
    if (!d) {
        err_sys(e, errno, "list the kept sets of files");
        return NULL;
    }
    fd = -1; /* the stream's */
    return d;
}

static int sync_folder(int dir_fd, struct err *e)
{
    return fsync(dir_fd) < 0 ? err_sys(e, errno, "fsync of a folder of kept files") : 0;
}

/* --- Copying --- */

static int write_rest(int src, int dst, struct err *e)
{
    AUTO_FREE char *chunk = malloc(CHUNK_BYTES);
    ssize_t got;
    if (!chunk)
        return err_sys(e, ENOMEM, "copy");
    while ((got = read(src, chunk, CHUNK_BYTES)) != 0) {
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return err_sys(e, errno, "read");
        if (io_write_full(dst, chunk, (size_t)got, DEADLINE_NEVER, e) < 0)
            return -1;
    }
    return 0;
}

/* Shares the blocks where the file system can, else copies in the kernel as far as it can (both
 * descriptors move along), else here. */
static int copy_bytes(int src, int dst, struct err *e)
{
    ssize_t got;
    if (ioctl(dst, FICLONE, src) == 0)
        return 0;
    do
        got = copy_file_range(src, NULL, dst, NULL, COPY_STEP_BYTES, 0);
    while (got > 0);
    return write_rest(src, dst, e);
}

static int hash_chunks(EVP_MD_CTX *md, int fd, struct kept_file *ret, struct err *e)
{
    AUTO_FREE char *chunk = malloc(CHUNK_BYTES);
    unsigned char sum[EVP_MAX_MD_SIZE];
    unsigned len;
    int64_t at = 0;
    ssize_t got;
    if (!chunk || EVP_DigestInit_ex(md, EVP_sha256(), NULL) != 1)
        return err_sys(e, ENOMEM, "hash");
    while ((got = pread(fd, chunk, CHUNK_BYTES, at)) != 0) {
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return err_sys(e, errno, "read back");
        if (EVP_DigestUpdate(md, chunk, (size_t)got) != 1)
            return err_set(e, ERR_INTERNAL, "SHA-256 failed");
        at += got;
    }
    if (EVP_DigestFinal_ex(md, sum, &len) != 1)
        return err_set(e, ERR_INTERNAL, "SHA-256 failed");
    hex_encode(sum, len, ret->sha256);
    ret->size = at;
    return 0;
}

static int hash_file(int fd, struct kept_file *ret, struct err *e)
{
    EVP_MD_CTX *md = EVP_MD_CTX_new();
    int rc = md ? hash_chunks(md, fd, ret, e) : err_sys(e, ENOMEM, "hash");
    EVP_MD_CTX_free(md);
    return rc;
}

static int open_source(const char *path, struct kept_source *ret, struct err *e)
{
    struct stat st;
    AUTO_CLOSE int fd = open(path, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    if (fd < 0)
        return err_sys(e, errno, "open");
    if (fstat(fd, &st) < 0)
        return err_sys(e, errno, "stat");
    if (!S_ISREG(st.st_mode))
        return err_set(e, ERR_INVALID, "not a regular file");
    if (st.st_size > FILE_BYTES_MAX)
        return err_set(e, ERR_TOO_LARGE, "longer than %d bytes", FILE_BYTES_MAX);
    *ret = kept_source_of(&st);
    return TAKE_FD(fd);
}

/* Copies one file into the folder as number `i`. */
static int keep_file(
    int dir_fd, size_t i, const struct vmm_file *file, struct kept_file *ret, struct err *e)
{
    char name[KEPT_NAME_BYTES];
    AUTO_CLOSE int dst = -1;
    AUTO_CLOSE int src = open_source(file->source, &ret->source, e);
    if (src < 0)
        return -1;
    kept_name(i, name);
    dst = openat(dir_fd, name, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (dst < 0)
        return err_sys(e, errno, "create the copy");
    if (copy_bytes(src, dst, e) < 0 || hash_file(dst, ret, e) < 0)
        return -1;
    if (fchmod(dst, file->exec ? 0555 : 0444) < 0 || fsync(dst) < 0)
        return err_sys(e, errno, "sync the copy");
    return 0;
}

/* --- The version --- */

/* "QEMU emulator version 7.2.22 (Debian ...)": the word behind "version". */
static int parse_version(struct slice line, char dst[KEPT_VERSION_BYTES], struct err *e)
{
    static const struct slice before = SLICE_LIT(" version ");
    static const char allowed[] =
        "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.+-_~";
    const char *p = memmem(line.p, line.n, before.p, before.n);
    size_t n = 0;
    if (p) {
        p += before.n;
        while (p + n < line.p + line.n && p[n] && strchr(allowed, p[n]))
            n++;
    }
    if (n == 0 || !slice_copy_cstr(slice_of(p, n), dst, KEPT_VERSION_BYTES))
        return err_set(e, ERR_UNSUPPORTED, "it does not say its version");
    return 0;
}

/* Reads the first line, or as much of it as there is room for. */
static int read_line(int fd, struct buf *line, struct err *e)
{
    int64_t deadline = deadline_in_ms(VERSION_MS);
    ssize_t got = 1;
    while (got > 0 && line->len < line->max && !memchr(line->p ? line->p : "", '\n', line->len)) {
        char *room = buf_reserve(line, line->max - line->len);
        if (!room)
            return err_sys(e, ENOMEM, "read");
        got = io_read(fd, room, line->max - line->len, deadline, e);
        if (got < 0)
            return -1;
        buf_commit(line, (size_t)got);
    }
    return 0;
}

/* Runs `<program> -version`. It is ended once it has said its first line. */
static int ask_version(const char *program, char dst[KEPT_VERSION_BYTES], struct err *e)
{
    AUTO_BUF struct buf line = BUF_INIT(256);
    char option[] = "-version";
    char *const argv[] = {(char *)(uintptr_t)program, option, NULL};
    int ends[2];
    struct err ignored;
    int status;
    int rc;
    pid_t pid;
    if (pipe2(ends, O_CLOEXEC) < 0)
        return err_sys(e, errno, "pipe");
    AUTO_CLOSE int from = ends[0];
    AUTO_CLOSE int to = ends[1];
    const int fds[] = {-1, to, -1};
    if (proc_spawn(&(struct proc_spawn){.path = program, .argv = argv, .fds = fds, .n_fds = 3},
            &pid, e) < 0)
        return -1;
    (void)close(TAKE_FD(to));
    rc = read_line(from, &line, e);
    (void)kill(pid, SIGKILL); /* a child that is not reaped yet */
    (void)proc_reap(pid, &status, &ignored);
    if (rc == 0)
        rc = parse_version(buf_slice(&line), dst, e);
    return rc < 0 ? err_wrap(e, "%s -version", program) : 0;
}

/* --- Folders aside --- */

/* A set that is being made. */
struct aside {
    char name[ASIDE_BYTES];
    int fd; /* locked */
};

static void aside_name(const char *prefix, char dst[ASIDE_BYTES])
{
    char random[ASIDE_RANDOM + 1];
    rand_base32(random, ASIDE_RANDOM);
    (void)snprintf(dst, ASIDE_BYTES, "%s%s", prefix, random);
}

static bool is_aside(const char *name)
{
    return strncmp(name, ASIDE_NEW, strlen(ASIDE_NEW)) == 0 ||
           strncmp(name, ASIDE_OLD, strlen(ASIDE_OLD)) == 0;
}

/* Opens and locks a folder aside; -1 when its maker lives, or when it is gone. */
static int lock_aside(int keep_fd, const char *name)
{
    struct stat st;
    AUTO_CLOSE int fd = openat(keep_fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0 || flock(fd, LOCK_EX | LOCK_NB) < 0 || fstat(fd, &st) < 0 || st.st_nlink == 0)
        return -1;
    return TAKE_FD(fd);
}

/* Another start may take the new folder for one that was left, until it is locked: then again. */
static int aside_make(int keep_fd, struct aside *ret, struct err *e)
{
    for (int i = 0; i < ASIDE_TRIES; i++) {
        aside_name(ASIDE_NEW, ret->name);
        if (mkdirat(keep_fd, ret->name, 0755) < 0)
            return err_sys(e, errno, "make a folder for the VMM's files");
        ret->fd = lock_aside(keep_fd, ret->name);
        if (ret->fd >= 0 && fchmod(ret->fd, 0755) < 0)
            return err_sys(e, errno, "make a folder for the VMM's files");
        if (ret->fd >= 0)
            return 0;
    }
    return err_set(e, ERR_CONFLICT, "others remove the folder for the VMM's files");
}

/* Removes what crashes have left. What cannot be removed now can later: no error. */
static void sweep(int keep_fd)
{
    struct err ignored;
    CLEANUP(close_folder) DIR *d = list_folder(keep_fd, &ignored);
    const struct dirent *ent;
    while (d && (ent = readdir(d))) {
        AUTO_CLOSE int fd = is_aside(ent->d_name) ? lock_aside(keep_fd, ent->d_name) : -1;
        if (fd >= 0)
            (void)io_remove_tree(keep_fd, ent->d_name, &ignored);
    }
}

/* --- Finding a set --- */

static bool same_path(const char *a, const char *b)
{
    return strcmp(a, b) == 0;
}

/* The set holds exactly these files, and its sources are still as they were. */
static bool is_current(const struct kept_set *set, const struct vmm_files *found)
{
    const struct vmm_files *kept = set->files;
    if (kept->n != found->n || !same_path(kept->program, found->program) ||
        !same_path(kept->bios, found->bios))
        return false;
    for (size_t i = 0; i < found->n; i++) {
        struct stat st;
        struct kept_source now;
        if (!same_path(kept->items[i].target, found->items[i].target) ||
            kept->items[i].exec != found->items[i].exec || stat(found->items[i].source, &st) < 0)
            return false;
        now = kept_source_of(&st);
        if (!kept_source_equal(&now, &set->kept[i].source))
            return false;
    }
    return true;
}

/* The set that need not be made again; NULL: none. A damaged one is none. */
static struct kept_set *find_current(
    int keep_fd, const char *keep_dir, const struct vmm_files *found)
{
    struct err ignored;
    CLEANUP(close_folder) DIR *d = list_folder(keep_fd, &ignored);
    const struct dirent *ent;
    while (d && (ent = readdir(d))) {
        AUTO_SET struct kept_set *set =
            kept_digest_valid(ent->d_name) ? kept_set_read(keep_dir, ent->d_name, &ignored) : NULL;
        if (set && is_current(set, found))
            return TAKE_PTR(set);
    }
    return NULL;
}

/* --- Making a set --- */

static int copy_files(int dir_fd, struct kept_set *set, struct err *e)
{
    for (size_t i = 0; i < set->files->n; i++)
        if (keep_file(dir_fd, i, &set->files->items[i], &set->kept[i], e) < 0)
            return err_wrap(e, "keep %s", set->files->items[i].source);
    return kept_set_digest(set, e);
}

/* Fills the folder aside: files, digest, version, manifest. */
static int fill(int dir_fd, struct kept_set *set, struct err *e)
{
    const struct vmm_file *program = vmm_files_find(set->files, set->files->program);
    if (copy_files(dir_fd, set, e) < 0 || ask_version(program->source, set->version, e) < 0)
        return -1;
    return kept_set_write(dir_fd, set, e); /* syncs the folder too */
}

/* A set with that digest is there: what it was copied from is news, if it is complete. */
static int renew_sources(const char *keep_dir, const struct kept_set *made, struct err *e)
{
    char folder[PATH_MAX];
    AUTO_CLOSE int fd = -1;
    AUTO_SET struct kept_set *there = kept_set_read(keep_dir, made->digest, e);
    if (!there)
        return -1;
    (void)snprintf(folder, sizeof folder, "%s/%s", keep_dir, made->digest); /* was read, so fits */
    fd = open(folder, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    return fd < 0 ? err_sys(e, errno, "open %s", folder) : kept_set_write(fd, made, e);
}

/* Gives the folder aside its name, or drops it when a complete set has it. */
static int publish(int keep_fd, const char *keep_dir, const struct aside *aside,
    const struct kept_set *made, struct err *e)
{
    struct err ignored;
    unsigned how = RENAME_NOREPLACE;
    for (int i = 0; i < ASIDE_TRIES; i++) {
        if (renameat2(keep_fd, aside->name, keep_fd, made->digest, how) == 0)
            return sync_folder(keep_fd, e);
        if (errno != EEXIST && errno != ENOENT)
            return err_sys(e, errno, "name the set of files %s", made->digest);
        if (how == RENAME_NOREPLACE && renew_sources(keep_dir, made, &ignored) == 0)
            return 0;
        how = how == RENAME_NOREPLACE ? RENAME_EXCHANGE : RENAME_NOREPLACE;
    }
    return err_set(e, ERR_CONFLICT, "others change the set of files %s", made->digest);
}

/* Only the copies are new; names and order are those of `found`. */
static struct kept_set *set_for(const struct vmm_files *found, struct err *e)
{
    AUTO_SET struct kept_set *set = calloc(1, sizeof *set);
    if (!set) {
        err_sys(e, ENOMEM, "keep the VMM's files");
        return NULL;
    }
    set->files = vmm_files_new_empty(e);
    for (size_t i = 0; set->files && i < found->n; i++)
        if (vmm_files_add(set->files, &found->items[i], e) < 0)
            return NULL;
    if (!set->files)
        return NULL;
    set->files->program = found->program;
    set->files->bios = found->bios;
    return TAKE_PTR(set);
}

static struct kept_set *make_set(
    int keep_fd, const char *keep_dir, const struct vmm_files *found, struct err *e)
{
    AUTO_SET struct kept_set *made = set_for(found, e);
    struct aside aside = {.fd = -1};
    struct err ignored;
    int rc;
    if (!made)
        return NULL;
    rc = aside_make(keep_fd, &aside, e);
    AUTO_CLOSE int locked = aside.fd;
    if (rc == 0)
        rc = fill(locked, made, e);
    if (rc == 0)
        rc = publish(keep_fd, keep_dir, &aside, made, e);
    /* Under that name is now nothing, what is not needed, or the damaged set. */
    (void)io_remove_tree(keep_fd, aside.name, &ignored);
    return rc < 0 ? NULL : kept_set_read(keep_dir, made->digest, e);
}

static int open_keep_dir(const char *keep_dir, struct err *e)
{
    int fd;
    if (keep_dir[0] != '/')
        return err_set(e, ERR_INVALID, "%s: not an absolute path", keep_dir);
    if (io_mkdir_p(keep_dir, 0755, e) < 0)
        return -1;
    fd = open(keep_dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return fd < 0 ? err_sys(e, errno, "open %s", keep_dir) : fd;
}

int vmm_files_keep(const char *keep_dir, const struct vmm_files *found,
    struct vmm_files **ret_files, struct vmm_facts *facts, struct err *e)
{
    AUTO_CLOSE int keep_fd = open_keep_dir(keep_dir, e);
    AUTO_SET struct kept_set *set = NULL;
    if (keep_fd < 0)
        return -1;
    sweep(keep_fd);
    set = find_current(keep_fd, keep_dir, found);
    if (!set)
        set = make_set(keep_fd, keep_dir, found, e);
    if (!set)
        return -1;
    memcpy(facts->digest, set->digest, sizeof set->digest);
    memcpy(facts->version, set->version, sizeof set->version);
    *ret_files = TAKE_PTR(set->files);
    return 0;
}

/* --- Using a set --- */

static int not_kept(const char *digest, struct err *e)
{
    return err_set(
        e, ERR_UNSUPPORTED, "the VMM that saved it (digest %s) is not kept here", digest);
}

struct vmm_files *vmm_files_open_kept(const char *keep_dir, const char *digest, struct err *e)
{
    AUTO_SET struct kept_set *set = NULL;
    if (!kept_digest_valid(digest)) {
        err_set(e, ERR_INVALID, "not the digest of a set of files");
        return NULL;
    }
    set = keep_dir && *keep_dir ? kept_set_read(keep_dir, digest, e) : NULL;
    if (set)
        return TAKE_PTR(set->files);
    if (!keep_dir || !*keep_dir || e->kind == ERR_NOT_FOUND) {
        not_kept(digest, e);
        return NULL;
    }
    if (e->kind != ERR_NOMEM)
        e->kind = ERR_UNSUPPORTED;
    err_wrap(e, "the VMM that saved it (digest %.12s...) is damaged here", digest);
    return NULL;
}

/* --- Collecting --- */

static int remove_set(int keep_fd, const char *digest, struct err *e)
{
    char name[ASIDE_BYTES];
    aside_name(ASIDE_OLD, name);
    if (renameat2(keep_fd, digest, keep_fd, name, RENAME_NOREPLACE) < 0)
        return errno == ENOENT ? 0 : err_sys(e, errno, "remove the set of files %s", digest);
    return io_remove_tree(keep_fd, name, e);
}

int vmm_sets_collect(const struct vmm_host *host, bool (*is_used)(void *ctx, const char *digest),
    void *ctx, struct err *e)
{
    struct err all = {0};
    const struct dirent *ent;
    if (!host->keep_dir || !*host->keep_dir)
        return 0;
    AUTO_CLOSE int keep_fd = open(host->keep_dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (keep_fd < 0)
        return errno == ENOENT ? 0 : err_sys(e, errno, "open %s", host->keep_dir);
    sweep(keep_fd);
    CLEANUP(close_folder) DIR *d = list_folder(keep_fd, e);
    if (!d)
        return -1;
    while ((ent = readdir(d))) {
        struct err one;
        if (kept_digest_valid(ent->d_name) && strcmp(ent->d_name, host->facts.digest) != 0 &&
            !is_used(ctx, ent->d_name) && remove_set(keep_fd, ent->d_name, &one) < 0)
            err_join(&all, &one);
    }
    if (all.kind == ERR_NONE)
        return 0;
    *e = all;
    return -1;
}
