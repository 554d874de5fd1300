/* SPDX-License-Identifier: Apache-2.0 */
/* Reaping the guest's orphans. */
#ifndef TORPOR_ENVD_REAPER_H
#define TORPOR_ENVD_REAPER_H

#include <stddef.h>

/* Reaps every orphan that has ended, without waiting, and none of the processes that the service's
 * threads have started (see spawn.c). Only for the process's first thread: the kernel gives it the
 * orphans, when it is PID 1 or a subreaper. Returns how many. */
size_t reaper_sweep(void);

#endif
