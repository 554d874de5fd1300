/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The tunnel pump.
 *
 * Theory of operation: one thread, one level-triggered epoll set. A tunnel has two ends; each end
 * has a flow of bytes that came from it and go to the other. A flow reads into the pump's scratch
 * memory and writes at once; what the receiver does not take is kept in a buffer of its own, and
 * the sender is not read until that is gone. An end is in the epoll set only for what it is needed
 * for, and not at all when it is needed for nothing: epoll reports hang-ups to everyone in the set,
 * and one that nobody can act on yet would turn the thread in circles.
 *
 * All tunnels are in one list, the one that moved bytes last at its end: the first one is the next
 * to be idle for too long. Everything is under `lock`; the thread holds it while it moves bytes,
 * which never blocks, and not while it waits. Tunnels that ended stay allocated until the batch of
 * events that may still name them is through.
 */
#include "http/tunnel.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/io.h"

enum {
    SCRATCH_BYTES = 64 * 1024, /* also the most that one flow keeps, early bytes aside */
    EARLY_MAX = 64 * 1024,
    BATCH = 64,
    STACK_BYTES = 64 * 1024,
    TUNNELS_DEFAULT = 1024,
    IDLE_DEFAULT_MS = 600000,
};

/* One end, and the flow that begins there. */
struct end {
    struct tunnel *tunnel;
    struct end *peer;
    int fd;
    uint32_t events; /* registered for; 0: not in the set */
    char *kept;      /* read here, not yet taken by the peer */
    size_t kept_n;
    size_t kept_at;
    bool read_ended; /* no more will be read */
    bool finished;   /* and the peer has been told, or is gone */
    uint64_t moved;
};

struct tunnel {
    struct end a;
    struct end b;
    struct tunnel *prev;
    struct tunnel *next;
    int64_t deadline;
    tunnel_on_end *on_end;
    void *ctx;
    bool broken;
    bool ended;
};

struct tunnel_pump {
    struct tunnel_pump_config config;
    int epoll_fd;
    int wake_fd; /* eventfd: stop, or the first tunnel has come */
    pthread_t thread;
    pthread_mutex_t lock;
    bool stopping;
    size_t n;
    struct tunnel *first;
    struct tunnel *last;
    struct tunnel *ended; /* linked by next, to be freed after the batch */
    char scratch[SCRATCH_BYTES];
};

static void list_remove(struct tunnel_pump *p, struct tunnel *t)
{
    *(t->prev ? &t->prev->next : &p->first) = t->next;
    *(t->next ? &t->next->prev : &p->last) = t->prev;
    t->prev = t->next = NULL;
}

static void list_append(struct tunnel_pump *p, struct tunnel *t)
{
    t->deadline = deadline_in_ms(p->config.idle_timeout_ms);
    t->next = NULL;
    t->prev = p->last;
    *(t->prev ? &t->prev->next : &p->first) = t;
    p->last = t;
}

/* Both descriptors are closed and its owner is told; the memory stays until the batch is over. */
static void end_tunnel(struct tunnel_pump *p, struct tunnel *t, enum tunnel_end why)
{
    struct tunnel_result result = {.why = why, .a_to_b = t->a.moved, .b_to_a = t->b.moved};
    list_remove(p, t);
    p->n--;
    t->ended = true;
    (void)close(t->a.fd);
    (void)close(t->b.fd);
    free(t->a.kept);
    free(t->b.kept);
    t->next = p->ended;
    p->ended = t;
    if (t->on_end)
        t->on_end(t->ctx, &result);
}

static void free_ended(struct tunnel_pump *p)
{
    while (p->ended) {
        struct tunnel *t = p->ended;
        p->ended = t->next;
        free(t);
    }
}

/* The flow from `from` is over because a peer is gone. */
static void give_up(struct end *from)
{
    from->read_ended = from->finished = true;
    free(from->kept);
    from->kept = NULL;
    from->kept_n = from->kept_at = 0;
    from->tunnel->broken = true;
}

/* Bytes that the receiver took; 0: it takes none now; the flow is given up when it is gone. */
static size_t write_now(struct end *from, const char *src, size_t n)
{
    ssize_t put;
    do
        put = send(from->peer->fd, src, n, MSG_NOSIGNAL | MSG_DONTWAIT);
    while (put < 0 && errno == EINTR);
    if (put < 0 && errno != EAGAIN)
        give_up(from);
    from->moved += put > 0 ? (uint64_t)put : 0;
    return put > 0 ? (size_t)put : 0;
}

/* Keeps what the receiver did not take. */
static void keep(struct end *from, const char *src, size_t n)
{
    from->kept = malloc(n);
    if (!from->kept) {
        give_up(from);
        return;
    }
    memcpy(from->kept, src, n);
    from->kept_n = n;
    from->kept_at = 0;
}

static void flush_kept(struct end *from)
{
    if (!from->kept)
        return;
    from->kept_at += write_now(from, from->kept + from->kept_at, from->kept_n - from->kept_at);
    if (from->kept && from->kept_at == from->kept_n) {
        free(from->kept);
        from->kept = NULL;
    }
}

/* Passes the end of the flow on, once everything before it was delivered. */
static void pass_end(struct end *from)
{
    if (!from->read_ended || from->kept || from->finished)
        return;
    from->finished = true;
    (void)shutdown(from->peer->fd, SHUT_WR);
}

/* Moves what can be moved without waiting, at most one scratch's worth, so that no tunnel starves
 * the others. True when bytes came or went. */
static bool move(struct tunnel_pump *p, struct end *from)
{
    uint64_t before = from->moved;
    ssize_t got = 0;
    flush_kept(from);
    if (!from->kept && !from->read_ended) {
        got = recv(from->fd, p->scratch, sizeof p->scratch, MSG_DONTWAIT);
        if (got > 0) {
            size_t put = write_now(from, p->scratch, (size_t)got);
            if (!from->finished && put < (size_t)got)
                keep(from, p->scratch + put, (size_t)got - put);
        } else if (got == 0) {
            from->read_ended = true;
        } else if (errno != EAGAIN && errno != EINTR) {
            give_up(from);
        }
    }
    pass_end(from);
    return got > 0 || from->moved != before;
}

/* What an end is needed for: reading while its flow has nothing kept, writing while the other
 * one's has. */
static uint32_t wanted(const struct end *x)
{
    uint32_t events = 0;
    if (!x->read_ended && !x->kept)
        events |= EPOLLIN;
    if (x->peer->kept)
        events |= EPOLLOUT;
    return events;
}

static int watch(struct tunnel_pump *p, struct end *x)
{
    struct epoll_event ev = {.events = wanted(x), .data.ptr = x};
    int op = x->events == 0 ? EPOLL_CTL_ADD : ev.events == 0 ? EPOLL_CTL_DEL : EPOLL_CTL_MOD;
    if (ev.events == x->events)
        return 0;
    x->events = ev.events;
    return epoll_ctl(p->epoll_fd, op, x->fd, &ev);
}

/* Moves both flows and decides how the tunnel goes on. */
static void step(struct tunnel_pump *p, struct tunnel *t)
{
    bool moved = move(p, &t->a);
    moved = move(p, &t->b) || moved;
    if (t->a.finished && t->b.finished) {
        end_tunnel(p, t, t->broken ? TUNNEL_BROKEN : TUNNEL_CLOSED);
        return;
    }
    if (moved) {
        list_remove(p, t);
        list_append(p, t);
    }
    if (watch(p, &t->a) < 0 || watch(p, &t->b) < 0)
        end_tunnel(p, t, TUNNEL_BROKEN);
}

static void expire(struct tunnel_pump *p)
{
    int64_t now = clock_mono_ms();
    while (p->first && p->first->deadline <= now)
        end_tunnel(p, p->first, TUNNEL_IDLE);
}

/* How long the thread may wait, for epoll_wait. */
static int patience_ms(struct tunnel_pump *p)
{
    MUTEX_GUARD(&p->lock);
    return p->first ? deadline_poll_ms(p->first->deadline) : -1;
}

/* One batch. False when the pump stops. */
static bool run_batch(struct tunnel_pump *p, const struct epoll_event *events, int n)
{
    MUTEX_GUARD(&p->lock);
    for (int i = 0; i < n; i++) {
        struct end *x = events[i].data.ptr;
        uint64_t count;
        if (x) {
            if (!x->tunnel->ended)
                step(p, x->tunnel);
        } else if (read(p->wake_fd, &count, sizeof count) < 0) {
            assert(errno == EAGAIN);
        }
    }
    expire(p);
    free_ended(p);
    return !p->stopping;
}

static void *pump_main(void *arg)
{
    struct tunnel_pump *p = arg;
    struct epoll_event events[BATCH];
    int n;
    do {
        n = epoll_wait(p->epoll_fd, events, BATCH, patience_ms(p));
        assert(n >= 0 || errno == EINTR);
    } while (run_batch(p, events, n));
    return NULL;
}

static void wake(struct tunnel_pump *p)
{
    const uint64_t one = 1;
    ssize_t put = write(p->wake_fd, &one, sizeof one);
    (void)put; /* full: it is readable anyway */
}

static void pump_free(struct tunnel_pump *p)
{
    if (p->epoll_fd >= 0)
        (void)close(p->epoll_fd);
    if (p->wake_fd >= 0)
        (void)close(p->wake_fd);
    (void)pthread_mutex_destroy(&p->lock);
    free(p);
}

/* Signals are the program's business. */
static int start_thread(struct tunnel_pump *p, struct err *e)
{
    sigset_t all;
    sigset_t old;
    pthread_attr_t attr;
    int rc = pthread_attr_init(&attr);
    if (rc == 0)
        rc = pthread_attr_setstacksize(&attr, STACK_BYTES);
    (void)sigfillset(&all);
    (void)pthread_sigmask(SIG_SETMASK, &all, &old);
    if (rc == 0)
        rc = pthread_create(&p->thread, &attr, pump_main, p);
    (void)pthread_sigmask(SIG_SETMASK, &old, NULL);
    (void)pthread_attr_destroy(&attr);
    return rc == 0 ? 0 : err_sys(e, rc, "start the tunnel pump");
}

static int open_events(struct tunnel_pump *p, struct err *e)
{
    struct epoll_event ev = {.events = EPOLLIN, .data.ptr = NULL};
    p->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    p->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (p->epoll_fd < 0 || p->wake_fd < 0 ||
        epoll_ctl(p->epoll_fd, EPOLL_CTL_ADD, p->wake_fd, &ev) < 0)
        return err_sys(e, errno, "event descriptors");
    return 0;
}

struct tunnel_pump *tunnel_pump_start(const struct tunnel_pump_config *config, struct err *e)
{
    struct tunnel_pump *p = calloc(1, sizeof *p);
    if (!p) {
        err_set(e, ERR_NOMEM, "out of memory");
        return NULL;
    }
    p->config = *config;
    p->config.tunnels_max = p->config.tunnels_max ? p->config.tunnels_max : TUNNELS_DEFAULT;
    if (p->config.idle_timeout_ms == 0)
        p->config.idle_timeout_ms = IDLE_DEFAULT_MS;
    p->epoll_fd = p->wake_fd = -1;
    (void)pthread_mutex_init(&p->lock, NULL);
    if (open_events(p, e) < 0 || start_thread(p, e) < 0) {
        pump_free(p);
        return NULL;
    }
    return p;
}

void tunnel_pump_stop(struct tunnel_pump *p)
{
    if (!p)
        return;
    (void)pthread_mutex_lock(&p->lock);
    p->stopping = true;
    (void)pthread_mutex_unlock(&p->lock);
    wake(p);
    (void)pthread_join(p->thread, NULL);
    while (p->first)
        end_tunnel(p, p->first, TUNNEL_STOPPED);
    free_ended(p);
    pump_free(p);
}

/* Early bytes wait for the receiver as kept ones do. */
static int set_early(struct end *from, struct slice early, struct err *e)
{
    if (early.n == 0)
        return 0;
    if (early.n > EARLY_MAX)
        return err_set(e, ERR_TOO_LARGE, "more than %d early bytes", EARLY_MAX);
    keep(from, early.p, early.n);
    return from->kept ? 0 : err_set(e, ERR_NOMEM, "out of memory");
}

static void tunnel_init(struct tunnel *t, const struct tunnel_spec *spec)
{
    *t = (struct tunnel){.on_end = spec->on_end, .ctx = spec->ctx};
    t->a = (struct end){.tunnel = t, .peer = &t->b, .fd = spec->a};
    t->b = (struct end){.tunnel = t, .peer = &t->a, .fd = spec->b};
}

/* Hands the tunnel to the thread. Reports by epoll, so the first step is the thread's too. */
static int link_tunnel(struct tunnel_pump *p, struct tunnel *t, struct err *e)
{
    MUTEX_GUARD(&p->lock);
    if (p->stopping)
        return err_set(e, ERR_CANCELED, "the tunnel pump stops");
    if (p->n >= p->config.tunnels_max)
        return err_set(e, ERR_NO_CAPACITY, "all %zu tunnels are taken", p->config.tunnels_max);
    if (watch(p, &t->a) < 0 || watch(p, &t->b) < 0) {
        err_sys(e, errno, "epoll_ctl");
        if (t->a.events)
            (void)epoll_ctl(p->epoll_fd, EPOLL_CTL_DEL, t->a.fd, NULL);
        return -1;
    }
    p->n++;
    list_append(p, t);
    if (p->first == t)
        wake(p); /* the thread waits without a limit */
    return 0;
}

int tunnel_add(struct tunnel_pump *p, const struct tunnel_spec *spec, struct err *e)
{
    AUTO_CLOSE int a = spec->a;
    AUTO_CLOSE int b = spec->b;
    AUTO_FREE struct tunnel *t = malloc(sizeof *t);
    if (!t)
        return err_set(e, ERR_NOMEM, "out of memory");
    tunnel_init(t, spec);
    if (io_set_nonblock(a, /* on= */ 1, e) < 0 || io_set_nonblock(b, /* on= */ 1, e) < 0 ||
        set_early(&t->a, spec->a_early, e) < 0 || set_early(&t->b, spec->b_early, e) < 0 ||
        link_tunnel(p, t, e) < 0) {
        free(t->a.kept);
        free(t->b.kept);
        return -1;
    }
    (void)TAKE_FD(a);
    (void)TAKE_FD(b);
    (void)TAKE_PTR(t);
    return 0;
}

size_t tunnel_count(struct tunnel_pump *p)
{
    MUTEX_GUARD(&p->lock);
    return p->n;
}
