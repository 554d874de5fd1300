/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Runs inside a guest as root and tries to send what must not get out: to each address given, over
 * TCP, UDP and ICMP, every packet marked; then with forged sources, and as IPv6. It says which TCP
 * connections succeeded; what left the guest is for the host's capture to tell.
 *
 * usage: guest-probe ADDRESS...
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <netinet/ip.h>
#include <netinet/ip_icmp.h>
#include <netinet/udp.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>
#include <linux/if_packet.h>

#include "probe.h"

static uint16_t checksum(const void *p, size_t n)
{
    const unsigned char *u = p;
    uint32_t sum = 0;
    for (size_t i = 0; i + 1 < n; i += 2)
        sum += (uint32_t)(u[i] << 8 | u[i + 1]);
    if (n & 1)
        sum += (uint32_t)u[n - 1] << 8;
    while (sum >> 16)
        sum = (sum & 0xffff) + (sum >> 16);
    return htons((uint16_t)~sum);
}

static struct sockaddr_in address(const char *text, uint16_t port)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(port)};
    if (inet_pton(AF_INET, text, &a.sin_addr) != 1)
        exit(2);
    return a;
}

static void try_udp(const char *to)
{
    struct sockaddr_in a = address(to, PROBE_PORT);
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    int one = 1;
    (void)setsockopt(fd, SOL_SOCKET, SO_BROADCAST, &one, sizeof one);
    (void)sendto(fd, PROBE_MARK, sizeof PROBE_MARK - 1, 0, (struct sockaddr *)&a, sizeof a);
    (void)close(fd);
}

static void try_icmp(const char *to)
{
    struct {
        struct icmphdr head;
        char mark[sizeof PROBE_MARK - 1];
    } m = {.head = {.type = ICMP_ECHO, .un.echo.id = htons(PROBE_PORT)}};
    struct sockaddr_in a = address(to, 0);
    int fd = socket(AF_INET, SOCK_RAW | SOCK_CLOEXEC, IPPROTO_ICMP);
    memcpy(m.mark, PROBE_MARK, sizeof m.mark);
    m.head.checksum = checksum(&m, sizeof m);
    (void)sendto(fd, &m, sizeof m, 0, (struct sockaddr *)&a, sizeof a);
    (void)close(fd);
}

static void try_spoofed(const char *from, const char *to)
{
    struct {
        struct iphdr ip;
        struct udphdr udp;
        char mark[sizeof PROBE_MARK - 1];
    } m = {0};
    struct sockaddr_in a = address(to, 0);
    int fd = socket(AF_INET, SOCK_RAW | SOCK_CLOEXEC, IPPROTO_RAW);
    m.ip = (struct iphdr){.version = 4, .ihl = 5, .ttl = 64, .protocol = IPPROTO_UDP};
    m.ip.tot_len = htons(sizeof m);
    m.ip.saddr = address(from, 0).sin_addr.s_addr;
    m.ip.daddr = a.sin_addr.s_addr;
    m.udp.source = m.udp.dest = htons(PROBE_PORT);
    m.udp.len = htons(sizeof m.udp + sizeof m.mark);
    memcpy(m.mark, PROBE_FORGED, sizeof m.mark);
    (void)sendto(fd, &m, sizeof m, 0, (struct sockaddr *)&a, sizeof a);
    (void)close(fd);
}

/* A raw IPv6 frame: the guest's kernel has no IPv6, a hostile guest makes its own. */
static void try_ipv6(void)
{
    unsigned char frame[14 + 40 + 8 + sizeof PROBE_MARK - 1] = {0x33, 0x33, 0, 0, 0, 1};
    struct sockaddr_ll to = {
        .sll_family = AF_PACKET, .sll_protocol = htons(0x86dd), .sll_halen = 6};
    struct ifreq ifr = {.ifr_name = "eth0"};
    int fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, htons(0x86dd));
    if (fd < 0 || ioctl(fd, SIOCGIFINDEX, &ifr) < 0)
        return;
    to.sll_ifindex = ifr.ifr_ifindex;
    frame[12] = 0x86;
    frame[13] = 0xdd;
    frame[14] = 0x60;
    frame[19] = 8 + sizeof PROBE_MARK - 1;
    frame[20] = IPPROTO_UDP;
    frame[21] = 64;
    frame[22] = 0xfe;
    frame[23] = 0x80;
    frame[38] = 0xff;
    frame[39] = 0x02;
    frame[53] = 1;
    memcpy(frame + 14 + 40 + 8, PROBE_FORGED, sizeof PROBE_FORGED - 1);
    (void)sendto(fd, frame, sizeof frame, 0, (struct sockaddr *)&to, sizeof to);
    (void)close(fd);
}

/* All connects at once; says which succeeded. */
static void try_tcp(char **to, int n)
{
    struct pollfd fds[128];
    if (n > 128)
        n = 128;
    for (int i = 0; i < n; i++) {
        struct sockaddr_in a = address(to[i], PROBE_PORT);
        fds[i] = (struct pollfd){
            socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), POLLOUT, 0};
        if (connect(fds[i].fd, (struct sockaddr *)&a, sizeof a) < 0 && errno != EINPROGRESS)
            fds[i].fd = ~fds[i].fd;
    }
    /* Whatever is refused answers at once; the rest gets one second in all. */
    for (int left_ms = 1000; left_ms > 0; left_ms -= 250)
        (void)poll(fds, 0, 250);
    (void)poll(fds, (nfds_t)n, 0);
    for (int i = 0; i < n; i++) {
        int error = 0;
        socklen_t len = sizeof error;
        if (fds[i].fd >= 0 && fds[i].revents &&
            getsockopt(fds[i].fd, SOL_SOCKET, SO_ERROR, &error, &len) == 0 && error == 0)
            printf("tcp %s connected\n", to[i]);
    }
}

int main(int argc, char **argv)
{
    static const char *const forged[] = {
        "8.8.8.8", "10.11.0.2", "127.0.0.1", "169.254.0.22", "169.254.0.20", "255.255.255.255"};
    for (int i = 1; i < argc; i++) {
        try_udp(argv[i]);
        try_icmp(argv[i]);
    }
    for (size_t i = 0; i < sizeof forged / sizeof *forged; i++)
        try_spoofed(forged[i], PROBE_PUBLIC);
    try_ipv6();
    try_tcp(argv + 1, argc - 1);
    puts("done");
    return 0;
}
