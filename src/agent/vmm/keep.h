/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The VMM's files, kept by digest as a set: copies in a folder of ours, so that an upgrade of the
 * host's packages strands no snapshot. vmm_sets_collect (vmm.h) is here too.
 */
#ifndef TORPOR_AGENT_VMM_KEEP_H
#define TORPOR_AGENT_VMM_KEEP_H

#include "agent/vmm/vmm.h"

struct vmm_files;

/* Makes sure that the files `found` (sources on the host) are kept below `keep_dir` (absolute; made
 * when missing), and stores the kept set in `*ret_files` (sources in the set's folder; the caller
 * frees it with vmm_files_free), and its digest and the version that the VMM says it has in
 * `facts`. When all sources are the files they were (device, inode, size, time of change), nothing
 * is read, hashed or started. Otherwise they are copied and hashed, durably, which takes 0.3 s for
 * 60 MB, and the VMM is asked for its version (at most 30 s). Sweeps what starts that died have
 * left. Others may do the same in the same folder at the same time. Any thread. */
int vmm_files_keep(const char *keep_dir, const struct vmm_files *found,
    struct vmm_files **ret_files, struct vmm_facts *facts, struct err *e);

/* The kept set with that digest, for a VM that was saved with it; NULL on failure. Freed with
 * vmm_files_free. ERR_UNSUPPORTED when it is not kept here (also when `keep_dir` is NULL or ""), or
 * damaged: a file is missing or has another size; ERR_INVALID when the digest is none. Reads no
 * contents. Any thread. */
struct vmm_files *vmm_files_open_kept(const char *keep_dir, const char *digest, struct err *e);

#endif
