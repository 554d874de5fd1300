/* SPDX-License-Identifier: Apache-2.0 */
/* The way from the initramfs to the root file system and to the guest agent. */
#ifndef TORPOR_GUESTINIT_ROOT_H
#define TORPOR_GUESTINIT_ROOT_H

#include "base/err.h"

/* Mounts devtmpfs at /dev and makes the console descriptors 0, 1 and 2. Returns 0 or -1. */
int root_prepare_dev(struct err *e);

/* Makes the ext4 file system of `device` the root of this process, moves /dev into it, and removes
 * what the initramfs holds but for `agent`, the name of the agent's file at its top.
 * Returns a descriptor of the initramfs's top folder, to be given to root_exec_agent, or -1. */
int root_enter(const char *device, const char *agent, struct err *e);

/* Becomes the agent. Returns only on failure, -1. */
int root_exec_agent(int initramfs, const char *agent, struct err *e);

#endif
