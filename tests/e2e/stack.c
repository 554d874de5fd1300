/* SPDX-License-Identifier: Apache-2.0 */
/* Starting and stopping a whole Torpor, and what it leaves on the host. */
#include "stack.h"

#include <dirent.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/io.h"
#include "base/proc.h"

enum { READY_MS = 60000, END_MS = 60000, CONTROL_UID = 0x6fffffff /* of no instance */ };

static const char *data_folder(void)
{
    const char *v = getenv("TORPOR_TEST_DATA");
    return v && v[0] ? v : TEST_DATA_DEFAULT;
}

const char *stack_unavailable(void)
{
    char path[512];
    if (geteuid() != 0)
        return "needs root: namespaces, links, nftables";
    (void)snprintf(path, sizeof path, "%s/kernels/current/vmlinux", data_folder());
    if (access(path, R_OK) < 0)
        return "no guest kernel and image: make them with `make test-data`";
    return NULL;
}

static void link_into(const struct stack *s, const char *name)
{
    char from[512];
    char to[160];
    (void)snprintf(from, sizeof from, "%s/%s", data_folder(), name);
    (void)snprintf(to, sizeof to, "%s/%s", s->dir, name);
    assert_int_equal(symlink(from, to), 0);
}

static void show_log(const struct stack *s, const char *name)
{
    char path[160];
    AUTO_BUF struct buf text = BUF_INIT(1 << 20);
    struct err e = {0};
    (void)snprintf(path, sizeof path, "%s/%s.log", s->root, name);
    if (io_read_file(AT_FDCWD, path, &text, &e) == 0 && text.len > 0)
        print_message("# %s:\n%.*s\n", name, (int)text.len, text.p);
}

/* Starts a program with descriptor 3 for its readiness; returns the line that it wrote there. */
static void start_program(const struct stack *s, const char *name, const char *const *argv,
    char *const *envp, pid_t *ret_pid, struct buf *ret_line)
{
    char path[160];
    int pipe_fds[2];
    AUTO_CLOSE int log = -1;
    struct err e = {0};
    int64_t deadline = deadline_in_ms(READY_MS);
    (void)snprintf(path, sizeof path, "%s/%s.log", s->root, name);
    log = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
    assert_true(log >= 0);
    assert_int_equal(pipe2(pipe_fds, O_CLOEXEC), 0);
    if (proc_spawn(&(struct proc_spawn){.path = argv[0],
                       .argv = (char *const *)(uintptr_t)argv,
                       .envp = envp,
                       .fds = (const int[]){-1, log, log, pipe_fds[1]},
                       .n_fds = 4},
            ret_pid, &e) < 0)
        fail_msg("%s", e.msg);
    (void)close(pipe_fds[1]);
    for (;;) {
        char chunk[256];
        ssize_t n = io_read(pipe_fds[0], chunk, sizeof chunk, deadline, &e);
        if (n <= 0)
            break;
        buf_append(ret_line, chunk, (size_t)n);
    }
    (void)close(pipe_fds[0]);
    if (ret_line->len == 0) {
        show_log(s, name);
        fail_msg("%s did not become ready", name);
    }
}

static char *setting(const char *name, const char *value)
{
    size_t n = strlen(name) + strlen(value) + 2;
    char *p = malloc(n);
    assert_non_null(p);
    (void)snprintf(p, n, "%s=%s", name, value);
    return p;
}

static void free_all(char **list)
{
    for (; *list; list++)
        free(*list);
}

enum { AGENT_SETTINGS = 16 };

static void agent_settings(const struct stack *s, char *ret[AGENT_SETTINGS])
{
    char uid[16];
    (void)snprintf(uid, sizeof uid, "%u", (unsigned)s->control_uid);
    memset(ret, 0, AGENT_SETTINGS * sizeof *ret);
    ret[0] = setting("TORPOR_DIR", s->dir);
    ret[1] = setting("TORPOR_CONTROL_UID", uid);
    ret[2] = setting("TORPOR_SHIM", s->shim ? s->shim : SHIM_PROGRAM);
    ret[3] = setting("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
    ret[4] = setting("ASAN_OPTIONS", "detect_leaks=1");
    ret[5] = setting("UBSAN_OPTIONS", "halt_on_error=1:print_stacktrace=1");
    ret[6] = setting("TORPOR_SLOTS", s->slots ? s->slots : "");
    ret[7] = setting("TORPOR_MEMORY_MB", s->memory_mb ? s->memory_mb : "");
    ret[8] = setting("TORPOR_CRASH", s->crash ? s->crash : "");
    ret[10] = setting("TORPOR_MEMORY_LIBRARY", s->library ? s->library : MEMORY_LIBRARY);
    ret[11] = setting("TORPOR_MEMORY", s->memory ? s->memory : "");
    ret[12] = setting("TORPOR_WARM", s->warm ? "on" : "off");
    ret[13] = setting("TORPOR_PAGEMAP", s->pagemap ? s->pagemap : "");
    ret[9] = setting("TORPOR_VCPUS_PER_CORE", s->vcpus_per_core ? s->vcpus_per_core : "");
}

#define INSTALLED_QEMU "/usr/bin/qemu-system-x86_64"

/* In a mount namespace of its own, where another file is in the place of the installed QEMU. Mounts
 * that are shared, those of network namespaces, stay shared. */
static const char hide_qemu[] =
    "mount --make-private / && mount --bind \"$0\" " INSTALLED_QEMU " && exec \"$@\"";

/* The agent's own VMs are gone, so that what follows has the host to itself. */
static void await_trial(const struct stack *s)
{
    char path[128];
    char events[4096];
    struct err e = {0};
    int64_t deadline = deadline_in_ms(READY_MS);
    AUTO_CLOSE int watch = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
    (void)snprintf(path, sizeof path, "%s/memory.json", s->dir);
    assert_true(inotify_add_watch(watch, s->dir, IN_MOVED_TO) >= 0);
    while (access(path, F_OK) < 0) {
        if (io_wait(watch, POLLIN, deadline, &e) <= 0)
            fail_msg("the agent does not end its trial");
        (void)!read(watch, events, sizeof events);
    }
}

void stack_start_agent(struct stack *s)
{
    const char *const argv_hidden[] = {"/usr/bin/unshare", "--mount", "--propagation", "unchanged",
        "/bin/sh", "-c", hide_qemu, s->qemu, s->program ? s->program : AGENT_PROGRAM, "--ready-fd",
        "3", NULL};
    const char *const *argv = argv_hidden + (s->qemu ? 0 : 8);
    char *envp[AGENT_SETTINGS];
    AUTO_BUF struct buf line = BUF_INIT(4096);
    agent_settings(s, envp);
    start_program(s, "agent", argv, envp, &s->agent, &line);
    free_all(envp);
    if (sscanf(line.p, "ready instance=%u socket=%127s", &s->instance, s->agent_socket) != 2)
        fail_msg("agent said: %s", line.p);
    await_trial(s);
}

/* The agent's program with another argument, or with none (NULL). Returns its pid. */
static pid_t run_agent(const struct stack *s, const char *argument)
{
    const char *const argv[] = {s->program ? s->program : AGENT_PROGRAM, argument, NULL};
    char *envp[AGENT_SETTINGS];
    char path[160];
    struct err e = {0};
    pid_t pid = 0;
    AUTO_CLOSE int log = -1;
    (void)snprintf(path, sizeof path, "%s/agent.log", s->root);
    log = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
    agent_settings(s, envp);
    if (proc_spawn(&(struct proc_spawn){.path = argv[0],
                       .argv = (char *const *)(uintptr_t)argv,
                       .envp = envp,
                       .fds = (const int[]){-1, log, log},
                       .n_fds = 3},
            &pid, &e) < 0)
        fail_msg("%s", e.msg);
    free_all(envp);
    return pid;
}

void stack_begin_agent(struct stack *s)
{
    s->agent = run_agent(s, /* argument= */ NULL);
}

int stack_drain(struct stack *s)
{
    struct err e = {0};
    int status = -1;
    if (proc_reap(run_agent(s, "--drain"), &status, &e) < 0)
        fail_msg("%s", e.msg);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

void stack_stop_all(struct stack *s)
{
    struct err e = {0};
    int status = -1;
    s->crash = NULL;
    if (proc_reap(run_agent(s, "--stop-all"), &status, &e) < 0)
        fail_msg("%s", e.msg);
    if (status != 0)
        show_log(s, "agent");
    assert_int_equal(status, 0);
}

/* The control plane's program where its uid can reach it. */
static void copy_control(const struct stack *s)
{
    char to[160];
    AUTO_BUF struct buf program = BUF_INIT(256u << 20);
    struct err e = {0};
    (void)snprintf(to, sizeof to, "%s/torpor-control", s->root);
    if (io_read_file(AT_FDCWD, CONTROL_PROGRAM, &program, &e) < 0 ||
        io_replace_file(AT_FDCWD, to, program.p, program.len, 0755, &e) < 0)
        fail_msg("%s", e.msg);
}

static void read_key(struct stack *s)
{
    char path[160];
    AUTO_BUF struct buf key = BUF_INIT(sizeof s->key - 1);
    struct err e = {0};
    (void)snprintf(path, sizeof path, "%s/control/api-key", s->root);
    if (io_read_file(AT_FDCWD, path, &key, &e) < 0)
        fail_msg("%s", e.msg);
    (void)snprintf(s->key, sizeof s->key, "%.*s", (int)strcspn(key.p, "\n"), key.p);
}

void stack_start_control(struct stack *s)
{
    char uid[16];
    char program[160];
    char dir[160];
    char listen[64];
    const char *const argv[] = {"/usr/bin/setpriv", "--reuid", uid, "--regid", uid,
        "--clear-groups", "--no-new-privs", program, "--ready-fd", "3", NULL};
    char *envp[8] = {0};
    AUTO_BUF struct buf line = BUF_INIT(4096);
    (void)snprintf(uid, sizeof uid, "%u", (unsigned)s->control_uid);
    (void)snprintf(program, sizeof program, "%s/torpor-control", s->root);
    (void)snprintf(dir, sizeof dir, "%s/control", s->root);
    (void)snprintf(listen, sizeof listen, "127.0.0.1:%d", s->port);
    envp[0] = setting("TORPOR_DIR", dir);
    envp[1] = setting("TORPOR_LISTEN", listen);
    envp[2] = setting("TORPOR_AGENT_SOCKET", s->agent_socket);
    envp[3] = setting("ASAN_OPTIONS", "detect_leaks=1");
    envp[4] = setting("UBSAN_OPTIONS", "halt_on_error=1:print_stacktrace=1");
    start_program(s, "control", argv, envp, &s->control, &line);
    free_all(envp);
    if (sscanf(line.p, "ready url=http://127.0.0.1:%d", &s->port) != 1)
        fail_msg("control said: %s", line.p);
    read_key(s);
}

void stack_start(struct stack *s)
{
    char control_dir[160];
    *s = (struct stack){.control_uid = CONTROL_UID, .slots = s->slots};
    (void)snprintf(s->root, sizeof s->root, "/tmp/torpor-e2e-XXXXXX");
    assert_non_null(mkdtemp(s->root));
    assert_int_equal(chmod(s->root, 0711), 0);
    (void)snprintf(s->dir, sizeof s->dir, "%s/data", s->root);
    (void)snprintf(s->run_base, sizeof s->run_base, "/run/torpor");
    assert_int_equal(mkdir(s->dir, 0755), 0);
    link_into(s, "kernels");
    link_into(s, "images");
    (void)snprintf(control_dir, sizeof control_dir, "%s/control", s->root);
    assert_int_equal(mkdir(control_dir, 0700), 0);
    assert_int_equal(chown(control_dir, s->control_uid, s->control_uid), 0);
    copy_control(s);
    stack_start_agent(s);
    stack_start_control(s);
}

void stack_show_logs(const struct stack *s)
{
    show_log(s, "agent");
    show_log(s, "control");
}

int stack_end(pid_t *pid, int sig)
{
    struct proc_id id;
    struct err e = {0};
    int status = -1;
    AUTO_CLOSE int fd = -1;
    if (*pid <= 0)
        return 0;
    if (proc_identify(*pid, &id, &e) < 0 || (fd = proc_open(&id, &e)) < 0)
        fail_msg("%s", e.msg);
    assert_int_equal(proc_signal(fd, sig, &e), 0);
    if (proc_wait_gone(fd, deadline_in_ms(END_MS), &e) < 0)
        fail_msg("pid %d does not end: %s", (int)*pid, e.msg);
    assert_int_equal(proc_reap(*pid, &status, &e), 0);
    *pid = 0;
    return status;
}

void stack_stop(struct stack *s)
{
    struct err e = {0};
    int control = stack_end(&s->control, SIGTERM);
    int agent = stack_end(&s->agent, SIGTERM);
    if (control != 0)
        show_log(s, "control");
    if (agent != 0)
        show_log(s, "agent");
    assert_int_equal(control, 0);
    assert_int_equal(agent, 0);
    stack_stop_all(s);
    assert_int_equal(io_remove_tree(AT_FDCWD, s->root, &e), 0);
}

/* --- the host --- */

static int compare_text(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* Appends the names in a folder that start with `prefix`, sorted. */
static void list_names(const char *folder, const char *prefix, struct buf *ret)
{
    static char *names[4096]; /* one thread lists */
    size_t n = 0;
    DIR *d = opendir(folder);
    struct dirent *ent;
    while (d && (ent = readdir(d)))
        if (strncmp(ent->d_name, prefix, strlen(prefix)) == 0 && ent->d_name[0] != '.' &&
            n < ARRAY_LEN(names))
            names[n++] = strdup(ent->d_name);
    if (d)
        (void)closedir(d);
    qsort(names, n, sizeof *names, compare_text);
    for (size_t i = 0; i < n; i++) {
        buf_printf(ret, "%s/%s\n", folder, names[i]);
        free(names[i]);
    }
}

/* Calls `each` with the pid and command line (NULs as blanks) of every process. */
static void each_process(void (*each)(void *ctx, pid_t pid, const char *line), void *ctx)
{
    DIR *d = opendir("/proc");
    struct dirent *ent;
    while (d && (ent = readdir(d))) {
        AUTO_BUF struct buf line = BUF_INIT(1 << 20);
        char path[300];
        struct err e = {0};
        pid_t pid = (pid_t)strtol(ent->d_name, NULL, 10);
        (void)snprintf(path, sizeof path, "/proc/%s/cmdline", ent->d_name);
        if (pid <= 0 || io_read_file(AT_FDCWD, path, &line, &e) < 0 || line.len == 0)
            continue;
        for (size_t i = 0; i + 1 < line.len; i++)
            if (line.p[i] == '\0')
                line.p[i] = ' ';
        each(ctx, pid, line.p);
    }
    if (d)
        (void)closedir(d);
}

struct vmm_search {
    const char *id;
    pid_t pid;
};

static void match_vmm(void *ctx, pid_t pid, const char *line)
{
    struct vmm_search *s = ctx;
    if (strncmp(line, "/usr/bin/qemu-system", 20) == 0 && strstr(line, s->id))
        s->pid = pid;
}

pid_t find_vmm(const char *id)
{
    struct vmm_search s = {.id = id};
    each_process(match_vmm, &s);
    return s.pid;
}

pid_t parent_of(pid_t pid)
{
    char path[64];
    AUTO_BUF struct buf text = BUF_INIT(1 << 16);
    struct err e = {0};
    const char *p;
    (void)snprintf(path, sizeof path, "/proc/%d/status", (int)pid);
    if (io_read_file(AT_FDCWD, path, &text, &e) < 0 || !(p = strstr(text.p, "PPid:")))
        return 0;
    return (pid_t)strtol(p + 5, NULL, 10);
}

struct process_list {
    unsigned instance;
    struct buf *out;
};

static void list_process(void *ctx, pid_t pid, const char *line)
{
    struct process_list *l = ctx;
    char path[64];
    struct stat st;
    uid_t first = 0x70000000 + l->instance * 4096;
    char shim_end[32];
    (void)snprintf(shim_end, sizeof shim_end, "/run/torpor/%u", l->instance);
    (void)snprintf(path, sizeof path, "/proc/%d", (int)pid);
    if (stat(path, &st) < 0)
        return;
    if ((st.st_uid >= first && st.st_uid < first + 4096) ||
        (strncmp(line, "torpor-shim ", 12) == 0 && strstr(line, shim_end)))
        buf_printf(l->out, "process %.120s\n", line);
}

void host_capture(const char *const *argv, struct buf *ret)
{
    int fds[2];
    pid_t pid;
    int status;
    struct err e = {0};
    assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
    if (proc_spawn(&(struct proc_spawn){.path = argv[0],
                       .argv = (char *const *)(uintptr_t)argv,
                       .fds = (const int[]){-1, fds[1], -1},
                       .n_fds = 3},
            &pid, &e) < 0)
        fail_msg("%s", e.msg);
    (void)close(fds[1]);
    for (;;) {
        char chunk[4096];
        ssize_t n = io_read(fds[0], chunk, sizeof chunk, deadline_in_ms(10000), &e);
        if (n <= 0)
            break;
        buf_append(ret, chunk, (size_t)n);
    }
    (void)close(fds[0]);
    assert_int_equal(proc_reap(pid, &status, &e), 0);
}

void host_picture(const struct stack *s, struct buf *ret)
{
    char prefix[16];
    char run[128];
    char folder[160];
    AUTO_BUF struct buf tables = BUF_INIT(1 << 20);
    struct process_list processes = {.instance = s->instance, .out = ret};
    const char *const nft[] = {"/usr/sbin/nft", "list", "tables", NULL};
    (void)snprintf(prefix, sizeof prefix, "tp%u-", s->instance);
    list_names("/sys/class/net", prefix, ret);
    list_names("/run/netns", prefix, ret);
    (void)snprintf(run, sizeof run, "%s/%u", s->run_base, s->instance);
    list_names(run, "", ret);
    (void)snprintf(folder, sizeof folder, "%s/sandboxes", s->dir);
    list_names(folder, "", ret);
    each_process(list_process, &processes);
    host_capture(nft, &tables);
    (void)snprintf(prefix, sizeof prefix, " tp%u", s->instance);
    for (char *line = tables.p ? strtok(tables.p, "\n") : NULL; line; line = strtok(NULL, "\n"))
        if (strstr(line, prefix))
            buf_printf(ret, "nft %s\n", line);
}

#define INTERNET_NETNS "torpor-e2e-net"
#define INTERNET_LINK "e2e-internet"

#define IP(...)                                                                                    \
    do {                                                                                           \
        const char *const argv_[] = {"/usr/sbin/ip", __VA_ARGS__, NULL};                           \
        AUTO_BUF struct buf out_ = BUF_INIT(1 << 16);                                              \
        host_capture(argv_, &out_);                                                                \
    } while (0)

/* As an uplink of the host has it. */
static void let_answers_in(void)
{
    AUTO_CLOSE int fd =
        open("/proc/sys/net/ipv4/conf/" INTERNET_LINK "/forwarding", O_WRONLY | O_CLOEXEC);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, "1", 1), 1);
}

void internet_init(const char *address)
{
    internet_done();
    IP("netns", "add", INTERNET_NETNS);
    IP("link", "add", INTERNET_LINK, "type", "veth", "peer", "name", "eth0", "netns",
        INTERNET_NETNS);
    IP("addr", "add", "198.51.100.1/32", "dev", INTERNET_LINK);
    IP("link", "set", INTERNET_LINK, "up");
    IP("-n", INTERNET_NETNS, "link", "set", "eth0", "up");
    IP("-n", INTERNET_NETNS, "addr", "add", address, "dev", "eth0");
    IP("-n", INTERNET_NETNS, "route", "add", "default", "dev", "eth0");
    IP("route", "add", address, "dev", INTERNET_LINK, "src", "198.51.100.1");
    let_answers_in();
}

void internet_done(void)
{
    IP("netns", "del", INTERNET_NETNS);
    IP("link", "del", INTERNET_LINK);
}

int internet_listen(unsigned port)
{
    const struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    AUTO_CLOSE int home = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);
    AUTO_CLOSE int away = open("/run/netns/" INTERNET_NETNS, O_RDONLY | O_CLOEXEC);
    int fd;
    assert_true(home >= 0 && away >= 0);
    assert_int_equal(setns(away, CLONE_NEWNET), 0);
    fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(setns(home, CLONE_NEWNET), 0);
    assert_int_equal(bind(fd, (const struct sockaddr *)&a, sizeof a), 0);
    assert_int_equal(listen(fd, 8), 0);
    return fd;
}
