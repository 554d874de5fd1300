/* SPDX-License-Identifier: Apache-2.0 */
/* The shim's side of its protocol: hostile plans, control connections, what outlives an agent. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "agent/vmm/shim_link.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/io.h"
#include "base/sock.h"
#include "vm_fixture.h"

enum { PATIENCE_MS = 5000 };

struct vm {
    struct vmm *handle;
    struct vmm_boot boot;
    char socket[FIXTURE_PATH_MAX + 40];
};

static struct vm start_vm(const struct fixture *f)
{
    struct err e = {0};
    struct vm vm = {.boot = fixture_boot(f, GUEST_HELLO)};
    (void)snprintf(vm.socket, sizeof vm.socket, "%s/%s.shim", f->dir, vm.boot.id.text);
    vm.handle = vmm_start(&f->host, &vm.boot, &e);
    if (!vm.handle)
        fail_msg("%s", e.msg);
    return vm;
}

static void stop_vm(struct vm *vm)
{
    struct err e = {0};
    if (vmm_stop(vm->handle, deadline_in_ms(10000), &e) < 0)
        fail_msg("%s", e.msg);
    vm->handle = vmm_free(vm->handle);
}

static int connect_to(const struct vm *vm)
{
    struct err e = {0};
    int fd = sock_connect_unix(vm->socket, &e);
    if (fd < 0)
        fail_msg("%s", e.msg);
    return fd;
}

static struct shim_msg receive(int fd)
{
    struct err e = {0};
    struct shim_msg m;
    if (shim_receive(fd, deadline_in_ms(PATIENCE_MS), &m, &e) < 0)
        fail_msg("%s", e.msg);
    return m;
}

static struct shim_msg ask(int fd, enum shim_msg_type request)
{
    struct err e = {0};
    assert_int_equal(shim_send(fd, SHIM_VERSION, request, deadline_in_ms(PATIENCE_MS), &e), 0);
    return receive(fd);
}

static struct shim_msg hello(int fd, uint32_t flags)
{
    struct err e = {0};
    assert_int_equal(shim_send_hello(fd, flags, deadline_in_ms(PATIENCE_MS), &e), 0);
    return receive(fd);
}

static void assert_refused(struct shim_msg m, enum shim_refusal why)
{
    assert_int_equal(m.type, SHIM_MSG_REFUSED);
    assert_int_equal(m.refusal, why);
}

static void assert_closed(int fd)
{
    struct err e = {0};
    char c;
    assert_int_equal(io_read(fd, &c, 1, deadline_in_ms(PATIENCE_MS), &e), 0);
}

static void test_hello(void **state)
{
    struct vm vm = start_vm(*state);
    AUTO_CLOSE int fd = connect_to(&vm);
    struct err e = {0};
    struct proc_id id;
    struct shim_msg m = hello(fd, 0);
    assert_int_equal(m.type, SHIM_MSG_STATE);
    assert_int_equal(m.version, SHIM_VERSION);
    assert_string_equal(m.id, vm.boot.id.text);
    assert_int_equal(m.ended, 0);
    assert_true(m.uptime_ms < 60000);
    assert_int_equal(proc_identify(vmm_pid(vm.handle), &id, &e), 0);
    assert_int_equal(m.vmm_pid, id.pid);
    assert_int_equal(m.vmm_start, id.start_ticks);
    assert_int_equal(proc_identify(vmm_shim_pid(vm.handle), &id, &e), 0);
    assert_int_equal(m.shim_pid, id.pid);
    assert_int_equal(m.shim_start, id.start_ticks);
    stop_vm(&vm);
}

/* What services and terminals send when they stop ends no VM. */
static void test_signals_end_nothing(void **state)
{
    static const int signals[] = {SIGTERM, SIGINT, SIGHUP, SIGQUIT, SIGUSR1, SIGPIPE};
    struct vm vm = start_vm(*state);
    AUTO_CLOSE int fd = connect_to(&vm);
    for (size_t i = 0; i < ARRAY_LEN(signals); i++)
        assert_int_equal(kill(vmm_shim_pid(vm.handle), signals[i]), 0);
    assert_int_equal(ask(fd, SHIM_MSG_STATUS).ended, 0);
    stop_vm(&vm);
}

static void test_bad_requests(void **state)
{
    struct vm vm = start_vm(*state);
    struct err e = {0};
    struct shim_msg m = {
        .magic = SHIM_MSG_MAGIC, .version = SHIM_VERSION + 1, .type = SHIM_MSG_KILL};
    AUTO_CLOSE int fd = connect_to(&vm);
    AUTO_CLOSE int bad = connect_to(&vm);
    assert_refused(ask(fd, (enum shim_msg_type)999), SHIM_REFUSAL_TYPE);
    assert_int_equal(io_write_full(fd, &m, sizeof m, deadline_in_ms(PATIENCE_MS), &e), 0);
    m = receive(fd);
    assert_refused(m, SHIM_REFUSAL_VERSION);
    assert_int_equal(m.version, SHIM_VERSION);
    memset(&m, 'x', sizeof m);
    assert_int_equal(io_write_full(bad, &m, sizeof m, deadline_in_ms(PATIENCE_MS), &e), 0);
    assert_closed(bad);
    assert_int_equal(ask(fd, SHIM_MSG_STATUS).ended, 0);
    stop_vm(&vm);
}

static void test_too_many_connections(void **state)
{
    struct vm vm = start_vm(*state);
    int fds[7];
    AUTO_CLOSE int more = -1;
    for (size_t i = 0; i < ARRAY_LEN(fds); i++) {
        fds[i] = connect_to(&vm);
        assert_int_equal(ask(fds[i], SHIM_MSG_STATUS).type, SHIM_MSG_STATE);
    }
    more = connect_to(&vm);
    assert_closed(more);
    (void)close(fds[0]);
    assert_int_equal(ask(fds[1], SHIM_MSG_STATUS).type, SHIM_MSG_STATE);
    fds[0] = connect_to(&vm);
    assert_int_equal(ask(fds[0], SHIM_MSG_STATUS).type, SHIM_MSG_STATE);
    for (size_t i = 0; i < ARRAY_LEN(fds); i++)
        (void)close(fds[i]);
    stop_vm(&vm);
}

static struct shim_msg ask_version(const struct vm *vm, uint16_t min, uint16_t max)
{
    struct err e = {0};
    const struct shim_msg m = {.magic = SHIM_MSG_MAGIC,
        .version = SHIM_VERSION_MIN,
        .type = SHIM_MSG_HELLO,
        .version_min = min,
        .version_max = max};
    AUTO_CLOSE int fd = connect_to(vm);
    assert_int_equal(io_write_full(fd, &m, sizeof m, deadline_in_ms(PATIENCE_MS), &e), 0);
    return receive(fd);
}

/* Agents of every age get the newest version that both know. */
static void test_versions(void **state)
{
    struct vm vm = start_vm(*state);
    struct shim_msg m = ask_version(&vm, 0, 0); /* version 1 has no such fields */
    assert_int_equal(m.type, SHIM_MSG_STATE);
    assert_int_equal(m.version, 1);
    assert_int_equal(m.version_max, 0);
    assert_string_equal(m.id, vm.boot.id.text);
    m = ask_version(&vm, 1, 1);
    assert_int_equal(m.version, 1);
    m = ask_version(&vm, 1, 900);
    assert_int_equal(m.type, SHIM_MSG_STATE);
    assert_int_equal(m.version, SHIM_VERSION);
    assert_int_equal(m.version_min, SHIM_VERSION_MIN);
    assert_int_equal(m.version_max, SHIM_VERSION);
    assert_refused(ask_version(&vm, SHIM_VERSION + 1, SHIM_VERSION + 2), SHIM_REFUSAL_VERSION);
    stop_vm(&vm);
}

/* Who has no control may look, and no more. */
static void test_control_is_exclusive(void **state)
{
    struct vm vm = start_vm(*state);
    AUTO_CLOSE int fd = connect_to(&vm);
    struct shim_msg m = hello(fd, SHIM_HELLO_CONTROL);
    assert_refused(m, SHIM_REFUSAL_CONTROLLED);
    assert_int_equal(m.controller_pid, getpid());
    /* This process lives, so its first connection is not taken over. */
    assert_refused(hello(fd, SHIM_HELLO_CONTROL | SHIM_HELLO_TAKEOVER), SHIM_REFUSAL_CONTROLLED);
    assert_refused(ask(fd, SHIM_MSG_KILL), SHIM_REFUSAL_NO_CONTROL);
    assert_refused(ask(fd, SHIM_MSG_ACK), SHIM_REFUSAL_NO_CONTROL);
    assert_int_equal(hello(fd, 0).type, SHIM_MSG_STATE);
    assert_int_equal(ask(fd, SHIM_MSG_STATUS).ended, 0);
    assert_string_equal(vmm_exit_text(vm.handle), "running");
    vm.handle = vmm_free(vm.handle);
    m = hello(fd, SHIM_HELLO_CONTROL);
    assert_int_equal(m.type, SHIM_MSG_STATE);
    assert_int_equal(m.controller_pid, getpid());
    assert_refused(ask(fd, SHIM_MSG_ACK), SHIM_REFUSAL_RUNNING);
    m = ask(fd, SHIM_MSG_KILL);
    assert_int_equal(m.type, SHIM_MSG_STATE);
    m = receive(fd);
    assert_int_equal(m.type, SHIM_MSG_EXITED);
    assert_true(WIFSIGNALED(m.wait_status) && WTERMSIG(m.wait_status) == SIGKILL);
}

/* An agent that is gone while another process still holds its connection: TAKEOVER and only that
 * ends its control. */
static void test_takeover(void **state)
{
    struct vm vm = start_vm(*state);
    struct err e = {0};
    int status;
    int pair[2];
    int held;
    size_t n;
    char c;
    pid_t agent;
    AUTO_CLOSE int fd = -1;
    vm.handle = vmm_free(vm.handle);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
    agent = fork();
    if (agent == 0) {
        held = connect_to(&vm);
        if (hello(held, SHIM_HELLO_CONTROL).type == SHIM_MSG_STATE)
            (void)sock_send_fds(pair[1], "x", 1, &held, 1, &e);
        (void)read(pair[1], &c, 1);
        _exit(0);
    }
    assert_int_equal(sock_recv_fds(pair[0], &c, 1, &held, 1, &n, &e), 1);
    assert_int_equal(n, 1);
    fd = connect_to(&vm);
    assert_refused(hello(fd, SHIM_HELLO_CONTROL | SHIM_HELLO_TAKEOVER), SHIM_REFUSAL_CONTROLLED);
    assert_int_equal(write(pair[0], "x", 1), 1);
    assert_int_equal(waitpid(agent, &status, 0), agent);
    assert_refused(hello(fd, SHIM_HELLO_CONTROL), SHIM_REFUSAL_CONTROLLED);
    assert_int_equal(hello(fd, SHIM_HELLO_CONTROL | SHIM_HELLO_TAKEOVER).type, SHIM_MSG_STATE);
    assert_closed(held);
    assert_int_equal(ask(fd, SHIM_MSG_KILL).type, SHIM_MSG_STATE);
    assert_int_equal(receive(fd).type, SHIM_MSG_EXITED);
    (void)close(held);
    (void)close(pair[0]);
    (void)close(pair[1]);
}

/* The agent goes, the VM ends, another agent comes: it still learns how, and then the shim ends. */
static void test_end_is_kept(void **state)
{
    const struct fixture *f = *state;
    struct vm vm = start_vm(f);
    struct err e = {0};
    struct shim_msg m;
    struct proc_id shim;
    AUTO_CLOSE int pidfd = -1;
    AUTO_CLOSE int first = -1;
    AUTO_CLOSE int second = -1;
    pid_t vmm = vmm_pid(vm.handle);
    assert_int_equal(proc_identify(vmm_shim_pid(vm.handle), &shim, &e), 0);
    pidfd = proc_open(&shim, &e);
    vm.handle = vmm_free(vm.handle);
    first = connect_to(&vm);
    assert_int_equal(hello(first, SHIM_HELLO_CONTROL).ended, 0);
    assert_int_equal(kill(vmm, SIGKILL), 0);
    assert_int_equal(receive(first).type, SHIM_MSG_EXITED);
    cleanup_close_(&first);
    first = -1;
    second = connect_to(&vm);
    m = hello(second, SHIM_HELLO_CONTROL);
    assert_int_equal(m.ended, 1);
    assert_true(WIFSIGNALED(m.wait_status));
    assert_int_equal(
        shim_send(second, SHIM_VERSION, SHIM_MSG_ACK, deadline_in_ms(PATIENCE_MS), &e), 0);
    assert_int_equal(proc_wait_gone(pidfd, deadline_in_ms(PATIENCE_MS), &e), 0);
    assert_int_equal(waitpid(shim.pid, NULL, 0), shim.pid);
    assert_int_equal(vmm_remove_leftovers(&f->host, NULL, NULL, &e), 0);
    assert_int_equal(fixture_count_sockets(f), 0);
}

/* Even where the folder and the socket would let it in. */
static void test_only_root_is_served(void **state)
{
    const struct fixture *f = *state;
    struct vm vm = start_vm(f);
    int status;
    pid_t child;
    assert_int_equal(chmod(f->dir, 0755), 0);
    assert_int_equal(chmod(vm.socket, 0666), 0);
    child = fork();
    if (child == 0) {
        struct err e = {0};
        struct shim_msg m;
        int fd = setuid(FIXTURE_UID) < 0 ? -1 : sock_connect_unix(vm.socket, &e);
        if (fd < 0)
            _exit(2);
        (void)shim_send(fd, SHIM_VERSION, SHIM_MSG_KILL, deadline_in_ms(PATIENCE_MS), &e);
        _exit(shim_receive(fd, deadline_in_ms(PATIENCE_MS), &m, &e) < 0 ? 0 : 1);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
    assert_string_equal(vmm_exit_text(vm.handle), "running");
    assert_int_equal(chmod(f->dir, 0700), 0);
    stop_vm(&vm);
}

struct raw_shim {
    pid_t pid;
    int link;
};

static struct raw_shim start_raw(const struct fixture *f)
{
    struct err e = {0};
    struct raw_shim s;
    int pair[2];
    char *const argv[] = {
        (char *)"torpor-shim", (char *)"sbaaaaaaaaaaaaaaaaaaaa", (char *)f->dir, NULL};
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
    {
        const int fds[] = {-1, -1, -1, pair[1]};
        const struct proc_spawn p = {.path = SHIM_PATH, .argv = argv, .fds = fds, .n_fds = 4};
        assert_int_equal(proc_spawn(&p, &s.pid, &e), 0);
    }
    (void)close(pair[1]);
    s.link = pair[0];
    return s;
}

/* The shim ends with 1 and, when the plan got that far, says why. */
static void expect_refusal(struct raw_shim *s, const char *why)
{
    struct err e = {0};
    struct shim_msg m;
    int status;
    if (why) {
        m = receive(s->link);
        assert_int_equal(m.type, SHIM_MSG_FAILED);
        if (!strstr(m.text, why))
            fail_msg("\"%s\" says nothing of \"%s\"", m.text, why);
    }
    assert_int_equal(proc_reap(s->pid, &status, &e), 0);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 1);
    (void)close(s->link);
}

static void send_raw(
    const struct raw_shim *s, const void *p, size_t n, const int *fds, size_t n_fds)
{
    struct err e = {0};
    assert_int_equal(sock_send_fds(s->link, p, n, fds, n_fds, &e), 0);
}

static void test_hostile_plans(void **state)
{
    const struct fixture *f = *state;
    struct shim_plan_head head = {.magic = SHIM_PLAN_MAGIC, .version = SHIM_VERSION};
    int many[SHIM_FDS_MAX + 1] = {0};
    char noise[4096];
    struct raw_shim s = start_raw(f);
    (void)shutdown(s.link, SHUT_WR);
    expect_refusal(&s, "no launch plan");

    s = start_raw(f);
    send_raw(&s, &head, sizeof head, NULL, 0);
    expect_refusal(&s, "0 descriptors");

    s = start_raw(f);
    send_raw(&s, &head, sizeof head, many, SHIM_FDS_MAX + 1);
    expect_refusal(&s, "more than 88 descriptors");

    s = start_raw(f);
    send_raw(&s, &head, sizeof head, many, SHIM_FD_COUNT);
    expect_refusal(&s, "wrong kind");

    s = start_raw(f);
    send_raw(&s, &head, 7, NULL, 0);
    (void)shutdown(s.link, SHUT_WR);
    expect_refusal(&s, "closed early");

    memset(noise, 0xa5, sizeof noise);
    s = start_raw(f);
    send_raw(&s, noise, sizeof noise, NULL, 0);
    expect_refusal(&s, "descriptors");

    /* An agent that dies before it sent anything. */
    s = start_raw(f);
    (void)close(s.link);
    s.link = -1;
    expect_refusal(&s, NULL);
    assert_int_equal(fixture_count_vmms(), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(test_hello, fixture_tidy),
        cmocka_unit_test_teardown(test_signals_end_nothing, fixture_tidy),
        cmocka_unit_test_teardown(test_bad_requests, fixture_tidy),
        cmocka_unit_test_teardown(test_too_many_connections, fixture_tidy),
        cmocka_unit_test_teardown(test_versions, fixture_tidy),
        cmocka_unit_test_teardown(test_control_is_exclusive, fixture_tidy),
        cmocka_unit_test_teardown(test_takeover, fixture_tidy),
        cmocka_unit_test_teardown(test_end_is_kept, fixture_tidy),
        cmocka_unit_test_teardown(test_only_root_is_served, fixture_tidy),
        cmocka_unit_test_teardown(test_hostile_plans, fixture_tidy),
    };
    const char *missing = fixture_missing();
    if (missing) {
        (void)printf("skipped: %s\n", missing);
        return 77;
    }
    return cmocka_run_group_tests(tests, fixture_set_up, fixture_tear_down);
}
