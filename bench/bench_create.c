/* SPDX-License-Identifier: Apache-2.0 */
/* Cold boots: one against the same machine by hand, and ten at once. */
#include <pthread.h>
#include <stdio.h>

#include "base/clock.h"
#include "bench.h"
#include "by_hand.h"

enum { MANY = 10 };

static int64_t timed_create(const struct stack *s)
{
    char id[32];
    int64_t began = clock_mono_us();
    int64_t took;
    create_sandbox(s, "{}", id);
    took = clock_mono_us() - began;
    delete_sandbox(s, id);
    return took;
}

void bench_create(const struct stack *s, size_t runs)
{
    static struct samples ours;
    static struct samples raw;
    by_hand_init();
    (void)by_hand_boot(s, 1, 512); /* warm the page cache for both */
    for (size_t i = 0; i < runs; i++) {
        samples_add(&raw, by_hand_boot(s, 1, 512));
        samples_add(&ours, timed_create(s));
    }
    by_hand_done();
    report_ratio(
        "create (cold boot) to 201, against QEMU by hand until envd answers", &ours, &raw, 1.15);
}

struct creator {
    const struct stack *stack;
    char id[32];
    int status;
};

static void *create_one(void *arg)
{
    struct creator *c = arg;
    struct reply r = {0};
    api(c->stack, "POST", "/v1/sandboxes", "{}", &r);
    c->status = r.status;
    (void)snprintf(c->id, sizeof c->id, "%s", reply_text(&r, "id"));
    reply_done(&r);
    return NULL;
}

void bench_many(const struct stack *s)
{
    struct creator c[MANY];
    pthread_t t[MANY];
    int created = 0;
    int64_t began = clock_mono_us();
    int64_t took;
    for (int i = 0; i < MANY; i++) {
        c[i] = (struct creator){.stack = s};
        if (pthread_create(&t[i], NULL, create_one, &c[i]) != 0)
            return;
    }
    for (int i = 0; i < MANY; i++)
        (void)pthread_join(t[i], NULL);
    took = clock_mono_us() - began;
    for (int i = 0; i < MANY; i++)
        if (c[i].status == 201) {
            created++;
            delete_sandbox(s, c[i].id);
        }
    report_value("10 creates at once that succeed", created, "of 10", "10", created == MANY);
    printf("    all after %.1f s\n", (double)took / 1e6);
}
