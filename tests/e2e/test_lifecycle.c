/* SPDX-License-Identifier: Apache-2.0 */
/* Bad luck with real VMs: what dies, who goes away, many at once. */
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/io.h"
#include "base/proc.h"
#include "base/sock.h"
#include "stack.h"

enum { MANY = 10, NOTICE_MS = 10000 };

static struct stack stack;
static const char *unavailable;

static int setup(void **state)
{
    unavailable = stack_unavailable();
    if (!unavailable)
        stack_start(&stack);
    return 0;
}

static int teardown(void **state)
{
    if (!unavailable)
        stack_stop(&stack);
    return 0;
}

#define NEEDS_STACK()                                                                              \
    do {                                                                                           \
        if (unavailable) {                                                                         \
            print_message("skip: %s\n", unavailable);                                              \
            skip();                                                                                \
        }                                                                                          \
    } while (0)

/* Status and reason as the API shows them. */
static void look(const char *id, char status[16], char reason[32])
{
    AUTO_REPLY struct reply r = {0};
    char path[96];
    (void)snprintf(path, sizeof path, "/v1/sandboxes/%s", id);
    api(&stack, "GET", path, NULL, &r);
    assert_int_equal(r.status, 200);
    (void)snprintf(status, 16, "%s", reply_text(&r, "status"));
    (void)snprintf(reason, 32, "%s", reply_text(&r, "state_reason"));
}

/* Asks until the status is `wanted`; the reconciler is what changes it. */
static void wait_status(const char *id, const char *wanted, const char *wanted_reason)
{
    int64_t deadline = deadline_in_ms(NOTICE_MS);
    char status[16];
    char reason[32];
    do
        look(id, status, reason);
    while (strcmp(status, wanted) != 0 && clock_mono_ms() < deadline);
    assert_string_equal(status, wanted);
    assert_string_equal(reason, wanted_reason);
}

/* SIGKILL, and waits until it is gone. */
static void kill_hard(pid_t pid)
{
    struct proc_id id;
    struct err e = {0};
    int fd;
    assert_int_equal(proc_identify(pid, &id, &e), 0);
    fd = proc_open(&id, &e);
    assert_true(fd >= 0);
    assert_int_equal(proc_signal(fd, SIGKILL, &e), 0);
    assert_int_equal(proc_wait_gone(fd, deadline_in_ms(10000), &e), 0);
    (void)close(fd);
}

static void picture(struct buf *ret)
{
    buf_reset(ret);
    host_picture(&stack, ret);
}

/* Links and namespaces are prepared ahead, so only their growth beyond that would be a leak; that
 * is checked when the agent has ended. Here: processes, sockets, sandbox folders. */
static bool vm_left(struct buf *now)
{
    picture(now);
    return now->p &&
           (strstr(now->p, "process ") || strstr(now->p, "/sandboxes/") || strstr(now->p, ".shim"));
}

static void assert_no_vm_left(void)
{
    AUTO_BUF struct buf now = BUF_INIT(1 << 20);
    if (vm_left(&now))
        fail_msg("left on the host:\n%s", now.p);
}

/* For what goes on after its row has said so. */
static void wait_no_vm_left(void)
{
    AUTO_BUF struct buf now = BUF_INIT(1 << 20);
    int64_t deadline = deadline_in_ms(NOTICE_MS);
    while (vm_left(&now) && clock_mono_ms() < deadline)
        continue;
    assert_no_vm_left();
}

static void exec_on_stopped_is_a_conflict(const char *id)
{
    AUTO_REPLY struct reply r = {0};
    char path[96];
    (void)snprintf(path, sizeof path, "/v1/sandboxes/%s/exec", id);
    api(&stack, "POST", path, "{\"cmd\":\"true\"}", &r);
    assert_int_equal(r.status, 409);
    assert_string_equal(reply_text(&r, "error.code"), "invalid_state");
    assert_string_equal(reply_text(&r, "error.details.status"), "stopped");
}

static void vm_killed_is_stopped(void **state)
{
    char id[32];
    NEEDS_STACK();
    create_sandbox(&stack, "{}", id);
    kill_hard(find_vmm(id));
    wait_status(id, "stopped", "vm_exited");
    exec_on_stopped_is_a_conflict(id);
    delete_sandbox(&stack, id);
    delete_sandbox(&stack, id);
    assert_no_vm_left();
}

static void shim_killed_takes_its_vm_along(void **state)
{
    char id[32];
    NEEDS_STACK();
    create_sandbox(&stack, "{}", id);
    kill_hard(parent_of(find_vmm(id)));
    wait_status(id, "stopped", "vm_exited");
    assert_int_equal(find_vmm(id), 0);
    delete_sandbox(&stack, id);
    assert_no_vm_left();
}

static void guest_that_powers_off_is_stopped(void **state)
{
    AUTO_REPLY struct reply r = {0};
    char id[32];
    char path[96];
    NEEDS_STACK();
    create_sandbox(&stack, "{}", id);
    (void)snprintf(path, sizeof path, "/v1/sandboxes/%s/exec", id);
    api(&stack, "POST", path, "{\"cmd\":\"poweroff\",\"args\":[\"-f\"]}", &r);
    assert_true(r.status == 200 || r.status == 409 || r.status == 502);
    wait_status(id, "stopped", "vm_exited");
    delete_sandbox(&stack, id);
    assert_no_vm_left();
}

struct creator {
    char id[32];
    int status;
};

static void *create_one(void *arg)
{
    struct creator *c = arg;
    AUTO_REPLY struct reply r = {0};
    api(&stack, "POST", "/v1/sandboxes", "{\"memory_mb\":128}", &r);
    c->status = r.status;
    (void)snprintf(c->id, sizeof c->id, "%s", reply_text(&r, "id"));
    return NULL;
}

static void *delete_one(void *arg)
{
    delete_sandbox(&stack, ((struct creator *)arg)->id);
    return NULL;
}

static void ten_at_once(void **state)
{
    struct creator c[MANY] = {0};
    pthread_t t[MANY];
    NEEDS_STACK();
    for (int i = 0; i < MANY; i++)
        assert_int_equal(pthread_create(&t[i], NULL, create_one, &c[i]), 0);
    for (int i = 0; i < MANY; i++)
        (void)pthread_join(t[i], NULL);
    for (int i = 0; i < MANY; i++)
        assert_int_equal(c[i].status, 201);
    for (int i = 0; i < MANY; i++) {
        AUTO_REPLY struct reply r = {0};
        exec_in(&stack, c[i].id, "{\"cmd\":\"hostname\"}", &r);
        assert_int_equal(strncmp(reply_text(&r, "stdout"), c[i].id, strlen(c[i].id)), 0);
    }
    for (int i = 0; i < MANY; i++)
        assert_int_equal(pthread_create(&t[i], NULL, delete_one, &c[i]), 0);
    for (int i = 0; i < MANY; i++)
        (void)pthread_join(t[i], NULL);
    assert_no_vm_left();
}

/* Sends a create and goes away at once: it is finished, then undone, and nothing is left. */
static void client_that_goes_away_leaves_nothing(void **state)
{
    char request[512];
    struct err e = {0};
    int64_t deadline = deadline_in_ms(30000);
    int n;
    int fd;
    long long count = -1;
    NEEDS_STACK();
    n = snprintf(request, sizeof request,
        "POST /v1/sandboxes HTTP/1.1\r\nHost: x\r\nX-API-Key: %s\r\nContent-Type: "
        "application/json\r\n"
        "Content-Length: 2\r\n\r\n{}",
        stack.key);
    fd = sock_connect_tcp("127.0.0.1", (uint16_t)stack.port, deadline, &e);
    assert_int_equal(io_write_full(fd, request, (size_t)n, deadline, &e), 0);
    (void)close(fd);
    do {
        AUTO_REPLY struct reply r = {0};
        api(&stack, "GET", "/v1/sandboxes?status=stopped", NULL, &r);
        count = 0;
        for (const struct json_value *v = r.json->first; v; v = v->next) {
            const struct json_value *reason = json_get(v, "state_reason");
            count += reason && slice_is(reason->string, "client_gone");
        }
    } while (count == 0 && clock_mono_ms() < deadline);
    assert_int_equal(count, 1);
    wait_no_vm_left();
}

static void exec_says_hello(const char *id)
{
    AUTO_REPLY struct reply r = {0};
    exec_in(&stack, id, "{\"cmd\":\"echo\",\"args\":[\"hello\"]}", &r);
    assert_string_equal(reply_text(&r, "stdout"), "hello\n");
}

/* The agent ends by `sig`; its VMs run on, and the next one answers for them. */
static void agent_ends_and_vms_run_on(int sig)
{
    char id[32];
    char next[32];
    pid_t vmm;
    create_sandbox(&stack, "{}", id);
    vmm = find_vmm(id);
    (void)stack_end(&stack.agent, sig);
    assert_int_equal(find_vmm(id), vmm);
    {
        AUTO_REPLY struct reply r = {0};
        api(&stack, "POST", "/v1/sandboxes", "{}", &r);
        assert_int_equal(r.status, 503);
        assert_string_equal(reply_text(&r, "error.code"), "agent_unavailable");
        assert_string_not_equal(r.retry_after, "");
    }
    stack_start_agent(&stack);
    exec_says_hello(id);
    assert_int_equal(find_vmm(id), vmm);
    create_sandbox(&stack, "{}", next);
    delete_sandbox(&stack, next);
    delete_sandbox(&stack, id);
    assert_no_vm_left();
}

static void agent_killed_loses_nothing(void **state)
{
    NEEDS_STACK();
    agent_ends_and_vms_run_on(SIGKILL);
}

static void agent_restarted_loses_nothing(void **state)
{
    NEEDS_STACK();
    agent_ends_and_vms_run_on(SIGTERM);
}

static void vm_that_dies_without_an_agent_is_stopped(void **state)
{
    char id[32];
    NEEDS_STACK();
    create_sandbox(&stack, "{}", id);
    (void)stack_end(&stack.agent, SIGKILL);
    kill_hard(find_vmm(id));
    stack_start_agent(&stack);
    wait_status(id, "stopped", "vm_exited");
    delete_sandbox(&stack, id);
    assert_no_vm_left();
}

static void control_restarted_knows_everything(void **state)
{
    AUTO_REPLY struct reply r = {0};
    char id[32];
    char key[64];
    NEEDS_STACK();
    create_sandbox(&stack, "{\"metadata\":{\"k\":\"v\"}}", id);
    (void)snprintf(key, sizeof key, "%s", stack.key);
    (void)stack_end(&stack.control, SIGKILL);
    stack_start_control(&stack);
    assert_string_equal(stack.key, key);
    exec_in(&stack, id, "{\"cmd\":\"echo\",\"args\":[\"still here\"]}", &r);
    assert_string_equal(reply_text(&r, "stdout"), "still here\n");
    delete_sandbox(&stack, id);
    assert_no_vm_left();
}

static void unknown_template_makes_nothing(void **state)
{
    AUTO_REPLY struct reply r = {0};
    NEEDS_STACK();
    api(&stack, "POST", "/v1/sandboxes", "{\"template\":\"no-such-template\"}", &r);
    assert_int_equal(r.status, 404);
    assert_no_vm_left();
}

static void stopping_all_leaves_nothing_on_the_host(void **state)
{
    AUTO_BUF struct buf left = BUF_INIT(1 << 20);
    char id[32];
    char folder[160];
    NEEDS_STACK();
    create_sandbox(&stack, "{}", id);
    assert_int_equal(stack_end(&stack.agent, SIGTERM), 0);
    stack_stop_all(&stack);
    picture(&left);
    (void)snprintf(folder, sizeof folder, "%s/sandboxes/%s\n", stack.dir, id);
    assert_non_null(left.p);
    assert_string_equal(left.p, folder); /* the data stays, and nothing else */
    stack_start_agent(&stack);
    wait_status(id, "paused", "requested");
    delete_sandbox(&stack, id);
    assert_no_vm_left();
}

/* With room for one: the second gets 503 and a time to come back, and leaves nothing. */
static void no_room_is_no_capacity(const char *slots, const char *memory_mb)
{
    AUTO_REPLY struct reply r = {0};
    char id[32];
    char next[32];
    assert_int_equal(stack_end(&stack.agent, SIGTERM), 0);
    stack.slots = slots;
    stack.memory_mb = memory_mb;
    stack_start_agent(&stack);
    create_sandbox(&stack, "{}", id);
    api(&stack, "POST", "/v1/sandboxes", "{}", &r);
    assert_int_equal(r.status, 503);
    assert_string_equal(reply_text(&r, "error.code"), "no_capacity");
    assert_string_not_equal(r.retry_after, "");
    delete_sandbox(&stack, id);
    assert_no_vm_left();
    create_sandbox(&stack, "{}", next);
    delete_sandbox(&stack, next);
}

static void no_free_slot(void **state)
{
    NEEDS_STACK();
    no_room_is_no_capacity("1", NULL);
}

static void no_memory_left(void **state)
{
    NEEDS_STACK();
    no_room_is_no_capacity(NULL, "600");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(unknown_template_makes_nothing),
        cmocka_unit_test(vm_killed_is_stopped),
        cmocka_unit_test(shim_killed_takes_its_vm_along),
        cmocka_unit_test(guest_that_powers_off_is_stopped),
        cmocka_unit_test(ten_at_once),
        cmocka_unit_test(client_that_goes_away_leaves_nothing),
        cmocka_unit_test(agent_killed_loses_nothing),
        cmocka_unit_test(agent_restarted_loses_nothing),
        cmocka_unit_test(vm_that_dies_without_an_agent_is_stopped),
        cmocka_unit_test(control_restarted_knows_everything),
        cmocka_unit_test(stopping_all_leaves_nothing_on_the_host),
        cmocka_unit_test(no_free_slot),
        cmocka_unit_test(no_memory_left),
    };
    return cmocka_run_group_tests_name("e2e/lifecycle", tests, setup, teardown);
}
