/* SPDX-License-Identifier: Apache-2.0 */
/* Building and hearing raw Ethernet frames. */
#include "wire.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <netinet/ether.h>
#include <netinet/in.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "proto/limits.h"
#include "world.h"

static void put16(uint8_t *p, unsigned v)
{
    p[0] = (uint8_t)(v >> 8);
    p[1] = (uint8_t)v;
}

static unsigned get16(const uint8_t *p)
{
    return (unsigned)p[0] << 8 | p[1];
}

/* The internet checksum's sum, not folded; `n` may be odd. */
static uint32_t sum(const uint8_t *p, size_t n)
{
    uint32_t s = 0;
    for (size_t i = 0; i < n; i++)
        s += i % 2 ? p[i] : (uint32_t)p[i] << 8;
    return s;
}

static unsigned fold(uint32_t s)
{
    while (s >> 16)
        s = (s & 0xffff) + (s >> 16);
    return ~s & 0xffff;
}

static size_t put_mac(uint8_t *p, const char *text)
{
    const struct ether_addr *a = ether_aton(text);
    assert_non_null(a);
    memcpy(p, a, 6);
    return 6;
}

static size_t put_ethernet(const struct wire_packet *p, uint8_t *f)
{
    size_t n = put_mac(f, p->dst_mac ? p->dst_mac : GUEST_HOST_MAC);
    n += put_mac(f + n, p->src_mac ? p->src_mac : GUEST_MAC);
    if (p->vlan) {
        put16(f + n, p->vlan_type ? p->vlan_type : ETH_P_8021Q);
        put16(f + n + 2, (unsigned)p->vlan - 1);
        n += 4;
    }
    put16(f + n, p->ethertype ? p->ethertype : ETH_P_IP);
    return n + 2;
}

/* Header and payload of the transport, with the mark or body; `proto` is settled. */
static size_t put_transport(const struct wire_packet *p, uint8_t proto, uint8_t *t)
{
    const void *body = p->body ? p->body : p->mark;
    size_t n_body = p->body ? p->n_body : strlen(p->mark);
    size_t head = proto == IPPROTO_TCP ? 20 : proto == IPPROTO_UDP || proto == IPPROTO_ICMP ? 8 : 0;
    memset(t, 0, head);
    memcpy(t + head, body, n_body);
    if (proto == IPPROTO_ICMP) {
        t[0] = p->icmp_type ? p->icmp_type : 8;
        put16(t + 4, 0x1234);
        put16(t + 2, fold(sum(t, head + n_body)));
    } else if (head > 0) {
        put16(t, p->sport ? p->sport : 40000);
        put16(t + 2, p->dport ? p->dport : 7);
    }
    if (proto == IPPROTO_UDP)
        put16(t + 4, (unsigned)(head + n_body));
    if (proto == IPPROTO_TCP) {
        put16(t + 6, 1); /* sequence number 1 */
        t[12] = 5 << 4;
        t[13] = p->tcp_flags ? p->tcp_flags : 0x02;
        put16(t + 14, 65535);
    }
    return head + n_body;
}

/* TCP's and UDP's checksum, with the pseudo header of the IP header `ip`. */
static void checksum_transport(uint8_t proto, const uint8_t *ip, uint8_t *t, size_t n)
{
    size_t at = proto == IPPROTO_TCP ? 16 : 6;
    if (proto != IPPROTO_TCP && proto != IPPROTO_UDP)
        return;
    put16(t + at, fold(sum(t, n) + sum(ip + 12, 8) + proto + (uint32_t)n));
}

static size_t put_ip(const struct wire_packet *p, uint8_t *f)
{
    uint8_t proto = p->proto ? p->proto : IPPROTO_UDP;
    size_t head = 20 + p->n_options;
    size_t n = put_transport(p, proto, f + head);
    memset(f, 0, 20);
    f[0] = (uint8_t)(0x40 | head / 4);
    put16(f + 2, (unsigned)(head + n));
    put16(f + 4, 0x4711);
    put16(f + 6, p->frag);
    f[8] = p->ttl ? p->ttl : 64;
    f[9] = proto;
    assert_int_equal(inet_pton(AF_INET, p->src ? p->src : GUEST_ADDRESS, f + 12), 1);
    assert_int_equal(inet_pton(AF_INET, p->dst ? p->dst : WORLD_INTERNET_IP, f + 16), 1);
    if (p->n_options)
        memcpy(f + 20, p->options, p->n_options);
    put16(f + 10, fold(sum(f, head)));
    checksum_transport(proto, f, f + head, n);
    return head + n;
}

size_t wire_build(const struct wire_packet *p, uint8_t dst[WIRE_FRAME_MAX])
{
    size_t n = put_ethernet(p, dst);
    if (!p->ethertype)
        return n + put_ip(p, dst + n);
    size_t body = p->body ? p->n_body : strlen(p->mark);
    memcpy(dst + n, p->body ? p->body : p->mark, body);
    return n + body;
}

int wire_open_tap(const char *netns)
{
    struct ifreq ifr = {.ifr_flags = IFF_TAP | IFF_NO_PI};
    int home = world_enter_path(netns);
    AUTO_CLOSE int fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC | O_NONBLOCK);
    memcpy(ifr.ifr_name, GUEST_TAP, sizeof GUEST_TAP);
    int listener = world_link_listener();
    int rc = ioctl(fd, TUNSETIFF, &ifr);
    int errnum = errno;
    world_leave(home);
    if (rc == 0)
        world_wait_running(listener, GUEST_TAP);
    else
        (void)close(listener);
    errno = errnum;
    return rc < 0 ? -1 : TAKE_FD(fd);
}

void wire_send_bytes(int tap, const void *frame, size_t n)
{
    assert_int_equal(write(tap, frame, n), n);
}

void wire_send(int tap, const struct wire_packet *p)
{
    uint8_t frame[WIRE_FRAME_MAX];
    wire_send_bytes(tap, frame, wire_build(p, frame));
}

static void describe_transport(const uint8_t *t, size_t n, struct wire_heard *h)
{
    size_t head = 0;
    if (h->proto == IPPROTO_UDP && n >= 8)
        head = 8;
    if (h->proto == IPPROTO_TCP && n >= 20) {
        head = (size_t)(t[12] >> 4) * 4;
        h->tcp_flags = t[13];
        h->tcp_seq = (uint32_t)get16(t + 4) << 16 | get16(t + 6);
    }
    if (head > 0 && head <= n) {
        h->sport = (uint16_t)get16(t);
        h->dport = (uint16_t)get16(t + 2);
    }
    h->n_body = head <= n ? n - head : 0;
    memcpy(h->body, t + head, h->n_body);
}

static bool describe(const uint8_t *f, size_t n, struct wire_heard *h)
{
    if (n < 34 || get16(f + 12) != ETH_P_IP)
        return false;
    size_t head = (size_t)(f[14] & 15) * 4;
    size_t total = get16(f + 16);
    if (total < head || n < 14 + total)
        return false;
    memset(h, 0, sizeof *h);
    memcpy(h->dst_mac, f, 6);
    memcpy(h->src_mac, f + 6, 6);
    h->proto = f[23];
    (void)inet_ntop(AF_INET, f + 26, h->src, sizeof h->src);
    (void)inet_ntop(AF_INET, f + 30, h->dst, sizeof h->dst);
    describe_transport(f + 14 + head, total - head, h);
    return true;
}

bool wire_hear(int fd, int ms, struct wire_heard *ret)
{
    int64_t deadline = deadline_in_ms(ms);
    uint8_t frame[WIRE_FRAME_MAX];
    for (;;) {
        struct pollfd p = {.fd = fd, .events = POLLIN};
        if (poll(&p, 1, deadline_poll_ms(deadline)) != 1)
            return false;
        ssize_t n = read(fd, frame, sizeof frame);
        if (n > 0 && describe(frame, (size_t)n, ret))
            return true;
    }
}

int wire_ear(const char *link)
{
    struct sockaddr_ll sa = {.sll_family = AF_PACKET, .sll_protocol = htons(ETH_P_ALL)};
    const int bytes = 4 << 20;
    int fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, htons(ETH_P_ALL));
    assert_true(fd >= 0);
    (void)setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &bytes, sizeof bytes);
    sa.sll_ifindex = link ? (int)if_nametoindex(link) : 0;
    assert_true(!link || sa.sll_ifindex > 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&sa, sizeof sa), 0);
    return fd;
}

void wire_local_ears(int fds[3])
{
    static const int protos[] = {IPPROTO_TCP, IPPROTO_UDP, IPPROTO_ICMP};
    for (size_t i = 0; i < ARRAY_LEN(protos); i++) {
        fds[i] = socket(AF_INET, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, protos[i]);
        assert_true(fds[i] >= 0);
    }
}

bool wire_heard_mark(int fd, const char *mark)
{
    uint8_t p[WIRE_FRAME_MAX];
    bool heard = false;
    ssize_t n;
    while ((n = recv(fd, p, sizeof p, MSG_DONTWAIT)) > 0)
        heard = memmem(p, (size_t)n, mark, strlen(mark)) ? true : heard;
    return heard;
}
