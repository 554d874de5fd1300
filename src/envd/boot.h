/* SPDX-License-Identifier: Apache-2.0 */
/* What PID 1 does before and beside serving. */
#ifndef TORPOR_ENVD_BOOT_H
#define TORPOR_ENVD_BOOT_H

#include <signal.h>

/* Before anything that needs files or the network: descriptors 0 to 2, mounts, loopback, host name,
 * our own protection from the OOM killer. Failures are logged; there is nobody else to tell. */
void boot_prepare(void);

/* The signals that boot_run waits for; to be blocked before the first thread is made. */
void boot_signals(sigset_t *ret);

/* Reaps orphans until SIGTERM, or SIGINT, which is the kernel's word for ctrl-alt-del. On the first
 * thread. */
void boot_run(const sigset_t *signals);

/* Writes everything out and powers the machine off. Returns only if the kernel refuses. */
void boot_power_off(void);

#endif
