/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The loop's part of the memory: handshake, page faults, requests to save.
 *
 * Theory of operation: a page that cannot be served, or a handshake that does not come, ends the
 * VMM with a reason, which every message carries from then on. A SAVE holds up the loop, but not
 * the page faults, and it looks whether somebody still wants it. A FILL holds it up too, of a VM
 * that does not run yet.
 */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>

#include "base/clock.h"
#include "shim/copied.h"
#include "shim/faults.h"
#include "shim/serve_int.h"
#include "snap/working_set.h"

/* Whatever is wrong with a VM's memory ends the VM. A VMM that ended by itself has said why. */
static void memory_failed(struct server *s, const struct err *why)
{
    struct err ignored;
    if (s->memory_failed || s->ended)
        return;
    s->memory_failed = true;
    if (why->kind != ERR_UNAVAILABLE)
        s->memory_error = *why;
    (void)proc_signal(s->vmm.pidfd, SIGKILL, &ignored);
}

static void serve_faults(struct server *s)
{
    struct err e = {0};
    if (s->memory->uffd >= 0 && !s->memory_failed && !s->ended && faults_serve(s->memory, &e) < 0)
        memory_failed(s, &e);
}

static void shake_hands(struct server *s)
{
    struct err e = {0};
    if (memory_shake_hands(s->memory, &e) < 0)
        memory_failed(s, &e);
}

struct save_watch {
    struct server *server;
    struct conn *conn;
};

/* While memory is saved: faults go on, and whoever asked may not want it any more. */
static bool should_stop(void *arg)
{
    const struct save_watch *w = arg;
    struct shim_msg_head next;
    ssize_t got;
    serve_faults(w->server);
    if (w->server->memory_failed || conn_is_closed(w->conn))
        return true;
    got = recv(w->conn->fd, &next, sizeof next, MSG_PEEK | MSG_DONTWAIT);
    return got == (ssize_t)sizeof next &&
           (next.type == SHIM_MSG_CANCEL || next.type == SHIM_MSG_KILL);
}

/* SAVED, or SAVE_FAILED when `rc` is negative. */
static void reply_saved(
    struct server *s, struct conn *c, int rc, const struct save_numbers *n, const struct err *e)
{
    if (rc < 0)
        conn_reply(s, c, &(struct reply){.type = SHIM_MSG_SAVE_FAILED, .error = e});
    else
        conn_reply(s, c, &(struct reply){.type = SHIM_MSG_SAVED, .numbers = n});
}

/* Memory without a handshake is looked for when it is first needed. What waits for a FILL is not
 * what it should be before. */
static int find_copied(struct memory *m, bool fills, struct err *e)
{
    if (m->is_mapped || m->kind != SHIM_MEMORY_COPIED || (m->source.file && !fills))
        return 0;
    if (copied_find(m, e) < 0)
        return -1;
    m->is_mapped = true;
    return 0;
}

/* True when it answered: the request cannot be met. */
static bool refuse_memory(struct server *s, struct conn *c)
{
    struct err e = {0};
    if (c->version < 3)
        conn_refuse(s, c, SHIM_REFUSAL_TYPE);
    else if (!c->has_control)
        conn_refuse(s, c, SHIM_REFUSAL_NO_CONTROL);
    else if (s->memory_failed || s->ended)
        conn_refuse(s, c, SHIM_REFUSAL_MEMORY);
    else if (find_copied(s->memory, c->msg.type == SHIM_MSG_FILL, &e) < 0)
        reply_saved(s, c, -1, NULL, &e);
    else if (!s->memory->is_mapped)
        conn_refuse(s, c, SHIM_REFUSAL_MEMORY);
    else
        return false;
    return true;
}

static void handle_save(struct server *s, struct conn *c)
{
    struct save_watch watch = {s, c};
    struct save_params params = {.fds = c->fds, .should_stop = should_stop, .arg = &watch};
    struct save_numbers n = {0};
    struct err e = {0};
    int rc;
    params.write_back = (c->msg.flags & SHIM_SAVE_WRITE_BACK) != 0;
    memcpy(params.blob.bytes, c->msg.uuid, sizeof params.blob.bytes);
    if (c->n_fds != SAVE_FDS || uuid_is_none(&params.blob))
        rc = err_sys(&e, EINVAL, "SAVE needs %d descriptors and a name", SAVE_FDS);
    else
        rc = save_memory(s->memory, &params, &n, &e);
    reply_saved(s, c, rc, &n, &e);
}

static void handle_commit(struct server *s, struct conn *c)
{
    struct err e = {0};
    if (save_commit(s->memory, &e) < 0)
        reply_saved(s, c, -1, NULL, &e);
    else
        conn_send(s, c, SHIM_MSG_STATE);
}

static void handle_hints(struct server *s, struct conn *c)
{
    const struct memory *m = s->memory;
    struct save_numbers n = {0};
    struct err e = {0};
    int rc = 0;
    if (c->n_fds != 1)
        rc = err_sys(&e, EINVAL, "HINTS needs one descriptor");
    else if (m->touched)
        rc = working_set_write(c->fds[0], m->touched, m->bytes, &n.pages_stored, &e);
    reply_saved(s, c, rc, &n, &e);
}

static void handle_fill(struct server *s, struct conn *c)
{
    struct err e = {0};
    if (s->memory->kind != SHIM_MEMORY_COPIED)
        conn_refuse(s, c, SHIM_REFUSAL_TYPE);
    else if (copied_fill(s->memory, &e) < 0)
        reply_saved(s, c, -1, NULL, &e);
    else
        conn_send(s, c, SHIM_MSG_STATE);
}

void serve_memory_request(struct server *s, struct conn *c)
{
    if (c->msg.type == SHIM_MSG_CANCEL && c->version >= 3)
        return;
    if (refuse_memory(s, c))
        return;
    if (c->msg.type == SHIM_MSG_SAVE)
        handle_save(s, c);
    else if (c->msg.type == SHIM_MSG_COMMIT)
        handle_commit(s, c);
    else if (c->msg.type == SHIM_MSG_FILL)
        handle_fill(s, c);
    else
        handle_hints(s, c);
}

static bool awaits_handshake(const struct server *s)
{
    return s->memory->socket >= 0 && !s->memory_failed && !s->ended;
}

int serve_memory_fd(const struct server *s)
{
    if (awaits_handshake(s))
        return s->memory->socket;
    return s->memory_failed || s->ended ? -1 : s->memory->uffd;
}

bool serve_memory_deadline(struct server *s)
{
    struct err e;
    if (!awaits_handshake(s)) {
        s->handshake_deadline = DEADLINE_NEVER;
        return false;
    }
    if (deadline_poll_ms(s->handshake_deadline) > 0)
        return false;
    err_set(&e, ERR_TIMEOUT, "the VMM did not map its memory in time");
    memory_failed(s, &e);
    s->handshake_deadline = DEADLINE_NEVER;
    return true;
}

void serve_memory(struct server *s)
{
    if (awaits_handshake(s))
        shake_hands(s);
    serve_faults(s);
}
