/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Admission. Cold boots are CPU-bound under emulation: more at once than cores makes each slower
 * and all late, so they wait for a place.
 */
#include "agent/life/admission.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/io.h"

enum { MEMORY_FACTOR = 4, VCPUS_PER_CORE = 8, VCPUS_PER_CORE_ONE = 4, MEMINFO_BYTES_MAX = 8192 };

/* A line "Name:   123 kB" of /proc/meminfo, in MiB. */
static int meminfo_mb(const char *name, int64_t *ret, struct err *e)
{
    AUTO_BUF struct buf text = BUF_INIT(MEMINFO_BYTES_MAX);
    const char *p;
    if (io_read_file(AT_FDCWD, "/proc/meminfo", &text, e) < 0)
        return -1;
    p = text.p ? strstr(text.p, name) : NULL;
    if (!p)
        return err_set(e, ERR_PROTOCOL, "/proc/meminfo has no %s", name);
    *ret = strtoll(p + strlen(name), NULL, 10) / 1024;
    return 0;
}

int admission_init(
    struct admission *a, int64_t memory_mb_total, int32_t vcpus_per_core, struct err *e)
{
    pthread_condattr_t attr;
    int64_t ram_mb;
    if (meminfo_mb("MemTotal:", &ram_mb, e) < 0)
        return -1;
    *a = (struct admission){
        .memory_mb_total = memory_mb_total > 0 ? memory_mb_total : ram_mb * MEMORY_FACTOR,
        .vcpus_per_core = vcpus_per_core > 0 ? vcpus_per_core : VCPUS_PER_CORE,
        .cores = (int32_t)sysconf(_SC_NPROCESSORS_ONLN)};
    if (a->cores < 1)
        a->cores = 1;
    (void)pthread_mutex_init(&a->lock, NULL);
    (void)pthread_condattr_init(&attr);
    (void)pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    (void)pthread_cond_init(&a->boot_ended, &attr);
    (void)pthread_condattr_destroy(&attr);
    return 0;
}

void admission_done(struct admission *a)
{
    (void)pthread_cond_destroy(&a->boot_ended);
    (void)pthread_mutex_destroy(&a->lock);
}

int admission_reserve(struct admission *a, int32_t vcpus, int32_t memory_mb, struct err *e)
{
    int64_t total_mb;
    int64_t available_mb;
    if (meminfo_mb("MemTotal:", &total_mb, e) < 0 ||
        meminfo_mb("MemAvailable:", &available_mb, e) < 0)
        return -1;
    MUTEX_GUARD(&a->lock);
    if (vcpus > a->cores * VCPUS_PER_CORE_ONE)
        return err_set(e, ERR_NO_CAPACITY,
            "%d vcpus are more than this host gives one sandbox (%d)", vcpus,
            a->cores * VCPUS_PER_CORE_ONE);
    if (a->vcpus_used + vcpus > a->cores * a->vcpus_per_core)
        return err_set(
            e, ERR_NO_CAPACITY, "this host's %d vcpus are in use", a->cores * a->vcpus_per_core);
    if (a->memory_mb_used + memory_mb > a->memory_mb_total)
        return err_set(e, ERR_NO_CAPACITY, "this host has %lld MiB of memory left to promise",
            (long long)(a->memory_mb_total - a->memory_mb_used));
    if (available_mb < total_mb / 10)
        return err_set(e, ERR_NO_CAPACITY, "this host is short of memory");
    a->memory_mb_used += memory_mb;
    a->vcpus_used += vcpus;
    return 0;
}

void admission_take(struct admission *a, int32_t vcpus, int32_t memory_mb)
{
    MUTEX_GUARD(&a->lock);
    a->memory_mb_used += memory_mb;
    a->vcpus_used += vcpus;
}

void admission_release(struct admission *a, int32_t vcpus, int32_t memory_mb)
{
    MUTEX_GUARD(&a->lock);
    a->memory_mb_used -= memory_mb;
    a->vcpus_used -= vcpus;
}

int admission_boot_begin(struct admission *a, int64_t deadline, struct err *e)
{
    struct timespec until = {
        .tv_sec = (time_t)(deadline / 1000), .tv_nsec = deadline % 1000 * 1000000};
    MUTEX_GUARD(&a->lock);
    while (a->boots >= a->cores)
        if (pthread_cond_timedwait(&a->boot_ended, &a->lock, &until) == ETIMEDOUT &&
            a->boots >= a->cores)
            return err_set(e, ERR_NO_CAPACITY, "too many sandboxes are booting");
    a->boots++;
    return 0;
}

void admission_boot_end(struct admission *a)
{
    MUTEX_GUARD(&a->lock);
    a->boots--;
    (void)pthread_cond_signal(&a->boot_ended);
}
