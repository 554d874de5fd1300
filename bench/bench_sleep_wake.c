/* SPDX-License-Identifier: Apache-2.0 */
/* How fast a machine comes back: resumes, warm creates, spawns, page faults. */
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/io.h"
#include "bench_sleep.h"
#include "bench_sleep_raw.h"

enum { WARM_MS = 120000, SPAWN_ROUNDS = 5, SPAWNS = RAW_SLOTS, CLONES = 3 };

static const char run_true[] = "{\"cmd\":\"true\"}";
static const char *const argv_true[] = {"true", NULL};

static struct samples ours;
static struct samples raw;
static struct samples ours_exec;
static struct samples raw_execs;
static struct phase_samples phases;

static void forget(void)
{
    ours.n = raw.n = ours_exec.n = raw_execs.n = 0;
}

/* One raw restore; what it took until the first answer, and with one exec. */
static void restore_raw(const struct raw_image *image, int64_t *ret_answer, int64_t *ret_exec)
{
    struct raw_machine m;
    int64_t began = clock_mono_us();
    raw_restore(image, 0, &m);
    raw_await(&m);
    *ret_answer = clock_mono_us() - began;
    raw_exec(&m, argv_true);
    *ret_exec = clock_mono_us() - began;
    raw_end(&m);
}

/* --- resume --- */

static void cool_stack(const struct stack *s)
{
    static const char *const folders[] = {
        "blobs", "generations", "hints", "vmm", "sandboxes", "images/minimal"};
    for (size_t i = 0; i < ARRAY_LEN(folders); i++) {
        char path[192];
        (void)snprintf(path, sizeof path, "%s/%s", s->dir, folders[i]);
        cool_tree(path);
    }
}

/* The API's answer comes behind the init handshake, which is envd's first answer. */
static void resume_once(
    const struct stack *s, const struct raw_image *image, const char *id, bool cold)
{
    struct timed t;
    struct timed paused;
    int64_t answer;
    int64_t exec;
    if (cold)
        raw_image_cool(image);
    restore_raw(image, &answer, &exec);
    samples_add(&raw, answer);
    samples_add(&raw_execs, exec);
    if (cold)
        cool_stack(s);
    timed_resume(s, id, &t);
    samples_add(&ours, t.us);
    samples_add(&ours_exec, t.us + timed_exec(s, id, run_true));
    phases_add(&phases, t.timing);
    timed_pause(s, id, &paused);
}

static void resume_runs(
    const struct stack *s, const struct raw_image *image, const char *id, bool cold)
{
    resume_once(s, image, id, cold);
    forget();
    phases_forget(&phases);
    for (size_t i = 0; i < sleep_runs(); i++)
        resume_once(s, image, id, cold);
    report_ratio(cold ? "resume to 200 with a cold page cache, against a raw restore to the first "
                        "answer of envd"
                      : "resume to 200, against a raw restore to the first answer of envd",
        &ours, &raw, 1.25);
    phases_print("ours", &phases);
    report_beside("    and to the first exec, both", &ours_exec, &raw_execs);
}

void figure_resume(struct stack *s)
{
    struct raw_image image;
    struct timed t;
    struct timed paused;
    raw_image_make(&image, "resume", SLEEP_MEMORY_MB);
    timed_create(s, "minimal", &t);
    (void)timed_exec(s, t.id, run_true);
    timed_pause(s, t.id, &paused);
    resume_runs(s, &image, t.id, /* cold= */ false);
    resume_runs(s, &image, t.id, /* cold= */ true);
    delete_sandbox(s, t.id);
}

/* --- warm create --- */

/* Waits until something.json has been renamed into the folder. */
static bool await_file(int inotify, int64_t deadline)
{
    char events[4096] __attribute__((aligned(8)));
    struct err e = {0};
    while (io_wait(inotify, POLLIN, deadline, &e) > 0) {
        ssize_t n = read(inotify, events, sizeof events);
        for (ssize_t at = 0; at < n;) {
            const struct inotify_event *one = (const void *)(events + at);
            if (one->len > 5 && strstr(one->name, ".json"))
                return true;
            at += (ssize_t)(sizeof *one + one->len);
        }
    }
    return false;
}

/* Two creates of a size make the agent prepare a warm start of it. */
static bool become_warm(const struct stack *s)
{
    char path[160];
    AUTO_CLOSE int inotify = inotify_init1(IN_CLOEXEC);
    (void)snprintf(path, sizeof path, "%s/warm", s->dir);
    if (inotify < 0 || inotify_add_watch(inotify, path, IN_MOVED_TO) < 0)
        return false;
    for (int i = 0; i < 2; i++) {
        struct timed t;
        timed_create(s, "minimal", &t);
        delete_sandbox(s, t.id);
    }
    return await_file(inotify, deadline_in_ms(WARM_MS));
}

static int64_t create_and_exec(const struct stack *s, const char *template, int64_t *ret_create)
{
    struct timed t;
    int64_t took;
    timed_create(s, template, &t);
    took = t.us + timed_exec(s, t.id, run_true);
    delete_sandbox(s, t.id);
    if (ret_create)
        *ret_create = t.us;
    return took;
}

static void create_runs(const struct stack *s)
{
    struct raw_image image;
    int64_t answer;
    int64_t exec;
    int64_t created;
    raw_image_make(&image, "create", SLEEP_MEMORY_MB);
    forget();
    for (size_t i = 0; i < sleep_runs() + 1; i++) {
        restore_raw(&image, &answer, &exec);
        samples_add(&raw_execs, exec);
        samples_add(&raw, answer);
        samples_add(&ours_exec, create_and_exec(s, "minimal", &created));
        samples_add(&ours, created);
        if (i == 0)
            forget();
    }
    report_ratio("warm create to 201 and the first exec, against a raw restore and one exec",
        &ours_exec, &raw_execs, 1.4);
    report_beside("    without the exec, both", &ours, &raw);
}

void figure_create(struct stack *s)
{
    s->warm = true;
    agent_again(s);
    if (become_warm(s))
        create_runs(s);
    else
        report_unmeasured("warm create", "no warm start was made in two minutes");
    s->warm = false;
    agent_again(s);
}

/* --- userfaultfd --- */

/* A Torpor with that setting and a sandbox that sleeps in it. Its first resume records the working
 * set, which each pause hands on. */
static void prepare_memory(struct stack *s, const char *memory, char ret_id[32])
{
    struct timed t;
    struct timed other;
    s->memory = memory;
    agent_again(s);
    timed_create(s, "minimal", &t);
    memcpy(ret_id, t.id, sizeof t.id);
    (void)timed_exec(s, t.id, run_true);
    timed_pause(s, t.id, &other);
    timed_resume(s, t.id, &other);
    (void)timed_exec(s, t.id, run_true);
    timed_pause(s, t.id, &other);
}

/* A resume, and with an exec. */
static void wake_and_sleep(
    const struct stack *s, const char *id, struct samples *resumed, struct samples *execs)
{
    struct timed t;
    struct timed other;
    timed_resume(s, id, &t);
    samples_add(resumed, t.us);
    samples_add(execs, t.us + timed_exec(s, id, run_true));
    if (resumed == &ours)
        phases_add(&phases, t.timing);
    timed_pause(s, id, &other);
}

static void uffd_runs(const struct stack *files, const char *file_id, const struct stack *faults,
    const char *fault_id)
{
    forget();
    phases_forget(&phases);
    for (size_t i = 0; i < sleep_runs(); i++) {
        wake_and_sleep(files, file_id, &raw, &raw_execs);
        wake_and_sleep(faults, fault_id, &ours, &ours_exec);
    }
    report_ratio("resume to 200 by userfaultfd with a recorded working set, against (raw) ours by "
                 "the private mapping",
        &ours, &raw, 1.2);
    phases_print("userfaultfd", &phases);
    report_beside("    and to the first exec, both", &ours_exec, &raw_execs);
}

void figure_uffd(struct stack *s)
{
    const char *name = "resume by userfaultfd";
    static struct stack second; /* two settings in turns: two Torpors */
    char path[160];
    char file_id[32];
    char fault_id[32];
    struct tree hints;
    if (access("/dev/userfaultfd", R_OK | W_OK) < 0) {
        report_unmeasured(name, "no /dev/userfaultfd");
        return;
    }
    stack_start(&second);
    prepare_memory(s, "file", file_id);
    prepare_memory(&second, "uffd", fault_id);
    (void)snprintf(path, sizeof path, "%s/hints", second.dir);
    tree_measure(path, &hints);
    if (hints.files == 0)
        report_unmeasured(name, "no working set was recorded");
    else
        uffd_runs(s, file_id, &second, fault_id);
    stack_stop(&second);
    delete_sandbox(s, file_id);
    s->memory = NULL;
    agent_again(s);
}

/* --- many at once --- */

struct spawn {
    const struct stack *stack;
    const struct raw_image *image;
    unsigned slot;
    struct raw_machine machine;
    struct timed t;
};

static void *spawn_ours(void *arg)
{
    struct spawn *w = arg;
    timed_create(w->stack, "spawns", &w->t);
    return NULL;
}

static void *spawn_raw(void *arg)
{
    struct spawn *w = arg;
    raw_restore(w->image, w->slot, &w->machine);
    raw_await(&w->machine);
    return NULL;
}

/* Until the last has answered. */
static int64_t all_at_once(void *(*run)(void *), struct spawn w[SPAWNS])
{
    pthread_t t[SPAWNS];
    int64_t began = clock_mono_us();
    for (int i = 0; i < SPAWNS; i++)
        if (pthread_create(&t[i], NULL, run, &w[i]) != 0)
            exit(1);
    for (int i = 0; i < SPAWNS; i++)
        (void)pthread_join(t[i], NULL);
    return clock_mono_us() - began;
}

static void spawn_round(const struct stack *s, const struct raw_image *image)
{
    static struct spawn w[SPAWNS];
    for (unsigned i = 0; i < SPAWNS; i++)
        w[i] = (struct spawn){.stack = s, .image = image, .slot = i};
    samples_add(&raw, all_at_once(spawn_raw, w));
    for (int i = 0; i < SPAWNS; i++)
        raw_end(&w[i].machine);
    samples_add(&ours, all_at_once(spawn_ours, w));
    for (int i = 0; i < SPAWNS; i++)
        delete_sandbox(s, w[i].t.id);
}

void figure_spawns(struct stack *s)
{
    struct raw_image image;
    raw_image_make(&image, "spawns", SLEEP_MEMORY_MB);
    template_make(s, "spawns");
    spawn_round(s, &image);
    forget();
    for (int i = 0; i < SPAWN_ROUNDS; i++)
        spawn_round(s, &image);
    report_ratio("10 spawns from one template at once, all answer, against 10 raw restores", &ours,
        &raw, 1.5);
    snapshot_delete(s, "spawns");
}

/* --- memory --- */

static long private_kib(pid_t pid)
{
    return proc_kib(pid, "smaps_rollup", "Private_Clean:") +
           proc_kib(pid, "smaps_rollup", "Private_Dirty:");
}

/* Several, so that pages of the template that more than one reads count as shared. */
void figure_private(struct stack *s)
{
    char ids[CLONES][32];
    double worst = 0;
    double worst_shim = 0;
    template_make(s, "private");
    for (int i = 0; i < CLONES; i++) {
        struct timed t;
        timed_create(s, "private", &t);
        (void)timed_exec(s, t.id, run_true);
        memcpy(ids[i], t.id, sizeof ids[i]);
    }
    for (int i = 0; i < CLONES; i++) {
        pid_t vmm = find_vmm(ids[i]);
        double shim = (double)private_kib(parent_of(vmm)) / 1024;
        double all = (double)private_kib(vmm) / 1024 + shim;
        if (all > worst) {
            worst = all;
            worst_shim = shim;
        }
    }
    report_value(
        "private memory of an idle clone of a 512 MiB template, shim and VMM, largest of 3", worst,
        "MiB", "<= 40", worst > 0 && worst <= 40);
    printf("    of it the shim's %.2f MiB\n", worst_shim);
    for (int i = 0; i < CLONES; i++)
        delete_sandbox(s, ids[i]);
    snapshot_delete(s, "private");
}
