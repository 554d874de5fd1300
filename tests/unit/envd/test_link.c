/* SPDX-License-Identifier: Apache-2.0 */
/* The guest's network, set up in a network namespace of the test's own. */
#include "harness.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/io.h"
#include "envd/link.h"
#include "proto/limits.h"

/* A TAP named eth0, whose other end we hold; -1 where that cannot be had. */
static int tap = -1;

static int set_up(void **state)
{
    struct ifreq ifr;
    memset(&ifr, 0, sizeof ifr);
    (void)snprintf(ifr.ifr_name, sizeof ifr.ifr_name, "eth0");
    ifr.ifr_flags = IFF_TAP | IFF_NO_PI;
    if (unshare(CLONE_NEWNET) < 0)
        return 0;
    tap = open("/dev/net/tun", O_RDWR | O_CLOEXEC);
    if (tap >= 0 && ioctl(tap, TUNSETIFF, &ifr) < 0) {
        (void)close(tap);
        tap = -1;
    }
    return 0;
}

static bool is_up(const char *interface)
{
    AUTO_CLOSE int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    struct ifreq ifr;
    memset(&ifr, 0, sizeof ifr);
    (void)snprintf(ifr.ifr_name, sizeof ifr.ifr_name, "%s", interface);
    assert_int_equal(ioctl(fd, SIOCGIFFLAGS, &ifr), 0);
    return ifr.ifr_flags & IFF_UP;
}

static void test_loopback(void **state)
{
    struct err e = {0};
    AUTO_BUF struct buf text = BUF_INIT(64);
    if (tap < 0)
        skip_because("a network namespace with a TAP needs root and /dev/net/tun");
    assert_false(is_up("lo"));
    if (link_set_up_loopback(&e) < 0)
        fail_msg("%s", e.msg);
    assert_true(is_up("lo"));
    if (io_read_file(AT_FDCWD, "/proc/sys/net/ipv6/conf/all/disable_ipv6", &text, &e) == 0)
        assert_string_equal(text.p, "1\n");
}

static void test_guest_address(void **state)
{
    AUTO_CLOSE int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    AUTO_BUF struct buf routes = BUF_INIT(4096);
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(9)};
    struct sockaddr_in from;
    socklen_t len = sizeof from;
    struct err e = {0};
    if (tap < 0)
        skip_because("a network namespace with a TAP needs root and /dev/net/tun");
    if (link_set_up_guest("eth0", &e) < 0)
        fail_msg("%s", e.msg);
    assert_true(is_up("eth0"));
    /* Everything goes out with our address, through the gateway, and the link is a /30. */
    to.sin_addr.s_addr = inet_addr("203.0.113.1");
    assert_int_equal(connect(fd, (struct sockaddr *)&to, sizeof to), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&from, &len), 0);
    assert_int_equal(from.sin_addr.s_addr, inet_addr(GUEST_ADDRESS));
    assert_int_equal(io_read_file(AT_FDCWD, "/proc/thread-self/net/route", &routes, &e), 0);
    assert_non_null(strstr(routes.p, "eth0\t00000000\t1600FEA9\t0003"));
    assert_non_null(strstr(routes.p, "eth0\t1400FEA9\t00000000\t0001\t0\t0\t0\tFCFFFFFF"));
    assert_int_equal(link_set_up_guest("eth0", &e), 0); /* once more is fine */
}

static void test_no_such_interface(void **state)
{
    struct err e = {0};
    if (tap < 0)
        skip_because("a network namespace with a TAP needs root and /dev/net/tun");
    assert_int_equal(link_set_up_guest("eth7", &e), -1);
    assert_int_equal(e.errnum, ENODEV);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_loopback),
        cmocka_unit_test(test_guest_address),
        cmocka_unit_test(test_no_such_interface),
    };
    return cmocka_run_group_tests(tests, set_up, NULL);
}
