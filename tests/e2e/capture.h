/* SPDX-License-Identifier: Apache-2.0 */
/* A capture on every link of the host's namespace of packets that a guest's probe sent. */
#ifndef TORPOR_TESTS_E2E_CAPTURE_H
#define TORPOR_TESTS_E2E_CAPTURE_H

#include "base/buf.h"

/* Starts capturing; packets are kept by the kernel until read. Returns the descriptor. */
int capture_open(void);
/* Appends a line for each captured packet that is the probe's: "tcp|udp|icmp|ipv6|other SRC > DST",
 * "forged SRC > DST" for what had a forged source.
 * Reads what is there and does not wait. */
void capture_read(int fd, struct buf *ret);

#endif
