/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `torpor-agent net-helper`: the single-threaded process that enters namespaces, because the agent
 * has threads. It reads requests from descriptor 3 until that is closed, then ends; it takes no
 * other input. It holds the instance's lock, so that two never work on the same names: a new
 * agent's helper waits here until the one of a dead agent has finished its step and gone.
 */
#include "agent/net/helper.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>

#include "base/cleanup.h"
#include "base/io.h"

#define LOCK_DIR "/run/torpor"

enum { REQUEST_FD = 3 };

static int take_lock(const struct net_plan *p, int *lock_fd, struct err *e)
{
    char path[64];
    if (*lock_fd >= 0)
        return 0;
    if (io_mkdir_p(LOCK_DIR, 0755, e) < 0)
        return -1;
    (void)snprintf(path, sizeof path, LOCK_DIR "/net%u.lock", p->instance);
    AUTO_CLOSE int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0)
        return err_sys(e, errno, "open %s", path);
    /* The caller's deadline bounds this wait: it kills us. */
    if (flock(fd, LOCK_EX) < 0)
        return err_sys(e, errno, "lock %s", path);
    *lock_fd = TAKE_FD(fd);
    net_nft_hold(*lock_fd);
    return 0;
}

static int sweep(const struct net_plan *p, struct err *e)
{
    struct err host = {0};
    const struct net_keep none = {{0}};
    int rc = net_slots_sweep(p, &none, e);
    if (net_host_remove(p, &host) == 0)
        return rc;
    if (rc < 0)
        return err_join(e, &host);
    *e = host;
    return -1;
}

static int perform(
    const struct net_request *q, int *lock_fd, uint32_t step_us[NET_STEPS_MAX], struct err *e)
{
    const struct net_plan *p = &q->plan;
    if (q->slot >= p->slots)
        return err_set(e, ERR_INVALID, "no slot %u", q->slot);
    if (*lock_fd < 0 && q->op != NET_OP_LOCK)
        return err_set(e, ERR_BAD_STATE, "the instance is not locked");
    switch ((enum net_op)q->op) {
    case NET_OP_LOCK:
        return take_lock(p, lock_fd, e);
    case NET_OP_SWEEP:
        return sweep(p, e);
    case NET_OP_SWEEP_SLOTS:
        return net_slots_sweep(p, &q->keep, e);
    case NET_OP_HOST_RENEW:
        return net_host_renew(p, &q->keep, q->fail_after, step_us, e);
    case NET_OP_SLOT_CHECK:
        return net_slot_check(p, q->slot, e);
    case NET_OP_HOST_MAKE:
        return net_host_make(p, q->fail_after, step_us, e);
    case NET_OP_SLOT_MAKE:
        return net_slot_make(p, q->slot, q->fail_after, step_us, e);
    case NET_OP_SLOT_REMOVE:
        return net_slot_remove(p, q->slot, e);
    case NET_OP_SLOT_RECYCLE:
        return net_slot_recycle(p, q->slot, e);
    case NET_OP_COUNT:
        break;
    }
    return err_set(e, ERR_INVALID, "no operation %u", q->op);
}

int net_helper_main(int argc, char **argv)
{
    struct net_request q;
    AUTO_CLOSE int lock_fd = -1;
    (void)argv;
    if (argc != 2 || fcntl(REQUEST_FD, F_SETFD, FD_CLOEXEC) < 0)
        return 2; /* started by hand: there is nothing to read */
    for (;;) {
        struct net_reply reply = {.rc = 0};
        ssize_t n = recv(REQUEST_FD, &q, sizeof q, 0);
        if (n == 0)
            return 0;
        if (n < 0 && errno == EINTR)
            continue;
        if (n != (ssize_t)sizeof q)
            return 1;
        reply.rc = perform(&q, &lock_fd, reply.step_us, &reply.err);
        if (send(REQUEST_FD, &reply, sizeof reply, MSG_NOSIGNAL) < 0)
            return 1;
    }
}
