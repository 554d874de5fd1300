/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Waiting for a block device: the kernel announces each one on a netlink socket after it has made
 * its node in devtmpfs.
 */
#ifndef TORPOR_GUESTINIT_UEVENT_H
#define TORPOR_GUESTINIT_UEVENT_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/slice.h"

/* Subscribes to the kernel's device events. Open it before whatever may make the device appear.
 * Returns the descriptor, which the caller closes, or -1. */
int uevent_open(struct err *e);

/* True when `event` (NUL-separated strings: "action@devpath", then KEY=value) says that the block
 * device `name`, e.g. "vda", was added. */
bool uevent_adds_block(struct slice event, const char *name);

/* Waits until /dev/`name` exists. `fd` is from uevent_open. ERR_TIMEOUT at the deadline.
 * Returns 0 or -1. */
int uevent_wait_block(int fd, const char *name, int64_t deadline, struct err *e);

#endif
