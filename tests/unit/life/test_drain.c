/* SPDX-License-Identifier: Apache-2.0 */
/* Putting everything to sleep before maintenance. */
#include <string.h>

#include "agent/life/life_int.h"
#include "base/cleanup.h"
#include "fixture.h"

enum { MANY = 4 };

static void all_sleep_and_the_agent_has_left(void **state)
{
    struct fixture *f = *state;
    struct sandbox_id ids[MANY];
    struct err e = {0};
    for (int i = 0; i < MANY; i++)
        ids[i] = create_ok(f);
    (void)pause_ok(f, &ids[0]); /* this one slept before */
    assert_int_equal(life_drain(f->life, &e), 0);
    assert_int_equal(fakes.vmms_running, 0);
    open_life(f);
    for (int i = 0; i < MANY; i++)
        assert_state(f, &ids[i], SANDBOX_PAUSED, REASON_REQUESTED);
    (void)resume_ok(f, &ids[1]);
}

static void one_that_cannot_sleep_runs_on(void **state)
{
    struct fixture *f = *state;
    struct sandbox_id id = create_ok(f);
    struct sandbox_id other = create_ok(f);
    struct err e = {0};
    fakes.fail = FAKE_SAVE_MEMORY;
    assert_int_equal(life_drain(f->life, &e), -1);
    fakes.fail = FAKE_NONE;
    assert_non_null(strstr(e.msg, id.text));
    assert_non_null(strstr(e.msg, other.text));
    assert_int_equal(fakes.vmms_running, 2);
    assert_int_equal(fakes.vcpus_stand, 0);
    open_life(f);
    assert_state(f, &id, SANDBOX_RUNNING, REASON_PAUSE_FAILED);
    (void)pause_ok(f, &id);
    (void)resume_ok(f, &id);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(
            all_sleep_and_the_agent_has_left, fixture_setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(
            one_that_cannot_sleep_runs_on, fixture_setup, fixture_teardown),
    };
    return cmocka_run_group_tests_name("life/drain", tests, NULL, NULL);
}
