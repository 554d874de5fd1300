/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Receiving and checking the launch plan.
 *
 * Theory of operation: the agent is trusted, a plan is not: it is decoded as if an enemy had sent
 * it, because whatever it names is bound, opened and run with root's rights. The head has a fixed
 * size; the body has exactly the strings that the head counts, and ends with the last one. A target
 * is a plain path below the jail's root, with no part that could lead elsewhere. The kernel objects
 * behind the descriptors are checked for their kind.
 */
#include "shim/plan.h"

#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/io.h"
#include "base/sock.h"
#include "proto/limits.h"
#include "proto/sandbox.h"

enum {
    PATH_BYTES_MAX = 1024,
    MEMORY_UNIT = 4096, /* a page */
    FLAGS_ALL = SHIM_PLAN_KVM | SHIM_PLAN_RESTORE | SHIM_PLAN_HINTS | SHIM_PLAN_OLD_PAGEMAP,
};

struct plan *plan_new(void)
{
    struct plan *p =
        mmap(NULL, sizeof *p, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED)
        return NULL;
    for (int i = 0; i < SHIM_FDS_MAX; i++)
        p->fds[i] = -1;
    return p;
}

struct plan *plan_free(struct plan *p)
{
    if (!p)
        return NULL;
    for (int i = 0; i < SHIM_FDS_MAX; i++)
        if (p->fds[i] >= 0)
            (void)close(p->fds[i]);
    (void)munmap(p, sizeof *p);
    return NULL;
}

/* True for a string of fixed size that ends, is padded with NULs only, and is not empty. */
static bool is_padded(const char *s, size_t size)
{
    size_t n = strnlen(s, size);
    if (n == 0 || n == size)
        return false;
    for (size_t i = n; i < size; i++)
        if (s[i] != '\0')
            return false;
    return true;
}

static bool is_tap_name(const char *s)
{
    static const char chars[] = "abcdefghijklmnopqrstuvwxyz0123456789-";
    return s[strspn(s, chars)] == '\0';
}

static int check_names(const struct shim_plan_head *h, struct err *e)
{
    struct sandbox_id id;
    if (!is_padded(h->id, sizeof h->id) || !sandbox_id_parse(slice_cstr(h->id), &id))
        return err_set(e, ERR_PROTOCOL, "launch plan: bad sandbox id");
    if (!is_padded(h->tap, sizeof h->tap) || !is_tap_name(h->tap))
        return err_set(e, ERR_PROTOCOL, "launch plan: bad TAP name");
    return 0;
}

/* Restoring, and what comes with it, is for memory that is the shim's. */
static int check_memory(const struct shim_plan_head *h, struct err *e)
{
    const uint32_t ours = SHIM_PLAN_RESTORE | SHIM_PLAN_HINTS | SHIM_PLAN_OLD_PAGEMAP;
    const uint64_t most = (uint64_t)LIMIT_MEMORY_MB_MAX << 20;
    bool restore = h->flags & SHIM_PLAN_RESTORE;
    if (h->memory >= SHIM_MEMORY_COUNT)
        return err_set(e, ERR_PROTOCOL, "launch plan: unknown kind of memory");
    if (h->memory == SHIM_MEMORY_STOCK && (h->memory_bytes != 0 || (h->flags & ours)))
        return err_set(e, ERR_PROTOCOL, "launch plan: memory that is not the shim's");
    if (h->memory != SHIM_MEMORY_STOCK &&
        (h->memory_bytes == 0 || h->memory_bytes > most || h->memory_bytes % MEMORY_UNIT != 0))
        return err_set(e, ERR_PROTOCOL, "launch plan: bad memory size");
    if (!restore && (h->n_blobs > 0 || (h->flags & SHIM_PLAN_HINTS)))
        return err_set(e, ERR_PROTOCOL, "launch plan: blobs or hints without a map");
    if (h->memory == SHIM_MEMORY_COPIED && (h->flags & SHIM_PLAN_HINTS))
        return err_set(e, ERR_PROTOCOL, "launch plan: hints for memory that is copied whole");
    return 0;
}

int plan_check_head(const struct plan *p, struct err *e)
{
    const struct shim_plan_head *h = &p->head;
    if (h->magic != SHIM_PLAN_MAGIC)
        return err_set(e, ERR_PROTOCOL, "not a launch plan");
    if (h->version != SHIM_VERSION)
        return err_set(e, ERR_PROTOCOL, "launch plan of version %u, this shim knows %d", h->version,
            SHIM_VERSION);
    if (h->n_fds != SHIM_FD_COUNT || h->n_args == 0 || h->n_args > SHIM_ARGS_MAX ||
        h->n_files == 0 || h->n_files > SHIM_FILES_MAX || h->body_bytes == 0 ||
        h->body_bytes > SHIM_BODY_MAX || h->n_layers > SHIM_LAYERS_MAX ||
        h->n_blobs > SHIM_BLOBS_MAX || (h->flags & ~(uint32_t)FLAGS_ALL))
        return err_set(e, ERR_PROTOCOL, "launch plan: a count or flag is out of bounds");
    if (h->uid < SHIM_UID_MIN || h->uid == UINT32_MAX)
        return err_set(e, ERR_PROTOCOL, "launch plan: uid %u is not for a VMM", h->uid);
    if (h->fsize_bytes == 0 || h->fsize_bytes > INT64_MAX)
        return err_set(e, ERR_PROTOCOL, "launch plan: bad file size limit");
    return check_memory(h, e) < 0 ? -1 : check_names(h, e);
}

/* The next string of the body, NULL when there is none that ends. */
static char *take_string(struct plan *p, size_t *at)
{
    char *s = p->body + *at;
    size_t left = p->head.body_bytes - *at;
    size_t n = strnlen(s, left);
    if (n == left)
        return NULL;
    *at += n + 1;
    return s;
}

static bool is_source(const char *path)
{
    return path && path[0] == '/' && strlen(path) < PATH_BYTES_MAX;
}

/* Absolute, every part a plain name, and not in /dev, which the shim fills itself. */
static bool is_target(const char *path)
{
    if (!is_source(path) || strcmp(path, "/dev") == 0 || strncmp(path, "/dev/", 5) == 0)
        return false;
    while (*path == '/') {
        size_t n = strcspn(++path, "/");
        if (n == 0 || (n == 1 && path[0] == '.') || (n == 2 && path[0] == '.' && path[1] == '.'))
            return false;
        path += n;
    }
    return true;
}

static bool take_file(struct plan *p, size_t *at, struct plan_file *ret)
{
    const char *mode = take_string(p, at);
    const char *source = mode ? take_string(p, at) : NULL;
    const char *target = source ? take_string(p, at) : NULL;
    if (!is_source(source) || !is_target(target))
        return false;
    if (strcmp(mode, SHIM_FILE_EXEC) != 0 && strcmp(mode, SHIM_FILE_READ) != 0)
        return false;
    *ret = (struct plan_file){source, target, strcmp(mode, SHIM_FILE_EXEC) == 0};
    return true;
}

static bool has_library(const struct plan *p)
{
    for (unsigned i = 0; i < p->head.n_files; i++)
        if (p->files[i].exec && strcmp(p->files[i].target, SHIM_LIBRARY) == 0)
            return true;
    return false;
}

int plan_parse_body(struct plan *p, struct err *e)
{
    size_t at = 0;
    for (unsigned i = 0; i < p->head.n_args; i++) {
        p->argv[i] = take_string(p, &at);
        if (!p->argv[i])
            return err_set(e, ERR_PROTOCOL, "launch plan: argument %u does not end", i);
    }
    p->argv[p->head.n_args] = NULL;
    if (!is_target(p->argv[0]))
        return err_set(e, ERR_PROTOCOL, "launch plan: bad program");
    for (unsigned i = 0; i < p->head.n_files; i++)
        if (!take_file(p, &at, &p->files[i]))
            return err_set(e, ERR_PROTOCOL, "launch plan: bad file %u", i);
    if (at != p->head.body_bytes)
        return err_set(e, ERR_PROTOCOL, "launch plan: bytes left over");
    if ((p->head.memory == SHIM_MEMORY_PRIVATE || p->head.memory == SHIM_MEMORY_UFFD) &&
        !has_library(p))
        return err_set(e, ERR_PROTOCOL, "launch plan: no " SHIM_LIBRARY);
    return 0;
}

static bool fd_has_type(int fd, mode_t type)
{
    struct stat st;
    return fstat(fd, &st) == 0 && (st.st_mode & S_IFMT) == type;
}

static bool is_read_only_file(int fd)
{
    int flags = fcntl(fd, F_GETFL);
    return flags >= 0 && (flags & O_ACCMODE) == O_RDONLY && fd_has_type(fd, S_IFREG);
}

static int check_fixed_fds(const int *fds, size_t n, struct err *e)
{
    if (n < SHIM_FD_COUNT)
        return err_set(e, ERR_PROTOCOL, "launch plan: %zu descriptors came with it", n);
    if (!fd_has_type(fds[SHIM_FD_LISTEN], S_IFSOCK) ||
        !fd_has_type(fds[SHIM_FD_CONSOLE_DIR], S_IFDIR) ||
        !fd_has_type(fds[SHIM_FD_NETNS], S_IFREG) || !fd_has_type(fds[SHIM_FD_OVERLAY], S_IFREG) ||
        !fd_has_type(fds[SHIM_FD_BASE], S_IFREG) || !fd_has_type(fds[SHIM_FD_MONITOR], S_IFSOCK))
        return err_set(e, ERR_PROTOCOL, "launch plan: a descriptor is of the wrong kind");
    return 0;
}

/* Layers, map, blobs and hints: files that nobody in here can write. */
static int check_other_fds(const struct plan *p, size_t n, struct err *e)
{
    if (n != plan_fd_count(p))
        return err_set(e, ERR_PROTOCOL, "launch plan: %zu descriptors came with it, not %u", n,
            plan_fd_count(p));
    for (size_t i = SHIM_FD_COUNT; i < n; i++)
        if (!is_read_only_file(p->fds[i]))
            return err_set(e, ERR_PROTOCOL, "launch plan: descriptor %zu is no read-only file", i);
    return 0;
}

int plan_receive(int sock, struct plan *p, struct err *e)
{
    size_t n_fds = 0;
    char *head = (char *)&p->head;
    ssize_t got = sock_recv_fds(sock, head, sizeof p->head, p->fds, SHIM_FDS_MAX, &n_fds, e);
    if (got < 0)
        return err_wrap(e, "launch plan");
    if (got == 0)
        return err_set(e, ERR_CANCELED, "the agent sent no launch plan");
    if (io_read_full(sock, head + got, sizeof p->head - (size_t)got, DEADLINE_NEVER, e) < 0)
        return err_wrap(e, "launch plan");
    if (check_fixed_fds(p->fds, n_fds, e) < 0 || plan_check_head(p, e) < 0 ||
        check_other_fds(p, n_fds, e) < 0)
        return -1;
    if (io_read_full(sock, p->body, p->head.body_bytes, DEADLINE_NEVER, e) < 0)
        return err_wrap(e, "launch plan");
    return plan_parse_body(p, e);
}
