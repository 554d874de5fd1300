/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A world for network tests: the test's own network and mount namespace is the host; another
 * network namespace is the internet, reached over the default route. Nothing outside is touched.
 *
 *     guest ==tap0== [slot's namespace] ==tp0-n== [host: this process] ==up0/inet0== [internet]
 */
#ifndef TORPOR_TESTS_NET_WORLD_H
#define TORPOR_TESTS_NET_WORLD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "agent/net/net_int.h"
#include "base/buf.h"

#define WORLD_HOST_IP "93.184.216.1"      /* the host's address at its uplink */
#define WORLD_INTERNET_IP "93.184.216.34" /* its default gateway, and the internet */
#define WORLD_RANGE "10.11.0.0/16"
enum { WORLD_WAIT_MS = 5000, WORLD_UID_BASE = 70000 };

/* NULL when the world stands; else why this machine cannot have one (not root, no namespaces). */
const char *world_open(void);
/* This test program, which is its own helper: its main calls net_helper_main for "net-helper". */
const char *world_self(void);
/* A configuration with the fake resolver WORLD_INTERNET_IP:5353. */
struct net_config world_config(unsigned instance, size_t slots, size_t ready);

/* Enters a namespace for opening sockets; world_leave comes back. */
int world_enter_internet(void);
int world_enter_path(const char *netns);
void world_leave(int home);

/* A UDP socket in the internet, and a listening TCP one. */
int world_internet_udp(uint16_t port);
int world_internet_listen(uint16_t port);
/* Waits until `fd` is readable; fails the test at the deadline. */
void world_wait_readable(int fd);
/* True when it is readable now. */
bool world_readable(int fd);

/* The kernel starts a link's queue a moment after its carrier is there; before, packets are lost.
 * Open the listener in the link's namespace, raise the link, then wait: the listener is closed. */
int world_link_listener(void);
void world_wait_running(int listener, const char *link);

/* All that a slot or an instance could leave behind, as text: links, addresses, routes, nft rules,
 * named namespaces, forwarding. */
void world_snapshot(struct buf *dst);
/* Deletes the rule of the host's table `inet tp0` that holds `text`, as nft lists it. */
void world_drop_rule(const char *chain, const char *text);
/* Loads rules in the slot's namespace. */
void world_slot_rules(const char *netns, const char *rules);

#endif
