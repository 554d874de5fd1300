/* SPDX-License-Identifier: Apache-2.0 */
/* Messages to and from shims. What a shim says is checked like any input. */
#include "agent/vmm/shim_link.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include "base/cleanup.h"
#include "base/io.h"

static int check_message(const struct shim_msg *m, struct err *e)
{
    if (m->magic != SHIM_MSG_MAGIC)
        return err_set(e, ERR_PROTOCOL, "the shim sent no message");
    if (m->version != SHIM_VERSION)
        return err_set(
            e, ERR_PROTOCOL, "the shim speaks version %u, this agent %d", m->version, SHIM_VERSION);
    if (!memchr(m->id, '\0', sizeof m->id) || !memchr(m->text, '\0', sizeof m->text))
        return err_set(e, ERR_PROTOCOL, "a string in the shim's message does not end");
    return 0;
}

int shim_receive(int fd, int64_t deadline, struct shim_msg *ret, struct err *e)
{
    struct shim_msg m;
    if (io_read_full(fd, &m, sizeof m, deadline, e) < 0) {
        if (e->kind == ERR_PROTOCOL || e->errnum == ECONNRESET)
            return err_set(e, ERR_UNAVAILABLE, "the shim has ended");
        return err_wrap(e, "the shim's message");
    }
    if (check_message(&m, e) < 0)
        return -1;
    *ret = m;
    return 0;
}

int shim_peek(int fd, struct shim_msg *ret, struct err *e)
{
    struct shim_msg m;
    ssize_t got = recv(fd, &m, sizeof m, MSG_PEEK | MSG_DONTWAIT);
    if (got == 0 || (got < 0 && errno == ECONNRESET))
        return err_set(e, ERR_UNAVAILABLE, "the shim has ended");
    if (got < (ssize_t)sizeof m)
        return err_set(e, ERR_IN_PROGRESS, "the shim has said nothing");
    if (check_message(&m, e) < 0)
        return -1;
    *ret = m;
    return 0;
}

int shim_send(int fd, enum shim_msg_type request, int64_t deadline, struct err *e)
{
    const struct shim_msg m = {
        .magic = SHIM_MSG_MAGIC,
        .version = SHIM_VERSION,
        .type = (uint16_t)request,
    };
    return io_write_full(fd, &m, sizeof m, deadline, e);
}

void shim_format_exit(const struct shim_msg *m, char *dst, size_t dst_size)
{
    int status = m->wait_status;
    if (WIFSIGNALED(status))
        (void)snprintf(dst, dst_size, "qemu killed by SIG%s", sigabbrev_np(WTERMSIG(status)));
    else
        (void)snprintf(dst, dst_size, "qemu exited with %d", WEXITSTATUS(status));
    if (m->text[0] != '\0') {
        size_t len = strlen(dst);
        (void)snprintf(dst + len, dst_size - len, ": %s", m->text);
    }
}

static int kill_one(int pidfd, int64_t deadline, struct err *e)
{
    if (pidfd < 0)
        return 0;
    if (proc_signal(pidfd, SIGKILL, e) < 0)
        return -1;
    return proc_wait_gone(pidfd, deadline, e);
}

int shim_kill(int vmm_pidfd, int shim_pidfd, int64_t deadline, struct err *e)
{
    struct err all = {0};
    struct err one = {0};
    if (kill_one(vmm_pidfd, deadline, &one) < 0)
        err_join(&all, &one);
    if (kill_one(shim_pidfd, deadline, &one) < 0)
        err_join(&all, &one);
    if (all.kind == ERR_NONE)
        return 0;
    *e = all;
    return err_wrap(e, "end shim and VMM");
}

/* A pidfd of the shim's child, -1 when it has none. The shim never has more than one. */
static int open_child(pid_t shim)
{
    struct err ignored;
    struct proc_id child;
    char path[64];
    AUTO_BUF struct buf text = BUF_INIT(4096);
    (void)snprintf(path, sizeof path, "/proc/%d/task/%d/children", (int)shim, (int)shim);
    if (io_read_file(AT_FDCWD, path, &text, &ignored) < 0 || text.len == 0 ||
        proc_identify((pid_t)strtol(text.p, NULL, 10), &child, &ignored) < 0)
        return -1;
    return proc_open(&child, &ignored);
}

int shim_kill_family(const struct proc_id *shim, int64_t deadline, struct err *e)
{
    AUTO_CLOSE int child = -1;
    AUTO_CLOSE int fd = proc_open(shim, e);
    if (fd < 0)
        return e->kind == ERR_NOT_FOUND ? 0 : -1;
    child = open_child(shim->pid);
    return shim_kill(child, fd, deadline, e);
}
