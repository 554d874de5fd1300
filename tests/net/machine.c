/* SPDX-License-Identifier: Apache-2.0 */
/* A guest of the network tests. */
#include "machine.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <cmocka.h>

#include "agent/net/nl.h"
#include "proto/limits.h"
#include "wire.h"
#include "world.h"

#define LINK "g0"

static void move_frame(int from, int to)
{
    uint8_t frame[WIRE_FRAME_MAX];
    ssize_t n = read(from, frame, sizeof frame);
    if (n > 0)
        (void)!write(to, frame, (size_t)n);
}

static void *pump(void *arg)
{
    const struct machine *m = arg;
    struct pollfd p[] = {{.fd = m->tap, .events = POLLIN}, {.fd = m->link, .events = POLLIN},
        {.fd = m->stop, .events = POLLIN}};
    while (poll(p, 3, -1) > 0 && !p[2].revents) {
        if (p[0].revents)
            move_frame(m->tap, m->link);
        if (p[1].revents)
            move_frame(m->link, m->tap);
    }
    return NULL;
}

static uint32_t ip_of(const char *text)
{
    struct in_addr in;
    assert_int_equal(inet_pton(AF_INET, text, &in), 1);
    return ntohl(in.s_addr);
}

static void make_link(struct machine *m)
{
    struct err e = {0};
    struct ifreq ifr = {.ifr_flags = IFF_TAP | IFF_NO_PI, .ifr_name = LINK};
    const struct rtnl_addr a = {
        .link = LINK, .ip = ip_of(GUEST_ADDRESS), .prefix_len = GUEST_PREFIX_LEN};
    const struct rtnl_route all = {.link = LINK, .gateway = ip_of(GUEST_GATEWAY)};
    m->link = open("/dev/net/tun", O_RDWR | O_CLOEXEC | O_NONBLOCK);
    assert_int_equal(ioctl(m->link, TUNSETIFF, &ifr), 0);
    assert_int_equal(net_sysctl_write("net/ipv6/conf/all/disable_ipv6", "1", &e), 0);
    if (rtnl_link_set_mac(LINK, GUEST_MAC, &e) < 0 || rtnl_link_up("lo", &e) < 0 ||
        rtnl_link_up(LINK, &e) < 0 || rtnl_addr_add(&a, &e) < 0 || rtnl_route_add(&all, &e) < 0)
        fail_msg("%s", e.msg);
}

void machine_start(struct machine *m, const char *netns)
{
    int home = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
    m->tap = wire_open_tap(netns);
    if (m->tap < 0)
        fail_msg("the TAP is not free: %s", strerror(errno));
    assert_int_equal(unshare(CLONE_NEWNET), 0);
    m->ns_fd = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
    make_link(m);
    world_leave(home);
    m->stop = eventfd(0, EFD_CLOEXEC);
    assert_int_equal(pthread_create(&m->thread, NULL, pump, m), 0);
}

void machine_stop(struct machine *m)
{
    (void)eventfd_write(m->stop, 1);
    (void)pthread_join(m->thread, NULL);
    (void)close(m->stop);
    (void)close(m->tap);
    (void)close(m->link);
    (void)close(m->ns_fd);
}

int machine_enter(const struct machine *m)
{
    int home = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
    assert_int_equal(setns(m->ns_fd, CLONE_NEWNET), 0);
    return home;
}
