/* SPDX-License-Identifier: Apache-2.0 */
/* AF_PACKET capture, marked packets only. */
#include "capture.h"

#include <arpa/inet.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include <linux/if_ether.h>

#include <cmocka.h>

#include "probe.h"

enum { RING_BYTES = 8 << 20, PACKET_MAX = 2048 };

int capture_open(void)
{
    int fd = socket(AF_PACKET, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, htons(ETH_P_ALL));
    int size = RING_BYTES;
    assert_true(fd >= 0);
    (void)setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof size);
    return fd;
}

static const char *protocol_name(const unsigned char *p, size_t n)
{
    if (memmem(p, n, PROBE_FORGED, sizeof PROBE_FORGED - 1))
        return "forged";
    if (p[0] >> 4 == 6)
        return "ipv6";
    switch (p[9]) {
    case IPPROTO_TCP:
        return "tcp";
    case IPPROTO_UDP:
        return "udp";
    case IPPROTO_ICMP:
        return "icmp";
    default:
        return "other";
    }
}

/* A TCP segment has no room for the mark; it is known by its port. */
static bool is_probe(const unsigned char *p, size_t n)
{
    if (memmem(p, n, PROBE_MARK, sizeof PROBE_MARK - 1) ||
        memmem(p, n, PROBE_FORGED, sizeof PROBE_FORGED - 1))
        return true;
    return n >= 40 && p[0] == 0x45 && p[9] == IPPROTO_TCP && (p[22] << 8 | p[23]) == PROBE_PORT;
}

void capture_read(int fd, struct buf *ret)
{
    unsigned char p[PACKET_MAX];
    ssize_t n;
    while ((n = recv(fd, p, sizeof p, 0)) > 0) {
        char src[INET_ADDRSTRLEN] = "?";
        char dst[INET_ADDRSTRLEN] = "?";
        if (n < 20 || !is_probe(p, (size_t)n))
            continue;
        if (p[0] >> 4 == 4) {
            (void)inet_ntop(AF_INET, p + 12, src, sizeof src);
            (void)inet_ntop(AF_INET, p + 16, dst, sizeof dst);
        }
        buf_printf(ret, "%s %s > %s\n", protocol_name(p, (size_t)n), src, dst);
    }
}
