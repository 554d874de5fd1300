/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sleep and wake by hand: QEMU with the driver's command line, but without agent, shim, library and
 * confinement. A machine is booted once over a shared memory file, stopped, its device state saved
 * without memory (x-ignore-shared), and ended. A restore is the same command line with that file
 * mapped privately, the disk of the boot below a new overlay, on a TAP in a namespace.
 *
 * What fails here ends the program: nothing else can be compared then.
 */
#ifndef TORPOR_BENCH_BENCH_SLEEP_RAW_H
#define TORPOR_BENCH_BENCH_SLEEP_RAW_H

#include <stdbool.h>

#include "agent/guest/guest.h"
#include "e2e/stack.h"

struct qmp;

/* How many can run at once: each has a namespace, by its number. */
enum { RAW_SLOTS = 10 };

struct raw_image {
    const char *name;
    uint32_t memory_mb;
    char token[GUEST_TOKEN_CHARS + 1];
};

struct raw_machine {
    const struct raw_image *image;
    unsigned slot;
    pid_t pid;
    int pidfd;
    struct qmp *monitor;
    struct guest *guest;
};

/* Makes folder and namespaces; raw_done ends what still runs and removes them. */
void raw_init(const struct stack *s);
void raw_done(void);
/* Boots and saves one. `name` is a file name and stays the caller's. */
void raw_image_make(struct raw_image *ret, const char *name, uint32_t memory_mb);
/* Takes all files that a restore of it reads out of the page cache. */
void raw_image_cool(const struct raw_image *image);

/* From nothing until the vCPUs run. Any thread, one for each slot. */
void raw_restore(const struct raw_image *image, unsigned slot, struct raw_machine *ret);
/* Waits for the first answer of envd: GET /health. */
void raw_await(struct raw_machine *m);
/* Runs a command with at most 8 arguments, NULL behind the last, to its good end. */
void raw_exec(struct raw_machine *m, const char *const *argv);
void raw_end(struct raw_machine *m);

struct raw_saved {
    uint64_t bytes; /* of memory */
    int64_t stop_us, state_us, scan_us, write_us, sync_us;
};
/* Stops the vCPUs, saves the device state, finds the pages written since the restore, writes them,
 * and, when `durable`, syncs both files. The state of a machine with private memory is saved by
 * xen-save-devices-state, as QEMU's migration would take all of the memory along. */
void raw_save(struct raw_machine *m, bool durable, struct raw_saved *ret);
/* Lets the vCPUs run again. */
void raw_continue(struct raw_machine *m);

#endif
