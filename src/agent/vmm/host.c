/* SPDX-License-Identifier: Apache-2.0 */
/* What this host can run VMs with. */
#include "agent/vmm/host_int.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <x86intrin.h>

#include "agent/vmm/files.h"
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

bool host_flags_have(struct slice cpuinfo, const char *flag)
{
    const char *line = memmem(cpuinfo.p, cpuinfo.n, "\nflags", 6);
    const char *end;
    size_t n = strlen(flag);
    if (!line)
        return false;
    line++;
    end = memchr(line, '\n', (size_t)(cpuinfo.p + cpuinfo.n - line));
    if (!end)
        end = cpuinfo.p + cpuinfo.n;
    for (const char *p = line; p < end;) {
        const char *space = memchr(p, ' ', (size_t)(end - p));
        size_t len = (size_t)((space ? space : end) - p);
        if (len == n && memcmp(p, flag, n) == 0)
            return true;
        p += len + 1;
    }
    return false;
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

int vmm_host_probe(const char *accel, struct vmm_host *ret, struct err *e)
{
    const char *qemu = find_qemu();
    struct vmm_file_dirs dirs;
    struct vmm_files *files;
    bool use_kvm = false;
    if (!qemu)
        return err_set(e, ERR_UNSUPPORTED, "there is no qemu-system-x86_64: " INSTALL_HINT);
    if (choose_accel(accel, &use_kvm, e) < 0)
        return -1;
    dirs = vmm_file_dirs_default(use_kvm);
    files = vmm_files_new(qemu, &dirs, e);
    if (!files) {
        if (e->kind == ERR_NOT_FOUND)
            e->kind = ERR_UNSUPPORTED;
        return err_wrap(e, INSTALL_HINT);
    }
    ret->qemu = qemu;
    ret->use_kvm = use_kvm;
    ret->tsc_khz = host_measure_tsc_khz();
    ret->files = files;
    return 0;
}

void vmm_host_done(struct vmm_host *host)
{
    host->files = vmm_files_free(host->files);
}
