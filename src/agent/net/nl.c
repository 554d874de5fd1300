/* SPDX-License-Identifier: Apache-2.0 */
/* Netlink sockets: ask, and wait for the answer. A socket per question costs some microseconds and
 * leaves no stale answer for the next one. */
#include "agent/net/nl.h"

#include <errno.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netlink.h>
#include <sys/socket.h>
#include <sys/time.h>

#include "base/cleanup.h"

enum { NL_TIMEOUT_SEC = 10 };

static void close_socket(struct mnl_socket **s)
{
    if (*s)
        (void)mnl_socket_close(*s);
}

static struct mnl_socket *open_socket(int bus, struct err *e)
{
    struct timeval tv = {.tv_sec = NL_TIMEOUT_SEC};
    struct mnl_socket *s = mnl_socket_open2(bus, SOCK_CLOEXEC);
    if (s && mnl_socket_bind(s, 0, MNL_SOCKET_AUTOPID) == 0 &&
        setsockopt(mnl_socket_get_fd(s), SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof tv) == 0)
        return s;
    (void)err_sys(e, errno, "netlink socket");
    close_socket(&s);
    return NULL;
}

/* EAGAIN of a timed-out receive is told as what it is. */
static int receive_error(struct err *e)
{
    if (errno == EAGAIN)
        return err_set(e, ERR_TIMEOUT, "no answer of the kernel in %d s", NL_TIMEOUT_SEC);
    return err_sys(e, errno, "netlink");
}

int nl_talk(int bus, struct nl_request *r, mnl_cb_t cb, void *arg, struct err *e)
{
    _Alignas(NLMSG_ALIGNTO) char answer[NL_BUFFER_BYTES];
    CLEANUP(close_socket) struct mnl_socket *s = open_socket(bus, e);
    int rc = MNL_CB_OK;
    if (!s)
        return -1;
    r->h->nlmsg_seq = 1;
    if (mnl_socket_sendto(s, r->h, r->h->nlmsg_len) < 0)
        return err_sys(e, errno, "netlink send");
    while (rc == MNL_CB_OK) {
        ssize_t n = mnl_socket_recvfrom(s, answer, sizeof answer);
        if (n < 0)
            return receive_error(e);
        rc = mnl_cb_run(answer, (size_t)n, 1, mnl_socket_get_portid(s), cb, arg);
    }
    return rc < 0 ? err_sys(e, errno, "netlink") : 0;
}

/* True when the batch is settled; then *ret_errnum is its outcome. */
static bool batch_outcome(const char *bytes, size_t n, uint32_t last_seq, int *ret_errnum)
{
    const struct nlmsghdr *h = (const struct nlmsghdr *)bytes;
    int left = (int)n;
    for (; mnl_nlmsg_ok(h, left); h = mnl_nlmsg_next(h, &left)) {
        const struct nlmsgerr *ack = mnl_nlmsg_get_payload(h);
        if (h->nlmsg_type != NLMSG_ERROR)
            continue;
        *ret_errnum = -ack->error;
        if (ack->error != 0 || h->nlmsg_seq == last_seq)
            return true;
    }
    return false;
}

int nl_batch(const void *bytes, size_t n, uint32_t last_seq, struct err *e)
{
    _Alignas(NLMSG_ALIGNTO) char answer[NL_BUFFER_BYTES];
    CLEANUP(close_socket) struct mnl_socket *s = open_socket(NETLINK_NETFILTER, e);
    int errnum = 0;
    ssize_t got;
    if (!s)
        return -1;
    if (mnl_socket_sendto(s, bytes, n) < 0)
        return err_sys(e, errno, "netlink send");
    do {
        got = mnl_socket_recvfrom(s, answer, sizeof answer);
        if (got < 0)
            return receive_error(e);
    } while (!batch_outcome(answer, (size_t)got, last_seq, &errnum));
    return errnum != 0 ? err_sys(e, errnum, "nftables") : 0;
}
