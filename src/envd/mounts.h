/* SPDX-License-Identifier: Apache-2.0 */
/* The kernel's file systems of a guest. */
#ifndef TORPOR_ENVD_MOUNTS_H
#define TORPOR_ENVD_MOUNTS_H

#include "base/err.h"

/* Mounts /proc, /sys, /dev (if it is bare), /dev/pts, /dev/shm, /run and, where the kernel has it,
 * cgroup2; makes /tmp and the links /dev/fd, /dev/stdin, ... What is mounted already stays. Does
 * every step; the error joins what failed. Only for PID 1. */
int mounts_set_up(struct err *e);

#endif
