/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The shim's loop.
 *
 * Theory of operation: one poll set: the VMM's pidfd, its serial port and its output, the listening
 * socket, and at most CONNS_MAX control connections, of which the one that the launch came over is
 * the first; and of the VM's memory the socket for the handshake or the userfaultfd. Page faults
 * come before all else, and are served while memory is saved too. A page that cannot be served, or
 * a handshake that does not come, ends the VMM with a reason. Nothing here blocks: what the VMM
 * says is read as it comes, so the VMM never waits for a reader; replies that a peer does not take
 * cost it the connection.
 *
 * One connection has control, at first the launch's; another gets it as proto/shim.h says. The
 * process at the other end is known by a pidfd that was opened while the connection stood, and
 * asked only whether it has ended.
 *
 * When the VMM has ended, its last output is read, every connection is told, and the state is kept
 * until an agent acknowledges it. A restarted agent finds it by connecting. Without any connection
 * for ORPHAN_MS after the VMM's end the shim ends too.
 *
 * The end of an agent ends nothing once it has been told that the VMM runs, and the signals that
 * stop services are ignored (main.c): only KILL, an acknowledged end, or SIGKILL from root do.
 */
#include "shim/serve.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/io.h"
#include "base/sock.h"
#include "shim/console.h"
#include "shim/self_filter.h"
#include "shim/serve_int.h"

enum {
    BACKLOG = 64,
    ORPHAN_MS = 10 * 60 * 1000,
    CHUNK_BYTES = 4096,
    DRAIN_CHUNKS_MAX = 64, /* of a dead VMM's last words: more than a pipe and a socket hold */
};

static const struct conn free_slot = {.fd = -1, .peer_fd = -1, .fds = {-1, -1, -1}};

static struct conn *controller(struct server *s)
{
    for (int i = 0; i < CONNS_MAX; i++)
        if (s->conns[i].fd >= 0 && s->conns[i].has_control)
            return &s->conns[i];
    return NULL;
}

static void fill_message(struct server *s, enum shim_msg_type type, struct shim_msg *m)
{
    const char *text = s->memory_error.msg[0] ? s->memory_error.msg : last_line_get(&s->words);
    *m = (struct shim_msg){
        .magic = SHIM_MSG_MAGIC,
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

static void fill_version_2(struct server *s, enum shim_refusal why, struct shim_msg *m)
{
    const struct conn *c = controller(s);
    m->version_min = SHIM_VERSION_MIN;
    m->version_max = SHIM_VERSION;
    m->flags = s->memory->kind == SHIM_MEMORY_COPIED ? SHIM_STATE_COPIED : 0;
    m->refusal = why;
    m->controller_pid = c ? (uint32_t)c->peer_pid : 0;
}

static void fill_version_3(struct server *s, const struct reply *r, struct shim_msg *m)
{
    const struct save_numbers *n = r->numbers;
    m->faults = s->memory->n_faults;
    m->pages_ahead = s->memory->n_ahead;
    if (n) {
        m->pages_stored = n->pages_stored;
        m->pages_zero = n->pages_zero;
        m->pages_referred = n->pages_referred;
        m->scan_us = n->scan_us;
        m->write_us = n->write_us;
        m->map_entries = n->map_entries;
        m->map_blobs = n->map_blobs;
    }
    if (r->error) {
        m->errnum = r->error->errnum;
        memset(m->text, 0, sizeof m->text);
        memcpy(m->text, r->error->msg, strnlen(r->error->msg, sizeof m->text - 1));
    }
}

static void close_fds(struct conn *c)
{
    for (int i = 0; i < SAVE_FDS; i++)
        if (c->fds[i] >= 0)
            (void)close(TAKE_FD(c->fds[i]));
    c->n_fds = 0;
}

static void conn_close(struct conn *c)
{
    close_fds(c);
    if (c->fd >= 0)
        (void)close(c->fd);
    if (c->peer_fd >= 0)
        (void)close(c->peer_fd);
    *c = free_slot;
}

/* A peer that leaves no room for a message of 512 bytes is not reading. */
void conn_reply(struct server *s, struct conn *c, const struct reply *r)
{
    struct shim_msg m;
    ssize_t n = (ssize_t)shim_msg_bytes(c->version);
    fill_message(s, r->type, &m);
    m.version = c->version;
    if (c->version >= 2)
        fill_version_2(s, r->why, &m);
    if (c->version >= 3)
        fill_version_3(s, r, &m);
    if (send(c->fd, &m, (size_t)n, MSG_NOSIGNAL | MSG_DONTWAIT) != n)
        conn_close(c);
}

void conn_send(struct server *s, struct conn *c, enum shim_msg_type type)
{
    conn_reply(s, c, &(struct reply){.type = type});
}

void conn_refuse(struct server *s, struct conn *c, enum shim_refusal why)
{
    conn_reply(s, c, &(struct reply){.type = SHIM_MSG_REFUSED, .why = why});
}

bool conn_is_closed(const struct conn *c)
{
    struct pollfd p = {.fd = c->fd, .events = POLLRDHUP};
    return poll(&p, 1, 0) > 0 && (p.revents & (POLLRDHUP | POLLHUP | POLLERR));
}

static bool peer_has_ended(const struct conn *c)
{
    struct pollfd p = {.fd = c->peer_fd, .events = POLLIN};
    return c->peer_fd >= 0 && poll(&p, 1, 0) > 0;
}

static void give_control(struct conn *c)
{
    struct err ignored;
    struct sock_peer peer;
    c->has_control = true;
    if (sock_peer_get(c->fd, &peer, &ignored) < 0 || peer.pid <= 0)
        return;
    c->peer_pid = peer.pid;
    c->peer_fd = (int)syscall(SYS_pidfd_open, peer.pid, 0);
}

static bool take_control(struct server *s, struct conn *c, uint32_t flags)
{
    struct conn *old = controller(s);
    if (old == c)
        return true;
    if (old && !conn_is_closed(old) && !((flags & SHIM_HELLO_TAKEOVER) && peer_has_ended(old)))
        return false;
    if (old)
        conn_close(old);
    give_control(c);
    return true;
}

/* The newest version that both speak, 0 when there is none. Version 1 named none. */
static uint16_t agree_version(const struct shim_msg *m)
{
    uint16_t max = m->version_max > 0 ? m->version_max : 1;
    uint16_t version = max < SHIM_VERSION ? max : SHIM_VERSION;
    return version >= SHIM_VERSION_MIN && version >= m->version_min ? version : 0;
}

static void handle_hello(struct server *s, struct conn *c)
{
    uint16_t version = agree_version(&c->msg);
    if (version == 0) {
        conn_refuse(s, c, SHIM_REFUSAL_VERSION);
        return;
    }
    c->version = version;
    if ((c->msg.flags & SHIM_HELLO_CONTROL) && !take_control(s, c, c->msg.flags))
        conn_refuse(s, c, SHIM_REFUSAL_CONTROLLED);
    else
        conn_send(s, c, SHIM_MSG_STATE);
}

static void handle_kill(struct server *s, struct conn *c)
{
    struct err ignored;
    if (!c->has_control) {
        conn_refuse(s, c, SHIM_REFUSAL_NO_CONTROL);
        return;
    }
    (void)proc_signal(s->vmm.pidfd, SIGKILL, &ignored);
    conn_send(s, c, SHIM_MSG_STATE);
}

static void handle_ack(struct server *s, struct conn *c)
{
    if (!c->has_control)
        conn_refuse(s, c, SHIM_REFUSAL_NO_CONTROL);
    else if (!s->ended)
        conn_refuse(s, c, SHIM_REFUSAL_RUNNING);
    else
        s->acknowledged = true;
}

static void handle_request(struct server *s, struct conn *c)
{
    const struct shim_msg *m = &c->msg;
    if (m->magic != SHIM_MSG_MAGIC) {
        conn_close(c);
        return;
    }
    if (m->type == SHIM_MSG_HELLO) {
        handle_hello(s, c);
        return;
    }
    if (m->version != c->version) {
        conn_refuse(s, c, SHIM_REFUSAL_VERSION);
        return;
    }
    switch (m->type) {
    case SHIM_MSG_KILL:
        handle_kill(s, c);
        break;
    case SHIM_MSG_STATUS:
        conn_send(s, c, SHIM_MSG_STATE);
        break;
    case SHIM_MSG_ACK:
        handle_ack(s, c);
        break;
    case SHIM_MSG_SAVE:
    case SHIM_MSG_COMMIT:
    case SHIM_MSG_CANCEL:
    case SHIM_MSG_HINTS:
    case SHIM_MSG_FILL:
        serve_memory_request(s, c);
        break;
    default:
        conn_refuse(s, c, SHIM_REFUSAL_TYPE);
    }
}

/* Reads at most one message, so that no peer keeps the loop for itself. */
static void conn_read(struct server *s, struct conn *c)
{
    struct err e = {0};
    char *dst = (char *)&c->msg;
    size_t n = 0;
    ssize_t got = sock_recv_fds(c->fd, dst + c->got, sizeof c->msg - c->got, c->fds + c->n_fds,
        SAVE_FDS - c->n_fds, &n, &e);
    if (got < 0 && (e.errnum == EAGAIN || e.errnum == EINTR))
        return;
    if (got <= 0) {
        conn_close(c);
        return;
    }
    c->n_fds += n;
    c->got += (size_t)got;
    if (c->got == sizeof c->msg) {
        c->got = 0;
        handle_request(s, c);
        close_fds(c);
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
    *c = free_slot;
    c->version = SHIM_VERSION;
    c->fd = TAKE_FD(fd);
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
    if (s->handshake_deadline < s->orphan_deadline)
        return deadline_poll_ms(s->handshake_deadline);
    return deadline_poll_ms(s->orphan_deadline);
}

enum {
    SLOT_MEMORY,
    SLOT_VMM,
    SLOT_OUTPUT,
    SLOT_SERIAL,
    SLOT_LISTEN,
    SLOT_CONNS,
    SLOT_COUNT = SLOT_CONNS + CONNS_MAX
};

static void fill_slots(const struct server *s, struct pollfd *slots)
{
    slots[SLOT_MEMORY] = (struct pollfd){.fd = serve_memory_fd(s), .events = POLLIN};
    slots[SLOT_VMM] = (struct pollfd){.fd = s->ended ? -1 : s->vmm.pidfd, .events = POLLIN};
    slots[SLOT_OUTPUT] = (struct pollfd){.fd = s->vmm.output_fd, .events = POLLIN};
    slots[SLOT_SERIAL] = (struct pollfd){.fd = s->vmm.serial_fd, .events = POLLIN};
    slots[SLOT_LISTEN] = (struct pollfd){.fd = s->listen_fd, .events = POLLIN};
    for (int i = 0; i < CONNS_MAX; i++)
        slots[SLOT_CONNS + i] = (struct pollfd){.fd = s->conns[i].fd, .events = POLLIN};
}

static void handle_slots(struct server *s, const struct pollfd *slots)
{
    if (slots[SLOT_MEMORY].revents)
        serve_memory(s);
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
        int timeout_ms = serve_memory_deadline(s) ? 0 : wait_ms(s);
        fill_slots(s, slots);
        ready = poll(slots, SLOT_COUNT, timeout_ms);
        if (ready < 0 && errno != EINTR)
            return err_sys(e, errno, "poll");
        if (ready == 0 && deadline_poll_ms(s->orphan_deadline) == 0)
            return 0;
        if (ready > 0)
            handle_slots(s, slots);
    }
    return 0;
}

/* Listening again makes the socket ours: who connects sees this process at the other end. */
static int prepare_listener(int fd, struct err *e)
{
    if (listen(fd, BACKLOG) < 0)
        return err_sys(e, errno, "listen");
    return io_set_nonblock(fd, /* on= */ 1, e);
}

int serve(const struct serve_params *params, struct err *e)
{
    struct server s = {
        .vmm = params->vmm,
        .memory = params->memory,
        .id = params->id,
        .listen_fd = params->listen_fd,
        .started_ms = clock_mono_ms(),
        .orphan_deadline = DEADLINE_NEVER,
        .handshake_deadline = deadline_in_ms(SERVE_HANDSHAKE_MS),
    };
    for (int i = 0; i < CONNS_MAX; i++)
        s.conns[i] = free_slot;
    s.conns[0].fd = params->agent_fd;
    s.conns[0].version = SHIM_VERSION;
    give_control(&s.conns[0]);
    if (proc_identify(getpid(), &s.shim, e) < 0 ||
        console_open(&s.console, params->console_dir, e) < 0 ||
        prepare_listener(s.listen_fd, e) < 0 || self_filter_install(e) < 0)
        return -1;
    conn_send(&s, &s.conns[0], SHIM_MSG_STARTED);
    if (s.conns[0].fd < 0)
        return err_set(e, ERR_CANCELED, "the agent has ended before its VM was started");
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
