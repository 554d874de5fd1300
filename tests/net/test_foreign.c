/* SPDX-License-Identifier: Apache-2.0 */
/* Other programs' forward chains: found when they drop, and the rules advised do let ours through.
 */
#include "flow.h"
#include "machine.h"
#include "world.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

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

static void load(const char *rules)
{
    struct err e = {0};
    AUTO_BUF struct buf text = BUF_INIT(1 << 16);
    buf_append_cstr(&text, rules);
    if (net_nft_load(&text, &e) < 0)
        fail_msg("%s", e.msg);
}

/* What is found is there until the next call. */
static const struct net_foreign *find(void)
{
    struct err e = {0};
    static struct net_foreign f;
    if (net_find_foreign_filters(&f, &e) < 0)
        fail_msg("%s", e.msg);
    return &f;
}

/* Loads the commands as nft itself gets them from a shell. */
static void obey(const char *commands)
{
    AUTO_BUF struct buf text = BUF_INIT(1 << 16);
    for (const char *p = commands; *p; p++) {
        if (strncmp(p, "nft ", 4) == 0)
            p += 4;
        if (*p != '\'')
            buf_append_char(&text, *p);
    }
    buf_append_char(&text, 0);
    load(text.p);
}

static void assert_echo(const struct machine *m, bool passes)
{
    struct sockaddr_in from;
    struct sockaddr_in back;
    AUTO_CLOSE int outside = world_internet_udp(7);
    AUTO_CLOSE int udp = machine_udp(m, 5000);
    const struct sockaddr_in internet = flow_address(WORLD_INTERNET_IP, 7);
    flow_say(udp, &internet, "hello");
    if (!passes) {
        /* A connection's first packet is gone the same way, and there the guest is sure to wait. */
        assert_int_equal(machine_connect(m, WORLD_INTERNET_IP, 80, 200), -1);
        assert_false(world_readable(outside));
        return;
    }
    flow_hear(outside, &from, "hello");
    flow_say(outside, &from, "hello yourself");
    flow_hear(udp, &back, "hello yourself");
}

static void test_advice_lets_through(void **state)
{
    (void)state;
    NEEDS_WORLD();
    static const char *const fires[] = {
        "table inet fw {\n chain walls {\n type filter hook forward priority 10; policy drop;\n"
        " ct state invalid drop\n }\n}\n",
        "table ip fw {\n chain no {\n counter reject\n }\n chain walls {\n"
        " type filter hook forward priority -10; policy accept;\n"
        " iifname \"lo\" accept\n counter jump no\n }\n}\n"};
    struct err e = {0};
    struct machine guest;
    struct net_slot s;
    const struct net_config c = world_config(0, 1, 1);
    struct net_pool *p = net_pool_open(&c, &e);
    if (!p || net_slot_acquire(p, deadline_in_ms(WORLD_WAIT_MS), &s, &e) < 0)
        fail_msg("%s", e.msg);
    machine_start(&guest, s.netns);
    AUTO_CLOSE __attribute__((unused)) int listener = world_internet_listen(80);
    assert_int_equal(find()->n, 0); /* ours are not foreign */
    assert_echo(&guest, true);
    for (size_t i = 0; i < ARRAY_LEN(fires); i++) {
        load(fires[i]);
        const struct net_foreign *f = find();
        assert_int_equal(f->n, 1);
        assert_string_equal(f->chains[0].family, i == 0 ? "inet" : "ip");
        assert_string_equal(f->chains[0].table, "fw");
        assert_string_equal(f->chains[0].chain, "walls");
        assert_int_equal(f->chains[0].by_policy, i == 0);
        assert_false(f->chains[0].let_through);
        assert_echo(&guest, false);
        obey(f->chains[0].rules);
        assert_echo(&guest, true);
        f = find();
        assert_int_equal(f->n, 1);
        assert_true(f->chains[0].let_through);
        load(i == 0 ? "delete table inet fw\n" : "delete table ip fw\n");
    }
    machine_stop(&guest);
    if (net_pool_close(p, &e) < 0)
        fail_msg("%s", e.msg);
}

static void test_what_is_no_filter(void **state)
{
    (void)state;
    NEEDS_WORLD();
    load(
        "table ip other {\n"
        " chain a {\n type filter hook forward priority 0; policy accept;\n tcp dport 22 drop\n }\n"
        " chain b {\n type filter hook input priority 0; policy drop;\n iifname != \"tp*\" "
        "accept\n }\n"
        " chain c {\n type filter hook forward priority 1; policy accept;\n drop\n"
        " counter accept\n }\n"
        " chain d {\n type filter hook forward priority 1; policy accept;\n }\n}\n"
        "table ip6 other {\n chain f {\n type filter hook forward priority 0; policy drop;\n }\n}\n"
        "table inet tp15 {\n chain f {\n type filter hook forward priority 0; policy drop;\n "
        "}\n}\n");
    assert_int_equal(find()->n, 0);
    load("delete table ip other\ndelete table ip6 other\ndelete table inet tp15\n");
    load("table inet tpx {\n chain f {\n type filter hook forward priority 0; policy drop;\n "
         "}\n}\n");
    assert_int_equal(find()->n, 1); /* not ours, only nearly called so */
    load("delete table inet tpx\n");
}

static void test_in_the_words_of_others(void **state)
{
    (void)state;
    NEEDS_WORLD();
    load("table ip filter {\n chain FORWARD {\n type filter hook forward priority 0; policy drop;\n"
         " }\n}\n");
    const struct net_foreign *f = find();
    assert_int_equal(f->n, 1);
    assert_string_equal(f->chains[0].rules,
        "iptables -I FORWARD -i tp+ -j ACCEPT\n"
        "iptables -I FORWARD -o tp+ -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT\n");
    load("table ip filter {\n chain DOCKER-USER {\n iifname \"tp*\" accept\n }\n}\n");
    f = find();
    assert_non_null(strstr(f->chains[0].rules, "iptables -I DOCKER-USER -i tp+ -j ACCEPT\n"));
    assert_false(f->chains[0].let_through); /* one way is not enough */
    load("delete table ip filter\n"
         "table inet firewalld {\n chain filter_FORWARD {\n"
         " type filter hook forward priority 10; policy accept;\n reject\n }\n}\n");
    f = find();
    assert_int_equal(f->n, 1);
    assert_false(f->chains[0].by_policy);
    assert_non_null(strstr(f->chains[0].rules, "firewall-cmd"));
    load("delete table inet firewalld\n");
}

static void test_too_many(void **state)
{
    (void)state;
    NEEDS_WORLD();
    AUTO_BUF struct buf text = BUF_INIT(1 << 16);
    for (int i = 0; i <= NET_FOREIGN_MAX; i++)
        buf_printf(&text,
            "table ip many {\n chain c%d {\n type filter hook forward priority %d; policy drop;\n"
            " }\n}\n",
            i, i);
    buf_append_char(&text, 0);
    load(text.p);
    const struct net_foreign *f = find();
    assert_int_equal(f->n, NET_FOREIGN_MAX);
    assert_true(f->more);
    load("delete table ip many\n");
}

int main(int argc, char **argv)
{
    if (argc == 2 && strcmp(argv[1], "net-helper") == 0)
        return net_helper_main(argc, argv);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_advice_lets_through),
        cmocka_unit_test(test_what_is_no_filter),
        cmocka_unit_test(test_in_the_words_of_others),
        cmocka_unit_test(test_too_many),
    };
    no_world = world_open();
    return cmocka_run_group_tests_name("net foreign", tests, NULL, NULL);
}
