/* SPDX-License-Identifier: Apache-2.0 */
/* The DNS forwarder: its reading of messages, its resolver's address, and questions of real guests
 * answered by a resolver that the test plays. */
#include "machine.h"
#include "world.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "agent/net/dns_int.h"
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

/* "host<n>.example", type A unless told. Returns the length. */
static size_t make_query(unsigned char *q, unsigned id, unsigned n, unsigned type)
{
    static const unsigned char tail[] = "\7example\0\0\0\0\1";
    char label[16];
    int len = snprintf(label, sizeof label, "host%u", n);
    memset(q, 0, DNS_HEADER_BYTES);
    dns_set_id(q, id);
    q[2] = 1; /* recursion desired */
    q[5] = 1;
    q[12] = (unsigned char)len;
    memcpy(q + 13, label, (size_t)len);
    memcpy(q + 13 + len, tail, sizeof tail - 1);
    q[13 + len + 10] = (unsigned char)type;
    return 13 + (size_t)len + sizeof tail - 1;
}

static void test_messages(void **state)
{
    (void)state;
    unsigned char q[DNS_QUERY_MAX + 8] = {0};
    size_t question;
    size_t n = make_query(q, 7, 1, 1);
    assert_true(dns_query_acceptable(q, n, &question));
    assert_int_equal(question, n - DNS_HEADER_BYTES);
    for (size_t cut = 0; cut < n; cut++)
        assert_false(dns_query_acceptable(q, cut, &question));
    assert_true(dns_query_acceptable(q, DNS_QUERY_MAX, &question));
    assert_false(dns_query_acceptable(q, DNS_QUERY_MAX + 1, &question));
    for (unsigned opcode = 1; opcode < 16; opcode++) {
        (void)make_query(q, 7, 1, 1);
        q[2] = (unsigned char)(opcode << 3);
        assert_false(dns_query_acceptable(q, n, &question)); /* 5 would be an update */
    }
    (void)make_query(q, 7, 1, 1);
    q[2] |= 0x80;
    assert_false(dns_query_acceptable(q, n, &question)); /* an answer */
    for (size_t at = 4; at < 12; at += 2) {
        (void)make_query(q, 7, 1, 1);
        q[at] = 1;
        assert_false(dns_query_acceptable(q, n, &question)); /* 256 of something */
    }
    (void)make_query(q, 7, 1, 252);
    assert_false(dns_query_acceptable(q, n, &question)); /* AXFR */
    (void)make_query(q, 7, 1, 251);
    assert_false(dns_query_acceptable(q, n, &question));
    (void)make_query(q, 7, 1, 1);
    q[12] = 0xc0;
    assert_false(dns_query_acceptable(q, n, &question)); /* compressed */
}

static void test_answers(void **state)
{
    (void)state;
    unsigned char q[64];
    unsigned char a[64];
    size_t n = make_query(q, 7, 1, 1);
    size_t question = n - DNS_HEADER_BYTES;
    memcpy(a, q, n);
    a[2] |= 0x80;
    assert_true(dns_answer_matches(a, n, 7, q + DNS_HEADER_BYTES, question));
    a[13] = 'H';
    assert_true(dns_answer_matches(a, n, 7, q + DNS_HEADER_BYTES, question));
    assert_false(dns_answer_matches(a, n, 8, q + DNS_HEADER_BYTES, question));
    assert_false(dns_answer_matches(a, n - 1, 7, q + DNS_HEADER_BYTES, question));
    a[13] = 'x';
    assert_false(dns_answer_matches(a, n, 7, q + DNS_HEADER_BYTES, question));
    assert_false(dns_answer_matches(q, n, 7, q + DNS_HEADER_BYTES, question)); /* no answer */
}

static void assert_resolver(const char *text, const char *file, const char *ip, unsigned port)
{
    struct err e = {0};
    struct sockaddr_in sa;
    char got[INET_ADDRSTRLEN];
    if (net_dns_resolver(text, file, &sa, &e) < 0)
        fail_msg("%s", e.msg);
    (void)inet_ntop(AF_INET, &sa.sin_addr, got, sizeof got);
    assert_string_equal(got, ip);
    assert_int_equal(ntohs(sa.sin_port), port);
}

static void test_resolver_address(void **state)
{
    (void)state;
    struct err e = {0};
    struct sockaddr_in sa;
    char path[] = "/tmp/torpor-resolv-XXXXXX";
    static const char conf[] = "# nameserver 1.1.1.1\nnameserver ::1\nnameservers 9.9.9.9\n"
                               "nameserver\t8.8.4.4 # comment\nnameserver 8.8.8.8\n";
    AUTO_CLOSE int fd = mkostemp(path, O_CLOEXEC);
    assert_int_equal(write(fd, conf, sizeof conf - 1), sizeof conf - 1);
    assert_resolver("1.2.3.4", path, "1.2.3.4", 53);
    assert_resolver("1.2.3.4:5353", path, "1.2.3.4", 5353);
    assert_resolver(NULL, path, "8.8.4.4", 53);
    (void)unlink(path);
    assert_resolver(NULL, path, "127.0.0.1", 53);
    static const char *const bad[] = {
        "", "x", "1.2.3", "1.2.3.4:", "1.2.3.4:0", "1.2.3.4:65536", "::1", "1.2.3.4:5x"};
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        assert_int_equal(net_dns_resolver(bad[i], path, &sa, &e), -1);
        assert_string_equal(e.where, "resolver");
    }
}

static void test_rate(void **state)
{
    (void)state;
    struct dns_client c = {0};
    int passed = 0;
    for (int i = 0; i < 1000; i++)
        passed += dns_client_pass(&c, 1000000);
    assert_in_range(passed, DNS_RATE_BURST, DNS_RATE_BURST + 1);
    passed = 0;
    for (int i = 0; i < 1000; i++)
        passed += dns_client_pass(&c, 1001000); /* a second later */
    assert_int_equal(passed, DNS_RATE_PER_SEC);
}

/* A plan is refused for what is wrong in it, and its numbers are the documented ones. */
static void test_plan(void **state)
{
    (void)state;
    struct err e = {0};
    struct net_plan p;
    struct net_names n;
    char ip[INET_ADDRSTRLEN];
    const struct net_config good = {.instance = 15,
        .range = "10.11.0.0/16",
        .slots = 1000,
        .ready = 8,
        .uid_base = 100000,
        .helper = "/bin/agent"};
    assert_int_equal(net_plan_make(&good, &p, &e), 0);
    net_names_of(&p, 999, &n);
    assert_string_equal(n.link, "tp15-999");
    assert_string_equal(n.netns, "/run/netns/tp15-999");
    net_ip_text(n.host_ip, ip);
    assert_string_equal(ip, "10.11.255.158");
    net_ip_text(net_dns_address(&p), ip);
    assert_string_equal(ip, "10.11.255.253");
    static const char *const ranges[] = {"10.11.0.0", "10.11.0.0/21", "10.0.0.0/7", "10.11.1.0/16",
        "127.0.0.0/16", "169.254.0.0/16", "0.0.0.0/8", "224.0.0.0/16", "x/16", "10.11.0.0/",
        "10.11.0.0/16 "};
    for (size_t i = 0; i < ARRAY_LEN(ranges); i++) {
        struct net_config c = good;
        c.range = ranges[i];
        assert_int_equal(net_plan_make(&c, &p, &e), -1);
        assert_string_equal(e.where, "range");
    }
    struct net_config c = good;
    c.range = "10.11.0.0/20"; /* room for instance 0 alone */
    assert_int_equal(net_plan_make(&c, &p, &e), -1);
    assert_string_equal(e.where, "instance");
    c = good;
    c.slots = 1001;
    assert_int_equal(net_plan_make(&c, &p, &e), -1);
    assert_string_equal(e.where, "slots");
    c = good;
    c.helper = "agent";
    assert_int_equal(net_plan_make(&c, &p, &e), -1);
    assert_string_equal(e.where, "helper");
}

struct scene {
    struct net_pool *pool;
    struct net_slot slot;
    struct machine guest;
    int resolver; /* UDP, in the internet */
    int udp;      /* the guest's, connected to its gateway */
};

static int guest_udp(const struct machine *m)
{
    struct sockaddr_in sa = {.sin_family = AF_INET, .sin_port = htons(53)};
    (void)inet_pton(AF_INET, GUEST_GATEWAY, &sa.sin_addr);
    int home = machine_enter(m);
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    assert_int_equal(connect(fd, (const struct sockaddr *)&sa, sizeof sa), 0);
    world_leave(home);
    return fd;
}

static void scene_open(struct scene *s)
{
    struct err e = {0};
    const struct net_config c = world_config(0, 1, 1);
    s->resolver = world_internet_udp(5353);
    s->pool = net_pool_open(&c, &e);
    if (!s->pool || net_slot_acquire(s->pool, deadline_in_ms(WORLD_WAIT_MS), &s->slot, &e) < 0)
        fail_msg("%s", e.msg);
    machine_start(&s->guest, s->slot.netns);
    s->udp = guest_udp(&s->guest);
}

static void scene_close(struct scene *s)
{
    struct err e = {0};
    (void)close(s->udp);
    (void)close(s->resolver);
    machine_stop(&s->guest);
    if (net_pool_close(s->pool, &e) < 0)
        fail_msg("%s", e.msg);
}

struct asked {
    struct sockaddr_in from;
    unsigned char q[DNS_QUERY_MAX];
    size_t n;
};

/* The next question that reaches the resolver. */
static void resolver_hears(const struct scene *s, struct asked *a)
{
    socklen_t len = sizeof a->from;
    world_wait_readable(s->resolver);
    ssize_t n = recvfrom(s->resolver, a->q, sizeof a->q, 0, (struct sockaddr *)&a->from, &len);
    assert_true(n > 0);
    a->n = (size_t)n;
}

static void resolver_says(const struct scene *s, const struct asked *to, const void *p, size_t n)
{
    assert_int_equal(
        sendto(s->resolver, p, n, 0, (const struct sockaddr *)&to->from, sizeof to->from), n);
}

static size_t guest_hears(const struct scene *s, unsigned char *p, size_t size)
{
    world_wait_readable(s->udp);
    ssize_t n = recv(s->udp, p, size, 0);
    assert_true(n > 0);
    return (size_t)n;
}

static void test_question_and_answer(void **state)
{
    (void)state;
    NEEDS_WORLD();
    struct scene s;
    struct asked a;
    struct asked b;
    unsigned char q[DNS_QUERY_MAX];
    unsigned char got[DNS_ANSWER_MAX + 1];
    scene_open(&s);
    size_t n = make_query(q, 0x1234, 1, 1);
    assert_int_equal(send(s.udp, q, n, 0), n);
    resolver_hears(&s, &a);
    assert_int_equal(a.n, n);
    assert_memory_equal(a.q + 2, q + 2, n - 2);
    /* A wrong id, a wrong question and no answer at all change nothing. */
    unsigned id = dns_id(a.q);
    a.q[2] |= 0x80;
    dns_set_id(a.q, id ^ 1);
    resolver_says(&s, &a, a.q, n);
    dns_set_id(a.q, id);
    a.q[13] = 'x';
    resolver_says(&s, &a, a.q, n);
    resolver_says(&s, &a, "short", 5);
    a.q[13] = 'h';
    memcpy(a.q + n, "the rest", 8);
    resolver_says(&s, &a, a.q, n + 8);
    assert_int_equal(guest_hears(&s, got, sizeof got), n + 8);
    assert_int_equal(dns_id(got), 0x1234);
    assert_memory_equal(got + n, "the rest", 8);
    /* A second answer to the same question goes nowhere; ports and ids change. */
    resolver_says(&s, &a, a.q, n + 8);
    (void)make_query(q, 0x1235, 2, 1);
    assert_int_equal(send(s.udp, q, n, 0), n);
    resolver_hears(&s, &b);
    assert_int_not_equal(a.from.sin_port, b.from.sin_port);
    b.q[2] |= 0x80;
    resolver_says(&s, &b, b.q, n);
    assert_int_equal(guest_hears(&s, got, sizeof got), n);
    assert_int_equal(dns_id(got), 0x1235);
    scene_close(&s);
}

static void test_refused_and_truncated(void **state)
{
    (void)state;
    NEEDS_WORLD();
    struct scene s;
    struct asked a;
    unsigned char q[DNS_QUERY_MAX];
    static unsigned char big[DNS_ANSWER_MAX + 100];
    unsigned char got[DNS_ANSWER_MAX + 1];
    scene_open(&s);
    size_t n = make_query(q, 1, 1, 252);
    assert_int_equal(send(s.udp, q, n, 0), n);
    assert_int_equal(guest_hears(&s, got, sizeof got), DNS_HEADER_BYTES);
    assert_int_equal(got[3] & 15, DNS_REFUSED);
    (void)make_query(q, 2, 1, 1);
    q[2] = 5 << 3; /* update */
    assert_int_equal(send(s.udp, q, n, 0), n);
    assert_int_equal(guest_hears(&s, got, sizeof got), DNS_HEADER_BYTES);
    assert_int_equal(dns_id(got), 2);
    assert_false(world_readable(s.resolver));
    (void)make_query(q, 3, 1, 1);
    assert_int_equal(send(s.udp, q, n, 0), n);
    resolver_hears(&s, &a);
    memcpy(big, a.q, n);
    big[2] |= 0x80;
    resolver_says(&s, &a, big, sizeof big);
    assert_int_equal(guest_hears(&s, got, sizeof got), n);
    assert_int_equal(dns_id(got), 3);
    assert_true(got[2] & 0x02);
    scene_close(&s);
}

/* A resolver that says nothing: the slot's share is bounded, what is over it fails at once. */
static void test_outstanding_are_bounded(void **state)
{
    (void)state;
    NEEDS_WORLD();
    struct scene s;
    struct asked a;
    unsigned char q[DNS_QUERY_MAX];
    unsigned char got[DNS_ANSWER_MAX];
    scene_open(&s);
    for (unsigned i = 0; i < DNS_UDP_SLOT_MAX + 10; i++) {
        size_t n = make_query(q, i, i, 1);
        assert_int_equal(send(s.udp, q, n, 0), n);
    }
    for (unsigned i = 0; i < 10; i++) {
        (void)guest_hears(&s, got, sizeof got);
        assert_int_equal(dns_id(got), DNS_UDP_SLOT_MAX + i);
        assert_int_equal(got[3] & 15, DNS_SERVFAIL);
    }
    unsigned same_ids = 0;
    for (unsigned i = 0; i < DNS_UDP_SLOT_MAX; i++) {
        resolver_hears(&s, &a);
        same_ids += dns_id(a.q) == i;
    }
    assert_true(same_ids <= 3); /* ids are random ones of the forwarder's */
    assert_false(world_readable(s.resolver));
    a.q[2] |= 0x80;
    resolver_says(&s, &a, a.q, a.n); /* one is answered, one more fits */
    (void)guest_hears(&s, got, sizeof got);
    size_t n = make_query(q, 1000, 1000, 1);
    assert_int_equal(send(s.udp, q, n, 0), n);
    resolver_hears(&s, &a);
    scene_close(&s);
}

/* Nobody listens there: ICMP says so, and so does the guest's answer. */
static void test_resolver_is_down(void **state)
{
    (void)state;
    NEEDS_WORLD();
    struct scene s;
    unsigned char q[DNS_QUERY_MAX];
    unsigned char got[DNS_ANSWER_MAX];
    scene_open(&s);
    (void)close(s.resolver);
    size_t n = make_query(q, 9, 1, 1);
    assert_int_equal(send(s.udp, q, n, 0), n);
    assert_int_equal(guest_hears(&s, got, sizeof got), n);
    assert_int_equal(got[3] & 15, DNS_SERVFAIL);
    s.resolver = world_internet_udp(5353);
    scene_close(&s);
}

static int guest_tcp(const struct machine *m)
{
    struct err e = {0};
    int home = machine_enter(m);
    int fd = sock_connect_tcp(GUEST_GATEWAY, 53, deadline_in_ms(WORLD_WAIT_MS), &e);
    world_leave(home);
    assert_true(fd >= 0);
    return fd;
}

static void write_frame(int fd, const unsigned char *p, size_t n)
{
    struct err e = {0};
    const unsigned char head[2] = {(unsigned char)(n >> 8), (unsigned char)n};
    int64_t deadline = deadline_in_ms(WORLD_WAIT_MS);
    assert_int_equal(io_write_full(fd, head, 2, deadline, &e), 0);
    assert_int_equal(io_write_full(fd, p, n, deadline, &e), 0);
}

static size_t read_frame(int fd, unsigned char *p, size_t size)
{
    struct err e = {0};
    unsigned char head[2];
    int64_t deadline = deadline_in_ms(WORLD_WAIT_MS);
    if (io_read_full(fd, head, 2, deadline, &e) < 0)
        fail_msg("%s", e.msg);
    size_t n = (size_t)head[0] << 8 | head[1];
    assert_true(n <= size);
    assert_int_equal(io_read_full(fd, p, n, deadline, &e), 0);
    return n;
}

static void assert_closed(int fd)
{
    char c;
    world_wait_readable(fd);
    assert_true(recv(fd, &c, 1, 0) <= 0);
}

static void test_tcp(void **state)
{
    (void)state;
    NEEDS_WORLD();
    struct scene s;
    unsigned char q[DNS_QUERY_MAX];
    static unsigned char big[60000];
    static unsigned char got[sizeof big];
    scene_open(&s);
    AUTO_CLOSE int listener = world_internet_listen(5353);
    AUTO_CLOSE int guest = guest_tcp(&s.guest);
    world_wait_readable(listener);
    AUTO_CLOSE int server = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
    assert_true(server >= 0);
    /* Two questions in a row, an answer that fills many buffers, then the end. */
    size_t n = make_query(q, 1, 1, 1);
    write_frame(guest, q, n);
    write_frame(guest, q, n);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(read_frame(server, got, sizeof got), n);
        assert_memory_equal(got, q, n);
    }
    memset(big, 'y', sizeof big);
    write_frame(server, big, sizeof big);
    assert_int_equal(read_frame(guest, got, sizeof got), sizeof big);
    assert_memory_equal(got, big, sizeof big);
    (void)shutdown(guest, SHUT_WR);
    assert_closed(server);
    (void)close(TAKE_FD(server));
    assert_closed(guest);
    /* A zone transfer, and a frame that is too long, end the connection. */
    for (int i = 0; i < 2; i++) {
        AUTO_CLOSE int bad = guest_tcp(&s.guest);
        AUTO_CLOSE int other = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
        (void)make_query(q, 1, 1, 252);
        if (i == 0)
            write_frame(bad, q, n);
        else
            assert_int_equal(send(bad, "\xff\xffxx", 4, 0), 4);
        assert_closed(bad);
        assert_closed(other);
    }
    scene_close(&s);
}

static void test_tcp_is_bounded(void **state)
{
    (void)state;
    NEEDS_WORLD();
    struct scene s;
    int fds[DNS_TCP_SLOT_MAX];
    scene_open(&s);
    AUTO_CLOSE int listener = world_internet_listen(5353);
    for (size_t i = 0; i < ARRAY_LEN(fds); i++)
        fds[i] = guest_tcp(&s.guest);
    AUTO_CLOSE int over = guest_tcp(&s.guest);
    assert_closed(over);
    (void)close(fds[0]);
    for (size_t i = 0; i < ARRAY_LEN(fds); i++) {
        int server = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
        if (i == 0)
            assert_closed(server); /* then its place is free */
        (void)close(server);
    }
    for (size_t i = 1; i < ARRAY_LEN(fds); i++)
        (void)close(fds[i]);
    scene_close(&s);
}

int main(int argc, char **argv)
{
    if (argc == 2 && strcmp(argv[1], "net-helper") == 0)
        return net_helper_main(argc, argv);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_messages),
        cmocka_unit_test(test_answers),
        cmocka_unit_test(test_resolver_address),
        cmocka_unit_test(test_rate),
        cmocka_unit_test(test_plan),
        cmocka_unit_test(test_question_and_answer),
        cmocka_unit_test(test_refused_and_truncated),
        cmocka_unit_test(test_outstanding_are_bounded),
        cmocka_unit_test(test_resolver_is_down),
        cmocka_unit_test(test_tcp),
        cmocka_unit_test(test_tcp_is_bounded),
    };
    no_world = world_open();
    return cmocka_run_group_tests_name("net dns", tests, NULL, NULL);
}
