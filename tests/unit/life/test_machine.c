/* SPDX-License-Identifier: Apache-2.0 */
/* Step runner and transitions: pure parts of the lifecycle. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "agent/life/machine.h"
#include "agent/life/steps.h"

/* Records "D<i>" and "U<i>" in the order they ran; `fail_do` and `fail_undo` name a step. */
struct trace {
    char log[64];
    int fail_do;
    int fail_undo;
};

static int note(struct trace *t, char kind, int i, int fail, struct err *e)
{
    char text[3] = {kind, (char)('0' + i), '\0'};
    strcat(t->log, text);
    return fail == i ? err_set(e, ERR_NO_CAPACITY, "%c%d failed", kind, i) : 0;
}

#define STEP_FUNCTIONS(i)                                                                          \
    static int do_##i(void *ctx, struct err *e)                                                    \
    {                                                                                              \
        return note(ctx, 'D', i, ((struct trace *)ctx)->fail_do, e);                               \
    }                                                                                              \
    static int undo_##i(void *ctx, struct err *e)                                                  \
    {                                                                                              \
        return note(ctx, 'U', i, ((struct trace *)ctx)->fail_undo, e);                             \
    }
STEP_FUNCTIONS(0)
STEP_FUNCTIONS(1)
STEP_FUNCTIONS(2)

static const struct step three[] = {
    {"zero", do_0, undo_0}, {"one", do_1, undo_1}, {"two", do_2, undo_2}};

static void steps_run_in_order(void **state)
{
    struct trace t = {.fail_do = -1, .fail_undo = -1};
    struct err e = {0};
    assert_int_equal(steps_do(three, 3, &t, /* after= */ NULL, &e), 0);
    assert_string_equal(t.log, "D0D1D2");
    assert_int_equal(e.kind, ERR_NONE);
}

static void failed_step_is_undone_with_those_before(void **state)
{
    static const char *const expected[] = {"D0U0", "D0D1U1U0", "D0D1D2U2U1U0"};
    static const char *const names[] = {"zero", "one", "two"};
    for (int i = 0; i < 3; i++) {
        struct trace t = {.fail_do = i, .fail_undo = -1};
        struct err e = {0};
        assert_int_equal(steps_do(three, 3, &t, /* after= */ NULL, &e), -1);
        assert_string_equal(t.log, expected[i]);
        assert_int_equal(e.kind, ERR_NO_CAPACITY);
        assert_string_equal(e.where, names[i]);
    }
}

static void undo_goes_on_after_a_failure_and_reports_all(void **state)
{
    struct trace t = {.fail_do = 2, .fail_undo = 1};
    struct err e = {0};
    assert_int_equal(steps_do(three, 3, &t, /* after= */ NULL, &e), -1);
    assert_string_equal(t.log, "D0D1D2U2U1U0");
    assert_non_null(strstr(e.msg, "D2 failed"));
    assert_non_null(strstr(e.msg, "remove one: U1 failed"));
}

static void step_without_undo_is_skipped(void **state)
{
    const struct step steps[] = {{"zero", do_0, undo_0}, {"one", do_1, NULL}};
    struct trace t = {.fail_do = -1, .fail_undo = -1};
    struct err e = {0};
    assert_int_equal(steps_undo(steps, 2, &t, /* after= */ NULL, &e), 0);
    assert_string_equal(t.log, "U0");
}

/* Every state and every event: what must hold whatever the table says. */
static void transitions_keep_their_promises(void **state)
{
    for (int status = 0; status < SANDBOX_STATUS_COUNT; status++)
        for (int event = 0; event < MACHINE_EVENT_COUNT; event++) {
            struct machine_state s = {.status = (enum sandbox_status)status, .revision = 7};
            struct machine_actions a;
            bool changed = machine_next(&s, (enum machine_event)event, &a);
            if (!changed)
                assert_int_equal(s.revision, 7);
            else
                assert_true(s.revision > 7);
            if (!changed) {
                assert_int_equal(s.status, status);
                assert_false(a.release_host || a.write_journal || a.remove_files || a.forget);
            }
            /* Files only go because of a DELETE, or of a create nobody was told of. */
            if (a.remove_files)
                assert_true(event == EVENT_DESTROY || event == EVENT_CREATE_FAILED);
            if (!changed)
                continue;
            /* A sandbox sleeps only because it was told to, and its generation is durable. */
            if (s.status == SANDBOX_PAUSED)
                assert_true((event == EVENT_PAUSED && status == SANDBOX_PAUSING) ||
                            (event == EVENT_RESUME_FAILED && status == SANDBOX_RESUMING));
            if (s.status == SANDBOX_PAUSING)
                assert_true(
                    status == SANDBOX_RUNNING && (event == EVENT_PAUSE || event == EVENT_IDLE));
            if (s.status == SANDBOX_RESUMING)
                assert_true((event == EVENT_RESUME && status == SANDBOX_PAUSED) ||
                            (event == EVENT_RESTORE && status == SANDBOX_STOPPED));
            /* What ends in `running` was alive, or has just been brought to life. */
            if (s.status == SANDBOX_RUNNING)
                assert_true(status == SANDBOX_PENDING || status == SANDBOX_PAUSING ||
                            status == SANDBOX_RESUMING);
            /* The host's resources go exactly when no VM is left; but for a pending one, which an
             * agent that starts finds without. */
            if (event != EVENT_AGENT_STARTED)
                assert_int_equal(a.release_host, s.status == SANDBOX_PAUSED ||
                                                     s.status == SANDBOX_STOPPED ||
                                                     s.status == SANDBOX_ERROR);
            /* What is neither running nor on its way is durable before the host's resources go. */
            if (a.release_host && !a.forget)
                assert_true(a.write_journal);
            /* What is forgotten leaves nothing. */
            if (a.forget)
                assert_true(a.remove_files && a.release_host);
        }
}

static void destroy_works_in_every_state(void **state)
{
    for (int status = 0; status < SANDBOX_STATUS_COUNT; status++) {
        struct machine_state s = {.status = (enum sandbox_status)status};
        struct machine_actions a;
        assert_true(machine_next(&s, EVENT_DESTROY, &a));
        assert_int_equal(s.status, SANDBOX_STOPPED);
        assert_int_equal(s.reason, REASON_DESTROYED);
        assert_true(a.remove_files && a.release_host && a.forget);
    }
}

static void exit_of_a_vm_stops_and_keeps_files(void **state)
{
    struct machine_state s = {.status = SANDBOX_RUNNING, .revision = 2};
    struct machine_actions a;
    assert_true(machine_next(&s, EVENT_VM_EXITED, &a));
    assert_int_equal(s.status, SANDBOX_STOPPED);
    assert_int_equal(s.reason, REASON_VM_EXITED);
    assert_true(a.release_host && a.write_journal);
    assert_false(a.remove_files || a.forget);
    assert_false(machine_next(&s, EVENT_VM_EXITED, &a));
}

static void restart_stops_what_ran_and_leaves_the_rest(void **state)
{
    struct machine_actions a;
    struct machine_state ran = {.status = SANDBOX_PENDING, .revision = 1};
    struct machine_state ended = {.status = SANDBOX_STOPPED, .reason = REASON_VM_EXITED};
    assert_true(machine_next(&ran, EVENT_AGENT_STARTED, &a));
    assert_int_equal(ran.reason, REASON_VM_EXITED);
    assert_true(a.write_journal);
    /* Journalled at birth as 1; reported as running as 2: this must be newer than both. */
    assert_true(ran.revision > 2);
    assert_false(machine_next(&ended, EVENT_AGENT_STARTED, &a));
}

/* What a run of events can add to the revision that is in state.json: a create and a resume journal
 * while they are under way, everything else when the machine says so. */
static int most_unjournalled(struct machine_state s, int unjournalled, int depth)
{
    int most = unjournalled;
    for (int event = 0; depth > 0 && event < MACHINE_EVENT_COUNT; event++) {
        struct machine_state next = s;
        struct machine_actions a;
        int n;
        if (event == EVENT_AGENT_STARTED || event == EVENT_DESTROY ||
            !machine_next(&next, (enum machine_event)event, &a) || a.forget)
            continue;
        /* Seen before it is journalled. */
        n = unjournalled + (int)(next.revision - s.revision);
        most = n > most ? n : most;
        if (a.write_journal || event == EVENT_RESUME || event == EVENT_RESTORE)
            n = 0;
        n = most_unjournalled(next, n, depth - 1);
        most = n > most ? n : most;
    }
    return most;
}

static void revisions_outlive_a_power_cut(void **state)
{
    struct machine_state born = {.status = SANDBOX_PENDING, .revision = 1};
    struct machine_state found = {.status = SANDBOX_RUNNING, .revision = 10};
    struct machine_actions a;
    int most = most_unjournalled(born, 0, 10);
    assert_in_range(most, 1, MACHINE_UNJOURNALLED_MAX);
    assert_true(machine_next(&found, EVENT_AGENT_STARTED, &a));
    assert_true(found.revision > 10 + (uint64_t)most);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(steps_run_in_order),
        cmocka_unit_test(failed_step_is_undone_with_those_before),
        cmocka_unit_test(undo_goes_on_after_a_failure_and_reports_all),
        cmocka_unit_test(step_without_undo_is_skipped),
        cmocka_unit_test(transitions_keep_their_promises),
        cmocka_unit_test(destroy_works_in_every_state),
        cmocka_unit_test(exit_of_a_vm_stops_and_keeps_files),
        cmocka_unit_test(restart_stops_what_ran_and_leaves_the_rest),
        cmocka_unit_test(revisions_outlive_a_power_cut),
    };
    return cmocka_run_group_tests_name("life/machine", tests, NULL, NULL);
}
