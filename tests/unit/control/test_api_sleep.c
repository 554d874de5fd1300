/* SPDX-License-Identifier: Apache-2.0 */
/* Pause and resume over the API: what the host does, refuses, fails at, and never answers. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "api_fixture.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/io.h"

static void assert_state(struct fixture *f, const char *id, const char *status, const char *reason)
{
    AUTO_ANSWER a;
    get(f, at(id, ""), &a);
    assert_string_equal(member(&a, "status"), status);
    assert_string_equal(member(&a, "state_reason"), reason);
}

static void change(struct fixture *f, const char *id, const char *what, struct answer *ret)
{
    struct request r = {.method = "POST", .target = at(id, what)};
    ask(f, &r, ret);
}

/* Expects 200. */
static void changes(struct fixture *f, const char *id, const char *what)
{
    AUTO_ANSWER a;
    change(f, id, what, &a);
    if (a.status != 200)
        fail_msg("%s: %d %s", what, a.status, a.body.p);
}

static void refuses(struct fixture *f, const char *id, const char *what, const char *status)
{
    AUTO_ANSWER a;
    change(f, id, what, &a);
    assert_error(&a, 409, "invalid_state", NULL);
    assert_string_equal(member(&a, "error.details.status"), status);
}

static void resume_with(struct fixture *f, const char *id, const char *body, struct answer *ret)
{
    post(f, at(id, "/resume"), body, ret);
}

static void a_sandbox_sleeps_and_wakes(void **state)
{
    struct fixture *f = *state;
    char id[ID_TEXT_MAX + 1];
    AUTO_ANSWER paused;
    AUTO_ANSWER resumed;
    make_sandbox(f, id);
    change(f, id, "/pause", &paused);
    assert_int_equal(paused.status, 200);
    assert_string_equal(member(&paused, "status"), "paused");
    assert_string_equal(member(&paused, "state_reason"), "requested");
    assert_string_equal(paused.server_timing, "quiesce;dur=1.200, save;dur=34.567");
    fake_wait_polled(&f->agent);
    assert_state(f, id, "paused", "requested");
    change(f, id, "/resume", &resumed);
    assert_int_equal(resumed.status, 200);
    assert_string_equal(member(&resumed, "status"), "running");
    assert_string_equal(member(&resumed, "state_reason"), "");
    assert_string_equal(resumed.server_timing, "quiesce;dur=1.200, save;dur=34.567");
    assert_string_equal(f->agent.resume_seen, "0||");
    fake_wait_polled(&f->agent);
    assert_state(f, id, "running", "");
}

static void only_what_runs_is_paused_and_what_sleeps_resumed(void **state)
{
    struct fixture *f = *state;
    char id[ID_TEXT_MAX + 1];
    make_sandbox(f, id);
    refuses(f, id, "/resume", "running");
    changes(f, id, "/pause");
    refuses(f, id, "/pause", "paused");
    fake_set(&f->agent, id, "stopped", "vm_exited");
    fake_wait_polled(&f->agent);
    refuses(f, id, "/pause", "stopped");
    refuses(f, id, "/resume", "stopped");
    assert_int_equal(fake_calls(&f->agent, AGENT_PAUSE), 1);
    assert_int_equal(fake_calls(&f->agent, AGENT_RESUME), 0);
}

static void bodies_of_a_resume(void **state)
{
    static const char *const bad[] = {"{\"from\":\"x\"}", "{\"mode\":\"memory\"}",
        "{\"mode\":\"\"}", "{\"from\":1}", "{\"what\":\"disk\"}", "[]"};
    struct fixture *f = *state;
    char id[ID_TEXT_MAX + 1];
    make_sandbox(f, id);
    changes(f, id, "/pause");
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        AUTO_ANSWER a;
        resume_with(f, id, bad[i], &a);
        assert_error(&a, 400, "invalid_request", NULL);
    }
    assert_int_equal(fake_calls(&f->agent, AGENT_RESUME), 0);
    AUTO_ANSWER a;
    resume_with(f, id, "{}", &a);
    assert_int_equal(a.status, 200);
}

static void the_disk_alone(void **state)
{
    struct fixture *f = *state;
    char id[ID_TEXT_MAX + 1];
    AUTO_ANSWER a;
    AUTO_ANSWER b;
    make_sandbox(f, id);
    changes(f, id, "/pause");
    resume_with(f, id, "{\"mode\":\"disk\"}", &a);
    assert_int_equal(a.status, 200);
    assert_string_equal(f->agent.resume_seen, "0||disk");
    fake_set(&f->agent, id, "stopped", "vm_exited");
    fake_wait_polled(&f->agent);
    resume_with(f, id, "{\"mode\":\"disk\"}", &b);
    assert_int_equal(b.status, 200);
}

static void the_last_generation_of_one_that_stopped(void **state)
{
    struct fixture *f = *state;
    char id[ID_TEXT_MAX + 1];
    AUTO_ANSWER running;
    AUTO_ANSWER paused;
    AUTO_ANSWER a;
    make_sandbox(f, id);
    resume_with(f, id, "{\"from\":\"last_generation\"}", &running);
    assert_error(&running, 409, "invalid_state", NULL);
    changes(f, id, "/pause");
    resume_with(f, id, "{\"from\":\"last_generation\"}", &paused);
    assert_error(&paused, 409, "invalid_state", NULL);
    fake_set(&f->agent, id, "stopped", "vm_exited");
    fake_wait_polled(&f->agent);
    resume_with(f, id, "{\"from\":\"last_generation\"}", &a);
    assert_int_equal(a.status, 200);
    assert_string_equal(f->agent.resume_seen, "0|last_generation|");
    assert_state(f, id, "running", "");
}

static void what_was_destroyed_stays_so(void **state)
{
    struct fixture *f = *state;
    char id[ID_TEXT_MAX + 1];
    struct request r = {.method = "DELETE"};
    AUTO_ANSWER gone;
    AUTO_ANSWER a;
    AUTO_ANSWER b;
    make_sandbox(f, id);
    changes(f, id, "/pause");
    r.target = at(id, "");
    ask(f, &r, &gone);
    assert_int_equal(gone.status, 204); /* without waking it */
    assert_int_equal(fake_calls(&f->agent, AGENT_RESUME), 0);
    assert_false(fake_has(&f->agent, id));
    resume_with(f, id, "{\"from\":\"last_generation\"}", &a);
    assert_error(&a, 409, "invalid_state", NULL);
    resume_with(f, id, "{\"mode\":\"disk\"}", &b);
    assert_error(&b, 409, "invalid_state", NULL);
}

static void another_teams_is_not_there(void **state)
{
    struct fixture *f = *state;
    struct key_row row;
    char id[ID_TEXT_MAX + 1];
    AUTO_ANSWER a;
    AUTO_ANSWER b;
    make_sandbox(f, id);
    fixture_other_team(f, f->key, &row);
    change(f, id, "/pause", &a);
    assert_error(&a, 404, "not_found", NULL);
    change(f, id, "/resume", &b);
    assert_error(&b, 404, "not_found", NULL);
    assert_int_equal(fake_calls(&f->agent, AGENT_PAUSE), 0);
}

static void a_refusal_turns_the_row_back(void **state)
{
    struct fixture *f = *state;
    char id[ID_TEXT_MAX + 1];
    make_sandbox(f, id);
    fake_fail(&f->agent, AGENT_PAUSE, ERR_BAD_STATE, "pausing");
    refuses(f, id, "/pause", "pausing");
    assert_state(f, id, "running", "");
    fake_fail(&f->agent, AGENT_PAUSE, ERR_NONE, "");
    changes(f, id, "/pause");
    fake_fail(&f->agent, AGENT_RESUME, ERR_NO_CAPACITY, "");
    AUTO_ANSWER a;
    change(f, id, "/resume", &a);
    assert_error(&a, 503, "no_capacity", NULL);
    assert_state(f, id, "paused", "requested");
}

static void a_failure_is_shown(void **state)
{
    struct fixture *f = *state;
    char id[ID_TEXT_MAX + 1];
    AUTO_ANSWER no_space;
    AUTO_ANSWER broken;
    AUTO_ANSWER shown;
    make_sandbox(f, id);
    fake_fail(&f->agent, AGENT_PAUSE, ERR_NO_SPACE, "");
    change(f, id, "/pause", &no_space);
    assert_error(&no_space, 507, "insufficient_storage", NULL);
    assert_state(f, id, "running", "pause_failed");
    fake_fail(&f->agent, AGENT_PAUSE, ERR_NONE, "");
    changes(f, id, "/pause");
    fake_fail(&f->agent, AGENT_RESUME, ERR_AGENT, "");
    change(f, id, "/resume", &broken);
    assert_error(&broken, 502, "agent_error", NULL);
    get(f, at(id, ""), &shown);
    assert_string_equal(member(&shown, "status"), "paused");
    assert_string_equal(member(&shown, "state_reason"), "restore_failed");
    assert_string_equal(member(&shown, "state_message"), "the host agent failed");
    fake_fail(&f->agent, AGENT_RESUME, ERR_NONE, "");
    changes(f, id, "/resume"); /* it can be tried again */
}

static void a_stopped_one_keeps_its_reason(void **state)
{
    struct fixture *f = *state;
    char id[ID_TEXT_MAX + 1];
    AUTO_ANSWER a;
    AUTO_ANSWER b;
    make_sandbox(f, id);
    fake_set(&f->agent, id, "stopped", "vm_exited");
    fake_wait_polled(&f->agent);
    fake_fail(&f->agent, AGENT_RESUME, ERR_AGENT, "");
    resume_with(f, id, "{\"from\":\"last_generation\"}", &a);
    assert_error(&a, 502, "agent_error", NULL);
    assert_state(f, id, "stopped", "vm_exited");
    fake_fail(&f->agent, AGENT_RESUME, ERR_NONE, "");
    resume_with(f, id, "{\"from\":\"last_generation\"}", &b);
    assert_int_equal(b.status, 200);
}

static void a_host_that_does_not_know_it(void **state)
{
    struct fixture *f = *state;
    char id[ID_TEXT_MAX + 1];
    AUTO_ANSWER a;
    make_sandbox(f, id);
    fake_fail(&f->agent, AGENT_PAUSE, ERR_NOT_FOUND, "");
    change(f, id, "/pause", &a);
    assert_error(&a, 503, "agent_unavailable", NULL);
    assert_state(f, id, "running", "");
}

/* With lists held, so that the row can be seen before it is settled. */
static void a_lost_answer_is_settled(void **state)
{
    struct fixture *f = *state;
    char id[ID_TEXT_MAX + 1];
    AUTO_ANSWER paused;
    AUTO_ANSWER resumed;
    make_sandbox(f, id);
    fake_wait_polled(&f->agent);
    fake_hold(&f->agent, AGENT_LIST, true);
    fake_wait_held(&f->agent, AGENT_LIST, 1);
    fake_lose(&f->agent, AGENT_PAUSE, true);
    change(f, id, "/pause", &paused);
    assert_error(&paused, 503, "agent_unavailable", NULL);
    assert_state(f, id, "pausing", "requested");
    fake_hold(&f->agent, AGENT_LIST, false);
    fake_wait_polled(&f->agent);
    assert_state(f, id, "paused", "requested");
    fake_lose(&f->agent, AGENT_RESUME, true);
    change(f, id, "/resume", &resumed);
    assert_error(&resumed, 503, "agent_unavailable", NULL);
    fake_wait_polled(&f->agent);
    fake_wait_polled(&f->agent);
    assert_state(f, id, "running", "");
}

static void a_lost_question_is_settled(void **state)
{
    struct fixture *f = *state;
    char id[ID_TEXT_MAX + 1];
    AUTO_ANSWER a;
    make_sandbox(f, id);
    fake_wait_polled(&f->agent);
    fake_hold(&f->agent, AGENT_LIST, true);
    fake_wait_held(&f->agent, AGENT_LIST, 1);
    fake_fail(&f->agent, AGENT_PAUSE, ERR_TIMEOUT, "");
    change(f, id, "/pause", &a);
    assert_error(&a, 504, "timeout", NULL);
    assert_state(f, id, "pausing", "requested");
    fake_hold(&f->agent, AGENT_LIST, false);
    fake_wait_polled(&f->agent);
    fake_wait_polled(&f->agent);
    assert_state(f, id, "running", ""); /* the host has it as it was, with the same revision */
    fake_fail(&f->agent, AGENT_PAUSE, ERR_NONE, "");
    changes(f, id, "/pause");
}

static void what_is_not_settled_is_waited_for(void **state)
{
    struct fixture *f = *state;
    char id[ID_TEXT_MAX + 1];
    AUTO_ANSWER a;
    AUTO_ANSWER again;
    make_sandbox(f, id);
    fake_wait_polled(&f->agent);
    fake_hold(&f->agent, AGENT_LIST, true);
    fake_wait_held(&f->agent, AGENT_LIST, 1);
    fake_lose(&f->agent, AGENT_PAUSE, true);
    change(f, id, "/pause", &a);
    assert_error(&a, 503, "agent_unavailable", NULL);
    change(f, id, "/resume", &again);
    assert_error(&again, 409, "conflict", NULL); /* nobody knows yet */
    assert_int_equal(fake_calls(&f->agent, AGENT_RESUME), 0);
    fake_hold(&f->agent, AGENT_LIST, false);
    fake_wait_polled(&f->agent);
    changes(f, id, "/resume");
}

/* Falling asleep unasked is no reason to refuse a call: the host breaks it off. What was asked for
 * is waited for. */
static void who_needs_it_reaches_a_host_that_auto_pauses(void **state)
{
    struct fixture *f = *state;
    char id[ID_TEXT_MAX + 1];
    AUTO_ANSWER exec;
    AUTO_ANSWER ping;
    AUTO_ANSWER late;
    make_sandbox(f, id);
    fake_set(&f->agent, id, "pausing", "idle");
    fake_wait_polled(&f->agent);
    assert_state(f, id, "pausing", "idle");
    post(f, at(id, "/exec"), "{\"cmd\":\"x\"}", &exec);
    assert_int_equal(exec.status, 200);
    change(f, id, "/ping", &ping);
    assert_int_equal(ping.status, 204);
    fake_set(&f->agent, id, "pausing", "requested");
    fake_wait_polled(&f->agent);
    post(f, at(id, "/exec"), "{\"cmd\":\"x\"}", &late);
    assert_error(&late, 409, "conflict", NULL);
    assert_int_equal(fake_calls(&f->agent, AGENT_EXEC), 1);
}

/* The host is told to destroy while it still pauses: that ends the pause. */
static void a_destroy_does_not_wait_for_a_pause(void **state)
{
    struct fixture *f = *state;
    char id[ID_TEXT_MAX + 1];
    struct asker pauser;
    struct asker remover;
    struct request r = {.method = "POST"};
    struct request remove = {.method = "DELETE"};
    AUTO_ANSWER again;
    make_sandbox(f, id);
    r.target = at(id, "/pause");
    fake_hold(&f->agent, AGENT_PAUSE, true);
    asker_start(&pauser, f, &r);
    fake_wait_held(&f->agent, AGENT_PAUSE, 1);
    remove.target = at(id, "");
    asker_start(&remover, f, &remove);
    fake_wait_gone(&f->agent, id);
    fake_hold(&f->agent, AGENT_PAUSE, false);
    asker_join(&pauser);
    asker_join(&remover);
    assert_int_equal(pauser.answer.status, 503);
    answer_done(&pauser.answer);
    answer_done(&remover.answer); /* 204, or 409 when the pause took its time to notice */
    ask(f, &remove, &again);
    assert_int_equal(again.status, 204);
    assert_state(f, id, "stopped", "destroyed");
}

static void transitions_wait_for_each_other(void **state)
{
    struct fixture *f = *state;
    char id[ID_TEXT_MAX + 1];
    struct asker pauser;
    struct request r = {.method = "POST"};
    AUTO_ANSWER a;
    make_sandbox(f, id);
    r.target = at(id, "/pause");
    fake_hold(&f->agent, AGENT_PAUSE, true);
    asker_start(&pauser, f, &r);
    fake_wait_held(&f->agent, AGENT_PAUSE, 1);
    fake_wait_polled(&f->agent);
    assert_state(f, id, "pausing", "requested");
    change(f, id, "/pause", &a);
    assert_error(&a, 409, "conflict", NULL);
    fake_hold(&f->agent, AGENT_PAUSE, false);
    asker_join(&pauser);
    assert_int_equal(pauser.answer.status, 200);
    answer_done(&pauser.answer);
    assert_int_equal(fake_calls(&f->agent, AGENT_PAUSE), 1);
}

static void a_control_plane_that_stops_in_between(void **state)
{
    struct fixture *f = *state;
    char id[ID_TEXT_MAX + 1];
    struct asker pauser;
    struct request r = {.method = "POST"};
    make_sandbox(f, id);
    r.target = at(id, "/pause");
    fake_lose(&f->agent, AGENT_PAUSE, true);
    fake_hold(&f->agent, AGENT_PAUSE, true);
    asker_start(&pauser, f, &r);
    fake_wait_held(&f->agent, AGENT_PAUSE, 1);
    fake_hold(&f->agent, AGENT_PAUSE, false);
    asker_join(&pauser);
    answer_done(&pauser.answer);
    fixture_stop_control(f);
    fixture_start_control(f);
    fake_wait_polled(&f->agent);
    fake_wait_polled(&f->agent);
    assert_state(f, id, "paused", "requested");
}

static void a_client_that_leaves_interrupts_nothing(void **state)
{
    struct fixture *f = *state;
    char id[ID_TEXT_MAX + 1];
    char text[512];
    struct err e = {0};
    int fd;
    make_sandbox(f, id);
    fake_hold(&f->agent, AGENT_PAUSE, true);
    fd = connect_raw(f);
    (void)snprintf(text, sizeof text,
        "POST %s HTTP/1.1\r\nHost: x\r\nX-API-Key: %s\r\nContent-Length: 0\r\n\r\n",
        at(id, "/pause"), f->key);
    assert_int_equal(io_write_full(fd, text, strlen(text), deadline_in_ms(5000), &e), 0);
    fake_wait_held(&f->agent, AGENT_PAUSE, 1);
    (void)close(fd);
    fake_hold(&f->agent, AGENT_PAUSE, false);
    fake_wait_polled(&f->agent);
    fake_wait_polled(&f->agent);
    assert_state(f, id, "paused", "requested");
    assert_int_equal(fake_calls(&f->agent, AGENT_RESUME), 0); /* and nothing is undone */
}

static void time_outs_survive_the_sleep(void **state)
{
    struct fixture *f = *state;
    char id[ID_TEXT_MAX + 1];
    struct request r = {.method = "PATCH", .body = SLICE_LIT("{\"timeout_sec\":77}")};
    AUTO_ANSWER a;
    make_sandbox(f, id);
    changes(f, id, "/pause");
    r.target = at(id, "");
    ask(f, &r, &a);
    assert_int_equal(a.status, 200);
    assert_string_equal(member(&a, "timeout_sec"), "77");
    assert_int_equal(fake_calls(&f->agent, AGENT_UPDATE), 0);
    changes(f, id, "/resume");
    assert_string_equal(f->agent.resume_seen, "77||");
}

static void a_time_out_of_one_that_fell_asleep_unseen(void **state)
{
    struct fixture *f = *state;
    char id[ID_TEXT_MAX + 1];
    struct request r = {.method = "PATCH", .body = SLICE_LIT("{\"timeout_sec\":5}")};
    AUTO_ANSWER a;
    AUTO_ANSWER b;
    make_sandbox(f, id);
    r.target = at(id, "");
    fake_fail(&f->agent, AGENT_UPDATE, ERR_BAD_STATE, "paused");
    ask(f, &r, &a);
    assert_int_equal(a.status, 200);
    assert_string_equal(member(&a, "timeout_sec"), "5");
    fake_fail(&f->agent, AGENT_UPDATE, ERR_BAD_STATE, "pausing");
    ask(f, &r, &b);
    assert_error(&b, 409, "invalid_state", NULL);
}

static void work_in_a_sleeper_is_refused(void **state)
{
    struct fixture *f = *state;
    char id[ID_TEXT_MAX + 1];
    AUTO_ANSWER a;
    make_sandbox(f, id);
    changes(f, id, "/pause");
    post(f, at(id, "/exec"), "{\"cmd\":\"true\"}", &a);
    assert_error(&a, 409, "invalid_state", NULL);
    assert_string_equal(member(&a, "error.details.status"), "paused");
    refuses(f, id, "/ping", "paused");
    assert_int_equal(fake_calls(&f->agent, AGENT_EXEC), 0);
}

static void a_pause_meets_an_exec(void **state)
{
    struct fixture *f = *state;
    char id[ID_TEXT_MAX + 1];
    AUTO_ANSWER a;
    make_sandbox(f, id);
    f->agent.exec_answer =
        (struct agent_exec_response){.paused = true, .pid = 321, .tag = SLICE_LIT("exec-7")};
    post(f, at(id, "/exec"), "{\"cmd\":\"sleep\"}", &a);
    assert_error(&a, 409, "invalid_state", NULL);
    assert_string_equal(member(&a, "error.details.status"), "paused");
    assert_string_equal(member(&a, "error.details.pid"), "321");
    assert_string_equal(member(&a, "error.details.tag"), "exec-7");
}

/* --- what the host does by itself --- */

static void an_auto_pause_that_failed_is_shown(void **state)
{
    struct fixture *f = *state;
    char id[ID_TEXT_MAX + 1];
    make_sandbox(f, id);
    fake_set(&f->agent, id, "running", "pause_failed");
    fake_wait_polled(&f->agent);
    assert_state(f, id, "running", "pause_failed");
}

static void an_auto_pause_is_acknowledged_as_it_is_in_the_database(void **state)
{
    struct fixture *f = *state;
    char id[ID_TEXT_MAX + 1];
    make_sandbox(f, id);
    fake_set(&f->agent, id, "paused", "idle");
    {
        MUTEX_GUARD(&f->agent.mutex);
        memcpy(f->agent.auto_paused, id, sizeof f->agent.auto_paused);
    }
    fake_wait_polled(&f->agent);
    assert_state(f, id, "paused", "idle");
    fake_wait_polled(&f->agent);
    assert_string_equal(f->agent.auto_paused, "");
    assert_int_equal(f->agent.acked_revision, 2);
    changes(f, id, "/resume");
}

/* Its name may still be among the auto-paused, unacknowledged: what the host says of it counts. */
static void one_that_was_resumed_is_not_asleep(void **state)
{
    struct fixture *f = *state;
    char id[ID_TEXT_MAX + 1];
    make_sandbox(f, id);
    {
        MUTEX_GUARD(&f->agent.mutex);
        memcpy(f->agent.auto_paused, id, sizeof f->agent.auto_paused);
    }
    fake_wait_polled(&f->agent);
    fake_wait_polled(&f->agent);
    assert_state(f, id, "running", "");
}

static void a_resume_behind_our_back_is_seen(void **state)
{
    struct fixture *f = *state;
    char id[ID_TEXT_MAX + 1];
    make_sandbox(f, id);
    changes(f, id, "/pause");
    fake_set(&f->agent, id, "running", "restored");
    fake_wait_polled(&f->agent);
    assert_state(f, id, "running", "restored");
    changes(f, id, "/pause");
}

#define T(fn) cmocka_unit_test_setup_teardown(fn, fixture_setup, fixture_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(a_sandbox_sleeps_and_wakes),
        T(only_what_runs_is_paused_and_what_sleeps_resumed),
        T(bodies_of_a_resume),
        T(the_disk_alone),
        T(the_last_generation_of_one_that_stopped),
        T(what_was_destroyed_stays_so),
        T(another_teams_is_not_there),
        T(a_refusal_turns_the_row_back),
        T(a_failure_is_shown),
        T(a_stopped_one_keeps_its_reason),
        T(a_host_that_does_not_know_it),
        T(a_lost_answer_is_settled),
        T(a_lost_question_is_settled),
        T(what_is_not_settled_is_waited_for),
        T(who_needs_it_reaches_a_host_that_auto_pauses),
        T(a_destroy_does_not_wait_for_a_pause),
        T(transitions_wait_for_each_other),
        T(a_control_plane_that_stops_in_between),
        T(a_client_that_leaves_interrupts_nothing),
        T(time_outs_survive_the_sleep),
        T(a_time_out_of_one_that_fell_asleep_unseen),
        T(work_in_a_sleeper_is_refused),
        T(a_pause_meets_an_exec),
        T(an_auto_pause_that_failed_is_shown),
        T(an_auto_pause_is_acknowledged_as_it_is_in_the_database),
        T(one_that_was_resumed_is_not_asleep),
        T(a_resume_behind_our_back_is_seen),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
