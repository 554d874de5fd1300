/* SPDX-License-Identifier: Apache-2.0 */
/* Network interfaces by ioctl(2): a handful of fixed settings needs no netlink. */
#include "envd/link.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <net/route.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "proto/limits.h"

static int open_socket(struct err *e)
{
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    return fd < 0 ? err_sys(e, errno, "socket") : fd;
}

static struct ifreq request_for(const char *interface)
{
    struct ifreq ifr;
    memset(&ifr, 0, sizeof ifr);
    (void)snprintf(ifr.ifr_name, sizeof ifr.ifr_name, "%s", interface);
    return ifr;
}

static void set_address(struct sockaddr *dst, in_addr_t address)
{
    const struct sockaddr_in in = {.sin_family = AF_INET, .sin_addr = {.s_addr = address}};
    memcpy(dst, &in, sizeof in);
}

static int bring_up(int fd, const char *interface, struct err *e)
{
    struct ifreq ifr = request_for(interface);
    if (ioctl(fd, SIOCGIFFLAGS, &ifr) < 0)
        return err_sys(e, errno, "flags of %s", interface);
    ifr.ifr_flags = (short)(ifr.ifr_flags | IFF_UP);
    if (ioctl(fd, SIOCSIFFLAGS, &ifr) < 0)
        return err_sys(e, errno, "bring %s up", interface);
    return 0;
}

static int add_address(int fd, const char *interface, struct err *e)
{
    struct ifreq ifr = request_for(interface);
    set_address(&ifr.ifr_addr, inet_addr(GUEST_ADDRESS));
    if (ioctl(fd, SIOCSIFADDR, &ifr) < 0)
        return err_sys(e, errno, "address of %s", interface);
    ifr = request_for(interface);
    set_address(&ifr.ifr_netmask, htonl(~0u << (32 - GUEST_PREFIX_LEN)));
    if (ioctl(fd, SIOCSIFNETMASK, &ifr) < 0)
        return err_sys(e, errno, "netmask of %s", interface);
    return 0;
}

static int add_default_route(int fd, struct err *e)
{
    struct rtentry route;
    memset(&route, 0, sizeof route);
    set_address(&route.rt_dst, INADDR_ANY);
    set_address(&route.rt_genmask, INADDR_ANY);
    set_address(&route.rt_gateway, inet_addr(GUEST_GATEWAY));
    route.rt_flags = RTF_UP | RTF_GATEWAY;
    if (ioctl(fd, SIOCADDRT, &route) < 0 && errno != EEXIST)
        return err_sys(e, errno, "default route");
    return 0;
}

/* Also for interfaces that come later. */
static int disable_ipv6(const char *which, struct err *e)
{
    char path[64];
    AUTO_CLOSE int fd = -1;
    (void)snprintf(path, sizeof path, "/proc/sys/net/ipv6/conf/%s/disable_ipv6", which);
    fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0)
        return errno == ENOENT ? 0 : err_sys(e, errno, "open %s", path);
    return write(fd, "1", 1) == 1 ? 0 : err_sys(e, errno, "write %s", path);
}

int link_set_up_loopback(struct err *e)
{
    AUTO_CLOSE int fd = -1;
    if (disable_ipv6("all", e) < 0 || disable_ipv6("default", e) < 0)
        return -1;
    fd = open_socket(e);
    return fd < 0 ? -1 : bring_up(fd, "lo", e);
}

int link_set_up_guest(const char *interface, struct err *e)
{
    AUTO_CLOSE int fd = open_socket(e);
    if (fd < 0)
        return -1;
    if (add_address(fd, interface, e) < 0 || bring_up(fd, interface, e) < 0)
        return -1;
    return add_default_route(fd, e);
}
