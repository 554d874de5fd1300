/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Raw Ethernet: a guest that says anything it likes on its TAP, and ears on the host's links.
 * Every packet carries a mark in its payload; what is heard is found by it, whatever its addresses
 * have become.
 */
#ifndef TORPOR_TESTS_NET_WIRE_H
#define TORPOR_TESTS_NET_WIRE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { WIRE_FRAME_MAX = 2048, WIRE_MARK_MAX = 32 };

/* A frame to send. Zero fields take what an honest guest says: its MACs and address, IPv4, UDP. */
struct wire_packet {
    const char *src_mac;
    const char *dst_mac;
    int vlan;           /* tag id + 1; 0: no tag */
    uint16_t vlan_type; /* 0: 802.1Q */
    uint16_t ethertype; /* not 0: the payload is the mark alone */
    const char *src;
    const char *dst;
    uint8_t proto; /* IPPROTO_... */
    uint8_t ttl;
    uint16_t sport;
    uint16_t dport;         /* 0: 7 */
    uint16_t frag;          /* the IP header's fragment field as a number */
    uint8_t tcp_flags;      /* 0: SYN */
    uint8_t icmp_type;      /* 0: echo request */
    const uint8_t *options; /* of IP, a multiple of 4 bytes */
    size_t n_options;
    const char *mark;
    const void *body; /* UDP's payload instead of the mark */
    size_t n_body;
};
/* Writes the frame; returns its length. */
size_t wire_build(const struct wire_packet *p, uint8_t dst[WIRE_FRAME_MAX]);

/* Opens the TAP in a slot's namespace, as the VMM does. -1 with errno when it is held. */
int wire_open_tap(const char *netns);
void wire_send(int tap, const struct wire_packet *p);
void wire_send_bytes(int tap, const void *frame, size_t n);
/* An IPv4 frame that reached the guest, as far as tests look. */
struct wire_heard {
    char src[16];
    char dst[16];
    uint8_t src_mac[6];
    uint8_t dst_mac[6];
    uint8_t proto;
    uint16_t sport;
    uint16_t dport;
    size_t n_body; /* behind the UDP or TCP header */
    uint8_t body[WIRE_FRAME_MAX];
    uint32_t tcp_seq;
    uint8_t tcp_flags;
};
/* The next IPv4 frame on a TAP or packet socket; false when none comes in `ms`. */
bool wire_hear(int fd, int ms, struct wire_heard *ret);

/* Packet sockets of the caller's namespace: of one link, or of all for NULL. */
int wire_ear(const char *link);
/* Raw sockets that get what the host itself would have received: TCP, UDP, ICMP. */
void wire_local_ears(int fds[3]);
/* True when a queued packet holds `mark`; empties the queue. */
bool wire_heard_mark(int fd, const char *mark);

#endif
