/* SPDX-License-Identifier: Apache-2.0 */
/*
 * POST /snapshot/prepare: the host is about to stop this machine and keep it.
 *
 * Theory of operation. In this order: the gate closes, so that nothing new begins; the streams of
 * processes end by themselves with "paused" and their processes go on; what else is under way gets
 * a moment and is then cut; the file systems are written out; every connection but this one is
 * closed, so that none is half open when the machine wakes; then the answer, and this connection
 * ends too. From then on only /init with the secret is heard (init.c), which opens the gate again.
 * What cannot be done opens it at once: the host may go on as if nothing had been asked.
 *
 * Connections are found among this process's own descriptors: TCP sockets whose local port is the
 * service's. A number that the server closes and takes anew meanwhile can only be such a connection
 * again, which is to be closed as well, or something that shutdown(2) does not touch.
 */
#include <dirent.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/sock.h"
#include "envd/access.h"
#include "envd/envd_int.h"
#include "envd/gate.h"
#include "envd/system.h"
#include "http/server.h"
#include "http/status.h"
#include "json/json.h"

enum {
    BODY_BYTES_MAX = 4096,
    LEAVE_MS = 300, /* for short requests under way, and for the streams' last words */
    CUT_MS = 2000   /* until those that were cut have noticed */
};

static int parse_secret(struct http_exchange *x, char dst[GATE_SECRET_CHARS + 1], struct err *e)
{
    AUTO_BUF struct buf text = BUF_INIT(BODY_BYTES_MAX);
    const struct json_value *body;
    const struct json_value *v;
    if (http_body_read_all(x, &text, e) < 0 ||
        json_parse(buf_slice(&text), http_arena(x), &body, e) < 0)
        return -1;
    v = body->type == JSON_OBJECT ? json_get(body, "secret") : NULL;
    if (!v || v->type != JSON_STRING || v->string.n != GATE_SECRET_CHARS)
        return err_field(e, "secret", "secret is not a string of %d digits", GATE_SECRET_CHARS);
    for (size_t i = 0; i < v->string.n; i++)
        if (!memchr("0123456789abcdef", v->string.p[i], 16))
            return err_field(e, "secret", "secret is not lower-case hex");
    (void)slice_copy_cstr(v->string, dst, GATE_SECRET_CHARS + 1);
    return 0;
}

static bool is_connection(int fd, uint16_t port)
{
    int protocol = 0;
    int listens = 0;
    socklen_t n = sizeof protocol;
    if (getsockopt(fd, SOL_SOCKET, SO_PROTOCOL, &protocol, &n) < 0 || protocol != IPPROTO_TCP)
        return false;
    n = sizeof listens;
    return getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listens, &n) == 0 && !listens &&
           sock_local_port(fd) == port;
}

static void cut_connections(uint16_t port, int but_fd)
{
    DIR *d = opendir("/proc/self/fd");
    struct dirent *ent;
    if (!d)
        return;
    while ((ent = readdir(d))) {
        char *end;
        long fd = strtol(ent->d_name, &end, 10);
        if (*end == '\0' && end != ent->d_name && fd != but_fd && is_connection((int)fd, port))
            (void)shutdown((int)fd, SHUT_RDWR);
    }
    (void)closedir(d);
}

/* Returns when no request is under way but this one. */
static int empty_gate(struct envd *d, struct http_exchange *x, struct err *e)
{
    if (gate_wait_empty(d->gate, deadline_in_ms(LEAVE_MS)))
        return 0;
    cut_connections(d->port, http_fd(x));
    if (gate_wait_empty(d->gate, deadline_in_ms(CUT_MS)))
        return 0;
    return err_set(e, ERR_TIMEOUT, "a request under way does not end");
}

static int prepare(struct envd *d, struct http_exchange *x, struct err *e)
{
    char secret[GATE_SECRET_CHARS + 1];
    int rc;
    if (parse_secret(x, secret, e) < 0)
        return -1;
    MUTEX_GUARD(&d->init_lock);
    rc = gate_close(d->gate, secret, e);
    explicit_bzero(secret, sizeof secret);
    if (rc < 0)
        return -1;
    if (empty_gate(d, x, e) < 0) {
        gate_open(d->gate);
        return -1;
    }
    d->system->sync(d->system->ctx);
    cut_connections(d->port, http_fd(x));
    return 0;
}

void snapshot_handle_prepare(struct envd *d, struct http_exchange *x)
{
    struct err e = {0};
    if (!gate_is_open(d->gate)) {
        err_set(&e, ERR_CONFLICT, "the sandbox is being paused already");
    } else if (access_check(d, x, &e) < 0) {
        /* said */
    } else if (!slice_is(http_request(x)->method, "POST")) {
        err_set(&e, ERR_METHOD, "/snapshot/prepare takes POST");
        http_reply_header(x, "Allow", "POST");
    } else if (prepare(d, x, &e) == 0) {
        (void)http_reply(x, HTTP_NO_CONTENT, NULL, (struct slice){0});
        (void)shutdown(http_fd(x), SHUT_RDWR);
        return;
    }
    envd_reply_error(x, &e);
}
