/* SPDX-License-Identifier: Apache-2.0 */
/* The pool and its slots: nothing is left behind, whatever fails; who takes what. */
#include "world.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <unistd.h>

#include <cmocka.h>

#include "agent/net/helper.h"
#include "base/cleanup.h"
#include "base/clock.h"

static const char *no_world;

#define NEEDS_WORLD()                                                                              \
    do {                                                                                           \
        if (no_world) {                                                                            \
            print_message("skipped: %s\n", no_world);                                              \
            skip();                                                                                \
        }                                                                                          \
    } while (0)

#define SNAPSHOT_MAX (1 << 20)

static void assert_same(const struct buf *before)
{
    AUTO_BUF struct buf after = BUF_INIT(SNAPSHOT_MAX);
    world_snapshot(&after);
    assert_string_equal(after.p, before->p);
}

static struct net_pool *must_open(const struct net_config *c)
{
    struct err e = {0};
    struct net_pool *p = net_pool_open(c, &e);
    if (!p)
        fail_msg("%s", e.msg);
    return p;
}

static void must_close(struct net_pool *p)
{
    struct err e = {0};
    if (net_pool_close(p, &e) < 0)
        fail_msg("%s", e.msg);
}

static struct net_slot must_acquire(struct net_pool *p)
{
    struct err e = {0};
    struct net_slot s;
    if (net_slot_acquire(p, deadline_in_ms(WORLD_WAIT_MS), &s, &e) < 0)
        fail_msg("%s", e.msg);
    return s;
}

static void must_release(struct net_pool *p, unsigned index)
{
    struct err e = {0};
    assert_int_equal(net_slot_release(p, index, &e), 0);
}

static void helper_for(struct net_helper *h, size_t slots)
{
    struct err e = {0};
    struct net_plan plan;
    const struct net_config c = world_config(0, slots, 0);
    assert_int_equal(net_plan_make(&c, &plan, &e), 0);
    net_helper_init(h, world_self(), &plan);
}

static void must_call(struct net_helper *h, enum net_op op, unsigned slot)
{
    struct err e = {0};
    if (net_helper_call(h, op, slot, /* fail_after= */ 0, &e) < 0)
        fail_msg("%s", e.msg);
}

static void test_open_close_leaves_nothing(void **state)
{
    (void)state;
    NEEDS_WORLD();
    AUTO_BUF struct buf before = BUF_INIT(SNAPSHOT_MAX);
    AUTO_BUF struct buf during = BUF_INIT(SNAPSHOT_MAX);
    const struct net_config c = world_config(0, 4, 2);
    world_snapshot(&before);
    int64_t start = clock_mono_us();
    struct net_pool *p = must_open(&c);
    int64_t opened = clock_mono_us();
    world_snapshot(&during);
    assert_non_null(strstr(during.p, "link tp0-1\n"));
    assert_non_null(strstr(during.p, "netns tp0-1\n"));
    assert_non_null(strstr(during.p, "\"tp0-1\" : goto policy_open"));
    assert_null(strstr(during.p, "link tp0-2\n"));
    int64_t closing = clock_mono_us();
    must_close(p);
    print_message("open with 2 slots %.1f ms, close %.1f ms\n", (double)(opened - start) / 1000,
        (double)(clock_mono_us() - closing) / 1000);
    assert_same(&before);
}

static void test_slot_failing_at_each_step(void **state)
{
    (void)state;
    NEEDS_WORLD();
    struct net_helper h;
    AUTO_BUF struct buf before = BUF_INIT(SNAPSHOT_MAX);
    helper_for(&h, 4);
    must_call(&h, NET_OP_SWEEP, 0);
    must_call(&h, NET_OP_HOST_MAKE, 0);
    world_snapshot(&before);
    for (unsigned i = 1; i <= net_slot_step_count; i++) {
        struct err e = {0};
        assert_int_equal(net_helper_call(&h, NET_OP_SLOT_MAKE, 1, i, &e), -1);
        assert_non_null(strstr(e.msg, "injected failure"));
        assert_non_null(strstr(e.msg, net_slot_steps[i - 1].name));
        assert_same(&before);
    }
    must_call(&h, NET_OP_SLOT_MAKE, 1);
    for (size_t i = 0; i < net_slot_step_count; i++)
        print_message(
            "  %-10s %6.2f ms\n", net_slot_steps[i].name, (double)h.reply.step_us[i] / 1000);
    must_call(&h, NET_OP_SLOT_REMOVE, 1);
    must_call(&h, NET_OP_SLOT_REMOVE, 1); /* gone already is fine */
    assert_same(&before);
    must_call(&h, NET_OP_SWEEP, 0);
    net_helper_stop(&h);
}

static void test_host_failing_at_each_step(void **state)
{
    (void)state;
    NEEDS_WORLD();
    struct net_helper h;
    AUTO_BUF struct buf before = BUF_INIT(SNAPSHOT_MAX);
    helper_for(&h, 4);
    world_snapshot(&before);
    for (unsigned i = 1; i <= net_host_step_count; i++) {
        struct err e = {0};
        assert_int_equal(net_helper_call(&h, NET_OP_HOST_MAKE, 0, i, &e), -1);
        assert_non_null(strstr(e.msg, "injected failure"));
        assert_same(&before);
    }
    net_helper_stop(&h);
}

/* An agent that was killed leaves all of it; the next one removes it by name. */
static void test_leftovers_are_removed(void **state)
{
    (void)state;
    NEEDS_WORLD();
    struct net_helper h;
    AUTO_BUF struct buf before = BUF_INIT(SNAPSHOT_MAX);
    helper_for(&h, 4);
    world_snapshot(&before);
    must_call(&h, NET_OP_HOST_MAKE, 0);
    must_call(&h, NET_OP_SLOT_MAKE, 0);
    must_call(&h, NET_OP_SLOT_MAKE, 3);
    net_helper_stop(&h);
    const struct net_config c = world_config(0, 2, 1);
    struct net_pool *p = must_open(&c);
    AUTO_BUF struct buf during = BUF_INIT(SNAPSHOT_MAX);
    world_snapshot(&during);
    assert_null(strstr(during.p, "tp0-3"));
    must_close(p);
    assert_same(&before);
}

struct killer {
    int inotify;
    pid_t pid;
};

static void *kill_at_first_file(void *arg)
{
    const struct killer *k = arg;
    struct pollfd pfd = {.fd = k->inotify, .events = POLLIN};
    if (poll(&pfd, 1, WORLD_WAIT_MS) == 1)
        (void)kill(k->pid, SIGKILL);
    return NULL;
}

/* Killed when the namespace's file has just appeared, somewhere in the steps behind it. */
static void test_helper_killed_midway(void **state)
{
    (void)state;
    NEEDS_WORLD();
    struct net_helper h;
    struct err e = {0};
    pthread_t thread;
    AUTO_BUF struct buf before = BUF_INIT(SNAPSHOT_MAX);
    helper_for(&h, 4);
    must_call(&h, NET_OP_HOST_MAKE, 0);
    world_snapshot(&before);
    AUTO_CLOSE int watch = inotify_init1(IN_CLOEXEC);
    assert_true(inotify_add_watch(watch, NET_NETNS_DIR, IN_CREATE) >= 0);
    struct killer k = {.inotify = watch, .pid = h.pid};
    assert_int_equal(pthread_create(&thread, NULL, kill_at_first_file, &k), 0);
    assert_int_equal(net_helper_call(&h, NET_OP_SLOT_MAKE, 2, /* fail_after= */ 0, &e), -1);
    (void)pthread_join(thread, NULL);
    assert_int_equal(e.kind, ERR_UNAVAILABLE);
    must_call(&h, NET_OP_SLOT_REMOVE, 2);
    assert_same(&before);
    must_call(&h, NET_OP_SLOT_MAKE, 2);
    must_call(&h, NET_OP_SWEEP, 0);
    net_helper_stop(&h);
}

static void test_exhaustion_and_reuse(void **state)
{
    (void)state;
    NEEDS_WORLD();
    const struct net_config c = world_config(0, 2, 1);
    struct net_pool *p = must_open(&c);
    struct err e = {0};
    struct net_slot third = {.index = 77};
    size_t total;
    size_t used;
    int64_t start = clock_mono_us();
    struct net_slot a = must_acquire(p);
    print_message("  acquire    %6.3f ms\n", (double)(clock_mono_us() - start) / 1000);
    struct net_slot b = must_acquire(p);
    assert_int_equal(a.index + b.index, 1);
    assert_int_equal(a.uid, WORLD_UID_BASE + a.index);
    assert_string_equal(a.netns, a.index == 0 ? "/run/netns/tp0-0" : "/run/netns/tp0-1");
    assert_string_equal(a.host_ip, a.index == 0 ? "10.11.0.2" : "10.11.0.6");
    net_pool_usage(p, &total, &used);
    assert_int_equal(total, 2);
    assert_int_equal(used, 2);
    start = clock_mono_ms();
    assert_int_equal(net_slot_acquire(p, deadline_in_ms(60000), &third, &e), -1);
    assert_int_equal(e.kind, ERR_NO_CAPACITY);
    assert_int_equal(third.index, 77);
    assert_true(clock_mono_ms() - start < 1000); /* all taken: nothing to wait for */
    must_release(p, b.index);
    must_release(p, b.index);
    net_pool_usage(p, &total, &used);
    assert_int_equal(used, 1);
    third = must_acquire(p); /* it rests still, but no other is free */
    assert_int_equal(third.index, b.index);
    assert_int_equal(net_slot_release(p, 2, &e), -1);
    assert_int_equal(e.kind, ERR_INVALID);
    must_close(p);
}

struct crowd {
    struct net_pool *pool;
    atomic_int owners[4];
    atomic_int clashes;
    atomic_int taken;
};

static void *take_and_give(void *arg)
{
    struct crowd *c = arg;
    for (int i = 0; i < 20; i++) {
        struct err e = {0};
        struct net_slot s;
        if (net_slot_acquire(c->pool, deadline_in_ms(WORLD_WAIT_MS), &s, &e) < 0) {
            if (e.kind != ERR_NO_CAPACITY)
                atomic_fetch_add(&c->clashes, 1);
            continue;
        }
        if (atomic_fetch_add(&c->owners[s.index], 1) != 0)
            atomic_fetch_add(&c->clashes, 1);
        atomic_fetch_add(&c->taken, 1);
        atomic_fetch_sub(&c->owners[s.index], 1);
        if (net_slot_release(c->pool, s.index, &e) < 0)
            atomic_fetch_add(&c->clashes, 1);
    }
    return NULL;
}

static void test_eight_threads(void **state)
{
    (void)state;
    NEEDS_WORLD();
    const struct net_config cfg = world_config(0, 4, 2);
    struct crowd crowd = {.pool = must_open(&cfg)};
    pthread_t threads[8];
    size_t total;
    size_t used;
    for (size_t i = 0; i < ARRAY_LEN(threads); i++)
        assert_int_equal(pthread_create(&threads[i], NULL, take_and_give, &crowd), 0);
    for (size_t i = 0; i < ARRAY_LEN(threads); i++)
        (void)pthread_join(threads[i], NULL);
    assert_int_equal(atomic_load(&crowd.clashes), 0);
    assert_true(atomic_load(&crowd.taken) >= 20);
    net_pool_usage(crowd.pool, &total, &used);
    assert_int_equal(used, 0);
    must_close(crowd.pool);
}

static void test_bad_helper(void **state)
{
    (void)state;
    NEEDS_WORLD();
    struct err e = {0};
    AUTO_BUF struct buf before = BUF_INIT(SNAPSHOT_MAX);
    struct net_config c = world_config(0, 2, 1);
    world_snapshot(&before);
    c.helper = "/bin/true";
    assert_null(net_pool_open(&c, &e));
    assert_int_equal(e.kind, ERR_UNAVAILABLE);
    c.helper = "/nonexistent";
    assert_null(net_pool_open(&c, &e));
    assert_same(&before);
}

/* An administrator's forwarding is not ours to switch off, nor to guard. */
static void test_forwarding_host_stays(void **state)
{
    (void)state;
    NEEDS_WORLD();
    struct err e = {0};
    const struct net_config c = world_config(0, 1, 0);
    AUTO_BUF struct buf before = BUF_INIT(SNAPSHOT_MAX);
    AUTO_BUF struct buf during = BUF_INIT(SNAPSHOT_MAX);
    assert_int_equal(net_sysctl_write("net/ipv4/ip_forward", "1", &e), 0);
    world_snapshot(&before);
    struct net_pool *p = must_open(&c);
    world_snapshot(&during);
    assert_null(strstr(during.p, "\"up0\""));
    must_close(p);
    assert_same(&before);
    assert_int_equal(net_sysctl_write("net/ipv4/ip_forward", "0", &e), 0);
}

/* The uplink forwards as long as one of two instances needs it. */
static void test_two_instances(void **state)
{
    (void)state;
    NEEDS_WORLD();
    struct err e = {0};
    int on;
    AUTO_BUF struct buf before = BUF_INIT(SNAPSHOT_MAX);
    const struct net_config zero = world_config(0, 1, 1);
    const struct net_config one = world_config(1, 1, 1);
    world_snapshot(&before);
    struct net_pool *a = must_open(&zero);
    struct net_pool *b = must_open(&one);
    struct net_slot s = must_acquire(b);
    assert_string_equal(s.netns, "/run/netns/tp1-0");
    assert_string_equal(s.host_ip, "10.11.16.2");
    must_close(a);
    assert_int_equal(net_sysctl_read("net/ipv4/conf/up0/forwarding", &on, &e), 0);
    assert_int_equal(on, 1);
    assert_int_equal(access("/run/netns/tp1-0", F_OK), 0);
    must_close(b);
    assert_same(&before);
}

int main(int argc, char **argv)
{
    if (argc == 2 && strcmp(argv[1], "net-helper") == 0)
        return net_helper_main(argc, argv);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_open_close_leaves_nothing),
        cmocka_unit_test(test_slot_failing_at_each_step),
        cmocka_unit_test(test_host_failing_at_each_step),
        cmocka_unit_test(test_leftovers_are_removed),
        cmocka_unit_test(test_helper_killed_midway),
        cmocka_unit_test(test_exhaustion_and_reuse),
        cmocka_unit_test(test_eight_threads),
        cmocka_unit_test(test_bad_helper),
        cmocka_unit_test(test_forwarding_host_stays),
        cmocka_unit_test(test_two_instances),
    };
    no_world = world_open();
    return cmocka_run_group_tests_name("net pool", tests, NULL, NULL);
}
