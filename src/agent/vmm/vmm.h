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
#include "base/uuid.h"
#include "proto/sandbox.h"

struct vmm_files;

/* How a restored guest's memory comes back (docs/sleep.md). */
enum vmm_memory {
    VMM_MEMORY_PRIVATE, /* blobs are mapped privately */
    VMM_MEMORY_UFFD,    /* the shim serves page faults */
    VMM_MEMORY_COPIED,  /* all of it is copied in before the guest runs, without the library */
};

/* How device state and memory were saved; another number, another way. The device state of one is
 * none for the other. */
enum {
    VMM_SNAPSHOT_FORMAT = 1,        /* of a VM whose memory the preloaded library mapped */
    VMM_SNAPSHOT_FORMAT_COPIED = 2, /* of one that has its memory to itself */
};

/* What a snapshot depends on. Texts are "" where they do not apply. */
struct vmm_facts {
    char driver[16]; /* "qemu" */
    char version[32];
    char digest[72]; /* of the set of files */
    char accel[8];   /* kvm, tcg */
    char machine[32];
    char cpu[64];
    char cpu_flags[4096]; /* of the host, with KVM */
    uint32_t tsc_khz;
    int32_t snapshot_format;
};

struct vmm_host {
    const char *shim;    /* absolute path of torpor-shim */
    const char *run_dir; /* /run/torpor/<instance>: sockets <run_dir>/<sandbox id>.shim */
    const char *qemu;    /* absolute path of the VMM */
    bool use_kvm;
    uint32_t tsc_khz;        /* vmm_host_probe finds it; needed under TCG */
    struct vmm_files *files; /* vmm_host_probe's: what a VMM's mount namespace holds */
    const char *library;     /* absolute path of the preloaded library, NULL: none is there */
    const char *keep_dir;    /* <data folder>/vmm: sets of files by digest */
    struct vmm_facts facts;  /* vmm_host_probe's */
    bool has_uffd;           /* this host can serve page faults */
    bool old_pagemap;        /* do as kernels without PAGEMAP_SCAN do (TORPOR_PAGEMAP=old) */
    bool copies_memory;      /* VMs that are booted do without the library: VMM_MEMORY_COPIED */
};
/* Finds QEMU, its shared objects and firmware, whether KVM runs stock kernels here
 * (TORPOR_ACCEL=auto|kvm|tcg as `accel`, NULL is auto), the TSC frequency. Leaves shim and run_dir
 * as they are. ERR_UNSUPPORTED with what to install when there is no VMM. Takes 25 ms; once, at the
 * agent's start, and again after QEMU was upgraded. vmm_host_done frees what it found. */
int vmm_host_probe(const char *accel, struct vmm_host *ret, struct err *e);
void vmm_host_done(struct vmm_host *host);

/* Where a machine that was saved comes from. Descriptors stay the caller's. */
struct vmm_source {
    const struct vmm_facts *facts; /* of the save: names the set of files that is run */
    enum vmm_memory memory;        /* VMM_MEMORY_COPIED if and only if the facts have that format */
    int map_fd;                    /* memory.map */
    const int *blob_fds;           /* its blobs, in its order */
    size_t n_blobs;
    int hints_fd; /* working set, -1: none */
};

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
    const int *layer_fds;    /* frozen qcow2 layers between base image and overlay, bottom first */
    size_t n_layers;
    const struct vmm_source *source; /* NULL: a cold boot. Then kernel and initrd are not used */
};

/* Whether a machine with those facts can be restored here. ERR_UNSUPPORTED with the reason. Touches
 * nothing. */
int vmm_can_restore(const struct vmm_host *host, const struct vmm_facts *saved, struct err *e);

/* Removes the kept sets of files that are neither the host's own nor, by their digest, used; does
 * every step, joins the errors. What runs is not touched. Nobody may start to use one meanwhile. */
int vmm_sets_collect(const struct vmm_host *host, bool (*is_used)(void *ctx, const char *digest),
    void *ctx, struct err *e);

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
/* What a save of this VM will be, VMM_SNAPSHOT_FORMAT or VMM_SNAPSHOT_FORMAT_COPIED; also of one
 * that was adopted. */
int32_t vmm_snapshot_format(const struct vmm *v);
/* Kills the VMM through its pidfd, waits until it and the shim are gone, reaps the shim, removes
 * the socket. Idempotent. Returns 0 or -1 when something is still there at the deadline. Until it
 * has been called the shim keeps how the VMM ended, also for another agent. */
int vmm_stop(struct vmm *v, int64_t deadline, struct err *e);
/* SIGKILL to the VMM, so that whatever is under way with the handle ends. Any thread, while the
 * handle is open; all that is left to do is its holder's. */
void vmm_kill(const struct vmm *v);
/* Closes the handle; what runs keeps running. NULL is fine; returns NULL. */
struct vmm *vmm_free(struct vmm *v);

/* --- saving and restoring; one thread at a time, as all of a handle --- */

/* A VM started with a source: loads the device state from `state_fd`. Afterwards the vCPUs stand
 * still, ready for vmm_run. */
int vmm_load(struct vmm *v, int state_fd, int64_t deadline, struct err *e);
/* Lets the vCPUs run; fine when they do. */
int vmm_run(struct vmm *v, int64_t deadline, struct err *e);
/* Stops the vCPUs, and flushes what they have written to the disk into its file; fine when they
 * stand still. ERR_UNSUPPORTED for a VM whose memory cannot be saved. */
int vmm_pause(struct vmm *v, int64_t deadline, struct err *e);
/* Writes the device state into the empty file. The vCPUs stand still; vmm_run works afterwards. */
int vmm_save_state(struct vmm *v, int state_fd, int64_t deadline, struct err *e);

struct vmm_save {
    struct uuid blob; /* of the pages */
    int blob_fd;      /* empty files, open for reading and writing */
    int sums_fd;
    int map_fd;
    bool
        write_back; /* the disk may begin at once: a sync follows, and nobody waits for the vCPUs */
    int cancel_fd;  /* becoming readable breaks it off with ERR_CANCELED; -1: nothing does */
};
struct vmm_saved {
    uint64_t pages_stored, pages_zero, pages_referred;
    uint64_t scan_us, write_us;
    uint64_t map_entries, map_blobs;
};
/* Writes the pages that were written since the restore (or the boot), and the map of all memory.
 * The vCPUs stand still. Nothing is synced. */
int vmm_save_memory(struct vmm *v, const struct vmm_save *save, struct vmm_saved *ret,
    int64_t deadline, struct err *e);
/* What vmm_save_memory wrote last is durable; later saves of this VM may refer to it. */
int vmm_save_commit(struct vmm *v, int64_t deadline, struct err *e);
/* Writes the working set since the restore. `ret_pages` 0: there is none to keep. */
int vmm_save_hints(struct vmm *v, int fd, uint64_t *ret_pages, int64_t deadline, struct err *e);
/* While the vCPUs stand still: freezes the present overlay and goes on in the empty one
 * `overlay_fd` (qcow2 of the same size). */
int vmm_swap_overlay(struct vmm *v, int overlay_fd, int64_t deadline, struct err *e);

/* True for a sandbox whose shim and VMM stay. */
typedef bool vmm_keep(void *ctx, const struct sandbox_id *id);
/* Ends every shim and VMM of this run_dir, whoever started them, but those that `keep` says (NULL:
 * ends all), and removes their sockets. Shims of an agent in another container, to which the path
 * is another folder, are not of this run_dir. Does every step, joins the errors. `keep` may be
 * called more than once for a sandbox. */
int vmm_remove_leftovers(const struct vmm_host *host, vmm_keep *keep, void *ctx, struct err *e);

#endif
