/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Taking over a VM that another agent started.
 *
 * Theory of operation: the new control connection is the handle's link and so its event. On a link
 * that vmm_start made, a message that waits means the VMM's end; here that must hold too, so the
 * answer to HELLO is taken off it. When that answer already says the end, it is asked for once
 * more, and the second one stays on the link in place of the message that the earlier agent got.
 */
#include <poll.h>

#include "agent/vmm/shim_link.h"
#include "agent/vmm/vmm_int.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/io.h"

enum { ADOPT_MS = 5000 /* a shim answers at once; one that is swapped out, in a second */ };

int vmm_leave_end_on_link(const struct vmm *v, int64_t deadline, struct err *e)
{
    if (shim_send(v->link, v->version, SHIM_MSG_STATUS, deadline, e) < 0 ||
        io_wait(v->link, POLLIN, deadline, e) < 0)
        return err_wrap(e, "the VMM has ended");
    return 0;
}

/* The VMM is no process of that pid and start time: the shim has yet to say that it ended, or it
 * named a wrong one. */
static int await_end(const struct vmm *v, int64_t deadline, struct err *e)
{
    if (io_wait(v->link, POLLIN, deadline, e) > 0)
        return 0;
    return err_set(e, ERR_PROTOCOL, "the shim's VMM is not process %d", (int)v->vmm.pid);
}

/* A shim that ended since it answered is none. */
static int adopt(struct vmm *v, const struct sandbox_id *id, struct err *e)
{
    int64_t deadline = deadline_in_ms(ADOPT_MS);
    struct shim_msg m;
    v->link =
        shim_connect(v->socket_path, id, SHIM_HELLO_CONTROL | SHIM_HELLO_TAKEOVER, deadline, &m, e);
    if (v->link < 0)
        return -1;
    v->version = m.version;
    v->can_save = m.version >= 3; /* or the shim refuses */
    v->is_copied = m.version >= 3 && (m.flags & SHIM_STATE_COPIED);
    v->shim = (struct proc_id){.pid = (pid_t)m.shim_pid, .start_ticks = m.shim_start};
    v->vmm = (struct proc_id){.pid = (pid_t)m.vmm_pid, .start_ticks = m.vmm_start};
    if (vmm_open_pidfds(v, e) < 0)
        return -1;
    if (m.ended)
        return vmm_leave_end_on_link(v, deadline, e);
    return v->vmm_pidfd < 0 ? await_end(v, deadline, e) : 0;
}

struct vmm *vmm_adopt(const struct vmm_host *host, const struct sandbox_id *id, struct err *e)
{
    struct vmm *v = vmm_new_handle(e);
    if (!v)
        return NULL;
    if (vmm_socket_path(host, id, VMM_SHIM_SUFFIX, v->socket_path, e) == 0 &&
        vmm_socket_path(host, id, VMM_MONITOR_SUFFIX, v->monitor_path, e) == 0 &&
        adopt(v, id, e) == 0)
        return v;
    err_wrap(e, "adopt VM");
    return vmm_free(v);
}
