/* SPDX-License-Identifier: Apache-2.0 */
/* Slots that running VMs hold, over a restart of the agent: what they have goes on, what they may
 * not stays denied in every instant, and what is broken is seen. */
#include "flow.h"
#include "machine.h"
#include "wire.h"
#include "world.h"

#include <linux/if_tun.h>
#include <linux/netfilter.h>
#include <net/if.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
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

/* Breaks the slot from inside its namespace, or its host end. */
struct damage {
    const char *what;
    void (*do_it)(const struct net_slot *s, struct err *e);
};

static void lose_host_end(const struct net_slot *s, struct err *e)
{
    (void)rtnl_link_delete(strrchr(s->netns, '/') + 1, e);
}

static void lose_namespace(const struct net_slot *s, struct err *e)
{
    (void)net_netns_remove(s->netns, e);
}

static void lose_tap(const struct net_slot *s, struct err *e)
{
    int home = world_enter_path(s->netns);
    (void)rtnl_link_delete(GUEST_TAP, e);
    world_leave(home);
}

static void lose_address(const char *link, const char *ip, uint8_t len, struct err *e)
{
    const struct rtnl_addr a = {.link = link, .ip = net_parse_ip(ip), .prefix_len = len};
    (void)rtnl_addr_delete(&a, e);
}

static void lose_inner_address(const struct net_slot *s, struct err *e)
{
    int home = world_enter_path(s->netns);
    lose_address(NET_NS_LINK, s->index == 0 ? "10.11.0.1" : "10.11.0.5", 31, e);
    world_leave(home);
}

static void lose_gateway(const struct net_slot *s, struct err *e)
{
    int home = world_enter_path(s->netns);
    lose_address(GUEST_TAP, GUEST_GATEWAY, GUEST_PREFIX_LEN, e);
    world_leave(home);
}

static void lose_host_address(const struct net_slot *s, struct err *e)
{
    lose_address(strrchr(s->netns, '/') + 1, s->index == 0 ? "10.11.0.0" : "10.11.0.4", 31, e);
}

static void other_mac(const struct net_slot *s, struct err *e)
{
    int home = world_enter_path(s->netns);
    (void)rtnl_link_set_mac(GUEST_TAP, "02:00:00:00:00:01", e);
    world_leave(home);
}

static void other_owner(const struct net_slot *s, struct err *e)
{
    (void)e;
    int home = world_enter_path(s->netns);
    int fd = wire_open_tap(s->netns);
    assert_true(fd >= 0);
    assert_int_equal(ioctl(fd, TUNSETOWNER, (unsigned long)(s->uid + 1)), 0);
    (void)close(fd);
    world_leave(home);
}

static void lose_rules(const struct net_slot *s, struct err *e)
{
    (void)e;
    world_slot_rules(s->netns, "flush ruleset\n");
}

static void lose_tap_rules(const struct net_slot *s, struct err *e)
{
    (void)e;
    world_slot_rules(s->netns, "delete table netdev tp\n");
}

/* Each is seen; the slot goes, whole, and comes anew. The other kept slot is not touched. */
static void test_broken_slots_are_not_adopted(void **state)
{
    (void)state;
    NEEDS_WORLD();
    static const struct damage all[] = {{"host end", lose_host_end}, {"namespace", lose_namespace},
        {"tap", lose_tap}, {"address inside", lose_inner_address}, {"gateway", lose_gateway},
        {"address outside", lose_host_address}, {"mac", other_mac}, {"owner", other_owner},
        {"rules", lose_rules}, {"tap rules", lose_tap_rules}};
    struct net_pool *p = open_keeping(2, NULL, 0);
    struct net_slot good = acquire(p);
    struct net_slot bad = acquire(p);
    const unsigned keep[] = {good.index, bad.index};
    struct machine guest;
    machine_start(&guest, good.netns);
    for (size_t i = 0; i < ARRAY_LEN(all); i++) {
        struct err e = {0};
        leave(p);
        all[i].do_it(&bad, &e);
        if (e.kind != ERR_NONE)
            fail_msg("%s: %s", all[i].what, e.msg);
        p = open_keeping(2, keep, 2);
        assert_adopted(p, &good);
        if (net_slot_adopt(p, bad.index, &bad, &e) == 0)
            fail_msg("adopted without its %s", all[i].what);
        assert_int_equal(e.kind, ERR_NOT_FOUND);
        bad = acquire(p); /* made anew */
        assert_int_equal(bad.index, keep[1]);
        assert_int_equal(net_slot_adopt(p, bad.index, &bad, &e), -1); /* it is not the old one */
    }
    machine_stop(&guest);
    close_pool(p);
}

static void assert_passes(const struct machine *m, bool passes)
{
    struct sockaddr_in from;
    AUTO_CLOSE int outside = world_internet_udp(7);
    AUTO_CLOSE int udp = machine_udp(m, 5000);
    const struct sockaddr_in internet = flow_address(WORLD_INTERNET_IP, 7);
    AUTO_CLOSE int link = wire_ear("tp0-0");
    flow_say(udp, &internet, "TORPOR-HELLO");
    if (passes) {
        flow_hear(outside, &from, "TORPOR-HELLO");
        return;
    }
    world_wait_readable(link); /* all on one CPU: it is through or gone */
    while (!wire_heard_mark(link, "TORPOR-HELLO"))
        world_wait_readable(link);
    assert_false(world_readable(outside));
}

/* Rules of another version of this program, and a renewal that was stopped midway. */
static void test_other_rules_are_renewed(void **state)
{
    (void)state;
    NEEDS_WORLD();
    struct machine guest;
    bool same;
    bool aside;
    struct err e = {0};
    char mark[NET_MARK_MAX];
    struct net_plan plan;
    struct net_names n;
    const struct net_config c = world_config(0, 1, 1);
    assert_int_equal(net_plan_make(&c, &plan, &e), 0);
    net_names_of(&plan, 0, &n);
    net_rules_slot_mark(&plan, &n, mark);
    struct net_pool *p = open_keeping(1, NULL, 0);
    struct net_slot s = acquire(p);
    machine_start(&guest, s.netns);
    leave(p);
    world_slot_rules(s.netns, "flush chain ip tp through\n"
                              "table ip tp {\n chain v_1 {\n }\n}\n"
                              "table ip tp_aside {\n chain through {\n"
                              " type filter hook forward priority filter; policy drop;\n }\n}\n");
    int home = world_enter_path(s.netns);
    char remove[64];
    (void)snprintf(remove, sizeof remove, "delete chain ip tp %s\n", mark);
    world_leave(home);
    world_slot_rules(s.netns, remove);
    p = open_keeping(1, (const unsigned[]){0}, 1);
    assert_adopted(p, &s);
    assert_passes(&guest, true);
    home = world_enter_path(s.netns);
    assert_int_equal(net_nft_has_chain(NFPROTO_IPV4, "tp", mark, &same, &e), 0);
    assert_int_equal(net_nft_has_chain(NFPROTO_IPV4, "tp_aside", "through", &aside, &e), 0);
    world_leave(home);
    assert_true(same);
    assert_false(aside);
    machine_stop(&guest);
    close_pool(p);
}

/* A firewall's restart flushes all tables: they come back, and the lost policy is the safe one. */
static void test_lost_host_table(void **state)
{
    (void)state;
    NEEDS_WORLD();
    struct machine guest;
    struct err e = {0};
    AUTO_BUF struct buf flush = BUF_INIT(64);
    struct net_pool *p = open_keeping(1, NULL, 0);
    struct net_slot s = acquire(p);
    machine_start(&guest, s.netns);
    assert_passes(&guest, true);
    leave(p);
    buf_append_cstr(&flush, "flush ruleset\n");
    assert_int_equal(net_nft_load(&flush, &e), 0);
    p = open_keeping(1, (const unsigned[]){0}, 1);
    assert_adopted(p, &s);
    assert_passes(&guest, false);
    assert_int_equal(net_slot_set_policy(p, 0, NET_POLICY_OPEN, &e), 0);
    assert_passes(&guest, true);
    machine_stop(&guest);
    close_pool(p);
    /* Who switched the uplink on was written in the table that was flushed. */
    assert_int_equal(net_sysctl_write("net/ipv4/conf/up0/forwarding", "0", &e), 0);
}

/* What leaving leaves, and that a kept slot is an ordinary one afterwards. */
static void test_leave_and_release(void **state)
{
    (void)state;
    NEEDS_WORLD();
    struct err e = {0};
    struct net_slot s;
    struct net_slot again;
    AUTO_BUF struct buf before = BUF_INIT(1 << 20);
    AUTO_BUF struct buf left = BUF_INIT(1 << 20);
    AUTO_BUF struct buf after = BUF_INIT(1 << 20);
    world_snapshot(&before);
    struct net_pool *p = open_keeping(3, NULL, 0);
    s = acquire(p);
    again = acquire(p);
    assert_int_equal(net_slot_set_policy(p, again.index, NET_POLICY_NONE, &e), 0);
    assert_int_equal(net_slot_release(p, s.index, &e), 0);
    leave(p);
    world_snapshot(&left);
    assert_non_null(strstr(left.p, "\"tp0-1\" : goto policy_none }"));
    assert_null(strstr(left.p, "netns tp0-0"));
    assert_null(strstr(left.p, "link tp0-0"));
    assert_null(strstr(left.p, "\"tp0-0\" : goto"));
    assert_null(strstr(left.p, "tp0-2\n"));
    assert_non_null(strstr(left.p, "chain egress"));
    /* Fewer slots than before: the kept one counts nevertheless. */
    p = open_keeping(1, (const unsigned[]){1}, 1);
    assert_adopted(p, &again);
    assert_int_equal(net_slot_adopt(p, 0, &s, &e), -1);
    assert_int_equal(e.kind, ERR_NOT_FOUND);
    assert_int_equal(net_slot_adopt(p, 2, &s, &e), -1);
    assert_int_equal(e.kind, ERR_INVALID);
    assert_int_equal(net_slot_release(p, 1, &e), 0);
    assert_int_equal(net_slot_adopt(p, 1, &s, &e), -1);
    assert_int_equal(used(p), 0);
    close_pool(p);
    world_snapshot(&after);
    assert_string_equal(after.p, before.p);
    struct net_config c = world_config(0, 1, 1);
    c.keep = (const unsigned[]){NET_SLOTS_MAX};
    c.n_keep = 1;
    assert_null(net_pool_open(&c, &e));
    assert_int_equal(e.kind, ERR_INVALID);
}

/* An open that fails does not harm what it was to keep. */
static void test_failed_open_keeps(void **state)
{
    (void)state;
    NEEDS_WORLD();
    struct machine guest;
    struct err e = {0};
    struct net_pool *p = open_keeping(1, NULL, 0);
    struct net_slot s = acquire(p);
    machine_start(&guest, s.netns);
    leave(p);
    struct net_config c = world_config(0, 1, 1);
    c.keep = &s.index;
    c.n_keep = 1;
    c.resolver = "nonsense";
    assert_null(net_pool_open(&c, &e));
    assert_passes(&guest, true);
    p = open_keeping(1, &s.index, 1);
    assert_adopted(p, &s);
    assert_passes(&guest, true);
    machine_stop(&guest);
    close_pool(p);
}

/* The uplink stays on while the set that names it changes hands, and goes off at the end. */
static void test_forwarding_is_handed_over(void **state)
{
    (void)state;
    NEEDS_WORLD();
    struct err e = {0};
    int on;
    struct net_pool *p = open_keeping(1, NULL, 0);
    (void)acquire(p);
    leave(p);
    assert_int_equal(net_sysctl_read("net/ipv4/conf/up0/forwarding", &on, &e), 0);
    assert_int_equal(on, 1);
    for (int i = 0; i < 2; i++) {
        struct net_guard g;
        p = open_keeping(1, (const unsigned[]){0}, 1);
        assert_int_equal(net_guard_read(0, &g, &e), 0);
        assert_int_equal(g.n, 1);
        assert_string_equal(g.names[0], "up0");
        leave(p);
    }
    p = open_keeping(1, NULL, 0);
    close_pool(p);
    assert_int_equal(net_sysctl_read("net/ipv4/conf/up0/forwarding", &on, &e), 0);
    assert_int_equal(on, 0);
}

enum { MANY = 50 };

/* The times are for people; what is asserted is that every slot is still held. */
static void test_restart_keeps_many(void **state)
{
    (void)state;
    NEEDS_WORLD();
    unsigned keep[MANY];
    struct net_config c = world_config(0, 100, MANY);
    struct err e = {0};
    struct net_pool *p = net_pool_open(&c, &e);
    if (!p)
        fail_msg("%s", e.msg);
    for (unsigned i = 0; i < MANY; i++)
        keep[i] = acquire(p).index;
    int64_t start = clock_mono_us();
    leave(p);
    int64_t left = clock_mono_us();
    p = open_keeping(100, keep, MANY);
    int64_t opened = clock_mono_us();
    print_message("  %d slots held: leave %.1f ms, open %.1f ms\n", MANY,
        (double)(left - start) / 1000, (double)(opened - left) / 1000);
    assert_int_equal(used(p), MANY);
    close_pool(p);
}

int main(int argc, char **argv)
{
    if (argc == 2 && strcmp(argv[1], "net-helper") == 0)
        return net_helper_main(argc, argv);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_restart_under_guests),
        cmocka_unit_test(test_broken_slots_are_not_adopted),
        cmocka_unit_test(test_other_rules_are_renewed),
        cmocka_unit_test(test_lost_host_table),
        cmocka_unit_test(test_leave_and_release),
        cmocka_unit_test(test_failed_open_keeps),
        cmocka_unit_test(test_forwarding_is_handed_over),
        cmocka_unit_test(test_restart_keeps_many),
    };
    no_world = world_open();
    return cmocka_run_group_tests_name("net keep", tests, NULL, NULL);
}
