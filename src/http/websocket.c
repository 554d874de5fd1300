/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A WebSocket connection after its handshake.
 *
 * Theory of operation. Receiving: bytes pass through `in`, a small buffer for frame headers and
 * short frames; the rest of a long payload goes straight into the message. All progress is in the
 * struct, so a receive that ran into its deadline goes on with the next call. An idle connection
 * keeps neither buffer. A message grows as its bytes come, never by what a header announces.
 *
 * Sending: one frame at a time, by whoever holds `sending`. The receiver answers pings and closes;
 * it does not wait for a sender that is in the middle of a frame (its peer may take nothing until
 * we receive): it leaves the answer in `due`, and the sender sends it behind its frame. Of several
 * pings only the last is answered (section 5.5.3). After a close frame nothing is sent; a frame
 * that went out half breaks the sending side for good.
 */
#include "http/websocket.h"

#include <assert.h>
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/io.h"
#include "base/rand.h"
#include "http/http_int.h"
#include "http/ws_int.h"

enum {
    IN_BYTES = 4096,          /* of a receive; early bytes may be more */
    DIRECT_MIN = 1024,        /* a missing payload this long is received into the message */
    GROW_BYTES = 64 * 1024,   /* how far the message grows ahead of its bytes */
    KEEP_BYTES = 64 * 1024,   /* memory of a message that is kept for the next one */
    MASKED_BYTES = 16 * 1024, /* a client masks and sends this much at a time */
    REFUSE_MS = 1000,         /* for telling the peer what it did wrong */
};

/* A control frame that the receiver owes and a sender sends. */
struct due {
    bool set;
    size_t n;
    uint8_t payload[WS_CONTROL_MAX];
};

struct ws {
    int fd;
    bool owns_fd;
    bool is_client;
    size_t message_max;

    /* the receiving thread's */
    struct buf in;
    size_t in_at;
    struct ws_frame frame; /* whose payload is being received */
    uint64_t frame_got;
    bool in_frame;
    struct ws_assembly assembly;
    struct buf message; /* payload of the data message so far */
    struct buf control; /* of the control frame so far */
    bool delivered;     /* the message was given out and may be overwritten */
    bool recv_ended;
    uint64_t pongs;

    pthread_mutex_t lock;
    pthread_cond_t sent; /* `sending` has become false */
    bool sending;
    bool close_sent;
    bool send_broken;
    struct due pong;
    struct due close;
};

struct ws *ws_new(const struct ws_open *open, struct err *e)
{
    struct ws *w = calloc(1, sizeof *w);
    pthread_condattr_t attr;
    if (!w) {
        err_set(e, ERR_NOMEM, "out of memory");
        return NULL;
    }
    w->fd = open->fd;
    w->owns_fd = open->owns_fd;
    w->is_client = open->is_client;
    w->message_max = open->message_max;
    w->in = BUF_INIT(HTTP_INPUT_MAX + IN_BYTES);
    w->message = BUF_INIT(open->message_max);
    w->control = BUF_INIT(WS_CONTROL_MAX);
    buf_append_slice(&w->in, open->early);
    if (w->in.failed) {
        free(w);
        err_set(e, ERR_NOMEM, "out of memory");
        return NULL;
    }
    (void)pthread_mutex_init(&w->lock, NULL);
    (void)pthread_condattr_init(&attr);
    (void)pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    (void)pthread_cond_init(&w->sent, &attr);
    (void)pthread_condattr_destroy(&attr);
    return w;
}

struct ws *ws_free(struct ws *w)
{
    if (!w)
        return NULL;
    if (w->owns_fd)
        (void)close(w->fd);
    buf_done(&w->in);
    buf_done(&w->message);
    buf_done(&w->control);
    (void)pthread_mutex_destroy(&w->lock);
    (void)pthread_cond_destroy(&w->sent);
    free(w);
    return NULL;
}

int ws_fd(const struct ws *w)
{
    return w->fd;
}

bool ws_has_buffered(const struct ws *w)
{
    return w->in_at < w->in.len;
}

uint64_t ws_pongs(const struct ws *w)
{
    return w->pongs;
}

/* --- sending --- */

/* A client's payload must be masked, in pieces, so that the caller's bytes stay as they are. */
static int put_masked(struct ws *w, const struct ws_frame *f, struct slice head, const char *src,
    int64_t deadline, struct err *e)
{
    AUTO_FREE char *piece = malloc(MASKED_BYTES);
    size_t at = 0;
    if (!piece)
        return err_set(e, ERR_NOMEM, "out of memory");
    do {
        size_t n = f->length - at < MASKED_BYTES ? (size_t)f->length - at : MASKED_BYTES;
        if (n > 0)
            memcpy(piece, src + at, n);
        ws_mask(piece, n, f->mask, at);
        struct iovec iov[] = {{(void *)(uintptr_t)head.p, at == 0 ? head.n : 0}, {piece, n}};
        if (http_send_iov(w->fd, iov, 2, HTTP_UNTIL(deadline), e) < 0)
            return -1;
        at += n;
    } while (at < f->length);
    return 0;
}

/* Sends one frame. The caller has `sending`. */
static int put_frame(
    struct ws *w, enum ws_opcode op, struct slice payload, int64_t deadline, struct err *e)
{
    struct ws_frame f = {.opcode = op, .fin = true, .masked = w->is_client, .length = payload.n};
    uint8_t head[WS_FRAME_HEAD_MAX];
    size_t head_n;
    if (f.masked)
        rand_bytes(f.mask, sizeof f.mask);
    head_n = ws_frame_write(&f, head);
    if (f.masked)
        return put_masked(w, &f, slice_of((char *)head, head_n), payload.p, deadline, e);
    struct iovec iov[] = {{head, head_n}, {(void *)(uintptr_t)payload.p, payload.n}};
    return http_send_iov(w->fd, iov, 2, HTTP_UNTIL(deadline), e);
}

static int cannot_send(const struct ws *w, struct err *e)
{
    if (w->close_sent)
        return err_set(e, ERR_CANCELED, "the WebSocket was closed");
    return err_set(e, ERR_CANCELED, "the WebSocket's connection is broken");
}

/* Waits for the right to send. Lock held. */
static int take_sending(struct ws *w, int64_t deadline, struct err *e)
{
    struct timespec until = {.tv_sec = deadline / 1000, .tv_nsec = deadline % 1000 * 1000000};
    while (w->sending) {
        if (deadline == DEADLINE_NEVER)
            (void)pthread_cond_wait(&w->sent, &w->lock);
        else if (pthread_cond_timedwait(&w->sent, &w->lock, &until) == ETIMEDOUT && w->sending)
            return err_set(e, ERR_TIMEOUT, "another frame is being sent");
    }
    if (w->close_sent || w->send_broken)
        return cannot_send(w, e);
    w->sending = true;
    return 0;
}

/* Sends without the lock. Lock held before and after. */
static int send_unlocked(
    struct ws *w, enum ws_opcode op, struct slice payload, int64_t deadline, struct err *e)
{
    int rc;
    if (op == WS_OP_CLOSE)
        w->close_sent = true;
    (void)pthread_mutex_unlock(&w->lock);
    rc = put_frame(w, op, payload, deadline, e);
    (void)pthread_mutex_lock(&w->lock);
    if (rc < 0)
        w->send_broken = true;
    return rc;
}

/* Sends what is owed, then gives the right to send up. Lock held. */
static int pay_due(struct ws *w, int64_t deadline, struct err *e)
{
    int rc = 0;
    while ((w->pong.set || w->close.set) && !w->close_sent && !w->send_broken && rc == 0) {
        enum ws_opcode op = w->pong.set ? WS_OP_PONG : WS_OP_CLOSE;
        struct due *from = w->pong.set ? &w->pong : &w->close;
        struct due d = *from;
        from->set = false;
        rc = send_unlocked(w, op, slice_of((char *)d.payload, d.n), deadline, e);
    }
    w->sending = false;
    (void)pthread_cond_signal(&w->sent);
    return rc;
}

static int send_frame(
    struct ws *w, enum ws_opcode op, struct slice payload, int64_t deadline, struct err *e)
{
    struct err later;
    int rc;
    MUTEX_GUARD(&w->lock);
    if (take_sending(w, deadline, e) < 0)
        return -1;
    rc = send_unlocked(w, op, payload, deadline, e);
    (void)pay_due(w, deadline, &later); /* a failure is the next frame's, too */
    return rc;
}

/* What the receiver owes: sent now, or by the sender that is in the middle of a frame. */
static void owe(struct ws *w, struct due *which, struct slice payload, int64_t deadline)
{
    struct err ignored;
    MUTEX_GUARD(&w->lock);
    which->set = true;
    which->n = payload.n;
    if (payload.n > 0)
        memcpy(which->payload, payload.p, payload.n);
    if (w->sending)
        return;
    w->sending = true;
    (void)pay_due(w, deadline, &ignored); /* the connection's end shows when it is read */
}

int ws_send(struct ws *w, enum ws_type type, struct slice data, int64_t deadline, struct err *e)
{
    assert(type == WS_TEXT || type == WS_BINARY);
    if (type == WS_TEXT && !utf8_valid(data.p, data.n))
        return err_set(e, ERR_INVALID, "a text message that is not UTF-8");
    return send_frame(w, type == WS_TEXT ? WS_OP_TEXT : WS_OP_BINARY, data, deadline, e);
}

int ws_ping(struct ws *w, struct slice data, int64_t deadline, struct err *e)
{
    if (data.n > WS_CONTROL_MAX)
        return err_set(e, ERR_INVALID, "a ping longer than %d bytes", WS_CONTROL_MAX);
    return send_frame(w, WS_OP_PING, data, deadline, e);
}

/* Code and reason as a close frame has them; returns the length. */
static size_t close_payload(unsigned code, const char *reason, uint8_t dst[WS_CONTROL_MAX])
{
    struct slice text = slice_cstr(reason);
    size_t n = text.n < WS_REASON_MAX ? text.n : WS_REASON_MAX;
    if (code == WS_CODE_NO_STATUS)
        return 0;
    assert(ws_code_valid(code));
    n = n > 0 ? utf8_complete_prefix(text.p, n) : 0;
    dst[0] = (uint8_t)(code >> 8);
    dst[1] = (uint8_t)code;
    if (n > 0 && utf8_valid(text.p, n))
        memcpy(dst + 2, text.p, n);
    else
        n = 0;
    return n + 2;
}

int ws_close(struct ws *w, unsigned code, const char *reason, int64_t deadline, struct err *e)
{
    uint8_t payload[WS_CONTROL_MAX];
    size_t n = close_payload(code, reason, payload);
    bool already;
    (void)pthread_mutex_lock(&w->lock);
    already = w->close_sent;
    (void)pthread_mutex_unlock(&w->lock);
    return already ? 0 : send_frame(w, WS_OP_CLOSE, slice_of((char *)payload, n), deadline, e);
}

/* --- receiving --- */

/* Tells the peer why and ends receiving. */
static int refuse(struct ws *w, struct err *e)
{
    uint8_t payload[WS_CONTROL_MAX];
    size_t n = close_payload(ws_code_of(e), e->msg, payload);
    w->recv_ended = true;
    owe(w, &w->close, slice_of((char *)payload, n), deadline_in_ms(REFUSE_MS));
    return -1;
}

static int ended(struct ws *w, int errnum, struct err *e)
{
    w->recv_ended = true;
    if (errnum != 0 && errnum != ECONNRESET && errnum != EPIPE)
        return err_sys(e, errnum, "recv");
    return err_set(e, ERR_CANCELED, "the connection ended without a close");
}

/* recv(2) that waits: > 0, -1. */
static ssize_t recv_wait(struct ws *w, void *dst, size_t n, int64_t deadline, struct err *e)
{
    for (;;) {
        ssize_t got = recv(w->fd, dst, n, MSG_DONTWAIT);
        if (got > 0)
            return got;
        if (got == 0)
            return ended(w, 0, e);
        if (errno == EINTR)
            continue;
        if (errno != EAGAIN)
            return ended(w, errno, e);
        if (w->in_at == w->in.len) { /* nothing is half there: wait without memory */
            buf_done(&w->in);
            w->in_at = 0;
        }
        if (io_wait(w->fd, POLLIN, deadline, e) < 0)
            return -1;
    }
}

/* More bytes behind those in `in`. */
static int fill(struct ws *w, int64_t deadline, struct err *e)
{
    char block[IN_BYTES];
    ssize_t got;
    if (w->in_at > 0) {
        buf_consume(&w->in, w->in_at);
        w->in_at = 0;
    }
    got = recv_wait(w, block, sizeof block, deadline, e);
    if (got < 0)
        return -1;
    buf_append(&w->in, block, (size_t)got);
    if (w->in.failed) {
        w->recv_ended = true;
        return err_set(e, ERR_NOMEM, "out of memory");
    }
    return 0;
}

static struct slice unread(const struct ws *w)
{
    return slice_of(w->in.p + w->in_at, w->in.len - w->in_at);
}

/* The next frame's header. */
static int begin_frame(struct ws *w, int64_t deadline, struct err *e)
{
    for (;;) {
        struct slice have = w->in.p ? unread(w) : slice_of(NULL, 0);
        ssize_t n = ws_frame_parse(
            have.p, have.n, w->is_client ? WS_FROM_SERVER : WS_FROM_CLIENT, &w->frame, e);
        if (n < 0)
            return refuse(w, e);
        if (n > 0) {
            w->in_at += (size_t)n;
            break;
        }
        if (fill(w, deadline, e) < 0)
            return -1;
    }
    if (w->delivered && !ws_is_control(w->frame.opcode)) {
        w->delivered = false;
        buf_reset(&w->message);
    }
    if (ws_assembly_frame(&w->assembly, &w->frame, w->message_max, e) < 0)
        return refuse(w, e);
    w->in_frame = true;
    w->frame_got = 0;
    return 0;
}

/* Where payload bytes of the frame at hand go: how many fit there is in `ret_room`. */
static char *room(struct ws *w, struct buf *dst, size_t *ret_room)
{
    uint64_t left = w->frame.length - w->frame_got;
    size_t n = left < GROW_BYTES ? (size_t)left : GROW_BYTES;
    *ret_room = n;
    return buf_reserve(dst, n);
}

/* Some payload bytes, from `in` or, a long rest, straight from the socket. */
static ssize_t take_payload(struct ws *w, char *dst, size_t n, int64_t deadline, struct err *e)
{
    struct slice have;
    if (w->in_at == w->in.len && n >= DIRECT_MIN)
        return recv_wait(w, dst, n, deadline, e);
    if (w->in_at == w->in.len && fill(w, deadline, e) < 0)
        return -1;
    have = unread(w);
    n = have.n < n ? have.n : n;
    memcpy(dst, have.p, n);
    w->in_at += n;
    return (ssize_t)n;
}

/* Receives the payload of the frame at hand, unmasked and checked. */
static int finish_frame(struct ws *w, int64_t deadline, struct err *e)
{
    const struct ws_frame *f = &w->frame;
    bool control = ws_is_control(f->opcode);
    struct buf *dst = control ? &w->control : &w->message;
    if (f->length == 0 && !control && ws_assembly_data(&w->assembly, "", 0, f->fin, e) < 0)
        return refuse(w, e);
    while (w->frame_got < f->length) {
        size_t n;
        char *at = room(w, dst, &n);
        ssize_t got = at ? take_payload(w, at, n, deadline, e) : -1;
        bool last;
        if (!at) {
            err_set(e, ERR_NOMEM, "out of memory");
            return refuse(w, e);
        }
        if (got < 0)
            return -1;
        if (f->masked)
            ws_mask(at, (size_t)got, f->mask, w->frame_got);
        buf_commit(dst, (size_t)got);
        w->frame_got += (uint64_t)got;
        last = f->fin && w->frame_got == f->length;
        if (!control && ws_assembly_data(&w->assembly, at, (size_t)got, last, e) < 0)
            return refuse(w, e);
    }
    w->in_frame = false;
    return 0;
}

/* The peer closes: echo its code, once. */
static int take_close(struct ws *w, struct ws_message *ret, struct err *e)
{
    uint8_t payload[WS_CONTROL_MAX];
    struct slice reason;
    unsigned code;
    if (ws_close_parse(buf_slice(&w->control), &code, &reason, e) < 0)
        return refuse(w, e);
    w->recv_ended = true;
    owe(w, &w->close, slice_of((char *)payload, close_payload(code, /* reason= */ NULL, payload)),
        deadline_in_ms(REFUSE_MS));
    *ret = (struct ws_message){.type = WS_CLOSED, .data = reason, .code = code};
    return 1;
}

/* A complete frame: 1 when it completes a message, 0 when more is needed, -1. */
static int take_frame(struct ws *w, struct ws_message *ret, int64_t deadline, struct err *e)
{
    switch (w->frame.opcode) {
    case WS_OP_CLOSE:
        return take_close(w, ret, e);
    case WS_OP_PING:
        owe(w, &w->pong, buf_slice(&w->control), deadline);
        break;
    case WS_OP_PONG:
        w->pongs++;
        break;
    default:
        if (!w->frame.fin)
            return 0;
        w->delivered = true;
        *ret = (struct ws_message){.type = w->assembly.opcode == WS_OP_TEXT ? WS_TEXT : WS_BINARY,
            .data = buf_slice(&w->message)};
        return 1;
    }
    buf_reset(&w->control);
    return 0;
}

int ws_recv(struct ws *w, struct ws_message *ret, int64_t deadline, struct err *e)
{
    int rc = 0;
    if (w->recv_ended)
        return err_set(e, ERR_CANCELED, "the WebSocket has ended");
    if (w->delivered && w->message.cap > KEEP_BYTES)
        buf_done(&w->message);
    while (rc == 0) {
        if (!w->in_frame && begin_frame(w, deadline, e) < 0)
            return -1;
        if (finish_frame(w, deadline, e) < 0)
            return -1;
        rc = take_frame(w, ret, deadline, e);
    }
    return rc < 0 ? -1 : 0;
}

void ws_finish(struct ws *w, unsigned code, const char *reason, int64_t deadline)
{
    struct ws_message m;
    struct err e;
    if (ws_close(w, code, reason, deadline, &e) < 0)
        return;
    while (ws_recv(w, &m, deadline, &e) == 0 && m.type != WS_CLOSED)
        continue;
}
