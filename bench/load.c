/* SPDX-License-Identifier: Apache-2.0 */
/* The load generator and the raw server. */
#include "load.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/io.h"
#include "base/sock.h"

enum {
    THREADS = 2,
    BATCH = 64,
    ANSWER_MAX = 1024,
    SAMPLE_EVERY = 64, /* requests of one thread */
    PATIENCE_MS = 20000,
};

static const char request[] = "GET / HTTP/1.1\r\nHost: bench\r\n\r\n";

static void die(const char *what)
{
    perror(what);
    exit(1);
}

void served_start(struct served *s, void (*serve)(int listen_fd, int stop_fd))
{
    struct err e = {0};
    int keep[2];
    int fd = sock_listen_tcp("127.0.0.1", 0, &e);
    if (fd < 0 || pipe2(keep, O_CLOEXEC) < 0 || listen(fd, 16384) < 0)
        die("bench server");
    s->port = sock_local_port(fd);
    (void)fflush(stdout);
    s->pid = fork();
    if (s->pid < 0)
        die("fork");
    if (s->pid == 0) {
        (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
        (void)close(keep[1]);
        serve(fd, keep[0]);
        _exit(0);
    }
    (void)close(fd);
    (void)close(keep[0]);
    s->keep = keep[1];
}

void served_stop(struct served *s)
{
    /* a byte, because later children hold the pipe open as well */
    if (write(s->keep, "", 1) < 0)
        die("bench: stop");
    (void)close(s->keep);
    while (waitpid(s->pid, NULL, 0) < 0 && errno == EINTR)
        continue;
}

long served_resident_kib(const struct served *s)
{
    char path[64];
    struct err e = {0};
    AUTO_BUF struct buf text = BUF_INIT(1 << 16);
    const char *at;
    (void)snprintf(path, sizeof path, "/proc/%d/status", (int)s->pid);
    if (io_read_file(AT_FDCWD, path, &text, &e) < 0 || !(at = strstr(text.p, "VmRSS:")))
        return 0;
    return strtol(at + strlen("VmRSS:"), NULL, 10);
}

/* --- the raw server --- */

static void raw_accept(int epoll_fd, int listen_fd)
{
    struct epoll_event ev = {.events = EPOLLIN};
    int fd;
    while ((fd = accept4(listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK)) >= 0) {
        ev.data.fd = fd;
        (void)epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &ev);
    }
}

static void raw_answer(int fd)
{
    static const char answer[] =
        "HTTP/1.1 200 OK\r\nDate: Thu, 01 Jan 2026 00:00:00 GMT\r\nContent-Type: text/plain\r\n"
        "Content-Length: 5\r\n\r\n" LOAD_BODY;
    char in[ANSWER_MAX];
    ssize_t got = recv(fd, in, sizeof in, 0);
    if (got <= 0 || send(fd, answer, sizeof answer - 1, MSG_NOSIGNAL) < 0)
        (void)close(fd);
}

void serve_raw(int listen_fd, int stop_fd)
{
    struct epoll_event events[BATCH];
    struct err e = {0};
    int epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (epoll_fd < 0 || io_set_nonblock(listen_fd, /* on= */ 1, &e) < 0)
        die("raw server");
    events[0] = (struct epoll_event){.events = EPOLLIN, .data.fd = listen_fd};
    (void)epoll_ctl(epoll_fd, EPOLL_CTL_ADD, listen_fd, &events[0]);
    events[0].data.fd = stop_fd;
    (void)epoll_ctl(epoll_fd, EPOLL_CTL_ADD, stop_fd, &events[0]);
    for (;;) {
        int n = epoll_wait(epoll_fd, events, BATCH, -1);
        for (int i = 0; i < n; i++) {
            if (events[i].data.fd == stop_fd)
                return;
            if (events[i].data.fd == listen_fd)
                raw_accept(epoll_fd, listen_fd);
            else
                raw_answer(events[i].data.fd);
        }
    }
}

/* --- the generator --- */

struct load_conn {
    int fd;
    int64_t sent_us;
    size_t n;
    char in[ANSWER_MAX];
};

struct load_thread {
    const struct served *served;
    unsigned connections;
    int64_t end_us;
    uint64_t requests;
    struct samples *latency;
    pthread_mutex_t *lock;
    pthread_t thread;
};

int load_open(const struct served *s, const char *path)
{
    char text[128];
    struct err e = {0};
    int64_t deadline = deadline_in_ms(PATIENCE_MS);
    int fd = sock_connect_tcp("127.0.0.1", s->port, deadline, &e);
    (void)snprintf(text, sizeof text, "GET %s HTTP/1.1\r\nHost: bench\r\n\r\n", path);
    if (fd >= 0 && io_write_full(fd, text, strlen(text), deadline, &e) == 0)
        return fd;
    (void)fprintf(stderr, "bench: connect: %s\n", e.msg);
    return -1;
}

static void ask(struct load_conn *c)
{
    c->n = 0;
    c->sent_us = clock_mono_us();
    if (send(c->fd, request, sizeof request - 1, MSG_NOSIGNAL) < 0)
        die("bench: send");
}

/* True when the answer is complete: nothing is ever behind it. */
static bool answered(struct load_conn *c)
{
    size_t tail = sizeof LOAD_BODY - 1;
    ssize_t got = recv(c->fd, c->in + c->n, sizeof c->in - c->n, MSG_DONTWAIT);
    if (got <= 0)
        die("bench: receive");
    c->n += (size_t)got;
    return c->n >= tail && memcmp(c->in + c->n - tail, LOAD_BODY, tail) == 0;
}

static void sample(struct load_thread *t, const struct load_conn *c, int64_t now)
{
    MUTEX_GUARD(t->lock);
    if (t->latency->n < SAMPLES_MAX)
        samples_add(t->latency, now - c->sent_us);
}

static void run_connections(struct load_thread *t, struct load_conn *conns, int epoll_fd)
{
    struct epoll_event events[BATCH];
    int64_t now = clock_mono_us();
    while (now < t->end_us) {
        int n = epoll_wait(epoll_fd, events, BATCH, PATIENCE_MS);
        if (n <= 0)
            die("bench: the server is silent");
        now = clock_mono_us();
        for (int i = 0; i < n; i++) {
            struct load_conn *c = events[i].data.ptr;
            if (!answered(c))
                continue;
            if (++t->requests % SAMPLE_EVERY == 0)
                sample(t, c, now);
            ask(c);
        }
    }
    for (unsigned i = 0; i < t->connections; i++)
        (void)close(conns[i].fd);
}

static void *load_main(void *arg)
{
    struct load_thread *t = arg;
    struct load_conn *conns = calloc(t->connections, sizeof *conns);
    AUTO_CLOSE int epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    for (unsigned i = 0; i < t->connections; i++) {
        struct epoll_event ev = {.events = EPOLLIN, .data.ptr = &conns[i]};
        conns[i].fd = load_open(t->served, "/");
        conns[i].sent_us = clock_mono_us();
        if (conns[i].fd < 0 || epoll_ctl(epoll_fd, EPOLL_CTL_ADD, conns[i].fd, &ev) < 0)
            die("bench: connection");
    }
    run_connections(t, conns, epoll_fd);
    free(conns);
    return NULL;
}

double load_run(const struct served *s, unsigned connections, int ms, struct samples *latency)
{
    struct load_thread threads[THREADS];
    pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    uint64_t requests = 0;
    int64_t start = clock_mono_us();
    int64_t end = start + (int64_t)ms * 1000;
    for (unsigned i = 0; i < THREADS; i++) {
        threads[i] = (struct load_thread){.served = s,
            .connections = connections / THREADS,
            .end_us = end,
            .latency = latency,
            .lock = &lock};
        if (pthread_create(&threads[i].thread, NULL, load_main, &threads[i]) != 0)
            die("bench: thread");
    }
    for (unsigned i = 0; i < THREADS; i++) {
        (void)pthread_join(threads[i].thread, NULL);
        requests += threads[i].requests;
    }
    return (double)requests * 1e6 / (double)(clock_mono_us() - start);
}
