/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Starting, watching and stopping one VM.
 *
 * Theory of operation: the agent opens all that the VM needs, then starts the shim with one end of
 * a socket pair and sends plan and descriptors over it; nothing else is inherited. The pair stays
 * as the first control connection, and after the start the only thing that arrives on it is the
 * end: a message from the shim when the VMM has ended, end of file when the shim has. So the pair
 * is the event descriptor. The message is only peeked at; it stays until vmm_stop, which
 * acknowledges it and so lets the shim go.
 *
 * The handle knows both processes by pidfd, and waits for their end by that. A shim that is a child
 * of this agent is reaped by vmm_stop; one that was adopted (adopt.c) is not. The VMM is the
 * shim's.
 */
#include "agent/vmm/vmm.h"

#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "agent/vmm/keep.h"
#include "agent/vmm/launch_plan.h"
#include "agent/vmm/qemu_args.h"
#include "agent/vmm/qmp.h"
#include "agent/vmm/shim_link.h"
#include "agent/vmm/vmm_int.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/io.h"
#include "base/sock.h"

enum {
    START_MS = 20000,     /* shim and exec take 20 ms; on a host full of boots a second */
    ABORT_MS = 10000,     /* for what a failed start left to be gone */
    LAST_WORDS_MS = 2000, /* a shim tells the VMM's end at once */
};

/* What a plan carries, until it is sent. */
struct parts {
    int fds[SHIM_FDS_MAX];
    size_t n_fds;                  /* the first SHIM_FD_COUNT are ours, the others the caller's */
    const struct vmm_files *files; /* of the host, or `kept` */
    struct vmm_files *kept;
    struct qemu_args args;
    struct buf plan;
};

static void parts_done(struct parts *p)
{
    for (int i = 0; i < SHIM_FD_COUNT; i++)
        if (p->fds[i] >= 0)
            (void)close(p->fds[i]);
    (void)vmm_files_free(p->kept);
    qemu_args_done(&p->args);
    buf_done(&p->plan);
}

static int open_part(int *ret, const char *what, const char *path, int flags, struct err *e)
{
    *ret = open(path, flags | O_CLOEXEC | O_NOCTTY);
    return *ret < 0 ? err_sys(e, errno, "open %s %s", what, path) : 0;
}

static int open_sockets(struct parts *p, const struct vmm *v, struct err *e)
{
    p->fds[SHIM_FD_LISTEN] = sock_listen_unix(v->socket_path, 0600, e);
    if (p->fds[SHIM_FD_LISTEN] < 0)
        return -1;
    p->fds[SHIM_FD_MONITOR] = sock_listen_unix(v->monitor_path, 0600, e);
    return p->fds[SHIM_FD_MONITOR] < 0 ? -1 : 0;
}

static int open_parts(struct parts *p, const struct vmm_boot *b, struct err *e)
{
    if (open_part(&p->fds[SHIM_FD_CONSOLE_DIR], "console folder", b->console_dir,
            O_RDONLY | O_DIRECTORY, e) < 0 ||
        open_part(&p->fds[SHIM_FD_NETNS], "network namespace", b->netns, O_RDONLY, e) < 0 ||
        open_part(&p->fds[SHIM_FD_OVERLAY], "overlay", b->overlay, O_RDWR | O_NOFOLLOW, e) < 0 ||
        open_part(&p->fds[SHIM_FD_BASE], "base image", b->base_image, O_RDONLY, e) < 0)
        return -1;
    return 0;
}

/* The bytes that an overlay may grow to: its disk's size and an eighth for tables and clusters that
 * are allocated but not used. */
static int overlay_bytes_max(int fd, uint64_t *ret, struct err *e)
{
    struct {
        uint32_t magic;
        uint32_t rest[5];
        uint64_t size;
    } head;
    uint64_t size;
    ssize_t got = pread(fd, &head, sizeof head, 0);
    if (got != (ssize_t)sizeof head || be32toh(head.magic) != 0x514649fb /* "QFI\xfb" */)
        return err_set(e, ERR_INVALID, "the overlay is not a qcow2 file");
    size = be64toh(head.size);
    if (size == 0 || size > INT64_MAX / 2)
        return err_set(e, ERR_INVALID, "the overlay's size is damaged");
    *ret = size + size / 8 + (64u << 20);
    return 0;
}

/* The library is done without: by a machine that was saved without it, or on this host. */
static bool is_copied(const struct vmm_host *h, const struct vmm_boot *b)
{
    return b->source ? b->source->facts->snapshot_format == VMM_SNAPSHOT_FORMAT_COPIED
                     : h->copies_memory;
}

static bool uses_library(const struct vmm_host *h, const struct vmm_boot *b)
{
    return !is_copied(h, b) && (h->library || b->source);
}

/* A machine that was saved goes on under what it ran under. */
static bool uses_kvm(const struct vmm_host *h, const struct vmm_boot *b)
{
    return b->source ? strcmp(b->source->facts->accel, "kvm") == 0 : h->use_kvm;
}

static int build_args(
    const struct vmm_host *h, const struct vmm_boot *b, struct parts *p, struct err *e)
{
    const struct qemu_facts facts = {
        .id = b->id.text,
        .program = p->files->program,
        .bios = p->files->bios,
        .kernel = JAIL_KERNEL,
        .initrd = JAIL_INITRD,
        .use_kvm = uses_kvm(h, b),
        .tsc_khz = h->tsc_khz,
        .vcpus = b->vcpus,
        .memory_mb = b->memory_mb,
        .use_library = uses_library(h, b),
        .is_copied = is_copied(h, b),
        .restores = b->source != NULL,
        .n_layers = (unsigned)b->n_layers,
    };
    return qemu_args_build(&facts, &p->args, e);
}

/* What is copied whole needs none. */
static bool has_hints(const struct vmm_source *s)
{
    return s->hints_fd >= 0 && s->facts->snapshot_format != VMM_SNAPSHOT_FORMAT_COPIED;
}

/* The descriptors behind the fixed ones: frozen layers, then what memory comes from. */
static int add_fds(struct parts *p, const struct vmm_boot *b, struct err *e)
{
    const struct vmm_source *s = b->source;
    if (b->n_layers > SHIM_LAYERS_MAX || (s && s->n_blobs > SHIM_BLOBS_MAX))
        return err_set(e, ERR_TOO_LARGE, "the machine is in too many parts");
    p->n_fds = SHIM_FD_COUNT;
    for (size_t i = 0; i < b->n_layers; i++)
        p->fds[p->n_fds++] = b->layer_fds[i];
    if (!s)
        return 0;
    p->fds[p->n_fds++] = s->map_fd;
    for (size_t i = 0; i < s->n_blobs; i++)
        p->fds[p->n_fds++] = s->blob_fds[i];
    if (has_hints(s))
        p->fds[p->n_fds++] = s->hints_fd;
    return 0;
}

static enum shim_memory memory_mode(const struct vmm_host *h, const struct vmm_boot *b)
{
    if (is_copied(h, b))
        return SHIM_MEMORY_COPIED;
    if (!uses_library(h, b))
        return SHIM_MEMORY_STOCK;
    return b->source && b->source->memory == VMM_MEMORY_UFFD ? SHIM_MEMORY_UFFD
                                                             : SHIM_MEMORY_PRIVATE;
}

static int build_plan(
    struct parts *p, const struct vmm_host *h, const struct vmm_boot *b, struct err *e)
{
    const struct vmm_source *s = b->source;
    enum shim_memory memory = memory_mode(h, b);
    struct launch_plan plan = {
        .id = b->id.text,
        .uid = b->uid,
        .use_kvm = uses_kvm(h, b),
        .argv = p->args.argv,
        .files = p->files,
        .kernel = s ? NULL : b->kernel,
        .initrd = s ? NULL : b->initrd,
        .memory = memory,
        .memory_bytes = memory != SHIM_MEMORY_STOCK ? (uint64_t)b->memory_mb << 20 : 0,
        .n_layers = (uint16_t)b->n_layers,
        .restores = s != NULL,
        .n_blobs = s ? (uint16_t)s->n_blobs : 0,
        .has_hints = s && has_hints(s),
        .old_pagemap = h->old_pagemap,
    };
    if (overlay_bytes_max(p->fds[SHIM_FD_OVERLAY], &plan.fsize_bytes, e) < 0)
        return -1;
    return launch_plan_encode(&plan, &p->plan, e);
}

/* Starts the shim with `peer` as descriptor 3. */
static int spawn_shim(
    struct vmm *v, const struct vmm_host *h, const char *id, int peer, struct err *e)
{
    char *const argv[] = {(char *)"torpor-shim", (char *)id, (char *)h->run_dir, NULL};
    const int fds[] = {-1, -1, -1, [SHIM_PLAN_FD] = peer};
    const struct proc_spawn s = {
        .path = h->shim,
        .argv = argv,
        .fds = fds,
        .n_fds = ARRAY_LEN(fds),
        .new_session = true,
    };
    pid_t pid;
    if (proc_spawn(&s, &pid, e) < 0)
        return -1;
    v->shim.pid = pid;
    return proc_identify(pid, &v->shim, e);
}

static int await_start(struct vmm *v, struct err *e)
{
    struct shim_msg m;
    if (shim_receive(v->link, deadline_in_ms(START_MS), &m, e) < 0)
        return -1;
    if (m.type == SHIM_MSG_FAILED) {
        err_set(e, ERR_INTERNAL, "%s", m.text);
        e->errnum = m.errnum;
        return -1;
    }
    if (m.type != SHIM_MSG_STARTED)
        return err_set(e, ERR_PROTOCOL, "the shim answered with message %u", m.type);
    v->version = m.version;
    v->vmm = (struct proc_id){.pid = (pid_t)m.vmm_pid, .start_ticks = m.vmm_start};
    return 0;
}

/* The VMM may have ended by now. Then there is nothing to open, and the shim will say how. */
int vmm_open_pidfds(struct vmm *v, struct err *e)
{
    v->shim_pidfd = proc_open(&v->shim, e);
    if (v->shim_pidfd < 0)
        return -1;
    v->vmm_pidfd = proc_open(&v->vmm, e);
    return v->vmm_pidfd < 0 && e->kind != ERR_NOT_FOUND ? -1 : 0;
}

static int run_shim(
    struct vmm *v, const struct vmm_host *h, const char *id, const struct parts *p, struct err *e)
{
    int pair[2];
    int rc;
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
        return err_sys(e, errno, "socketpair");
    v->link = pair[0];
    rc = spawn_shim(v, h, id, pair[1], e);
    (void)close(pair[1]);
    if (rc < 0 || sock_send_fds(v->link, p->plan.p, p->plan.len, p->fds, p->n_fds, e) < 0 ||
        await_start(v, e) < 0)
        return -1;
    return vmm_open_pidfds(v, e);
}

/* Undoes a start that failed at any point. The shim is our child and not reaped, so its pid is its
 * own even before it was identified. */
static void abort_start(struct vmm *v)
{
    struct err ignored;
    int rc = 0;
    int status;
    if (v->shim.pid > 0 && v->shim.start_ticks == 0)
        rc = kill(v->shim.pid, SIGKILL);
    else if (v->shim.pid > 0)
        rc = shim_kill_family(&v->shim, deadline_in_ms(ABORT_MS), &ignored);
    if (v->shim.pid > 0 && rc == 0)
        (void)proc_reap(v->shim.pid, &status, &ignored);
    if (v->socket_path[0] != '\0')
        (void)unlink(v->socket_path);
    if (v->monitor_path[0] != '\0')
        (void)unlink(v->monitor_path);
}

int vmm_socket_path(const struct vmm_host *h, const struct sandbox_id *id, const char *suffix,
    char dst[SHIM_PATH_MAX], struct err *e)
{
    char path[SHIM_PATH_MAX];
    if (snprintf(path, sizeof path, "%s/%s%s", h->run_dir, id->text, suffix) >= (int)sizeof path)
        return err_set(e, ERR_INVALID, "the run folder's path is too long: %s", h->run_dir);
    memcpy(dst, path, sizeof path);
    return 0;
}

/* A machine that was saved is run by the files that saved it. */
static int choose_files(
    const struct vmm_host *h, const struct vmm_boot *b, struct parts *p, struct err *e)
{
    p->files = h->files;
    if (!b->source)
        return 0;
    if (strcmp(b->source->facts->digest, h->facts.digest) == 0) {
        if (!h->library && !is_copied(h, b))
            return err_set(e, ERR_UNSUPPORTED, "this host has no torpor-memory.so to restore with");
        return 0;
    }
    p->kept = vmm_files_open_kept(h->keep_dir, b->source->facts->digest, e);
    p->files = p->kept;
    return p->kept ? 0 : -1;
}

/* The paths stand in the handle once their sockets are this start's, so that a failure removes no
 * other's. */
static int take_sockets(struct vmm *v, const struct vmm_host *h, const struct vmm_boot *b,
    struct parts *p, struct err *e)
{
    struct vmm paths;
    if (vmm_socket_path(h, &b->id, VMM_SHIM_SUFFIX, paths.socket_path, e) < 0 ||
        vmm_socket_path(h, &b->id, VMM_MONITOR_SUFFIX, paths.monitor_path, e) < 0 ||
        open_sockets(p, &paths, e) < 0)
        return -1;
    memcpy(v->socket_path, paths.socket_path, sizeof v->socket_path);
    memcpy(v->monitor_path, paths.monitor_path, sizeof v->monitor_path);
    return 0;
}

static int start(struct vmm *v, const struct vmm_host *h, const struct vmm_boot *b, struct err *e)
{
    CLEANUP(parts_done) struct parts p = {.plan = BUF_INIT(SHIM_BODY_MAX + 4096)};
    memset(p.fds, -1, sizeof p.fds);
    if (!h->files)
        return err_set(e, ERR_INTERNAL, "the host has not been probed");
    if (choose_files(h, b, &p, e) < 0 || build_args(h, b, &p, e) < 0 || open_parts(&p, b, e) < 0 ||
        add_fds(&p, b, e) < 0 || take_sockets(v, h, b, &p, e) < 0 || build_plan(&p, h, b, e) < 0)
        return -1;
    v->can_save = is_copied(h, b) || uses_library(h, b);
    v->is_copied = is_copied(h, b);
    return run_shim(v, h, b->id.text, &p, e);
}

struct vmm *vmm_new_handle(struct err *e)
{
    struct vmm *v = calloc(1, sizeof *v);
    if (!v) {
        err_sys(e, ENOMEM, "handle of a VM");
        return NULL;
    }
    v->link = v->shim_pidfd = v->vmm_pidfd = -1;
    return v;
}

struct vmm *vmm_start(const struct vmm_host *host, const struct vmm_boot *boot, struct err *e)
{
    struct vmm *v = vmm_new_handle(e);
    if (!v)
        return NULL;
    if (start(v, host, boot, e) < 0) {
        abort_start(v);
        err_wrap(e, "start VM");
        return vmm_free(v);
    }
    return v;
}

struct vmm *vmm_free(struct vmm *v)
{
    if (!v)
        return NULL;
    v->qmp = qmp_close(v->qmp);
    cleanup_close_(&v->link);
    cleanup_close_(&v->shim_pidfd);
    cleanup_close_(&v->vmm_pidfd);
    free(v);
    return NULL;
}

int vmm_event_fd(const struct vmm *v)
{
    return v->link;
}

pid_t vmm_pid(const struct vmm *v)
{
    return v->vmm.pid;
}

pid_t vmm_shim_pid(const struct vmm *v)
{
    return v->shim.pid;
}

int32_t vmm_snapshot_format(const struct vmm *v)
{
    return v->is_copied ? VMM_SNAPSHOT_FORMAT_COPIED : VMM_SNAPSHOT_FORMAT;
}

/* How the shim ended, without reaping it. It may not be our child. */
static void describe_shim_end(struct vmm *v)
{
    siginfo_t info = {0};
    const char *how = "shim ended";
    if (waitid(P_PIDFD, (id_t)v->shim_pidfd, &info, WEXITED | WNOHANG | WNOWAIT) == 0 &&
        info.si_pid != 0 && info.si_code != CLD_EXITED)
        how = sigabbrev_np(info.si_status);
    if (strcmp(how, "shim ended") == 0)
        (void)snprintf(v->exit_text, sizeof v->exit_text, "shim ended and qemu with it");
    else
        (void)snprintf(
            v->exit_text, sizeof v->exit_text, "shim killed by SIG%s and qemu with it", how);
}

const char *vmm_exit_text(struct vmm *v)
{
    struct shim_msg m;
    struct err e = {0};
    if (v->exit_text[0] != '\0')
        return v->exit_text;
    if (shim_peek(v->link, &m, &e) == 0 && m.ended)
        shim_format_exit(&m, v->exit_text, sizeof v->exit_text);
    else if (e.kind == ERR_UNAVAILABLE)
        describe_shim_end(v);
    return v->exit_text[0] != '\0' ? v->exit_text : "running";
}

/* Lets the shim go that has told how the VMM ended; one that does not go is killed. */
static int end_shim(struct vmm *v, int64_t deadline, struct err *e)
{
    struct err why = {0};
    struct shim_msg m;
    int64_t patience = deadline_in_ms(LAST_WORDS_MS);
    if (patience > deadline)
        patience = deadline;
    if (io_wait(v->link, POLLIN, patience, &why) > 0)
        (void)vmm_exit_text(v);
    if (shim_receive(v->link, patience, &m, &why) == 0 &&
        shim_send(v->link, v->version, SHIM_MSG_ACK, patience, &why) == 0 &&
        proc_wait_gone(v->shim_pidfd, patience, &why) == 0)
        return 0;
    return shim_kill(-1, v->shim_pidfd, deadline, e);
}

/* A shim that another agent started is not our child: init reaps it. */
static int reap_shim(const struct vmm *v, struct err *e)
{
    siginfo_t info;
    if (waitid(P_PIDFD, (id_t)v->shim_pidfd, &info, WEXITED | WNOHANG) < 0 && errno != ECHILD)
        return err_sys(e, errno, "reap the shim");
    return 0;
}

void vmm_kill(const struct vmm *v)
{
    struct err ignored;
    if (v->vmm_pidfd >= 0)
        (void)proc_signal(v->vmm_pidfd, SIGKILL, &ignored);
}

int vmm_stop(struct vmm *v, int64_t deadline, struct err *e)
{
    if (v->stopped)
        return 0;
    if (shim_kill(v->vmm_pidfd, -1, deadline, e) < 0)
        return -1;
    if (end_shim(v, deadline, e) < 0 || reap_shim(v, e) < 0)
        return -1;
    if (unlink(v->socket_path) < 0 && errno != ENOENT)
        return err_sys(e, errno, "remove %s", v->socket_path);
    if (unlink(v->monitor_path) < 0 && errno != ENOENT)
        return err_sys(e, errno, "remove %s", v->monitor_path);
    v->stopped = true;
    return 0;
}
