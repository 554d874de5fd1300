/* SPDX-License-Identifier: Apache-2.0 */
/* Templates and metrics: what the server says of itself and its host. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "api_fixture.h"
#include "base/cleanup.h"

/* Text of a member of the list's `i`th template. */
static const char *of(struct answer *a, size_t i, const char *key)
{
    const struct json_value *v = a->json->first;
    const struct json_value *m;
    while (v && i-- > 0)
        v = v->next;
    m = v ? json_get(v, key) : NULL;
    if (!m)
        return "";
    return m->type == JSON_STRING ? arena_strndup(&a->arena, m->string.p, m->string.n) : "?";
}

static void templates_are_listed_newest_first(void **state)
{
    struct fixture *f = *state;
    AUTO_ANSWER a;
    get(f, "/v1/snapshots", &a);
    assert_int_equal(a.status, 200);
    assert_int_equal(a.json->count, 2);
    assert_string_equal(of(&a, 0, "name"), "base");
    assert_string_equal(of(&a, 1, "name"), "minimal");
    assert_string_equal(of(&a, 1, "type"), "base");
    assert_string_equal(of(&a, 1, "default_user"), "root");
    assert_string_equal(of(&a, 1, "created_at"), "1970-01-01T00:00:01.000Z");
    assert_memory_equal(of(&a, 1, "snapshot_id"), "snap", 4);
    assert_int_equal(json_get(a.json->first, "size_bytes")->integer, 8192);
    assert_int_equal(json_get(a.json->first, "vcpus")->type, JSON_NULL);
    assert_int_equal(json_get(a.json->first, "memory_mb")->type, JSON_NULL);
}

static void templates_are_listed_by_type(void **state)
{
    static const struct {
        const char *target;
        int status;
        size_t n;
    } cases[] = {{"/v1/snapshots?type=base", 200, 2}, {"/v1/snapshots?type=snapshot", 200, 0},
        {"/v1/snapshots?type=snapshot,base", 200, 2},
        {"/v1/snapshots?type=base%2Csnapshot", 200, 2}, {"/v1/snapshots?type=other", 400, 0},
        {"/v1/snapshots?type=base,", 400, 0}, {"/v1/snapshots?type=", 400, 0},
        {"/v1/snapshots?type=base&type=base", 400, 0}, {"/v1/snapshots?typ=base", 400, 0},
        {"/v1/snapshots?type=%zz", 400, 0}};
    struct fixture *f = *state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        AUTO_ANSWER a;
        get(f, cases[i].target, &a);
        if (a.status != cases[i].status)
            fail_msg("%s: %d", cases[i].target, a.status);
        if (a.status == 200)
            assert_int_equal(a.json->count, cases[i].n);
        else
            assert_error(&a, 400, "invalid_request", NULL);
    }
}

static void a_template_has_a_name_and_an_id(void **state)
{
    struct fixture *f = *state;
    char by_id[64], body[128];
    {
        AUTO_ANSWER a;
        get(f, "/v1/snapshots/minimal", &a);
        assert_int_equal(a.status, 200);
        (void)snprintf(by_id, sizeof by_id, "/v1/snapshots/%s", member(&a, "snapshot_id"));
        (void)snprintf(body, sizeof body, "{\"template\":\"%s\"}", member(&a, "snapshot_id"));
    }
    AUTO_ANSWER again;
    AUTO_ANSWER made;
    AUTO_ANSWER none;
    AUTO_ANSWER bad;
    AUTO_ANSWER unknown_id;
    get(f, by_id, &again);
    assert_string_equal(member(&again, "name"), "minimal");
    post(f, "/v1/sandboxes", body, &made);
    assert_int_equal(made.status, 201);
    assert_string_equal(member(&made, "template"), "minimal");
    assert_string_equal(member(&made, "template_id"), member(&again, "snapshot_id"));
    get(f, "/v1/snapshots/other", &none);
    assert_error(&none, 404, "not_found", NULL);
    get(f, "/v1/snapshots/-bad", &bad);
    assert_error(&bad, 400, "invalid_request", "name");
    get(f, "/v1/snapshots/snapaaaaaaaaaaaaaaaaaaaa", &unknown_id);
    assert_error(&unknown_id, 404, "not_found", NULL);
}

static void set_building(struct fixture *f, bool building)
{
    MUTEX_GUARD(&f->agent.mutex);
    f->agent.building = building;
}

static void a_template_that_is_being_built_says_so(void **state)
{
    struct fixture *f = *state;
    set_building(f, true);
    fake_wait_polled(&f->agent);
    {
        AUTO_ANSWER list;
        AUTO_ANSWER one;
        AUTO_ANSWER made;
        get(f, "/v1/snapshots", &list);
        assert_int_equal(list.json->count, 1);
        get(f, "/v1/snapshots/base", &one);
        assert_error(&one, 503, "template_building", NULL);
        post(f, "/v1/sandboxes", "{\"template\":\"base\"}", &made);
        assert_error(&made, 503, "template_building", NULL);
        assert_string_equal(made.retry_after, "5");
        assert_int_equal(fake_calls(&f->agent, AGENT_CREATE), 0);
    }
    /* The create asks for itself: it does not wait for the next poll. */
    AUTO_ANSWER a;
    set_building(f, false);
    post(f, "/v1/sandboxes", "{\"template\":\"base\"}", &a);
    assert_int_equal(a.status, 201);
}

static void a_full_host_says_so_and_health_goes_on(void **state)
{
    struct fixture *f = *state;
    AUTO_ANSWER made;
    AUTO_ANSWER health;
    AUTO_ANSWER ready;
    fake_fail(&f->agent, AGENT_CREATE, ERR_NO_CAPACITY, "");
    post(f, "/v1/sandboxes", "{}", &made);
    assert_error(&made, 503, "no_capacity", NULL);
    assert_string_equal(made.retry_after, "5");
    get(f, "/healthz", &health);
    assert_int_equal(health.status, 200);
    get(f, "/readyz", &ready);
    assert_int_equal(ready.status, 200);
}

static void assert_line(struct answer *a, const char *line)
{
    if (!strstr(a->body.p, line))
        fail_msg("no %s in:\n%s", line, a->body.p);
}

static void metrics_say_what_there_is(void **state)
{
    struct fixture *f = *state;
    char id[ID_TEXT_MAX + 1];
    make_sandbox(f, id);
    fake_set(&f->agent, "sbabcdefghijklmnopqrst", "running", "");
    fake_wait_polled(&f->agent);
    AUTO_ANSWER none;
    AUTO_ANSWER a;
    get(f, "/nowhere", &none);
    get(f, "/metrics", &a);
    assert_int_equal(a.status, 200);
    assert_string_equal(a.content_type, "text/plain; version=0.0.4; charset=utf-8");
    assert_line(&a, "\ntorpor_sandboxes{status=\"running\"} 1\n");
    assert_line(&a, "\ntorpor_sandboxes{status=\"paused\"} 0\n");
    assert_line(&a, "\ntorpor_agent_up 1\n");
    assert_line(&a, "\ntorpor_agent_poll_age_seconds 0.");
    assert_line(&a, "\ntorpor_host_slots_total 16\n");
    assert_line(&a, "\ntorpor_host_memory_mb_used 1024\n");
    assert_line(&a, "\ntorpor_unknown_sandboxes 1\n");
    assert_line(&a, "\ntorpor_unknown_sandbox{sandbox_id=\"sbabcdefghijklmnopqrst\"} 1\n");
    assert_line(&a, "\ntorpor_http_requests_total{method=\"POST\",route=\"/v1/sandboxes\","
                    "class=\"2xx\"} 1\n");
    assert_line(&a, "\ntorpor_http_requests_total{method=\"\",route=\"\",class=\"4xx\"} 1\n");
}

static void metrics_say_that_the_agent_is_away(void **state)
{
    struct fixture *f = *state;
    int64_t calls;
    fake_fail(&f->agent, AGENT_LIST, ERR_UNAVAILABLE, "");
    calls = fake_calls(&f->agent, AGENT_LIST);
    fake_wait_calls(&f->agent, AGENT_LIST, (int)calls + 3);
    AUTO_ANSWER a;
    get(f, "/metrics", &a);
    assert_line(&a, "\ntorpor_agent_up 0\n");
}

static void metrics_need_a_key(void **state)
{
    struct fixture *f = *state;
    AUTO_ANSWER a;
    f->key[0] = '\0';
    get(f, "/metrics", &a);
    assert_error(&a, 401, "unauthorized", NULL);
}

static int busy_files(struct fixture *f)
{
    static const char key[] = "\ntorpor_http_busy{work=\"files\"} ";
    AUTO_ANSWER a;
    const char *at_key;
    get(f, "/metrics", &a);
    at_key = strstr(a.body.p, key);
    assert_non_null(at_key);
    return atoi(at_key + sizeof key - 1);
}

/* One kind of work that fills its places keeps nothing else from working. */
static void each_kind_of_work_has_its_places(void **state)
{
    enum { PLACES = 64 };
    static struct asker askers[PLACES];
    struct fixture *f = *state;
    char id[ID_TEXT_MAX + 1];
    struct request r = {.method = "POST", .body = SLICE_LIT("{\"path\":\"/f\"}")};
    make_sandbox(f, id);
    fake_hold(&f->agent, AGENT_READ_FILE, true);
    r.target = at(id, "/files/read");
    for (int i = 0; i < PLACES; i++)
        asker_start(&askers[i], f, &r);
    while (busy_files(f) < PLACES) /* each look is a round trip; a lost one ends by its timeout */
        continue;
    {
        AUTO_ANSWER refused;
        AUTO_ANSWER health;
        AUTO_ANSWER ran;
        ask(f, &r, &refused);
        assert_error(&refused, 503, "no_capacity", NULL);
        get(f, "/healthz", &health);
        assert_int_equal(health.status, 200);
        post(f, at(id, "/exec"), "{\"cmd\":\"true\"}", &ran);
        assert_int_equal(ran.status, 200);
    }
    fake_hold(&f->agent, AGENT_READ_FILE, false);
    for (int i = 0; i < PLACES; i++) {
        asker_join(&askers[i]);
        assert_int_equal(askers[i].answer.status, 404); /* there is no such file */
        answer_done(&askers[i].answer);
    }
}

#define T(fn) cmocka_unit_test_setup_teardown(fn, fixture_setup, fixture_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(templates_are_listed_newest_first),
        T(templates_are_listed_by_type),
        T(a_template_has_a_name_and_an_id),
        T(a_template_that_is_being_built_says_so),
        T(a_full_host_says_so_and_health_goes_on),
        T(metrics_say_what_there_is),
        T(metrics_say_that_the_agent_is_away),
        T(metrics_need_a_key),
        T(each_kind_of_work_has_its_places),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
