/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Taking over VMs: real ones of an agent that was killed, and shims of other versions of the
 * protocol, which are played by a child process.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/io.h"
#include "base/proc.h"
#include "base/sock.h"
#include "proto/shim.h"
#include "vm_fixture.h"

enum { PATIENCE_MS = 5000 };

static struct vmm *adopt(const struct fixture *f, const struct sandbox_id *id)
{
    struct err e = {0};
    struct vmm *v = vmm_adopt(&f->host, id, &e);
    if (!v)
        fail_msg("%s", e.msg);
    return v;
}

static void assert_not_adopted(
    const struct fixture *f, const struct sandbox_id *id, enum err_kind kind, const char *why)
{
    struct err e = {0};
    if (vmm_adopt(&f->host, id, &e))
        fail_msg("adopted, though: %s", why);
    if (e.kind != kind || !strstr(e.msg, why))
        fail_msg("%s: \"%s\" says nothing of \"%s\"", err_kind_name(e.kind), e.msg, why);
}

static bool has_event(const struct vmm *v, int64_t ms)
{
    struct err e = {0};
    return io_wait(vmm_event_fd(v), POLLIN, deadline_in_ms(ms), &e) > 0;
}

static void stop(struct vmm *v)
{
    struct err e = {0};
    if (vmm_stop(v, deadline_in_ms(10000), &e) < 0)
        fail_msg("%s", e.msg);
    (void)vmm_free(v);
}

/* Starts a VM in a process that is then killed. */
static struct sandbox_id leave_vm(const struct fixture *f)
{
    struct vmm_boot boot = fixture_boot(f, GUEST_HELLO);
    int status;
    pid_t agent = fork();
    if (agent == 0) {
        struct err e = {0};
        (void)raise(vmm_start(&f->host, &boot, &e) ? SIGKILL : SIGABRT);
    }
    assert_int_equal(waitpid(agent, &status, 0), agent);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    return boot.id;
}

static void test_adopted_vm_is_like_a_started_one(void **state)
{
    const struct fixture *f = *state;
    struct sandbox_id id = leave_vm(f);
    struct vmm *v = adopt(f, &id);
    struct stat st;
    char path[32];
    assert_string_equal(vmm_exit_text(v), "running");
    assert_false(has_event(v, 0));
    (void)snprintf(path, sizeof path, "/proc/%d", (int)vmm_pid(v));
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_uid, FIXTURE_UID);
    assert_int_equal(waitpid(vmm_shim_pid(v), NULL, WNOHANG), -1); /* no child */
    assert_int_equal(kill(vmm_pid(v), SIGKILL), 0);
    assert_true(has_event(v, PATIENCE_MS));
    assert_string_equal(vmm_exit_text(v), "qemu killed by SIGKILL");
    assert_true(has_event(v, 0));
    stop(v);
    assert_int_equal(fixture_count_vmms(), 0);
    assert_int_equal(fixture_count_sockets(f), 0);
}

static void test_stop_of_an_adopted_vm(void **state)
{
    const struct fixture *f = *state;
    struct sandbox_id id = leave_vm(f);
    struct err e = {0};
    struct vmm *v = adopt(f, &id);
    struct proc_id shim;
    assert_int_equal(proc_identify(vmm_shim_pid(v), &shim, &e), 0);
    stop(v);
    assert_false(proc_is_alive(&shim));
    assert_int_equal(fixture_count_vmms(), 0);
    assert_not_adopted(f, &id, ERR_NOT_FOUND, id.text);
}

/* Nobody was connected when the VM ended; the next agent learns how, also the one after it. */
static void test_ended_meanwhile(void **state)
{
    const struct fixture *f = *state;
    struct sandbox_id id = leave_vm(f);
    struct err e = {0};
    struct vmm *v = adopt(f, &id);
    struct proc_id vmm;
    pid_t pid = vmm_pid(v);
    AUTO_CLOSE int pidfd = -1;
    assert_int_equal(proc_identify(pid, &vmm, &e), 0);
    pidfd = proc_open(&vmm, &e);
    (void)vmm_free(v);
    assert_int_equal(kill(pid, SIGKILL), 0);
    assert_int_equal(proc_wait_gone(pidfd, deadline_in_ms(PATIENCE_MS), &e), 0);
    for (int i = 0; i < 2; i++) {
        v = adopt(f, &id);
        assert_int_equal(vmm_pid(v), pid);
        assert_true(has_event(v, PATIENCE_MS));
        assert_string_equal(vmm_exit_text(v), "qemu killed by SIGKILL");
        if (i == 0)
            (void)vmm_free(v);
    }
    stop(v);
    assert_int_equal(fixture_count_sockets(f), 0);
}

static void test_held_by_another(void **state)
{
    const struct fixture *f = *state;
    struct sandbox_id id = leave_vm(f);
    struct vmm *v = adopt(f, &id);
    char why[64];
    (void)snprintf(why, sizeof why, "process %d has control", (int)getpid());
    assert_not_adopted(f, &id, ERR_CONFLICT, why);
    (void)vmm_free(v);
    stop(adopt(f, &id));
}

static void test_nobody_there(void **state)
{
    struct fixture f = *(struct fixture *)*state;
    struct sandbox_id id;
    char path[FIXTURE_PATH_MAX + 40];
    char longest[FIXTURE_PATH_MAX + 40];
    sandbox_id_new(&id);
    assert_not_adopted(&f, &id, ERR_NOT_FOUND, id.text);
    (void)snprintf(path, sizeof path, "%s/%s.shim", f.dir, id.text);
    assert_int_equal(mknod(path, S_IFSOCK | 0600, 0), 0); /* nobody listens */
    assert_not_adopted(&f, &id, ERR_NOT_FOUND, id.text);
    assert_int_equal(unlink(path), 0);
    memset(longest, 'x', sizeof longest - 1);
    longest[sizeof longest - 1] = '\0';
    f.host.run_dir = longest;
    assert_not_adopted(&f, &id, ERR_INVALID, "too long");
}

static void test_shim_hangs(void **state)
{
    const struct fixture *f = *state;
    struct sandbox_id id = leave_vm(f);
    struct vmm *v = adopt(f, &id);
    pid_t shim = vmm_shim_pid(v);
    (void)vmm_free(v);
    assert_int_equal(kill(shim, SIGSTOP), 0);
    assert_not_adopted(f, &id, ERR_NOT_FOUND, "timed out");
    assert_int_equal(kill(shim, SIGCONT), 0);
    stop(adopt(f, &id));
}

/* --- shims that are played --- */

/* What the child does. `answer` is the message that HELLO gets, `n` bytes of it. */
struct role {
    struct sandbox_id id;
    char socket[FIXTURE_PATH_MAX + 40];
    uid_t uid;
    bool own_pids; /* shim and VMM are the child and its child */
    size_t n;
    struct shim_msg answer;
};

static struct role role_new(const struct fixture *f, unsigned version)
{
    struct role r = {.own_pids = true,
        .n = SHIM_MSG_BYTES,
        .answer = {.magic = SHIM_MSG_MAGIC, .version = (uint16_t)version, .type = SHIM_MSG_STATE}};
    sandbox_id_new(&r.id);
    memcpy(r.answer.id, r.id.text, strlen(r.id.text));
    (void)snprintf(r.socket, sizeof r.socket, "%s/%s.shim", f->dir, r.id.text);
    return r;
}

static pid_t play_vmm(void)
{
    pid_t pid = fork();
    if (pid == 0)
        (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
    while (pid == 0)
        (void)pause();
    return pid;
}

static void fill_pids(struct shim_msg *m, pid_t vmm)
{
    struct err e = {0};
    struct proc_id id;
    if (proc_identify(getpid(), &id, &e) < 0)
        _exit(3);
    m->shim_pid = (uint32_t)id.pid;
    m->shim_start = id.start_ticks;
    if (proc_identify(vmm, &id, &e) < 0)
        _exit(3);
    m->vmm_pid = (uint32_t)id.pid;
    m->vmm_start = id.start_ticks;
}

/* As a shim of version 1 does it: other versions are refused, KILL and ACK are anybody's. */
static void play_version_1(int fd, struct shim_msg *answer, pid_t vmm)
{
    struct err e = {0};
    struct shim_msg m;
    for (;;) {
        if (io_read_full(fd, &m, sizeof m, DEADLINE_NEVER, &e) < 0)
            _exit(4);
        if (m.version == 1 && m.type == SHIM_MSG_ACK)
            _exit(answer->ended ? 0 : 5);
        answer->type = m.version == 1 ? SHIM_MSG_STATE : SHIM_MSG_REFUSED;
        if (io_write_full(fd, answer, sizeof *answer, DEADLINE_NEVER, &e) < 0)
            _exit(4);
        if (answer->ended || m.type != SHIM_MSG_HELLO)
            continue;
        (void)waitpid(vmm, &answer->wait_status, 0);
        answer->ended = 1;
        answer->type = SHIM_MSG_EXITED;
        (void)io_write_full(fd, answer, sizeof *answer, DEADLINE_NEVER, &e);
    }
}

static _Noreturn void play(struct role *r, int ready)
{
    struct err e = {0};
    struct shim_msg m;
    pid_t vmm;
    int fd;
    int listener;
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
    vmm = r->own_pids ? play_vmm() : -1;
    if (r->own_pids)
        fill_pids(&r->answer, vmm);
    if (r->uid != 0 && setuid(r->uid) < 0)
        _exit(2);
    listener = sock_listen_unix(r->socket, 0600, &e);
    (void)!write(ready, "x", 1);
    fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
    if (fd < 0)
        _exit(2);
    if (r->answer.version == 1 && r->own_pids)
        play_version_1(fd, &r->answer, vmm);
    if (io_read_full(fd, &m, sizeof m, DEADLINE_NEVER, &e) == 0)
        (void)io_write_full(fd, &r->answer, r->n, DEADLINE_NEVER, &e);
    (void)io_read_full(fd, &m, sizeof m, DEADLINE_NEVER, &e);
    if (vmm > 0)
        (void)kill(vmm, SIGKILL);
    _exit(0);
}

static pid_t start_role(struct role *r)
{
    int ready[2];
    char c;
    pid_t pid;
    assert_int_equal(pipe2(ready, O_CLOEXEC), 0);
    pid = fork();
    if (pid == 0)
        play(r, ready[1]);
    assert_int_equal(read(ready[0], &c, 1), 1);
    (void)close(ready[0]);
    (void)close(ready[1]);
    return pid;
}

static void end_role(const struct role *r, pid_t pid)
{
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
    (void)unlink(r->socket);
}

static void test_older_shim(void **state)
{
    const struct fixture *f = *state;
    struct role r = role_new(f, 1);
    pid_t pid = start_role(&r);
    struct vmm *v = adopt(f, &r.id);
    assert_int_equal(vmm_shim_pid(v), pid);
    assert_string_equal(vmm_exit_text(v), "running");
    assert_int_equal(kill(vmm_pid(v), SIGTERM), 0);
    assert_true(has_event(v, PATIENCE_MS));
    assert_string_equal(vmm_exit_text(v), "qemu killed by SIGTERM");
    stop(v); /* its child took ACK for an answer, and was reaped: it is ours */
    assert_int_equal(waitpid(pid, NULL, 0), -1);
    assert_int_equal(fixture_count_sockets(f), 0);
}

/* Of a version that is not known nothing but the head is read: the rest may be of any size. */
static void test_newer_shim(void **state)
{
    const struct fixture *f = *state;
    const size_t sizes[] = {sizeof(struct shim_msg_head), 40, SHIM_MSG_BYTES};
    for (size_t i = 0; i < ARRAY_LEN(sizes); i++) {
        struct role r = role_new(f, SHIM_VERSION + 1);
        pid_t pid;
        r.n = sizes[i];
        pid = start_role(&r);
        assert_not_adopted(f, &r.id, ERR_UNSUPPORTED, "speaks version 4, this agent 1 to 3");
        end_role(&r, pid);
    }
}

/* A newer one that still speaks ours. */
static void test_newer_shim_that_agrees(void **state)
{
    const struct fixture *f = *state;
    struct role r = role_new(f, SHIM_VERSION);
    pid_t pid;
    r.answer.version_max = SHIM_VERSION + 5;
    pid = start_role(&r);
    (void)vmm_free(adopt(f, &r.id));
    end_role(&r, pid);
}

static void refuse_role(
    const struct fixture *f, struct role *r, enum err_kind kind, const char *why)
{
    pid_t pid = start_role(r);
    assert_not_adopted(f, &r->id, kind, why);
    end_role(r, pid);
}

static void test_liars(void **state)
{
    const struct fixture *f = *state;
    struct role r = role_new(f, SHIM_VERSION);
    r.answer.id[3] ^= 1;
    refuse_role(f, &r, ERR_PROTOCOL, "it is the shim of");
    r = role_new(f, SHIM_VERSION);
    memset(r.answer.id, 'x', sizeof r.answer.id);
    refuse_role(f, &r, ERR_PROTOCOL, "does not end");
    r = role_new(f, SHIM_VERSION);
    r.answer.magic = 7;
    refuse_role(f, &r, ERR_PROTOCOL, "no message");
    r = role_new(f, SHIM_VERSION);
    r.answer.type = SHIM_MSG_EXITED;
    refuse_role(f, &r, ERR_PROTOCOL, "answered with message 67");
    r = role_new(f, SHIM_VERSION);
    r.own_pids = false;
    r.answer.shim_pid = 1;
    refuse_role(f, &r, ERR_PROTOCOL, "answers for process 1");
    r = role_new(f, 1); /* which has no proof but the start time */
    r.own_pids = false;
    r.answer.shim_pid = 1;
    refuse_role(f, &r, ERR_NOT_FOUND, "process 1 is another one now");
    r = role_new(f, SHIM_VERSION);
    r.n = 0;
    refuse_role(f, &r, ERR_NOT_FOUND, "timed out");
}

static void test_not_root(void **state)
{
    const struct fixture *f = *state;
    struct role r = role_new(f, SHIM_VERSION);
    r.uid = FIXTURE_UID;
    r.own_pids = false;
    assert_int_equal(chmod(f->dir, 0777), 0);
    refuse_role(f, &r, ERR_PROTOCOL, "served by uid 64123");
    assert_int_equal(chmod(f->dir, 0700), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(test_adopted_vm_is_like_a_started_one, fixture_tidy),
        cmocka_unit_test_teardown(test_stop_of_an_adopted_vm, fixture_tidy),
        cmocka_unit_test_teardown(test_ended_meanwhile, fixture_tidy),
        cmocka_unit_test_teardown(test_held_by_another, fixture_tidy),
        cmocka_unit_test_teardown(test_nobody_there, fixture_tidy),
        cmocka_unit_test_teardown(test_shim_hangs, fixture_tidy),
        cmocka_unit_test(test_older_shim),
        cmocka_unit_test(test_newer_shim),
        cmocka_unit_test(test_newer_shim_that_agrees),
        cmocka_unit_test(test_liars),
        cmocka_unit_test(test_not_root),
    };
    const char *missing = fixture_missing();
    if (missing) {
        (void)printf("skipped: %s\n", missing);
        return 77;
    }
    return cmocka_run_group_tests(tests, fixture_set_up, fixture_tear_down);
}
