/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Ending what an earlier agent of this run folder left behind.
 *
 * Theory of operation: every shim has a socket <run_dir>/<id>.shim, which names it and its VMM by
 * pid and start time; those are killed through pidfds of just these processes. A shim that does not
 * answer, or whose socket is gone, is found in /proc: root's, running torpor-shim (perhaps of a
 * version that has been deleted since), with this run folder as its second argument. Sockets go
 * last, when nobody can listen on them.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "agent/vmm/shim_link.h"
#include "agent/vmm/vmm.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/io.h"
#include "base/sock.h"

enum { HELLO_MS = 2000, KILL_MS = 10000, CMDLINE_BYTES_MAX = 8192 };

static void close_dir(DIR *const *d)
{
    if (*d)
        (void)closedir(*d);
}

/* True when the name is <sandbox id>.shim. */
static bool is_shim_socket(const char *name, struct sandbox_id *ret)
{
    static const char suffix[] = ".shim";
    size_t n = strlen(name);
    size_t tail = sizeof suffix - 1;
    return n > tail && strcmp(name + n - tail, suffix) == 0 &&
           sandbox_id_parse(slice_of(name, n - tail), ret);
}

/* Asks the shim behind `path` who it is. */
static int ask_shim(
    const char *path, const struct sandbox_id *id, struct shim_msg *ret, struct err *e)
{
    int64_t deadline = deadline_in_ms(HELLO_MS);
    AUTO_CLOSE int fd = sock_connect_unix(path, e);
    if (fd < 0 || shim_send(fd, SHIM_MSG_HELLO, deadline, e) < 0 ||
        shim_receive(fd, deadline, ret, e) < 0)
        return -1;
    if (strcmp(ret->id, id->text) != 0)
        return err_set(e, ERR_PROTOCOL, "the shim at %s is %s", path, ret->id);
    return 0;
}

/* A pidfd, -1 without error when that process is gone. */
static int open_or_gone(uint32_t pid, uint64_t start_ticks)
{
    struct err ignored;
    const struct proc_id id = {.pid = (pid_t)pid, .start_ticks = start_ticks};
    return proc_open(&id, &ignored);
}

/* One that does not answer is left to the search through /proc. */
static int end_by_socket(const char *path, const struct sandbox_id *id, struct err *e)
{
    struct err ignored;
    struct shim_msg m;
    AUTO_CLOSE int vmm = -1;
    AUTO_CLOSE int shim = -1;
    if (ask_shim(path, id, &m, &ignored) < 0)
        return 0;
    vmm = open_or_gone(m.vmm_pid, m.vmm_start);
    shim = open_or_gone(m.shim_pid, m.shim_start);
    return shim_kill(vmm, shim, deadline_in_ms(KILL_MS), e);
}

/* Calls `fn` for each shim socket of the folder; joins the errors. */
static void each_socket(const char *run_dir,
    int (*fn)(const char *path, const struct sandbox_id *id, struct err *e), struct err *all)
{
    CLEANUP(close_dir) DIR *d = opendir(run_dir);
    const struct dirent *ent;
    struct sandbox_id id;
    if (!d) {
        struct err e;
        if (errno != ENOENT) {
            err_sys(&e, errno, "open %s", run_dir);
            err_join(all, &e);
        }
        return;
    }
    while ((ent = readdir(d))) {
        struct err e = {0};
        char path[PATH_MAX];
        if (!is_shim_socket(ent->d_name, &id))
            continue;
        (void)snprintf(path, sizeof path, "%s/%s", run_dir, ent->d_name);
        if (fn(path, &id, &e) < 0)
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

/* True when the second argument is this run folder. */
static bool has_run_dir(int proc_fd, const char *run_dir)
{
    struct err ignored;
    const char *end;
    const char *arg;
    AUTO_BUF struct buf text = BUF_INIT(CMDLINE_BYTES_MAX);
    if (io_read_file(proc_fd, "cmdline", &text, &ignored) < 0 || text.len == 0)
        return false;
    arg = text.p;
    end = text.p + text.len;
    for (int i = 0; i < 2; i++) {
        arg += strlen(arg) + 1;
        if (arg >= end)
            return false;
    }
    return strcmp(arg, run_dir) == 0;
}

static bool is_our_shim(pid_t pid, const char *run_dir)
{
    char path[32];
    struct stat st;
    AUTO_CLOSE int fd = -1;
    (void)snprintf(path, sizeof path, "/proc/%d", (int)pid);
    fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return fd >= 0 && fstat(fd, &st) == 0 && st.st_uid == geteuid() && runs_shim(fd) &&
           has_run_dir(fd, run_dir);
}

static void end_by_search(const char *run_dir, struct err *all)
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
            proc_identify((pid_t)pid, &id, &e) == 0 && is_our_shim((pid_t)pid, run_dir) &&
            shim_kill_family(&id, deadline_in_ms(KILL_MS), &e) < 0)
            err_join(all, &e);
    }
}

static int remove_socket(const char *path, const struct sandbox_id *id, struct err *e)
{
    (void)id;
    return unlink(path) < 0 && errno != ENOENT ? err_sys(e, errno, "remove %s", path) : 0;
}

int vmm_remove_leftovers(const struct vmm_host *host, struct err *e)
{
    struct err all = {0};
    each_socket(host->run_dir, end_by_socket, &all);
    end_by_search(host->run_dir, &all);
    each_socket(host->run_dir, remove_socket, &all);
    if (all.kind == ERR_NONE)
        return 0;
    *e = all;
    return err_wrap(e, "remove leftover VMs");
}
