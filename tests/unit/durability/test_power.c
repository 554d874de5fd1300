/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Nothing is lost when the power goes. Each scene is played once and all that it does to the data
 * folder is recorded (disk_model.h). Then the power is cut behind each operation, in many ways, and
 * a new agent must find every sandbox and template as it was before or as it is after what was
 * going on; what had been answered is so. A cut may also come while a new agent is still taking
 * over, after an earlier cut or after the agent was killed.
 *
 * make test draws some states of each scene by a seed, which it prints; TORPOR_CRASH_SEED draws the
 * same ones again. TORPOR_CRASH_FULL=1 (make crash-full) goes through all of them.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/io.h"
#include "disk_model.h"
#include "scenes.h"

enum {
    DRAWN = 90,        /* states of each scene */
    FULL_RANDOM = 10,  /* in full: random ones at each place */
    SEEN_MAX = 1 << 16 /* a power of 2 */
};

static bool full;
static uint64_t base_seed;
static unsigned long states; /* different ones that were tried */
static unsigned long operations;
static char where[256]; /* what is being tried, "" when nothing is */
static bool broken;     /* something has failed */

/* --- states that were tried already --- */

static uint64_t seen[SEEN_MAX];

static bool is_new(uint64_t hash)
{
    size_t i = hash % SEEN_MAX;
    for (size_t n = 0; n < SEEN_MAX / 2; n++, i = (i + 1) % SEEN_MAX) {
        if (seen[i] == hash)
            return false;
        if (seen[i] == 0) {
            seen[i] = hash;
            return true;
        }
    }
    return true;
}

/* --- one state --- */

struct play {
    const struct scene *s;
    struct fixture *f;
    char dir[96]; /* of the host that was recorded */
    struct disk_recording r;
    size_t first; /* operations before what is tried */
};

static unsigned answers_before(const struct play *p, size_t n)
{
    unsigned marks = 0;
    for (size_t i = p->first; i < n; i++)
        marks += p->r.ops[i].kind == DISK_MARK;
    return marks;
}

static void remove_tree(const char *path)
{
    struct err e = {0};
    assert_int_equal(io_remove_tree(AT_FDCWD, path, &e), 0);
}

/* The host is the folder `name`, empty, from now on. */
static void use_folder(struct fixture *f, const char *name)
{
    (void)snprintf(f->dir, sizeof f->dir, "%s/%s", f->root, name);
    remove_tree(f->dir);
    assert_int_equal(mkdir(f->dir, 0755), 0);
}

static void lose_power(struct fixture *f)
{
    leave_life(f);
    fakes_power_cut();
    remove_tree(f->run);
}

static struct outcome check_sandbox(struct fixture *f, const struct sandbox_id *id,
    const struct outcome *before, const struct outcome *after)
{
    struct found found;
    if (outcome_is(f, id, after))
        return *after;
    if (outcome_is(f, id, before))
        return *before;
    found = look(f, id);
    fail_msg("the sandbox is %s%s",
        found.matches ? sandbox_status_name(found.info.entry.state.status) : "gone",
        found.info.entry.owns_generation ? ", with a generation" : "");
    return *after;
}

static int check_template(struct fixture *f, const struct template_id *id, int before, int after)
{
    bool there = has_template(f, id);
    if (there != (before != 0) && there != (after != 0))
        fail_msg("a template is %s", there ? "there" : "gone");
    return !there ? 0 : after ? after : before;
}

/* Sleepers are what both say, but for the count. */
static void check_world(struct fixture *f, const struct world *before, const struct world *after)
{
    struct outcome sandbox = check_sandbox(f, &cast.id, &before->sandbox, &after->sandbox);
    struct outcome other = check_sandbox(f, &cast.other, &before->other, &after->other);
    int a = check_template(f, &cast.a, before->a, after->a);
    int b = check_template(f, &cast.b, before->b, after->b);
    outcome_check(f, &cast.id, &sandbox);
    outcome_check(f, &cast.other, &other);
    if (a)
        template_check(f, &cast.a, a);
    if (b)
        template_check(f, &cast.b, b);
}

/* A new agent finds what is in f->dir, and another one after it finds no more to do. */
static void check_state(struct fixture *f, const struct world *before, const struct world *after)
{
    uint64_t settled;
    f->warm = false; /* none is made here */
    open_life(f);
    assert_no_leaks(f->dir);
    lose_power(f);
    settled = disk_hash(f->dir);
    open_life(f);
    assert_true(disk_hash(f->dir) == settled);
    check_world(f, before, after);
    remove_everything(f);
    lose_power(f);
}

/* The power goes a second time, while an agent is taking over. */
static void cut_again(struct fixture *f, uint64_t *seed)
{
    struct disk_recording r;
    size_t first = disk_count();
    size_t n;
    f->warm = false;
    open_life(f);
    r = disk_recorded();
    lose_power(f);
    n = first + disk_random(seed) % (r.n - first + 1);
    use_folder(f, "again");
    (void)disk_make(&r, n, disk_random(seed) % DISK_VARIANTS, seed, f->dir);
    disk_free(&r);
}

enum how {
    ONCE,
    TWICE,  /* and once more while the next agent starts */
    KILLED, /* the agent is killed, then the power goes while the next one starts */
    HOWS
};

static void try_cut(struct play *p, size_t n, enum disk_variant v, enum how how, uint64_t seed)
{
    struct fixture *f = p->f;
    unsigned answers = answers_before(p, n);
    const struct world *before = &p->s->worlds[answers];
    const struct world *after = &p->s->worlds[p->s->ops[answers] ? answers + 1 : answers];
    uint64_t hash;
    (void)snprintf(where, sizeof where, "%s: cut %d behind operation %zu of %zu, variant %d",
        p->s->name, how, n, p->r.n, v);
    use_folder(f, "cut");
    hash = disk_make(&p->r, n, how == KILLED ? DISK_ALL : v, &seed, f->dir);
    if (how == TWICE)
        disk_record(f->dir);
    else if (how == KILLED)
        disk_record_on(&p->r, n, f->dir);
    if (how != ONCE) {
        cut_again(f, &seed);
        hash = disk_hash(f->dir);
    }
    if (is_new(hash + answers * 31)) {
        states++;
        check_state(f, before, after);
    }
    where[0] = '\0';
}

/* --- scenes --- */

static void play(struct play *p)
{
    struct err e = {0};
    fakes_reset();
    p->f = scene_host(p->s);
    memcpy(p->dir, p->f->dir, sizeof p->dir);
    disk_record(p->f->dir);
    open_life(p->f);
    p->s->prepare(p->f);
    p->first = disk_count();
    for (size_t i = 0; p->s->ops[i]; i++) {
        if (p->s->ops[i](p->f, &e) < 0)
            fail_msg("%s: %s", p->s->name, e.msg);
        disk_mark();
    }
    p->r = disk_recorded();
    lose_power(p->f);
}

static uint64_t seed_of(const struct play *p, uint64_t i)
{
    uint64_t seed = base_seed;
    for (const char *c = p->s->name; *c; c++)
        seed = seed * 31 + (unsigned char)*c;
    seed += i * 0x9e3779b97f4a7c15ull;
    (void)disk_random(&seed);
    return seed;
}

static void draw(struct play *p)
{
    size_t places = p->r.n - p->first + 1;
    for (uint64_t i = 0; i < DRAWN; i++) {
        uint64_t seed = seed_of(p, i);
        size_t n = p->first + disk_random(&seed) % places;
        enum how how = disk_random(&seed) % 8 < 6 ? ONCE : disk_random(&seed) % 2 ? TWICE : KILLED;
        try_cut(p, n, disk_random(&seed) % DISK_VARIANTS, how, seed);
    }
}

static void try_all(struct play *p)
{
    uint64_t i = 0;
    for (size_t n = p->first; n <= p->r.n; n++)
        for (int v = 0; v < DISK_RANDOM + FULL_RANDOM; v++) {
            enum disk_variant variant = v < DISK_RANDOM ? v : DISK_RANDOM;
            for (enum how how = ONCE; how < HOWS; how++)
                try_cut(p, n, variant, how, seed_of(p, i++));
        }
}

static void cut_power(void **state)
{
    struct play p = {.s = *state};
    unsigned long before = states;
    if (broken)
        skip();
    play(&p);
    memset(seen, 0, sizeof seen);
    operations += p.r.n - p.first;
    if (full)
        try_all(&p);
    else
        draw(&p);
    print_message(
        "# %s: %zu operations, %lu states\n", p.s->name, p.r.n - p.first, states - before);
    disk_free(&p.r);
    scene_host_free(p.f);
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

static void enough_states(void **state)
{
    print_message("# %lu operations, %lu states\n", operations, states);
    assert_true(states >= 500);
}

static void read_settings(void)
{
    const char *seed = getenv("TORPOR_CRASH_SEED");
    const char *all = getenv("TORPOR_CRASH_FULL");
    full = all && strcmp(all, "1") == 0;
    base_seed = seed ? strtoull(seed, NULL, 10) : (uint64_t)time(NULL);
    print_message("# TORPOR_CRASH_SEED=%llu\n", (unsigned long long)base_seed);
}

/* With arguments: only the scenes of that name. */
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
                .test_func = cut_power,
                .teardown_func = tell_where,
                .initial_state = (void *)(uintptr_t)&scenes[i]};
    if (argc < 2)
        tests[n++] = (struct CMUnitTest)cmocka_unit_test(enough_states);
    failed = _cmocka_run_group_tests("durability/power", tests, n, NULL, NULL);
    free(tests);
    return failed;
}
