/* SPDX-License-Identifier: Apache-2.0 */
/* Slots that running VMs hold, over a restart of the agent: what they have goes on, what they may
 * not stays denied in every instant, and what is broken is seen. */
#include "flow.h"
#include "machine.h"
#include "wire.h"
#include "world.h"

#include <net/if.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "agent/net/nl.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "proto/limits.h"

static const char *no_world;

#define NEEDS_WORLD()                                                                              \
    do {                                                                                           \
        if (no_world) {                                                                            \
            print_message("skipped: %s\n", no_world);                                              \
            skip();                                                                                \
        }                                                                                          \
    } while (0)

static struct net_pool *open_keeping(size_t slots, const unsigned *keep, size_t n)
{
    struct err e = {0};
    struct net_config c = world_config(0, slots, 1);
    c.keep = keep;
    c.n_keep = n;
    struct net_pool *p = net_pool_open(&c, &e);
    if (!p)
        fail_msg("%s", e.msg);
    return p;
}

static void leave(struct net_pool *p)
{
    struct err e = {0};
    if (net_pool_leave(p, &e) < 0)
        fail_msg("%s", e.msg);
}

static void close_pool(struct net_pool *p)
{
    struct err e = {0};
    if (net_pool_close(p, &e) < 0)
        fail_msg("%s", e.msg);
}

static struct net_slot acquire(struct net_pool *p)
{
    struct err e = {0};
    struct net_slot s;
    if (net_slot_acquire(p, deadline_in_ms(WORLD_WAIT_MS), &s, &e) < 0)
        fail_msg("%s", e.msg);
    return s;
}

static void assert_adopted(struct net_pool *p, const struct net_slot *was)
{
    struct err e = {0};
    struct net_slot s;
    if (net_slot_adopt(p, was->index, &s, &e) < 0)
        fail_msg("%s", e.msg);
    assert_int_equal(s.index, was->index);
    assert_string_equal(s.netns, was->netns);
    assert_string_equal(s.host_ip, was->host_ip);
    assert_int_equal(s.uid, was->uid);
}

static size_t used(struct net_pool *p)
{
    size_t total;
    size_t n;
    net_pool_usage(p, &total, &n);
    return n;
}

/* Guests that say what they may not, all the time. `shut` has the policy none: of its packets only
 * one chain of the host thinks ill. */
struct flood {
    int open_tap;
    int shut_tap;
    atomic_bool stop;
    atomic_uint sent;
    pthread_t thread;
};

#define DENIED "TORPOR-DENIED"

static void *send_denied(void *arg)
{
    struct flood *f = arg;
    cpu_set_t all;
    memset(&all, 0xff, sizeof all);
    (void)sched_setaffinity(0, sizeof all, &all);
    /* Few ports: a guest has a limit of connections. */
    for (uint16_t port = 1000; !atomic_load(&f->stop); port = (uint16_t)(1000 + (port + 1) % 256)) {
        wire_send(f->open_tap,
            &(struct wire_packet){.dst = WORLD_HOST_IP, .sport = port, .mark = DENIED});
        wire_send(
            f->open_tap, &(struct wire_packet){.dst = "10.0.0.1", .sport = port, .mark = DENIED});
        wire_send(
            f->open_tap, &(struct wire_packet){.src = "8.8.8.8", .sport = port, .mark = DENIED});
        wire_send(f->shut_tap, &(struct wire_packet){.sport = port, .mark = DENIED});
        wire_send(f->shut_tap, &(struct wire_packet){.proto = 1, .sport = port, .mark = DENIED});
        atomic_fetch_add(&f->sent, 5);
    }
    return NULL;
}

struct ears {
    int uplink;
    int local[3];
};

static void assert_nothing_denied(const struct ears *ears)
{
    assert_false(wire_heard_mark(ears->uplink, DENIED));
    for (size_t i = 0; i < ARRAY_LEN(ears->local); i++)
        assert_false(wire_heard_mark(ears->local[i], DENIED));
}

static void start_flood(struct flood *f, const struct machine *open, const struct machine *shut)
{
    *f = (struct flood){.open_tap = open->tap, .shut_tap = shut->tap};
    assert_int_equal(pthread_create(&f->thread, NULL, send_denied, f), 0);
}

static unsigned stop_flood(struct flood *f)
{
    atomic_store(&f->stop, true);
    (void)pthread_join(f->thread, NULL);
    return atomic_load(&f->sent);
}

/* A guest with a connection through the host's NAT, one without a network, several restarts. */
static void test_restart_under_guests(void **state)
{
    (void)state;
    NEEDS_WORLD();
    struct err e = {0};
    struct machine a;
    struct machine b;
    struct flood flood;
    struct ears ears;
    char peer[INET_ADDRSTRLEN];
    struct net_pool *p = open_keeping(4, NULL, 0);
    struct net_slot sa = acquire(p);
    struct net_slot sb = acquire(p);
    const unsigned keep[] = {sb.index, sa.index};
    assert_int_equal(net_slot_set_policy(p, sb.index, NET_POLICY_NONE, &e), 0);
    machine_start(&a, sa.netns);
    machine_start(&b, sb.netns);
    AUTO_CLOSE int listener = world_internet_listen(80);
    AUTO_CLOSE int guest = machine_connect(&a, WORLD_INTERNET_IP, 80, WORLD_WAIT_MS);
    AUTO_CLOSE int server = flow_accept(listener, peer);
    flow_assert_connected(guest, server);
    ears.uplink = wire_ear("up0");
    wire_local_ears(ears.local);
    start_flood(&flood, &a, &b);
    for (int i = 0; i < 5; i++) {
        leave(p);
        flow_assert_connected(guest, server);
        p = open_keeping(4, keep, 2);
        assert_adopted(p, &sa);
        assert_adopted(p, &sb);
        assert_int_equal(used(p), 2);
        flow_assert_connected(guest, server);
        assert_nothing_denied(&ears);
    }
    assert_true(stop_flood(&flood) > 100);
    /* What came last is through or gone when this is heard. */
    AUTO_CLOSE int again = machine_connect(&a, WORLD_INTERNET_IP, 80, WORLD_WAIT_MS);
    assert_true(again >= 0);
    assert_nothing_denied(&ears);
    (void)close(ears.uplink);
    for (size_t i = 0; i < ARRAY_LEN(ears.local); i++)
        (void)close(ears.local[i]);
    machine_stop(&a);
    machine_stop(&b);
    close_pool(p);
}

int main(int argc, char **argv)
{
    if (argc == 2 && strcmp(argv[1], "net-helper") == 0)
        return net_helper_main(argc, argv);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_restart_under_guests),
    };
    no_world = world_open();
    return cmocka_run_group_tests_name("net keep", tests, NULL, NULL);
}
