/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Connections to one guest, readiness, and what a pause or a live snapshot means for calls.
 *
 * Theory of operation of the last. While a pause is under way calls fail; while the guest is held
 * for a live snapshot they wait, because it will be over in a moment. A call that was sent too
 * early to wait and too late to be let in is answered 503: envd has done nothing, so it is sent
 * again. `holds` tells such a call that there was a snapshot although it is over already. Nobody
 * waits longer than HOLD_MS in all; then envd itself may say what is the matter.
 */
#include "agent/guest/guest_int.h"

#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/io.h"
#include "base/sock.h"
#include "http/status.h"
#include "json/json.h"
#include "proto/limits.h"

enum {
    LIVE_MAX = 256, /* calls at once into one guest */
    READY_CONNECT_MS =
        100,              /* a SYN waits in the TAP until the guest is up, or is lost: a new one */
    READY_SOON_MS = 5000, /* after that the machine is busy, and so is the guest: */
    READY_PATIENT_MS = 1000, /* it gets longer for each */
    READY_ANSWER_MS = 5000,  /* once connected */
    READY_REFUSED_MS = 20,   /* the guest is up but envd does not listen yet */
    HOLD_MS = 5000,          /* a call's patience with a live snapshot */
};

struct guest {
    _Atomic enum guest_mode mode; /* changed under the lock */
    char host_ip[16];
    char token[GUEST_TOKEN_CHARS + 1];
    pthread_mutex_t lock;   /* everything below */
    pthread_cond_t changed; /* mode or closed */
    bool closed;
    unsigned holds;         /* so far */
    int live_fds[LIVE_MAX]; /* of connections inside a call, for guest_close */
    size_t n_live;
    struct http_conn *idle[GUEST_IDLE_MAX];
    size_t n_idle;
};

static int64_t earlier(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static void init_condition(pthread_cond_t *c)
{
    pthread_condattr_t attr;
    (void)pthread_condattr_init(&attr);
    (void)pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    (void)pthread_cond_init(c, &attr);
    (void)pthread_condattr_destroy(&attr);
}

struct guest *guest_new(const char *host_ip, const char token[GUEST_TOKEN_CHARS + 1])
{
    struct guest *g = calloc(1, sizeof *g);
    if (!g)
        return NULL;
    (void)snprintf(g->host_ip, sizeof g->host_ip, "%s", host_ip);
    memcpy(g->token, token, sizeof g->token);
    (void)pthread_mutex_init(&g->lock, NULL);
    init_condition(&g->changed);
    return g;
}

static void drop_idle_locked(struct guest *g)
{
    while (g->n_idle > 0)
        (void)http_conn_free(g->idle[--g->n_idle]);
}

void guest_close(struct guest *g)
{
    MUTEX_GUARD(&g->lock);
    g->closed = true;
    (void)pthread_cond_broadcast(&g->changed);
    for (size_t i = 0; i < g->n_live; i++)
        (void)shutdown(g->live_fds[i], SHUT_RDWR);
    drop_idle_locked(g);
}

void guest_drop_idle(struct guest *g)
{
    MUTEX_GUARD(&g->lock);
    drop_idle_locked(g);
}

struct guest *guest_free(struct guest *g)
{
    if (!g)
        return NULL;
    guest_close(g);
    (void)pthread_cond_destroy(&g->changed);
    (void)pthread_mutex_destroy(&g->lock);
    free(g);
    return NULL;
}

const char *guest_token(const struct guest *g)
{
    return g->token;
}

const char *guest_host_ip(const struct guest *g)
{
    return g->host_ip;
}

void guest_set_mode(struct guest *g, enum guest_mode mode)
{
    MUTEX_GUARD(&g->lock);
    if (mode == GUEST_HELD)
        g->holds++;
    atomic_store(&g->mode, mode);
    (void)pthread_cond_broadcast(&g->changed);
}

bool guest_is_pausing(const struct guest *g)
{
    return atomic_load(&g->mode) == GUEST_PAUSING;
}

static int say_pausing(struct err *e)
{
    return err_set(e, ERR_UNAVAILABLE, "the sandbox is being paused");
}

static void wait_while_held_locked(struct guest *g, int64_t until)
{
    const struct timespec at = {
        .tv_sec = (time_t)(until / 1000), .tv_nsec = (long)(until % 1000) * 1000000};
    while (!g->closed && atomic_load(&g->mode) == GUEST_HELD)
        if (pthread_cond_timedwait(&g->changed, &g->lock, &at) != 0)
            return;
}

int guest_begin(struct guest *g, struct guest_patience *ret, int64_t deadline, struct err *e)
{
    MUTEX_GUARD(&g->lock);
    ret->until = earlier(deadline_in_ms(HOLD_MS), deadline);
    wait_while_held_locked(g, ret->until);
    ret->seen_holds = g->holds;
    if (guest_is_pausing(g) || (atomic_load(&g->mode) == GUEST_HELD && clock_mono_ms() >= deadline))
        return say_pausing(e);
    return 0;
}

bool guest_may_repeat(struct guest *g, struct guest_patience *p)
{
    MUTEX_GUARD(&g->lock);
    if (atomic_load(&g->mode) != GUEST_HELD && g->holds == p->seen_holds)
        return false;
    wait_while_held_locked(g, p->until);
    p->seen_holds = g->holds;
    return !g->closed && atomic_load(&g->mode) == GUEST_RUNS && clock_mono_ms() < p->until;
}

static bool is_refusal(const struct http_response_head *head)
{
    return http_kind_from_status(head->status) == ERR_UNAVAILABLE;
}

bool guest_has_refused(struct http_conn *c)
{
    const struct http_response_head *head;
    struct err ignored = {0};
    return http_recv_head(c, &head, clock_mono_ms(), &ignored) == 0 && is_refusal(head);
}

int guest_explain(const struct guest *g, struct err *e)
{
    if (guest_is_pausing(g) &&
        (e->kind == ERR_UNAVAILABLE || e->kind == ERR_PROTOCOL || e->kind == ERR_IO))
        return say_pausing(e);
    return -1;
}

/* Notes a connection as inside a call. */
static int live_add(struct guest *g, int fd, struct err *e)
{
    MUTEX_GUARD(&g->lock);
    if (g->closed)
        return err_set(e, ERR_UNAVAILABLE, "the sandbox is going away");
    if (g->n_live == LIVE_MAX)
        return err_set(e, ERR_NO_CAPACITY, "%d calls into this sandbox are under way", LIVE_MAX);
    g->live_fds[g->n_live++] = fd;
    return 0;
}

static void live_remove_locked(struct guest *g, int fd)
{
    for (size_t i = 0; i < g->n_live; i++)
        if (g->live_fds[i] == fd) {
            g->live_fds[i] = g->live_fds[--g->n_live];
            return;
        }
}

static struct http_conn *idle_take(struct guest *g)
{
    MUTEX_GUARD(&g->lock);
    while (!g->closed && g->n_idle > 0) {
        struct http_conn *c = g->idle[--g->n_idle];
        if (http_conn_reusable(c))
            return c;
        (void)http_conn_free(c);
    }
    return NULL;
}

struct http_conn *guest_conn_acquire(
    struct guest *g, bool *ret_reused, int64_t deadline, struct err *e)
{
    struct http_conn *c = idle_take(g);
    bool reused = c != NULL;
    if (!c) {
        int64_t connect_deadline = deadline_in_ms(GUEST_CONNECT_MS);
        int fd = sock_connect_tcp(g->host_ip, GUEST_ENVD_PORT,
            connect_deadline < deadline ? connect_deadline : deadline, e);
        if (fd < 0 || !(c = http_conn_new(fd, e))) {
            e->kind = ERR_UNAVAILABLE;
            (void)err_wrap(e, "the guest does not answer");
            return NULL;
        }
    }
    if (live_add(g, http_conn_fd(c), e) < 0)
        return http_conn_free(c);
    *ret_reused = reused;
    return c;
}

void guest_conn_release(struct guest *g, struct http_conn *c)
{
    if (!c)
        return;
    {
        MUTEX_GUARD(&g->lock);
        live_remove_locked(g, http_conn_fd(c));
        if (!g->closed && g->n_idle < GUEST_IDLE_MAX && http_conn_reusable(c)) {
            g->idle[g->n_idle++] = c;
            return;
        }
    }
    (void)http_conn_free(c);
}

void guest_conn_drop(struct guest *g, struct http_conn *c)
{
    {
        MUTEX_GUARD(&g->lock);
        live_remove_locked(g, http_conn_fd(c));
    }
    (void)http_conn_free(c);
}

int guest_conn_keep(struct guest *g, struct http_conn *c, struct err *e)
{
    {
        MUTEX_GUARD(&g->lock);
        if (!g->closed && g->n_idle < GUEST_IDLE_MAX) {
            g->idle[g->n_idle++] = c;
            return 0;
        }
    }
    (void)http_conn_free(c);
    return err_set(e, ERR_UNAVAILABLE, "the sandbox is going away");
}

/* An answer that comes before the end of the request counts. */
static int send_and_receive(struct http_conn *c, const struct http_call *call,
    const struct http_response_head **ret_head, int64_t deadline, struct err *e)
{
    struct err ignored = {0};
    if (http_send(c, call, deadline, e) == 0)
        return http_recv_head(c, ret_head, deadline, e);
    return e->kind == ERR_UNAVAILABLE ? http_recv_head(c, ret_head, deadline, &ignored) : -1;
}

struct http_conn *guest_call(struct guest *g, const struct http_call *call,
    const struct http_response_head **ret_head, int64_t deadline, struct err *e)
{
    for (int attempt = 0;; attempt++) {
        bool reused = false;
        struct http_conn *c = guest_conn_acquire(g, &reused, deadline, e);
        if (!c)
            return NULL;
        if (send_and_receive(c, call, ret_head, deadline, e) == 0)
            return c;
        guest_conn_release(g, c);
        /* A kept connection may have been closed by the guest before it saw the request. */
        if (!reused || attempt > 0 || e->kind != ERR_UNAVAILABLE)
            return NULL;
    }
}

struct http_conn *guest_call_patiently(struct guest *g, const struct http_call *call,
    const struct http_response_head **ret_head, int64_t deadline, struct err *e)
{
    struct guest_patience patience;
    if (guest_begin(g, &patience, deadline, e) < 0)
        return NULL;
    for (;;) {
        struct http_conn *c = guest_call(g, call, ret_head, deadline, e);
        if (!c || !is_refusal(*ret_head) || !guest_may_repeat(g, &patience))
            return c;
        guest_conn_release(g, c);
    }
}

int guest_answer_error(
    struct http_conn *c, const struct http_response_head *head, int64_t deadline, struct err *e)
{
    AUTO_BUF struct buf body = BUF_INIT(GUEST_ERROR_BYTES);
    int status = head->status;
    struct arena arena;
    const struct json_value *v = NULL;
    const struct json_value *message;
    struct err ignored = {0};
    enum err_kind kind = http_kind_from_status(status);
    arena_init(&arena, GUEST_ERROR_BYTES * 4);
    if (http_recv_body_all(c, &body, deadline, &ignored) == 0)
        (void)json_parse(buf_slice(&body), &arena, &v, &ignored);
    message = json_get(v, "message");
    if (message && message->type == JSON_STRING)
        (void)err_set(e, kind, "%.*s", (int)message->string.n, message->string.p);
    else
        (void)err_set(e, kind, "the guest agent answered %d", status);
    arena_done(&arena);
    return -1;
}

/* One attempt: connect and GET /health. */
static int health(struct guest *g, int64_t deadline, struct err *e)
{
    const struct http_call call = {
        .method = "GET", .target = "/health", .host = "guest", .body_length = HTTP_BODY_IS_SLICE};
    const struct http_response_head *head;
    struct http_conn *c = guest_call(g, &call, &head, deadline, e);
    int status;
    if (!c)
        return -1;
    status = head->status;
    if (status == HTTP_NO_CONTENT) {
        guest_conn_release(g, c);
        return 0;
    }
    (void)guest_answer_error(c, head, deadline, e);
    guest_conn_release(g, c);
    return -1;
}

/* Connects and keeps the connection for the call that follows. */
static int connect_ahead(struct guest *g, int64_t deadline, struct err *e)
{
    int fd = sock_connect_tcp(g->host_ip, GUEST_ENVD_PORT, deadline, e);
    struct http_conn *c = fd < 0 ? NULL : http_conn_new(fd, e);
    return c ? guest_conn_keep(g, c, e) : -1;
}

int guest_wait_ready(struct guest *g, int abort_fd, int64_t deadline, struct err *e)
{
    int64_t soon = deadline_in_ms(READY_SOON_MS);
    for (;;) {
        struct err attempt = {0};
        int64_t now = clock_mono_ms();
        int64_t until = now + (now < soon ? READY_CONNECT_MS : READY_PATIENT_MS);
        int64_t pause;
        if (connect_ahead(g, earlier(until, deadline), &attempt) == 0 &&
            health(g, earlier(deadline_in_ms(READY_ANSWER_MS), deadline), &attempt) == 0)
            return 0;
        now = clock_mono_ms();
        if (now >= deadline)
            return err_set(e, ERR_TIMEOUT, "the guest did not come up in time: %s", attempt.msg);
        pause = earlier(until - now, READY_REFUSED_MS);
        if (io_wait(abort_fd, POLLIN, now + (pause > 0 ? pause : 0), &attempt) > 0)
            return err_set(e, ERR_UNAVAILABLE, "the VM ended before its guest was ready");
    }
}
