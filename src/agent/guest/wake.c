/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Pausing and waking a guest.
 *
 * Theory of operation. After a restore the guest's listener is there before its first instruction
 * runs, so a connection request waits in the TAP's queue and is answered at once, if it was not
 * sent too early for the queue to exist. Nobody can tell which, so requests overlap: each attempt
 * lasts to the end, and another is begun when the last one has not been answered for a while, at
 * growing distances. The first that is answered is the connection, the others are closed. That
 * costs a slow guest nothing, and a fast one no waiting.
 */
#include "agent/guest/guest_int.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/io.h"
#include "http/status.h"
#include "json/json.h"
#include "proto/limits.h"

enum {
    ATTEMPTS_MAX = 8,      /* at once; then the oldest is given up */
    FIRST_DISTANCE_MS = 5, /* doubles with each attempt */
    LAST_DISTANCE_MS = 500,
    PREPARE_BODY_MAX = 256
};

struct attempts {
    struct sockaddr_in to;
    int fds[ATTEMPTS_MAX]; /* oldest first */
    size_t n;
    int errnum; /* of the last that failed */
};

static void attempts_remove(struct attempts *a, size_t i)
{
    (void)close(a->fds[i]);
    for (a->n--; i < a->n; i++)
        a->fds[i] = a->fds[i + 1];
}

static void attempts_done(struct attempts *a)
{
    while (a->n > 0)
        attempts_remove(a, a->n - 1);
}

/* Begins one more. That it cannot be begun (no route yet) is the same as one that failed. */
static void attempts_add(struct attempts *a)
{
    const int one = 1;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0) {
        a->errnum = errno;
        return;
    }
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (connect(fd, (const struct sockaddr *)&a->to, sizeof a->to) < 0 && errno != EINPROGRESS) {
        a->errnum = errno;
        (void)close(fd);
        return;
    }
    if (a->n == ATTEMPTS_MAX)
        attempts_remove(a, 0);
    a->fds[a->n++] = fd;
}

/* Takes what is connected: its descriptor, or -1 when none is. Removes those that failed. */
static int attempts_take(struct attempts *a, const struct pollfd *p)
{
    for (size_t i = a->n; i-- > 0;) {
        int errnum = 0;
        socklen_t n = sizeof errnum;
        if (!p[i].revents)
            continue;
        if (getsockopt(a->fds[i], SOL_SOCKET, SO_ERROR, &errnum, &n) < 0)
            errnum = errno;
        if (errnum == 0)
            return TAKE_FD(a->fds[i]);
        a->errnum = errnum;
        attempts_remove(a, i);
    }
    return -1;
}

/* Waits for an answer until `until`: the connection, or -1; then `e` is set only for an abort. */
static int attempts_wait(struct attempts *a, int abort_fd, int64_t until, struct err *e)
{
    for (;;) {
        struct pollfd p[ATTEMPTS_MAX + 1];
        int fd;
        for (size_t i = 0; i < a->n; i++)
            p[i] = (struct pollfd){.fd = a->fds[i], .events = POLLOUT};
        p[a->n] = (struct pollfd){.fd = abort_fd, .events = POLLIN};
        if (poll(p, a->n + 1, deadline_poll_ms(until)) <= 0 && clock_mono_ms() >= until)
            return -1;
        if (p[a->n].revents)
            return err_set(e, ERR_UNAVAILABLE, "the VM ended before its guest woke");
        fd = attempts_take(a, p);
        if (fd >= 0)
            return fd;
    }
}

static int connect_patiently(const char *ip, int abort_fd, int64_t deadline, struct err *e)
{
    CLEANUP(attempts_done)
    struct attempts a = {.to = {.sin_family = AF_INET, .sin_port = htons(GUEST_ENVD_PORT)}};
    int64_t distance = FIRST_DISTANCE_MS;
    if (inet_pton(AF_INET, ip, &a.to.sin_addr) != 1)
        return err_set(e, ERR_INVALID, "not an address: %s", ip);
    for (;;) {
        int64_t until = deadline_in_ms(distance);
        struct err aborted = {0};
        int fd;
        attempts_add(&a);
        fd = attempts_wait(&a, abort_fd, until < deadline ? until : deadline, &aborted);
        if (fd >= 0)
            return fd;
        if (aborted.kind != ERR_NONE) {
            *e = aborted;
            return -1;
        }
        if (clock_mono_ms() >= deadline)
            return a.errnum ? err_set(e, ERR_TIMEOUT, "the guest did not wake in time: error %d",
                                  a.errnum)
                            : err_set(e, ERR_TIMEOUT, "the guest did not wake in time");
        distance = a.n == 0 ? FIRST_DISTANCE_MS : distance * 2; /* refused: it is nearly there */
        if (distance > LAST_DISTANCE_MS)
            distance = LAST_DISTANCE_MS;
    }
}

int guest_wake(struct guest *g, const struct guest_identity *identity, int abort_fd,
    int64_t deadline, struct err *e)
{
    int fd = connect_patiently(guest_host_ip(g), abort_fd, deadline, e);
    struct http_conn *c;
    if (fd < 0)
        return -1;
    guest_drop_idle(g); /* of the former life */
    if (io_set_nonblock(fd, /* on= */ 0, e) < 0) {
        (void)close(fd);
        return -1;
    }
    c = http_conn_new(fd, e);
    if (!c || guest_conn_keep(g, c, e) < 0)
        return -1;
    return guest_send_init(g, identity, /* wakes= */ true, deadline, e);
}

struct prepare {
    const char *secret;
    bool keeps;
    bool refused; /* the guest has said no, so all is as it was */
};

/* The call itself. ERR_UNAVAILABLE, ERR_TIMEOUT... when the guest did not answer. */
static int send_prepare(struct guest *g, struct prepare *p, int64_t deadline, struct err *e)
{
    AUTO_BUF struct buf body = BUF_INIT(PREPARE_BODY_MAX);
    const struct http_header headers[] = {
        {SLICE_LIT("Content-Type"), SLICE_LIT("application/json")},
        {SLICE_LIT("X-Access-Token"), slice_cstr(guest_token(g))},
    };
    const struct http_response_head *head;
    struct http_conn *c;
    buf_printf(&body, "{\"secret\":\"%s\"%s}", p->secret, p->keeps ? ",\"keep\":true" : "");
    c = guest_call(g,
        &(struct http_call){.method = "POST",
            .target = "/snapshot/prepare",
            .host = "guest",
            .headers = headers,
            .n_headers = ARRAY_LEN(headers),
            .body = buf_slice(&body),
            .body_length = HTTP_BODY_IS_SLICE},
        &head, deadline, e);
    if (!c)
        return -1;
    p->refused = head->status != HTTP_NO_CONTENT;
    if (p->refused)
        (void)guest_answer_error(c, head, deadline, e);
    if (p->keeps)
        guest_conn_release(g, c);
    else
        guest_conn_drop(g, c);
    return p->refused ? -1 : 0;
}

int guest_prepare(struct guest *g, const char secret[GUEST_TOKEN_CHARS + 1], bool keep,
    int64_t deadline, struct err *e)
{
    struct prepare p = {.secret = secret, .keeps = keep};
    int rc;
    guest_set_mode(g, keep ? GUEST_HELD : GUEST_PAUSING);
    rc = send_prepare(g, &p, deadline, e);
    if (!keep)
        guest_drop_idle(g);
    if (rc == 0)
        return 0;
    if (!keep || p.refused)
        guest_set_mode(g, GUEST_RUNS);
    return err_wrap(e, "prepare the guest");
}
