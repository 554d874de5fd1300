/* SPDX-License-Identifier: Apache-2.0 */
/* Guests that use the network as they may, and what happens to it when a slot changes hands. */
#include "flow.h"
#include "machine.h"
#include "wire.h"
#include "world.h"

#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "agent/net/nl.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/io.h"
#include "base/sock.h"
#include "proto/limits.h"

static const char *no_world;

#define NEEDS_WORLD()                                                                              \
    do {                                                                                           \
        if (no_world) {                                                                            \
            print_message("skipped: %s\n", no_world);                                              \
            skip();                                                                                \
        }                                                                                          \
    } while (0)

struct scene {
    struct net_pool *pool;
    struct net_slot slot;
    struct machine guest;
};

static void scene_open(struct scene *s, size_t slots)
{
    struct err e = {0};
    const struct net_config c = world_config(0, slots, 1);
    s->pool = net_pool_open(&c, &e);
    if (!s->pool || net_slot_acquire(s->pool, deadline_in_ms(WORLD_WAIT_MS), &s->slot, &e) < 0)
        fail_msg("%s", e.msg);
    machine_start(&s->guest, s->slot.netns);
}

static void scene_close(struct scene *s)
{
    struct err e = {0};
    machine_stop(&s->guest);
    if (net_pool_close(s->pool, &e) < 0)
        fail_msg("%s", e.msg);
}

static void test_tcp_to_the_internet(void **state)
{
    (void)state;
    NEEDS_WORLD();
    struct scene s;
    char peer[INET_ADDRSTRLEN];
    scene_open(&s, 1);
    AUTO_CLOSE int listener = world_internet_listen(80);
    AUTO_CLOSE int guest = machine_connect(&s.guest, WORLD_INTERNET_IP, 80, WORLD_WAIT_MS);
    assert_true(guest >= 0);
    AUTO_CLOSE int server = flow_accept(listener, peer);
    assert_string_equal(peer, WORLD_HOST_IP);
    flow_assert_connected(guest, server);
    scene_close(&s);
}

static void test_host_to_guest(void **state)
{
    (void)state;
    NEEDS_WORLD();
    struct scene s;
    struct err e = {0};
    char peer[INET_ADDRSTRLEN];
    struct sockaddr_in from;
    scene_open(&s, 1);
    int home = machine_enter(&s.guest);
    AUTO_CLOSE int listener = sock_listen_tcp("0.0.0.0", GUEST_ENVD_PORT, &e);
    world_leave(home);
    AUTO_CLOSE int host =
        sock_connect_tcp(s.slot.host_ip, GUEST_ENVD_PORT, deadline_in_ms(WORLD_WAIT_MS), &e);
    assert_true(host >= 0);
    AUTO_CLOSE int guest = flow_accept(listener, peer);
    assert_string_equal(peer, GUEST_GATEWAY);
    flow_assert_connected(host, guest);
    /* The same with datagrams, on any port; and a policy of none does not cut the host off. */
    assert_int_equal(net_slot_set_policy(s.pool, s.slot.index, NET_POLICY_NONE, &e), 0);
    AUTO_CLOSE int udp = machine_udp(&s.guest, 9999);
    AUTO_CLOSE int mine = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    const struct sockaddr_in to = flow_address(s.slot.host_ip, 9999);
    flow_say(mine, &to, "ping");
    flow_hear(udp, &from, "ping");
    flow_say(udp, &from, "pong");
    flow_hear(mine, &from, "pong");
    assert_memory_equal(&from.sin_addr, &to.sin_addr, sizeof to.sin_addr);
    flow_assert_connected(host, guest);
    scene_close(&s);
}

/* host_ip is for this host alone, however the neighbours route. */
static void test_internet_cannot_reach_guest(void **state)
{
    (void)state;
    NEEDS_WORLD();
    struct scene s;
    struct err e = {0};
    struct sockaddr_in from;
    scene_open(&s, 1);
    int home = world_enter_internet();
    const struct rtnl_route r = {.link = "inet0",
        .dst = ntohl(flow_address("10.11.0.0", 0).sin_addr.s_addr),
        .dst_len = 16,
        .gateway = ntohl(flow_address(WORLD_HOST_IP, 0).sin_addr.s_addr)};
    assert_int_equal(rtnl_route_add(&r, &e), 0);
    world_leave(home);
    AUTO_CLOSE int outside = world_internet_udp(7);
    AUTO_CLOSE int udp = machine_udp(&s.guest, 9999);
    const struct sockaddr_in to = flow_address(s.slot.host_ip, 9999);
    const struct sockaddr_in dns = flow_address("10.11.15.253", 53);
    AUTO_CLOSE int link = wire_ear("tp0-0");
    AUTO_CLOSE int uplink = wire_ear("up0");
    flow_say(outside, &to, "TORPOR-OUTSIDE");
    flow_say(outside, &dns, "TORPOR-OUTSIDE");
    AUTO_CLOSE int inside = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    flow_say(inside, &to, "from the host");
    flow_hear(udp, &from, "from the host");
    assert_true(wire_heard_mark(uplink, "TORPOR-OUTSIDE"));
    assert_false(wire_heard_mark(link, "TORPOR-OUTSIDE"));
    home = world_enter_internet();
    assert_int_equal(rtnl_route_delete(&r, &e), 0);
    world_leave(home);
    scene_close(&s);
}

/* A neighbour that routes through the host gets nowhere, though the uplink forwards for us. */
static void test_host_is_no_router(void **state)
{
    (void)state;
    NEEDS_WORLD();
    struct scene s;
    char mark[] = "TORPOR-ROUTE-ME";
    scene_open(&s, 1);
    int home = world_enter_internet();
    AUTO_CLOSE int link = wire_ear("inet0");
    AUTO_CLOSE int raw = socket(AF_INET, SOCK_RAW | SOCK_CLOEXEC, IPPROTO_RAW);
    struct err e = {0};
    const struct rtnl_route r = {.link = "inet0",
        .dst = ntohl(flow_address("9.9.9.9", 0).sin_addr.s_addr),
        .dst_len = 32,
        .gateway = ntohl(flow_address(WORLD_HOST_IP, 0).sin_addr.s_addr)};
    assert_int_equal(rtnl_route_add(&r, &e), 0);
    uint8_t frame[WIRE_FRAME_MAX];
    size_t n = wire_build(
        &(struct wire_packet){.src = WORLD_INTERNET_IP, .dst = "9.9.9.9", .mark = mark}, frame);
    const struct sockaddr_in to = flow_address("9.9.9.9", 0);
    assert_true(sendto(raw, frame + 14, n - 14, 0, (const struct sockaddr *)&to, sizeof to) > 0);
    world_leave(home);
    AUTO_CLOSE int outside = world_internet_udp(7);
    AUTO_CLOSE int guest = machine_udp(&s.guest, 5000);
    struct sockaddr_in from;
    const struct sockaddr_in internet = flow_address(WORLD_INTERNET_IP, 7);
    flow_say(guest, &internet, "sentinel");
    flow_hear(outside, &from, "sentinel");
    /* Heard once, as it left; forwarded, it would have come back. */
    size_t times = 0;
    ssize_t got;
    while ((got = recv(link, frame, sizeof frame, MSG_DONTWAIT)) > 0)
        times += memmem(frame, (size_t)got, mark, strlen(mark)) != NULL;
    assert_int_equal(times, 1);
    home = world_enter_internet();
    assert_int_equal(rtnl_route_delete(&r, &e), 0);
    world_leave(home);
    scene_close(&s);
}

static void test_policy_none_ends_connections(void **state)
{
    (void)state;
    NEEDS_WORLD();
    struct scene s;
    struct err e = {0};
    char peer[INET_ADDRSTRLEN];
    struct sockaddr_in from;
    struct sockaddr_in guest_side;
    scene_open(&s, 1);
    AUTO_CLOSE int listener = world_internet_listen(80);
    AUTO_CLOSE int outside = world_internet_udp(7);
    AUTO_CLOSE int udp = machine_udp(&s.guest, 5000);
    const struct sockaddr_in internet = flow_address(WORLD_INTERNET_IP, 7);
    flow_say(udp, &internet, "hello");
    flow_hear(outside, &guest_side, "hello");
    flow_say(outside, &guest_side, "hello yourself");
    flow_hear(udp, &from, "hello yourself");
    assert_int_equal(net_slot_set_policy(s.pool, s.slot.index, NET_POLICY_NONE, &e), 0);
    assert_int_equal(machine_connect(&s.guest, WORLD_INTERNET_IP, 80, 300), -1);
    flow_say(outside, &guest_side, "still there?");
    assert_false(world_readable(udp));
    assert_false(world_readable(listener));
    assert_int_equal(net_slot_set_policy(s.pool, s.slot.index, NET_POLICY_OPEN, &e), 0);
    AUTO_CLOSE int again = machine_connect(&s.guest, WORLD_INTERNET_IP, 80, WORLD_WAIT_MS);
    assert_true(again >= 0);
    AUTO_CLOSE int server = flow_accept(listener, peer);
    flow_assert_connected(again, server);
    scene_close(&s);
}

/* Connections of the last owner: its guest is gone, the other sides still send. */
static void test_reuse_is_clean(void **state)
{
    (void)state;
    NEEDS_WORLD();
    struct scene s;
    struct err e = {0};
    char peer[INET_ADDRSTRLEN];
    struct sockaddr_in from;
    struct sockaddr_in old;
    struct wire_heard h;
    scene_open(&s, 1);
    int home = machine_enter(&s.guest);
    AUTO_CLOSE int listener = sock_listen_tcp("0.0.0.0", 80, &e);
    world_leave(home);
    AUTO_CLOSE int host = sock_connect_tcp(s.slot.host_ip, 80, deadline_in_ms(WORLD_WAIT_MS), &e);
    AUTO_CLOSE int guest = flow_accept(listener, peer);
    AUTO_CLOSE int outside = world_internet_udp(7);
    AUTO_CLOSE int udp = machine_udp(&s.guest, 5000);
    const struct sockaddr_in internet = flow_address(WORLD_INTERNET_IP, 7);
    flow_say(udp, &internet, "hello");
    flow_hear(outside, &old, "hello");
    flow_assert_connected(host, guest);
    machine_stop(&s.guest);
    assert_int_equal(net_slot_release(s.pool, s.slot.index, &e), 0);
    /* The only slot: it comes back as soon as it is flushed. */
    if (net_slot_acquire(s.pool, deadline_in_ms(WORLD_WAIT_MS), &s.slot, &e) < 0)
        fail_msg("%s", e.msg);
    int tap = wire_open_tap(s.slot.netns);
    assert_true(tap >= 0);
    AUTO_CLOSE int link = wire_ear("tp0-0");
    flow_say(outside, &old, "TORPOR-LATE");
    assert_int_equal(send(host, "for the old guest", 17, MSG_NOSIGNAL), 17);
    AUTO_CLOSE int mine = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    const struct sockaddr_in to = flow_address(s.slot.host_ip, 9999);
    flow_say(mine, &to, "for the new one");
    assert_true(wire_hear(tap, WORLD_WAIT_MS, &h));
    assert_int_equal(h.n_body, 15);
    assert_memory_equal(h.body, "for the new one", 15);
    assert_false(wire_heard_mark(link, "TORPOR-LATE")); /* the host has forgotten it too */
    (void)close(tap);
    machine_start(&s.guest, s.slot.netns);
    AUTO_CLOSE int again = machine_udp(&s.guest, 5000);
    flow_say(again, &internet, "hello again");
    flow_hear(outside, &from, "hello again");
    scene_close(&s);
}

/* The last owner's policy is not the next one's. */
static void test_reuse_starts_open(void **state)
{
    (void)state;
    NEEDS_WORLD();
    struct scene s;
    struct err e = {0};
    struct sockaddr_in from;
    const struct sockaddr_in internet = flow_address(WORLD_INTERNET_IP, 7);
    scene_open(&s, 1);
    AUTO_CLOSE int outside = world_internet_udp(7);
    assert_int_equal(net_slot_set_policy(s.pool, s.slot.index, NET_POLICY_NONE, &e), 0);
    machine_stop(&s.guest);
    assert_int_equal(net_slot_release(s.pool, s.slot.index, &e), 0);
    assert_int_equal(net_slot_set_policy(s.pool, s.slot.index, NET_POLICY_OPEN, &e), -1);
    assert_int_equal(e.kind, ERR_BAD_STATE);
    if (net_slot_acquire(s.pool, deadline_in_ms(WORLD_WAIT_MS), &s.slot, &e) < 0)
        fail_msg("%s", e.msg);
    machine_start(&s.guest, s.slot.netns);
    AUTO_CLOSE int udp = machine_udp(&s.guest, 5000);
    flow_say(udp, &internet, "hello");
    flow_hear(outside, &from, "hello");
    scene_close(&s);
}

/* A VMM that outlives its release must not share its slot: that is made anew. */
static void test_held_tap_is_replaced(void **state)
{
    (void)state;
    NEEDS_WORLD();
    struct scene s;
    struct err e = {0};
    struct net_slot again;
    scene_open(&s, 1);
    assert_int_equal(net_slot_release(s.pool, s.slot.index, &e), 0);
    if (net_slot_acquire(s.pool, deadline_in_ms(WORLD_WAIT_MS), &again, &e) < 0)
        fail_msg("%s", e.msg);
    struct machine second;
    machine_start(&second, again.netns); /* would fail on the held TAP */
    AUTO_CLOSE int outside = world_internet_udp(7);
    AUTO_CLOSE int old = machine_udp(&s.guest, 5000);
    AUTO_CLOSE int fresh = machine_udp(&second, 5001);
    struct sockaddr_in from;
    const struct sockaddr_in internet = flow_address(WORLD_INTERNET_IP, 7);
    (void)sendto(old, "old", 3, 0, (const struct sockaddr *)&internet, sizeof internet);
    flow_say(fresh, &internet, "new");
    flow_hear(outside, &from, "new");
    assert_false(world_readable(outside));
    machine_stop(&second);
    scene_close(&s);
}

int main(int argc, char **argv)
{
    if (argc == 2 && strcmp(argv[1], "net-helper") == 0)
        return net_helper_main(argc, argv);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tcp_to_the_internet),
        cmocka_unit_test(test_host_to_guest),
        cmocka_unit_test(test_internet_cannot_reach_guest),
        cmocka_unit_test(test_host_is_no_router),
        cmocka_unit_test(test_policy_none_ends_connections),
        cmocka_unit_test(test_reuse_is_clean),
        cmocka_unit_test(test_reuse_starts_open),
        cmocka_unit_test(test_held_tap_is_replaced),
    };
    no_world = world_open();
    return cmocka_run_group_tests_name("net flows", tests, NULL, NULL);
}
