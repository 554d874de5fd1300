/* SPDX-License-Identifier: Apache-2.0 */
/* What it costs to put a machine on disk. All guests here were restored before: what is saved is
 * what they have written since. */
#include <fcntl.h>
#include <stdio.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/io.h"
#include "bench_sleep.h"
#include "bench_sleep_raw.h"

enum { LARGE_MEMORY_MB = 4096, BYTES_RUNS = 5, MIB = 1 << 20 };

static struct samples ours;
static struct samples raw;
static struct phase_samples phases;
static struct phase_samples raw_phases;
static uint64_t ours_bytes; /* of the last */
static uint64_t raw_bytes;

static void forget(void)
{
    ours.n = raw.n = 0;
    phases_forget(&phases);
    phases_forget(&raw_phases);
}

/* A sandbox that runs and was restored. */
static void restored(const struct stack *s, int memory_mb, char ret_id[32])
{
    struct timed t;
    char body[64];
    (void)snprintf(body, sizeof body, "{\"memory_mb\":%d}", memory_mb);
    create_sandbox(s, body, ret_id);
    timed_pause(s, ret_id, &t);
    timed_resume(s, ret_id, &t);
}

static void note_raw(const struct raw_saved *r)
{
    char text[160];
    (void)snprintf(text, sizeof text,
        "stop;dur=%.3f, state;dur=%.3f, scan;dur=%.3f, write;dur=%.3f, fsync;dur=%.3f",
        (double)r->stop_us / 1000, (double)r->state_us / 1000, (double)r->scan_us / 1000,
        (double)r->write_us / 1000, (double)r->sync_us / 1000);
    phases_add(&raw_phases, text);
    raw_bytes = r->bytes;
}

/* The raw save of a restored guest that has written as much; with `goes_on` until it runs again. */
static int64_t save_raw(const struct raw_image *image, bool durable, bool goes_on)
{
    struct raw_machine m;
    struct raw_saved saved;
    int64_t took;
    int64_t began;
    raw_restore(image, 0, &m);
    raw_await(&m);
    raw_exec(&m, write_memory_argv);
    began = clock_mono_us();
    raw_save(&m, durable, &saved);
    if (goes_on)
        raw_continue(&m);
    took = clock_mono_us() - began;
    raw_end(&m);
    note_raw(&saved);
    return took;
}

/* All that is new in the store. */
static uint64_t new_bytes(const struct stack *s, const struct listing before[2])
{
    char path[160];
    uint64_t bytes;
    (void)snprintf(path, sizeof path, "%s/blobs", s->dir);
    bytes = listing_new_bytes(path, &before[0]);
    (void)snprintf(path, sizeof path, "%s/generations", s->dir);
    return bytes + listing_new_bytes(path, &before[1]);
}

static void list_store(const struct stack *s, struct listing ret[2])
{
    char path[160];
    (void)snprintf(path, sizeof path, "%s/blobs", s->dir);
    listing_take(path, &ret[0]);
    (void)snprintf(path, sizeof path, "%s/generations", s->dir);
    listing_take(path, &ret[1]);
}

static int64_t pause_once(const struct stack *s, const char *id, struct phase_samples *to)
{
    static struct listing before[2];
    struct timed t;
    struct timed resumed;
    write_memory(s, id);
    list_store(s, before);
    timed_pause(s, id, &t);
    ours_bytes = new_bytes(s, before);
    phases_add(to, t.timing);
    timed_resume(s, id, &resumed);
    return t.us;
}

static void print_details(void)
{
    phases_print("ours", &phases);
    phases_print("raw", &raw_phases);
    printf("    memory that raw wrote: %.1f MiB\n", (double)raw_bytes / MIB);
}

void figure_pause(struct stack *s)
{
    struct raw_image image;
    char id[32];
    raw_image_make(&image, "pause", SLEEP_MEMORY_MB);
    restored(s, SLEEP_MEMORY_MB, id);
    forget();
    for (size_t i = 0; i < sleep_runs() + 1; i++) {
        samples_add(&raw, save_raw(&image, /* durable= */ true, /* goes_on= */ false));
        samples_add(&ours, pause_once(s, id, &phases));
        if (i == 0)
            forget();
    }
    report_ratio("pause to 200, 512 MiB with 20 MiB written, against raw stop, save, scan, write "
                 "and fsync",
        &ours, &raw, 1.5);
    print_details();
    printf("    all files of our generation: %.1f MiB\n", (double)ours_bytes / MIB);
    delete_sandbox(s, id);
}

void figure_large(struct stack *s)
{
    char small[32];
    char large[32];
    restored(s, SLEEP_MEMORY_MB, small);
    restored(s, LARGE_MEMORY_MB, large);
    forget();
    for (size_t i = 0; i < sleep_runs() + 1; i++) {
        samples_add(&raw, pause_once(s, small, &raw_phases));
        samples_add(&ours, pause_once(s, large, &phases));
        if (i == 0)
            forget();
    }
    report_ratio(
        "pause of 4 GiB with 20 MiB written, against (raw) 512 MiB with as much", &ours, &raw, 1.3);
    phases_print("4 GiB", &phases);
    phases_print("512 MiB", &raw_phases);
    delete_sandbox(s, small);
    delete_sandbox(s, large);
}

/* --- bytes --- */

static void add_run(void *ctx, uint64_t start, uint64_t end)
{
    *(uint64_t *)ctx += end - start;
}

/* Where a VMM has its guest's memory: QEMU leaves a page without access behind it, and nothing else
 * of that size lies before one without a gap. */
static bool find_memory(pid_t vmm, uint64_t size, uint64_t *ret_start)
{
    char path[64];
    AUTO_BUF struct buf maps = BUF_INIT(16 << 20);
    struct err e = {0};
    uint64_t run = 0; /* where what lies without a gap begins */
    uint64_t before = 0;
    (void)snprintf(path, sizeof path, "/proc/%d/maps", (int)vmm);
    if (io_read_file(AT_FDCWD, path, &maps, &e) < 0)
        return false;
    for (const char *line = maps.p; line && *line; line = strchr(line, '\n')) {
        uint64_t start;
        uint64_t end;
        char mode[5];
        line += *line == '\n';
        if (sscanf(line, "%lx-%lx %4s", &start, &end, mode) != 3)
            break;
        if (start != before)
            run = start;
        before = end;
        if (strcmp(mode, "---p") == 0 && start - run >= size) {
            *ret_start = start - size;
            return true;
        }
        if (strncmp(mode, "rw", 2) != 0)
            run = end;
    }
    return false;
}

/* Written pages as pagemap says, which the guest's last writes before it stands still are not among
 * yet. */
static bool count_written(const char *id, uint64_t *ret)
{
    uint64_t size = (uint64_t)SLEEP_MEMORY_MB * MIB;
    uint64_t start;
    pid_t vmm = find_vmm(id);
    *ret = 0;
    return vmm > 0 && find_memory(vmm, size, &start) &&
           scan_written(vmm, start, start + size, add_run, ret) && *ret > 0;
}

void figure_bytes(struct stack *s)
{
    const char *name = "bytes on disk of a generation, against the pages written before";
    static struct listing before[2];
    double worst = 0;
    uint64_t worst_written = 0;
    uint64_t worst_bytes = 0;
    char id[32];
    restored(s, SLEEP_MEMORY_MB, id);
    for (int i = 0; i < BYTES_RUNS; i++) {
        struct timed t;
        uint64_t written;
        uint64_t bytes;
        write_memory(s, id);
        if (!count_written(id, &written)) {
            report_unmeasured(name, "the VMM's memory was not found, or no PAGEMAP_SCAN");
            break;
        }
        list_store(s, before);
        timed_pause(s, id, &t);
        bytes = new_bytes(s, before);
        if (((double)bytes - MIB) / (double)written > worst) {
            worst = ((double)bytes - MIB) / (double)written;
            worst_written = written;
            worst_bytes = bytes;
        }
        timed_resume(s, id, &t);
    }
    if (worst > 0) {
        report_value(name, worst, "times, beyond 1 MiB", "<= 1.05", worst <= 1.05);
        printf("    the worst of %d: %.2f MiB on disk, %.2f MiB written\n", BYTES_RUNS,
            (double)worst_bytes / MIB, (double)worst_written / MIB);
    }
    delete_sandbox(s, id);
}

/* --- live snapshot --- */

static int64_t snapshot_once(const struct stack *s, const char *id)
{
    struct timed t;
    struct timed other;
    write_memory(s, id);
    snapshot(s, id, "live", &t);
    phases_add(&phases, t.timing);
    snapshot_delete(s, "live");
    timed_pause(s, id, &other);
    timed_resume(s, id, &other);
    return phases_sum(t.timing, "stop", "run");
}

/* "run" lasts until envd has acknowledged that it is awake, so the guest stands still a little less
 * than what is said here. */
void figure_snapshot(struct stack *s)
{
    struct raw_image image;
    char id[32];
    raw_image_make(&image, "snapshot", SLEEP_MEMORY_MB);
    restored(s, SLEEP_MEMORY_MB, id);
    forget();
    for (size_t i = 0; i < sleep_runs() + 1; i++) {
        samples_add(&raw, save_raw(&image, /* durable= */ false, /* goes_on= */ true));
        samples_add(&ours, snapshot_once(s, id));
        if (i == 0)
            forget();
    }
    report_ratio("template from a running sandbox with 20 MiB written: how long it stands still, "
                 "against raw stop, save, scan, write",
        &ours, &raw, 2);
    print_details();
    delete_sandbox(s, id);
}
