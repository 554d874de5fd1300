/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Bytes from and to a connection: buffered heads, bodies of every framing, gathering writes.
 *
 * Every system call is tried without blocking first; only when it would block is the descriptor
 * polled, so the usual case costs one call. Body bytes go straight into the caller's memory: only
 * the framing between chunks passes through the input's buffer.
 */
#include "http/http_int.h"

#include <assert.h>
#include <errno.h>
#include <poll.h>
#include <sys/socket.h>

#include "base/clock.h"
#include "base/io.h"

enum {
    FILL_BYTES = 4095,          /* with the buffer's NUL one page */
    PULL_ALL_BYTES = 16 * 1024, /* first step of reading a whole body; doubles */
    IOV_MAX_ONE_CALL = 16,
};

int64_t http_patience_deadline(struct http_patience patience)
{
    int64_t progress = deadline_in_ms(patience.progress_ms);
    return progress < patience.deadline ? progress : patience.deadline;
}

void http_input_init(struct http_input *in, int fd)
{
    *in = (struct http_input){.fd = fd, .buf = BUF_INIT(HTTP_INPUT_MAX)};
}

void http_input_done(struct http_input *in)
{
    buf_done(&in->buf);
    in->keep = in->at = in->scanned = 0;
}

void http_input_next(struct http_input *in)
{
    if (in->at == in->buf.len)
        buf_done(&in->buf);
    else
        buf_consume(&in->buf, in->at);
    in->keep = in->at = in->scanned = 0;
}

static ssize_t recv_now(int fd, void *dst, size_t n)
{
    ssize_t got;
    do
        got = recv(fd, dst, n, MSG_DONTWAIT);
    while (got < 0 && errno == EINTR);
    return got;
}

ssize_t http_input_fill(struct http_input *in)
{
    struct buf *b = &in->buf;
    size_t room;
    ssize_t got;
    if (b->len >= HTTP_HEAD_BYTES_MAX ||
        (b->cap < b->len + 1 + 2 * HTTP_INPUT_SPARE && !buf_reserve(b, FILL_BYTES))) {
        errno = ENOBUFS;
        return -1;
    }
    room = b->cap - b->len - 1 - HTTP_INPUT_SPARE;
    if (room > b->max - b->len)
        room = b->max - b->len;
    got = recv_now(in->fd, b->p + b->len, room);
    if (got > 0)
        buf_commit(b, (size_t)got);
    return got;
}

bool http_input_has_line(struct http_input *in)
{
    size_t from = in->scanned;
    size_t n = in->buf.len;
    in->scanned = n;
    return n > from && (memchr(in->buf.p + from, '\n', n - from) || n >= HTTP_HEAD_BYTES_MAX);
}

/* recv(2) that waits: > 0, 0 at an orderly end where that is fine, else -1 with ERR_PROTOCOL at any
 * end. */
static ssize_t recv_wait(
    int fd, void *dst, size_t n, bool end_is_fine, struct http_patience patience, struct err *e)
{
    for (;;) {
        ssize_t got = recv_now(fd, dst, n);
        if (got > 0 || (got == 0 && end_is_fine))
            return got;
        if (got == 0 || errno == ECONNRESET)
            return err_set(e, ERR_PROTOCOL, "the connection ended inside a body");
        if (errno != EAGAIN)
            return err_sys(e, errno, "recv");
        if (io_wait(fd, POLLIN, http_patience_deadline(patience), e) < 0)
            return -1;
    }
}

void http_body_init(struct http_body *b, enum http_framing framing, uint64_t length)
{
    *b = (struct http_body){.framing = framing, .left = length};
    b->ended = framing == HTTP_BODY_NONE || (framing == HTTP_BODY_LENGTH && length == 0);
}

/* Moves unread bytes to `dst`. */
static size_t take_unread(struct http_input *in, void *dst, size_t n)
{
    struct slice have = http_input_unread(in);
    size_t take = have.n < n ? have.n : n;
    memcpy(dst, have.p, take);
    in->at += take;
    return take;
}

/* Received and unread bytes first, then the socket. */
static ssize_t pull_plain(struct http_input *in, void *dst, size_t n, bool end_is_fine,
    struct http_patience patience, struct err *e)
{
    if (in->at < in->buf.len)
        return (ssize_t)take_unread(in, dst, n);
    return recv_wait(in->fd, dst, n, end_is_fine, patience, e);
}

static ssize_t pull_length(struct http_body *b, struct http_input *in, void *dst, size_t n,
    struct http_patience patience, struct err *e)
{
    size_t want = b->left < n ? (size_t)b->left : n;
    ssize_t got = pull_plain(in, dst, want, /* end_is_fine= */ false, patience, e);
    if (got < 0)
        return -1;
    b->left -= (uint64_t)got;
    b->ended = b->left == 0;
    return got;
}

/* Refills the window behind the head, which must be empty. Never moves the head: http_input_fill
 * left room. */
static int refill(struct http_input *in, struct http_patience patience, struct err *e)
{
    struct buf *b = &in->buf;
    ssize_t got;
    b->len = in->at = in->keep;
    assert(b->cap > b->len + 1);
    got = recv_wait(
        in->fd, b->p + b->len, b->cap - b->len - 1, /* end_is_fine= */ false, patience, e);
    if (got < 0)
        return -1;
    buf_commit(b, (size_t)got);
    return 0;
}

/* Inside a chunk with nothing buffered: its bytes go straight to the caller. */
static ssize_t pull_chunk_data(struct http_body *b, struct http_input *in, void *dst, size_t n,
    struct http_patience patience, struct err *e)
{
    struct slice run;
    size_t want = b->chunks.left < n ? (size_t)b->chunks.left : n;
    ssize_t got = recv_wait(in->fd, dst, want, /* end_is_fine= */ false, patience, e);
    if (got < 0)
        return -1;
    return http_chunks_feed(&b->chunks, dst, (size_t)got, &run, &b->ended, e);
}

static ssize_t pull_chunked(struct http_body *b, struct http_input *in, void *dst, size_t n,
    struct http_patience patience, struct err *e)
{
    while (!b->ended) {
        struct slice have = http_input_unread(in);
        struct slice run;
        ssize_t used;
        if (have.n == 0 && b->chunks.left > 0)
            return pull_chunk_data(b, in, dst, n, patience, e);
        if (have.n == 0) {
            if (refill(in, patience, e) < 0)
                return -1;
            have = http_input_unread(in);
        }
        used = http_chunks_feed(&b->chunks, have.p, have.n < n ? have.n : n, &run, &b->ended, e);
        if (used < 0)
            return -1;
        in->at += (size_t)used;
        if (run.n > 0) {
            memcpy(dst, run.p, run.n);
            return (ssize_t)run.n;
        }
    }
    return 0;
}

static ssize_t pull_until_close(struct http_body *b, struct http_input *in, void *dst, size_t n,
    struct http_patience patience, struct err *e)
{
    ssize_t got = pull_plain(in, dst, n, /* end_is_fine= */ true, patience, e);
    b->ended = got == 0;
    return got;
}

ssize_t http_body_pull(struct http_body *b, struct http_input *in, void *dst, size_t n,
    struct http_patience patience, struct err *e)
{
    if (b->ended || n == 0)
        return 0;
    switch (b->framing) {
    case HTTP_BODY_LENGTH:
        return pull_length(b, in, dst, n, patience, e);
    case HTTP_BODY_CHUNKED:
        return pull_chunked(b, in, dst, n, patience, e);
    default:
        return pull_until_close(b, in, dst, n, patience, e);
    }
}

/* How much to ask for next: what is declared, but growing only as bytes really come. */
static size_t next_step(const struct http_body *b, const struct buf *dst)
{
    size_t step = dst->len > PULL_ALL_BYTES ? dst->len : PULL_ALL_BYTES;
    size_t room = dst->max - dst->len;
    if (b->framing == HTTP_BODY_LENGTH && b->left < step)
        step = (size_t)b->left;
    return step < room ? step : room;
}

/* A full buffer is fine if the body ends right there. */
static int expect_end(struct http_body *b, struct http_input *in, struct http_patience patience,
    size_t max, struct err *e)
{
    char byte;
    ssize_t got = http_body_pull(b, in, &byte, 1, patience, e);
    return got > 0 ? err_set(e, ERR_TOO_LARGE, "body longer than %zu bytes", max) : (int)got;
}

int http_body_check_bound(const struct http_body *b, const struct buf *dst, struct err *e)
{
    if (b->framing == HTTP_BODY_LENGTH && b->left > dst->max - dst->len)
        return err_set(e, ERR_TOO_LARGE, "body longer than %zu bytes", dst->max);
    return 0;
}

int http_body_pull_all(struct http_body *b, struct http_input *in, struct buf *dst,
    struct http_patience patience, struct err *e)
{
    if (http_body_check_bound(b, dst, e) < 0)
        return -1;
    while (!b->ended) {
        size_t step = next_step(b, dst);
        char *at;
        ssize_t got;
        if (step == 0)
            return expect_end(b, in, patience, dst->max, e);
        at = buf_reserve(dst, step);
        if (!at)
            return err_set(e, ERR_NOMEM, "out of memory");
        got = http_body_pull(b, in, at, step, patience, e);
        if (got < 0)
            return -1;
        buf_commit(dst, (size_t)got);
    }
    return 0;
}

static void skip_sent(struct iovec **iov, size_t *n, size_t sent)
{
    while (*n > 0 && sent >= (*iov)->iov_len) {
        sent -= (*iov)->iov_len;
        (*iov)++;
        (*n)--;
    }
    if (*n > 0) {
        (*iov)->iov_base = (char *)(*iov)->iov_base + sent;
        (*iov)->iov_len -= sent;
    }
}

static int send_failed(int errnum, struct err *e)
{
    err_sys(e, errnum, "send");
    if (errnum == EPIPE || errnum == ECONNRESET)
        e->kind = ERR_CANCELED;
    return -1;
}

ssize_t http_send_some(int fd, struct iovec **iov, size_t *n, struct err *e)
{
    struct msghdr msg = {
        .msg_iov = *iov, .msg_iovlen = *n < IOV_MAX_ONE_CALL ? *n : IOV_MAX_ONE_CALL};
    ssize_t put;
    do
        put = sendmsg(fd, &msg, MSG_NOSIGNAL | MSG_DONTWAIT);
    while (put < 0 && errno == EINTR);
    if (put < 0)
        return errno == EAGAIN ? 0 : send_failed(errno, e);
    skip_sent(iov, n, (size_t)put);
    return put;
}

int http_send_iov(int fd, struct iovec *iov, size_t n, struct http_patience patience, struct err *e)
{
    skip_sent(&iov, &n, 0);
    while (n > 0) {
        ssize_t put = http_send_some(fd, &iov, &n, e);
        if (put < 0)
            return -1;
        if (n > 0 && io_wait(fd, POLLOUT, http_patience_deadline(patience), e) < 0)
            return -1;
    }
    return 0;
}
