/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Benchmarks: each figure beside the raw thing it is compared with, taken in turns in the same run,
 * because machines are noisy and only the ratio means something.
 */
#ifndef TORPOR_BENCH_BENCH_H
#define TORPOR_BENCH_BENCH_H

#include <stddef.h>
#include <stdint.h>

#include "e2e/stack.h"

/* Samples of one figure, microseconds. */
enum { SAMPLES_MAX = 1000 };
struct samples {
    int64_t us[SAMPLES_MAX];
    size_t n;
};
void samples_add(struct samples *s, int64_t us);
/* The sample that `percent` of all do not exceed; 0 of none. Sorts. */
int64_t samples_percentile(struct samples *s, unsigned percent);

/* Prints one row: p50 and p99 of both, the ratio of the medians or their difference. */
void report_ratio(const char *name, struct samples *ours, struct samples *raw, double limit);
void report_added(const char *name, struct samples *ours, struct samples *raw, double limit_ms);
/* The same without a limit. */
void report_beside(const char *name, struct samples *ours, struct samples *raw);
/* Prints "name: value unit (must be limit)". */
void report_value(const char *name, double value, const char *unit, const char *limit, bool holds);
void report_unmeasured(const char *name, const char *why);

/* KiB of the lines "Key:  123 kB" in a file of /proc/PID, together (or of whatever such a line
 * counts); -1 when it cannot be read. */
long proc_kib(pid_t pid, const char *file, const char *key);

void bench_create(const struct stack *s, size_t runs);
void bench_exec(const struct stack *s, size_t runs);
void bench_guest(const struct stack *s);
void bench_forks(const struct stack *s);
void bench_many(const struct stack *s);
/* Sleep and wake: all figures (NULL, "sleep") or the one of that name, which bench_sleep_has. */
void bench_sleep(struct stack *s, const char *only);
bool bench_sleep_has(const char *name);
/* Needs no stack: starts shims with VMs that do nothing. */
void bench_shims(void);
void bench_recover(struct stack *s);
/* These need no Torpor. */
void bench_http(void);
void bench_json(void);

#endif
