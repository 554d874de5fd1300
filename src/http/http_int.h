/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of this folder share: character classes, received bytes, bodies, sending. */
#ifndef TORPOR_HTTP_INT_H
#define TORPOR_HTTP_INT_H

#include <sys/uio.h>

#include "base/buf.h"
#include "http/parse.h"

/* tchar of RFC 9110 5.6.2. */
bool http_is_token_char(unsigned char c);
/* What may stand in a field value: HTAB, SP, VCHAR, obs-text. */
bool http_is_field_char(unsigned char c);
bool http_is_token(struct slice s);
bool http_is_field_value(struct slice s);

/* Without blanks and tabs at both ends. */
struct slice http_trim(struct slice s);
/* Cuts `s` at the first `sep`; false, and nothing set, when there is none. */
bool http_cut(struct slice s, char sep, struct slice *ret_before, struct slice *ret_after);
/* "Name: value" without its line end. */
int http_parse_field_line(struct slice line, struct http_header *ret, struct err *e);

/* How long an operation may wait: until a fixed deadline, and, with progress_ms >= 0, at most that
 * long without a byte moving. */
struct http_patience {
    int64_t deadline;
    int progress_ms;
};
#define HTTP_UNTIL(dl) ((struct http_patience){.deadline = (dl), .progress_ms = -1})
#define HTTP_PROGRESS_UNTIL(ms, dl) ((struct http_patience){.deadline = (dl), .progress_ms = (ms)})
/* Takes what is there and does not wait. */
#define HTTP_NO_WAIT HTTP_UNTIL(0)

/* The deadline of a wait that begins now. */
int64_t http_patience_deadline(struct http_patience patience);

/* Bytes received on a connection and not used yet. The head of the message in progress stays at the
 * front, because slices point into it; what follows is unread. */
struct http_input {
    int fd;
    struct buf buf;
    size_t keep;    /* bytes of the head: neither moved nor overwritten */
    size_t at;      /* unread bytes begin here; keep <= at <= buf.len */
    size_t scanned; /* bytes that http_input_has_line has looked at */
};

enum {
    /* Behind a received head there is always this much room, so that chunk framing can be read
     * without moving the head. */
    HTTP_INPUT_SPARE = 512,
    HTTP_INPUT_MAX = HTTP_HEAD_BYTES_MAX + 8 * 1024,
};

void http_input_init(struct http_input *in, int fd);
/* Frees the memory; the descriptor stays open. */
void http_input_done(struct http_input *in);
static inline struct slice http_input_unread(const struct http_input *in)
{
    return in->buf.p ? slice_of(in->buf.p + in->at, in->buf.len - in->at) : slice_of(NULL, 0);
}
/* The message is over: unread bytes, if any, become the start of the next one; none: no memory. */
void http_input_next(struct http_input *in);
/* One recv(2) of a part of a head, without waiting: > 0 bytes came, 0 the end, -1 with errno
 * (EAGAIN; ENOBUFS
 * when as much as a head may have is there already). */
ssize_t http_input_fill(struct http_input *in);
/* True when a line feed has come since the last call, or as much as a head may have: only then is
 * it worth parsing again. */
bool http_input_has_line(struct http_input *in);

/* A body being received. */
struct http_body {
    enum http_framing framing;
    uint64_t left; /* of HTTP_BODY_LENGTH */
    struct http_chunks chunks;
    bool ended;
};

void http_body_init(struct http_body *b, enum http_framing framing, uint64_t length);
/* Body bytes: > 0, 0 at the end, -1. ERR_PROTOCOL when the peer ends it early, ERR_INVALID for
 * malformed chunking, ERR_TIMEOUT. */
ssize_t http_body_pull(struct http_body *b, struct http_input *in, void *dst, size_t n,
    struct http_patience patience, struct err *e);
/* ERR_TOO_LARGE when the declared rest cannot fit into `dst`. */
int http_body_check_bound(const struct http_body *b, const struct buf *dst, struct err *e);
/* Appends the rest; ERR_TOO_LARGE beyond the buffer's bound, at once where the length is declared.
 */
int http_body_pull_all(struct http_body *b, struct http_input *in, struct buf *dst,
    struct http_patience patience, struct err *e);

/* Sends all of it, in as few system calls as the socket takes. Consumes `iov`. Never raises
 * SIGPIPE. ERR_CANCELED (with errnum) when the peer is gone, ERR_TIMEOUT. */
int http_send_iov(
    int fd, struct iovec *iov, size_t n, struct http_patience patience, struct err *e);
/* One sendmsg(2) without waiting; skips what went out in `iov`. > 0, 0: would block, -1. */
ssize_t http_send_some(int fd, struct iovec **iov, size_t *n, struct err *e);

#endif
