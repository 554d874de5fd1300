/* SPDX-License-Identifier: Apache-2.0 */
/* Processes: which descriptors and signals a child has, who it is, when it is gone. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/io.h"
#include "base/proc.h"

enum { PATIENCE_MS = 10000 };

/* Runs `script` with a shell; its output goes to `out`. Stores the status of waitpid(2). */
static void run_script(const char *script, bool new_session, struct buf *out, int *ret_status)
{
    char *argv[] = {(char *)"sh", (char *)"-c", (char *)(uintptr_t)script, NULL};
    char *envp[] = {(char *)"PATH=/usr/bin:/bin", (char *)"GIVEN=yes", NULL};
    struct proc_spawn s = {
        .path = "/bin/sh", .argv = argv, .envp = envp, .new_session = new_session};
    AUTO_CLOSE int from = -1;
    int pipe_fds[2];
    int fds[3];
    struct err e = {0};
    char chunk[512];
    ssize_t n;
    pid_t pid;
    assert_int_equal(pipe2(pipe_fds, O_CLOEXEC), 0);
    from = pipe_fds[0];
    fds[0] = -1;
    fds[1] = pipe_fds[1];
    fds[2] = pipe_fds[1];
    s.fds = fds;
    s.n_fds = 3;
    if (proc_spawn(&s, &pid, &e) < 0)
        fail_msg("%s", e.msg);
    (void)close(pipe_fds[1]);
    while ((n = io_read(from, chunk, sizeof chunk, deadline_in_ms(PATIENCE_MS), &e)) > 0)
        buf_append(out, chunk, (size_t)n);
    assert_int_equal(n, 0);
    assert_int_equal(proc_reap(pid, ret_status, &e), 0);
    buf_append(out, "", 0);
}

static void check_output(const char *script, const char *want)
{
    AUTO_BUF struct buf out = BUF_INIT(4096);
    int status;
    run_script(script, /* new_session= */ false, &out, &status);
    assert_string_equal(out.p, want);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
}

/* Descriptors from 3 on that a child inherits because whoever started the test left them open. */
static int count_inherited(void)
{
    int n = 0;
    for (int fd = 3; fd < 1024; fd++) {
        int flags = fcntl(fd, F_GETFD);
        n += flags >= 0 && !(flags & FD_CLOEXEC);
    }
    return n;
}

static void child_has_only_what_it_is_given(void **state)
{
    AUTO_CLOSE int leak = open("/dev/null", O_RDONLY | O_CLOEXEC);
    AUTO_BUF struct buf out = BUF_INIT(4096);
    int lines = 0;
    int status;
    (void)state;
    assert_true(leak >= 0);
    check_output("echo $GIVEN$HOME", "yes\n");
    check_output("cat", "");               /* descriptor 0 is /dev/null */
    check_output("echo err >&2", "err\n"); /* two from one */
    run_script("exec ls /proc/self/fd", /* new_session= */ false, &out, &status);
    for (const char *p = out.p; *p; p++)
        lines += *p == '\n';
    /* 0, 1, 2 and the one by which ls reads the folder. */
    assert_int_equal(lines, 4 + count_inherited());
}

static void statuses_come_back(void **state)
{
    AUTO_BUF struct buf out = BUF_INIT(4096);
    int status;
    (void)state;
    run_script("exit 7", /* new_session= */ false, &out, &status);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 7);
    run_script("kill -9 $$", /* new_session= */ false, &out, &status);
    assert_true(WIFSIGNALED(status));
    assert_int_equal(WTERMSIG(status), SIGKILL);
}

static void signals_are_the_default_ones(void **state)
{
    AUTO_BUF struct buf out = BUF_INIT(4096);
    sigset_t set;
    sigset_t old;
    int status;
    (void)state;
    (void)signal(SIGTERM, SIG_IGN);
    (void)sigemptyset(&set);
    (void)sigaddset(&set, SIGTERM);
    assert_int_equal(pthread_sigmask(SIG_BLOCK, &set, &old), 0);
    run_script("kill -TERM $$; echo survived", /* new_session= */ false, &out, &status);
    assert_int_equal(pthread_sigmask(SIG_SETMASK, &old, NULL), 0);
    (void)signal(SIGTERM, SIG_DFL);
    assert_string_equal(out.p, "");
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGTERM);
}

static void session_is_new_on_demand(void **state)
{
    static const char script[] =
        "set -- $(cat /proc/$$/stat); test $6 = $$ && echo own || echo same";
    AUTO_BUF struct buf own = BUF_INIT(4096);
    AUTO_BUF struct buf same = BUF_INIT(4096);
    int status;
    (void)state;
    run_script(script, /* new_session= */ true, &own, &status);
    assert_string_equal(own.p, "own\n");
    run_script(script, /* new_session= */ false, &same, &status);
    assert_string_equal(same.p, "same\n");
}

/* The descriptors given are also targets, crosswise: none may be overwritten before it is used. */
static void crossed_descriptors_arrive(void **state)
{
    static const char script[] = "cat <&3; cat <&4; cat <&5";
    char *argv[] = {(char *)"sh", (char *)"-c", (char *)(uintptr_t)script, NULL};
    char *envp[] = {(char *)"PATH=/usr/bin:/bin", NULL};
    int out[2];
    int in[3][2];
    char got[16] = "";
    int fds[6];
    struct proc_spawn s = {.path = "/bin/sh", .argv = argv, .envp = envp, .fds = fds, .n_fds = 6};
    struct err e = {0};
    int status;
    pid_t pid;
    (void)state;
    assert_int_equal(pipe2(out, O_CLOEXEC), 0);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(pipe2(in[i], O_CLOEXEC), 0);
        assert_int_equal(write(in[i][1], &"abc"[i], 1), 1);
        (void)close(in[i][1]);
    }
    fds[0] = -1;
    fds[1] = out[1];
    fds[2] = 2;
    /* The reading ends are low numbers; given in reverse, some are another one's target. */
    for (int i = 0; i < 3; i++)
        fds[3 + i] = in[2 - i][0];
    assert_int_equal(proc_spawn(&s, &pid, &e), 0);
    (void)close(out[1]);
    assert_int_equal(io_read_full(out[0], got, 3, deadline_in_ms(PATIENCE_MS), &e), 0);
    assert_string_equal(got, "cba");
    assert_int_equal(proc_reap(pid, &status, &e), 0);
    assert_int_equal(status, 0);
    (void)close(out[0]);
    for (int i = 0; i < 3; i++)
        (void)close(in[i][0]);
}

static void missing_programs_are_reported(void **state)
{
    char *argv[] = {(char *)"x", NULL};
    struct proc_spawn s = {.path = "/nowhere/x", .argv = argv};
    struct err e = {0};
    pid_t pid = 77;
    (void)state;
    assert_int_equal(proc_spawn(&s, &pid, &e), -1);
    assert_int_equal(e.kind, ERR_NOT_FOUND);
    assert_int_equal(pid, 77);
    s.path = "/etc/passwd";
    assert_int_equal(proc_spawn(&s, &pid, &e), -1);
    assert_int_equal(e.kind, ERR_FORBIDDEN);
}

/* A child that runs until it is killed. */
static pid_t start_sleeper(void)
{
    char *argv[] = {(char *)"sleep", (char *)"600", NULL};
    struct proc_spawn s = {.path = "/bin/sleep", .argv = argv};
    struct err e = {0};
    pid_t pid;
    if (proc_spawn(&s, &pid, &e) < 0)
        fail_msg("%s", e.msg);
    return pid;
}

static void processes_are_known_by_pid_and_start(void **state)
{
    struct proc_id self;
    struct proc_id child;
    struct proc_id other;
    struct err e = {0};
    pid_t pid = start_sleeper();
    AUTO_CLOSE int pidfd = -1;
    int status;
    (void)state;
    assert_int_equal(proc_identify(getpid(), &self, &e), 0);
    assert_int_equal(proc_identify(pid, &child, &e), 0);
    assert_int_equal(child.pid, pid);
    assert_true(child.start_ticks >= self.start_ticks && self.start_ticks > 0);
    assert_true(proc_is_alive(&self));
    assert_true(proc_is_alive(&child));
    other = child;
    other.start_ticks++;
    assert_false(proc_is_alive(&other));
    assert_int_equal(proc_open(&other, &e), -1);
    assert_int_equal(e.kind, ERR_NOT_FOUND);
    pidfd = proc_open(&child, &e);
    assert_true(pidfd >= 0);
    assert_int_equal(fcntl(pidfd, F_GETFD) & FD_CLOEXEC, FD_CLOEXEC);
    assert_int_equal(proc_signal(pidfd, SIGKILL, &e), 0);
    assert_int_equal(proc_wait_gone(pidfd, deadline_in_ms(PATIENCE_MS), &e), 0);
    assert_false(proc_is_alive(&child)); /* a zombie is gone */
    assert_int_equal(proc_reap(pid, &status, &e), 0);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    assert_int_equal(proc_signal(pidfd, SIGKILL, &e), 0); /* gone is fine */
    assert_int_equal(proc_identify(pid, &child, &e), -1);
    assert_int_equal(e.kind, ERR_NOT_FOUND);
    assert_int_equal(proc_reap(pid, &status, &e), -1);
}

static void waiting_for_the_living_times_out(void **state)
{
    struct proc_id id;
    struct err e = {0};
    pid_t pid = start_sleeper();
    AUTO_CLOSE int pidfd = -1;
    int status;
    (void)state;
    assert_int_equal(proc_identify(pid, &id, &e), 0);
    pidfd = proc_open(&id, &e);
    assert_true(pidfd >= 0);
    assert_int_equal(proc_wait_gone(pidfd, deadline_in_ms(20), &e), -1);
    assert_int_equal(e.kind, ERR_TIMEOUT);
    assert_int_equal(proc_signal(pidfd, SIGTERM, &e), 0);
    assert_int_equal(proc_reap(pid, &status, &e), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(child_has_only_what_it_is_given),
        cmocka_unit_test(statuses_come_back),
        cmocka_unit_test(signals_are_the_default_ones),
        cmocka_unit_test(session_is_new_on_demand),
        cmocka_unit_test(crossed_descriptors_arrive),
        cmocka_unit_test(missing_programs_are_reported),
        cmocka_unit_test(processes_are_known_by_pid_and_start),
        cmocka_unit_test(waiting_for_the_living_times_out),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
