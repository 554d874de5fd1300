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
 * With "keep" the machine goes on after the snapshot, so nothing that is open may notice it: the
 * gate closes, the file systems are written out, that is all. What the others would have had to do
 * is then done where the snapshot wakes, before that gate opens. There the peers are gone and
 * answer nothing, so nothing may wait for them: last words are what the sockets take at once, those
 * that wait for a peer to send are at an end, those that wait for one to read are cut soon after.
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

#define LOG_MODULE "snapshot"
#include "base/log.h"

enum {
    BODY_BYTES_MAX = 4096,
    LEAVE_MS = 300,      /* for short requests under way, and for the streams' last words */
    WAKE_LEAVE_MS = 100, /* in a wake, for those that do not wait for their peer */
    CUT_MS = 2000        /* until those that were cut have noticed */
};

struct prepare_request {
    char secret[GATE_SECRET_CHARS + 1];
    bool keeps;
};

static int get_secret(const struct json_value *body, char dst[GATE_SECRET_CHARS + 1], struct err *e)
{
    const struct json_value *v = body->type == JSON_OBJECT ? json_get(body, "secret") : NULL;
    if (!v || v->type != JSON_STRING || v->string.n != GATE_SECRET_CHARS)
        return err_field(e, "secret", "secret is not a string of %d digits", GATE_SECRET_CHARS);
    for (size_t i = 0; i < v->string.n; i++)
        if (!memchr("0123456789abcdef", v->string.p[i], 16))
            return err_field(e, "secret", "secret is not lower-case hex");
    (void)slice_copy_cstr(v->string, dst, GATE_SECRET_CHARS + 1);
    return 0;
}

static int get_keep(const struct json_value *body, bool *ret, struct err *e)
{
    const struct json_value *v = json_get(body, "keep");
    if (!v || v->type == JSON_NULL)
        return 0;
    if (v->type != JSON_BOOL)
        return err_field(e, "keep", "keep is neither true nor false");
    *ret = v->boolean;
    return 0;
}

static int parse_request(struct http_exchange *x, struct prepare_request *ret, struct err *e)
{
    AUTO_BUF struct buf text = BUF_INIT(BODY_BYTES_MAX);
    const struct json_value *body;
    if (http_body_read_all(x, &text, e) < 0 ||
        json_parse(buf_slice(&text), http_arena(x), &body, e) < 0)
        return -1;
    return get_secret(body, ret->secret, e) < 0 || get_keep(body, &ret->keeps, e) < 0 ? -1 : 0;
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

/* `how` is that of shutdown(2). */
static void cut_connections(uint16_t port, int but_fd, int how)
{
    DIR *d = opendir("/proc/self/fd");
    struct dirent *ent;
    if (!d)
        return;
    while ((ent = readdir(d))) {
        char *end;
        long fd = strtol(ent->d_name, &end, 10);
        if (*end == '\0' && end != ent->d_name && fd != but_fd && is_connection((int)fd, port))
            (void)shutdown((int)fd, how);
    }
    (void)closedir(d);
}

/* Returns when no request is under way but this one. */
static int empty_gate(struct envd *d, struct http_exchange *x, struct err *e)
{
    int64_t left = deadline_in_ms(LEAVE_MS);
    gate_evict(d->gate, left);
    if (gate_wait_empty(d->gate, left))
        return 0;
    cut_connections(d->port, http_fd(x), SHUT_RDWR);
    if (gate_wait_empty(d->gate, deadline_in_ms(CUT_MS)))
        return 0;
    return err_set(e, ERR_TIMEOUT, "a request under way does not end");
}

void snapshot_end_former_life(struct envd *d, struct http_exchange *x)
{
    if (!gate_keeps(d->gate))
        return;
    gate_evict(d->gate, /* words_until= */ clock_mono_ms());
    cut_connections(d->port, http_fd(x), SHUT_RD);
    (void)gate_wait_empty(d->gate, deadline_in_ms(WAKE_LEAVE_MS));
    cut_connections(d->port, http_fd(x), SHUT_RDWR);
    if (!gate_wait_empty(d->gate, deadline_in_ms(CUT_MS)))
        log_warn("a request of the former life does not end");
}

static int prepare(struct envd *d, struct http_exchange *x, bool *ret_keeps, struct err *e)
{
    struct prepare_request r = {0};
    int rc;
    if (parse_request(x, &r, e) < 0)
        return -1;
    MUTEX_GUARD(&d->init_lock);
    rc = gate_close(d->gate, r.secret, r.keeps, e);
    explicit_bzero(r.secret, sizeof r.secret);
    if (rc < 0)
        return -1;
    if (!r.keeps && empty_gate(d, x, e) < 0) {
        gate_open(d->gate);
        return -1;
    }
    d->system->sync(d->system->ctx);
    if (!r.keeps)
        cut_connections(d->port, http_fd(x), SHUT_RDWR);
    *ret_keeps = r.keeps;
    return 0;
}

void snapshot_handle_prepare(struct envd *d, struct http_exchange *x)
{
    struct err e = {0};
    bool keeps = false;
    if (!gate_is_open(d->gate)) {
        err_set(&e, ERR_CONFLICT, "the sandbox is being paused already");
    } else if (access_check(d, x, &e) < 0) {
        /* said */
    } else if (!slice_is(http_request(x)->method, "POST")) {
        err_set(&e, ERR_METHOD, "/snapshot/prepare takes POST");
        http_reply_header(x, "Allow", "POST");
    } else if (prepare(d, x, &keeps, &e) == 0) {
        (void)http_reply(x, HTTP_NO_CONTENT, NULL, (struct slice){0});
        if (!keeps)
            (void)shutdown(http_fd(x), SHUT_RDWR);
        return;
    }
    envd_reply_error(x, &e);
}
