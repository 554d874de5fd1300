/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sandboxes outlive their agent, also another build of it, and those that sleep the machine's
 * power. What runs under one build's shim is adopted by another build's agent, in both directions.
 * TORPOR_OLD_BUILD names the build folder of an older version; by default it is a copy of this
 * build in another place.
 */
#include <dirent.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/io.h"
#include "host.h"
#include "sleep.h"

enum { NOTICE_MS = 15000, HOLD_MIB = 8, PROGRAM_MAX = 256 << 20 };

static struct stack stack;
static const char *unavailable;
static char old_agent[160];
static char old_shim[160];
static char old_library[160];

/* One program of the older build, where the settings of an agent can name it. */
static void copy_program(const char *name, char ret_path[160])
{
    const char *build = getenv("TORPOR_OLD_BUILD");
    AUTO_BUF struct buf program = BUF_INIT(PROGRAM_MAX);
    struct err e = {0};
    char from[512];
    (void)snprintf(from, sizeof from, "%s/src/%s", build ? build : BUILD_ROOT, name);
    (void)snprintf(ret_path, 160, "%s/old%s", stack.root, strrchr(name, '/'));
    if (io_read_file(AT_FDCWD, from, &program, &e) < 0 ||
        io_replace_file(AT_FDCWD, ret_path, program.p, program.len, 0755, &e) < 0)
        fail_msg("%s", e.msg);
}

static int setup(void **state)
{
    char folder[160];
    unavailable = stack_unavailable();
    if (unavailable)
        return 0;
    stack_start(&stack);
    (void)snprintf(folder, sizeof folder, "%s/old", stack.root);
    assert_int_equal(mkdir(folder, 0755), 0);
    copy_program("agent/torpor-agent", old_agent);
    copy_program("shim/torpor-shim", old_shim);
    copy_program("preload/torpor-memory.so", old_library);
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

static void use_old(bool old)
{
    stack.program = old ? old_agent : NULL;
    stack.shim = old ? old_shim : NULL;
    stack.library = old ? old_library : NULL;
    restart_agent(&stack);
}

struct held {
    char id[32];
    char line[HOLD_LINE];
};

static void make_held(struct held *h, int number)
{
    char command[32];
    create_sandbox(&stack, "{\"memory_mb\":128}", h->id);
    hold_start(&stack, h->id, HOLD_MIB);
    (void)snprintf(command, sizeof command, "fill %d", number);
    hold(&stack, h->id, command, h->line);
    hold_check(&stack, h->id, h->line);
}

static void cycle(const struct held *h)
{
    hold_is(&stack, h->id, h->line);
    pause_sandbox(&stack, h->id);
    resume_sandbox(&stack, h->id);
    hold_is(&stack, h->id, h->line);
}

/* Fails unless `pid` runs a program of the older build, or one of this build. */
static void assert_build(pid_t pid, bool old)
{
    char path[64];
    char exe[512];
    char folder[160];
    ssize_t n;
    (void)snprintf(path, sizeof path, "/proc/%d/exe", (int)pid);
    (void)snprintf(folder, sizeof folder, "%s/old/", stack.root);
    n = readlink(path, exe, sizeof exe - 1);
    assert_true(n > 0);
    exe[n] = '\0';
    if ((strncmp(exe, folder, strlen(folder)) == 0) != old)
        fail_msg("%s runs", exe);
}

/* From one build to the other: one sandbox runs on in its VM under its shim, one sleeps. */
static void change_build(bool to_old)
{
    struct held runs;
    struct held sleeps;
    pid_t vmm;
    pid_t shim;
    int64_t ready_ms;
    use_old(!to_old);
    make_held(&runs, 1);
    make_held(&sleeps, 2);
    cycle(&runs); /* its memory comes from its shim */
    pause_sandbox(&stack, sleeps.id);
    vmm = find_vmm(runs.id);
    shim = parent_of(vmm);
    assert_build(shim, !to_old);
    use_old(to_old);
    assert_build(stack.agent, to_old);
    ready_ms = clock_mono_ms();
    hold_is(&stack, runs.id, runs.line);
    print_message("# exec answers %lld ms after the new agent was ready\n",
        (long long)(clock_mono_ms() - ready_ms));
    assert_int_equal(find_vmm(runs.id), vmm);
    assert_int_equal(parent_of(vmm), shim);
    resume_sandbox(&stack, sleeps.id);
    cycle(&sleeps);
    make_snapshot(&stack, runs.id, "live", ""); /* through the shim of the other build */
    delete_snapshot(&stack, "live");
    cycle(&runs);
    delete_sandbox(&stack, runs.id);
    delete_sandbox(&stack, sleeps.id);
}

static void newer_agent_takes_over(void **state)
{
    NEEDS_STACK();
    change_build(/* to_old= */ false);
}

static void older_agent_takes_over(void **state)
{
    NEEDS_STACK();
    change_build(/* to_old= */ true);
    use_old(false);
}

/* --- SIGTERM in the middle of a pause --- */

static void *run_pause(void *arg)
{
    char path[96];
    static int status; /* one at a time */
    (void)snprintf(path, sizeof path, "/v1/sandboxes/%s/pause", (const char *)arg);
    status = api_try(&stack, "POST", path, NULL);
    return &status;
}

/* The agent stands still behind that step when the signal comes; then it ends the pause first. */
static void end_agent_in_pause(const struct held *h, const char *step)
{
    char crash[64];
    siginfo_t info = {0};
    pthread_t t;
    void *ret;
    (void)snprintf(crash, sizeof crash, "pause/%s/stop", step);
    stack.crash = crash;
    restart_agent(&stack);
    stack.crash = NULL;
    assert_int_equal(pthread_create(&t, NULL, run_pause, (void *)(uintptr_t)h->id), 0);
    assert_int_equal(waitid(P_PID, (id_t)stack.agent, &info, WEXITED | WSTOPPED), 0);
    assert_int_equal(info.si_code, CLD_STOPPED);
    assert_int_equal(kill(stack.agent, SIGTERM), 0);
    assert_int_equal(kill(stack.agent, SIGCONT), 0);
    assert_int_equal(stack_end(&stack.agent, SIGTERM), 0);
    assert_int_equal(pthread_join(t, &ret), 0);
    assert_int_equal(find_vmm(h->id), 0);
    stack_start_agent(&stack);
    wait_status(&stack, h->id, "paused", "requested", NOTICE_MS);
    assert_int_equal(*(int *)ret, 200);
    resume_sandbox(&stack, h->id);
    hold_is(&stack, h->id, h->line);
}

static void agent_ended_in_a_pause(void **state)
{
    struct held h;
    NEEDS_STACK();
    make_held(&h, 1);
    end_agent_in_pause(&h, "quiesce");
    end_agent_in_pause(&h, "memory");
    end_agent_in_pause(&h, "commit");
    delete_sandbox(&stack, h.id);
}

static void drained_ones_sleep(void **state)
{
    struct held h[3];
    NEEDS_STACK();
    for (int i = 0; i < 3; i++)
        make_held(&h[i], i + 1);
    assert_int_equal(stack_drain(&stack), 1); /* an agent serves them */
    hold_is(&stack, h[0].id, h[0].line);
    assert_int_equal(stack_end(&stack.agent, SIGTERM), 0);
    assert_int_equal(stack_drain(&stack), 0);
    for (int i = 0; i < 3; i++)
        assert_int_equal(find_vmm(h[i].id), 0);
    stack_start_agent(&stack);
    for (int i = 0; i < 3; i++) {
        wait_status(&stack, h[i].id, "paused", "requested", NOTICE_MS);
        resume_sandbox(&stack, h[i].id);
        hold_is(&stack, h[i].id, h[i].line);
        delete_sandbox(&stack, h[i].id);
    }
}

/* --- reboot --- */

static void run(const char *const *argv)
{
    AUTO_BUF struct buf ignored = BUF_INIT(1 << 16);
    host_capture(argv, &ignored);
}

/* What a reboot takes of the network: namespaces with their links, and rules. */
static void forget_network(void)
{
    char prefix[16];
    char table[16];
    const char *const nft[] = {"/usr/sbin/nft", "delete", "table", "inet", table, NULL};
    DIR *d = opendir("/run/netns");
    const struct dirent *ent;
    (void)snprintf(prefix, sizeof prefix, "tp%u-", stack.instance);
    (void)snprintf(table, sizeof table, "tp%u", stack.instance);
    while (d && (ent = readdir(d))) {
        const char *const ip[] = {"/usr/sbin/ip", "netns", "del", ent->d_name, NULL};
        if (strncmp(ent->d_name, prefix, strlen(prefix)) == 0)
            run(ip);
    }
    if (d)
        (void)closedir(d);
    run(nft);
}

/* All processes die at once, then everything is gone that is not on a disk. */
static void reboot(const pid_t *vmms, size_t n)
{
    char name[16];
    struct err e = {0};
    AUTO_CLOSE int base = open(stack.run_base, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    (void)stack_end(&stack.control, SIGKILL);
    (void)stack_end(&stack.agent, SIGKILL);
    for (size_t i = 0; i < n; i++) {
        pid_t shim = parent_of(vmms[i]);
        kill_hard(vmms[i]);
        if (parent_of(shim) != 0)
            kill_hard(shim);
    }
    forget_network();
    (void)snprintf(name, sizeof name, "%u", stack.instance);
    assert_int_equal(io_remove_tree(base, name, &e), 0);
    (void)snprintf(name, sizeof name, "%u.lock", stack.instance);
    (void)unlinkat(base, name, 0);
}

static void sleepers_outlive_a_reboot(void **state)
{
    struct held sleeps;
    struct held ran;
    struct held fresh;
    pid_t vmms[2];
    AUTO_REPLY struct reply r = {0};
    char answer[HOLD_LINE];
    NEEDS_STACK();
    make_held(&sleeps, 1);
    make_held(&ran, 2);
    pause_sandbox(&stack, sleeps.id);
    cycle(&ran);
    hold(&stack, ran.id, "change 3 0 5", answer); /* after its last generation */
    create_sandbox(&stack, "{\"memory_mb\":128}", fresh.id);
    vmms[0] = find_vmm(ran.id);
    vmms[1] = find_vmm(fresh.id);
    reboot(vmms, 2);
    stack_start_agent(&stack);
    stack_start_control(&stack);
    wait_status(&stack, ran.id, "stopped", "vm_exited", NOTICE_MS);
    wait_status(&stack, fresh.id, "stopped", "vm_exited", NOTICE_MS);
    wait_status(&stack, sleeps.id, "paused", "requested", NOTICE_MS);
    resume_sandbox(&stack, sleeps.id);
    cycle(&sleeps);
    act(&stack, ran.id, "resume", "{\"from\":\"last_generation\"}", &r);
    assert_int_equal(r.status, 200);
    cycle(&ran);
    delete_sandbox(&stack, fresh.id);
    delete_sandbox(&stack, ran.id);
    delete_sandbox(&stack, sleeps.id);
}

static void nothing_is_left(void **state)
{
    AUTO_BUF struct buf names = BUF_INIT(1 << 20);
    AUTO_BUF struct buf left = BUF_INIT(1 << 20);
    struct disk_use use;
    NEEDS_STACK();
    disk_use(&stack, &use, &names);
    if (use.files > 0)
        fail_msg("left in the data folder:\n%s", names.p);
    host_picture(&stack, &left);
    if (strstr(left.p, "process ") || strstr(left.p, ".shim"))
        fail_msg("left on the host:\n%s", left.p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(newer_agent_takes_over),
        cmocka_unit_test(older_agent_takes_over),
        cmocka_unit_test(agent_ended_in_a_pause),
        cmocka_unit_test(drained_ones_sleep),
        cmocka_unit_test(sleepers_outlive_a_reboot),
        cmocka_unit_test(nothing_is_left),
    };
    cmocka_set_test_filter(getenv("TORPOR_TEST")); /* one test, by its name */
    return cmocka_run_group_tests_name("e2e/upgrade", tests, setup, teardown);
}
