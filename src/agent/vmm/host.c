/* SPDX-License-Identifier: Apache-2.0 */
/* What this host can run VMs with. */
#include "agent/vmm/host_int.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <x86intrin.h>

#include "agent/vmm/files.h"
#include "agent/vmm/keep.h"
#include "agent/vmm/vmm.h"
#include "base/cleanup.h"
#include "base/io.h"

enum {
    CPUINFO_BYTES_MAX = 4 << 20, /* 1.5 KB a CPU */
    TSC_MEASURE_NS = 20 * 1000 * 1000,
    TSC_TRIES = 64, /* readings of which the least disturbed counts */
    KHZ_PER_MHZ = 1000,
};

static const char *const qemu_paths[] = {
    "/usr/bin/qemu-system-x86_64", "/usr/local/bin/qemu-system-x86_64", NULL};

#define INSTALL_HINT "install the packages qemu-system-x86 and seabios"

struct slice host_flags(struct slice cpuinfo)
{
    const char *line = memmem(cpuinfo.p, cpuinfo.n, "\nflags", 6);
    const char *all_end = cpuinfo.p + cpuinfo.n;
    const char *end;
    const char *colon;
    if (!line)
        return slice_of("", 0);
    line++;
    end = memchr(line, '\n', (size_t)(all_end - line));
    if (!end)
        end = all_end;
    colon = memchr(line, ':', (size_t)(end - line));
    line = colon ? colon + 1 : end;
    while (line < end && *line == ' ')
        line++;
    return slice_of(line, (size_t)(end - line));
}

bool host_flags_have(struct slice cpuinfo, const char *flag)
{
    struct slice flags = host_flags(cpuinfo);
    const char *end = flags.p + flags.n;
    size_t n = strlen(flag);
    for (const char *p = flags.p; p < end;) {
        const char *space = memchr(p, ' ', (size_t)(end - p));
        size_t len = (size_t)((space ? space : end) - p);
        if (len == n && memcmp(p, flag, n) == 0)
            return true;
        p += len + 1;
    }
    return false;
}

static int read_cpu_flags(char *dst, size_t dst_size, struct err *e)
{
    AUTO_BUF struct buf text = BUF_INIT(CPUINFO_BYTES_MAX);
    if (io_read_file(AT_FDCWD, "/proc/cpuinfo", &text, e) < 0)
        return -1;
    if (!slice_copy_cstr(host_flags(buf_slice(&text)), dst, dst_size))
        return err_set(e, ERR_TOO_LARGE, "/proc/cpuinfo: more than %zu bytes of flags", dst_size);
    return 0;
}

static bool cpu_virtualizes(void)
{
    struct err ignored;
    AUTO_BUF struct buf text = BUF_INIT(CPUINFO_BYTES_MAX);
    if (io_read_file(AT_FDCWD, "/proc/cpuinfo", &text, &ignored) < 0)
        return false;
    return host_flags_have(buf_slice(&text), "vmx") || host_flags_have(buf_slice(&text), "svm");
}

static bool kvm_opens(void)
{
    AUTO_CLOSE int fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);
    return fd >= 0;
}

/* A /dev/kvm without vmx or svm belongs to a host that cannot run stock kernels. */
static int choose_accel(const char *accel, bool *ret_kvm, struct err *e)
{
    if (!accel || strcmp(accel, "auto") == 0) {
        *ret_kvm = cpu_virtualizes() && kvm_opens();
        return 0;
    }
    if (strcmp(accel, "tcg") == 0) {
        *ret_kvm = false;
        return 0;
    }
    if (strcmp(accel, "kvm") != 0)
        return err_set(e, ERR_INVALID, "TORPOR_ACCEL is kvm, tcg or auto, not \"%s\"", accel);
    if (!kvm_opens())
        return err_set(e, ERR_UNSUPPORTED, "TORPOR_ACCEL=kvm, but /dev/kvm does not open");
    *ret_kvm = true;
    return 0;
}

struct tsc_sample {
    uint64_t ticks;
    int64_t ns;
};

static int64_t raw_ns(void)
{
    struct timespec ts;
    (void)clock_gettime(CLOCK_MONOTONIC_RAW, &ts);
    return (int64_t)ts.tv_sec * 1000000000 + ts.tv_nsec;
}

/* Clock and TSC at one moment: the pair whose two TSC readings are closest together, as those in
 * between which another process ran are wrong. */
static struct tsc_sample sample_tsc(void)
{
    struct tsc_sample best = {0};
    uint64_t best_gap = UINT64_MAX;
    for (int i = 0; i < TSC_TRIES; i++) {
        uint64_t before = __rdtsc();
        int64_t ns = raw_ns();
        uint64_t gap = __rdtsc() - before;
        if (gap < best_gap) {
            best_gap = gap;
            best = (struct tsc_sample){before + gap / 2, ns};
        }
    }
    return best;
}

uint32_t host_measure_tsc_khz(void)
{
    struct tsc_sample a = sample_tsc();
    struct tsc_sample b;
    uint64_t khz;
    while (raw_ns() - a.ns < TSC_MEASURE_NS)
        _mm_pause();
    b = sample_tsc();
    khz = (b.ticks - a.ticks) * 1000000 / (uint64_t)(b.ns - a.ns);
    /* The nominal frequency is a whole number of MHz; the rest is error of the measurement. */
    return (uint32_t)((khz + KHZ_PER_MHZ / 2) / KHZ_PER_MHZ * KHZ_PER_MHZ);
}

static const char *find_qemu(void)
{
    for (const char *const *p = qemu_paths; *p; p++)
        if (access(*p, X_OK) == 0)
            return *p;
    return NULL;
}

/* Whether page faults of another process can be served here. The device is what a jail can be
 * given; the system call would need a privilege in it. */
static bool serves_page_faults(void)
{
    struct uffdio_api api = {.api = UFFD_API};
    AUTO_CLOSE int device = open("/dev/userfaultfd", O_RDWR | O_CLOEXEC);
    AUTO_CLOSE int fd = device < 0 ? -1 : ioctl(device, USERFAULTFD_IOC_NEW, O_CLOEXEC);
    return fd >= 0 && ioctl(fd, UFFDIO_API, &api) == 0;
}

static bool wants_old_pagemap(void)
{
    const char *pagemap = getenv("TORPOR_PAGEMAP");
    return pagemap && strcmp(pagemap, "old") == 0;
}

/* All facts but those of the kept set. */
static int find_facts(bool use_kvm, uint32_t tsc_khz, struct vmm_facts *ret, struct err *e)
{
    *ret = (struct vmm_facts){.driver = "qemu",
        .machine = "microvm",
        .tsc_khz = tsc_khz,
        .snapshot_format = VMM_SNAPSHOT_FORMAT};
    (void)snprintf(ret->accel, sizeof ret->accel, "%s", use_kvm ? "kvm" : "tcg");
    (void)snprintf(ret->cpu, sizeof ret->cpu, "%s", use_kvm ? "host" : "max");
    return use_kvm ? read_cpu_flags(ret->cpu_flags, sizeof ret->cpu_flags, e) : 0;
}

static struct vmm_files *find_files(
    const char *qemu, bool use_kvm, const char *library, struct err *e)
{
    struct vmm_file_dirs dirs = vmm_file_dirs_default(use_kvm);
    struct vmm_files *files;
    dirs.library = library;
    files = vmm_files_new(qemu, &dirs, e);
    if (!files) {
        if (e->kind == ERR_NOT_FOUND)
            e->kind = ERR_UNSUPPORTED;
        err_wrap(e, INSTALL_HINT);
    }
    return files;
}

/* Has the files kept, if that is wanted, and replaces the list by that of the copies. */
static int keep_files(
    const char *keep_dir, struct vmm_files **files, struct vmm_facts *facts, struct err *e)
{
    struct vmm_files *kept = NULL;
    if (!keep_dir || !*keep_dir)
        return 0;
    if (vmm_files_keep(keep_dir, *files, &kept, facts, e) < 0)
        return err_wrap(e, "keep the VMM's files in %s", keep_dir);
    (void)vmm_files_free(*files);
    *files = kept;
    return 0;
}

int vmm_host_probe(const char *accel, struct vmm_host *ret, struct err *e)
{
    const char *qemu = find_qemu();
    struct vmm_facts facts;
    struct vmm_files *files;
    uint32_t tsc_khz;
    bool use_kvm = false;
    if (!qemu)
        return err_set(e, ERR_UNSUPPORTED, "there is no qemu-system-x86_64: " INSTALL_HINT);
    if (choose_accel(accel, &use_kvm, e) < 0)
        return -1;
    tsc_khz = host_measure_tsc_khz();
    if (find_facts(use_kvm, tsc_khz, &facts, e) < 0)
        return -1;
    files = find_files(qemu, use_kvm, ret->library, e);
    if (!files)
        return -1;
    if (keep_files(ret->keep_dir, &files, &facts, e) < 0) {
        (void)vmm_files_free(files);
        return -1;
    }
    ret->qemu = qemu;
    ret->use_kvm = use_kvm;
    ret->tsc_khz = tsc_khz;
    ret->files = files;
    ret->facts = facts;
    ret->has_uffd = serves_page_faults();
    ret->old_pagemap = wants_old_pagemap();
    return 0;
}

void vmm_host_done(struct vmm_host *host)
{
    host->files = vmm_files_free(host->files);
}
