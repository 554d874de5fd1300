/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The shim's loop.
 *
 * Theory of operation: one poll set: the VMM's pidfd, its serial port and its output, the listening
 * socket, and at most CONNS_MAX control connections, of which the one that the launch came over is
 * the first. Nothing here blocks: what the VMM says is read as it comes, so the VMM never waits for
 * a reader; replies that a peer does not take cost it the connection.
 *
 * When the VMM has ended, its last output is read, every connection is told, and the state is kept
 * until an agent acknowledges it. A restarted agent finds it by connecting. Without any connection
 * for ORPHAN_MS after the VMM's end the shim ends too.
 *
 * The end of an agent ends nothing, and the signals that stop services are ignored (main.c): only
 * KILL, an acknowledged end, or SIGKILL from root do.
 */
#include "shim/serve.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/io.h"
#include "base/sock.h"
#include "shim/console.h"

enum {
    CONNS_MAX = 8,
    ORPHAN_MS = 10 * 60 * 1000,
    CHUNK_BYTES = 4096,
    DRAIN_CHUNKS_MAX = 64, /* of a dead VMM's last words: more than a pipe and a socket hold */
};

struct conn {
    int fd; /* -1: free */
    size_t got;
    struct shim_msg msg;
};

struct server {
    struct proc_id shim;
    struct launched vmm;
    const char *id;
    int listen_fd;
    int64_t started_ms;
    bool ended;
    bool acknowledged;
    int wait_status;
    int64_t orphan_deadline;
    struct console console;
    struct last_line words;
    struct conn conns[CONNS_MAX];
};

static void fill_message(const struct server *s, enum shim_msg_type type, struct shim_msg *m)
{
    const char *text = last_line_get(&s->words);
    *m = (struct shim_msg){
        .magic = SHIM_MSG_MAGIC,
        .version = SHIM_VERSION,
        .type = (uint16_t)type,
        .shim_pid = (uint32_t)s->shim.pid,
        .vmm_pid = (uint32_t)s->vmm.vmm.pid,
        .shim_start = s->shim.start_ticks,
        .vmm_start = s->vmm.vmm.start_ticks,
        .uptime_ms = (uint64_t)(clock_mono_ms() - s->started_ms),
        .wait_status = s->wait_status,
        .ended = s->ended,
    };
    memcpy(m->id, s->id, strnlen(s->id, sizeof m->id - 1));
    memcpy(m->text, text, strnlen(text, sizeof m->text - 1));
}

static void conn_close(struct conn *c)
{
    if (c->fd >= 0)
        (void)close(c->fd);
    c->fd = -1;
    c->got = 0;
}

/* A peer that leaves no room for a message of 512 bytes is not reading: it is dropped. */
static void conn_send(const struct server *s, struct conn *c, enum shim_msg_type type)
{
    struct shim_msg m;
    fill_message(s, type, &m);
    if (send(c->fd, &m, sizeof m, MSG_NOSIGNAL | MSG_DONTWAIT) != (ssize_t)sizeof m)
        conn_close(c);
}

static void handle_request(struct server *s, struct conn *c)
{
    struct err ignored;
    const struct shim_msg *m = &c->msg;
    if (m->magic != SHIM_MSG_MAGIC) {
        conn_close(c);
        return;
    }
    if (m->version != SHIM_VERSION) {
        conn_send(s, c, SHIM_MSG_REFUSED);
        return;
    }
    switch (m->type) {
    case SHIM_MSG_KILL:
        (void)proc_signal(s->vmm.pidfd, SIGKILL, &ignored);
        conn_send(s, c, SHIM_MSG_STATE);
        break;
    case SHIM_MSG_HELLO:
    case SHIM_MSG_STATUS:
        conn_send(s, c, SHIM_MSG_STATE);
        break;
    case SHIM_MSG_ACK:
        s->acknowledged = s->ended;
        if (!s->ended)
            conn_send(s, c, SHIM_MSG_REFUSED);
        break;
    default:
        conn_send(s, c, SHIM_MSG_REFUSED);
    }
}

/* Reads at most one message, so that no peer keeps the loop for itself. */
static void conn_read(struct server *s, struct conn *c)
{
    char *dst = (char *)&c->msg;
    ssize_t got = recv(c->fd, dst + c->got, sizeof c->msg - c->got, MSG_DONTWAIT);
    if (got < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (got <= 0) {
        conn_close(c);
        return;
    }
    c->got += (size_t)got;
    if (c->got == sizeof c->msg) {
        c->got = 0;
        handle_request(s, c);
    }
}

static struct conn *free_conn(struct server *s)
{
    for (int i = 0; i < CONNS_MAX; i++)
        if (s->conns[i].fd < 0)
            return &s->conns[i];
    return NULL;
}

static void accept_conn(struct server *s)
{
    struct err ignored;
    struct sock_peer peer;
    struct conn *c = free_conn(s);
    AUTO_CLOSE int fd = accept4(s->listen_fd, NULL, NULL, SOCK_CLOEXEC);
    if (fd < 0 || !c || sock_peer_get(fd, &peer, &ignored) < 0 || peer.uid != 0)
        return;
    *c = (struct conn){.fd = TAKE_FD(fd)};
}

/* Copies one chunk to the console log. False at the end of the stream, or when it is empty. */
static bool copy_output(struct server *s, int *fd, struct last_line *words)
{
    char chunk[CHUNK_BYTES];
    ssize_t got = read(*fd, chunk, sizeof chunk);
    if (got > 0) {
        console_write(&s->console, chunk, (size_t)got);
        if (words)
            last_line_feed(words, chunk, (size_t)got);
        return true;
    }
    if (got < 0 && (errno == EAGAIN || errno == EINTR))
        return false;
    (void)close(*fd);
    *fd = -1;
    return false;
}

static void drain(struct server *s, int *fd, struct last_line *words)
{
    for (int i = 0; i < DRAIN_CHUNKS_MAX && *fd >= 0; i++)
        if (!copy_output(s, fd, words))
            return;
}

static void vmm_ended(struct server *s)
{
    int status = 0;
    if (waitpid(s->vmm.vmm.pid, &status, WNOHANG) == 0)
        return;
    s->wait_status = status;
    s->ended = true;
    drain(s, &s->vmm.output_fd, &s->words);
    drain(s, &s->vmm.serial_fd, /* words= */ NULL);
    for (int i = 0; i < CONNS_MAX; i++)
        if (s->conns[i].fd >= 0)
            conn_send(s, &s->conns[i], SHIM_MSG_EXITED);
}

/* The time that the loop may wait: for ever, but for an end that nobody asks about. */
static int wait_ms(struct server *s)
{
    bool watched = !s->ended;
    for (int i = 0; i < CONNS_MAX; i++)
        watched |= s->conns[i].fd >= 0;
    if (watched)
        s->orphan_deadline = DEADLINE_NEVER;
    else if (s->orphan_deadline == DEADLINE_NEVER)
        s->orphan_deadline = deadline_in_ms(ORPHAN_MS);
    return deadline_poll_ms(s->orphan_deadline);
}

enum {
    SLOT_VMM,
    SLOT_OUTPUT,
    SLOT_SERIAL,
    SLOT_LISTEN,
    SLOT_CONNS,
    SLOT_COUNT = SLOT_CONNS + CONNS_MAX
};

static void fill_slots(const struct server *s, struct pollfd *slots)
{
    slots[SLOT_VMM] = (struct pollfd){.fd = s->ended ? -1 : s->vmm.pidfd, .events = POLLIN};
    slots[SLOT_OUTPUT] = (struct pollfd){.fd = s->vmm.output_fd, .events = POLLIN};
    slots[SLOT_SERIAL] = (struct pollfd){.fd = s->vmm.serial_fd, .events = POLLIN};
    slots[SLOT_LISTEN] = (struct pollfd){.fd = s->listen_fd, .events = POLLIN};
    for (int i = 0; i < CONNS_MAX; i++)
        slots[SLOT_CONNS + i] = (struct pollfd){.fd = s->conns[i].fd, .events = POLLIN};
}

static void handle_slots(struct server *s, const struct pollfd *slots)
{
    if (slots[SLOT_OUTPUT].revents)
        (void)copy_output(s, &s->vmm.output_fd, &s->words);
    if (slots[SLOT_SERIAL].revents)
        (void)copy_output(s, &s->vmm.serial_fd, /* words= */ NULL);
    if (slots[SLOT_VMM].revents)
        vmm_ended(s);
    for (int i = 0; i < CONNS_MAX; i++)
        if (slots[SLOT_CONNS + i].revents && s->conns[i].fd >= 0)
            conn_read(s, &s->conns[i]);
    if (slots[SLOT_LISTEN].revents)
        accept_conn(s);
}

static int loop(struct server *s, struct err *e)
{
    struct pollfd slots[SLOT_COUNT];
    while (!s->acknowledged) {
        int ready;
        int timeout_ms = wait_ms(s);
        fill_slots(s, slots);
        ready = poll(slots, SLOT_COUNT, timeout_ms);
        if (ready < 0 && errno != EINTR)
            return err_sys(e, errno, "poll");
        if (ready == 0)
            return 0;
        if (ready > 0)
            handle_slots(s, slots);
    }
    return 0;
}

int serve(const struct serve_params *params, struct err *e)
{
    struct server s = {
        .vmm = params->vmm,
        .id = params->id,
        .listen_fd = params->listen_fd,
        .started_ms = clock_mono_ms(),
        .orphan_deadline = DEADLINE_NEVER,
    };
    for (int i = 0; i < CONNS_MAX; i++)
        s.conns[i].fd = -1;
    s.conns[0].fd = params->agent_fd;
    if (proc_identify(getpid(), &s.shim, e) < 0 ||
        console_open(&s.console, params->console_dir, e) < 0 ||
        io_set_nonblock(s.listen_fd, /* on= */ 1, e) < 0)
        return -1;
    conn_send(&s, &s.conns[0], SHIM_MSG_STARTED);
    return loop(&s, e);
}

void serve_report_failure(int agent_fd, const char *id, const struct err *why)
{
    struct err ignored;
    struct shim_msg m = {
        .magic = SHIM_MSG_MAGIC,
        .version = SHIM_VERSION,
        .type = SHIM_MSG_FAILED,
        .shim_pid = (uint32_t)getpid(),
        .errnum = why->errnum,
    };
    memcpy(m.id, id, strnlen(id, sizeof m.id - 1));
    memcpy(m.text, why->msg, strnlen(why->msg, sizeof m.text - 1));
    (void)io_write_full(agent_fd, &m, sizeof m, DEADLINE_NEVER, &ignored);
}
