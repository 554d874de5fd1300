/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The gate of a pause.
 *
 * Theory of operation. A pause wants a moment in which no request of the host is half done and no
 * new one begins, while the guest's processes go on. So every request counts itself in and out; a
 * closed gate lets none in, and its descriptor tells those who may stay long (streams of processes)
 * to leave. A live snapshot only wants that nothing begins: who is inside stays, and only where the
 * snapshot wakes are they told to leave. All of it, the secret too, is memory and so part of the
 * snapshot: a restored guest finds its gate closed. One mutex guards it; it is a leaf lock.
 */
#include "envd/gate.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"

struct gate {
    pthread_mutex_t lock;
    pthread_cond_t left; /* somebody has */
    bool closed;
    bool keeps; /* and those inside may stay */
    int inside;
    int evict_fd;
    int64_t words_until; /* while they are told to leave */
    char secret[GATE_SECRET_CHARS + 1];
};

static void init_condition(pthread_cond_t *c)
{
    pthread_condattr_t attr;
    (void)pthread_condattr_init(&attr);
    (void)pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    (void)pthread_cond_init(c, &attr);
    (void)pthread_condattr_destroy(&attr);
}

struct gate *gate_new(void)
{
    struct gate *g = calloc(1, sizeof *g);
    if (!g)
        return NULL;
    g->evict_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (g->evict_fd < 0) {
        free(g);
        return NULL;
    }
    (void)pthread_mutex_init(&g->lock, NULL);
    init_condition(&g->left);
    return g;
}

void gate_free(struct gate *g)
{
    if (!g)
        return;
    (void)close(g->evict_fd);
    (void)pthread_cond_destroy(&g->left);
    (void)pthread_mutex_destroy(&g->lock);
    explicit_bzero(g->secret, sizeof g->secret);
    free(g);
}

int gate_enter(struct gate *g, struct gate_pass *ret, struct err *e)
{
    MUTEX_GUARD(&g->lock);
    if (g->closed)
        return err_set(e, ERR_UNAVAILABLE, "the sandbox is being paused");
    g->inside++;
    *ret = (struct gate_pass){.gate = g, .inside = true};
    return 0;
}

void gate_leave(struct gate_pass *pass)
{
    struct gate *g = pass->gate;
    if (!pass->inside)
        return;
    pass->inside = false;
    MUTEX_GUARD(&g->lock);
    g->inside--;
    (void)pthread_cond_broadcast(&g->left);
}

int gate_close(struct gate *g, const char secret[GATE_SECRET_CHARS + 1], bool keeps, struct err *e)
{
    MUTEX_GUARD(&g->lock);
    if (g->closed)
        return err_set(e, ERR_CONFLICT, "the sandbox is being paused already");
    memcpy(g->secret, secret, sizeof g->secret);
    g->closed = true;
    g->keeps = keeps;
    return 0;
}

bool gate_keeps(struct gate *g)
{
    MUTEX_GUARD(&g->lock);
    return g->closed && g->keeps;
}

void gate_evict(struct gate *g, int64_t words_until)
{
    MUTEX_GUARD(&g->lock);
    g->words_until = words_until;
    (void)eventfd_write(g->evict_fd, 1);
}

int64_t gate_words_until(struct gate *g)
{
    MUTEX_GUARD(&g->lock);
    return g->words_until;
}

bool gate_wait_empty(struct gate *g, int64_t deadline)
{
    const struct timespec until = {
        .tv_sec = (time_t)(deadline / 1000), .tv_nsec = (long)(deadline % 1000) * 1000000};
    MUTEX_GUARD(&g->lock);
    while (g->inside > 0)
        if (pthread_cond_timedwait(&g->left, &g->lock, &until) != 0)
            return g->inside == 0;
    return true;
}

void gate_open(struct gate *g)
{
    eventfd_t ignored;
    MUTEX_GUARD(&g->lock);
    g->closed = false;
    g->keeps = false;
    explicit_bzero(g->secret, sizeof g->secret);
    (void)eventfd_read(g->evict_fd, &ignored);
}

bool gate_is_open(struct gate *g)
{
    MUTEX_GUARD(&g->lock);
    return !g->closed;
}

bool gate_check_secret(struct gate *g, struct slice secret)
{
    volatile unsigned char diff = 0;
    MUTEX_GUARD(&g->lock);
    if (!g->closed || secret.n != GATE_SECRET_CHARS)
        return false;
    for (size_t i = 0; i < GATE_SECRET_CHARS; i++)
        diff = diff | (unsigned char)(g->secret[i] ^ secret.p[i]);
    return diff == 0;
}

int gate_evict_fd(const struct gate *g)
{
    return g->evict_fd;
}
