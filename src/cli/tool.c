/* SPDX-License-Identifier: Apache-2.0 */
/* Running programs. */
#include "cli/tool.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/io.h"
#include "base/proc.h"

enum { TOOL_MS = 10000 };

bool tool_find(const char *root, const char *name, char *dst, size_t dst_size)
{
    static const char *const folders[] = {
        "/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"};
    char path[PATH_MAX];
    for (size_t i = 0; i < ARRAY_LEN(folders); i++) {
        int n = snprintf(path, sizeof path, "%s%s/%s", root, folders[i], name);
        if (n < (int)sizeof path && access(path, X_OK) == 0)
            return slice_copy_cstr(slice_cstr(path), dst, dst_size);
    }
    return false;
}

static int read_to_end(int fd, struct buf *ret, int64_t deadline, struct err *e)
{
    for (;;) {
        char chunk[4096];
        ssize_t n = io_read(fd, chunk, sizeof chunk, deadline, e);
        if (n <= 0)
            return (int)n;
        buf_append(ret, chunk, (size_t)n);
        if (ret->failed)
            return err_set(e, ERR_TOO_LARGE, "it said too much");
    }
}

int tool_run(const char *const *argv, struct buf *ret, struct err *e)
{
    static char path_setting[] =
        "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    static char locale[] = "LC_ALL=C";
    char *const envp[] = {path_setting, locale, NULL};
    char path[PATH_MAX];
    AUTO_CLOSE int reader = -1;
    int ends[2];
    pid_t pid;
    int status;
    int rc;
    if (!tool_find("", argv[0], path, sizeof path))
        return err_set(e, ERR_NOT_FOUND, "there is no %s", argv[0]);
    if (pipe2(ends, O_CLOEXEC) < 0)
        return err_sys(e, errno, "pipe");
    reader = ends[0];
    rc = proc_spawn(&(struct proc_spawn){.path = path,
                        .argv = (char *const *)(uintptr_t)argv,
                        .envp = envp,
                        .fds = (const int[]){-1, ends[1], -1},
                        .n_fds = 3},
        &pid, e);
    (void)close(ends[1]);
    if (rc < 0)
        return -1;
    rc = read_to_end(reader, ret, deadline_in_ms(TOOL_MS), e);
    if (rc < 0)
        (void)kill(pid, SIGKILL);
    if (proc_reap(pid, &status, e) < 0 || rc < 0)
        return err_wrap(e, "%s", argv[0]);
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
        return err_set(e, ERR_INTERNAL, "%s %s failed", argv[0], argv[1]);
    return 0;
}
