/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A hostile guest. Everything it may not say is said, and no link of the host hears it; each kind
 * of packet is also sent to where it may go, and is heard there, so that silence means something.
 *
 * Twice: with all rules, where nothing may even leave the slot's namespace; and with the
 * namespace's rules replaced by bare NAT, where the host's rules alone must hold.
 */
#include "wire.h"
#include "world.h"

#include <arpa/inet.h>
#include <errno.h>
#include <ifaddrs.h>
#include <linux/if_ether.h>
#include <netinet/ether.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "proto/limits.h"

static const char *no_world;

/* Two slots of instance 0 and one of instance 1; the hostile guest is in `a`. */
struct scene {
    struct net_pool *pool;
    struct net_pool *other;
    struct net_slot a;
    struct net_slot b;
    struct net_slot c;
    int tap;
    int links;    /* hears all links of the host */
    int uplink;   /* hears the uplink */
    int next;     /* hears the link of slot b */
    int local[3]; /* hears what the host takes for itself */
    unsigned marks;
};

static struct scene *scene;

static int open_scene(void **state)
{
    struct err e = {0};
    static struct scene s;
    (void)state;
    no_world = world_open();
    if (no_world)
        return 0;
    const struct net_config zero = world_config(0, 2, 2);
    const struct net_config one = world_config(1, 1, 1);
    s.pool = net_pool_open(&zero, &e);
    s.other = s.pool ? net_pool_open(&one, &e) : NULL;
    if (!s.other || net_slot_acquire(s.pool, deadline_in_ms(1000), &s.a, &e) < 0 ||
        net_slot_acquire(s.pool, deadline_in_ms(1000), &s.b, &e) < 0 ||
        net_slot_acquire(s.other, deadline_in_ms(1000), &s.c, &e) < 0) {
        print_error("%s\n", e.msg);
        return -1;
    }
    s.tap = wire_open_tap(s.a.netns);
    s.links = wire_ear(NULL);
    s.uplink = wire_ear("up0");
    s.next = wire_ear(strrchr(s.b.netns, '/') + 1);
    wire_local_ears(s.local);
    scene = &s;
    return s.tap < 0;
}

static int close_scene(void **state)
{
    struct err e = {0};
    (void)state;
    if (no_world)
        return 0;
    (void)close(scene->tap);
    if (net_pool_close(scene->pool, &e) < 0 || net_pool_close(scene->other, &e) < 0) {
        print_error("%s\n", e.msg);
        return -1;
    }
    return 0;
}

#define NEEDS_WORLD()                                                                              \
    do {                                                                                           \
        if (no_world) {                                                                            \
            print_message("skipped: %s\n", no_world);                                              \
            skip();                                                                                \
        }                                                                                          \
    } while (0)

static void new_mark(char dst[WIRE_MARK_MAX])
{
    (void)snprintf(dst, WIRE_MARK_MAX, "TORPOR-MARK-%08u", ++scene->marks);
}

/* Waits until a packet with the mark is heard; what came before it has arrived or never will. */
static void wait_for_mark(int fd, const char *mark)
{
    int64_t deadline = deadline_in_ms(WORLD_WAIT_MS);
    while (!wire_heard_mark(fd, mark)) {
        if (clock_mono_ms() >= deadline)
            fail_msg("%s was not heard", mark);
        world_wait_readable(fd);
    }
}

/* Empties all ears, so that only what follows is heard. */
static void hush(void)
{
    (void)wire_heard_mark(scene->links, "x");
    (void)wire_heard_mark(scene->uplink, "x");
    (void)wire_heard_mark(scene->next, "x");
    for (size_t i = 0; i < ARRAY_LEN(scene->local); i++)
        (void)wire_heard_mark(scene->local[i], "x");
}

/* An honest packet behind the hostile one: once it is heard, so would be the other. */
static void send_sentinel(void)
{
    static int ear = -1;
    char mark[WIRE_MARK_MAX];
    if (ear < 0)
        ear = wire_ear("up0");
    new_mark(mark);
    wire_send(scene->tap, &(struct wire_packet){.mark = mark});
    wait_for_mark(ear, mark);
}

static bool heard_locally(const char *mark)
{
    bool heard = false;
    for (size_t i = 0; i < ARRAY_LEN(scene->local); i++)
        heard = wire_heard_mark(scene->local[i], mark) || heard;
    return heard;
}

enum line { ALL_RULES, HOST_ALONE };

/* Sends it with a mark of its own and checks who hears it. */
static void assert_silent(enum line line, struct wire_packet p, const char *what)
{
    char mark[WIRE_MARK_MAX];
    new_mark(mark);
    p.mark = mark;
    hush();
    wire_send(scene->tap, &p);
    send_sentinel();
    if (line == ALL_RULES && wire_heard_mark(scene->links, mark))
        fail_msg("left the namespace: %s", what);
    if (wire_heard_mark(scene->uplink, mark))
        fail_msg("reached the uplink: %s", what);
    if (wire_heard_mark(scene->next, mark))
        fail_msg("reached another slot: %s", what);
    if (heard_locally(mark))
        fail_msg("reached the host: %s", what);
}

static void assert_leaves(struct wire_packet p)
{
    char mark[WIRE_MARK_MAX];
    new_mark(mark);
    p.mark = mark;
    hush();
    wire_send(scene->tap, &p);
    wait_for_mark(scene->uplink, mark);
}

static const uint8_t protos[] = {IPPROTO_TCP, IPPROTO_UDP, IPPROTO_ICMP};

/* First, middle and last addresses of what is denied, and the famous ones. */
static const char *const denied[] = {"0.0.0.1", "10.0.0.1", "10.255.255.254", "100.64.0.1",
    "100.127.255.254", "127.0.0.1", "127.0.0.53", "127.255.255.254", "169.254.0.1",
    "169.254.169.254", "169.254.255.254", "172.16.0.1", "172.31.255.254", "192.0.0.1",
    "192.0.0.192", "192.0.2.1", "192.88.99.1", "192.168.0.1", "192.168.1.1", "192.168.255.254",
    "198.18.0.1", "198.19.255.254", "198.51.100.1", "203.0.113.1", "224.0.0.1", "224.0.0.251",
    "239.255.255.250", "240.0.0.1", "255.255.255.254", "255.255.255.255", "10.11.0.1",
    "10.11.255.254", "10.11.15.253", "0.0.0.0", "169.254.0.20", GUEST_ADDRESS, GUEST_GATEWAY,
    "169.254.0.23"};

static void all_protos_silent(enum line line, const char *dst)
{
    static const uint16_t ports[] = {22, 80, 443, 49983};
    for (size_t i = 0; i < sizeof protos; i++)
        assert_silent(
            line, (struct wire_packet){.dst = dst, .proto = protos[i], .dport = ports[i]}, dst);
}

static void each_denied(enum line line)
{
    for (size_t i = 0; i < ARRAY_LEN(denied); i++)
        all_protos_silent(line, denied[i]);
}

/* Every address that this host has: its loopback, uplink, the ends of all slots' links, DNS. */
static void each_local(enum line line)
{
    struct ifaddrs *all;
    size_t n = 0;
    assert_int_equal(getifaddrs(&all), 0);
    for (const struct ifaddrs *i = all; i; i = i->ifa_next) {
        char ip[INET_ADDRSTRLEN];
        if (!i->ifa_addr || i->ifa_addr->sa_family != AF_INET)
            continue;
        const struct sockaddr_in *sa = (const struct sockaddr_in *)i->ifa_addr;
        (void)inet_ntop(AF_INET, &sa->sin_addr, ip, sizeof ip);
        /* The namespace cannot know the host's public address; the host does. */
        all_protos_silent(strcmp(ip, WORLD_HOST_IP) == 0 ? HOST_ALONE : line, ip);
        n++;
    }
    freeifaddrs(all);
    assert_true(n >= 7); /* lo, uplink, two DNS addresses, three slots */
}

static void each_other_slot(enum line line)
{
    static const char *const ends[] = {"10.11.0.5", "10.11.0.1", "10.11.16.1"};
    all_protos_silent(line, scene->a.host_ip);
    all_protos_silent(line, scene->b.host_ip);
    all_protos_silent(line, scene->c.host_ip);
    for (size_t i = 0; i < ARRAY_LEN(ends); i++)
        all_protos_silent(line, ends[i]);
}

static void test_allowed_leaves(void **state)
{
    (void)state;
    NEEDS_WORLD();
    for (size_t i = 0; i < sizeof protos; i++)
        assert_leaves((struct wire_packet){.proto = protos[i]});
    assert_leaves((struct wire_packet){.proto = IPPROTO_TCP, .dport = 443, .dst = "8.8.8.8"});
}

/* What goes out carries the host's address and nothing of the slot. */
static void test_source_is_the_hosts(void **state)
{
    (void)state;
    NEEDS_WORLD();
    struct wire_heard h;
    for (size_t i = 0; i < sizeof protos; i++) {
        char mark[WIRE_MARK_MAX];
        new_mark(mark);
        hush();
        wire_send(scene->tap, &(struct wire_packet){.proto = protos[i], .mark = mark});
        do {
            if (!wire_hear(scene->uplink, WORLD_WAIT_MS, &h))
                fail_msg("protocol %d did not leave", protos[i]);
        } while (!memmem(h.body, h.n_body, mark, strlen(mark)));
        assert_string_equal(h.src, WORLD_HOST_IP);
        assert_string_equal(h.dst, WORLD_INTERNET_IP);
    }
}

static void test_denied_ranges(void **state)
{
    (void)state;
    NEEDS_WORLD();
    each_denied(ALL_RULES);
    each_local(ALL_RULES);
    each_other_slot(ALL_RULES);
    /* The uplink's broadcast address is known to the host only. */
    all_protos_silent(HOST_ALONE, "93.184.216.255");
}

static void test_spoofed_sources(void **state)
{
    (void)state;
    NEEDS_WORLD();
    static const char *const sources[] = {"169.254.0.20", "169.254.0.22", "169.254.0.23",
        "10.11.0.1", "10.11.0.2", "10.11.0.5", "10.11.0.6", "10.11.15.253", "127.0.0.1", "0.0.0.0",
        "255.255.255.255", "224.0.0.1", "8.8.8.8", WORLD_HOST_IP, WORLD_INTERNET_IP};
    for (size_t i = 0; i < ARRAY_LEN(sources); i++)
        for (size_t k = 0; k < sizeof protos; k++)
            assert_silent(
                ALL_RULES, (struct wire_packet){.src = sources[i], .proto = protos[k]}, sources[i]);
}

static void test_spoofed_macs(void **state)
{
    (void)state;
    NEEDS_WORLD();
    static const char *const macs[] = {
        "52:54:00:00:00:14", GUEST_HOST_MAC, "02:00:00:00:00:01", "00:00:00:00:00:00"};
    static const char *const targets[] = {"ff:ff:ff:ff:ff:ff", "01:00:5e:00:00:01", GUEST_MAC,
        "33:33:00:00:00:01", "02:00:00:00:00:01"};
    for (size_t i = 0; i < ARRAY_LEN(macs); i++)
        assert_silent(ALL_RULES, (struct wire_packet){.src_mac = macs[i]}, macs[i]);
    for (size_t i = 0; i < ARRAY_LEN(targets); i++)
        assert_silent(ALL_RULES, (struct wire_packet){.dst_mac = targets[i]}, targets[i]);
}

static void test_vlans_and_other_types(void **state)
{
    (void)state;
    NEEDS_WORLD();
    static const uint16_t types[] = {ETH_P_8021Q, ETH_P_8021AD};
    static const uint16_t others[] = {ETH_P_IPV6, ETH_P_PPP_DISC, ETH_P_LLDP, ETH_P_MPLS_UC,
        ETH_P_LOOP, ETH_P_PAE, ETH_P_RARP, 0x22f0, 0x0101, 64};
    for (size_t i = 0; i < ARRAY_LEN(types); i++)
        for (int id = 0; id < 8; id += 5)
            for (size_t k = 0; k < sizeof protos; k++)
                assert_silent(ALL_RULES,
                    (struct wire_packet){.vlan = id + 1, .vlan_type = types[i], .proto = protos[k]},
                    "VLAN tag");
    for (size_t i = 0; i < ARRAY_LEN(others); i++)
        assert_silent(ALL_RULES, (struct wire_packet){.ethertype = others[i]}, "ethertype");
}

/* Neighbour and router discovery, and UDP, to the multicast and unicast targets they use. */
static void test_ipv6(void **state)
{
    (void)state;
    NEEDS_WORLD();
    static const uint8_t icmp_types[] = {128, 133, 134, 135, 136, 137};
    static const char *const macs[] = {GUEST_HOST_MAC, "33:33:00:00:00:01", "33:33:00:00:00:02"};
    for (size_t i = 0; i < sizeof icmp_types + 1; i++) {
        for (size_t k = 0; k < ARRAY_LEN(macs); k++) {
            char mark[WIRE_MARK_MAX];
            uint8_t body[128] = {0x60};
            bool udp = i == sizeof icmp_types;
            new_mark(mark);
            body[5] = 8 + WIRE_MARK_MAX;
            body[6] = udp ? IPPROTO_UDP : IPPROTO_ICMPV6;
            body[7] = 255;
            (void)inet_pton(AF_INET6, "fe80::5054:ff:fe00:15", body + 8);
            (void)inet_pton(AF_INET6, k == 0 ? "2606:2800::1" : "ff02::1", body + 24);
            body[40] = udp ? 0 : icmp_types[i];
            memcpy(body + 48, mark, strlen(mark));
            hush();
            wire_send(scene->tap, &(struct wire_packet){.dst_mac = macs[k],
                                      .ethertype = ETH_P_IPV6,
                                      .body = body,
                                      .n_body = sizeof body,
                                      .mark = mark});
            send_sentinel();
            assert_false(wire_heard_mark(scene->links, mark));
        }
    }
}

static void test_options_and_fragments(void **state)
{
    (void)state;
    NEEDS_WORLD();
    static const uint8_t lsrr[8] = {131, 7, 4, 10, 0, 0, 1, 0};
    static const uint8_t ssrr[8] = {137, 7, 4, 10, 0, 0, 1, 0};
    static const uint8_t record[8] = {7, 7, 4, 0, 0, 0, 0, 0};
    static const uint8_t alert[4] = {148, 4, 0, 0};
    static const struct wire_packet with[] = {{.options = lsrr, .n_options = 8},
        {.options = ssrr, .n_options = 8}, {.options = record, .n_options = 8},
        {.options = alert, .n_options = 4}};
    for (size_t i = 0; i < ARRAY_LEN(with); i++)
        for (size_t k = 0; k < sizeof protos; k++) {
            struct wire_packet p = with[i];
            p.proto = protos[k];
            assert_silent(ALL_RULES, p, "IP options");
        }
    /* Fragments: a first one, a last one, a tiny one, one past the end, and all to a denied
     * address. */
    static const uint16_t frags[] = {0x2000, 0x0001, 0x2001, 0x1fff, 0x00b9};
    for (size_t i = 0; i < ARRAY_LEN(frags); i++)
        for (size_t k = 0; k < sizeof protos; k++) {
            struct wire_packet p = {.frag = frags[i], .proto = protos[k], .dst = "169.254.169.254"};
            assert_silent(ALL_RULES, p, "fragment");
            p.dst = "10.0.0.1";
            assert_silent(ALL_RULES, p, "fragment");
        }
}

/* A whole datagram in two fragments: to where it may go it arrives, elsewhere it does not. */
static void send_fragmented(const char *dst, const char *mark)
{
    uint8_t whole[WIRE_FRAME_MAX];
    uint8_t body[64] = {0};
    memcpy(body + 40, mark, strlen(mark));
    struct wire_packet p = {.dst = dst, .body = body, .n_body = sizeof body, .mark = mark};
    (void)wire_build(&p, whole);
    /* The transport part of 72 bytes, cut behind 16. */
    struct wire_packet first = {
        .dst = dst, .proto = 0xfd, .frag = 0x2000, .body = whole + 34, .n_body = 16, .mark = mark};
    struct wire_packet last = {.dst = dst,
        .proto = 0xfd,
        .frag = 2,
        .body = whole + 34 + 16,
        .n_body = sizeof body + 8 - 16,
        .mark = mark};
    struct wire_packet *parts[] = {&last, &first};
    for (size_t i = 0; i < 2; i++) {
        uint8_t f[WIRE_FRAME_MAX];
        size_t n = wire_build(parts[i], f);
        /* The protocol is UDP after all; wire_build would have put a header in front. */
        unsigned check = (unsigned)f[24] << 8 | f[25];
        check += 0xfd - IPPROTO_UDP;
        check = (check & 0xffff) + (check >> 16);
        f[23] = IPPROTO_UDP;
        f[24] = (uint8_t)(check >> 8);
        f[25] = (uint8_t)check;
        wire_send_bytes(scene->tap, f, n);
    }
}

static void test_fragmented_datagram(void **state)
{
    (void)state;
    NEEDS_WORLD();
    static const char *const targets[] = {"10.0.0.1", "169.254.169.254", "127.0.0.1", "10.11.0.6"};
    char mark[WIRE_MARK_MAX];
    new_mark(mark);
    hush();
    send_fragmented(WORLD_INTERNET_IP, mark);
    wait_for_mark(scene->uplink, mark);
    for (size_t i = 0; i < ARRAY_LEN(targets); i++) {
        new_mark(mark);
        hush();
        send_fragmented(targets[i], mark);
        send_sentinel();
        assert_false(wire_heard_mark(scene->links, mark));
        assert_false(heard_locally(mark));
    }
}

static void test_other_protocols(void **state)
{
    (void)state;
    NEEDS_WORLD();
    static const uint8_t others[] = {IPPROTO_IGMP, IPPROTO_IPIP, IPPROTO_IPV6, IPPROTO_GRE,
        IPPROTO_ESP, IPPROTO_SCTP, IPPROTO_DCCP, 89, 112, 255};
    for (size_t i = 0; i < sizeof others; i++)
        assert_silent(ALL_RULES, (struct wire_packet){.proto = others[i]}, "IP protocol");
    /* ICMP that answers nothing. */
    static const uint8_t types[] = {3, 5, 11, 12};
    for (size_t i = 0; i < sizeof types; i++)
        assert_silent(ALL_RULES, (struct wire_packet){.proto = IPPROTO_ICMP, .icmp_type = types[i]},
            "ICMP error");
    /* TCP out of nowhere. */
    assert_silent(
        ALL_RULES, (struct wire_packet){.proto = IPPROTO_TCP, .tcp_flags = 0x10}, "bare ACK");
}

/* One ARP request of the guest; true when it is answered. */
static bool arp_answered(const char *sender_mac, const char *sender_ip, const char *target_ip)
{
    uint8_t arp[28] = {0, 1, 8, 0, 6, 4, 0, 1};
    uint8_t frame[WIRE_FRAME_MAX];
    char mark[WIRE_MARK_MAX];
    const struct ether_addr *mac = ether_aton(sender_mac);
    bool answered = false;
    ssize_t n;
    new_mark(mark);
    memcpy(arp + 8, mac, 6);
    (void)inet_pton(AF_INET, sender_ip, arp + 14);
    (void)inet_pton(AF_INET, target_ip, arp + 24);
    while (read(scene->tap, frame, sizeof frame) > 0)
        ;
    wire_send(scene->tap, &(struct wire_packet){.src_mac = sender_mac,
                              .dst_mac = "ff:ff:ff:ff:ff:ff",
                              .ethertype = ETH_P_ARP,
                              .body = arp,
                              .n_body = sizeof arp,
                              .mark = mark});
    send_sentinel();
    while ((n = read(scene->tap, frame, sizeof frame)) > 0)
        answered = answered || (n >= 42 && frame[12] == 8 && frame[13] == 6 && frame[21] == 2);
    return answered;
}

static void test_arp(void **state)
{
    (void)state;
    NEEDS_WORLD();
    static const char *const others[] = {
        "10.11.0.1", "10.11.0.0", WORLD_HOST_IP, "169.254.0.21", "169.254.0.20", "127.0.0.1"};
    assert_true(arp_answered(GUEST_MAC, GUEST_ADDRESS, GUEST_GATEWAY));
    for (size_t i = 0; i < ARRAY_LEN(others); i++)
        assert_false(arp_answered(GUEST_MAC, GUEST_ADDRESS, others[i]));
    assert_false(arp_answered(GUEST_MAC, "169.254.0.20", GUEST_GATEWAY));
    assert_false(arp_answered(GUEST_MAC, "10.11.0.0", GUEST_GATEWAY));
    assert_false(arp_answered("02:00:00:00:00:01", GUEST_ADDRESS, GUEST_GATEWAY));
}

static void test_policy(void **state)
{
    (void)state;
    NEEDS_WORLD();
    struct err e = {0};
    char mark[WIRE_MARK_MAX];
    assert_leaves((struct wire_packet){.sport = 41000});
    assert_int_equal(net_slot_set_policy(scene->pool, scene->a.index, NET_POLICY_NONE, &e), 0);
    /* No sentinel can pass now: slot b's link and its own guest tell nothing of a's. The link
     * itself does: what was sent is heard there, and nowhere else. */
    for (size_t i = 0; i < sizeof protos; i++) {
        new_mark(mark);
        hush();
        AUTO_CLOSE int link = wire_ear(strrchr(scene->a.netns, '/') + 1);
        wire_send(
            scene->tap, &(struct wire_packet){.proto = protos[i], .mark = mark, .sport = 41000});
        wait_for_mark(link, mark);
        assert_false(wire_heard_mark(scene->uplink, mark));
    }
    /* DNS is egress too. */
    new_mark(mark);
    wire_send(scene->tap, &(struct wire_packet){.dst = GUEST_GATEWAY, .dport = 53, .mark = mark});
    assert_int_equal(net_slot_set_policy(scene->pool, scene->a.index, NET_POLICY_OPEN, &e), 0);
    send_sentinel();
    assert_false(heard_locally(mark));
    assert_leaves((struct wire_packet){.sport = 41000});
    assert_int_equal(net_slot_set_policy(scene->pool, 77, NET_POLICY_OPEN, &e), -1);
    assert_int_equal(e.kind, ERR_INVALID);
}

/* The namespace's rules gone but for NAT: the host's alone hold. Last, as it changes the scene. */
static void test_host_rules_alone(void **state)
{
    (void)state;
    NEEDS_WORLD();
    world_slot_rules(scene->a.netns,
        "flush ruleset\n"
        "table ip tp {\n chain outward {\n type nat hook postrouting priority srcnat;\n"
        " oifname \"eth0\" ip saddr " GUEST_ADDRESS " snat to 10.11.0.1\n }\n}\n");
    assert_int_equal(scene->a.index, 0);
    assert_leaves((struct wire_packet){.proto = IPPROTO_TCP, .sport = 42000});
    each_denied(HOST_ALONE);
    each_local(HOST_ALONE);
    each_other_slot(HOST_ALONE);
    /* Not even NAT: any source the guest likes. */
    world_slot_rules(scene->a.netns,
        "flush ruleset\n"
        "table ip tp {\n chain outward {\n type nat hook postrouting priority srcnat;\n"
        " oifname \"eth0\" udp dport 7 ip saddr " GUEST_ADDRESS " snat to 10.11.0.1\n }\n}\n");
    int home = world_enter_path(scene->a.netns);
    struct err e = {0};
    assert_int_equal(net_sysctl_write("net/ipv4/conf/all/rp_filter", "0", &e), 0);
    assert_int_equal(net_sysctl_write("net/ipv4/conf/tap0/rp_filter", "0", &e), 0);
    world_leave(home);
    static const char *const sources[] = {
        GUEST_ADDRESS, "10.11.0.0", "10.11.0.5", "10.11.0.6", "8.8.8.8", "192.168.1.5"};
    for (size_t i = 0; i < ARRAY_LEN(sources); i++)
        for (size_t k = 0; k < sizeof protos; k++)
            assert_silent(HOST_ALONE,
                (struct wire_packet){
                    .src = sources[i], .dst = "8.8.4.4", .proto = protos[k], .dport = 9},
                sources[i]);
}

int main(int argc, char **argv)
{
    if (argc == 2 && strcmp(argv[1], "net-helper") == 0)
        return net_helper_main(argc, argv);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_allowed_leaves),
        cmocka_unit_test(test_source_is_the_hosts),
        cmocka_unit_test(test_denied_ranges),
        cmocka_unit_test(test_spoofed_sources),
        cmocka_unit_test(test_spoofed_macs),
        cmocka_unit_test(test_vlans_and_other_types),
        cmocka_unit_test(test_ipv6),
        cmocka_unit_test(test_options_and_fragments),
        cmocka_unit_test(test_fragmented_datagram),
        cmocka_unit_test(test_other_protocols),
        cmocka_unit_test(test_arp),
        cmocka_unit_test(test_policy),
        cmocka_unit_test(test_host_rules_alone),
    };
    return cmocka_run_group_tests_name("net egress", tests, open_scene, close_scene);
}
