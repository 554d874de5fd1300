/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Starting and stopping agent and control plane.
 *
 * A daemon gets a session of its own, its log as both outputs, the readiness pipe as descriptor 3
 * and a clean environment: our settings, PATH and LANG. It is noted as soon as it exists, so that a
 * later `down` finds it whatever happens to us.
 */
#include "cli/daemon.h"

#include <errno.h>
#include <fcntl.h>
#include <pwd.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/io.h"

enum {
    ENV_MAX = 64,
    LOG_TAIL_LINES = 15,
    LOG_TAIL_BYTES = 8 * 1024,
    READY_FD = 3,
    STOP_ALL_MS = 180000,
    KILL_MS = 10000,
    ENV_FILE_MAX = 64 * 1024,
};
#define SETPRIV "/usr/bin/setpriv"
#define SETPRIV_ARGS "--clear-groups", "--no-new-privs", "--inh-caps=-all", "--bounding-set=-all"

void host_say(struct host_run *r, const char *fmt, ...)
{
    va_list ap;
    (void)fprintf(r->cli->out, "%s: ", r->verb);
    va_start(ap, fmt);
    (void)vfprintf(r->cli->out, fmt, ap);
    va_end(ap);
    (void)fprintf(r->cli->out, "\n");
    (void)fflush(r->cli->out);
}

/* --- logs --- */

static const char *last_lines(const char *text, size_t n, int lines)
{
    const char *p = text + n;
    if (p > text && p[-1] == '\n')
        p--;
    while (p > text)
        if (*--p == '\n' && --lines == 0)
            return p + 1;
    return text;
}

void daemon_show_log(struct host_run *r, const char *name)
{
    char path[PATH_MAX];
    char text[LOG_TAIL_BYTES + 1];
    off_t size;
    ssize_t n;
    AUTO_CLOSE int fd = -1;
    (void)snprintf(path, sizeof path, "%s/log/%s.log", r->home.home, name);
    fd = open(path, O_RDONLY | O_CLOEXEC);
    size = fd < 0 ? 0 : lseek(fd, 0, SEEK_END);
    n = fd < 0 ? 0
               : pread(fd, text, LOG_TAIL_BYTES, size > LOG_TAIL_BYTES ? size - LOG_TAIL_BYTES : 0);
    text[n > 0 ? n : 0] = '\0';
    (void)fflush(r->cli->out);
    (void)fprintf(r->cli->err, "The end of %s:\n", path);
    for (const char *p = last_lines(text, strlen(text), LOG_TAIL_LINES); *p;) {
        size_t len = strcspn(p, "\n");
        (void)fprintf(r->cli->err, "    %.*s\n", (int)len, p);
        p += len + (p[len] == '\n');
    }
}

/* --- environments --- */

/* A list of NAME=value, NULL at its end. */
struct env_list {
    char *list[ENV_MAX + 1];
    size_t n;
};

static void env_done(struct env_list *v)
{
    for (size_t i = 0; i < v->n; i++)
        free(v->list[i]);
}
#define AUTO_ENV __attribute__((cleanup(env_done)))

__attribute__((format(printf, 2, 3))) static void env_add(struct env_list *v, const char *fmt, ...)
{
    char *text;
    va_list ap;
    va_start(ap, fmt);
    if (v->n < ENV_MAX && vasprintf(&text, fmt, ap) >= 0)
        v->list[v->n++] = text;
    va_end(ap);
}

/* Ours that are not for the daemons, or that we set ourselves. */
static bool is_handed_on(const char *text)
{
    static const char *const not [] = {"TORPOR_URL=", "TORPOR_API_KEY=", "TORPOR_PROGRAMS=",
        "TORPOR_USER=", "TORPOR_DIR=", "TORPOR_CONTROL_UID=", "TORPOR_SHIM="};
    if (strncmp(text, "TORPOR_", 7) != 0)
        return false;
    for (size_t i = 0; i < ARRAY_LEN(not ); i++)
        if (strncmp(text, not [i], strlen(not [i])) == 0)
            return false;
    return true;
}

static void env_common(struct env_list *v, const char *but)
{
    env_add(v, "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
    env_add(v, "LANG=C.UTF-8");
    for (char **p = environ; *p; p++)
        if (is_handed_on(*p) && (!but || strncmp(*p, but, strlen(but)) != 0))
            env_add(v, "%s", *p);
}

static int agent_env(struct host_run *r, struct env_list *v, struct err *e)
{
    const struct passwd *user = getpwnam(r->user);
    if (!user)
        return err_set(e, ERR_NOT_FOUND, "there is no user %s", r->user);
    env_common(v, NULL);
    env_add(v, "TORPOR_DIR=%s", r->home.data);
    env_add(v, "TORPOR_CONTROL_UID=%u", (unsigned)user->pw_uid);
    env_add(v, "TORPOR_SHIM=%s/bin/torpor-shim", r->home.data);
    return 0;
}

/* run/agent.env: what the agent was started with, one setting a line. */
static int keep_agent_env(struct host_run *r, const struct env_list *v, struct err *e)
{
    AUTO_BUF struct buf text = BUF_INIT(ENV_FILE_MAX);
    AUTO_CLOSE int run = openat(r->home.fd, "run", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    for (size_t i = 0; i < v->n; i++)
        buf_printf(&text, "%s\n", v->list[i]);
    if (run < 0)
        return err_sys(e, errno, "%s/run", r->home.home);
    return io_replace_file(run, "agent.env", text.p, text.len, 0600, e);
}

static int kept_agent_env(struct host_run *r, struct env_list *v, struct err *e)
{
    AUTO_BUF struct buf text = BUF_INIT(ENV_FILE_MAX);
    struct err none = {0};
    if (io_read_file(r->home.fd, "run/agent.env", &text, &none) < 0)
        return agent_env(r, v, e);
    for (char *p = text.p; p && *p;) {
        size_t n = strcspn(p, "\n");
        env_add(v, "%.*s", (int)n, p);
        p += n + (p[n] == '\n');
    }
    return 0;
}

/* --- starting --- */

struct daemon {
    const char *name;
    const char *const *argv;
    char *const *envp;
};

/* Reads the line "ready ..." that comes when it serves. */
static int await_ready(int fd, char *dst, size_t dst_size, struct err *e)
{
    int64_t deadline = deadline_in_ms(DAEMON_READY_MS);
    size_t n = 0;
    while (n + 1 < dst_size) {
        ssize_t got = io_read(fd, dst + n, dst_size - 1 - n, deadline, e);
        if (got < 0 && e->kind == ERR_TIMEOUT)
            return err_set(e, ERR_TIMEOUT, "it was not ready in %d s", DAEMON_READY_MS / 1000);
        if (got <= 0)
            return got < 0 ? -1 : err_set(e, ERR_INTERNAL, "it ended at once");
        n += (size_t)got;
        dst[n] = '\0';
        if (strchr(dst, '\n'))
            break;
    }
    dst[strcspn(dst, "\n")] = '\0';
    if (strncmp(dst, "ready ", 6) != 0)
        return err_set(e, ERR_PROTOCOL, "it said '%.80s' instead of being ready", dst);
    memmove(dst, dst + 6, strlen(dst + 6) + 1);
    return 0;
}

static int spawn_daemon(
    struct host_run *r, const struct daemon *d, pid_t *ret_pid, int *ret_fd, struct err *e)
{
    char path[PATH_MAX];
    AUTO_CLOSE int log = -1;
    AUTO_CLOSE int writer = -1;
    AUTO_CLOSE int reader = -1;
    int ends[2];
    (void)snprintf(path, sizeof path, "%s/log/%s.log", r->home.home, d->name);
    log = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0640);
    if (log < 0)
        return err_sys(e, errno, "%s", path);
    if (pipe2(ends, O_CLOEXEC) < 0)
        return err_sys(e, errno, "pipe");
    reader = ends[0];
    writer = ends[1];
    if (chdir("/") < 0)
        return err_sys(e, errno, "chdir /");
    if (proc_spawn(&(struct proc_spawn){.path = d->argv[0],
                       .argv = (char *const *)(uintptr_t)d->argv,
                       .envp = d->envp,
                       .fds = (const int[]){-1, log, log, writer},
                       .n_fds = READY_FD + 1,
                       .new_session = true},
            ret_pid, e) < 0)
        return -1;
    *ret_fd = TAKE_FD(reader);
    return 0;
}

static void end_failed(struct host_run *r, const char *name, pid_t pid)
{
    struct err ignored = {0};
    int status;
    (void)kill(pid, SIGKILL);
    (void)proc_reap(pid, &status, &ignored);
    home_forget(&r->home, name);
}

static int start_daemon(
    struct host_run *r, const struct daemon *d, char words[HOME_WORDS_MAX], struct err *e)
{
    AUTO_CLOSE int ready = -1;
    struct proc_id id;
    pid_t pid;
    if (spawn_daemon(r, d, &pid, &ready, e) < 0)
        return -1;
    if (proc_identify(pid, &id, e) < 0 || home_note(&r->home, d->name, &id, "", e) < 0 ||
        await_ready(ready, words, HOME_WORDS_MAX, e) < 0 ||
        home_note(&r->home, d->name, &id, words, e) < 0) {
        end_failed(r, d->name, pid);
        return err_wrap(e, "torpor-%s did not start", d->name);
    }
    return 0;
}

int daemon_start_agent(struct host_run *r, struct err *e)
{
    AUTO_ENV struct env_list env = {0};
    char program[PATH_MAX];
    char words[HOME_WORDS_MAX] = "";
    const char *argv[] = {program, "--ready-fd", "3", NULL};
    (void)snprintf(program, sizeof program, "%s/bin/torpor-agent", r->home.data);
    if (agent_env(r, &env, e) < 0 || keep_agent_env(r, &env, e) < 0)
        return -1;
    return start_daemon(
        r, &(struct daemon){.name = "agent", .argv = argv, .envp = env.list}, words, e);
}

int daemon_start_control(struct host_run *r, const char *listen, struct err *e)
{
    AUTO_ENV struct env_list env = {0};
    char program[PATH_MAX];
    char socket[HOME_WORDS_MAX];
    char words[HOME_WORDS_MAX] = "";
    char noted[2 * HOME_WORDS_MAX + 16];
    struct note note;
    const char *argv[] = {SETPRIV, "--reuid", r->user, "--regid", r->user, SETPRIV_ARGS, program,
        "--ready-fd", "3", NULL};
    if (!home_noted(&r->home, "agent", &note) || !note_word(&note, "socket", socket, sizeof socket))
        return err_set(e, ERR_INTERNAL, "the agent's socket is not known");
    (void)snprintf(program, sizeof program, "%s/bin/torpor-control", r->home.data);
    env_common(&env, "TORPOR_LISTEN=");
    env_add(&env, "TORPOR_DIR=%s/control", r->home.data);
    env_add(&env, "TORPOR_LISTEN=%s", listen);
    env_add(&env, "TORPOR_AGENT_SOCKET=%s", socket);
    if (start_daemon(
            r, &(struct daemon){.name = "control", .argv = argv, .envp = env.list}, words, e) < 0)
        return -1;
    if (!home_noted(&r->home, "control", &note) || !note_word(&note, "url", r->url, sizeof r->url))
        return err_set(e, ERR_PROTOCOL, "torpor-control did not say where it listens");
    /* The socket it was given: another one needs a restart. */
    (void)snprintf(noted, sizeof noted, "%s agent_socket=%s", note.words, socket);
    return home_note(&r->home, "control", &note.id, noted, e);
}

/* --- stopping --- */

bool daemon_is_up(const struct host_run *r, const char *name, struct note *ret)
{
    return home_noted(&r->home, name, ret) && note_is_alive(ret);
}

static int kill_it(struct host_run *r, const char *name, int pidfd, struct err *e)
{
    host_say(r, "torpor-%s has not ended in %d s: killing it", name, DAEMON_STOP_MS / 1000);
    if (proc_signal(pidfd, SIGKILL, e) < 0 || proc_wait_gone(pidfd, deadline_in_ms(KILL_MS), e) < 0)
        return err_wrap(e, "torpor-%s cannot be killed", name);
    return 0;
}

int daemon_stop(struct host_run *r, const char *name, enum daemon_end *ret, struct err *e)
{
    struct note note;
    struct err late = {0};
    AUTO_CLOSE int pidfd = -1;
    *ret = DAEMON_WAS_GONE;
    if (!home_noted(&r->home, name, &note) || !note_is_alive(&note) ||
        (pidfd = proc_open(&note.id, e)) < 0) {
        host_say(r, "torpor-%s is not running", name);
        return 0;
    }
    host_say(r, "stopping torpor-%s (pid %d)", name, (int)note.id.pid);
    if (proc_signal(pidfd, SIGTERM, e) < 0)
        return -1;
    *ret = DAEMON_ENDED;
    if (proc_wait_gone(pidfd, deadline_in_ms(DAEMON_STOP_MS), &late) == 0)
        return 0;
    *ret = DAEMON_KILLED;
    return kill_it(r, name, pidfd, e);
}

/* Waits for a child; kills it when it takes too long. Returns its wait status, -1. */
static int reap_in_time(pid_t pid, int64_t deadline, struct err *e)
{
    struct proc_id id;
    AUTO_CLOSE int pidfd = -1;
    struct err ignored = {0};
    int status = 0;
    bool late;
    if (proc_identify(pid, &id, e) < 0)
        return -1;
    pidfd = proc_open(&id, &ignored);
    late = pidfd >= 0 && proc_wait_gone(pidfd, deadline, &ignored) < 0;
    if (late)
        (void)kill(pid, SIGKILL);
    if (proc_reap(pid, &status, e) < 0)
        return -1;
    return late ? err_set(e, ERR_TIMEOUT, "it did not end in time") : status;
}

int daemon_stop_all(struct host_run *r, struct err *e)
{
    AUTO_ENV struct env_list env = {0};
    char path[PATH_MAX];
    char program[PATH_MAX];
    const char *argv[] = {program, "--stop-all", NULL};
    AUTO_CLOSE int log = -1;
    pid_t pid;
    int status;
    (void)snprintf(program, sizeof program, "%s/bin/torpor-agent", r->home.data);
    (void)snprintf(path, sizeof path, "%s/log/agent.log", r->home.home);
    log = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0640);
    if (kept_agent_env(r, &env, e) < 0 || proc_spawn(&(struct proc_spawn){.path = program,
                                                         .argv = (char *const *)(uintptr_t)argv,
                                                         .envp = env.list,
                                                         .fds = (const int[]){-1, log, log},
                                                         .n_fds = 3},
                                              &pid, e) < 0)
        return -1;
    status = reap_in_time(pid, deadline_in_ms(STOP_ALL_MS), e);
    if (status < 0)
        return err_wrap(e, "torpor-agent --stop-all");
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
        return err_set(e, ERR_INTERNAL, "torpor-agent --stop-all failed");
    return 0;
}

bool daemon_user_can(struct host_run *r, const char *program, const char *arg1, const char *arg2)
{
    const char *argv[] = {
        SETPRIV, "--reuid", r->user, "--regid", r->user, SETPRIV_ARGS, program, arg1, arg2, NULL};
    struct err e = {0};
    pid_t pid;
    int status;
    return proc_spawn(&(struct proc_spawn){.path = SETPRIV,
                          .argv = (char *const *)(uintptr_t)argv,
                          .fds = (const int[]){-1, -1, -1},
                          .n_fds = 3},
               &pid, &e) == 0 &&
           proc_reap(pid, &status, &e) == 0 && status == 0;
}
