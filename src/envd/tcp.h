/* SPDX-License-Identifier: Apache-2.0 */
/* TCP connections of the machine that have outlived their other end. */
#ifndef TORPOR_ENVD_TCP_H
#define TORPOR_ENVD_TCP_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

/* Ends every TCP connection of this network namespace whose peer is another machine: its owner gets
 * ECONNABORTED at once. Listening sockets, loopback and those with the local port `but_port` stay.
 * `ret_n` (may be NULL) is how many. ERR_UNSUPPORTED when the kernel cannot (it needs inet_diag,
 * tcp_diag and CONFIG_INET_DIAG_DESTROY); needs CAP_NET_ADMIN. */
int tcp_destroy_foreign(uint16_t but_port, size_t *ret_n, struct err *e);

#endif
