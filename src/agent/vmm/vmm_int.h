/* SPDX-License-Identifier: Apache-2.0 */
/* The handle, shared by what starts a VM and what adopts one. */
#ifndef TORPOR_AGENT_VMM_VMM_INT_H
#define TORPOR_AGENT_VMM_VMM_INT_H

#include "agent/vmm/vmm.h"
#include "base/proc.h"

enum {
    SHIM_PATH_MAX = 108, /* sun_path */
    EXIT_TEXT_MAX = 384,
};

struct vmm {
    char socket_path[SHIM_PATH_MAX];
    char monitor_path[SHIM_PATH_MAX]; /* where the VMM takes commands */
    struct proc_id shim;
    struct proc_id vmm;
    unsigned version; /* of the protocol, on `link` */
    int link;         /* the control connection */
    int shim_pidfd;
    int vmm_pidfd; /* -1 when it had ended before it could be opened */
    bool stopped;
    bool can_save;   /* its memory is the shim's business */
    bool is_copied;  /* VMM_MEMORY_COPIED */
    struct qmp *qmp; /* only while the vCPUs stand still; NULL otherwise */
    char exit_text[EXIT_TEXT_MAX];
};

/* A handle without descriptors; NULL without memory. */
struct vmm *vmm_new_handle(struct err *e);
/* The sockets of a VM in the run folder. */
#define VMM_SHIM_SUFFIX ".shim"
#define VMM_MONITOR_SUFFIX ".vmm"
/* Stores <run_dir>/<id><suffix>. ERR_INVALID when that is too long for a socket. */
int vmm_socket_path(const struct vmm_host *h, const struct sandbox_id *id, const char *suffix,
    char dst[SHIM_PATH_MAX], struct err *e);
/* Opens v->shim and v->vmm. ERR_NOT_FOUND when the shim is gone. The VMM may be: then the shim
 * says how. */
int vmm_open_pidfds(struct vmm *v, struct err *e);

/* The message that told the end was taken off the link: asks for it again, so that one waits there
 * and the link stays readable. */
int vmm_leave_end_on_link(const struct vmm *v, int64_t deadline, struct err *e);

#endif
