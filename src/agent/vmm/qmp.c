/* SPDX-License-Identifier: Apache-2.0 */
/* Monitor protocol: connections, commands, answers. */
#include "agent/vmm/qmp.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/io.h"
#include "base/sock.h"

enum {
    LINE_BYTES_MAX = 64 << 10, /* query-migrate answers 1 KiB */
    COMMAND_BYTES_MAX = 16 << 10,
    ARENA_BYTES_MAX = 512 << 10,
    LINES_MAX = 1000, /* events in front of an answer: a flood is none */
};

enum migration { MIGRATION_GOES_ON, MIGRATION_COMPLETED, MIGRATION_FAILED };

struct qmp {
    int fd;
    enum migration migration; /* what the last event said */
    uint64_t last_id;
    struct buf in; /* bytes of the next lines */
    struct arena arena;
};

/* Waits for a line and moves it, without its end, to the arena. */
static int read_line(struct qmp *q, struct slice *ret, int64_t deadline, struct err *e)
{
    for (;;) {
        const char *end = q->in.len > 0 ? memchr(q->in.p, '\n', q->in.len) : NULL;
        char *room;
        ssize_t got;
        if (end) {
            size_t n = (size_t)(end - q->in.p);
            char *line = arena_strndup(&q->arena, q->in.p, n);
            if (!line)
                return err_set(e, ERR_NOMEM, "out of memory");
            buf_consume(&q->in, n + 1);
            *ret = slice_of(line, n);
            return 0;
        }
        room = buf_reserve(&q->in, 4096);
        if (!room)
            return err_set(e, ERR_PROTOCOL, "the VMM's answer is too long");
        got = io_read(q->fd, room, 4096, deadline, e);
        if (got < 0)
            return -1;
        if (got == 0)
            return err_set(e, ERR_UNAVAILABLE, "the VMM has closed its monitor");
        buf_commit(&q->in, (size_t)got);
    }
}

static int read_message(
    struct qmp *q, const struct json_value **ret, int64_t deadline, struct err *e)
{
    struct slice line;
    if (read_line(q, &line, deadline, e) < 0)
        return -1;
    if (json_parse(line, &q->arena, ret, e) < 0 || (*ret)->type != JSON_OBJECT)
        return err_set(e, ERR_PROTOCOL, "the VMM's answer is not a JSON object");
    return 0;
}

static void reset_arena(struct qmp *q)
{
    arena_done(&q->arena);
    arena_init(&q->arena, ARENA_BYTES_MAX);
}

/* The words of a refusal. */
static int refused(const char *command, const struct json_value *error, struct err *e)
{
    const struct json_value *desc = json_get(error, "desc");
    struct slice text = desc && desc->type == JSON_STRING ? desc->string : SLICE_LIT("no reason");
    return err_set(e, ERR_INTERNAL, "the VMM refused %s: %.*s", command,
        (int)(text.n < 160 ? text.n : 160), text.p);
}

static bool has_id(const struct json_value *m, uint64_t id)
{
    const struct json_value *v = json_get(m, "id");
    return v && v->type == JSON_INT && v->integer >= 0 && (uint64_t)v->integer == id;
}

/* Only those of a migration matter. */
static void note_event(struct qmp *q, const struct json_value *m)
{
    const struct json_value *name = json_get(m, "event");
    const struct json_value *data = json_get(m, "data");
    const struct json_value *status = data ? json_get(data, "status") : NULL;
    if (name->type != JSON_STRING || !slice_is(name->string, "MIGRATION") || !status ||
        status->type != JSON_STRING)
        return;
    if (slice_is(status->string, "completed"))
        q->migration = MIGRATION_COMPLETED;
    else if (slice_is(status->string, "failed"))
        q->migration = MIGRATION_FAILED;
}

static int take_answer(struct qmp *q, const char *command, const struct json_value **ret_return,
    int64_t deadline, struct err *e)
{
    for (int i = 0; i < LINES_MAX; i++) {
        const struct json_value *m;
        const struct json_value *v;
        if (read_message(q, &m, deadline, e) < 0)
            return -1;
        if (json_get(m, "event")) {
            note_event(q, m);
            continue;
        }
        if (!has_id(m, q->last_id))
            continue; /* of a command that was given up */
        v = json_get(m, "error");
        if (v)
            return refused(command, v, e);
        v = json_get(m, "return");
        if (!v)
            return err_set(e, ERR_PROTOCOL, "the VMM's answer to %s says nothing", command);
        if (ret_return)
            *ret_return = v;
        return 0;
    }
    return err_set(e, ERR_PROTOCOL, "the VMM does not answer %s", command);
}

/* connect(2) and sendmsg(2) wait no longer; then they fail with EAGAIN. */
static int bound_sending(int fd, int64_t deadline, struct err *e)
{
    int ms = deadline_poll_ms(deadline);
    struct timeval t = {.tv_sec = ms / 1000, .tv_usec = ms % 1000 * 1000L};
    if (ms <= 0)
        t = (struct timeval){.tv_usec = ms == 0}; /* 0 is for ever */
    if (setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &t, sizeof t) < 0)
        return err_sys(e, errno, "SO_SNDTIMEO");
    return 0;
}

static int send_command(struct qmp *q, const struct qmp_command *c, int64_t deadline, struct err *e)
{
    AUTO_BUF struct buf text = BUF_INIT(COMMAND_BYTES_MAX);
    buf_printf(&text, "{\"execute\":\"%s\",\"id\":%llu", c->name, (unsigned long long)++q->last_id);
    if (c->arguments)
        buf_printf(&text, ",\"arguments\":%s", c->arguments);
    buf_append_cstr(&text, "}\r\n");
    if (text.failed)
        return err_set(e, ERR_TOO_LARGE, "the command %s is too long", c->name);
    if (c->fd >= 0)
        return bound_sending(q->fd, deadline, e) < 0
                   ? -1
                   : sock_send_fds(q->fd, text.p, text.len, &c->fd, 1, e);
    return io_write_full(q->fd, text.p, text.len, deadline, e);
}

/* A monitor that is gone is a VMM that has ended, one that takes nothing is a VMM that hangs. */
static int unavailable(struct err *e)
{
    if (e->errnum == EAGAIN)
        e->kind = ERR_TIMEOUT;
    if (e->errnum == EPIPE || e->errnum == ECONNRESET || e->errnum == ECONNREFUSED ||
        e->errnum == ENOENT)
        e->kind = ERR_UNAVAILABLE;
    return -1;
}

int qmp_execute(struct qmp *q, const struct qmp_command *c, const struct json_value **ret_return,
    int64_t deadline, struct err *e)
{
    reset_arena(q);
    if (send_command(q, c, deadline, e) < 0 ||
        take_answer(q, c->name, ret_return, deadline, e) < 0) {
        (void)unavailable(e);
        return err_wrap(e, "monitor");
    }
    return 0;
}

static int greet(struct qmp *q, int64_t deadline, struct err *e)
{
    const struct json_value *m;
    if (read_message(q, &m, deadline, e) < 0)
        return -1;
    if (!json_get(m, "QMP"))
        return err_set(e, ERR_PROTOCOL, "what answers is no monitor");
    return qmp_execute(
        q, &(struct qmp_command){.name = "qmp_capabilities", .fd = -1}, NULL, deadline, e);
}

struct qmp *qmp_attach(int fd, int64_t deadline, struct err *e)
{
    struct qmp *q = calloc(1, sizeof *q);
    if (!q) {
        (void)close(fd);
        (void)err_set(e, ERR_NOMEM, "out of memory");
        return NULL;
    }
    q->fd = fd;
    q->in = BUF_INIT(LINE_BYTES_MAX);
    arena_init(&q->arena, ARENA_BYTES_MAX);
    if (greet(q, deadline, e) < 0) {
        (void)unavailable(e);
        return qmp_close(q);
    }
    return q;
}

/* Connections that were given up stay in the queue of a VMM that takes none, until it is full: then
 * connect(2) waits. */
static int connect_monitor(const char *path, int64_t deadline, struct err *e)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    AUTO_CLOSE int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return err_sys(e, errno, "socket");
    if (!slice_copy_cstr(slice_cstr(path), a.sun_path, sizeof a.sun_path))
        return err_set(e, ERR_INVALID, "the path of a socket is too long: %s", path);
    if (bound_sending(fd, deadline, e) < 0)
        return -1;
    if (connect(fd, (struct sockaddr *)&a, sizeof a) < 0)
        return err_sys(e, errno, "connect %s", path);
    return TAKE_FD(fd);
}

struct qmp *qmp_open(const char *path, int64_t deadline, struct err *e)
{
    int fd = connect_monitor(path, deadline, e);
    if (fd < 0) {
        (void)unavailable(e);
        (void)err_wrap(e, "monitor");
        return NULL;
    }
    return qmp_attach(fd, deadline, e);
}

struct qmp *qmp_close(struct qmp *q)
{
    if (!q)
        return NULL;
    (void)close(q->fd);
    buf_done(&q->in);
    arena_done(&q->arena);
    free(q);
    return NULL;
}

void qmp_migration_begin(struct qmp *q)
{
    q->migration = MIGRATION_GOES_ON;
}

int qmp_migration_wait(struct qmp *q, int64_t deadline, struct err *e)
{
    for (int i = 0; q->migration == MIGRATION_GOES_ON && i < LINES_MAX; i++) {
        const struct json_value *m;
        reset_arena(q);
        if (read_message(q, &m, deadline, e) < 0) {
            (void)unavailable(e);
            return err_wrap(e, "monitor");
        }
        if (json_get(m, "event"))
            note_event(q, m);
    }
    if (q->migration == MIGRATION_COMPLETED)
        return 0;
    return err_set(e, ERR_INTERNAL, "the VMM could not %s the device state",
        q->migration == MIGRATION_FAILED ? "move" : "finish moving");
}
