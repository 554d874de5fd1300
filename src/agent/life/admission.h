/* SPDX-License-Identifier: Apache-2.0 */
/* What this host may promise: memory, CPUs, and how many cold boots run at once. Thread-safe. */
#ifndef TORPOR_AGENT_LIFE_ADMISSION_H
#define TORPOR_AGENT_LIFE_ADMISSION_H

#include <pthread.h>
#include <stdint.h>

#include "base/err.h"

struct admission {
    pthread_mutex_t lock;
    pthread_cond_t boot_ended;
    int64_t memory_mb_total; /* TORPOR_MEMORY_MB, default 4 times RAM: memory is lazy */
    int64_t memory_mb_used;
    int32_t cores;
    int32_t vcpus_per_core; /* of all sandboxes together; TORPOR_VCPUS_PER_CORE */
    int32_t vcpus_used;
    int32_t boots; /* cold boots under way */
};

/* `memory_mb_total` 0 takes 4 times this machine's RAM, `vcpus_per_core` 0 takes 8. */
int admission_init(
    struct admission *a, int64_t memory_mb_total, int32_t vcpus_per_core, struct err *e);
void admission_done(struct admission *a);

/* Reserves for one sandbox. ERR_NO_CAPACITY, naming what is short: the sum of memory, a tenth of
 * RAM that must stay available, vcpus_per_core in all, 4 vcpus a core for one. */
int admission_reserve(struct admission *a, int32_t vcpus, int32_t memory_mb, struct err *e);
/* Counts a sandbox that runs already, whatever the bounds. */
void admission_take(struct admission *a, int32_t vcpus, int32_t memory_mb);
void admission_release(struct admission *a, int32_t vcpus, int32_t memory_mb);

/* Waits for one of as many boot places as there are cores; ERR_NO_CAPACITY at the deadline. */
int admission_boot_begin(struct admission *a, int64_t deadline, struct err *e);
void admission_boot_end(struct admission *a);

#endif
