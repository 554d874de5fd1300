/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sleep over the long run and in bad luck: VMs that die, an agent that is stopped, another QEMU on
 * the host, many cycles. TORPOR_CYCLES is how many, 100 by default.
 */
#include <fcntl.h>
#include <dirent.h>
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
#include "sleep.h"

enum {
    NOTICE_MS = 15000,
    SETTLE_MS = 30000,
    CYCLES = 100,
    CYCLES_FIRST = 20,
    QEMU_MAX = 256 << 20
};

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

static void tell(const char *id, const char *command)
{
    char answer[HOLD_LINE];
    hold(&stack, id, command, answer);
    assert_string_equal(answer, "done");
}

static void assert_no_files(void)
{
    AUTO_BUF struct buf names = BUF_INIT(1 << 20);
    struct disk_use use;
    disk_use(&stack, &use, &names);
    if (use.files > 0)
        fail_msg("left in the data folder:\n%s", names.p);
}

static void resume_how(const char *id, const char *body, int status)
{
    AUTO_REPLY struct reply r = {0};
    act(&stack, id, "resume", body, &r);
    if (r.status != status)
        fail_msg(
            "resume %s answered %d: %.*s", body ? body : "", r.status, (int)r.body.len, r.body.p);
    if (status == 409)
        assert_string_equal(reply_text(&r, "error.code"), "invalid_state");
}

/* --- what dies --- */

static void assert_output(const char *id, const char *script, const char *expected)
{
    AUTO_REPLY struct reply r = {0};
    sh_in(&stack, id, script, &r);
    assert_string_equal(reply_text(&r, "stdout"), expected);
}

static void vm_killed_after_it_woke(void **state)
{
    char id[32];
    char line[HOLD_LINE];
    NEEDS_STACK();
    create_sandbox(&stack, "{\"memory_mb\":256}", id);
    hold_start(&stack, id, 8);
    tell(id, "fill 1");
    hold_check(&stack, id, line);
    assert_output(id, "echo first > /root/version; sync", "");
    pause_sandbox(&stack, id);
    resume_sandbox(&stack, id);
    tell(id, "fill 2");
    assert_output(id, "echo second > /root/version; sync", "");
    kill_hard(find_vmm(id));
    wait_status(&stack, id, "stopped", "vm_exited", NOTICE_MS);
    resume_how(id, NULL, 409);
    resume_how(id, "{\"from\":\"last_generation\"}", 200);
    hold_is(&stack, id, line);
    assert_output(id, "echo 3 > /proc/sys/vm/drop_caches; cat /root/version", "first\n");
    tell(id, "fill 3");
    hold_check(&stack, id, line);
    assert_output(id, "echo third > /root/version; sync", "");
    pause_sandbox(&stack, id); /* what it came from was no dead end */
    resume_sandbox(&stack, id);
    hold_is(&stack, id, line);
    assert_output(id, "echo fourth > /root/version; sync", "");
    kill_hard(find_vmm(id));
    wait_status(&stack, id, "stopped", "vm_exited", NOTICE_MS);
    resume_how(id, "{\"mode\":\"disk\"}", 200);
    assert_output(id, "cat /root/version; pidof guest-hold", "fourth\n");
    delete_sandbox(&stack, id);
    assert_no_files();
}

/* A pause that fails takes nothing of the generation before along. */
static void vm_killed_in_a_pause(void **state)
{
    AUTO_REPLY struct reply r = {0};
    char id[32];
    char line[HOLD_LINE];
    NEEDS_STACK();
    create_sandbox(&stack, "{\"memory_mb\":256}", id);
    hold_start(&stack, id, 8);
    tell(id, "fill 1");
    hold_check(&stack, id, line);
    pause_sandbox(&stack, id);
    stack.crash = "pause/stop/vmm";
    restart_agent(&stack);
    stack.crash = NULL;
    resume_sandbox(&stack, id);
    tell(id, "fill 2");
    act(&stack, id, "pause", NULL, &r);
    assert_true(r.status >= 400);
    wait_status(&stack, id, "stopped", "vm_exited", NOTICE_MS);
    resume_how(id, "{\"from\":\"last_generation\"}", 200);
    hold_is(&stack, id, line);
    pause_sandbox(&stack, id);
    resume_sandbox(&stack, id);
    hold_is(&stack, id, line);
    delete_sandbox(&stack, id);
    assert_no_files();
}

static void never_paused_has_no_generation(void **state)
{
    char id[32];
    NEEDS_STACK();
    create_sandbox(&stack, "{\"memory_mb\":256}", id);
    assert_output(id, "echo kept > /root/version; sync", "");
    kill_hard(find_vmm(id));
    wait_status(&stack, id, "stopped", "vm_exited", NOTICE_MS);
    resume_how(id, NULL, 409);
    resume_how(id, "{\"from\":\"last_generation\"}", 409);
    resume_how(id, "{\"mode\":\"disk\"}", 200);
    assert_output(id, "cat /root/version", "kept\n");
    delete_sandbox(&stack, id);
    assert_no_files();
}

static void sleeping_one_is_removed_at_once(void **state)
{
    char id[32];
    struct disk_use use;
    NEEDS_STACK();
    create_sandbox(&stack, "{\"memory_mb\":256}", id);
    pause_sandbox(&stack, id);
    assert_int_equal(find_vmm(id), 0);
    disk_use(&stack, &use, NULL);
    assert_true(use.files > 0);
    delete_sandbox(&stack, id);
    assert_no_files();
}

/* --- who stops --- */

static void stopped_agent_puts_all_to_sleep(void **state)
{
    char id[2][32];
    char line[2][HOLD_LINE];
    AUTO_BUF struct buf left = BUF_INIT(1 << 20);
    NEEDS_STACK();
    for (int i = 0; i < 2; i++) {
        create_sandbox(&stack, "{\"memory_mb\":256}", id[i]);
        hold_start(&stack, id[i], 4);
        tell(id[i], i == 0 ? "fill 1" : "fill 2");
        hold_check(&stack, id[i], line[i]);
    }
    assert_int_equal(stack_end(&stack.agent, SIGTERM), 0);
    stack_stop_all(&stack);
    host_picture(&stack, &left);
    if (!left.p || strstr(left.p, "process ") || strstr(left.p, "nft ") ||
        strstr(left.p, "/run/") || strstr(left.p, "/sys/"))
        fail_msg("left on the host:\n%s", left.p);
    stack_start_agent(&stack);
    for (int i = 0; i < 2; i++)
        wait_status(&stack, id[i], "paused", "requested", NOTICE_MS);
    for (int i = 0; i < 2; i++) {
        resume_sandbox(&stack, id[i]);
        hold_is(&stack, id[i], line[i]);
        delete_sandbox(&stack, id[i]);
    }
    assert_no_files();
}

/* A copy of the installed QEMU that is not the same file, byte for byte. */
static void make_other_qemu(char path[128])
{
    AUTO_BUF struct buf program = BUF_INIT(QEMU_MAX);
    struct err e = {0};
    (void)snprintf(path, 128, "%s/other-qemu", stack.root);
    if (io_read_file(AT_FDCWD, "/usr/bin/qemu-system-x86_64", &program, &e) < 0)
        fail_msg("%s", e.msg);
    buf_append_char(&program, '\0');
    if (io_replace_file(AT_FDCWD, path, program.p, program.len, 0755, &e) < 0)
        fail_msg("%s", e.msg);
}

static int kept_sets(void)
{
    char path[160];
    int n = 0;
    DIR *d;
    struct dirent *ent;
    (void)snprintf(path, sizeof path, "%s/vmm", stack.dir);
    d = opendir(path);
    assert_non_null(d);
    while ((ent = readdir(d)))
        n += ent->d_name[0] != '.';
    (void)closedir(d);
    return n;
}

/* The agent finds another QEMU than the one that a sandbox sleeps in; that one is nowhere but in
 * what was kept of it. */
static void wakes_without_the_qemu_it_slept_in(void **state)
{
    char qemu[128];
    char id[32];
    char next[32];
    char line[HOLD_LINE];
    NEEDS_STACK();
    make_other_qemu(qemu);
    create_sandbox(&stack, "{\"memory_mb\":256}", id);
    hold_start(&stack, id, 8);
    tell(id, "fill 1");
    hold_check(&stack, id, line);
    pause_sandbox(&stack, id);
    assert_int_equal(kept_sets(), 1);
    stack.qemu = qemu;
    restart_agent(&stack);
    stack.qemu = NULL;
    assert_int_equal(kept_sets(), 2);
    resume_sandbox(&stack, id);
    hold_is(&stack, id, line);
    pause_sandbox(&stack, id); /* and again, in the same one */
    create_sandbox(&stack, "{\"memory_mb\":256}", next);
    pause_sandbox(&stack, next);
    restart_agent(&stack); /* now that other one has gone */
    resume_sandbox(&stack, id);
    hold_is(&stack, id, line);
    resume_sandbox(&stack, next);
    delete_sandbox(&stack, next);
    delete_sandbox(&stack, id);
    assert_no_files();
}

/* --- many cycles --- */

/* What must not grow. */
struct held {
    long long descriptors;
    long long threads;
    long long host; /* lines of its picture: links, namespaces, processes, files */
    struct disk_use disk;
};

static long long count_names(const char *format, pid_t pid)
{
    char path[64];
    long long n = 0;
    DIR *d;
    (void)snprintf(path, sizeof path, format, (int)pid);
    d = opendir(path);
    assert_non_null(d);
    while (readdir(d))
        n++;
    (void)closedir(d);
    return n;
}

static void take_held(struct held *ret)
{
    AUTO_BUF struct buf now = BUF_INIT(1 << 20);
    ret->descriptors = count_names("/proc/%d/fd", stack.agent);
    ret->threads = count_names("/proc/%d/task", stack.agent);
    host_picture(&stack, &now);
    ret->host = 0;
    for (size_t i = 0; i < now.len; i++)
        ret->host += now.p[i] == '\n';
    disk_use(&stack, &ret->disk, NULL);
}

static void print_held(int cycle, const struct held *h, long long ms)
{
    print_message("# cycle %d: descriptors=%lld threads=%lld host=%lld files=%lld bytes=%lld "
                  "ms=%lld\n",
        cycle, h->descriptors, h->threads, h->host, h->disk.files, h->disk.bytes, ms);
}

static void assert_flat(const char *what, long long first, long long last, long long slack)
{
    if (last > first + slack)
        fail_msg("%s grow from %lld to %lld", what, first, last);
}

/* Has every page compared, which must give `ret`; then changes a seventh of them, and has them
 * compared again for the next time. */
static void check_and_change(const char *id, int number, char ret[HOLD_LINE])
{
    AUTO_REPLY struct reply r = {0};
    char script[192];
    const char *text;
    size_t n;
    (void)snprintf(script, sizeof script,
        "cd /tmp && ./guest-hold check && ./guest-hold change %d %d 7 >&2 && ./guest-hold check",
        number + 1, number % 7);
    sh_in(&stack, id, script, &r);
    assert_string_equal(reply_text(&r, "stderr"), "done\n");
    text = reply_text(&r, "stdout");
    n = strcspn(text, "\n");
    if (ret[0] && (strlen(ret) != n || strncmp(text, ret, n) != 0))
        fail_msg("the guest sees %.*s instead of %s", (int)n, text, ret);
    text += n + 1;
    (void)snprintf(ret, HOLD_LINE, "%.*s", (int)strcspn(text, "\n"), text);
    assert_non_null(strstr(ret, " wrong=0 "));
}

/* How long it took. */
static long long pause_and_resume(const char *id)
{
    int64_t began = clock_mono_ms();
    pause_sandbox(&stack, id);
    resume_sandbox(&stack, id);
    return clock_mono_ms() - began;
}

static void many_cycles_cost_what_few_do(void **state)
{
    const char *text = getenv("TORPOR_CYCLES");
    int cycles = text ? (int)strtol(text, NULL, 10) : CYCLES;
    char id[32];
    char line[HOLD_LINE] = "";
    struct held first = {0};
    struct held last;
    NEEDS_STACK();
    create_sandbox(&stack, "{\"memory_mb\":128}", id);
    hold_start(&stack, id, 4);
    for (int i = 0; i < cycles; i++) {
        long long ms;
        check_and_change(id, i, line);
        ms = pause_and_resume(id);
        if (i + 1 == CYCLES_FIRST || i + 1 == cycles) {
            take_held(&last);
            print_held(i + 1, &last, ms);
        }
        if (i + 1 == CYCLES_FIRST)
            first = last;
    }
    hold_is(&stack, id, line);
    assert_flat("descriptors of the agent", first.descriptors, last.descriptors, 8);
    assert_flat("threads of the agent", first.threads, last.threads, 4);
    assert_flat("things of the host", first.host, last.host, 0);
    assert_flat("files in the data folder", first.disk.files, last.disk.files, 40);
    assert_flat("bytes in the data folder", first.disk.bytes, last.disk.bytes, 16 << 20);
    delete_sandbox(&stack, id);
    assert_no_files();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(vm_killed_after_it_woke),
        cmocka_unit_test(vm_killed_in_a_pause),
        cmocka_unit_test(never_paused_has_no_generation),
        cmocka_unit_test(sleeping_one_is_removed_at_once),
        cmocka_unit_test(stopped_agent_puts_all_to_sleep),
        cmocka_unit_test(wakes_without_the_qemu_it_slept_in),
        cmocka_unit_test(many_cycles_cost_what_few_do),
    };
    cmocka_set_test_filter(getenv("TORPOR_TEST")); /* one test, by its name */
    return cmocka_run_group_tests_name("e2e/wake", tests, setup, teardown);
}
