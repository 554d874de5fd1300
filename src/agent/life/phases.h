/* SPDX-License-Identifier: Apache-2.0 */
/* How long each part of a pause, a resume or a snapshot took. */
#ifndef TORPOR_AGENT_LIFE_PHASES_H
#define TORPOR_AGENT_LIFE_PHASES_H

#include <pthread.h>
#include <stddef.h>
#include <stdint.h>

enum { PHASES_MAX = 16, HISTOGRAM_BUCKETS = 14, HISTOGRAMS_MAX = 48 };

struct phase {
    const char *name; /* static */
    int64_t us;
};
struct phases {
    struct phase items[PHASES_MAX];
    size_t n;
    int64_t began_us; /* monotonic */
    int64_t last_us;
};

void phases_begin(struct phases *p);
/* What was done since the last end, or the beginning, was `name`. */
void phases_end(struct phases *p, const char *name);
/* "quiesce=1.2 stop=0.4 ... total=12.3", in milliseconds, for the log. */
void phases_format(const struct phases *p, char *dst, size_t dst_size);

/* Counts of durations, cumulative: bucket i has those of at most bound i (histogram_bounds_us), the
 * last has all. */
struct histogram {
    const char *operation; /* "pause", "resume", "snapshot"; static */
    const char *phase;     /* "total" for the whole */
    uint64_t buckets[HISTOGRAM_BUCKETS];
    uint64_t sum_us;
    uint64_t count;
};
/* One less than there are buckets. */
extern const int64_t histogram_bounds_us[HISTOGRAM_BUCKETS - 1];
struct histograms {
    pthread_mutex_t lock;
    struct histogram items[HISTOGRAMS_MAX];
    size_t n;
};
void histograms_init(struct histograms *h);
void histograms_done(struct histograms *h);
/* Adds every phase of one operation, and their total. */
void histograms_add(struct histograms *h, const char *operation, const struct phases *p);
/* Under the lock: `each` must not call back. */
void histograms_each(
    struct histograms *h, void (*each)(void *ctx, const struct histogram *histogram), void *ctx);

#endif
