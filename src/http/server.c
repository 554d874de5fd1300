/* SPDX-License-Identifier: Apache-2.0 */
/* Starting and stopping a server. */
#include "http/server.h"

#include <assert.h>
#include <errno.h>
#include <limits.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/io.h"
#include "http/server_int.h"

static void set_default_size(size_t *value, size_t fallback)
{
    if (*value == 0)
        *value = fallback;
}

static void set_default_ms(int *value, int fallback)
{
    if (*value == 0)
        *value = fallback;
}

static void set_defaults(struct http_server_config *c)
{
    set_default_size(&c->threads_max, 64);
    set_default_size(&c->connections_max, 4096);
    set_default_size(&c->stack_bytes, 256 * 1024);
    set_default_size(&c->arena_bytes_max, 4 * 1024 * 1024);
    set_default_ms(&c->head_timeout_ms, 10000);
    set_default_ms(&c->idle_timeout_ms, 60000);
    set_default_ms(&c->io_timeout_ms, 30000);
    set_default_ms(&c->retry_after_sec, 1);
    if (c->stack_bytes < (size_t)PTHREAD_STACK_MIN)
        c->stack_bytes = (size_t)PTHREAD_STACK_MIN;
}

static int watch(struct http_server *s, int fd, uint32_t events, void *tag, struct err *e)
{
    struct epoll_event ev = {.events = events, .data.ptr = tag};
    if (epoll_ctl(s->epoll_fd, EPOLL_CTL_ADD, fd, &ev) < 0)
        return err_sys(e, errno, "epoll_ctl");
    return 0;
}

static int open_events(struct http_server *s, struct err *e)
{
    s->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    s->stop_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    s->timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
    if (s->epoll_fd < 0 || s->stop_fd < 0 || s->timer_fd < 0)
        return err_sys(e, errno, "event descriptors");
    /* level-triggered: wakes everyone; edge-triggered: one; one-shot: one, until armed again */
    if (watch(s, s->stop_fd, EPOLLIN, &s->stop_fd, e) < 0 ||
        watch(s, s->timer_fd, EPOLLIN | EPOLLET, &s->timer_fd, e) < 0)
        return -1;
    return watch(s, s->config.listen_fd, EPOLLIN | EPOLLONESHOT, &s->config.listen_fd, e);
}

static void init_lock(struct http_server *s)
{
    pthread_condattr_t attr;
    (void)pthread_mutex_init(&s->lock, NULL);
    (void)pthread_condattr_init(&attr);
    (void)pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    (void)pthread_cond_init(&s->left, &attr);
    (void)pthread_condattr_destroy(&attr);
}

static struct http_server *server_new(const struct http_server_config *config)
{
    struct http_server *s = calloc(1, sizeof *s);
    if (!s)
        return NULL;
    s->config = *config;
    set_defaults(&s->config);
    assert(config->n_classes <= HTTP_CLASSES_MAX);
    for (size_t i = 0; i < config->n_classes; i++)
        s->classes[i] = (struct class_state){config->classes[i].name, config->classes[i].max, 0};
    s->config.classes = NULL; /* the caller's array may go */
    s->epoll_fd = s->stop_fd = s->timer_fd = -1;
    s->timer_at = s->accept_again_at = DEADLINE_NEVER;
    init_lock(s);
    return s;
}

static void close_if_open(int fd)
{
    if (fd >= 0)
        (void)close(fd);
}

/* No worker may run any more. */
static void server_free(struct http_server *s)
{
    while (s->conns.first)
        server_conn_free(s, s->conns.first);
    close_if_open(s->config.listen_fd);
    close_if_open(s->epoll_fd);
    close_if_open(s->stop_fd);
    close_if_open(s->timer_fd);
    (void)pthread_mutex_destroy(&s->lock);
    (void)pthread_cond_destroy(&s->left);
    free(s);
}

static int server_run(struct http_server *s, struct err *e)
{
    const int one = 1;
    if (io_set_nonblock(s->config.listen_fd, /* on= */ 1, e) < 0)
        return -1;
    /* Accepted sockets inherit it. Unix sockets have no such thing. */
    (void)setsockopt(s->config.listen_fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (open_events(s, e) < 0)
        return -1;
    return server_pool_spawn(s, e);
}

struct http_server *http_server_start(const struct http_server_config *config, struct err *e)
{
    struct http_server *s = server_new(config);
    if (!s) {
        err_set(e, ERR_NOMEM, "out of memory");
        return NULL;
    }
    if (server_run(s, e) < 0) {
        s->config.listen_fd = -1; /* still the caller's */
        server_free(s);
        return NULL;
    }
    return s;
}

void http_server_stop(struct http_server *s)
{
    const uint64_t one = 1;
    ssize_t put;
    if (!s)
        return;
    atomic_store(&s->stopping, true);
    put = write(s->stop_fd, &one, sizeof one);
    (void)put; /* an eventfd at 0 takes it */
    server_conns_shutdown(s, SHUT_RD);
    server_pool_join(s);
    server_free(s);
}
