/* SPDX-License-Identifier: Apache-2.0 */
/*
 * torpor doctor: what this host can do. It only looks: nothing on the host is changed.
 *
 * A probe adds items. What it reads of files it reads below `root`; what it must try out goes
 * through `ops`: so every answer of a host can be tested on any machine.
 */
#ifndef TORPOR_CLI_DOCTOR_H
#define TORPOR_CLI_DOCTOR_H

#include <limits.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/err.h"

enum doctor_level { DOCTOR_OK, DOCTOR_WARN, DOCTOR_MISSING, DOCTOR_LEVEL_COUNT };

enum { DOCTOR_ITEMS_MAX = 48, DOCTOR_WHAT_MAX = 240 };

struct doctor_item {
    const char *name;
    enum doctor_level level; /* MISSING: sandboxes cannot run */
    char what[DOCTOR_WHAT_MAX];
    const char *means; /* what follows from it; "" for OK */
    const char *how;   /* how to get it; "" for OK */
};

struct doctor_disk {
    int64_t total_bytes;
    int64_t free_bytes;
};

/* What has to be tried. Those that return int: 0, or a negative errno. */
struct doctor_ops {
    int (*open_device)(const char *path); /* read and write, closed at once */
    int (*userfaultfd)(uint64_t *ret_features);
    int (*pagemap_scan)(void);
    int (*soft_dirty)(void);
    int (*dm_snapshot)(void); /* -ENOENT: device-mapper without that target */
    int (*reflink)(const char *dir);
    int (*disk)(const char *dir, struct doctor_disk *ret);
    int64_t (*max_files)(void);
    bool (*is_root)(void);
    int (*run)(const char *const *argv, struct buf *ret, struct err *e); /* as tool_run */
};
extern const struct doctor_ops doctor_real_ops;

struct doctor {
    const char *root; /* "" on a real host */
    const struct doctor_ops *ops;
    char data[PATH_MAX]; /* the data folder; it need not be there */
    const char *net;     /* TORPOR_NET */
    bool has_virt;       /* set by the probes: vmx or svm */
    bool has_kvm;        /* and a /dev/kvm that opens */
    struct doctor_item items[DOCTOR_ITEMS_MAX];
    size_t n_items;
};

/* Adds an item. `means` and `how` are literals. */
void doctor_add(struct doctor *d, enum doctor_level level, const char *name, const char *means,
    const char *how, const char *fmt, ...) __attribute__((format(printf, 6, 7)));
/* "ok", "warn", "missing" */
const char *doctor_level_name(enum doctor_level level);
/* True when nothing is missing. */
bool doctor_can_run(const struct doctor *d);
/* Appends a file below root; false when it cannot be read. */
bool doctor_read(const struct doctor *d, const char *path, struct buf *ret);

/* The probes, in the order of the output. */
void doctor_probe_vmm(struct doctor *d);
void doctor_probe_memory(struct doctor *d);
void doctor_probe_disk(struct doctor *d);
void doctor_probe_net(struct doctor *d);
void doctor_probe_limits(struct doctor *d);
void doctor_probe_files(struct doctor *d);
/* What the agent found out at its start about saving and restoring machines. */
void doctor_probe_trial(struct doctor *d);

#endif
