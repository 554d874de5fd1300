/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Deadlines of parked connections, without a thread and almost without system calls.
 *
 * Three lists, each sorted by deadline, and one timerfd in the epoll set. The timer is set only
 * when an earlier deadline than the one it stands at comes up, and set anew when it fires; a
 * connection that is busy in between simply is not found any more. An expired connection is not
 * freed here, a worker may just be getting an event for it: it is shut down for reading, which
 * raises that event.
 */
#include <assert.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "http/server_int.h"

void server_timer_arm_locked(struct http_server *s, int64_t at)
{
    struct itimerspec spec = {0};
    if (at >= s->timer_at)
        return;
    spec.it_value = (struct timespec){.tv_sec = at / 1000, .tv_nsec = at % 1000 * 1000000};
    (void)timerfd_settime(s->timer_fd, TFD_TIMER_ABSTIME, &spec, NULL);
    s->timer_at = at;
}

void server_timer_add_locked(struct http_server *s, struct server_conn *c, enum conn_timer timer)
{
    struct conn_list *l = &s->timers[timer];
    struct server_conn *before = l->last;
    assert(!c->parked);
    while (before && before->deadline > c->deadline)
        before = before->timed.prev;
    c->timed.prev = before;
    c->timed.next = before ? before->timed.next : l->first;
    *(c->timed.prev ? &c->timed.prev->timed.next : &l->first) = c;
    *(c->timed.next ? &c->timed.next->timed.prev : &l->last) = c;
    c->timer = timer;
    c->parked = true;
    server_timer_arm_locked(s, c->deadline);
}

void server_timer_remove_locked(struct http_server *s, struct server_conn *c)
{
    struct conn_list *l = &s->timers[c->timer];
    if (!c->parked)
        return;
    *(c->timed.prev ? &c->timed.prev->timed.next : &l->first) = c->timed.next;
    *(c->timed.next ? &c->timed.next->timed.prev : &l->last) = c->timed.prev;
    c->timed = (struct conn_link){0};
    c->parked = false;
}

static void expire_list(struct http_server *s, enum conn_timer timer, int64_t now)
{
    struct server_conn *c;
    while ((c = s->timers[timer].first) && c->deadline <= now) {
        server_timer_remove_locked(s, c);
        c->expired = true;
        (void)shutdown(c->in.fd, SHUT_RD);
    }
    if (c)
        server_timer_arm_locked(s, c->deadline);
}

static void accept_again(struct http_server *s)
{
    struct epoll_event ev = {.events = EPOLLIN | EPOLLONESHOT, .data.ptr = &s->config.listen_fd};
    s->accept_again_at = DEADLINE_NEVER;
    (void)epoll_ctl(s->epoll_fd, EPOLL_CTL_MOD, s->config.listen_fd, &ev);
}

void server_expire(struct http_server *s)
{
    MUTEX_GUARD(&s->lock);
    int64_t now = clock_mono_ms();
    uint64_t fired;
    ssize_t got = read(s->timer_fd, &fired, sizeof fired);
    (void)got; /* nothing to read: another worker was here first */
    s->timer_at = DEADLINE_NEVER;
    for (int timer = 0; timer < TIMER_COUNT; timer++)
        expire_list(s, (enum conn_timer)timer, now);
    if (s->accept_again_at <= now)
        accept_again(s);
    else
        server_timer_arm_locked(s, s->accept_again_at);
}
