/* SPDX-License-Identifier: Apache-2.0 */
/* The agent's side of the helper: starting it, asking, burying it. */
#include "agent/net/helper.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/io.h"
#include "base/proc.h"

enum { ANSWER_MS = 30000 /* removing a thousand slots takes some seconds */ };

void net_helper_init(struct net_helper *h, const char *path, const struct net_plan *plan)
{
    *h = (struct net_helper){.path = path, .fd = -1, .plan = *plan};
}

static void bury(struct net_helper *h)
{
    struct err e = {0};
    int status;
    (void)close(TAKE_FD(h->fd));
    (void)proc_reap(h->pid, &status, &e);
}

void net_helper_stop(struct net_helper *h)
{
    if (h->fd >= 0)
        bury(h);
}

/* Our own child keeps its pid until it is reaped, so the pid is safe to signal. */
static void kill_helper(struct net_helper *h)
{
    (void)kill(h->pid, SIGKILL);
    bury(h);
}

static int exchange(struct net_helper *h, const struct net_request *q, struct err *e)
{
    struct err why = {0};
    ssize_t n = send(h->fd, q, sizeof *q, MSG_NOSIGNAL);
    if (n == (ssize_t)sizeof *q && io_wait(h->fd, POLLIN, deadline_in_ms(ANSWER_MS), &why) > 0)
        n = recv(h->fd, &h->reply, sizeof h->reply, 0);
    if (n != (ssize_t)sizeof h->reply) {
        kill_helper(h);
        return err_set(e, ERR_UNAVAILABLE, "the network helper %s",
            why.kind == ERR_TIMEOUT ? "did not answer" : "has died");
    }
    if (h->reply.rc < 0)
        *e = h->reply.err;
    return h->reply.rc < 0 ? -1 : 0;
}

static int start(struct net_helper *h, struct err *e)
{
    char *argv[] = {(char *)h->path, (char *)"net-helper", NULL};
    int pair[2];
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
        return err_sys(e, errno, "socketpair");
    AUTO_CLOSE int ours = pair[0];
    AUTO_CLOSE int theirs = pair[1];
    const int fds[] = {-1, -1, STDERR_FILENO, theirs};
    /* A session of its own: a Ctrl-C meant for the agent must not end a step midway. */
    const struct proc_spawn spawn = {
        .path = h->path, .argv = argv, .fds = fds, .n_fds = 4, .new_session = true};
    if (proc_spawn(&spawn, &h->pid, e) < 0)
        return -1;
    h->fd = TAKE_FD(ours);
    (void)close(TAKE_FD(theirs)); /* or its death would not be seen */
    const struct net_request lock = {.op = NET_OP_LOCK, .plan = h->plan};
    if (exchange(h, &lock, e) < 0) {
        net_helper_stop(h);
        return err_wrap(e, "lock the instance");
    }
    return 0;
}

int net_helper_call(
    struct net_helper *h, enum net_op op, unsigned slot, unsigned fail_after, struct err *e)
{
    const struct net_request q = {
        .op = op, .slot = slot, .fail_after = fail_after, .plan = h->plan, .keep = h->keep};
    if (h->fd < 0 && start(h, e) < 0)
        return -1;
    return exchange(h, &q, e);
}
