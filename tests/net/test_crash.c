/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kill -9 at every step. A victim (this program again) lives the whole life of an agent: it opens,
 * takes slots, sets a policy, gives one back, leaves, opens again with what it holds, closes. In
 * the n-th step of its helper the helper, the victim or both are killed. Then the next agent must
 * find what the victim held, and leave the host as it was before. Most of the time passes in the
 * kernel's grace periods, so the steps are shared among processes, each in a world of its own.
 */
#include "world.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/io.h"
#include "base/proc.h"

#define PLAN_FILE "/run/kill-plan" /* steps to go, and whom to kill then */
#define HELD_FILE "/run/held"      /* a byte for each slot that "runs a VM" */

enum { SLOTS = 3, KILL_HELPER = 1, KILL_AGENT = 2, KILL_BOTH = 3, STEPS_MAX = 300, SHARDS = 4 };

static const char *no_world;
static int shard; /* of this process */

#define NEEDS_WORLD()                                                                              \
    do {                                                                                           \
        if (no_world) {                                                                            \
            print_message("skipped: %s\n", no_world);                                              \
            skip();                                                                                \
        }                                                                                          \
    } while (0)

struct kill_plan {
    int steps;
    int whom;
};

/* In the helper, and in the test. */
static bool read_plan(struct kill_plan *p)
{
    AUTO_CLOSE int fd = open(PLAN_FILE, O_RDONLY | O_CLOEXEC);
    return fd >= 0 && read(fd, p, sizeof *p) == (ssize_t)sizeof *p;
}

static void write_plan(const struct kill_plan *p)
{
    AUTO_CLOSE int fd = open(PLAN_FILE, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (write(fd, p, sizeof *p) != (ssize_t)sizeof *p)
        abort();
}

static pid_t agent; /* of this helper */

/* Counts the steps of all helpers of one victim. */
static void at_point(const char *name)
{
    struct kill_plan p;
    (void)name;
    if (!read_plan(&p))
        return;
    if (--p.steps > 0) {
        write_plan(&p);
        return;
    }
    (void)unlink(PLAN_FILE);
    if (p.whom & KILL_AGENT && getppid() == agent)
        (void)kill(agent, SIGKILL);
    if (p.whom & KILL_HELPER)
        (void)raise(SIGKILL);
}

static size_t read_held(unsigned held[SLOTS])
{
    uint8_t bytes[SLOTS];
    AUTO_CLOSE int fd = open(HELD_FILE, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? 0 : read(fd, bytes, sizeof bytes);
    for (ssize_t i = 0; i < n; i++)
        held[i] = bytes[i];
    return n < 0 ? 0 : (size_t)n;
}

/* In the victim; each returns false on an error, which only a killed helper may cause. */
static bool complain(const struct err *e)
{
    (void)fprintf(stderr, "victim: %s\n", e->msg);
    return false;
}

static bool hold(struct net_pool *p)
{
    struct err e = {0};
    struct net_slot s;
    if (net_slot_acquire(p, deadline_in_ms(WORLD_WAIT_MS), &s, &e) < 0)
        return complain(&e);
    uint8_t byte = (uint8_t)s.index;
    AUTO_CLOSE int fd = open(HELD_FILE, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (write(fd, &byte, 1) != 1)
        return false;
    return net_slot_set_policy(p, s.index, NET_POLICY_NONE, &e) == 0 || complain(&e);
}

/* Waits until the slot came back, so that recycling is among the steps. */
static bool take_and_give(struct net_pool *p)
{
    struct err e = {0};
    struct net_slot s;
    for (int i = 0; i < 2; i++)
        if (net_slot_acquire(p, deadline_in_ms(WORLD_WAIT_MS), &s, &e) < 0 ||
            net_slot_release(p, s.index, &e) < 0)
            return complain(&e);
    return true;
}

static struct net_pool *open_with(const unsigned *keep, size_t n, struct err *e)
{
    struct net_config c = world_config(0, SLOTS, 1);
    c.keep = keep;
    c.n_keep = n;
    return net_pool_open(&c, e);
}

static bool first_life(void)
{
    struct err e = {0};
    struct net_pool *p = open_with(NULL, 0, &e);
    if (!p)
        return complain(&e);
    bool ok = hold(p) && take_and_give(p);
    return (net_pool_leave(p, &e) == 0 || complain(&e)) && ok;
}

static bool second_life(void)
{
    struct err e = {0};
    struct net_slot s;
    unsigned held[SLOTS];
    size_t n = read_held(held);
    struct net_pool *p = open_with(held, n, &e);
    if (!p)
        return complain(&e);
    for (size_t i = 0; i < n; i++)
        if (net_slot_adopt(p, held[i], &s, &e) < 0)
            return complain(&e);
    bool ok = hold(p) && take_and_give(p);
    (void)unlink(HELD_FILE); /* its VMs have ended */
    return (net_pool_close(p, &e) == 0 || complain(&e)) && ok;
}

static int victim(void)
{
    return first_life() && second_life() ? 0 : 3;
}

static int run_victim(void)
{
    struct err e = {0};
    char *argv[] = {(char *)"victim", (char *)"victim", NULL};
    const int fds[] = {-1, STDOUT_FILENO, STDERR_FILENO};
    const struct proc_spawn s = {.path = world_self(), .argv = argv, .fds = fds, .n_fds = 3};
    pid_t pid;
    int status;
    assert_int_equal(proc_spawn(&s, &pid, &e), 0);
    assert_int_equal(proc_reap(pid, &status, &e), 0);
    return status;
}

static void snapshot(struct buf *dst)
{
    const struct dirent *entry;
    DIR *dir = opendir("/run/torpor");
    world_snapshot(dst);
    while (dir && (entry = readdir(dir)))
        if (entry->d_name[0] != '.')
            buf_printf(dst, "lock %s\n", entry->d_name);
    if (dir)
        (void)closedir(dir);
    buf_append_char(dst, 0);
}

/* The next agent: adopts all that was held, with its policy, then removes all. */
static void next_agent(int steps)
{
    struct err e = {0};
    struct net_slot s;
    unsigned held[SLOTS];
    struct net_policies policies;
    struct net_plan plan;
    const struct net_config c = world_config(0, SLOTS, 1);
    size_t n = read_held(held);
    assert_int_equal(net_plan_make(&c, &plan, &e), 0);
    struct net_pool *p = open_with(held, n, &e);
    if (!p)
        fail_msg("killed at step %d, then: %s", steps, e.msg);
    for (size_t i = 0; i < n; i++)
        if (net_slot_adopt(p, held[i], &s, &e) < 0)
            fail_msg("killed at step %d, then: %s", steps, e.msg);
    assert_int_equal(net_policies_read(&plan, &policies, &e), 0);
    for (size_t i = 0; i < n; i++)
        assert_true(policies.of[held[i]] >= 0);
    if (net_pool_close(p, &e) < 0)
        fail_msg("killed at step %d, then: %s", steps, e.msg);
    (void)unlink(HELD_FILE);
}

static void assert_clean(int steps, const struct buf *before)
{
    AUTO_BUF struct buf after = BUF_INIT(1 << 20);
    snapshot(&after);
    if (strcmp(after.p, before->p) != 0)
        fail_msg("killed at step %d, there is left:\n%s", steps, after.p);
}

/* False when the victim ended by itself: there are no more steps. */
static bool kill_at(int steps, int whom, const struct buf *before)
{
    struct kill_plan p = {.steps = steps, .whom = whom};
    write_plan(&p);
    int status = run_victim();
    bool killed = !read_plan(&p);
    (void)unlink(PLAN_FILE);
    if (!killed)
        assert_int_equal(status, 0);
    else if (whom & KILL_AGENT)
        assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    else
        assert_true(WIFEXITED(status)); /* it went on, or told what failed */
    next_agent(steps);
    assert_clean(steps, before);
    return killed;
}

static void sweep_steps(int whom, int first, int stride)
{
    AUTO_BUF struct buf before = BUF_INIT(1 << 20);
    int steps = first + shard * stride;
    next_agent(/* steps= */ 0); /* makes what stays: the folder of locks */
    snapshot(&before);
    while (steps < STEPS_MAX && kill_at(steps, whom, &before))
        steps += SHARDS * stride;
    print_message("  %d steps\n", steps);
    assert_true(steps > 30 && steps < STEPS_MAX);
}

static void test_kill_both(void **state)
{
    (void)state;
    NEEDS_WORLD();
    sweep_steps(KILL_BOTH, 1, 1);
}

static void test_kill_helper(void **state)
{
    (void)state;
    NEEDS_WORLD();
    sweep_steps(KILL_HELPER, 2, 6);
}

static void test_kill_agent(void **state)
{
    (void)state;
    NEEDS_WORLD();
    sweep_steps(KILL_AGENT, 3, 6);
}

/* nft that works on for a killed helper holds the lock: no other begins before it has ended. */
static void test_orphaned_nft_holds_the_lock(void **state)
{
    (void)state;
    NEEDS_WORLD();
    AUTO_BUF struct buf rules = BUF_INIT(64);
    struct err e = {0};
    assert_int_equal(mkfifo("/run/fifo", 0600), 0);
    AUTO_CLOSE int lock = open("/run/lock-test", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    assert_int_equal(flock(lock, LOCK_EX), 0);
    buf_append_cstr(&rules, "include \"/run/fifo\"\n");
    pid_t pid = fork();
    if (pid == 0) {
        net_nft_hold(lock);
        _exit(net_nft_load(&rules, &e) < 0);
    }
    (void)close(TAKE_FD(lock));
    /* Opens once nft reads it. */
    AUTO_CLOSE int fifo = open("/run/fifo", O_WRONLY | O_CLOEXEC);
    assert_true(fifo >= 0);
    assert_int_equal(kill(pid, SIGKILL), 0);
    assert_int_equal(waitpid(pid, NULL, 0), pid);
    AUTO_CLOSE int next = open("/run/lock-test", O_RDWR | O_CLOEXEC);
    assert_int_equal(flock(next, LOCK_EX | LOCK_NB), -1);
    assert_int_equal(errno, EWOULDBLOCK);
    (void)close(TAKE_FD(fifo)); /* nft ends */
    assert_int_equal(flock(next, LOCK_EX), 0);
}

static int helper(int argc, char **argv)
{
    agent = getppid();
    net_point_hook = at_point;
    return net_helper_main(argc, argv);
}

static int run_shard(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_kill_both),
        cmocka_unit_test(test_kill_helper),
        cmocka_unit_test(test_kill_agent),
        cmocka_unit_test(test_orphaned_nft_holds_the_lock),
    };
    no_world = world_open();
    return cmocka_run_group_tests_name("net crash", tests, NULL, NULL);
}

static int run_shards(void)
{
    pid_t pids[SHARDS];
    int failed = 0;
    for (shard = 0; shard < SHARDS; shard++) {
        pids[shard] = fork();
        if (pids[shard] == 0)
            exit(run_shard());
    }
    for (int i = 0; i < SHARDS; i++) {
        int status = 1;
        if (pids[i] < 0 || waitpid(pids[i], &status, 0) < 0 || status != 0)
            failed = 1;
    }
    return failed;
}

int main(int argc, char **argv)
{
    if (argc == 2 && strcmp(argv[1], "net-helper") == 0)
        return helper(argc, argv);
    if (argc == 2 && strcmp(argv[1], "victim") == 0)
        return victim();
    return run_shards();
}
