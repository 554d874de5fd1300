/* SPDX-License-Identifier: Apache-2.0 */
/* Auto-pause: who is put to sleep, what breaks it off, what a failure costs. */
#include <pthread.h>
#include <semaphore.h>
#include <string.h>

#include "agent/life/life_int.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "fixture.h"

/* As if nobody had used it for so long. */
static void make_idle(struct fixture *f, const struct sandbox_id *id, int32_t timeout_sec)
{
    struct err e = {0};
    struct sandbox *s = registry_find(f->life, id, &e);
    assert_non_null(s);
    {
        MUTEX_GUARD(&f->life->lock);
        s->entry.timeout_sec = timeout_sec;
        s->entry.last_active_at_ms = clock_real_ms() - 3600 * 1000LL;
    }
    sandbox_unref(s);
}

/* Waits until the sandbox is in that state; the reaper looks every two seconds. */
static void wait_state(struct fixture *f, const struct sandbox_id *id, enum sandbox_status status)
{
    int64_t deadline = deadline_in_ms(20000);
    for (;;) {
        struct life_summary summary = {0};
        struct found found = {.id = id};
        struct err e = {0};
        assert_int_equal(life_list(f->life, 0, find_each, &found, &summary, &e), 0);
        if (found.info.entry.state.status == status)
            return;
        assert_true(clock_mono_ms() < deadline);
        life_wait_change(f->life, summary.host_revision, deadline);
    }
}

static void idle_one_sleeps_and_is_reported_until_acknowledged(void **state)
{
    struct fixture *f = *state;
    struct sandbox_id id = create_ok(f);
    struct sandbox_id busy = create_ok(f);
    struct life_info now;
    make_idle(f, &busy, 0); /* never */
    make_idle(f, &id, 60);
    wait_state(f, &id, SANDBOX_PAUSED);
    now = look(f, &id).info;
    assert_int_equal(now.entry.state.reason, REASON_IDLE);
    assert_true(now.auto_paused);
    life_acknowledge(f->life, &id, now.entry.state.revision - 1);
    assert_true(look(f, &id).info.auto_paused);
    life_acknowledge(f->life, &id, now.entry.state.revision);
    assert_false(look(f, &id).info.auto_paused);
    assert_state(f, &busy, SANDBOX_RUNNING, REASON_NONE);
    (void)resume_ok(f, &id);
    assert_int_equal(count_in(f, &id), 1);
    destroy_ok(f, &id);
    destroy_ok(f, &busy);
    assert_nothing_left(f, &id);
}

static void break_by_exec(struct fixture *f, const struct sandbox_id *id)
{
    assert_int_equal(count_in(f, id), 1);
}

static void break_by_ping(struct fixture *f, const struct sandbox_id *id)
{
    struct err e = {0};
    int64_t active;
    assert_int_equal(life_ping(f->life, id, &active, &e), 0);
    assert_true(active > clock_real_ms() - 60000);
}

/* It runs: there is nothing to resume. */
static void break_by_resume(struct fixture *f, const struct sandbox_id *id)
{
    const struct life_resume r = resume_request(id);
    assert_int_equal(resume_kind(f, &r), ERR_BAD_STATE);
}

static void break_by_snapshot(struct fixture *f, const struct sandbox_id *id)
{
    struct snapshot s;
    fakes.save_waits = false;
    s = snapshot_ok(f, id);
    delete_snapshot_ok(f, &s.id);
}

static void break_by_destroy(struct fixture *f, const struct sandbox_id *id)
{
    destroy_ok(f, id);
}

static void (*const breaks[])(struct fixture *f, const struct sandbox_id *id) = {
    break_by_exec, break_by_ping, break_by_resume, break_by_snapshot, break_by_destroy};

static void auto_pause_is_broken_off_while_memory_is_saved(void **state)
{
    struct fixture *f = *state;
    for (size_t i = 0; i < ARRAY_LEN(breaks); i++) {
        struct sandbox_id id = create_ok(f);
        fakes_forget_stops();
        fakes.save_waits = true;
        make_idle(f, &id, 60);
        assert_int_equal(fakes_wait_stop(), 0); /* it is in there */
        assert_state(f, &id, SANDBOX_PAUSING, REASON_IDLE);
        breaks[i](f, &id);
        fakes.save_waits = false;
        if (breaks[i] != break_by_destroy) {
            struct life_info info;
            struct err e = {0};
            assert_state(f, &id, SANDBOX_RUNNING, REASON_NONE);
            assert_int_equal(life_set_timeout(f->life, &id, 0, &info, &e), 0);
            assert_int_equal(fakes.vcpus_stand, 0);
            assert_int_equal(exec_kind(f, &id), ERR_NONE);
            if (breaks[i] != break_by_snapshot)
                assert_int_equal(count_files(f, "generations"), 0);
            destroy_ok(f, &id);
        }
        assert_nothing_left(f, &id);
    }
}

/* Another thread needs the sandbox at that step of its pause. */
static struct breaker {
    struct fixture *f;
    struct sandbox_id id;
    const char *step;
    bool calls; /* into its guest; else it only says that it is needed */
    bool did;
    sem_t began;
    pthread_t thread;
    enum err_kind kind; /* of its call */
} breaker;

static void *call_in(void *arg)
{
    breaker.kind = exec_kind(breaker.f, &breaker.id);
    return NULL;
}

static void need_it(const char *operation, const char *step)
{
    struct err e = {0};
    struct sandbox *s;
    if (breaker.did || strcmp(operation, "pause") != 0 || strcmp(step, breaker.step) != 0)
        return;
    breaker.did = true;
    s = registry_find(breaker.f->life, &breaker.id, &e);
    sandbox_cancel_pause(s);
    sandbox_unref(s);
    if (breaker.calls && pthread_create(&breaker.thread, NULL, call_in, NULL) == 0)
        (void)sem_post(&breaker.began);
}

static void break_at(struct fixture *f, const struct sandbox_id *id, const char *step, bool calls)
{
    breaker = (struct breaker){.f = f, .id = *id, .step = step, .calls = calls};
    assert_int_equal(sem_init(&breaker.began, 0, 0), 0);
    on_crash_point = need_it;
}

/* After each step up to the commit; after "memory" the commit is under way in its thread. */
static void auto_pause_is_broken_off_between_its_steps(void **state)
{
    static const char *const steps[] = {"quiesce", "stop", "state", "memory"};
    struct fixture *f = *state;
    for (size_t i = 0; i < ARRAY_LEN(steps); i++) {
        struct sandbox_id id = create_ok(f);
        assert_int_equal(count_in(f, &id), 1);
        break_at(f, &id, steps[i], /* calls= */ true);
        make_idle(f, &id, 60);
        assert_int_equal(sem_wait(&breaker.began), 0);
        assert_int_equal(pthread_join(breaker.thread, NULL), 0);
        assert_int_equal(breaker.kind, ERR_NONE);
        on_crash_point = NULL;
        assert_state(f, &id, SANDBOX_RUNNING, REASON_NONE);
        assert_int_equal(count_files(f, "generations"), 0);
        assert_int_equal(count_files(f, "blobs"), 0);
        assert_int_equal(count_in(f, &id), 2);
        (void)pause_ok(f, &id);
        (void)resume_ok(f, &id);
        assert_int_equal(count_in(f, &id), 3);
        destroy_ok(f, &id);
        assert_nothing_left(f, &id);
    }
}

/* What was asked for is done, whoever needs the sandbox. */
static void explicit_pause_is_not_broken_off(void **state)
{
    struct fixture *f = *state;
    struct sandbox_id id = create_ok(f);
    break_at(f, &id, "state", /* calls= */ false);
    (void)pause_ok(f, &id);
    on_crash_point = NULL;
    assert_true(breaker.did);
    destroy_ok(f, &id);
    assert_nothing_left(f, &id);
}

/* How long until the next try, once there were that many failures; then it may come at once. */
static int64_t wait_failures(struct fixture *f, const struct sandbox_id *id, unsigned failures)
{
    struct err e = {0};
    struct sandbox *s = registry_find(f->life, id, &e);
    int64_t deadline = deadline_in_ms(20000);
    int64_t ms = -1;
    while (ms < 0) {
        assert_true(clock_mono_ms() < deadline);
        {
            MUTEX_GUARD(&f->life->lock);
            if (s->failures == failures) {
                ms = s->retry_ms - clock_mono_ms();
                s->retry_ms = 0;
            }
        }
        if (ms < 0)
            life_wait_change(f->life, UINT64_MAX - 1, deadline_in_ms(5));
    }
    sandbox_unref(s);
    return ms;
}

static void failed_auto_pause_is_tried_again_later_and_later(void **state)
{
    struct fixture *f = *state;
    struct sandbox_id id = create_ok(f);
    fakes.fail = FAKE_SAVE_STATE;
    make_idle(f, &id, 60);
    for (unsigned i = 0; i < 2; i++) {
        int64_t wait = wait_failures(f, &id, i + 1);
        assert_state(f, &id, SANDBOX_RUNNING, REASON_PAUSE_FAILED);
        assert_true(wait <= (5000 << i));
        assert_true(wait > (5000 << i) - 2000);
    }
    fakes.fail = FAKE_NONE;
    wait_state(f, &id, SANDBOX_PAUSED);
    (void)resume_ok(f, &id);
    destroy_ok(f, &id);
    assert_nothing_left(f, &id);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        LIFE_TEST(idle_one_sleeps_and_is_reported_until_acknowledged),
        LIFE_TEST(auto_pause_is_broken_off_while_memory_is_saved),
        LIFE_TEST(auto_pause_is_broken_off_between_its_steps),
        LIFE_TEST(failed_auto_pause_is_tried_again_later_and_later),
        LIFE_TEST(explicit_pause_is_not_broken_off),
    };
    return cmocka_run_group_tests_name("life/idle", tests, NULL, NULL);
}
