/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Agents and shims that are killed at every step of a start.
 *
 * Theory of operation: the linker sends the calls of vmm_start through the functions below, where
 * the process, a child of the test, kills itself or its shim at the step that the test has chosen.
 * The test is the subreaper: shims and VMMs that lose their parent become its children, and so it
 * sees that each of them ends, and waits for no longer than that takes.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/time.h>
#include <sys/wait.h>

#include "agent/vmm/shim_link.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/io.h"
#include "base/sock.h"
#include "vm_fixture.h"

enum { PATIENCE_MS = 10000, SHIM_KILLS = 24 };

/* Where the agent ends. */
enum step {
    NEVER,
    BEFORE_SPAWN,
    AFTER_SPAWN,
    HALF_A_PLAN,
    AFTER_PLAN,
    PLAN_FOR_A_STOPPED_SHIM, /* it reads the plan when its agent has long been gone */
    STARTED_NOT_READ,
    AFTER_START,
};

static enum step step;
static int shim_dies_after_ms = -1;
static pid_t shim_pid;

static void die_at(enum step s)
{
    if (step == s)
        (void)raise(SIGKILL);
}

int __real_proc_spawn(const struct proc_spawn *s, pid_t *ret_pid, struct err *e);
int __wrap_proc_spawn(const struct proc_spawn *s, pid_t *ret_pid, struct err *e);
int __real_sock_send_fds(
    int fd, const void *src, size_t n, const int *fds, size_t n_fds, struct err *e);
int __wrap_sock_send_fds(
    int fd, const void *src, size_t n, const int *fds, size_t n_fds, struct err *e);
int __real_shim_receive(int fd, int64_t deadline, struct shim_msg *ret, struct err *e);
int __wrap_shim_receive(int fd, int64_t deadline, struct shim_msg *ret, struct err *e);

int __wrap_proc_spawn(const struct proc_spawn *s, pid_t *ret_pid, struct err *e)
{
    int rc;
    die_at(BEFORE_SPAWN);
    rc = __real_proc_spawn(s, ret_pid, e);
    shim_pid = *ret_pid;
    die_at(AFTER_SPAWN);
    return rc;
}

int __wrap_sock_send_fds(
    int fd, const void *src, size_t n, const int *fds, size_t n_fds, struct err *e)
{
    int rc;
    if (step == PLAN_FOR_A_STOPPED_SHIM)
        (void)kill(shim_pid, SIGSTOP);
    rc = __real_sock_send_fds(fd, src, step == HALF_A_PLAN ? n / 2 : n, fds, n_fds, e);
    die_at(HALF_A_PLAN);
    die_at(AFTER_PLAN);
    die_at(PLAN_FOR_A_STOPPED_SHIM);
    return rc;
}

int __wrap_shim_receive(int fd, int64_t deadline, struct shim_msg *ret, struct err *e)
{
    struct err ignored;
    if (step == STARTED_NOT_READ)
        (void)io_wait(fd, POLLIN, deadline, &ignored);
    die_at(STARTED_NOT_READ);
    if (shim_dies_after_ms >= 0) {
        (void)io_wait(fd, POLLIN, deadline_in_ms(shim_dies_after_ms), &ignored);
        (void)kill(shim_pid, SIGKILL);
    }
    return __real_shim_receive(fd, deadline, ret, e);
}

/* Runs vmm_start in a process that ends at step `s`. */
static struct sandbox_id start_and_die(const struct fixture *f, enum step s)
{
    struct vmm_boot boot = fixture_boot(f, GUEST_HELLO);
    int status;
    pid_t agent = fork();
    if (agent == 0) {
        struct err e = {0};
        step = s;
        (void)raise(vmm_start(&f->host, &boot, &e) && s == AFTER_START ? SIGKILL : SIGABRT);
    }
    assert_int_equal(waitpid(agent, &status, 0), agent);
    assert_true(WIFSIGNALED(status));
    assert_int_equal(WTERMSIG(status), SIGKILL);
    return boot.id;
}

static void on_alarm(int sig)
{
    (void)sig;
}

/* Waits until all that descends from this process is gone; continues what is stopped. */
static int await_no_children(void)
{
    struct itimerval limit = {.it_value = {.tv_sec = PATIENCE_MS / 1000}};
    const struct sigaction sa = {.sa_handler = on_alarm};
    int n = 0;
    int rc = 0;
    (void)sigaction(SIGALRM, &sa, NULL);
    (void)setitimer(ITIMER_REAL, &limit, NULL);
    for (;;) {
        int status;
        pid_t pid = waitpid(-1, &status, WUNTRACED);
        if (pid < 0) {
            rc = errno == ECHILD ? 0 : -1;
            break;
        }
        if (WIFSTOPPED(status))
            (void)kill(pid, SIGCONT);
        else
            n++;
    }
    limit.it_value.tv_sec = 0;
    (void)setitimer(ITIMER_REAL, &limit, NULL);
    return rc < 0 ? rc : n;
}

static void assert_ends(const struct fixture *f, enum step s)
{
    struct err e = {0};
    struct sandbox_id id = start_and_die(f, s);
    int64_t from = clock_mono_ms();
    if (await_no_children() < 0)
        fail_msg("step %d: something runs on", s);
    assert_true(clock_mono_ms() - from < PATIENCE_MS / 2);
    assert_int_equal(fixture_count_vmms(), 0);
    assert_null(vmm_adopt(&f->host, &id, &e));
    assert_int_equal(e.kind, ERR_NOT_FOUND);
    assert_int_equal(vmm_remove_leftovers(&f->host, NULL, NULL, &e), 0);
    assert_int_equal(fixture_count_sockets(f), 0);
}

static void test_agent_dies_before_the_vm_runs(void **state)
{
    assert_ends(*state, BEFORE_SPAWN);
    assert_ends(*state, AFTER_SPAWN);
    assert_ends(*state, HALF_A_PLAN);
    assert_ends(*state, PLAN_FOR_A_STOPPED_SHIM);
    for (int i = 0; i < 5; i++)
        assert_ends(*state, AFTER_PLAN);
}

static void assert_stays(const struct fixture *f, enum step s)
{
    struct err e = {0};
    struct sandbox_id id = start_and_die(f, s);
    struct vmm *v = vmm_adopt(&f->host, &id, &e);
    if (!v)
        fail_msg("step %d: %s", s, e.msg);
    assert_int_equal(fixture_count_vmms(), 1);
    assert_string_equal(vmm_exit_text(v), "running");
    assert_int_equal(vmm_stop(v, deadline_in_ms(PATIENCE_MS), &e), 0);
    (void)vmm_free(v);
    assert_int_equal(await_no_children(), 0); /* vmm_stop reaped the shim */
}

static void test_agent_dies_when_the_vm_runs(void **state)
{
    assert_stays(*state, STARTED_NOT_READ);
    assert_stays(*state, AFTER_START);
}

/* At whatever instant a shim is killed, its VMM or what is to become it ends too. */
static void test_shim_dies(void **state)
{
    const struct fixture *f = *state;
    int failed = 0;
    for (int i = 0; i < SHIM_KILLS; i++) {
        struct vmm_boot boot = fixture_boot(f, GUEST_HELLO);
        struct err e = {0};
        struct vmm *v;
        shim_dies_after_ms = i / 2;
        v = vmm_start(&f->host, &boot, &e);
        shim_dies_after_ms = -1;
        failed += v == NULL;
        if (v)
            assert_int_equal(vmm_stop(v, deadline_in_ms(PATIENCE_MS), &e), 0);
        (void)vmm_free(v);
        if (await_no_children() < 0)
            fail_msg("killed after %d ms: something runs on", i / 2);
        assert_int_equal(fixture_count_vmms(), 0);
        assert_int_equal(fixture_count_sockets(f), 0);
    }
    assert_true(failed > 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(test_agent_dies_before_the_vm_runs, fixture_tidy),
        cmocka_unit_test_teardown(test_agent_dies_when_the_vm_runs, fixture_tidy),
        cmocka_unit_test_teardown(test_shim_dies, fixture_tidy),
    };
    const char *missing = fixture_missing();
    if (missing) {
        (void)printf("skipped: %s\n", missing);
        return 77;
    }
    (void)prctl(PR_SET_CHILD_SUBREAPER, 1);
    return cmocka_run_group_tests(tests, fixture_set_up, fixture_tear_down);
}
