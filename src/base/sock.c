/* SPDX-License-Identifier: Apache-2.0 */
/* Sockets. */
#include "base/sock.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/io.h"

enum { BACKLOG = 512, FDS_MAX = 128 }; /* the kernel's bound is 253 */

static int unix_address(const char *path, struct sockaddr_un *ret, struct err *e)
{
    *ret = (struct sockaddr_un){.sun_family = AF_UNIX};
    if (strlen(path) >= sizeof ret->sun_path)
        return err_set(e, ERR_INVALID, "socket path longer than %zu bytes: %s",
            sizeof ret->sun_path - 1, path);
    memcpy(ret->sun_path, path, strlen(path) + 1);
    return 0;
}

int sock_listen_unix(const char *path, mode_t mode, struct err *e)
{
    struct sockaddr_un addr;
    AUTO_CLOSE int fd = -1;
    if (unix_address(path, &addr, e) < 0)
        return -1;
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return err_sys(e, errno, "socket");
    if (unlink(path) < 0 && errno != ENOENT)
        return err_sys(e, errno, "unlink %s", path);
    if (bind(fd, (struct sockaddr *)&addr, sizeof addr) < 0)
        return err_sys(e, errno, "bind %s", path);
    if (chmod(path, mode) < 0)
        return err_sys(e, errno, "chmod %s", path);
    if (listen(fd, BACKLOG) < 0)
        return err_sys(e, errno, "listen %s", path);
    return TAKE_FD(fd);
}

int sock_connect_unix(const char *path, struct err *e)
{
    struct sockaddr_un addr;
    AUTO_CLOSE int fd = -1;
    if (unix_address(path, &addr, e) < 0)
        return -1;
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return err_sys(e, errno, "socket");
    if (connect(fd, (struct sockaddr *)&addr, sizeof addr) < 0) {
        err_sys(e, errno, "connect %s", path);
        e->kind = ERR_UNAVAILABLE;
        return -1;
    }
    return TAKE_FD(fd);
}

static int inet_address(const char *ipv4, uint16_t port, struct sockaddr_in *ret, struct err *e)
{
    *ret = (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons(port)};
    if (inet_pton(AF_INET, ipv4, &ret->sin_addr) != 1)
        return err_set(e, ERR_INVALID, "not an IPv4 address: %s", ipv4);
    return 0;
}

int sock_listen_tcp(const char *ipv4, uint16_t port, struct err *e)
{
    struct sockaddr_in addr;
    const int one = 1;
    AUTO_CLOSE int fd = -1;
    if (inet_address(ipv4, port, &addr, e) < 0)
        return -1;
    fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return err_sys(e, errno, "socket");
    (void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(fd, (struct sockaddr *)&addr, sizeof addr) < 0)
        return err_sys(e, errno, "bind %s:%u", ipv4, port);
    if (listen(fd, BACKLOG) < 0)
        return err_sys(e, errno, "listen %s:%u", ipv4, port);
    return TAKE_FD(fd);
}

static int connect_wait(int fd, int64_t deadline, struct err *e)
{
    int soerr = 0;
    socklen_t len = sizeof soerr;
    if (io_wait(fd, POLLOUT, deadline, e) < 0)
        return -1;
    if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &soerr, &len) < 0)
        return err_sys(e, errno, "getsockopt");
    return soerr ? err_sys(e, soerr, "connect") : 0;
}

int sock_connect_tcp(const char *ipv4, uint16_t port, int64_t deadline, struct err *e)
{
    struct sockaddr_in addr;
    const int one = 1;
    AUTO_CLOSE int fd = -1;
    if (inet_address(ipv4, port, &addr, e) < 0)
        return -1;
    fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return err_sys(e, errno, "socket");
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (connect(fd, (struct sockaddr *)&addr, sizeof addr) < 0) {
        if (errno != EINPROGRESS)
            return err_sys(e, errno, "connect %s:%u", ipv4, port);
        if (connect_wait(fd, deadline, e) < 0)
            return err_wrap(e, "%s:%u", ipv4, port);
    }
    if (io_set_nonblock(fd, /* on= */ 0, e) < 0)
        return -1;
    return TAKE_FD(fd);
}

uint16_t sock_local_port(int fd)
{
    struct sockaddr_in addr;
    socklen_t len = sizeof addr;
    if (getsockname(fd, (struct sockaddr *)&addr, &len) < 0 || addr.sin_family != AF_INET)
        return 0;
    return ntohs(addr.sin_port);
}

union fd_control {
    char bytes[CMSG_SPACE(FDS_MAX * sizeof(int))];
    struct cmsghdr align;
};

int sock_send_fds(int fd, const void *src, size_t n, const int *fds, size_t n_fds, struct err *e)
{
    union fd_control control;
    struct iovec iov = {(void *)(uintptr_t)src, n};
    struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
    ssize_t put;
    if (n_fds > FDS_MAX)
        return err_set(e, ERR_INVALID, "too many descriptors: %zu", n_fds);
    if (n_fds > 0) {
        struct cmsghdr *c;
        memset(&control, 0, sizeof control);
        msg.msg_control = control.bytes;
        msg.msg_controllen = CMSG_SPACE(n_fds * sizeof(int));
        c = CMSG_FIRSTHDR(&msg);
        c->cmsg_level = SOL_SOCKET;
        c->cmsg_type = SCM_RIGHTS;
        c->cmsg_len = CMSG_LEN(n_fds * sizeof(int));
        memcpy(CMSG_DATA(c), fds, n_fds * sizeof(int));
    }
    do
        put = sendmsg(fd, &msg, MSG_NOSIGNAL);
    while (put < 0 && errno == EINTR);
    if (put < 0)
        return err_sys(e, errno, "sendmsg");
    if ((size_t)put != n)
        return err_set(e, ERR_IO, "short sendmsg");
    return 0;
}

/* Moves the descriptors of a received message to `fds`; beyond `max_fds` they are closed.
 * Returns false when there were too many. */
static bool collect_fds(struct msghdr *msg, int *fds, size_t max_fds, size_t *ret_n_fds)
{
    bool fitted = true;
    *ret_n_fds = 0;
    for (struct cmsghdr *c = CMSG_FIRSTHDR(msg); c; c = CMSG_NXTHDR(msg, c)) {
        size_t n = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
            continue;
        for (size_t i = 0; i < n; i++) {
            int got;
            memcpy(&got, CMSG_DATA(c) + i * sizeof got, sizeof got);
            if (*ret_n_fds < max_fds) {
                fds[(*ret_n_fds)++] = got;
            } else {
                (void)close(got);
                fitted = false;
            }
        }
    }
    return fitted && !(msg->msg_flags & MSG_CTRUNC);
}

ssize_t sock_recv_fds(
    int fd, void *dst, size_t n, int *fds, size_t max_fds, size_t *ret_n_fds, struct err *e)
{
    union fd_control control;
    struct iovec iov = {dst, n};
    struct msghdr msg = {.msg_iov = &iov,
        .msg_iovlen = 1,
        .msg_control = control.bytes,
        .msg_controllen = sizeof control.bytes};
    ssize_t got;
    do
        got = recvmsg(fd, &msg, MSG_CMSG_CLOEXEC);
    while (got < 0 && errno == EINTR);
    if (got < 0)
        return err_sys(e, errno, "recvmsg");
    if (!collect_fds(&msg, fds, max_fds, ret_n_fds)) {
        while (*ret_n_fds > 0)
            (void)close(fds[--*ret_n_fds]);
        return err_set(e, ERR_PROTOCOL, "more than %zu descriptors in one message", max_fds);
    }
    return got;
}

int sock_peer_get(int fd, struct sock_peer *ret, struct err *e)
{
    struct ucred cred;
    socklen_t len = sizeof cred;
    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &len) < 0)
        return err_sys(e, errno, "SO_PEERCRED");
    *ret = (struct sock_peer){.pid = cred.pid, .uid = cred.uid, .gid = cred.gid};
    return 0;
}
