/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The elastic pool of workers.
 *
 * Theory of operation: all workers wait in epoll_wait on the same set (leader and followers, no
 * queue). One is always waiting unless threads_max are busy: whoever is about to run a handler
 * while nobody else waits spawns the next one first. A worker that got nothing for a while leaves
 * if another one waits; the last one waits without a limit, so an idle server has one thread and no
 * wake-ups. The kernel wakes the worker that came last, so surplus ones really do get nothing.
 *
 * Leaving workers are joined in a chain, each by the one that leaves next, the last one by
 * server_pool_join: no thread is detached, none touches the server after it was freed.
 */
#include <assert.h>
#include <errno.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "http/server_int.h"

enum {
    WORKER_IDLE_MS = 5000,
    STOP_GRACE_MS = 5000, /* for replies being sent when the server stops */
};

/* Counts the caller out and hands over the worker that left before: true when there is one. */
static bool leave(struct http_server *s, pthread_t *ret_before)
{
    MUTEX_GUARD(&s->lock);
    bool has_before = s->has_last_left;
    *ret_before = s->last_left;
    s->last_left = pthread_self();
    s->has_last_left = true;
    s->n_workers--;
    (void)pthread_cond_signal(&s->left);
    return has_before;
}

/* Takes one event. False when this worker shall leave. */
static bool wait_event(struct http_server *s, bool alone, struct epoll_event *ret)
{
    int n;
    do
        n = epoll_wait(s->epoll_fd, ret, 1, alone ? -1 : WORKER_IDLE_MS);
    while (n < 0 && errno == EINTR);
    assert(n >= 0);
    if (n == 0)
        ret->data.ptr = NULL;
    return !atomic_load(&s->stopping);
}

static void run_event(struct http_server *s, void *source)
{
    if (source == &s->config.listen_fd)
        server_accept(s);
    else if (source == &s->timer_fd)
        server_expire(s);
    else
        server_conn_serve(s, source);
}

/* Whether `source` is a connection rather than one of the server's own descriptors. */
static bool is_conn(const struct http_server *s, const void *source)
{
    return source && source != &s->config.listen_fd && source != &s->timer_fd &&
           source != &s->stop_fd;
}

/* The end of a wait. False when the worker leaves, being surplus. */
static bool take_event(struct http_server *s, void *source)
{
    MUTEX_GUARD(&s->lock);
    if (!source && s->n_waiting == 1)
        return true;
    s->n_waiting--;
    if (is_conn(s, source))
        server_conn_take_locked(s, source);
    return source != NULL;
}

/* Counts `more` into the waiting; true when nobody else waits. */
static bool count_waiting(struct http_server *s, size_t more)
{
    MUTEX_GUARD(&s->lock);
    s->n_waiting += more;
    return s->n_waiting == 1;
}

static void *worker_main(void *arg)
{
    struct http_server *s = arg;
    struct epoll_event ev;
    pthread_t before;
    bool alone = count_waiting(s, 0);
    while (wait_event(s, alone, &ev) && take_event(s, ev.data.ptr)) {
        if (ev.data.ptr)
            run_event(s, ev.data.ptr);
        alone = count_waiting(s, ev.data.ptr ? 1 : 0);
    }
    if (leave(s, &before))
        (void)pthread_join(before, NULL);
    return NULL;
}

/* Signals are the program's business: workers block them all. */
static int create_thread(struct http_server *s)
{
    sigset_t all;
    sigset_t old;
    pthread_attr_t attr;
    pthread_t thread;
    int rc = pthread_attr_init(&attr);
    if (rc != 0)
        return rc;
    rc = pthread_attr_setstacksize(&attr, s->config.stack_bytes);
    (void)sigfillset(&all);
    (void)pthread_sigmask(SIG_SETMASK, &all, &old);
    if (rc == 0)
        rc = pthread_create(&thread, &attr, worker_main, s);
    (void)pthread_sigmask(SIG_SETMASK, &old, NULL);
    (void)pthread_attr_destroy(&attr);
    return rc;
}

/* Counts a new worker in, as waiting already, if one is needed (`always`: in any case). */
static bool count_in(struct http_server *s, bool always)
{
    MUTEX_GUARD(&s->lock);
    if (!always && (s->n_waiting > 0 || s->n_workers >= s->config.threads_max))
        return false;
    s->n_workers++;
    s->n_waiting++;
    return true;
}

static void count_out(struct http_server *s)
{
    MUTEX_GUARD(&s->lock);
    s->n_workers--;
    s->n_waiting--;
}

int server_pool_spawn(struct http_server *s, struct err *e)
{
    int rc;
    (void)count_in(s, /* always= */ true);
    rc = create_thread(s);
    if (rc == 0)
        return 0;
    count_out(s);
    return err_sys(e, rc, "start a thread");
}

void server_pool_reserve(struct http_server *s)
{
    /* Without the new thread the next event waits for a worker to come back: slower, not wrong. */
    if (count_in(s, /* always= */ false) && create_thread(s) != 0)
        count_out(s);
}

/* True when all have left by the deadline. */
static bool wait_left(struct http_server *s, int64_t deadline)
{
    struct timespec until = {.tv_sec = deadline / 1000, .tv_nsec = deadline % 1000 * 1000000};
    MUTEX_GUARD(&s->lock);
    while (s->n_workers > 0) {
        if (deadline == DEADLINE_NEVER)
            (void)pthread_cond_wait(&s->left, &s->lock);
        else if (pthread_cond_timedwait(&s->left, &s->lock, &until) == ETIMEDOUT)
            return s->n_workers == 0;
    }
    return true;
}

void server_pool_join(struct http_server *s)
{
    if (!wait_left(s, deadline_in_ms(STOP_GRACE_MS))) {
        server_conns_shutdown(s, SHUT_RDWR);
        (void)wait_left(s, DEADLINE_NEVER);
    }
    if (s->has_last_left)
        (void)pthread_join(s->last_left, NULL);
}
