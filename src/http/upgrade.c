/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Leaving HTTP: 101 Switching Protocols, and connections that a handler takes away.
 *
 * Theory of operation: after 101 the connection is still the server's; the handler talks over
 * http_fd, a stopping server shuts it down for reading, and the handler's return closes it. Taking
 * it (http_take_fd) removes the descriptor from epoll and from the list that stopping walks, both
 * under the server's lock, and leaves the connection without one; freeing it then closes nothing.
 */
#include <assert.h>
#include <poll.h>
#include <sys/epoll.h>

#include "base/cleanup.h"
#include "http/server_int.h"

enum { HEAD_MAX = 40 * 1024 };

bool http_wants_upgrade(const struct http_exchange *x, const char *protocol)
{
    const struct http_request_head *h = &x->head;
    return h->minor == 1 && http_header_has(h->headers, h->n_headers, "Connection", "upgrade") &&
           http_header_has(h->headers, h->n_headers, "Upgrade", protocol);
}

int http_reply_upgrade(struct http_exchange *x, const char *protocol, struct err *e)
{
    AUTO_BUF struct buf head = BUF_INIT(HEAD_MAX);
    assert(x->reply == REPLY_NONE && http_is_field_value(slice_cstr(protocol)));
    if (!x->conn->body.ended)
        return err_field(e, "Upgrade", "a request with a body cannot switch protocols");
    buf_printf(&head, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: %s\r\n",
        protocol);
    buf_append_slice(&head, buf_slice(&x->headers));
    buf_append(&head, "\r\n", 2);
    if (head.failed || x->headers.failed)
        return err_set(e, ERR_INTERNAL, "response headers too large");
    struct iovec iov = {head.p, head.len};
    x->close = true;
    x->reply = REPLY_UPGRADED;
    if (http_send_iov(x->conn->in.fd, &iov, 1, exchange_patience(x), e) == 0)
        return 0;
    x->reply = REPLY_BROKEN;
    x->broken_kind = e->kind;
    return -1;
}

struct slice http_early_bytes(const struct http_exchange *x)
{
    assert(x->reply == REPLY_UPGRADED || x->reply == REPLY_TAKEN);
    return http_input_unread(&x->conn->in);
}

int http_take_fd(struct http_exchange *x)
{
    struct server_conn *c = x->conn;
    MUTEX_GUARD(&x->server->lock);
    int fd = c->in.fd;
    assert(x->reply == REPLY_UPGRADED);
    if (c->registered)
        (void)epoll_ctl(x->server->epoll_fd, EPOLL_CTL_DEL, fd, NULL);
    c->registered = false;
    c->in.fd = -1;
    x->reply = REPLY_TAKEN;
    return fd;
}
