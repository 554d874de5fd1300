/* SPDX-License-Identifier: Apache-2.0 */
/* Routes, access and /init, over the wire. */
#include "harness.h"

#include <string.h>

#include "base/cleanup.h"

#define UNAUTHORIZED                                                                               \
    "unauthorized access, please provide a valid access token or method signing if supported"

static const struct slice nothing = {0};

static void assert_status(
    struct harness *h, const char *method, const char *target, const char *headers, int want)
{
    AUTO_ANSWER struct answer a = harness_ask(h, method, target, headers, nothing);
    if (a.status != want)
        fail_msg("%s %s: %d instead of %d: %s", method, target, a.status, want,
            a.body.p ? a.body.p : "");
}

static void test_health(void **state)
{
    AUTO_ANSWER struct answer a = harness_ask(*state, "GET", "/health", NULL, nothing);
    assert_int_equal(a.status, 204);
    assert_int_equal(a.body.len, 0);
    assert_status(*state, "DELETE", "/health", NULL, 405);
}

static void test_closed_before_init(void **state)
{
    AUTO_ANSWER struct answer a =
        harness_ask(*state, "GET", "/files?path=/etc/passwd", NULL, nothing);
    assert_int_equal(a.status, 401);
    assert_message(&a, UNAUTHORIZED);
    assert_non_null(strstr(a.head.p, "application/json; charset=utf-8"));
    assert_status(*state, "GET", "/files?path=/etc/passwd", WITH_TOKEN, 401);
    assert_status(*state, "GET", "/files?path=/etc/passwd", "X-Access-Token: \r\n", 401);
    assert_status(*state, "POST", "/process.Process/Start", NULL, 401);
    assert_status(*state, "GET", "/nowhere", NULL, 401);
}

static void test_token(void **state)
{
    AUTO_ANSWER struct answer none = harness_ask(*state, "GET", "/files?path=x", NULL, nothing);
    AUTO_ANSWER struct answer wrong =
        harness_ask(*state, "GET", "/files?path=x", "X-Access-Token: no\r\n", nothing);
    AUTO_ANSWER struct answer rpc = harness_ask(*state, "POST", "/process.Process/Start",
        "X-Access-Token: no\r\nContent-Type: application/connect+json\r\n", SLICE_LIT(""));
    assert_int_equal(none.status, 401);
    assert_message(&none, "missing signature query parameter");
    assert_int_equal(wrong.status, 401);
    assert_message(&wrong, "access token present in header but does not match");
    assert_int_equal(rpc.status, 401);
    assert_message(&rpc, UNAUTHORIZED);
    assert_status(*state, "GET", "/files?path=x", WITH_TOKEN, 404);
    assert_status(*state, "GET", "/nowhere", NULL, 401);
    assert_status(*state, "GET", "/nowhere", WITH_TOKEN, 404);
    assert_status(*state, "PUT", "/files?path=x", WITH_TOKEN, 405);
    assert_status(*state, "GET", "/init", WITH_TOKEN, 405);
    assert_status(*state, "GET", "/health", NULL, 204);
}

static void test_init_sets_everything(void **state)
{
    struct harness *h = *state;
    const char *json =
        "{\"accessToken\":\"" TOKEN "\",\"timestamp\":\"2023-11-14T22:13:20Z\","
        "\"entropy\":\"AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\",\"hostname\":\"sb-1.local\","
        "\"machineId\":\"0123456789abcdef0123456789abcdef\",\"envVars\":{\"A\":\"1\"},"
        "\"defaultUser\":\"me\",\"defaultWorkdir\":\"/\",\"sandboxId\":\"s\",\"templateId\":\"t\","
        "\"fromTheFuture\":[1,{}]}";
    AUTO_FREE char *hostname = NULL;
    AUTO_FREE char *machine_id = NULL;
    assert_int_equal(harness_init(h, json, NULL), 204);
    assert_true(h->machine.real_ns == 1700000000000000000);
    assert_int_equal(h->machine.entropy_len, 32);
    assert_int_equal(h->machine.entropy[31], 31);
    assert_string_equal(h->machine.hostname, "sb-1.local");
    hostname = harness_read(h, "etc/hostname");
    machine_id = harness_read(h, "etc/machine-id");
    assert_string_equal(hostname, "sb-1.local\n");
    assert_string_equal(machine_id, "0123456789abcdef0123456789abcdef\n");
}

static void test_init_again(void **state)
{
    struct harness *h = *state;
    const char *next = "{\"accessToken\":\"next\"}";
    assert_int_equal(harness_init(h, next, NULL), 401);
    assert_int_equal(harness_init(h, next, "X-Access-Token: next\r\n"), 401);
    assert_status(h, "GET", "/files?path=x", WITH_TOKEN, 404);
    assert_int_equal(harness_init(h, "{}", WITH_TOKEN), 204);
    assert_int_equal(harness_init(h, next, WITH_TOKEN), 204);
    assert_int_equal(harness_init(h, "{}", WITH_TOKEN), 401);
    assert_int_equal(harness_init(h, "{}", "X-Access-Token: next\r\n"), 204);
}

static void test_init_refuses(void **state)
{
    static const char *const bad[] = {"", "{", "[]", "null", "{}", "{\"accessToken\":\"\"}",
        "{\"accessToken\":5}", "{\"accessToken\":\"t\",\"accessToken\":\"u\"}",
        "{\"accessToken\":\"t\\u0000\"}", "{\"accessToken\":\"t\",\"timestamp\":\"yesterday\"}",
        "{\"accessToken\":\"t\",\"timestamp\":17}", "{\"accessToken\":\"t\",\"entropy\":\"AAAA\"}",
        "{\"accessToken\":\"t\",\"entropy\":\"!\"}", "{\"accessToken\":\"t\",\"hostname\":\"a b\"}",
        "{\"accessToken\":\"t\",\"hostname\":\"-a\"}",
        "{\"accessToken\":\"t\",\"hostname\":\"a-\"}",
        "{\"accessToken\":\"t\",\"hostname\":\"a..b\"}",
        "{\"accessToken\":\"t\",\"hostname\":\"../x\"}",
        "{\"accessToken\":\"t\",\"machineId\":\"0123\"}",
        "{\"accessToken\":\"t\",\"machineId\":\"0123456789ABCDEF0123456789abcdef\"}",
        "{\"accessToken\":\"t\",\"envVars\":[]}",
        "{\"accessToken\":\"t\",\"envVars\":{\"\":\"x\"}}",
        "{\"accessToken\":\"t\",\"envVars\":{\"a=b\":\"x\"}}",
        "{\"accessToken\":\"t\",\"envVars\":{\"a\":1}}",
        "{\"accessToken\":\"t\",\"envVars\":{\"a\":\"\\u0000\"}}",
        "{\"accessToken\":\"t\",\"defaultWorkdir\":\"relative\"}"};
    struct harness *h = *state;
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        int status = harness_init(h, bad[i], NULL);
        if (status != 400)
            fail_msg("%s: %d", bad[i], status);
    }
    assert_status(h, "GET", "/files?path=x", "X-Access-Token: t\r\n", 401);
    assert_int_equal(h->machine.real_ns, 0);
    assert_int_equal(h->machine.entropy_len, 0);
    assert_null(harness_read(h, "etc/hostname"));
}

static void test_init_too_long(void **state)
{
    AUTO_BUF struct buf json = BUF_INIT(16 << 20);
    AUTO_ANSWER struct answer a = {0};
    buf_append_cstr(&json, "{\"accessToken\":\"t\",\"x\":\"");
    while (json.len < (8 << 20))
        buf_append_cstr(&json, "xxxxxxxxxxxxxxxx");
    buf_append_cstr(&json, "\"}");
    a = harness_ask(*state, "POST", "/init", NULL, buf_slice(&json));
    assert_int_equal(a.status, 413);
}

static void test_init_names_what_failed(void **state)
{
    static const struct {
        const char *fails;
        const char *json;
        const char *message;
    } cases[] = {
        {"clock", "{\"accessToken\":\"t\",\"timestamp\":\"1700000000000000000\"}",
            "timestamp: the fake fails"},
        {"entropy",
            "{\"accessToken\":\"t\",\"entropy\":\"AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\"}",
            "entropy: the fake fails"},
        {"hostname", "{\"accessToken\":\"t\",\"hostname\":\"h\"}", "hostname: the fake fails"},
    };
    struct harness *h = *state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        AUTO_ANSWER struct answer a = {0};
        h->machine.fails = cases[i].fails;
        a = harness_ask(h, "POST", "/init", NULL, slice_cstr(cases[i].json));
        assert_int_equal(a.status, 500);
        assert_message(&a, cases[i].message);
        assert_status(h, "GET", "/files?path=x", "X-Access-Token: t\r\n", 401); /* not open yet */
    }
    h->machine.fails = NULL;
    assert_int_equal(harness_init(h, cases[0].json, NULL), 204);
    assert_status(h, "GET", "/files?path=x&username=me", "X-Access-Token: t\r\n", 404);
}

static void test_malformed_request(void **state)
{
    AUTO_CLOSE int fd = harness_connect(*state);
    AUTO_ANSWER struct answer a = {0};
    harness_send(fd, SLICE_LIT("GET /health HTTP/1.1\r\nContent-Length: 1\r\n"
                               "Transfer-Encoding: chunked\r\nHost: x\r\n\r\n"));
    a = harness_answer(fd);
    assert_int_equal(a.status, 400);
    assert_non_null(strstr(a.body.p, "\"code\":400"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_health, harness_set_up, harness_tear_down),
        cmocka_unit_test_setup_teardown(test_closed_before_init, harness_set_up, harness_tear_down),
        cmocka_unit_test_setup_teardown(test_token, harness_set_up_initialised, harness_tear_down),
        cmocka_unit_test_setup_teardown(
            test_init_sets_everything, harness_set_up, harness_tear_down),
        cmocka_unit_test_setup_teardown(
            test_init_again, harness_set_up_initialised, harness_tear_down),
        cmocka_unit_test_setup_teardown(test_init_refuses, harness_set_up, harness_tear_down),
        cmocka_unit_test_setup_teardown(test_init_too_long, harness_set_up, harness_tear_down),
        cmocka_unit_test_setup_teardown(
            test_init_names_what_failed, harness_set_up, harness_tear_down),
        cmocka_unit_test_setup_teardown(test_malformed_request, harness_set_up, harness_tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
