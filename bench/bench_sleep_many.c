/* SPDX-License-Identifier: Apache-2.0 */
/* Many times and many sandboxes: what grows. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "bench_sleep.h"

enum { CYCLES = 200, PAUSED = 40, WINDOW_MAX = 100, DESTROY_MS = 50, GROWTH_KIB = 16 };

/* --- cycles --- */

/* What must not grow, while the sandbox sleeps. */
enum {
    AGENT_FDS,
    CONTROL_FDS,
    AGENT_THREADS,
    CONTROL_THREADS,
    NAMESPACES,
    FILES,
    DISK_KIB,
    COUNTS
};
struct count {
    const char *name;
    long spare; /* background work comes and goes */
    long percent;
};
static const struct count counts[COUNTS] = {
    [AGENT_FDS] = {"descriptors of the agent", 4, 0},
    [CONTROL_FDS] = {"descriptors of the control plane", 4, 0},
    [AGENT_THREADS] = {"threads of the agent", 4, 0},
    [CONTROL_THREADS] = {"threads of the control plane", 4, 0},
    [NAMESPACES] = {"network namespaces", 0, 0},
    [FILES] = {"files in the data folder", 4, 0},
    [DISK_KIB] = {"KiB in the data folder", 1024, 10},
};

static long fds_of(pid_t pid)
{
    char path[64];
    (void)snprintf(path, sizeof path, "/proc/%d/fd", (int)pid);
    return (long)entries_count(path, "");
}

static void count_all(const struct stack *s, long ret[COUNTS])
{
    char prefix[16];
    struct tree t;
    tree_measure(s->dir, &t);
    (void)snprintf(prefix, sizeof prefix, "tp%u-", s->instance);
    ret[AGENT_FDS] = fds_of(s->agent);
    ret[CONTROL_FDS] = fds_of(s->control);
    ret[AGENT_THREADS] = proc_kib(s->agent, "status", "Threads:");
    ret[CONTROL_THREADS] = proc_kib(s->control, "status", "Threads:");
    ret[NAMESPACES] = (long)entries_count("/run/netns", prefix);
    ret[FILES] = (long)t.files;
    ret[DISK_KIB] = (long)(t.bytes / 1024);
}

struct cycles {
    const struct stack *stack;
    char id[32];
    char sum[64];
    size_t wrong;
    struct samples first;
    struct samples last;
    struct phase_samples first_phases[2]; /* of pauses, of resumes */
    struct phase_samples last_phases[2];
    long first_most[COUNTS];
    long last_most[COUNTS];
};

static const char checksum[] =
    "{\"cmd\":\"sh\",\"args\":[\"-c\",\"md5sum /dev/shm/data; date >>/root/cycles\"]}";

static void take_sum(const struct stack *s, const char *id, char dst[64])
{
    AUTO_REPLY struct reply r = {0};
    exec_in(s, id, checksum, &r);
    (void)snprintf(dst, 64, "%.32s", reply_text(&r, "stdout"));
}

static void note_most(const struct stack *s, long most[COUNTS])
{
    long now[COUNTS];
    count_all(s, now);
    for (int i = 0; i < COUNTS; i++)
        if (now[i] > most[i])
            most[i] = now[i];
}

static void note_times(struct samples *both, struct phase_samples phases[2],
    const struct timed *paused, const struct timed *resumed)
{
    samples_add(both, paused->us + resumed->us);
    phases_add(&phases[0], paused->timing);
    phases_add(&phases[1], resumed->timing);
}

static void cycle(struct cycles *c, bool is_first, bool is_last)
{
    struct timed paused;
    struct timed resumed;
    char sum[64];
    timed_pause(c->stack, c->id, &paused);
    if (is_first)
        note_most(c->stack, c->first_most);
    if (is_last)
        note_most(c->stack, c->last_most);
    timed_resume(c->stack, c->id, &resumed);
    take_sum(c->stack, c->id, sum);
    if (strcmp(sum, c->sum) != 0)
        c->wrong++;
    if (is_first)
        note_times(&c->first, c->first_phases, &paused, &resumed);
    if (is_last)
        note_times(&c->last, c->last_phases, &paused, &resumed);
}

static void report_cycles(struct cycles *c, size_t n)
{
    report_value("cycles of pause and resume with a wrong checksum", (double)c->wrong, "", "0",
        c->wrong == 0);
    printf("    of %zu\n", n);
    report_ratio("the last cycles against (raw) the first", &c->last, &c->first, 1.2);
    phases_print("the first pauses", &c->first_phases[0]);
    phases_print("the last pauses", &c->last_phases[0]);
    phases_print("the first resumes", &c->first_phases[1]);
    phases_print("the last resumes", &c->last_phases[1]);
    for (int i = 0; i < COUNTS; i++) {
        char name[96];
        long limit =
            c->first_most[i] + counts[i].spare + c->first_most[i] * counts[i].percent / 100;
        char text[32];
        (void)snprintf(name, sizeof name, "%s at most in the last cycles; in the first %ld",
            counts[i].name, c->first_most[i]);
        (void)snprintf(text, sizeof text, "<= %ld", limit);
        report_value(name, (double)c->last_most[i], "", text, c->last_most[i] <= limit);
    }
}

/* Only many cycles say something: layouts take some 20 until they are tidied the first time. */
void figure_cycles(struct stack *s)
{
    static struct cycles c;
    size_t n = count_setting("TORPOR_BENCH_CYCLES", CYCLES);
    size_t window = n / 5 < WINDOW_MAX ? n / 5 : WINDOW_MAX;
    AUTO_REPLY struct reply r = {0};
    if (window == 0)
        window = 1;
    memset(&c, 0, sizeof c);
    c.stack = s;
    create_sandbox(s, "{}", c.id);
    exec_in(s, c.id,
        "{\"cmd\":\"dd\",\"args\":[\"if=/dev/urandom\",\"of=/dev/shm/data\",\"bs=65536\","
        "\"count=64\"]}",
        &r);
    take_sum(s, c.id, c.sum);
    for (size_t i = 0; i < n; i++)
        cycle(&c, i < window, i >= n - window);
    report_cycles(&c, n);
    delete_sandbox(s, c.id);
}

/* --- many that sleep --- */

/* Prints them. The control plane's uid may lie in the instance's range. */
static size_t processes(const struct stack *s)
{
    AUTO_BUF struct buf text = BUF_INIT(1 << 20);
    size_t n = 0;
    char *rest;
    host_picture(s, &text);
    for (char *line = strtok_r(text.p, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest)) {
        if (strncmp(line, "process ", 8) != 0 || strstr(line, "torpor-control"))
            continue;
        n++;
        printf("    %s\n", line);
    }
    return n;
}

static void sleep_one(const struct stack *s, char ret_id[32])
{
    struct timed t;
    struct timed paused;
    timed_create(s, "sleepers", &t);
    timed_pause(s, t.id, &paused);
    memcpy(ret_id, t.id, 32);
}

void figure_paused(struct stack *s)
{
    static struct samples destroy;
    size_t n = count_setting("TORPOR_BENCH_PAUSED", PAUSED);
    char(*ids)[32] = calloc(n, sizeof *ids);
    long before;
    double each;
    size_t left;
    char first[32];
    if (!ids)
        exit(1);
    template_make(s, "sleepers");
    sleep_one(s, first); /* what the agent needs once */
    before = proc_kib(s->agent, "status", "VmRSS:");
    for (size_t i = 0; i < n; i++)
        sleep_one(s, ids[i]);
    left = processes(s);
    each = (double)(proc_kib(s->agent, "status", "VmRSS:") - before) / (double)n;
    report_value("processes of sandboxes that sleep", (double)left, "", "0", left == 0);
    report_value("memory of the agent for each sandbox that sleeps", each, "KiB", "nearly 0: <= 16",
        each <= GROWTH_KIB);
    printf("    of %zu, %.1f MiB resident before\n", n, (double)before / 1024);
    destroy.n = 0;
    for (size_t i = 0; i < n; i++) {
        int64_t began = clock_mono_us();
        delete_sandbox(s, ids[i]);
        if (i < SAMPLES_MAX)
            samples_add(&destroy, clock_mono_us() - began);
    }
    each = (double)samples_percentile(&destroy, 50) / 1000;
    report_value("destroy of a sandbox that sleeps, p50", each, "ms", "<= 50", each <= DESTROY_MS);
    printf("    p99 %.1f ms\n", (double)samples_percentile(&destroy, 99) / 1000);
    delete_sandbox(s, first);
    snapshot_delete(s, "sleepers");
    free(ids);
}
