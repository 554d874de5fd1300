/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Rules of the host that stand behind each other: either alone must hold what both do. Each is
 * taken away alone, and then both, when what was denied must be heard: else silence says nothing.
 */
#include "flow.h"
#include "machine.h"
#include "wire.h"
#include "world.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "agent/net/nl.h"
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

#define MARK "TORPOR-PAIR"

struct scene {
    struct net_pool *pool;
    struct net_slot slot;
    struct machine guest;
};

static const unsigned first[] = {0};

/* `keep`: again, under the guest, which makes all rules whole. */
static void open_pool(struct scene *s, size_t n_keep)
{
    struct err e = {0};
    struct net_config c = world_config(0, 1, 0);
    c.keep = first;
    c.n_keep = n_keep;
    s->pool = net_pool_open(&c, &e);
    if (!s->pool)
        fail_msg("%s", e.msg);
}

static void scene_open(struct scene *s)
{
    struct err e = {0};
    open_pool(s, 0);
    if (net_slot_acquire(s->pool, deadline_in_ms(WORLD_WAIT_MS), &s->slot, &e) < 0)
        fail_msg("%s", e.msg);
    machine_start(&s->guest, s->slot.netns);
}

static void restore_rules(struct scene *s)
{
    struct err e = {0};
    if (net_pool_leave(s->pool, &e) < 0)
        fail_msg("%s", e.msg);
    open_pool(s, 1);
}

static void scene_close(struct scene *s)
{
    struct err e = {0};
    machine_stop(&s->guest);
    if (net_pool_close(s->pool, &e) < 0)
        fail_msg("%s", e.msg);
}

/* The guest says something to the host's public address; was it heard? */
static bool reaches_host(const struct scene *s)
{
    int ears[3];
    bool heard = false;
    struct sockaddr_in from;
    const struct sockaddr_in internet = flow_address(WORLD_INTERNET_IP, 7);
    AUTO_CLOSE int outside = world_internet_udp(7);
    AUTO_CLOSE int udp = machine_udp(&s->guest, 5000);
    wire_local_ears(ears);
    wire_send(s->guest.tap, &(struct wire_packet){.dst = WORLD_HOST_IP, .mark = MARK});
    flow_say(udp, &internet, "behind it");
    flow_hear(outside, &from, "behind it");
    for (size_t i = 0; i < ARRAY_LEN(ears); i++) {
        heard = wire_heard_mark(ears[i], MARK) || heard;
        (void)close(ears[i]);
    }
    return heard;
}

/* A neighbour that routes the slots' range over this host talks to the guest; was it heard? */
static bool reached_from_outside(const struct scene *s)
{
    struct err e = {0};
    struct sockaddr_in from;
    const struct sockaddr_in to = flow_address(s->slot.host_ip, 9999);
    const struct rtnl_route r = {.link = "inet0",
        .dst = net_parse_ip("10.11.0.0"),
        .dst_len = 16,
        .gateway = net_parse_ip(WORLD_HOST_IP)};
    AUTO_CLOSE int udp = machine_udp(&s->guest, 9999);
    AUTO_CLOSE int outside = world_internet_udp(7);
    AUTO_CLOSE int inside = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    AUTO_CLOSE int link = wire_ear("tp0-0");
    int home = world_enter_internet();
    assert_int_equal(rtnl_route_add(&r, &e), 0);
    world_leave(home);
    flow_say(outside, &to, MARK);
    flow_say(inside, &to, "behind it");
    flow_hear(udp, &from, "behind it");
    home = world_enter_internet();
    assert_int_equal(rtnl_route_delete(&r, &e), 0);
    world_leave(home);
    return wire_heard_mark(link, MARK);
}

struct rule {
    const char *chain;
    const char *text;
};

static void check_pair(const struct rule pair[2], bool (*heard)(const struct scene *s))
{
    struct scene s;
    scene_open(&s);
    assert_false(heard(&s));
    for (int i = 0; i < 2; i++) {
        world_drop_rule(pair[i].chain, pair[i].text);
        assert_false(heard(&s));
        restore_rules(&s);
    }
    world_drop_rule(pair[0].chain, pair[0].text);
    world_drop_rule(pair[1].chain, pair[1].text);
    assert_true(heard(&s));
    restore_rules(&s);
    assert_false(heard(&s));
    scene_close(&s);
}

static void test_guest_to_host(void **state)
{
    (void)state;
    NEEDS_WORLD();
    static const struct rule pair[] = {
        {"policy_open", "fib daddr type != unicast drop"}, {"to_host", "drop"}};
    check_pair(pair, reaches_host);
}

static void test_outside_to_slot(void **state)
{
    (void)state;
    NEEDS_WORLD();
    static const struct rule pair[] = {
        {"origin", "ip daddr 10.11.0.0/20 drop"}, {"through", "oifname \"tp0-*\" drop"}};
    check_pair(pair, reached_from_outside);
}

int main(int argc, char **argv)
{
    if (argc == 2 && strcmp(argv[1], "net-helper") == 0)
        return net_helper_main(argc, argv);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_guest_to_host),
        cmocka_unit_test(test_outside_to_slot),
    };
    no_world = world_open();
    return cmocka_run_group_tests_name("net pairs", tests, NULL, NULL);
}
