/* SPDX-License-Identifier: Apache-2.0 */
/* The guest's network interfaces. */
#ifndef TORPOR_ENVD_LINK_H
#define TORPOR_ENVD_LINK_H

#include "base/err.h"

/* Switches IPv6 off and brings lo up. Needs /proc/sys for the former; without IPv6 it is fine. */
int link_set_up_loopback(struct err *e);

/* Gives `interface` the address of guest ABI 1 (proto/limits.h), brings it up, and routes
 * everything through the gateway, in this order: the host's first packet may wait already, and must
 * find the address when the link comes up. What listens must therefore listen before. */
int link_set_up_guest(const char *interface, struct err *e);

#endif
