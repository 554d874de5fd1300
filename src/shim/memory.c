/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Setting memory up: the map of a restore, what the preloaded library gets, the handshake.
 *
 * Theory of operation: before the VMM starts, the map is mapped and checked, and so is the length
 * of every blob: a restore that cannot work is refused before there is a VM. The library gets a
 * placeholder, a memfd of the memory's size that nobody can write or resize, one end of a socket
 * pair, and either the runs of the map as an array in a sealed memfd, with the blobs, or
 * /dev/userfaultfd. Where the memory lies is known after the handshake, which must come before a
 * deadline (serve.c).
 *
 * What the VMM says is not trusted: an address outside of its memory makes reads of it fail, one
 * that lies spoils the snapshots of that VM.
 */
#include "shim/memory.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "base/io.h"
#include "base/sock.h"
#include "shim/faults.h"

/* Fewer than vm.max_map_count (65530) allows one process. */
enum { RUNS_MAX = 60000 };

static void close_fd(int *fd)
{
    if (*fd >= 0)
        (void)close(*fd);
    *fd = -1;
}

static void source_init(struct memory_source *s)
{
    *s = (struct memory_source){0};
    for (int i = 0; i < SHIM_BLOBS_MAX; i++)
        s->fds[i] = -1;
}

void memory_init(struct memory *m)
{
    *m = (struct memory){.kind = SHIM_MEMORY_STOCK,
        .pending = {.map_fd = -1, .blob_fd = -1},
        .placeholder = -1,
        .library_source = -1,
        .library_socket = -1,
        .mem_fd = -1,
        .pagemap_fd = -1,
        .maps_fd = -1,
        .socket = -1,
        .uffd = -1,
        .hints_fd = -1};
    source_init(&m->source);
}

int memory_source_load(struct memory_source *s, int fd, uint64_t bytes, struct err *e)
{
    struct stat st;
    source_init(s);
    if (fstat(fd, &st) < 0)
        return err_sys(e, errno, "memory map");
    if (st.st_size <= 0)
        return err_set(e, ERR_INVALID, "memory map: empty");
    s->file = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_SHARED, fd, 0);
    if (s->file == MAP_FAILED) {
        s->file = NULL;
        return err_sys(e, errno, "memory map");
    }
    s->file_bytes = (size_t)st.st_size;
    if (memory_map_parse(s->file, s->file_bytes, &s->map, e) == 0) {
        if (s->map.memory_bytes == bytes && s->map.n_blobs <= SHIM_BLOBS_MAX)
            return 0;
        err_set(e, ERR_INVALID, "memory map: not of a machine with this memory");
    }
    memory_source_done(s);
    return -1;
}

void memory_source_done(struct memory_source *s)
{
    for (int i = 0; i < SHIM_BLOBS_MAX; i++)
        close_fd(&s->fds[i]);
    if (s->file)
        (void)munmap(s->file, s->file_bytes);
    source_init(s);
}

int memory_source_read(const struct memory_source *s, const struct memory_map_entry *at,
    uint64_t offset, size_t n, void *dst, struct err *e)
{
    uint64_t from = at->blob_offset + (offset - at->offset);
    char *p = dst;
    while (n > 0) {
        ssize_t got = pread(s->fds[at->blob - 1], p, n, (off_t)from);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return err_sys(e, errno, "read blob %u", at->blob);
        if (got == 0)
            return err_set(e, ERR_IO, "blob %u ends before its offset %llu", at->blob,
                (unsigned long long)from);
        p += got;
        from += (uint64_t)got;
        n -= (size_t)got;
    }
    return 0;
}

static void source_zeros(struct memory *m)
{
    m->source.zeros = (struct memory_map_entry){.length = m->bytes};
    m->source.map =
        (struct memory_map){.entries = &m->source.zeros, .n_entries = 1, .memory_bytes = m->bytes};
}

static int check_blob(const struct memory_map_blob *b, int fd, unsigned i, struct err *e)
{
    struct stat st;
    if (fstat(fd, &st) < 0)
        return err_sys(e, errno, "blob %u", i);
    if (st.st_size < 0 || (uint64_t)st.st_size < b->bytes)
        return err_set(e, ERR_IO, "blob %u has %lld bytes, and not the %llu of the memory map", i,
            (long long)st.st_size, (unsigned long long)b->bytes);
    return 0;
}

static int load_source(struct memory *m, struct plan *p, struct err *e)
{
    struct memory_source *s = &m->source;
    if (!(p->head.flags & SHIM_PLAN_RESTORE)) {
        source_zeros(m);
        return 0;
    }
    if (memory_source_load(s, p->fds[plan_fd_map(p)], m->bytes, e) < 0)
        return -1;
    if (s->map.n_blobs != p->head.n_blobs)
        return err_set(e, ERR_INVALID, "memory map: names %zu blobs, %u came with it",
            s->map.n_blobs, p->head.n_blobs);
    for (unsigned i = 0; i < p->head.n_blobs; i++) {
        s->fds[i] = TAKE_FD(p->fds[plan_fd_blobs(p) + i]);
        if (check_blob(&s->map.blobs[i], s->fds[i], i + 1, e) < 0)
            return -1;
    }
    return 0;
}

/* A memfd of that size; `seals` go on once it is filled. Its own descriptor could write, so what is
 * returned is opened anew, read-only. */
static int make_file(const char *name, uint64_t bytes, int *ret_writable, struct err *e)
{
    char path[32];
    int fd;
    AUTO_CLOSE int writable = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (writable < 0 || ftruncate(writable, (off_t)bytes) < 0)
        return err_sys(e, errno, "memfd for %s", name);
    (void)snprintf(path, sizeof path, "/proc/self/fd/%d", writable);
    fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return err_sys(e, errno, "memfd for %s", name);
    *ret_writable = TAKE_FD(writable);
    return fd;
}

static int seal(int fd, struct err *e)
{
    const int seals = F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE;
    return fcntl(fd, F_ADD_SEALS, seals) < 0 ? err_sys(e, errno, "seal a memfd") : 0;
}

static int make_placeholder(struct memory *m, struct err *e)
{
    AUTO_CLOSE int writable = -1;
    m->placeholder = make_file("memory", m->bytes, &writable, e);
    return m->placeholder < 0 ? -1 : seal(writable, e);
}

static unsigned first_fd(unsigned n_layers)
{
    return SHIM_VMM_FD_LAYERS + n_layers;
}

enum { CHILD_PLACEHOLDER, CHILD_SOCKET, CHILD_SOURCE, CHILD_BLOBS };

static int write_runs(const struct memory *m, unsigned n_layers, int fd, struct err *e)
{
    const struct memory_map *map = &m->source.map;
    for (size_t i = 0; i < map->n_entries; i++) {
        const struct memory_map_entry *at = &map->entries[i];
        const struct shim_run run = {.offset = at->offset,
            .length = at->length,
            .file_offset = at->blob_offset,
            .fd = first_fd(n_layers) + CHILD_BLOBS + at->blob - 1};
        if (at->blob > 0 && io_write_full(fd, &run, sizeof run, INT64_MAX, e) < 0)
            return err_wrap(e, "runs");
    }
    return seal(fd, e);
}

static int make_runs(struct memory *m, unsigned n_layers, struct err *e)
{
    AUTO_CLOSE int writable = -1;
    for (size_t i = 0; i < m->source.map.n_entries; i++)
        m->n_runs += m->source.map.entries[i].blob > 0;
    if (m->n_runs > RUNS_MAX)
        return err_set(e, ERR_TOO_LARGE, "%llu runs are too many for a private mapping",
            (unsigned long long)m->n_runs);
    m->library_source = make_file("runs", /* bytes= */ 0, &writable, e);
    return m->library_source < 0 ? -1 : write_runs(m, n_layers, writable, e);
}

static uint64_t *make_bitmap(size_t bytes, struct err *e)
{
    void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p != MAP_FAILED)
        return p;
    err_sys(e, errno, "bitmap of pages");
    return NULL;
}

static int prepare_faults(struct memory *m, struct plan *p, struct err *e)
{
    m->bitmap_bytes = (m->bytes / MEMORY_PAGE + 63) / 64 * 8;
    m->touched = make_bitmap(m->bitmap_bytes, e);
    m->removed = m->touched ? make_bitmap(m->bitmap_bytes, e) : NULL;
    if (!m->removed)
        return -1;
    if (p->head.flags & SHIM_PLAN_HINTS)
        m->hints_fd = TAKE_FD(p->fds[plan_fd_hints(p)]);
    m->library_source = open("/dev/userfaultfd", O_RDWR | O_CLOEXEC);
    return m->library_source < 0 ? err_sys(e, errno, "open /dev/userfaultfd") : 0;
}

static int make_sockets(struct memory *m, struct err *e)
{
    int pair[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
        return err_sys(e, errno, "socketpair");
    m->socket = pair[0];
    m->library_socket = pair[1];
    return io_set_nonblock(m->socket, /* on= */ 1, e);
}

int memory_prepare(struct memory *m, struct plan *p, struct err *e)
{
    m->kind = (enum shim_memory)p->head.memory;
    m->bytes = p->head.memory_bytes;
    m->old_pagemap = p->head.flags & SHIM_PLAN_OLD_PAGEMAP;
    if (m->kind == SHIM_MEMORY_STOCK)
        return 0;
    if (load_source(m, p, e) < 0)
        return err_wrap(e, "memory");
    if (m->kind == SHIM_MEMORY_COPIED)
        return 0;
    if (make_placeholder(m, e) < 0 || make_sockets(m, e) < 0)
        return err_wrap(e, "memory");
    if (m->kind == SHIM_MEMORY_PRIVATE ? make_runs(m, p->head.n_layers, e) < 0
                                       : prepare_faults(m, p, e) < 0)
        return err_wrap(e, "memory");
    return 0;
}

static bool has_library(const struct memory *m)
{
    return m->kind == SHIM_MEMORY_PRIVATE || m->kind == SHIM_MEMORY_UFFD;
}

int memory_child_fds(const struct memory *m, int *fds)
{
    int n = CHILD_BLOBS;
    if (!has_library(m))
        return 0;
    fds[CHILD_PLACEHOLDER] = m->placeholder;
    fds[CHILD_SOCKET] = m->library_socket;
    fds[CHILD_SOURCE] = m->library_source;
    for (size_t i = 0; m->kind == SHIM_MEMORY_PRIVATE && i < m->source.map.n_blobs; i++)
        fds[n++] = m->source.fds[i];
    return n;
}

bool memory_child_env(const struct memory *m, unsigned n_layers, char *dst)
{
    unsigned first = first_fd(n_layers);
    int mode = SHIM_LIBRARY_PRIVATE;
    if (!has_library(m))
        return false;
    if (m->kind == SHIM_MEMORY_UFFD)
        mode = m->old_pagemap ? SHIM_LIBRARY_UFFD_OLD : SHIM_LIBRARY_UFFD;
    (void)snprintf(dst, MEMORY_ENV_BYTES, "%s=%d:%llu:%u:%u:%u:%llu", SHIM_LIBRARY_ENV, mode,
        (unsigned long long)m->bytes, first + CHILD_PLACEHOLDER, first + CHILD_SOCKET,
        first + CHILD_SOURCE, (unsigned long long)m->n_runs);
    return true;
}

static int open_proc(pid_t pid, const char *name, int flags, struct err *e)
{
    char path[48];
    int fd;
    (void)snprintf(path, sizeof path, "/proc/%d/%s", (int)pid, name);
    fd = open(path, flags | O_CLOEXEC);
    return fd < 0 ? err_sys(e, errno, "open %s of the VMM", name) : fd;
}

int memory_attach(struct memory *m, pid_t vmm, struct err *e)
{
    bool is_copied = m->kind == SHIM_MEMORY_COPIED;
    if (m->kind == SHIM_MEMORY_STOCK)
        return 0;
    close_fd(&m->placeholder);
    close_fd(&m->library_source);
    close_fd(&m->library_socket);
    m->mem_fd = open_proc(vmm, "mem", is_copied ? O_RDWR : O_RDONLY, e);
    m->pagemap_fd = m->mem_fd < 0 ? -1 : open_proc(vmm, "pagemap", O_RDONLY, e);
    if (m->pagemap_fd < 0)
        return -1;
    m->maps_fd = is_copied ? open_proc(vmm, "maps", O_RDONLY, e) : -1;
    return is_copied && m->maps_fd < 0 ? -1 : 0;
}

static bool find_number(const char *text, const char *key, uint64_t *ret)
{
    const char *at = strstr(text, key);
    char *end;
    if (!at)
        return false;
    at += strlen(key);
    if (*at < '0' || *at > '9')
        return false;
    errno = 0;
    *ret = strtoull(at, &end, 10);
    return errno == 0;
}

/* One region of all the memory; Firecracker's other fields do not matter. */
static int parse_handshake(struct memory *m, const char *text, struct err *e)
{
    uint64_t base;
    uint64_t size;
    uint64_t offset;
    uint64_t tracked = 0;
    if (!find_number(text, "\"base_host_virt_addr\":", &base) ||
        !find_number(text, "\"size\":", &size) || !find_number(text, "\"offset\":", &offset) ||
        size != m->bytes || offset != 0 || base % MEMORY_PAGE != 0 || base > UINT64_MAX - size)
        return err_set(e, ERR_PROTOCOL, "the VMM's memory is not as it was planned");
    (void)find_number(text, "\"write_tracking\":", &tracked);
    m->base = base;
    m->is_tracked = tracked == 1;
    return 0;
}

int memory_shake_hands(struct memory *m, struct err *e)
{
    char text[SHIM_HANDSHAKE_BYTES + 1];
    size_t n_fds = 0;
    ssize_t got = sock_recv_fds(m->socket, text, sizeof text - 1, &m->uffd, 1, &n_fds, e);
    if (got < 0)
        return err_wrap(e, "memory handshake");
    close_fd(&m->socket);
    if (got == 0)
        return err_set(e, ERR_UNAVAILABLE, "the VMM has ended before it mapped its memory");
    text[got] = '\0';
    if (parse_handshake(m, text, e) < 0)
        return -1;
    if ((n_fds == 1) != (m->kind == SHIM_MEMORY_UFFD))
        return err_set(e, ERR_PROTOCOL, "memory handshake: %zu descriptors", n_fds);
    m->is_mapped = true;
    if (m->kind == SHIM_MEMORY_UFFD && m->hints_fd >= 0)
        return faults_copy_ahead(m, e);
    return 0;
}
