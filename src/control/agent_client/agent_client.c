/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Agent client.
 *
 * Theory of operation
 * A call takes an idle connection from a small stack (the one used last, which is most likely
 * alive) or makes a new one, and gives it back when the exchange was read to its end; anything else
 * closes it. Connections that were idle for longer than IDLE_MS are closed before the agent's own
 * idle time-out could meet a request. When a kept connection breaks, a call that may be repeated is
 * made again, once, on a new connection: reads, and changing calls, which carry a request id. An
 * exec or a write is not.
 */
#include "control/agent_client/agent_client.h"

#include <assert.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/sock.h"
#include "http/client.h"
#include "http/parse.h"
#include "proto/limits.h"
#include "rpc/client.h"

enum {
    IDLE_MAX = 16,     /* connections kept; more may be busy at once */
    IDLE_MS = 20000,   /* below the agent's own idle time-out of 60 s */
    PATIENCE_MS = 2000 /* over the agent's own deadline, so that its answer still comes through */
};

struct method {
    const char *path;
    const struct rpc_message *request;
    const struct rpc_message *response;
    bool repeatable;
};

static const struct method methods[] = {
    [AGENT_CREATE] = {AGENT_V1_PATH("CreateSandbox"), &agent_create_request_message,
        &agent_create_response_message, true},
    [AGENT_DESTROY] = {AGENT_V1_PATH("DestroySandbox"), &agent_destroy_request_message,
        &agent_destroy_response_message, true},
    [AGENT_LIST] = {AGENT_V1_PATH("ListSandboxes"), &agent_list_request_message,
        &agent_list_response_message, true},
    [AGENT_PING] = {AGENT_V1_PATH("PingSandbox"), &agent_ping_request_message,
        &agent_ping_response_message, true},
    [AGENT_UPDATE] = {AGENT_V1_PATH("UpdateSandbox"), &agent_update_request_message,
        &agent_update_response_message, true},
    [AGENT_PAUSE] = {AGENT_V1_PATH("PauseSandbox"), &agent_pause_request_message,
        &agent_pause_response_message, true},
    [AGENT_RESUME] = {AGENT_V1_PATH("ResumeSandbox"), &agent_resume_request_message,
        &agent_resume_response_message, true},
    [AGENT_CREATE_SNAPSHOT] = {AGENT_V1_PATH("CreateSnapshot"),
        &agent_create_snapshot_request_message, &agent_create_snapshot_response_message, true},
    [AGENT_DELETE_SNAPSHOT] = {AGENT_V1_PATH("DeleteSnapshot"),
        &agent_delete_snapshot_request_message, &agent_delete_snapshot_response_message, true},
    [AGENT_EXEC] = {AGENT_V1_PATH("Exec"), &agent_exec_request_message,
        &agent_exec_response_message, false},
    [AGENT_READ_FILE] = {AGENT_V1_PATH("ReadFile"), &agent_read_file_request_message,
        &agent_read_file_response_message, true},
    [AGENT_WRITE_FILE] = {AGENT_V1_PATH("WriteFile"), &agent_write_file_request_message,
        &agent_write_file_response_message, false},
};
static_assert(ARRAY_LEN(methods) == AGENT_METHOD_COUNT, "each method");

struct idle_conn {
    struct http_conn *conn;
    int64_t since_ms;
};

struct agent_client {
    struct agent base;
    char path[sizeof((struct sockaddr_un *)0)->sun_path];
    pthread_mutex_t mutex; /* over what follows */
    struct idle_conn idle[IDLE_MAX];
    size_t n_idle;
    struct busy_conn *busy; /* a list of those in use */
    bool interrupted;
};

/* Lives on the stack of the call that uses the connection. */
struct busy_conn {
    struct http_conn *conn;
    struct busy_conn *next;
};

/* --- connections --- */

static struct http_conn *pop_idle(struct agent_client *c)
{
    int64_t now = clock_mono_ms();
    MUTEX_GUARD(&c->mutex);
    while (c->n_idle > 0) {
        struct idle_conn x = c->idle[--c->n_idle];
        if (now - x.since_ms < IDLE_MS && http_conn_reusable(x.conn))
            return x.conn;
        (void)http_conn_free(x.conn);
    }
    return NULL;
}

/* A connection in use can be broken off. False when it is too late to use it at all. */
static bool busy_enter(struct agent_client *c, struct busy_conn *b)
{
    MUTEX_GUARD(&c->mutex);
    if (c->interrupted)
        return false;
    b->next = c->busy;
    c->busy = b;
    return true;
}

static void busy_leave(struct agent_client *c, const struct busy_conn *b)
{
    MUTEX_GUARD(&c->mutex);
    for (struct busy_conn **at = &c->busy; *at; at = &(*at)->next)
        if (*at == b) {
            *at = b->next;
            return;
        }
}

/* Keeps the connection when its exchange has ended and there is room. */
static void give_back(struct agent_client *c, struct http_conn *conn)
{
    if (http_conn_reusable(conn)) {
        MUTEX_GUARD(&c->mutex);
        if (c->n_idle < IDLE_MAX) {
            c->idle[c->n_idle++] = (struct idle_conn){conn, clock_mono_ms()};
            return;
        }
    }
    (void)http_conn_free(conn);
}

static struct http_conn *connect_new(struct agent_client *c, struct err *e)
{
    int fd = sock_connect_unix(c->path, e);
    struct http_conn *conn = fd < 0 ? NULL : http_conn_new(fd, e);
    if (!conn)
        err_set(e, ERR_UNAVAILABLE, "the host agent does not answer");
    return conn;
}

/* --- errors --- */

/* What the agent says reaches the client as it is where its kind has a public meaning there. */
static bool is_public(enum err_kind kind)
{
    switch (kind) {
    case ERR_INVALID:
    case ERR_FORBIDDEN:
    case ERR_NOT_FOUND:
    case ERR_EXISTS:
    case ERR_BAD_STATE:
    case ERR_CONFLICT:
    case ERR_IN_PROGRESS:
    case ERR_TOO_LARGE:
    case ERR_RANGE:
    case ERR_RATE_LIMITED:
    case ERR_QUOTA:
    case ERR_AGENT:
    case ERR_UNAVAILABLE:
    case ERR_NO_CAPACITY:
    case ERR_TEMPLATE_BUILDING:
    case ERR_TIMEOUT:
    case ERR_NO_SPACE:
        return true;
    default:
        return false;
    }
}

/* Kinds of a call that ended on our side: our patience, or a message beyond its bound. */
static bool is_our_own(enum err_kind kind)
{
    return kind == ERR_TIMEOUT || kind == ERR_TOO_LARGE || kind == ERR_INVALID;
}

/* --- calls --- */

/* `ret_broke`: the connection broke before the agent had answered. */
static int call_once(struct agent_client *c, struct http_conn *conn, const struct rpc_request *r,
    struct arena *arena, void *resp, bool *ret_broke, struct err *e)
{
    struct busy_conn busy = {.conn = conn};
    bool answered;
    int rc;
    if (!busy_enter(c, &busy)) {
        (void)http_conn_free(conn);
        *ret_broke = false;
        return err_set(e, ERR_UNAVAILABLE, "the server stops");
    }
    rc = rpc_call_unary(conn, r, arena, resp, e);
    busy_leave(c, &busy);
    answered = rc == 0 || http_conn_reusable(conn);
    *ret_broke = !answered && !is_our_own(e->kind);
    give_back(c, conn);
    if (*ret_broke)
        err_set(e, ERR_UNAVAILABLE, "the host agent broke off");
    else if (rc < 0 && !is_public(e->kind))
        e->kind = ERR_AGENT;
    return rc;
}

static int call_method(struct agent_client *c, const struct rpc_request *r, bool repeatable,
    struct arena *arena, void *resp, struct err *e)
{
    struct http_conn *conn = pop_idle(c);
    bool broke;
    if (conn) {
        int rc = call_once(c, conn, r, arena, resp, &broke, e);
        if (!broke || !repeatable)
            return rc;
    }
    conn = connect_new(c, e);
    return conn ? call_once(c, conn, r, arena, resp, &broke, e) : -1;
}

static int agent_client_call(struct agent *a, enum agent_method m, const void *req, void *resp,
    struct arena *arena, int64_t timeout_ms, struct err *e)
{
    const char *id = log_context_request_id();
    struct http_header header = {SLICE_LIT("X-Request-Id"), slice_cstr(id)};
    struct rpc_request r = {
        .path = methods[m].path,
        .request = methods[m].request,
        .response = methods[m].response,
        .msg = req,
        .codec = RPC_CODEC_PROTO,
        .headers = &header,
        .n_headers = id[0] ? 1 : 0,
        .timeout_ms = timeout_ms,
        .deadline = deadline_in_ms(timeout_ms + PATIENCE_MS),
        .max_bytes = LIMIT_RPC_MESSAGE_BYTES,
    };
    return call_method((struct agent_client *)a, &r, methods[m].repeatable, arena, resp, e);
}

static void agent_client_interrupt(struct agent *a)
{
    struct agent_client *c = (struct agent_client *)a;
    MUTEX_GUARD(&c->mutex);
    c->interrupted = true;
    for (const struct busy_conn *b = c->busy; b; b = b->next)
        (void)shutdown(http_conn_fd(b->conn), SHUT_RDWR);
}

static const struct agent_ops client_ops = {
    .call = agent_client_call,
    .interrupt = agent_client_interrupt,
};

int agent_client_new(const char *socket_path, struct agent **ret, struct err *e)
{
    struct agent_client *c;
    if (strlen(socket_path) >= sizeof c->path)
        return err_set(e, ERR_INVALID, "the agent's socket path is too long");
    c = calloc(1, sizeof *c);
    if (!c)
        return err_set(e, ERR_NOMEM, "out of memory");
    c->base.ops = &client_ops;
    (void)snprintf(c->path, sizeof c->path, "%s", socket_path);
    (void)pthread_mutex_init(&c->mutex, NULL);
    *ret = &c->base;
    return 0;
}

struct agent *agent_client_free(struct agent *a)
{
    struct agent_client *c = (struct agent_client *)a;
    if (!c)
        return NULL;
    while (c->n_idle > 0)
        (void)http_conn_free(c->idle[--c->n_idle].conn);
    (void)pthread_mutex_destroy(&c->mutex);
    free(c);
    return NULL;
}
