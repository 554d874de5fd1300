/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Any call to the system may fail, once or from then on until what was asked for has been answered:
 * no space, an I/O error, no descriptors, no memory, a signal, or half of what was asked for. Then
 * that was done, or it was not and the answer says why; the sandbox goes on as it was, nothing that
 * it needs was touched, and the same again without a fault works. In the end nothing is left, also
 * no descriptor.
 *
 * make test draws some places of each scene by a seed, which it prints; TORPOR_CRASH_SEED draws the
 * same ones again. TORPOR_CRASH_FULL=1 (make crash-full) goes through all of them.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "agent/snap/generations.h"
#include "base/cleanup.h"
#include "base/io.h"
#include "calls.h"
#include "disk_model.h"
#include "scenes.h"

enum { DRAWN = 40, FILES_MAX = 256 };

/* A signal and a short write are nobody's business. */
static const struct kind {
    const char *name;
    int error;
    bool lasting;
    bool must_work;
    const char *calls;
} kinds[] = {
    {"ENOSPC", ENOSPC, false, false, NULL},
    {"ENOSPC from then on", ENOSPC, true, false, NULL},
    {"EIO", EIO, false, false, NULL},
    {"EIO from then on", EIO, true, false, NULL},
    {"EMFILE", EMFILE, false, false, NULL},
    {"EMFILE from then on", EMFILE, true, false, NULL},
    {"ENOMEM", ENOMEM, false, false, NULL},
    {"ENOMEM from then on", ENOMEM, true, false, NULL},
    {"EINTR", EINTR, false, true, " read pread write pwrite copy_file_range poll "},
    {"EINTR of a slow call", EINTR, false, false, " fsync ftruncate fstatvfs "},
    {"half", FAULT_SHORT, false, true, NULL},
};

static bool full;
static uint64_t base_seed;
static unsigned long sites;
static unsigned long runs;
static char where[256]; /* what is being tried, "" when nothing is */
static bool broken;     /* something has failed */

/* --- what was there --- */

struct file {
    char path[192];
    uint64_t hash;
};

struct files {
    struct file items[FILES_MAX];
    size_t n;
};

static void add_files(struct files *l, const struct fixture *f, const char *folder)
{
    char path[128];
    DIR *d;
    const struct dirent *entry;
    (void)snprintf(path, sizeof path, "%s/%s", f->dir, folder);
    d = opendir(path);
    while (d && (entry = readdir(d))) {
        struct file *one = &l->items[l->n];
        if (entry->d_name[0] == '.')
            continue;
        assert_true(++l->n < FILES_MAX);
        (void)snprintf(one->path, sizeof one->path, "%s/%.60s", path, entry->d_name);
        one->hash = disk_hash(one->path);
    }
    if (d)
        (void)closedir(d);
}

static const struct files *list_files(const struct fixture *f)
{
    static struct files l;
    l.n = 0;
    add_files(&l, f, "generations");
    add_files(&l, f, "blobs");
    return &l;
}

/* What was there is there, byte for byte. */
static void check_files(const struct files *before)
{
    for (size_t i = 0; i < before->n; i++)
        if (access(before->items[i].path, F_OK) < 0 ||
            disk_hash(before->items[i].path) != before->items[i].hash)
            fail_msg("%s was touched", before->items[i].path);
}

static size_t count_fds(void)
{
    DIR *d = opendir("/proc/self/fd");
    size_t n = 0;
    assert_non_null(d);
    while (readdir(d))
        n++;
    (void)closedir(d);
    return n;
}

/* --- one fault --- */

struct run {
    const struct scene *s;
    struct fixture *f;
    size_t op; /* the last one of the scene */
    enum sandbox_status before;
    bool was_there;
    int counted; /* in its memory */
};

static enum sandbox_status status_now(struct fixture *f, bool *ret_there)
{
    const struct found found = look(f, &cast.id);
    *ret_there = found.matches == 1;
    return found.info.entry.state.status;
}

static bool is_destroy(const struct run *r)
{
    return r->s->worlds[r->op].sandbox.fate != ABSENT &&
           r->s->worlds[r->op + 1].sandbox.fate == ABSENT;
}

static bool is_delete(const struct run *r)
{
    return r->s->worlds[r->op].a && !r->s->worlds[r->op + 1].a;
}

/* Who merges replaces what was there by something equal; a warm start that fails is forgotten. */
static bool may_touch(const struct run *r)
{
    return is_destroy(r) || is_delete(r) || r->counted > GENERATION_TIDY_BLOBS || r->s->warm;
}

/* What was asked for was not done: all is as it was. */
static void check_as_before(struct run *r)
{
    bool there;
    enum sandbox_status now = status_now(r->f, &there);
    if (is_destroy(r))
        return; /* half a destroy is ended by the next one */
    assert_true(there == r->was_there);
    if (!there)
        return;
    assert_string_equal(sandbox_status_name(now), sandbox_status_name(r->before));
    if (now == SANDBOX_RUNNING)
        assert_int_equal(count_in(r->f, &cast.id), ++r->counted);
}

/* It can be used, whatever it is; its memory is what it was last. */
static void check_usable(const struct run *r)
{
    bool there;
    enum sandbox_status now = status_now(r->f, &there);
    if (!there)
        return;
    if (now == SANDBOX_PAUSED)
        (void)resume_ok(r->f, &cast.id);
    else
        assert_int_equal(now, SANDBOX_RUNNING);
    assert_int_equal(count_in(r->f, &cast.id), r->counted + 1);
    (void)pause_ok(r->f, &cast.id);
    (void)resume_ok(r->f, &cast.id);
    assert_int_equal(count_in(r->f, &cast.id), r->counted + 2);
}

static void check_host(struct fixture *f)
{
    int running = 0;
    struct found found = look(f, &cast.id);
    running += found.matches && found.info.entry.state.status == SANDBOX_RUNNING;
    found = look(f, &cast.other);
    running += found.matches && found.info.entry.state.status == SANDBOX_RUNNING;
    assert_int_equal(fakes.vcpus_stand, 0);
    if (f->warm)
        return; /* one may be being made */
    assert_int_equal(fakes.slots_taken, running);
    assert_int_equal(fakes.vmms_running, running);
}

static void begin(struct run *r)
{
    struct err e = {0};
    r->f = scene_host(r->s);
    open_life(r->f);
    r->s->prepare(r->f);
    for (r->op = 0; r->s->ops[r->op + 1]; r->op++)
        if (r->s->ops[r->op](r->f, &e) < 0)
            fail_msg("%s", e.msg);
    r->before = status_now(r->f, &r->was_there);
}

/* What the fault kept from being removed, the next agent removes. */
static bool may_leave(const struct fault *fault)
{
    static const char calls[] = " unlink open rename fdopendir fsync malloc calloc reallocarray ";
    char word[FAULT_SITE_MAX + 2];
    (void)snprintf(word, sizeof word, " %s ", fault->site);
    return fault->lasting || strstr(calls, word);
}

static void end(struct run *r, const struct fault *fault, size_t fds)
{
    struct err e = {0};
    if (may_leave(fault)) {
        leave_life(r->f);
        open_life(r->f);
    }
    remove_everything(r->f);
    if (life_close(r->f->life, &e) < 0)
        fail_msg("close: %s", e.msg);
    assert_int_equal(count_fds(), fds);
    scene_host_free(r->f);
}

/* A create that could not even be taken back: the next agent has it, or takes it back. */
static void start_afresh(struct fixture *f)
{
    leave_life(f);
    open_life(f);
    destroy_ok(f, &cast.id);
}

/* Returns how many calls there were that it could have befallen. */
static int run_with(const struct scene *s, const struct kind *k, int at)
{
    struct run r = {.s = s, .counted = s->counted};
    struct fault fault = {.error = k->error, .lasting = k->lasting, .at = at, .calls = k->calls};
    const struct files *before;
    size_t fds;
    struct err e = {0};
    int rc;
    (void)snprintf(where, sizeof where, "%s: %s at %d", s->name, k->name, at);
    fakes_reset();
    fds = count_fds();
    begin(&r);
    before = list_files(r.f);
    faults_begin(&fault);
    rc = s->ops[r.op](r.f, &e);
    fault = faults_end();
    (void)snprintf(where, sizeof where, "%s: %s at %d, of %s", s->name, k->name, at, fault.site);
    /* What may not be on the disk is never said to be. Merges and warm starts may come to nothing.
     */
    if (fault.broke_data && rc == 0 && r.counted <= GENERATION_TIDY_BLOBS && !r.s->warm)
        fail_msg("an fsync failed, and nobody was told");
    if (rc < 0) {
        assert_true(e.kind != ERR_NONE && e.msg[0]);
        if (k->must_work)
            fail_msg("%s", e.msg);
        if (!may_touch(&r))
            check_files(before);
        check_as_before(&r);
        check_host(r.f);
        if (fault.lasting && !r.was_there)
            start_afresh(r.f);
        e = (struct err){0};
        if (s->ops[r.op](r.f, &e) < 0)
            fail_msg("once more: %s", e.msg);
    }
    check_host(r.f);
    check_usable(&r);
    end(&r, &fault, fds);
    where[0] = '\0';
    runs++;
    return fault.seen;
}

/* --- scenes --- */

static uint64_t seed_of(const struct scene *s)
{
    uint64_t seed = base_seed;
    for (const char *c = s->name; *c; c++)
        seed = seed * 31 + (unsigned char)*c;
    return seed;
}

static void fail_calls(void **state)
{
    const struct scene *s = *state;
    int seen[ARRAY_LEN(kinds)];
    uint64_t seed = seed_of(s);
    unsigned long all = 0;
    if (broken)
        skip();
    for (size_t k = 0; k < ARRAY_LEN(kinds); k++) {
        seen[k] = run_with(s, &kinds[k], INT_MAX);
        all += (unsigned long)seen[k];
    }
    if (full) {
        for (size_t k = 0; k < ARRAY_LEN(kinds); k++)
            for (int at = 1; at <= seen[k]; at++)
                (void)run_with(s, &kinds[k], at);
    }
    for (int i = 0; !full && i < DRAWN; i++) {
        size_t k = disk_random(&seed) % ARRAY_LEN(kinds);
        if (seen[k] > 0)
            (void)run_with(s, &kinds[k], 1 + (int)(disk_random(&seed) % (unsigned)seen[k]));
    }
    sites += all;
    print_message("# %s: %lu places\n", s->name, all);
}

/* After a failure its agent is still there: no other scene is played. */
static int tell_where(void **state)
{
    if (!where[0])
        return 0;
    print_message("# TORPOR_CRASH_SEED=%llu, %s\n", (unsigned long long)base_seed, where);
    where[0] = '\0';
    broken = true;
    return 0;
}

static void enough_places(void **state)
{
    print_message("# %lu places, %lu runs\n", sites, runs);
    assert_true(runs >= 500);
}

static void read_settings(void)
{
    const char *seed = getenv("TORPOR_CRASH_SEED");
    const char *all = getenv("TORPOR_CRASH_FULL");
    full = all && strcmp(all, "1") == 0;
    base_seed = seed ? strtoull(seed, NULL, 10) : (uint64_t)time(NULL);
    print_message("# TORPOR_CRASH_SEED=%llu\n", (unsigned long long)base_seed);
}

/* With an argument: only the scene of that name. */
int main(int argc, char **argv)
{
    struct CMUnitTest *tests = calloc(n_scenes + 1, sizeof *tests);
    size_t n = 0;
    int failed;
    no_fsync = true;
    read_settings();
    for (size_t i = 0; i < n_scenes; i++)
        if (argc < 2 || strcmp(argv[1], scenes[i].name) == 0)
            tests[n++] = (struct CMUnitTest){.name = scenes[i].name,
                .test_func = fail_calls,
                .teardown_func = tell_where,
                .initial_state = (void *)(uintptr_t)&scenes[i]};
    if (argc < 2)
        tests[n++] = (struct CMUnitTest)cmocka_unit_test(enough_places);
    failed = _cmocka_run_group_tests("durability/faults", tests, n, NULL, NULL);
    free(tests);
    return failed;
}
