/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One running virtual machine behind a driver. A driver turns what is wanted into a launch plan
 * (program, arguments, files, descriptors); torpor-shim confines itself, becomes the VMM's parent
 * and reports its end over a socket that also survives the agent.
 */
#ifndef TORPOR_AGENT_VMM_VMM_H
#define TORPOR_AGENT_VMM_VMM_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/err.h"
#include "proto/sandbox.h"

struct vmm_files;

struct vmm_host {
    const char *shim;    /* absolute path of torpor-shim */
    const char *run_dir; /* /run/torpor/<instance>: sockets <run_dir>/<sandbox id>.shim */
    const char *qemu;    /* absolute path of the VMM */
    bool use_kvm;
    uint32_t tsc_khz;        /* vmm_host_probe finds it; needed under TCG */
    struct vmm_files *files; /* vmm_host_probe's: what a VMM's mount namespace holds */
};
/* Finds QEMU, its shared objects and firmware, whether KVM runs stock kernels here
 * (TORPOR_ACCEL=auto|kvm|tcg as `accel`, NULL is auto), the TSC frequency. Leaves shim and run_dir
 * as they are. ERR_UNSUPPORTED with what to install when there is no VMM. Takes 25 ms; once, at the
 * agent's start, and again after QEMU was upgraded. vmm_host_done frees what it found. */
int vmm_host_probe(const char *accel, struct vmm_host *ret, struct err *e);
void vmm_host_done(struct vmm_host *host);

struct vmm_boot {
    struct sandbox_id id;
    uint32_t vcpus;
    uint32_t memory_mb;
    const char *kernel; /* absolute paths */
    const char *initrd;
    const char *base_image;  /* raw, read-only, shared */
    const char *overlay;     /* qcow2, writable by `uid` */
    const char *netns;       /* path of the namespace that holds GUEST_TAP */
    uid_t uid;               /* the VMM's own */
    const char *console_dir; /* absolute folder; console.log there, at most CONSOLE_BYTES_MAX */
};

/* Handle of this agent on one shim. One thread at a time may use a handle (the sandbox's lock). */
struct vmm;

/* Starts shim and VMM; returns when the VMM's exec has succeeded (its guest boots), NULL on
 * failure, and then nothing is left. The only forks are the shim and the VMM. Needs root. */
struct vmm *vmm_start(const struct vmm_host *host, const struct vmm_boot *boot, struct err *e);
/* Takes over the shim and the VMM that an earlier agent of this run_dir started for that sandbox.
 * The handle is as vmm_start's; the shim need not be a child of the caller. Nobody else has control
 * of that VM while the handle is open. A VMM that has ended meanwhile is adopted too: the event is
 * there at once, vmm_exit_text says how it ended, vmm_stop tidies up. Waits at most 5 s. Fails with
 * ERR_NOT_FOUND   no shim answers for that id (none there, or it hangs; vmm_remove_leftovers ends
 *                 also those),
 * ERR_CONFLICT    an agent that lives has it, or this agent with another handle,
 * ERR_UNSUPPORTED the shim speaks only versions of the protocol that this agent does not know,
 * ERR_PROTOCOL    what answers is not a shim of that sandbox: wrong id or process, not root.
 * After a failure nothing has changed. */
struct vmm *vmm_adopt(const struct vmm_host *host, const struct sandbox_id *id, struct err *e);
/* Readable (POLLIN) when the VMM or the shim has ended, and from then on; vmm_exit_text says how.
 * Stays the handle's; for epoll. */
int vmm_event_fd(const struct vmm *v);
/* "qemu killed by SIGKILL", "qemu exited with 1: <last line it wrote>", "running". Never NULL;
 * valid until the next call. */
const char *vmm_exit_text(struct vmm *v);
pid_t vmm_pid(const struct vmm *v);
pid_t vmm_shim_pid(const struct vmm *v);
/* Kills the VMM through its pidfd, waits until it and the shim are gone, reaps the shim, removes
 * the socket. Idempotent. Returns 0 or -1 when something is still there at the deadline. Until it
 * has been called the shim keeps how the VMM ended, also for another agent. */
int vmm_stop(struct vmm *v, int64_t deadline, struct err *e);
/* Closes the handle; what runs keeps running. NULL is fine; returns NULL. */
struct vmm *vmm_free(struct vmm *v);

/* True for a sandbox whose shim and VMM stay. */
typedef bool vmm_keep(void *ctx, const struct sandbox_id *id);
/* Ends every shim and VMM of this run_dir, whoever started them, but those that `keep` says (NULL:
 * ends all), and removes their sockets. Shims of an agent in another container, to which the path
 * is another folder, are not of this run_dir. Does every step, joins the errors. `keep` may be
 * called more than once for a sandbox. */
int vmm_remove_leftovers(const struct vmm_host *host, vmm_keep *keep, void *ctx, struct err *e);

#endif
