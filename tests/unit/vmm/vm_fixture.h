/* SPDX-License-Identifier: Apache-2.0 */
/* A place where tests can start real VMs: folders, images, a namespace with a TAP, a tiny guest. */
#ifndef TORPOR_TESTS_VM_FIXTURE_H
#define TORPOR_TESTS_VM_FIXTURE_H

#include "agent/vmm/vmm.h"
#include "base/buf.h"

enum { FIXTURE_UID = 64123, FIXTURE_PATH_MAX = 96 };

/* What the tiny guest does with its life. */
enum guest { GUEST_HELLO, GUEST_CHATTY, GUEST_RESET };

struct fixture {
    char dir[FIXTURE_PATH_MAX];
    char kernel[3][FIXTURE_PATH_MAX + 16]; /* by enum guest */
    char initrd[FIXTURE_PATH_MAX + 16];
    char base[FIXTURE_PATH_MAX + 16];
    char overlay[FIXTURE_PATH_MAX + 16];
    char netns_name[32];
    char netns[64];
    struct vmm_host host;
};

/* NULL when this machine can, else why not (not root, no QEMU, no ip). */
const char *fixture_missing(void);
int fixture_set_up(void **state);
int fixture_tear_down(void **state);
/* After each test: ends what a failed one left running. */
int fixture_tidy(void **state);
/* A network namespace below /run/netns with a TAP for one more VM. Return 0 or -1. */
int fixture_netns_add(const char *name);
int fixture_netns_delete(const char *name);
/* A boot of a new sandbox id with that guest. */
struct vmm_boot fixture_boot(const struct fixture *f, enum guest g);
/* Waits until console.log in the fixture's folder holds `text`, up to 20 s. Returns 0 or -1. */
int fixture_await_console(const struct fixture *f, const char *text);
/* Processes whose real uid is FIXTURE_UID. */
int fixture_count_vmms(void);
/* Entries of the run folder that end in .shim. */
int fixture_count_sockets(const struct fixture *f);
/* Reads a file below /proc/PID; the caller frees `dst`. */
void fixture_read_proc(pid_t pid, const char *name, struct buf *dst);

#endif
