/* SPDX-License-Identifier: Apache-2.0 */
/* Sockets of honest guests and of those they talk to. */
#ifndef TORPOR_TESTS_NET_FLOW_H
#define TORPOR_TESTS_NET_FLOW_H

#include <netinet/in.h>
#include <stdint.h>

#include "machine.h"

struct sockaddr_in flow_address(const char *ip, uint16_t port);
/* A TCP connection from inside the guest; -1 when there is none in `ms`. */
int machine_connect(const struct machine *m, const char *ip, uint16_t port, int ms);
/* A UDP socket of the guest. */
int machine_udp(const struct machine *m, uint16_t port);
void flow_say(int fd, const struct sockaddr_in *to, const char *text);
/* Receives a datagram that must be `text`; stores who sent it. */
void flow_hear(int fd, struct sockaddr_in *from, const char *text);
int flow_accept(int listener, char peer[INET_ADDRSTRLEN]);
/* Both ways, more than a window of it. */
void flow_assert_connected(int a, int b);

#endif
