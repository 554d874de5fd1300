/* SPDX-License-Identifier: Apache-2.0 */
/* Taking rights away, in the order in which it must happen. */
#ifndef TORPOR_SHIM_CONFINE_H
#define TORPOR_SHIM_CONFINE_H

#include <stdint.h>
#include <sys/types.h>

#include "base/err.h"

/* For the VMM's process, between jail_enter and exec: resource limits, uid and gid `uid`, no
 * groups, all capability sets and the bounding set empty, SIGKILL when the parent dies, no new
 * privileges, system call filter. `alive_fd` is the write end of a pipe whose only reader is the
 * parent: it tells that the parent died before the death signal was armed (ERR_CANCELED). */
int confine_vmm(uid_t uid, uint64_t fsize_bytes, int alive_fd, struct err *e);

/* For the shim itself once the VMM runs: nothing left but CAP_KILL, which ends a VMM of another
 * uid. */
int confine_shim(struct err *e);

#endif
