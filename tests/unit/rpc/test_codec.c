/* SPDX-License-Identifier: Apache-2.0 */
/* What both codecs have in common: round trips of every table, bounds, errors; and the codes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <cmocka.h>

#include "base/cleanup.h"
#include "rpc/agent_v1.h"
#include "rpc/process_v1.h"
#include "sample.h"

enum { ARENA_BYTES = 16 << 20, ROUNDS = 200, TEXT_BYTES_MAX = 1 << 20 };

static const struct rpc_message *const tables[] = {
    &sample_message,
    &sample_inner_message,
    &agent_sandbox_info_message,
    &agent_create_request_message,
    &agent_create_response_message,
    &agent_destroy_request_message,
    &agent_destroy_response_message,
    &agent_list_request_message,
    &agent_list_response_message,
    &agent_ping_request_message,
    &agent_ping_response_message,
    &agent_update_request_message,
    &agent_update_response_message,
    &agent_exec_request_message,
    &agent_exec_response_message,
    &agent_read_file_request_message,
    &agent_read_file_response_message,
    &agent_write_file_request_message,
    &agent_write_file_response_message,
    &process_start_request_message,
    &process_start_response_message,
};

static void round_trip(const struct rpc_message *m, enum rpc_codec codec, unsigned seed)
{
    AUTO_BUF struct buf text = BUF_INIT(TEXT_BYTES_MAX);
    unsigned state = seed;
    struct err e = {0};
    struct arena a;
    void *sent;
    void *got;
    arena_init(&a, ARENA_BYTES);
    sent = arena_alloc(&a, m->size);
    got = arena_alloc(&a, m->size);
    assert_true(sent && got);
    message_fill(m, sent, &a, &state);
    if (rpc_encode(m, codec, sent, &text, &e) < 0)
        fail_msg("%s, seed %u: %s", m->name, seed, e.msg);
    if (rpc_decode(m, codec, buf_slice(&text), &a, got, &e) < 0)
        fail_msg("%s, seed %u: %s", m->name, seed, e.msg);
    if (!message_eq(m, sent, got))
        fail_msg("%s, seed %u, codec %d: came back changed", m->name, seed, codec);
    arena_done(&a);
}

static void every_message_comes_back(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(tables); i++) {
        for (unsigned seed = 0; seed < ROUNDS; seed++) {
            round_trip(tables[i], RPC_CODEC_JSON, seed);
            round_trip(tables[i], RPC_CODEC_PROTO, seed);
        }
    }
}

static void defaults_are_left_out(void **state)
{
    AUTO_BUF struct buf text = BUF_INIT(TEXT_BYTES_MAX);
    struct sample sample = {0};
    struct err e = {0};
    (void)state;
    assert_int_equal(rpc_encode(&sample_message, RPC_CODEC_PROTO, &sample, &text, &e), 0);
    assert_int_equal(text.len, 0);
    assert_int_equal(rpc_encode(&sample_message, RPC_CODEC_JSON, &sample, &text, &e), 0);
    assert_string_equal(text.p, "{}");
}

static void absent_strings_are_empty_and_not_null(void **state)
{
    struct sample got;
    struct err e = {0};
    struct arena a;
    (void)state;
    arena_init(&a, ARENA_BYTES);
    assert_int_equal(
        rpc_decode(&sample_message, RPC_CODEC_JSON, SLICE_LIT("{\"self\":{}}"), &a, &got, &e), 0);
    assert_string_equal(got.text.p, "");
    assert_string_equal(got.self->opt_text.p, "");
    assert_int_equal(
        rpc_decode(&sample_message, RPC_CODEC_PROTO, (struct slice){0}, &a, &got, &e), 0);
    assert_string_equal(got.text.p, "");
    assert_null(got.inner);
    arena_done(&a);
}

static void set_defaults_are_kept(void **state)
{
    struct sample sent = {.has_opt_int32 = true, .has_one_inner = true, .has_two_bytes = true};
    struct sample got;
    struct err e = {0};
    struct arena a;
    (void)state;
    arena_init(&a, ARENA_BYTES);
    for (int codec = 0; codec < 2; codec++) {
        AUTO_BUF struct buf text = BUF_INIT(TEXT_BYTES_MAX);
        assert_int_equal(rpc_encode(&sample_message, (enum rpc_codec)codec, &sent, &text, &e), 0);
        assert_int_equal(
            rpc_decode(&sample_message, (enum rpc_codec)codec, buf_slice(&text), &a, &got, &e), 0);
        assert_true(got.has_opt_int32 && got.has_one_inner && got.has_two_bytes);
        assert_false(got.has_opt_text || got.has_one_text || got.has_two_flag);
        assert_non_null(got.one_inner); /* a member without contents is an empty message */
    }
    arena_done(&a);
}

static void strings_must_be_utf8_on_the_way_out(void **state)
{
    struct sample_inner inner = {.text = SLICE_LIT("\xff")};
    struct sample in = {.inner = &inner};
    struct sample out = {.self = &in};
    struct rpc_entry entry = {SLICE_LIT("\xc3"), SLICE_LIT("")};
    struct sample_inner bad_key = {.labels = {&entry, 1}};
    (void)state;
    for (int codec = 0; codec < 2; codec++) {
        AUTO_BUF struct buf text = BUF_INIT(TEXT_BYTES_MAX);
        struct err e = {0};
        assert_int_equal(rpc_encode(&sample_message, (enum rpc_codec)codec, &out, &text, &e), -1);
        assert_int_equal(e.kind, ERR_INVALID);
        assert_string_equal(e.where, "self.inner.text");
        assert_int_equal(
            rpc_encode(&sample_inner_message, (enum rpc_codec)codec, &bad_key, &text, &e), -1);
        assert_string_equal(e.where, "labels");
    }
}

static void buffer_bound_is_an_error(void **state)
{
    struct sample_inner inner = {.text = SLICE_LIT("0123456789")};
    struct sample sample = {.inner = &inner, .bytes = SLICE_LIT("0123456789")};
    (void)state;
    for (size_t max = 0; max < 24; max++) {
        AUTO_BUF struct buf text = BUF_INIT(max);
        struct err e = {0};
        assert_int_equal(rpc_encode(&sample_message, RPC_CODEC_PROTO, &sample, &text, &e), -1);
        assert_int_equal(e.kind, ERR_TOO_LARGE);
    }
}

static void codes_follow_the_protocol(void **state)
{
    (void)state;
    for (int kind = ERR_INVALID; kind < ERR_KIND_COUNT; kind++) {
        const char *code = rpc_code_from_kind((enum err_kind)kind);
        int status = rpc_http_status_from_code(code);
        assert_true(status >= 400 && status < 600);
        /* What a code comes back as has that same code. */
        assert_string_equal(rpc_code_from_kind(rpc_kind_from_code(slice_cstr(code))), code);
    }
    assert_string_equal(rpc_code_from_kind(ERR_INVALID), "invalid_argument");
    assert_string_equal(rpc_code_from_kind(ERR_TOO_LARGE), "resource_exhausted");
    assert_string_equal(rpc_code_from_kind(ERR_TIMEOUT), "deadline_exceeded");
    assert_string_equal(rpc_code_from_kind(ERR_UNAUTHORIZED), "unauthenticated");
    assert_int_equal(rpc_kind_from_code(SLICE_LIT("permission_denied")), ERR_FORBIDDEN);
    assert_int_equal(rpc_kind_from_code(SLICE_LIT("made_up")), ERR_INTERNAL);
    assert_int_equal(rpc_http_status_from_code("canceled"), 499);
    assert_int_equal(rpc_http_status_from_code("failed_precondition"), 400);
    assert_int_equal(rpc_http_status_from_code("aborted"), 409);
    assert_int_equal(rpc_http_status_from_code("unimplemented"), 501);
    assert_int_equal(rpc_http_status_from_code("made_up"), 500);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_message_comes_back),
        cmocka_unit_test(defaults_are_left_out),
        cmocka_unit_test(absent_strings_are_empty_and_not_null),
        cmocka_unit_test(set_defaults_are_kept),
        cmocka_unit_test(strings_must_be_utf8_on_the_way_out),
        cmocka_unit_test(buffer_bound_is_an_error),
        cmocka_unit_test(codes_follow_the_protocol),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
