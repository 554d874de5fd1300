/* SPDX-License-Identifier: Apache-2.0 */
/* Ending old connections, in a network namespace of this test's own. */
#include "harness.h"

#include <arpa/inet.h>
#include <errno.h>
#include <net/if.h>
#include <sched.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/sock.h"
#include "envd/link.h"
#include "envd/tcp.h"

#define ADDRESS "10.9.9.9" /* on the loopback device, but none of 127/8: another machine's */

static int own_network(void **state)
{
    struct ifreq ifr = {.ifr_name = "lo:1"};
    const struct sockaddr_in in = {
        .sin_family = AF_INET, .sin_addr = {.s_addr = inet_addr(ADDRESS)}};
    struct err e = {0};
    AUTO_CLOSE int fd = -1;
    if (geteuid() != 0 || unshare(CLONE_NEWNET) < 0)
        return 0;
    *state = own_network; /* anything */
    fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    memcpy(&ifr.ifr_addr, &in, sizeof in);
    return link_set_up_loopback(&e) < 0 || ioctl(fd, SIOCSIFADDR, &ifr) < 0 ? -1 : 0;
}

struct pair {
    int listener, client, server;
};

static struct pair connect_pair(const char *ip)
{
    struct err e = {0};
    struct pair p;
    p.listener = sock_listen_tcp(ip, 0, &e);
    assert_true(p.listener >= 0);
    p.client =
        sock_connect_tcp(ip, sock_local_port(p.listener), deadline_in_ms(TEST_DEADLINE_MS), &e);
    assert_true(p.client >= 0);
    p.server = accept4(p.listener, NULL, NULL, SOCK_CLOEXEC);
    assert_true(p.server >= 0);
    return p;
}

static void pair_done(struct pair *p)
{
    (void)close(p->listener);
    (void)close(p->client);
    (void)close(p->server);
}

static void test_foreign_end_local_stay(void **state)
{
    struct err e = {0};
    size_t n = 0;
    char byte;
    if (!*state)
        skip_because("needs root and a network namespace");
    CLEANUP(pair_done) struct pair foreign = connect_pair(ADDRESS);
    CLEANUP(pair_done) struct pair local = connect_pair("127.0.0.1");
    CLEANUP(pair_done) struct pair ours = connect_pair(ADDRESS);
    if (tcp_destroy_foreign(sock_local_port(ours.listener), &n, &e) < 0) {
        assert_int_equal(e.kind, ERR_UNSUPPORTED);
        skip_because(e.msg);
    }
    assert_int_equal(n, 3); /* of `ours` only the client's end, whose port is another */
    assert_int_equal(recv(foreign.client, &byte, 1, MSG_DONTWAIT), -1);
    /* Or reset, when its peer, which is in this namespace too, was destroyed first. */
    assert_true(errno == ECONNABORTED || errno == ECONNRESET);
    assert_int_equal(recv(foreign.server, &byte, 1, MSG_DONTWAIT), -1);
    assert_int_equal(send(local.client, "x", 1, MSG_NOSIGNAL), 1);
    assert_int_equal(recv(local.server, &byte, 1, 0), 1);
    pair_done(&foreign); /* listeners live */
    foreign = connect_pair(ADDRESS);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_foreign_end_local_stay, own_network),
    };
    return cmocka_run_group_tests_name("envd tcp", tests, NULL, NULL);
}
