/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The agent dies at every step of every operation, with and without the power. A forked process is
 * the agent that dies: it stops at the crash point without tidying anything up; what it left is in
 * the folders and in the faked host's memory, and a new agent takes it over.
 */
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "fixture.h"

enum { AT_CRASH_POINT = 7, RAN_THROUGH = 8, STEPS_MAX = 40 };

/* What the agent that dies leaves for the test, in memory that both have. */
static struct last_words {
    int steps_left; /* before it dies */
    char where[64];
    enum sandbox_status status; /* as everybody could see it then */
    enum sandbox_reason reason;
    uint64_t revision;
    bool had_sandbox;
} * last;

static struct fixture *dying;
static struct sandbox_id dying_id;

static void die(const char *operation, const char *step)
{
    struct found found = {.id = &dying_id};
    struct life_summary summary;
    struct err e = {0};
    if (--last->steps_left > 0)
        return;
    (void)snprintf(last->where, sizeof last->where, "%s/%s", operation, step);
    (void)life_list(dying->life, 0, find_each, &found, &summary, &e);
    last->had_sandbox = found.matches == 1;
    last->status = found.info.entry.state.status;
    last->reason = found.info.entry.state.reason;
    last->revision = found.info.entry.state.revision;
    _exit(AT_CRASH_POINT);
}

/* One operation: what is there before, and what the agent that dies is asked. */
struct scene {
    const char *name;
    void (*prepare)(struct fixture *f, struct sandbox_id *id);
    void (*act)(struct fixture *f, const struct sandbox_id *id);
    bool may_vanish; /* nobody was told of it */
    int count; /* that its memory has in the end; what was since its last generation is lost */
    int count_of_last; /* likewise, restored from its last generation; 0: it has none */
};

static struct snapshot scene_snapshot;

static void prepare_running(struct fixture *f, struct sandbox_id *id)
{
    *id = create_ok(f);
    assert_int_equal(count_in(f, id), 1);
}

/* Restored once; its memory has gone on since. */
static void prepare_woken(struct fixture *f, struct sandbox_id *id)
{
    prepare_running(f, id);
    (void)pause_ok(f, id);
    (void)resume_ok(f, id);
    assert_int_equal(count_in(f, id), 2);
}

static void prepare_paused(struct fixture *f, struct sandbox_id *id)
{
    prepare_woken(f, id);
    (void)pause_ok(f, id);
}

static void prepare_stopped(struct fixture *f, struct sandbox_id *id)
{
    prepare_woken(f, id);
    fakes_forget_stops();
    fakes_kill_newest_vmm();
    assert_int_equal(fakes_wait_stop(), 0);
}

static void prepare_snapshot(struct fixture *f, struct sandbox_id *id)
{
    struct sandbox_id source;
    prepare_running(f, &source);
    scene_snapshot = snapshot_ok(f, &source);
    destroy_ok(f, &source);
    sandbox_id_new(id);
}

static void act_pause(struct fixture *f, const struct sandbox_id *id)
{
    (void)pause_kind(f, id);
}

static void act_resume(struct fixture *f, const struct sandbox_id *id)
{
    const struct life_resume r = resume_request(id);
    (void)resume_kind(f, &r);
}

static void act_resume_last(struct fixture *f, const struct sandbox_id *id)
{
    struct life_resume r = resume_request(id);
    r.from_last = true;
    (void)resume_kind(f, &r);
}

static void act_snapshot(struct fixture *f, const struct sandbox_id *id)
{
    (void)snapshot_kind(f, id);
}

static void act_two_snapshots(struct fixture *f, const struct sandbox_id *id)
{
    (void)snapshot_kind(f, id);
    (void)snapshot_kind(f, id);
}

static void act_failed_resume(struct fixture *f, const struct sandbox_id *id)
{
    fakes.fail = FAKE_WAKE;
    act_resume(f, id);
}

static void act_failed_resume_last(struct fixture *f, const struct sandbox_id *id)
{
    fakes.fail = FAKE_WAKE;
    act_resume_last(f, id);
}

static void act_failed_pause(struct fixture *f, const struct sandbox_id *id)
{
    fakes.fail = FAKE_SAVE_MEMORY;
    act_pause(f, id);
}

static void act_destroy(struct fixture *f, const struct sandbox_id *id)
{
    struct err e = {0};
    uint64_t revision;
    (void)life_destroy(f->life, id, 0, &revision, &e);
}

static void act_create(struct fixture *f, const struct sandbox_id *id)
{
    struct life_create c = request();
    struct life_info info;
    struct err e = {0};
    c.id = *id;
    (void)life_create(f->life, &c, &info, &e);
}

static void act_spawn(struct fixture *f, const struct sandbox_id *id)
{
    const struct life_create c = {.id = *id, .snapshot_id = slice_cstr(scene_snapshot.id.text)};
    struct life_info info;
    struct err e = {0};
    (void)life_create(f->life, &c, &info, &e);
}

static void prepare_nothing(struct fixture *f, struct sandbox_id *id)
{
    sandbox_id_new(id);
}

static const struct scene scenes[] = {
    {"create", prepare_nothing, act_create, .may_vanish = true, .count = 0},
    {"spawn", prepare_snapshot, act_spawn, .may_vanish = true, .count = 1},
    {"first pause", prepare_running, act_pause, .count = 1},
    {"pause", prepare_woken, act_pause, .count = 2, .count_of_last = 1},
    {"failed pause", prepare_woken, act_failed_pause, .count = 2, .count_of_last = 1},
    {"resume", prepare_paused, act_resume, .count = 2, .count_of_last = 2},
    {"failed resume", prepare_paused, act_failed_resume, .count = 2, .count_of_last = 2},
    {"restore", prepare_stopped, act_resume_last, .count = 1, .count_of_last = 1},
    {"failed restore", prepare_stopped, act_failed_resume_last, .count = 1, .count_of_last = 1},
    {"first snapshot", prepare_running, act_snapshot, .count = 1},
    {"snapshots", prepare_woken, act_two_snapshots, .count = 2, .count_of_last = 1},
    {"destroy", prepare_woken, act_destroy, .may_vanish = true, .count = 2, .count_of_last = 1},
    {"destroy of a paused one", prepare_paused, act_destroy, .may_vanish = true, .count = 2,
        .count_of_last = 2},
};

/* Returns false when the operation has fewer steps than that. No thread lives here meanwhile. */
static bool die_at(struct fixture *f, const struct scene *s, const struct sandbox_id *id, int step)
{
    int status = 0;
    pid_t pid;
    *last = (struct last_words){.steps_left = step};
    pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        fakes_after_crash();
        open_life(f);
        dying = f;
        dying_id = *id;
        on_crash_point = die;
        s->act(f, id);
        _exit(RAN_THROUGH);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    if (WEXITSTATUS(status) == RAN_THROUGH)
        return false;
    assert_int_equal(WEXITSTATUS(status), AT_CRASH_POINT);
    return true;
}

static void check_revision(const struct found *now, bool power)
{
    const struct machine_state *m = &now->info.entry.state;
    if (!last->had_sandbox || last->reason == REASON_DESTROYED)
        return; /* whoever has seen that it is destroyed destroys it again */
    if (power && last->status == SANDBOX_RESUMING)
        return; /* that it was resuming was never made durable */
    if (m->revision > last->revision ||
        (m->revision == last->revision && m->status == last->status))
        return;
    fail_msg("revision %llu %s was seen, now it is %llu %s", (unsigned long long)last->revision,
        sandbox_status_name(last->status), (unsigned long long)m->revision,
        sandbox_status_name(m->status));
}

/* It runs, or can be made to; its memory is one of those that it may have. */
static void check_usable(struct fixture *f, const struct scene *s, const struct sandbox_id *id)
{
    struct life_resume r = resume_request(id);
    struct found found = look(f, id);
    int count = s->count;
    switch (found.info.entry.state.status) {
    case SANDBOX_RUNNING:
        break;
    case SANDBOX_PAUSED:
        (void)resume_ok(f, id);
        break;
    case SANDBOX_STOPPED:
        r.from_last = found.info.entry.owns_generation != 0;
        r.disk_only = !r.from_last;
        assert_int_equal(r.from_last, s->count_of_last != 0);
        count = r.from_last ? s->count_of_last : 0;
        assert_int_equal(resume_kind(f, &r), ERR_NONE);
        break;
    default:
        fail_msg("it is %s", sandbox_status_name(found.info.entry.state.status));
    }
    assert_int_equal(count_in(f, id), count + 1);
    (void)pause_ok(f, id);
    (void)resume_ok(f, id);
    assert_int_equal(count_in(f, id), count + 2);
}

static void remove_templates(struct fixture *f)
{
    char path[256];
    struct template_id id;
    const struct dirent *entry;
    DIR *d;
    (void)snprintf(path, sizeof path, "%s/templates", f->dir);
    d = opendir(path);
    assert_non_null(d);
    while ((entry = readdir(d)))
        if (strlen(entry->d_name) > 5 &&
            template_id_parse(slice_of(entry->d_name, strlen(entry->d_name) - 5), &id))
            delete_snapshot_ok(f, &id);
    (void)closedir(d);
}

static bool crash_once(const struct scene *s, int step, bool power)
{
    struct fixture *f;
    struct sandbox_id id;
    struct found found;
    bool died;
    assert_int_equal(fixture_setup((void **)&f), 0);
    s->prepare(f, &id);
    leave_life(f);
    died = die_at(f, s, &id, step);
    fakes_after_crash();
    if (power) {
        fakes_power_cut();
        remove_run_files(f);
    }
    print_message("# %s, step %d at %s%s\n", s->name, step, last->where, power ? ", power" : "");
    open_life(f);
    found = look(f, &id);
    assert_true(found.matches == 1 || s->may_vanish);
    if (found.matches == 1 && died) {
        check_revision(&found, power);
        check_usable(f, s, &id);
    }
    destroy_ok(f, &id);
    remove_templates(f);
    assert_nothing_left(f, &id);
    assert_int_equal(fixture_teardown((void **)&f), 0);
    return died;
}

static void sweep(void **state)
{
    const struct scene *s = *state;
    int step = 1;
    while (crash_once(s, step, /* power= */ false) && crash_once(s, step, /* power= */ true))
        assert_true(++step < STEPS_MAX);
    assert_true(step > 3);
}

/* However often: what was seen last is older than what is said after a power cut. */
static void agents_that_die_in_a_row_lose_no_revision(void **state)
{
    static const struct scene pause = {.prepare = prepare_woken, .act = act_pause};
    struct fixture *f;
    struct sandbox_id id;
    uint64_t seen;
    assert_int_equal(fixture_setup((void **)&f), 0);
    pause.prepare(f, &id);
    for (int i = 0; i < 6; i++) {
        leave_life(f);
        assert_true(die_at(f, &pause, &id, 2));
        fakes_after_crash();
        open_life(f);
    }
    seen = look(f, &id).info.entry.state.revision;
    leave_life(f);
    fakes_power_cut();
    remove_run_files(f);
    open_life(f);
    assert_true(look(f, &id).info.entry.state.revision > seen);
    destroy_ok(f, &id);
    assert_nothing_left(f, &id);
    assert_int_equal(fixture_teardown((void **)&f), 0);
}

int main(void)
{
    struct CMUnitTest tests[ARRAY_LEN(scenes) + 1];
    no_fsync = true;
    last = mmap(NULL, sizeof *last, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    for (size_t i = 0; i < ARRAY_LEN(scenes); i++)
        tests[i] = (struct CMUnitTest){
            .name = scenes[i].name, .test_func = sweep, .initial_state = (void *)&scenes[i]};
    tests[ARRAY_LEN(scenes)] =
        (struct CMUnitTest)cmocka_unit_test(agents_that_die_in_a_row_lose_no_revision);
    return cmocka_run_group_tests_name("life/crash", tests, NULL, NULL);
}
