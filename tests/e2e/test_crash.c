/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Something is killed at each step of what is done with a sandbox, on real VMs: agent, control
 * plane, VMM, shim, or all of them. Afterwards what had been reported is there, with its memory; a
 * sandbox whose VM died has its last generation; nothing leaks; bystanders notice nothing. The
 * victim of each step is drawn by a seed, which is printed; TORPOR_CRASH_SEED repeats it, and
 * TORPOR_CRASH_ALL=1 (make crash-full) takes every victim at every step.
 */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "crash.h"

static void each_step_of_create(void **state)
{
    sweep_operation(&crash_create);
}

static void each_step_of_spawn(void **state)
{
    sweep_operation(&crash_spawn);
}

static void each_step_of_destroy(void **state)
{
    sweep_operation(&crash_destroy);
}

static void each_step_of_pause(void **state)
{
    sweep_operation(&crash_pause);
}

static void each_step_of_resume(void **state)
{
    sweep_operation(&crash_resume);
}

static void each_step_of_snapshot(void **state)
{
    sweep_operation(&crash_snapshot);
}

static void each_step_of_overwriting(void **state)
{
    sweep_operation(&crash_overwrite);
}

static void each_step_of_merging(void **state)
{
    sweep_operation(&crash_merge);
}

static void each_step_of_collecting(void **state)
{
    crash_collect();
}

static void bystander_wakes_as_it_was(void **state)
{
    crash_check_sleeping();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_step_of_create),
        cmocka_unit_test(each_step_of_spawn),
        cmocka_unit_test(each_step_of_destroy),
        cmocka_unit_test(each_step_of_pause),
        cmocka_unit_test(each_step_of_resume),
        cmocka_unit_test(each_step_of_snapshot),
        cmocka_unit_test(each_step_of_overwriting),
        cmocka_unit_test(each_step_of_merging),
        cmocka_unit_test(each_step_of_collecting),
        cmocka_unit_test(bystander_wakes_as_it_was),
    };
    cmocka_set_test_filter(getenv("TORPOR_TEST")); /* one test, by its name */
    return cmocka_run_group_tests_name("e2e/crash", tests, sweep_setup, sweep_teardown);
}
