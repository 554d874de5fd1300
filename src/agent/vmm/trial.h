/* SPDX-License-Identifier: Apache-2.0 */
/* Whether machines can be saved and restored here, found out by doing it. */
#ifndef TORPOR_AGENT_VMM_TRIAL_H
#define TORPOR_AGENT_VMM_TRIAL_H

#include "agent/vmm/vmm.h"

/* What the machines of the trial have of the host, as any sandbox's. */
struct vmm_trial_place {
    const char *dir;        /* absolute: its kernel and its console log are made there */
    const char *base_image; /* of any contents */
    const char *overlay;    /* empty, of `uid` */
    const char *netns;      /* with GUEST_TAP */
    uid_t uid;
};

struct vmm_trial {
    bool is_private;          /* the library takes hold, and memory comes back mapped privately */
    bool has_uffd;            /* and through page faults, where the host serves them */
    bool is_copied;           /* without the library; only tried when it does not take hold */
    char reason[ERR_MSG_MAX]; /* of the first way that failed, "" when none did */
    char reason_copied[ERR_MSG_MAX]; /* of the last one */
};

/* Boots a machine that does nothing but look into its memory, with all of the confinement of a
 * sandbox's, saves it and restores it: with the library and mapped privately, then through page
 * faults (`host->has_uffd`); where the library fails twice, without it. Nothing is left but files
 * in `dir`. Takes 0.2 s, at most 2 min on a host that hangs. Any thread. */
void vmm_try_memory(
    const struct vmm_host *host, const struct vmm_trial_place *place, struct vmm_trial *ret);

#endif
