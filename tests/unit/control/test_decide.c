/* SPDX-License-Identifier: Apache-2.0 */
/* The reconciler's decisions: every state of the row against every kind of answer. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "control/service/decide.h"

#define HOST_A "hostaaaaaaaaaaaaaaaaaaaa"
#define HOST_B "hostbbbbbbbbbbbbbbbbbbbb"

static struct sandbox_row row_of(enum sandbox_status status, enum sandbox_reason reason)
{
    return (struct sandbox_row){
        .host = {HOST_A}, .status = status, .reason = reason, .revision = 5};
}

static struct reconcile_report report_of(enum sandbox_status status, uint64_t revision)
{
    return (struct reconcile_report){.status = status, .revision = revision};
}

static const struct reconcile_reply full = {
    .host = {HOST_A}, .cluster_id = "c1", .known_cluster_id = "c1", .complete = true};
static const struct reconcile_reply partial = {
    .host = {HOST_A}, .cluster_id = "c1", .known_cluster_id = "c1", .complete = false};
static const struct reconcile_reply other_host = {
    .host = {HOST_B}, .cluster_id = "c1", .known_cluster_id = "c1", .complete = true};
static const struct reconcile_reply other_cluster = {
    .host = {HOST_A}, .cluster_id = "c2", .known_cluster_id = "c1", .complete = true};

static void newer_revision_is_applied(void **state)
{
    struct sandbox_row row = row_of(SANDBOX_RUNNING, REASON_NONE);
    struct reconcile_report said = report_of(SANDBOX_STOPPED, 6);
    assert_int_equal(reconcile_decide(&full, &row, &said), RECONCILE_APPLY);
    assert_int_equal(reconcile_decide(&partial, &row, &said), RECONCILE_APPLY);
}

static void same_or_older_revision_changes_nothing(void **state)
{
    struct sandbox_row row = row_of(SANDBOX_RUNNING, REASON_NONE);
    struct reconcile_report same = report_of(SANDBOX_STOPPED, 5);
    struct reconcile_report older = report_of(SANDBOX_STOPPED, 4);
    assert_int_equal(reconcile_decide(&full, &row, &same), RECONCILE_NOTHING);
    assert_int_equal(reconcile_decide(&full, &row, &older), RECONCILE_NOTHING);
}

/* The host lost its power in a resume: it has the sandbox as it slept, one revision behind. */
static void forgotten_transition_is_settled(void **state)
{
    struct sandbox_row row = row_of(SANDBOX_RESUMING, REASON_NONE);
    struct reconcile_report behind = report_of(SANDBOX_PAUSED, 4);
    assert_int_equal(reconcile_decide(&full, &row, &behind), RECONCILE_NOTHING);
    behind.row_is_older = true;
    assert_int_equal(reconcile_decide(&full, &row, &behind), RECONCILE_APPLY);
    assert_int_equal(reconcile_decide(&partial, &row, &behind), RECONCILE_NOTHING);
    row.status = SANDBOX_RUNNING;
    assert_int_equal(reconcile_decide(&full, &row, &behind), RECONCILE_NOTHING);
}

static void missing_from_a_full_reply_is_lost(void **state)
{
    static const enum sandbox_status live[] = {SANDBOX_RUNNING, SANDBOX_PAUSING, SANDBOX_RESUMING};
    for (size_t i = 0; i < 3; i++) {
        struct sandbox_row row = row_of(live[i], REASON_NONE);
        assert_int_equal(reconcile_decide(&full, &row, NULL), RECONCILE_LOST);
    }
}

static void absence_is_not_evidence(void **state)
{
    struct sandbox_row row = row_of(SANDBOX_RUNNING, REASON_NONE);
    assert_int_equal(reconcile_decide(&partial, &row, NULL), RECONCILE_NOTHING);
    assert_int_equal(reconcile_decide(&other_host, &row, NULL), RECONCILE_NOTHING);
    assert_int_equal(reconcile_decide(&other_cluster, &row, NULL), RECONCILE_NOTHING);
}

static void another_host_or_cluster_changes_nothing(void **state)
{
    struct sandbox_row row = row_of(SANDBOX_RUNNING, REASON_NONE);
    struct reconcile_report said = report_of(SANDBOX_STOPPED, 9);
    assert_int_equal(reconcile_decide(&other_host, &row, &said), RECONCILE_NOTHING);
    assert_int_equal(reconcile_decide(&other_cluster, &row, &said), RECONCILE_NOTHING);
    assert_int_equal(reconcile_decide(&other_cluster, NULL, &said), RECONCILE_NOTHING);
}

static void paused_and_ended_ones_may_be_absent(void **state)
{
    struct sandbox_row paused = row_of(SANDBOX_PAUSED, REASON_IDLE);
    struct sandbox_row exited = row_of(SANDBOX_STOPPED, REASON_VM_EXITED);
    struct sandbox_row destroyed = row_of(SANDBOX_STOPPED, REASON_DESTROYED);
    struct sandbox_row failed = row_of(SANDBOX_ERROR, REASON_CREATE_FAILED);
    assert_int_equal(reconcile_decide(&full, &paused, NULL), RECONCILE_NOTHING);
    assert_int_equal(reconcile_decide(&full, &exited, NULL), RECONCILE_NOTHING);
    assert_int_equal(reconcile_decide(&full, &destroyed, NULL), RECONCILE_NOTHING);
    assert_int_equal(reconcile_decide(&full, &failed, NULL), RECONCILE_NOTHING);
}

static void lost_is_taken_back(void **state)
{
    struct sandbox_row row = row_of(SANDBOX_STOPPED, REASON_LOST);
    struct reconcile_report same = report_of(SANDBOX_RUNNING, 5);
    struct reconcile_report older = report_of(SANDBOX_RUNNING, 4);
    assert_int_equal(reconcile_decide(&partial, &row, &same), RECONCILE_APPLY);
    assert_int_equal(reconcile_decide(&partial, &row, &older), RECONCILE_NOTHING);
}

static void a_row_that_is_over_destroys(void **state)
{
    struct reconcile_report said = report_of(SANDBOX_RUNNING, 7);
    struct sandbox_row destroyed = row_of(SANDBOX_STOPPED, REASON_DESTROYED);
    struct sandbox_row gone = row_of(SANDBOX_STOPPED, REASON_CLIENT_GONE);
    struct sandbox_row failed = row_of(SANDBOX_ERROR, REASON_CREATE_FAILED);
    assert_int_equal(reconcile_decide(&full, &destroyed, &said), RECONCILE_DESTROY);
    assert_int_equal(reconcile_decide(&full, &gone, &said), RECONCILE_DESTROY);
    assert_int_equal(reconcile_decide(&full, &failed, &said), RECONCILE_DESTROY);
    said = (struct reconcile_report){
        .status = SANDBOX_STOPPED, .reason = REASON_DESTROYED, .revision = 8};
    assert_int_equal(reconcile_decide(&full, &destroyed, &said), RECONCILE_DESTROY);
}

static void only_a_row_that_is_over_destroys(void **state)
{
    for (int s = 0; s < SANDBOX_STATUS_COUNT; s++)
        for (int r = 0; r < SANDBOX_REASON_COUNT; r++)
            for (int said_status = 0; said_status < SANDBOX_STATUS_COUNT; said_status++) {
                struct sandbox_row row = row_of((enum sandbox_status)s, (enum sandbox_reason)r);
                struct reconcile_report said = report_of((enum sandbox_status)said_status, 9);
                if (!sandbox_row_is_over(&row))
                    assert_int_not_equal(reconcile_decide(&full, &row, &said), RECONCILE_DESTROY);
            }
}

static void unknown_to_the_database_is_reported(void **state)
{
    struct reconcile_report said = report_of(SANDBOX_RUNNING, 1);
    assert_int_equal(reconcile_decide(&full, NULL, &said), RECONCILE_UNKNOWN);
    assert_int_equal(reconcile_decide(&full, NULL, NULL), RECONCILE_NOTHING);
}

static void creates_of_a_dead_control_plane_are_settled(void **state)
{
    struct sandbox_row row = row_of(SANDBOX_PENDING, REASON_NONE);
    struct reconcile_report running = report_of(SANDBOX_RUNNING, 2);
    struct reconcile_report failed = report_of(SANDBOX_ERROR, 2);
    struct reconcile_report pending = report_of(SANDBOX_PENDING, 1);
    assert_int_equal(reconcile_decide(&full, &row, NULL), RECONCILE_FAIL);
    assert_int_equal(reconcile_decide(&partial, &row, NULL), RECONCILE_NOTHING);
    assert_int_equal(reconcile_decide(&full, &row, &running), RECONCILE_APPLY);
    assert_int_equal(reconcile_decide(&full, &row, &failed), RECONCILE_APPLY);
    assert_int_equal(reconcile_decide(&full, &row, &pending), RECONCILE_NOTHING);
}

static void a_changed_row_is_noticed(void **state)
{
    struct sandbox_row a = row_of(SANDBOX_RUNNING, REASON_NONE);
    struct sandbox_row b = a;
    assert_true(reconcile_row_same(&a, &b));
    b.revision++;
    assert_false(reconcile_row_same(&a, &b));
    b = a;
    b.status_since_ms++;
    assert_false(reconcile_row_same(&a, &b));
    b = a;
    b.status = SANDBOX_PAUSED;
    assert_false(reconcile_row_same(&a, &b));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(newer_revision_is_applied),
        cmocka_unit_test(same_or_older_revision_changes_nothing),
        cmocka_unit_test(forgotten_transition_is_settled),
        cmocka_unit_test(missing_from_a_full_reply_is_lost),
        cmocka_unit_test(absence_is_not_evidence),
        cmocka_unit_test(another_host_or_cluster_changes_nothing),
        cmocka_unit_test(paused_and_ended_ones_may_be_absent),
        cmocka_unit_test(lost_is_taken_back),
        cmocka_unit_test(a_row_that_is_over_destroys),
        cmocka_unit_test(only_a_row_that_is_over_destroys),
        cmocka_unit_test(unknown_to_the_database_is_reported),
        cmocka_unit_test(creates_of_a_dead_control_plane_are_settled),
        cmocka_unit_test(a_changed_row_is_noticed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
