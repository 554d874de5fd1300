/* SPDX-License-Identifier: Apache-2.0 */
/* The agent as a whole: settings from the environment, start, stop. */
#ifndef TORPOR_AGENT_AGENT_H
#define TORPOR_AGENT_AGENT_H

#include "base/err.h"

struct agent;

/*
 * Starts from the environment:
 *   TORPOR_DIR            data folder, required
 *   TORPOR_RUN_BASE       sockets and locks of all instances (/run/torpor)
 *   TORPOR_AGENT_SOCKET   where it listens (<run base>/<instance>/agent.sock)
 *   TORPOR_CONTROL_UID    who may call beside root (0)
 *   TORPOR_SHIM           path of torpor-shim (beside this program)
 *   TORPOR_MEMORY_LIBRARY path of torpor-memory.so (beside torpor-shim)
 *   TORPOR_MEMORY         auto, file, uffd: how restored memory comes back (auto)
 *   TORPOR_PAGEMAP        old: find written pages as kernels before 6.7 do
 *   TORPOR_WARM           on, off: whether base templates start warm (on)
 *   TORPOR_ACCEL          auto, kvm, tcg (auto)
 *   TORPOR_NET            IPv4 /16 of all instances (10.11.0.0/16)
 *   TORPOR_RESOLVER       where guests' DNS goes (of /etc/resolv.conf)
 *   TORPOR_SLOTS          sandboxes at once (256)
 *   TORPOR_MEMORY_MB      memory to promise (4 times RAM)
 *   TORPOR_VCPUS_PER_CORE vcpus to promise for each core (8)
 *   TORPOR_UID_BASE       first uid for VMMs (1879048192)
 * A bad value fails with its name, the value and what is allowed. `ready_fd` (or -1) gets the line
 * "ready instance=<n> socket=<path>" once calls are served.
 */
struct agent *agent_start(int ready_fd, struct err *e);
/* Leaves: VMs run on and are adopted by the next agent of this data folder. */
int agent_stop(struct agent *a, struct err *e);

/* Without serving anybody: puts every sandbox of the data folder to sleep (one that cannot is
 * `stopped`, its files stay) and removes everything of its instance from the host. ERR_CONFLICT
 * while an agent serves it. */
int agent_stop_all(struct err *e);
/* Without serving anybody: puts every running sandbox to sleep, and stops nothing. One that cannot
 * sleep runs on, for the next agent, and is an error. ERR_CONFLICT as above. */
int agent_drain(struct err *e);

#endif
