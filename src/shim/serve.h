/* SPDX-License-Identifier: Apache-2.0 */
/* What the shim does while its VMM runs, and until somebody knows that it has ended. */
#ifndef TORPOR_SHIM_SERVE_H
#define TORPOR_SHIM_SERVE_H

#include "shim/launch.h"

struct serve_params {
    struct launched vmm;
    struct memory *memory; /* attached to it */
    const char *id;
    int agent_fd; /* the connection that the launch came over */
    int listen_fd;
    int console_dir; /* folder for console.log */
};

/* Tells the agent that the VMM was started, then serves console and control connections. Returns 0
 * once the end of the VMM has been acknowledged, or nobody came for it in time; ERR_CANCELED when
 * the agent is gone before it could be told. Takes over all descriptors. */
int serve(const struct serve_params *params, struct err *e);

/* Sends SHIM_MSG_FAILED with that reason. */
void serve_report_failure(int agent_fd, const char *id, const struct err *why);

#endif
