/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Runs inside the lab: agent and control plane on a machine with KVM, through the public API. That
 * the agent chose KVM by itself is part of it. The kernel here has neither PAGEMAP_SCAN nor
 * WP_ASYNC, so written pages are found in the old ways without being told.
 *
 * A boot takes ten seconds here: all tests are about one sandbox, which goes through both ways of
 * memory coming back.
 */
#include <dirent.h>
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
#include "base/clock.h"
#include "base/io.h"
#include "e2e/sleep.h"

enum {
    LOG_BYTES_MAX = 16 << 20,
    PROC_BYTES_MAX = 1 << 20,
    HOLD_MIB = 16,
    NOTICE_MS = 20000,
    /* Long enough to be missed by a clock that stood still. */
    ASLEEP_MS = 1500,
    CLOCK_MS = 100, /* how far the guest's clock may be off beside the time that a resume took */
    TICK_MS = 50,   /* guest_hold.c */
};

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

/* A file of the VMM below /proc. NULs become blanks. */
static void read_vmm(const char *sandbox, const char *name, struct buf *ret)
{
    char path[64];
    struct err e = {0};
    pid_t pid = find_vmm(sandbox);
    assert_true(pid > 0);
    (void)snprintf(path, sizeof path, "/proc/%d/%s", (int)pid, name);
    if (io_read_file(AT_FDCWD, path, ret, &e) < 0)
        fail_msg("%s", e.msg);
    for (size_t i = 0; i < ret->len; i++)
        if (ret->p[i] == '\0')
            ret->p[i] = ' ';
    buf_append_char(ret, '\0');
}

static void kvm_was_chosen(void **state)
{
    AUTO_BUF struct buf command = BUF_INIT(PROC_BYTES_MAX);
    read_vmm(id, "cmdline", &command);
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

/* KVM says who it is; a guest of TCG has the flag too, but no such clock. */
static void has_kvm_clock(void)
{
    exec_runs(
        "cat /sys/devices/system/clocksource/clocksource0/current_clocksource", "kvm-clock\n");
}

static void executes(void **state)
{
    exec_runs("echo $((6*7))", "42\n");
    has_kvm_clock();
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

/* --- sleep and wake --- */

/* What the guest's memory holds, and a live snapshot held, as guest-hold says it. */
static char now[HOLD_LINE];

/* Writes some pages, empties some in both ways: others each time, and some again. */
static void change_some(void)
{
    static unsigned round;
    AUTO_REPLY struct reply r = {0};
    char script[192];
    round++;
    (void)snprintf(script, sizeof script,
        "cd /tmp; ./guest-hold change %u 1 5; ./guest-hold zero %u 11; ./guest-hold drop %u 13",
        round + 1, round, round + 3);
    sh_in(&stack, id, script, &r);
    assert_string_equal(reply_text(&r, "stdout"), "done\ndone\ndone\n");
    hold_check(&stack, id, now);
}

/* Whether its VMM's memory is mapped from blobs, or served by faults. */
static void comes_back_as(const char *sandbox, const char *memory)
{
    AUTO_BUF struct buf maps = BUF_INIT(PROC_BYTES_MAX);
    read_vmm(sandbox, "maps", &maps);
    assert_int_equal(strstr(maps.p, "/blobs/") != NULL, strcmp(memory, "file") == 0);
}

/* What the guest says of time, and when it was asked, by this machine's clock. */
struct times {
    long long before_ms;
    long long guest_ms;
    long long after_ms;
    unsigned long ticks; /* of a timer, one each TICK_MS */
};

static struct times ask_time(void)
{
    struct times t = {.before_ms = clock_real_ms()};
    char answer[HOLD_LINE];
    hold(&stack, id, "clock", answer);
    t.after_ms = clock_real_ms();
    assert_int_equal(sscanf(answer, "%lld %lu", &t.guest_ms, &t.ticks), 2);
    return t;
}

/* Sleeps, wakes in that way, and goes on. The clock is that of some moment of the resume, which is
 * as exact as it is on any busy machine; for the guest's timers no time has passed. */
static void sleeps(const char *memory)
{
    const struct times asleep = ask_time();
    struct times awake;
    long long paused_ms;
    long long resumed_ms;
    long long took_ms;
    pause_sandbox(&stack, id);
    paused_ms = clock_real_ms();
    assert_int_equal(find_vmm(id), 0);
    if (!stack.memory || strcmp(stack.memory, memory) != 0) {
        stack.memory = memory;
        restart_agent(&stack);
    }
    stays(&stack, id, "paused", ASLEEP_MS);
    resumed_ms = clock_real_ms();
    resume_sandbox(&stack, id);
    took_ms = clock_real_ms() - resumed_ms;
    comes_back_as(id, memory);
    awake = ask_time();
    assert_in_range(
        awake.guest_ms, awake.before_ms - took_ms - CLOCK_MS, awake.after_ms + CLOCK_MS);
    assert_in_range((awake.ticks - asleep.ticks) * TICK_MS, TICK_MS,
        awake.after_ms - asleep.before_ms - (resumed_ms - paused_ms) + TICK_MS);
    hold_is(&stack, id, now);
    has_kvm_clock();
}

/* A live snapshot between two changes: the sandbox has both, its spawn the first. */
static void is_spawned_from(const char *name)
{
    char then[HOLD_LINE];
    char spawn[32];
    change_some();
    memcpy(then, now, sizeof then);
    make_snapshot(&stack, id, name, "");
    change_some();
    spawn_from(&stack, name, spawn);
    comes_back_as(spawn, stack.memory);
    hold_is(&stack, spawn, then);
    delete_sandbox(&stack, spawn);
    delete_snapshot(&stack, name);
    hold_is(&stack, id, now);
}

static void sleeps_mapped(void **state)
{
    hold_start(&stack, id, HOLD_MIB);
    hold(&stack, id, "fill 1", now);
    assert_string_equal(now, "done");
    change_some();
    sleeps("file");
}

static void is_spawned_from_mapped(void **state)
{
    is_spawned_from("mapped");
}

static void sleeps_by_faults(void **state)
{
    sleeps("uffd");
}

static void is_spawned_from_by_faults(void **state)
{
    is_spawned_from("by-faults");
}

/* The first manifest in the data folder; the sandbox has one. */
static void read_manifest(struct buf *ret)
{
    struct err e = {0};
    char path[512];
    const struct dirent *ent;
    DIR *d;
    (void)snprintf(path, sizeof path, "%s/generations", stack.dir);
    d = opendir(path);
    assert_non_null(d);
    while ((ent = readdir(d)) && ret->len == 0) {
        (void)snprintf(
            path, sizeof path, "%s/generations/%s/manifest.json", stack.dir, ent->d_name);
        if (ent->d_name[0] != '.' && io_read_file(AT_FDCWD, path, ret, &e) < 0)
            fail_msg("%s", e.msg);
    }
    (void)closedir(d);
}

/* The host's flags, all of them, so that a host without one can refuse. */
static void facts_are_recorded(void **state)
{
    AUTO_BUF struct buf cpuinfo = BUF_INIT(PROC_BYTES_MAX);
    AUTO_REPLY struct reply manifest = {.body = BUF_INIT(PROC_BYTES_MAX)};
    struct err e = {0};
    char *flags;
    assert_int_equal(io_read_file(AT_FDCWD, "/proc/cpuinfo", &cpuinfo, &e), 0);
    buf_append_char(&cpuinfo, '\0');
    flags = strstr(cpuinfo.p, "\nflags");
    assert_non_null(flags);
    flags = strchr(flags, ':') + 2;
    flags[strcspn(flags, "\n")] = '\0';
    read_manifest(&manifest.body);
    arena_init(&manifest.arena, PROC_BYTES_MAX);
    assert_int_equal(json_parse(buf_slice(&manifest.body), &manifest.arena, &manifest.json, &e), 0);
    assert_string_equal(reply_text(&manifest, "machine.accel"), "kvm");
    assert_string_equal(reply_text(&manifest, "machine.cpu"), "host");
    assert_string_equal(reply_text(&manifest, "machine.cpu_flags"), flags);
    assert_non_null(strstr(flags, " svm "));
}

/* Empties every blob, under the shim that serves it. */
static void lose_blobs(void)
{
    char path[512];
    const struct dirent *ent;
    DIR *d;
    (void)snprintf(path, sizeof path, "%s/blobs", stack.dir);
    d = opendir(path);
    assert_non_null(d);
    while ((ent = readdir(d))) {
        AUTO_CLOSE int fd = -1;
        if (ent->d_name[0] == '.')
            continue;
        fd = openat(dirfd(d), ent->d_name, O_WRONLY | O_TRUNC | O_CLOEXEC);
        assert_true(fd >= 0);
    }
    (void)closedir(d);
}

/* A vCPU that waits for its page inside of KVM does not hang: its VM is killed, and that is said.
 */
static void ends_when_a_page_is_lost(void **state)
{
    AUTO_BUF struct buf text = BUF_INIT(LOG_BYTES_MAX);
    struct err e = {0};
    char path[160];
    pause_sandbox(&stack, id);
    resume_sandbox(&stack, id);
    lose_blobs();
    (void)snprintf(path, sizeof path, "/v1/sandboxes/%s/exec", id);
    (void)api_try(&stack, "POST", path, "{\"cmd\":\"/tmp/guest-hold\",\"args\":[\"check\"]}");
    wait_status(&stack, id, "stopped", "vm_exited", NOTICE_MS);
    (void)snprintf(path, sizeof path, "%s/agent.log", stack.root);
    assert_int_equal(io_read_file(AT_FDCWD, path, &text, &e), 0);
    buf_append_char(&text, '\0');
    assert_non_null(strstr(text.p, "a page of its memory could not be served"));
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
        cmocka_unit_test(sleeps_mapped),
        cmocka_unit_test(is_spawned_from_mapped),
        cmocka_unit_test(facts_are_recorded),
        cmocka_unit_test(sleeps_by_faults),
        cmocka_unit_test(is_spawned_from_by_faults),
        cmocka_unit_test(ends_when_a_page_is_lost),
        cmocka_unit_test(leaves_nothing),
    };
    return cmocka_run_group_tests_name("lab/kvm", tests, setup, teardown);
}
