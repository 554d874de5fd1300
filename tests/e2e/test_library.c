/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A host whose preloaded library does not take hold in QEMU: the agent finds it out at its start,
 * and sandboxes sleep and wake all the same, as do those of before and after.
 */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/io.h"
#include "sleep.h"

enum { HOLD_MIB = 32 };

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

static void expect_way(const char *way)
{
    AUTO_BUF struct buf text = BUF_INIT(8192);
    struct err e = {0};
    char path[128];
    (void)snprintf(path, sizeof path, "%s/memory.json", stack.dir);
    if (io_read_file(AT_FDCWD, path, &text, &e) < 0)
        fail_msg("%s", e.msg);
    buf_append_char(&text, '\0');
    print_message("%s", text.p);
    assert_non_null(strstr(text.p, way));
}

static void sleep_and_wake(const char *id, const char *expected)
{
    pause_sandbox(&stack, id);
    resume_sandbox(&stack, id);
    hold_is(&stack, id, expected);
}

/* Boots, sleeps twice with something new in between, is spawned from, and wakes under an agent
 * whose library does take hold. */
static void test_sleeps_without_library(void **state)
{
    char before[32];
    char id[32];
    char spawned[32];
    char held[HOLD_LINE];
    char ignored[HOLD_LINE];
    if (unavailable) {
        print_message("skip: %s\n", unavailable);
        skip();
    }
    create_sandbox(&stack, "{\"memory_mb\":128}", before);
    expect_way("\"way\":\"private\"");
    pause_sandbox(&stack, before);
    stack.library = EMPTY_LIBRARY;
    restart_agent(&stack);
    create_sandbox(&stack, "{\"memory_mb\":256}", id);
    expect_way("\"way\":\"copied\"");
    hold_start(&stack, id, HOLD_MIB);
    hold_check(&stack, id, held);
    sleep_and_wake(id, held);
    hold(&stack, id, "zero 3 1000", ignored);
    hold_check(&stack, id, held);
    make_snapshot(&stack, id, "without-library", "");
    hold_is(&stack, id, held);
    sleep_and_wake(id, held);
    spawn_from(&stack, "without-library", spawned);
    hold_is(&stack, spawned, held);
    delete_sandbox(&stack, spawned);
    resume_sandbox(&stack, before);
    pause_sandbox(&stack, id);
    stack.library = NULL;
    restart_agent(&stack);
    resume_sandbox(&stack, id);
    hold_is(&stack, id, held);
    sleep_and_wake(id, held);
    delete_snapshot(&stack, "without-library");
    delete_sandbox(&stack, id);
    delete_sandbox(&stack, before);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sleeps_without_library),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
