/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Raw machines.
 *
 * Theory of operation: the monitor listens on a socket of ours, which QEMU inherits, so a
 * connection can be begun at once and nobody polls. Threads enter a slot's namespace for the moment
 * in which they start QEMU or connect to its guest. The device state goes through a descriptor
 * ("fd:"), as QEMU 7.2 cannot open a file for it.
 */
#include "bench_sleep.h"
#include "bench_sleep_raw.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "agent/disk/disk.h"
#include "agent/vmm/files.h"
#include "agent/vmm/qmp.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/io.h"
#include "base/proc.h"
#include "base/sock.h"
#include "by_hand.h"
#include "http/client.h"
#include "proto/limits.h"
#include "rpc/agent_v1.h"

enum {
    RAW_MS = 60000,
    CONNECT_MS = 500, /* a request that came too early for the TAP is lost */
    PATH_BYTES = 192,
    BUFFER_BYTES = 1 << 20,
    FIRST_FREE_FD = 3,
    EXEC_ARGS_MAX = 8,
};

static struct {
    const struct stack *stack;
    const struct by_hand_parts *parts;
    char dir[PATH_BYTES / 2];
    int dir_fd;
    int host_netns;
    int netns[RAW_SLOTS];
    pid_t running[RAW_SLOTS]; /* 0: none */
} raw;

static void die(const char *what, const struct err *e)
{
    (void)fprintf(stderr, "bench: raw machine: %s: %s\n", what, e->msg);
    raw_done();
    if (raw.stack) {
        struct stack copy = *raw.stack;
        stack_stop(&copy);
    }
    exit(1);
}

static void die_errno(const char *what)
{
    struct err e = {0};
    (void)err_sys(&e, errno, "%s", what);
    die(what, &e);
}

static void path_of(char dst[PATH_BYTES], const char *name, const char *what)
{
    (void)snprintf(dst, PATH_BYTES, "%s/%s.%s", raw.dir, name, what);
}

/* --- namespaces --- */

static void ip(const char *const *argv)
{
    struct err e = {0};
    pid_t pid;
    int status;
    if (proc_spawn(&(struct proc_spawn){.path = argv[0],
                       .argv = (char *const *)(uintptr_t)argv,
                       .fds = (const int[]){-1, 1, 2},
                       .n_fds = 3},
            &pid, &e) < 0 ||
        proc_reap(pid, &status, &e) < 0)
        die(argv[0], &e);
}

#define IP(...) ip((const char *const[]){"/usr/sbin/ip", __VA_ARGS__, NULL})

static void netns_name(unsigned slot, char dst[32])
{
    (void)snprintf(dst, 32, "tpraw-%d-%u", (int)getpid(), slot);
}

static void netns_make(unsigned slot)
{
    char name[32];
    char path[64];
    netns_name(slot, name);
    IP("netns", "add", name);
    IP("-n", name, "tuntap", "add", "dev", GUEST_TAP, "mode", "tap");
    IP("-n", name, "link", "set", GUEST_TAP, "address", GUEST_HOST_MAC);
    IP("-n", name, "addr", "add", GUEST_GATEWAY "/30", "dev", GUEST_TAP);
    IP("-n", name, "link", "set", GUEST_TAP, "up");
    IP("-n", name, "neigh", "add", GUEST_ADDRESS, "lladdr", GUEST_MAC, "dev", GUEST_TAP);
    (void)snprintf(path, sizeof path, "/run/netns/%s", name);
    raw.netns[slot] = open(path, O_RDONLY | O_CLOEXEC);
    if (raw.netns[slot] < 0)
        die_errno(path);
}

static void enter(unsigned slot)
{
    if (setns(raw.netns[slot], CLONE_NEWNET) < 0)
        die_errno("enter a namespace");
}

static void leave(void)
{
    if (setns(raw.host_netns, CLONE_NEWNET) < 0)
        die_errno("leave a namespace");
}

/* --- start and end --- */

void raw_init(const struct stack *s)
{
    raw.stack = s;
    raw.parts = by_hand_parts(s);
    (void)snprintf(raw.dir, sizeof raw.dir, "%s/raw", s->root);
    if (mkdir(raw.dir, 0700) < 0 ||
        (raw.dir_fd = open(raw.dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC)) < 0 ||
        (raw.host_netns = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC)) < 0)
        die_errno(raw.dir);
    for (unsigned i = 0; i < RAW_SLOTS; i++)
        netns_make(i);
}

void raw_done(void)
{
    struct err ignored;
    if (raw.dir_fd <= 0)
        return;
    for (unsigned i = 0; i < RAW_SLOTS; i++) {
        char name[32];
        int status;
        if (raw.running[i] > 0) {
            (void)kill(raw.running[i], SIGKILL);
            (void)waitpid(raw.running[i], &status, 0);
        }
        raw.running[i] = 0;
        if (raw.netns[i] <= 0)
            continue;
        (void)close(raw.netns[i]);
        raw.netns[i] = 0;
        netns_name(i, name);
        IP("netns", "del", name);
    }
    (void)close(raw.dir_fd);
    (void)close(raw.host_netns);
    raw.dir_fd = 0;
    (void)io_remove_tree(AT_FDCWD, raw.dir, &ignored);
}

/* The socket at which QEMU's monitor will listen. */
static int monitor_listen(unsigned slot, struct sockaddr_un *ret)
{
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    *ret = (struct sockaddr_un){.sun_family = AF_UNIX};
    (void)snprintf(ret->sun_path, sizeof ret->sun_path, "%s/monitor-%u", raw.dir, slot);
    (void)unlink(ret->sun_path);
    if (fd < 0 || bind(fd, (struct sockaddr *)ret, sizeof *ret) < 0 || listen(fd, 1) < 0)
        die_errno("monitor");
    return fd;
}

static void add(struct qemu_args *a, const char *option, const char *value)
{
    if (a->n + 2 > SHIM_ARGS_MAX) {
        errno = E2BIG;
        die_errno("arguments");
    }
    a->argv[a->n++] = option;
    a->argv[a->n++] = value;
}

/* Starts QEMU in the slot's namespace and takes its greeting. */
static void start(struct qemu_args *args, struct raw_machine *m)
{
    struct sockaddr_un at;
    AUTO_CLOSE int listener = monitor_listen(m->slot, &at);
    AUTO_CLOSE int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    struct proc_id id;
    struct err e = {0};
    add(args, "-chardev", "socket,id=monitor,fd=3,server=on,wait=off");
    add(args, "-mon", "chardev=monitor,mode=control");
    enter(m->slot);
    if (proc_spawn(&(struct proc_spawn){.path = args->argv[0],
                       .argv = (char *const *)(uintptr_t)args->argv,
                       .fds = (const int[]){null, null, 2, listener},
                       .n_fds = FIRST_FREE_FD + 1},
            &m->pid, &e) < 0)
        die("start QEMU", &e);
    leave();
    raw.running[m->slot] = m->pid;
    m->guest = guest_new(GUEST_ADDRESS, m->image->token);
    if (!m->guest || proc_identify(m->pid, &id, &e) < 0 || (m->pidfd = proc_open(&id, &e)) < 0 ||
        !(m->monitor = qmp_open(at.sun_path, deadline_in_ms(RAW_MS), &e)))
        die("monitor", &e);
}

void raw_end(struct raw_machine *m)
{
    int status;
    m->monitor = qmp_close(m->monitor);
    (void)kill(m->pid, SIGKILL);
    (void)waitpid(m->pid, &status, 0);
    raw.running[m->slot] = 0;
    m->guest = guest_free(m->guest);
    (void)close(m->pidfd);
}

/* --- commands --- */

static void command(struct raw_machine *m, const char *name, const char *arguments, int fd)
{
    const struct qmp_command c = {.name = name, .arguments = arguments, .fd = fd};
    struct err e = {0};
    if (qmp_execute(m->monitor, &c, NULL, deadline_in_ms(RAW_MS), &e) < 0)
        die(name, &e);
}

static void await_status(struct raw_machine *m, const char *wanted)
{
    const struct qmp_command c = {.name = "query-status", .fd = -1};
    const struct json_value *answer;
    struct err e = {0};
    do
        if (qmp_execute(m->monitor, &c, &answer, deadline_in_ms(RAW_MS), &e) < 0)
            die("query-status", &e);
    while (!slice_is(json_get(answer, "status")->string, wanted));
}

/* One migration of the device state, out or in. */
static void migrate(struct raw_machine *m, const char *how, int state_fd)
{
    struct err e = {0};
    command(m, "migrate-set-capabilities",
        "{\"capabilities\":[{\"capability\":\"x-ignore-shared\",\"state\":true},"
        "{\"capability\":\"events\",\"state\":true}]}",
        -1);
    qmp_migration_begin(m->monitor);
    command(m, "getfd", "{\"fdname\":\"state\"}", state_fd);
    command(m, how, "{\"uri\":\"fd:state\"}", -1);
    if (qmp_migration_wait(m->monitor, deadline_in_ms(RAW_MS), &e) < 0)
        die(how, &e);
}

/* --- images --- */

static void overlay_make(const char *path)
{
    struct err e = {0};
    const char *name = strrchr(path, '/') + 1;
    if (disk_overlay_remove(raw.dir_fd, name, &e) < 0 ||
        disk_overlay_create(raw.dir_fd, name, raw.parts->disk_bytes, 0, &e) < 0)
        die("overlay", &e);
}

static void build_args(
    const struct raw_image *image, bool restores, struct qemu_by_hand *hand, struct qemu_args *ret)
{
    struct qemu_facts facts = raw.parts->facts;
    struct err e = {0};
    hand->base = raw.parts->image;
    hand->tap = GUEST_TAP;
    hand->memory_private = restores;
    facts.vcpus = 1;
    facts.memory_mb = image->memory_mb;
    facts.restores = restores;
    facts.n_layers = restores ? 1 : 0;
    facts.by_hand = hand;
    if (qemu_args_build(&facts, ret, &e) < 0)
        die("arguments", &e);
}

static void sync_file(const char *path)
{
    AUTO_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || fsync(fd) < 0)
        die_errno(path);
}

static void boot(struct raw_machine *m)
{
    const struct guest_identity identity = {
        .sandbox_id = "by-hand", .template = "minimal", .default_user = "root"};
    struct err e = {0};
    enter(m->slot);
    if (guest_wait_ready(m->guest, m->pidfd, deadline_in_ms(RAW_MS), &e) < 0 ||
        guest_init(m->guest, &identity, deadline_in_ms(RAW_MS), &e) < 0)
        die("boot", &e);
    leave();
    raw_exec(m, (const char *const[]){"true", NULL});
}

void raw_image_make(struct raw_image *ret, const char *name, uint32_t memory_mb)
{
    char memory[PATH_BYTES];
    char layer[PATH_BYTES];
    char state[PATH_BYTES];
    struct qemu_by_hand hand = {.overlay = layer, .memory_file = memory};
    struct raw_machine m = {.image = ret};
    struct qemu_args args;
    AUTO_CLOSE int state_fd = -1;
    *ret = (struct raw_image){.name = name, .memory_mb = memory_mb};
    memset(ret->token, 'a', GUEST_TOKEN_CHARS);
    path_of(memory, name, "memory");
    path_of(layer, name, "layer");
    path_of(state, name, "state");
    overlay_make(layer);
    build_args(ret, /* restores= */ false, &hand, &args);
    start(&args, &m);
    qemu_args_done(&args);
    boot(&m);
    command(&m, "stop", NULL, -1);
    state_fd = open(state, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (state_fd < 0)
        die_errno(state);
    migrate(&m, "migrate", state_fd);
    await_status(&m, "postmigrate");
    raw_end(&m);
    sync_file(memory);
    sync_file(layer);
    sync_file(state);
}

void raw_image_cool(const struct raw_image *image)
{
    static const char *const of[] = {"memory", "layer", "state"};
    char path[PATH_BYTES];
    for (size_t i = 0; i < ARRAY_LEN(of); i++) {
        path_of(path, image->name, of[i]);
        cool_tree(path);
    }
    cool_tree(raw.parts->image);
    for (size_t i = 0; i < raw.parts->files->n; i++)
        cool_tree(raw.parts->files->items[i].source);
}

/* --- restore --- */

void raw_restore(const struct raw_image *image, unsigned slot, struct raw_machine *ret)
{
    char memory[PATH_BYTES];
    char layer[PATH_BYTES];
    char state[PATH_BYTES];
    char overlay[PATH_BYTES];
    char name[32];
    const char *const layers[] = {layer};
    struct qemu_by_hand hand = {.overlay = overlay, .memory_file = memory, .layers = layers};
    struct qemu_args args;
    AUTO_CLOSE int state_fd = -1;
    *ret = (struct raw_machine){.image = image, .slot = slot};
    (void)snprintf(name, sizeof name, "slot-%u", slot);
    path_of(memory, image->name, "memory");
    path_of(layer, image->name, "layer");
    path_of(state, image->name, "state");
    path_of(overlay, name, "overlay");
    overlay_make(overlay);
    build_args(image, /* restores= */ true, &hand, &args);
    start(&args, ret);
    qemu_args_done(&args);
    state_fd = open(state, O_RDONLY | O_CLOEXEC);
    if (state_fd < 0)
        die_errno(state);
    migrate(ret, "migrate-incoming", state_fd);
    await_status(ret, "paused");
    command(ret, "cont", NULL, -1);
}

/* One attempt. */
static bool answers(int64_t deadline)
{
    struct err e = {0};
    const struct http_response_head *head;
    int fd = sock_connect_tcp(GUEST_ADDRESS, GUEST_ENVD_PORT, deadline_in_ms(CONNECT_MS), &e);
    struct http_conn *c = fd < 0 ? NULL : http_conn_new(fd, &e);
    bool well = c &&
                http_send(c,
                    &(struct http_call){.method = "GET",
                        .target = "/health",
                        .host = "guest",
                        .body_length = HTTP_BODY_IS_SLICE},
                    deadline, &e) == 0 &&
                http_recv_head(c, &head, deadline, &e) == 0;
    (void)http_conn_free(c);
    return well;
}

void raw_await(struct raw_machine *m)
{
    int64_t deadline = deadline_in_ms(RAW_MS);
    struct err e = {0};
    enter(m->slot);
    while (!answers(deadline))
        if (clock_mono_ms() >= deadline) {
            (void)err_set(&e, ERR_TIMEOUT, "no answer");
            die("restore", &e);
        }
    leave();
}

void raw_exec(struct raw_machine *m, const char *const *argv)
{
    struct slice args[EXEC_ARGS_MAX];
    struct agent_exec_request req = {.cmd = slice_cstr(argv[0]), .timeout_sec = RAW_MS / 1000};
    struct agent_exec_response resp = {0};
    AUTO_BUF struct buf out = BUF_INIT(1 << 16);
    AUTO_BUF struct buf text = BUF_INIT(1 << 16);
    struct err e = {0};
    for (req.args.items = args; argv[1 + req.args.n] && req.args.n < EXEC_ARGS_MAX; req.args.n++)
        args[req.args.n] = slice_cstr(argv[1 + req.args.n]);
    enter(m->slot);
    if (guest_exec(m->guest, &req, &out, &text, &resp, &e) < 0)
        die(argv[0], &e);
    leave();
    if (resp.exit_code != 0) {
        (void)err_set(&e, ERR_INTERNAL, "exit %d: %.*s", resp.exit_code, (int)resp.stderr_bytes.n,
            resp.stderr_bytes.p);
        die(argv[0], &e);
    }
}

/* --- save --- */

/* Where the memory file is mapped. */
static void find_memory(const struct raw_machine *m, uint64_t *ret_start, uint64_t *ret_end)
{
    char path[64];
    char memory[PATH_BYTES];
    AUTO_BUF struct buf maps = BUF_INIT(4 << 20);
    struct err e = {0};
    char *at;
    (void)snprintf(path, sizeof path, "/proc/%d/maps", (int)m->pid);
    path_of(memory, m->image->name, "memory");
    if (io_read_file(AT_FDCWD, path, &maps, &e) < 0)
        die(path, &e);
    at = maps.p ? strstr(maps.p, memory) : NULL;
    while (at && at > maps.p && at[-1] != '\n')
        at--;
    if (!at || sscanf(at, "%lx-%lx", ret_start, ret_end) != 2) {
        (void)err_set(&e, ERR_NOT_FOUND, "the memory is not mapped");
        die(path, &e);
    }
}

struct writer {
    int memory_fd;
    int out_fd;
    uint64_t bytes;
    struct {
        uint64_t start, end;
    } runs[1 << 16];
    size_t n;
};

static void note_run(void *ctx, uint64_t start, uint64_t end)
{
    struct writer *w = ctx;
    if (w->n < ARRAY_LEN(w->runs)) {
        w->runs[w->n].start = start;
        w->runs[w->n].end = end;
        w->n++;
    }
}

static void write_runs(struct writer *w)
{
    static char buffer[BUFFER_BYTES];
    for (size_t i = 0; i < w->n; i++)
        for (uint64_t at = w->runs[i].start; at < w->runs[i].end;) {
            size_t left = w->runs[i].end - at;
            ssize_t n =
                pread(w->memory_fd, buffer, left < sizeof buffer ? left : sizeof buffer, (off_t)at);
            if (n <= 0 || write(w->out_fd, buffer, (size_t)n) != n)
                die_errno("write memory");
            at += (uint64_t)n;
            w->bytes += (uint64_t)n;
        }
}

static int64_t lap(int64_t *last)
{
    int64_t now = clock_mono_us();
    int64_t took = now - *last;
    *last = now;
    return took;
}

void raw_save(struct raw_machine *m, bool durable, struct raw_saved *ret)
{
    static struct writer w;
    char pages[PATH_BYTES];
    char state[PATH_BYTES];
    char arguments[PATH_BYTES + 64];
    uint64_t start;
    uint64_t end;
    int64_t last;
    w.n = 0;
    w.bytes = 0;
    path_of(pages, "saved", "pages");
    path_of(state, "saved", "state");
    (void)unlink(pages);
    (void)unlink(state);
    (void)snprintf(arguments, sizeof arguments, "{\"filename\":\"%s\",\"live\":false}", state);
    last = clock_mono_us();
    command(m, "stop", NULL, -1);
    ret->stop_us = lap(&last);
    command(m, "xen-save-devices-state", arguments, -1);
    ret->state_us = lap(&last);
    find_memory(m, &start, &end);
    if (!scan_written(m->pid, start, end, note_run, &w))
        die_errno("PAGEMAP_SCAN");
    ret->scan_us = lap(&last);
    (void)snprintf(arguments, sizeof arguments, "/proc/%d/mem", (int)m->pid);
    w.memory_fd = open(arguments, O_RDONLY | O_CLOEXEC);
    w.out_fd = open(pages, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (w.memory_fd < 0 || w.out_fd < 0)
        die_errno("write memory");
    write_runs(&w);
    ret->write_us = lap(&last);
    if (durable && (fsync(w.out_fd) < 0))
        die_errno("fsync");
    if (durable)
        sync_file(state);
    ret->sync_us = lap(&last);
    ret->bytes = w.bytes;
    (void)close(w.memory_fd);
    (void)close(w.out_fd);
}

void raw_continue(struct raw_machine *m)
{
    command(m, "cont", NULL, -1);
}
