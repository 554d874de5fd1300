/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Runs inside the lab: agent and control plane on a machine with KVM, through the public API. That
 * the agent chose KVM by itself is part of it.
 */
#include <fcntl.h>
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
#include "base/io.h"
#include "e2e/stack.h"

enum { LOG_BYTES_MAX = 16 << 20, CMDLINE_BYTES_MAX = 64 * 1024 };

static struct stack stack;
static char id[32];

/* What the programs wrote goes where the lab keeps it. */
static void keep_log(const char *name)
{
    char from[160];
    char to[256];
    AUTO_BUF struct buf text = BUF_INIT(LOG_BYTES_MAX);
    const char *folder = getenv("LAB_OUT");
    struct err e = {0};
    if (!folder)
        return;
    (void)snprintf(from, sizeof from, "%s/%s.log", stack.root, name);
    (void)snprintf(to, sizeof to, "%s/torpor-%s", folder, name);
    if (io_read_file(AT_FDCWD, from, &text, &e) < 0 ||
        io_replace_file(AT_FDCWD, to, text.p, text.len, 0644, &e) < 0)
        print_message("# no log of %s: %s\n", name, e.msg);
}

static int setup(void **state)
{
    stack_start(&stack);
    return 0;
}

static int teardown(void **state)
{
    keep_log("agent");
    keep_log("control");
    stack_stop(&stack);
    return 0;
}

static void creates(void **state)
{
    create_sandbox(&stack, "{\"memory_mb\":256}", id);
}

/* The command line of the sandbox's VMM, arguments separated by blanks. */
static void vmm_command(struct buf *ret)
{
    char path[64];
    struct err e = {0};
    pid_t pid = find_vmm(id);
    assert_true(pid > 0);
    (void)snprintf(path, sizeof path, "/proc/%d/cmdline", (int)pid);
    if (io_read_file(AT_FDCWD, path, ret, &e) < 0)
        fail_msg("%s", e.msg);
    for (size_t i = 0; i + 1 < ret->len; i++)
        if (ret->p[i] == '\0')
            ret->p[i] = ' ';
}

static void kvm_was_chosen(void **state)
{
    AUTO_BUF struct buf command = BUF_INIT(CMDLINE_BYTES_MAX);
    vmm_command(&command);
    if (!strstr(command.p, " -accel kvm "))
        fail_msg("%s", command.p);
}

static void exec_runs(const char *script, const char *expected)
{
    AUTO_REPLY struct reply r = {0};
    char body[256];
    (void)snprintf(body, sizeof body, "{\"cmd\":\"/bin/sh\",\"args\":[\"-c\",\"%s\"]}", script);
    exec_in(&stack, id, body, &r);
    if (reply_int(&r, "exit_code") != 0 || strcmp(reply_text(&r, "stdout"), expected) != 0)
        fail_msg("%s: %.*s", script, (int)r.body.len, r.body.p);
}

static void executes(void **state)
{
    exec_runs("echo $((6*7))", "42\n");
    /* KVM says who it is; a guest of TCG has the flag too, but no such clock. */
    exec_runs(
        "cat /sys/devices/system/clocksource/clocksource0/current_clocksource", "kvm-clock\n");
}

static void keeps_files(void **state)
{
    AUTO_REPLY struct reply r = {0};
    AUTO_BUF struct buf content = BUF_INIT(1 << 20);
    char path[96];
    for (size_t i = 0; i < 300000; i++)
        buf_append_char(&content, (char)(i * 31 + i / 257));
    write_file(&stack, id, "/tmp/deep/file.bin", buf_slice(&content));
    (void)snprintf(path, sizeof path, "/v1/sandboxes/%s/files/read", id);
    api(&stack, "POST", path, "{\"path\":\"/tmp/deep/file.bin\"}", &r);
    assert_int_equal(r.status, 200);
    assert_int_equal(r.body.len, content.len);
    assert_memory_equal(r.body.p, content.p, content.len);
}

static void leaves_nothing(void **state)
{
    AUTO_BUF struct buf left = BUF_INIT(1 << 20);
    delete_sandbox(&stack, id);
    assert_int_equal(stack_end(&stack.control, SIGTERM), 0);
    assert_int_equal(stack_end(&stack.agent, SIGTERM), 0);
    stack_stop_all(&stack);
    host_picture(&stack, &left);
    if (left.len > 0)
        fail_msg("left on the host:\n%s", left.p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(creates),
        cmocka_unit_test(kvm_was_chosen),
        cmocka_unit_test(executes),
        cmocka_unit_test(keeps_files),
        cmocka_unit_test(leaves_nothing),
    };
    return cmocka_run_group_tests_name("lab/kvm", tests, setup, teardown);
}
