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
#include "base/sock.h"
#include "proto/sandbox.h"

static int check_head(const struct shim_msg *m, struct err *e)
{
    if (m->magic != SHIM_MSG_MAGIC)
        return err_set(e, ERR_PROTOCOL, "the shim sent no message");
    if (m->version < SHIM_VERSION_MIN || shim_msg_bytes(m->version) == 0)
        return err_set(e, ERR_UNSUPPORTED, "the shim speaks version %u, this agent %d to %d",
            m->version, SHIM_VERSION_MIN, SHIM_VERSION);
    return 0;
}

static int check_strings(const struct shim_msg *m, struct err *e)
{
    if (!memchr(m->id, '\0', sizeof m->id) || !memchr(m->text, '\0', sizeof m->text))
        return err_set(e, ERR_PROTOCOL, "a string in the shim's message does not end");
    return 0;
}

/* The part of a message from `from` to `to`. */
static int read_part(
    int fd, struct shim_msg *m, size_t from, size_t to, int64_t deadline, struct err *e)
{
    if (io_read_full(fd, (char *)m + from, to - from, deadline, e) == 0)
        return 0;
    if (e->kind == ERR_PROTOCOL || e->errnum == ECONNRESET)
        return err_set(e, ERR_UNAVAILABLE, "the shim has ended");
    return err_wrap(e, "the shim's message");
}

int shim_receive(int fd, int64_t deadline, struct shim_msg *ret, struct err *e)
{
    struct shim_msg m = {0};
    size_t head = sizeof(struct shim_msg_head);
    if (read_part(fd, &m, 0, head, deadline, e) < 0 || check_head(&m, e) < 0 ||
        read_part(fd, &m, head, shim_msg_bytes(m.version), deadline, e) < 0 ||
        check_strings(&m, e) < 0)
        return -1;
    *ret = m;
    return 0;
}

int shim_peek(int fd, struct shim_msg *ret, struct err *e)
{
    struct shim_msg m = {0};
    ssize_t got = recv(fd, &m, sizeof m, MSG_PEEK | MSG_DONTWAIT);
    if (got == 0 || (got < 0 && errno == ECONNRESET))
        return err_set(e, ERR_UNAVAILABLE, "the shim has ended");
    if (got < (ssize_t)sizeof(struct shim_msg_head))
        return err_set(e, ERR_IN_PROGRESS, "the shim has said nothing");
    if (check_head(&m, e) < 0)
        return -1;
    if (got < (ssize_t)shim_msg_bytes(m.version))
        return err_set(e, ERR_IN_PROGRESS, "the shim has not said all");
    if (check_strings(&m, e) < 0)
        return -1;
    *ret = m;
    return 0;
}

int shim_send(int fd, unsigned version, enum shim_msg_type request, int64_t deadline, struct err *e)
{
    const struct shim_msg m = {
        .magic = SHIM_MSG_MAGIC,
        .version = (uint16_t)version,
        .type = (uint16_t)request,
    };
    return io_write_full(fd, &m, shim_msg_bytes(version), deadline, e);
}

int shim_send_fds(int fd, const struct shim_request *r, struct err *e)
{
    struct shim_msg m = {
        .magic = SHIM_MSG_MAGIC,
        .version = 3,
        .type = (uint16_t)r->type,
        .flags = r->flags,
    };
    if (r->uuid)
        memcpy(m.uuid, r->uuid, sizeof m.uuid);
    return sock_send_fds(fd, &m, shim_msg_bytes(3), r->fds, r->n_fds, e);
}

int shim_send_hello(int fd, uint32_t flags, int64_t deadline, struct err *e)
{
    const struct shim_msg m = {
        .magic = SHIM_MSG_MAGIC,
        .version = SHIM_VERSION_MIN,
        .type = SHIM_MSG_HELLO,
        .version_min = SHIM_VERSION_MIN,
        .version_max = SHIM_VERSION,
        .flags = flags,
    };
    return io_write_full(fd, &m, sizeof m, deadline, e);
}

/* Who listens proves its pid since version 2: before, the agent that made the socket did. */
static int check_answer(const struct shim_msg *m, const struct sandbox_id *id,
    const struct sock_peer *peer, struct err *e)
{
    if (m->type == SHIM_MSG_REFUSED && m->refusal == SHIM_REFUSAL_CONTROLLED)
        return err_set(
            e, ERR_CONFLICT, "process %u has control of this VM", (unsigned)m->controller_pid);
    if (m->type == SHIM_MSG_REFUSED && m->refusal == SHIM_REFUSAL_VERSION)
        return err_set(e, ERR_UNSUPPORTED, "the shim refused version %d", SHIM_VERSION);
    if (m->type != SHIM_MSG_STATE)
        return err_set(e, ERR_PROTOCOL, "the shim answered with message %u", m->type);
    if (strcmp(m->id, id->text) != 0)
        return err_set(e, ERR_PROTOCOL, "it is the shim of \"%s\"", m->id);
    if (m->version >= 2 && (uint32_t)peer->pid != m->shim_pid)
        return err_set(e, ERR_PROTOCOL, "process %d answers for process %u", (int)peer->pid,
            (unsigned)m->shim_pid);
    return 0;
}

/* A shim that hangs or goes away meanwhile is none. */
static int say_hello(int fd, uint32_t flags, int64_t deadline, struct shim_msg *ret, struct err *e)
{
    if (shim_send_hello(fd, flags, deadline, e) == 0 && shim_receive(fd, deadline, ret, e) == 0)
        return 0;
    if (e->kind == ERR_UNAVAILABLE || e->kind == ERR_TIMEOUT || e->errnum == EPIPE)
        e->kind = ERR_NOT_FOUND;
    return -1;
}

int shim_connect(const char *path, const struct sandbox_id *id, uint32_t flags, int64_t deadline,
    struct shim_msg *ret, struct err *e)
{
    struct shim_msg m;
    struct sock_peer peer;
    AUTO_CLOSE int fd = sock_connect_unix(path, e);
    if (fd < 0) {
        if (e->errnum == ENOENT || e->errnum == ECONNREFUSED)
            e->kind = ERR_NOT_FOUND;
        return -1;
    }
    if (sock_peer_get(fd, &peer, e) < 0)
        return -1;
    if (peer.uid != 0)
        return err_set(e, ERR_PROTOCOL, "%s is served by uid %u", path, (unsigned)peer.uid);
    if (say_hello(fd, flags, deadline, &m, e) < 0 || check_answer(&m, id, &peer, e) < 0)
        return err_wrap(e, "%s", path);
    *ret = m;
    return TAKE_FD(fd);
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
