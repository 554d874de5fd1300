/* SPDX-License-Identifier: Apache-2.0 */
/* Many running sandboxes: what they cost the host's programs, and an agent that is killed. */
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/io.h"
#include "bench.h"

enum { RESIDENT_SANDBOXES = 20, RECOVER_SANDBOXES = 50, CREATORS = 4 };

struct fleet {
    struct stack *stack;
    char ids[RECOVER_SANDBOXES][32];
    size_t next; /* to be created; under lock */
    size_t wanted;
    int failed;
    pthread_mutex_t lock;
};

static void *create_some(void *arg)
{
    struct fleet *f = arg;
    for (;;) {
        size_t i;
        (void)pthread_mutex_lock(&f->lock);
        i = f->next < f->wanted ? f->next++ : f->wanted;
        (void)pthread_mutex_unlock(&f->lock);
        if (i == f->wanted)
            return NULL;
        create_sandbox(f->stack, "{\"memory_mb\":128}", f->ids[i]);
    }
}

static void grow(struct fleet *f, size_t wanted)
{
    pthread_t t[CREATORS];
    f->wanted = wanted;
    for (int i = 0; i < CREATORS; i++)
        if (pthread_create(&t[i], NULL, create_some, f) != 0)
            exit(1);
    for (int i = 0; i < CREATORS; i++)
        (void)pthread_join(t[i], NULL);
}

long proc_kib(pid_t pid, const char *file, const char *key)
{
    char path[64];
    AUTO_BUF struct buf text = BUF_INIT(1 << 20);
    struct err e = {0};
    long sum = 0;
    (void)snprintf(path, sizeof path, "/proc/%d/%s", (int)pid, file);
    if (io_read_file(AT_FDCWD, path, &text, &e) < 0 || !text.p)
        return -1;
    for (const char *p = strstr(text.p, key); p; p = strstr(p + 1, key))
        sum += strtol(p + strlen(key), NULL, 10);
    return sum;
}

static void resident(const char *name, pid_t pid)
{
    double mib = (double)proc_kib(pid, "status", "VmRSS:") / 1024;
    report_value(name, mib, "MiB", "<= 15", mib > 0 && mib <= 15);
}

static void shim_private(const struct fleet *f)
{
    long worst = 0;
    for (size_t i = 0; i < f->next; i++) {
        pid_t shim = parent_of(find_vmm(f->ids[i]));
        long kib = proc_kib(shim, "smaps_rollup", "Private_Clean:") +
                   proc_kib(shim, "smaps_rollup", "Private_Dirty:");
        if (kib > worst)
            worst = kib;
    }
    report_value("shim private memory, the largest of 20", (double)worst, "KiB", "<= 256",
        worst > 0 && worst <= 256);
}

/* From kill -9 until the last sandbox has answered an exec. */
static void recover(struct fleet *f)
{
    int64_t began = clock_mono_us();
    double seconds;
    (void)stack_end(&f->stack->agent, SIGKILL);
    stack_start_agent(f->stack);
    for (size_t i = 0; i < f->next; i++) {
        struct reply r = {0};
        exec_in(f->stack, f->ids[i], "{\"cmd\":\"true\"}", &r);
        reply_done(&r);
    }
    seconds = (double)(clock_mono_us() - began) / 1e6;
    report_value("agent back with 50 running sandboxes after kill -9, exec answered by all",
        seconds, "s", "<= 5", seconds <= 5);
}

void bench_recover(struct stack *s)
{
    static struct fleet f;
    f.stack = s;
    (void)stack_end(&s->agent, SIGTERM);
    s->vcpus_per_core = "64"; /* room for all on any machine */
    stack_start_agent(s);
    (void)pthread_mutex_init(&f.lock, NULL);
    grow(&f, RESIDENT_SANDBOXES);
    resident("torpor-agent resident with 20 running sandboxes", s->agent);
    resident("torpor-control resident with 20 running sandboxes", s->control);
    shim_private(&f);
    grow(&f, RECOVER_SANDBOXES);
    recover(&f);
    for (size_t i = 0; i < f.next; i++)
        delete_sandbox(s, f.ids[i]);
}
