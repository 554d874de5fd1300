/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Ending what an earlier agent of this run folder left behind.
 *
 * Theory of operation: every shim has a socket <run_dir>/<id>.shim, which names it and its VMM by
 * pid and start time; those are killed through pidfds of just these processes. A shim that does not
 * answer, or whose socket is gone, is found in /proc: root's, running torpor-shim (perhaps of a
 * version that has been deleted since), with this run folder as its second argument. Sockets go
 * last, when nobody can listen on them.
 *
 * Two containers may each have a run folder of the same path, and see each other's processes. A
 * shim is ours only when it lives in our pid namespace and its run folder is ours: it has our mount
 * namespace, or, as after a restart of a service with private mounts, another one in which that
 * path leads to the same folder.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "agent/vmm/shim_link.h"
#include "agent/vmm/vmm_int.h"
#include "agent/vmm/vmm.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/io.h"
#include "base/sock.h"

enum { HELLO_MS = 2000, KILL_MS = 10000, CMDLINE_BYTES_MAX = 8192 };

struct sweep {
    const char *run_dir;
    vmm_keep *keep;
    void *ctx;
};

static void close_dir(DIR *const *d)
{
    if (*d)
        (void)closedir(*d);
}

/* True when the name is <sandbox id><suffix>. */
static bool is_socket_of(const char *name, const char *suffix, struct sandbox_id *ret)
{
    size_t n = strlen(name);
    size_t tail = strlen(suffix);
    return n > tail && strcmp(name + n - tail, suffix) == 0 &&
           sandbox_id_parse(slice_of(name, n - tail), ret);
}

/* A pidfd, -1 without error when that process is gone. */
static int open_or_gone(uint32_t pid, uint64_t start_ticks)
{
    struct err ignored;
    const struct proc_id id = {.pid = (pid_t)pid, .start_ticks = start_ticks};
    return proc_open(&id, &ignored);
}

static bool same_file(int dirfd_a, const char *a, const char *b)
{
    struct stat st_a;
    struct stat st_b;
    return fstatat(dirfd_a, a, &st_a, 0) == 0 && stat(b, &st_b) == 0 &&
           st_a.st_dev == st_b.st_dev && st_a.st_ino == st_b.st_ino;
}

/* True when `run_dir` means our run folder to the process behind that folder of /proc. */
static bool lives_here(int proc_fd, const char *run_dir)
{
    char path[PATH_MAX];
    if (!same_file(proc_fd, "ns/pid", "/proc/self/ns/pid"))
        return false;
    if (same_file(proc_fd, "ns/mnt", "/proc/self/ns/mnt"))
        return true;
    return snprintf(path, sizeof path, "root/%s", run_dir) < (int)sizeof path &&
           same_file(proc_fd, path, run_dir);
}

static int open_proc(pid_t pid)
{
    char path[32];
    (void)snprintf(path, sizeof path, "/proc/%d", (int)pid);
    return open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
}

static bool is_of_run_dir(pid_t pid, const char *run_dir)
{
    AUTO_CLOSE int fd = open_proc(pid);
    return fd >= 0 && lives_here(fd, run_dir);
}

static bool is_kept(const struct sweep *w, const struct sandbox_id *id)
{
    return w->keep && w->keep(w->ctx, id);
}

/* One that does not answer is left to the search through /proc. */
static int end_by_socket(
    const struct sweep *w, const char *path, const struct sandbox_id *id, struct err *e)
{
    struct err ignored;
    struct shim_msg m;
    AUTO_CLOSE int fd = -1;
    AUTO_CLOSE int vmm = -1;
    AUTO_CLOSE int shim = -1;
    fd = shim_connect(path, id, /* flags= */ 0, deadline_in_ms(HELLO_MS), &m, &ignored);
    if (fd < 0 || !is_of_run_dir((pid_t)m.shim_pid, w->run_dir))
        return 0;
    vmm = open_or_gone(m.vmm_pid, m.vmm_start);
    shim = open_or_gone(m.shim_pid, m.shim_start);
    return shim_kill(vmm, shim, deadline_in_ms(KILL_MS), e);
}

/* Calls `fn` for each socket of that suffix in the folder that is not kept; joins the errors. */
static void each_socket(const struct sweep *w, const char *suffix,
    int (*fn)(const struct sweep *w, const char *path, const struct sandbox_id *id, struct err *e),
    struct err *all)
{
    CLEANUP(close_dir) DIR *d = opendir(w->run_dir);
    const struct dirent *ent;
    struct sandbox_id id;
    if (!d) {
        struct err e;
        if (errno != ENOENT) {
            err_sys(&e, errno, "open %s", w->run_dir);
            err_join(all, &e);
        }
        return;
    }
    while ((ent = readdir(d))) {
        struct err e = {0};
        char path[PATH_MAX];
        if (!is_socket_of(ent->d_name, suffix, &id) || is_kept(w, &id))
            continue;
        (void)snprintf(path, sizeof path, "%s/%s", w->run_dir, ent->d_name);
        if (fn(w, path, &id, &e) < 0)
            err_join(all, &e);
    }
}

/* True when the program behind /proc/PID/exe is a torpor-shim. */
static bool runs_shim(int proc_fd)
{
    static const char name[] = "torpor-shim";
    static const char deleted[] = " (deleted)";
    char path[PATH_MAX];
    char *base;
    ssize_t n = readlinkat(proc_fd, "exe", path, sizeof path - 1);
    if (n <= 0)
        return false;
    path[n] = '\0';
    base = strrchr(path, '/');
    base = base ? base + 1 : path;
    return strncmp(base, name, sizeof name - 1) == 0 &&
           (base[sizeof name - 1] == '\0' || strcmp(base + sizeof name - 1, deleted) == 0);
}

/* Reads the shim's arguments, sandbox id and run folder. False when there are none. */
static bool read_arguments(int proc_fd, struct buf *text, const char *ret[2])
{
    struct err ignored;
    const char *arg;
    if (io_read_file(proc_fd, "cmdline", text, &ignored) < 0 || text->len == 0)
        return false;
    arg = text->p;
    for (int i = 0; i < 2; i++) {
        arg += strlen(arg) + 1;
        if (arg >= text->p + text->len)
            return false;
        ret[i] = arg;
    }
    return true;
}

/* True for a shim of this run folder that nobody keeps. */
static bool is_leftover(const struct sweep *w, pid_t pid)
{
    const char *args[2];
    struct sandbox_id id;
    struct stat st;
    AUTO_BUF struct buf text = BUF_INIT(CMDLINE_BYTES_MAX);
    AUTO_CLOSE int fd = open_proc(pid);
    if (fd < 0 || fstat(fd, &st) < 0 || st.st_uid != geteuid() || !runs_shim(fd) ||
        !read_arguments(fd, &text, args) || strcmp(args[1], w->run_dir) != 0 ||
        !lives_here(fd, w->run_dir))
        return false;
    return !sandbox_id_parse(slice_cstr(args[0]), &id) || !is_kept(w, &id);
}

static void end_by_search(const struct sweep *w, struct err *all)
{
    CLEANUP(close_dir) DIR *d = opendir("/proc");
    const struct dirent *ent;
    struct err e = {0};
    if (!d) {
        err_sys(&e, errno, "open /proc");
        err_join(all, &e);
        return;
    }
    while ((ent = readdir(d))) {
        uint64_t pid;
        struct proc_id id;
        /* Identified first: if the pid changes hands meanwhile, nothing is killed. */
        if (slice_parse_u64(slice_cstr(ent->d_name), &pid) && pid <= INT_MAX &&
            proc_identify((pid_t)pid, &id, &e) == 0 && is_leftover(w, (pid_t)pid) &&
            shim_kill_family(&id, deadline_in_ms(KILL_MS), &e) < 0)
            err_join(all, &e);
    }
}

/* One that somebody still listens on is not ours: a shim in another pid namespace. */
static int remove_socket(
    const struct sweep *w, const char *path, const struct sandbox_id *id, struct err *e)
{
    struct err ignored;
    AUTO_CLOSE int fd = sock_connect_unix(path, &ignored);
    (void)w;
    (void)id;
    if (fd >= 0)
        return 0;
    return unlink(path) < 0 && errno != ENOENT ? err_sys(e, errno, "remove %s", path) : 0;
}

int vmm_remove_leftovers(const struct vmm_host *host, vmm_keep *keep, void *ctx, struct err *e)
{
    const struct sweep w = {.run_dir = host->run_dir, .keep = keep, .ctx = ctx};
    struct err all = {0};
    each_socket(&w, VMM_SHIM_SUFFIX, end_by_socket, &all);
    end_by_search(&w, &all);
    each_socket(&w, VMM_SHIM_SUFFIX, remove_socket, &all);
    each_socket(&w, VMM_MONITOR_SUFFIX, remove_socket, &all);
    if (all.kind == ERR_NONE)
        return 0;
    *e = all;
    return err_wrap(e, "remove leftover VMs");
}
