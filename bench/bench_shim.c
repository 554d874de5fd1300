/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a shim costs beside others: its private memory while many run, for then the pages of its
 * program are shared and the kernel counts them so.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "agent/disk/disk.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "bench.h"
#include "unit/vmm/vm_fixture.h"

enum { SHIMS = 20, STOP_MS = 10000, SHIM_KIB_MAX = 256 };

struct herd {
    struct fixture *f;
    struct vmm *vms[SHIMS];
    int namespaces; /* made so far */
};

static void name_netns(int i, char dst[32])
{
    (void)snprintf(dst, 32, "tpbench-%d-%d", (int)getpid(), i);
}

/* A VM with a namespace and an overlay of its own. */
static struct vmm *start_one(struct herd *h, int i, struct err *e)
{
    struct vmm_boot boot = fixture_boot(h->f, GUEST_HELLO);
    char name[32];
    char netns[64];
    char overlay[FIXTURE_PATH_MAX + 32];
    char overlay_name[16];
    AUTO_CLOSE int dirfd = open(h->f->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    name_netns(i, name);
    (void)snprintf(netns, sizeof netns, "/run/netns/%s", name);
    (void)snprintf(overlay_name, sizeof overlay_name, "overlay-%d", i);
    (void)snprintf(overlay, sizeof overlay, "%s/%s", h->f->dir, overlay_name);
    h->namespaces = i + 1;
    if (fixture_netns_add(name) < 0) {
        err_set(e, ERR_INTERNAL, "no network namespace %s", name);
        return NULL;
    }
    if (disk_overlay_create(dirfd, overlay_name, 1 << 20, FIXTURE_UID, e) < 0)
        return NULL;
    boot.netns = netns;
    boot.overlay = overlay;
    return vmm_start(&h->f->host, &boot, e);
}

static int start_all(struct herd *h, struct err *e)
{
    for (int i = 0; i < SHIMS; i++) {
        h->vms[i] = start_one(h, i, e);
        if (!h->vms[i])
            return -1;
    }
    return 0;
}

static void stop_all(struct herd *h)
{
    struct err ignored;
    for (int i = 0; i < SHIMS; i++) {
        if (h->vms[i])
            (void)vmm_stop(h->vms[i], deadline_in_ms(STOP_MS), &ignored);
        (void)vmm_free(h->vms[i]);
    }
    for (int i = 0; i < h->namespaces; i++) {
        char name[32];
        name_netns(i, name);
        (void)fixture_netns_delete(name);
    }
}

/* A line of smaps_rollup, KiB; -1 when it is not there. */
static long field_kib(const char *text, const char *name)
{
    const char *p = text ? strstr(text, name) : NULL;
    return p ? strtol(p + strlen(name), NULL, 10) : -1;
}

static void measure(const struct herd *h)
{
    long largest = 0;
    long anonymous = 0;
    for (int i = 0; i < SHIMS; i++) {
        AUTO_BUF struct buf text = BUF_INIT(65536);
        long dirty;
        long clean;
        fixture_read_proc(vmm_shim_pid(h->vms[i]), "smaps_rollup", &text);
        dirty = field_kib(text.p, "\nPrivate_Dirty:");
        clean = field_kib(text.p, "\nPrivate_Clean:");
        if (dirty < 0 || clean < 0) {
            report_unmeasured("private memory of a shim", "no smaps_rollup");
            return;
        }
        if (dirty + clean > largest)
            largest = dirty + clean;
        if (field_kib(text.p, "\nAnonymous:") > anonymous)
            anonymous = field_kib(text.p, "\nAnonymous:");
    }
    report_value("private memory of a shim, largest of 20", (double)largest, "KiB", "<= 256",
        largest > 0 && largest <= SHIM_KIB_MAX);
    report_value("of it anonymous", (double)anonymous, "KiB", "<= 256", anonymous <= SHIM_KIB_MAX);
}

void bench_shims(void)
{
    struct herd h = {0};
    struct err e = {0};
    void *fixture = NULL;
    const char *missing = fixture_missing();
    if (missing || fixture_set_up(&fixture) < 0) {
        report_unmeasured("private memory of a shim", missing ? missing : "no fixture");
        return;
    }
    h.f = fixture;
    if (start_all(&h, &e) == 0)
        measure(&h);
    else
        report_unmeasured("private memory of a shim", e.msg);
    stop_all(&h);
    (void)fixture_tear_down(&fixture);
}
