/* SPDX-License-Identifier: Apache-2.0 */
/* WebSocket frames as pure functions: what the RFC allows and what it forbids. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "base/cleanup.h"
#include "http/sha1.h"
#include "http/ws_frame.h"

/* A header as bytes: SLICE_LIT keeps NULs. */
static const struct {
    struct slice bytes;
    enum ws_side sender;
    ssize_t result;
} headers[] = {
    {SLICE_LIT("\x81\x05"), WS_FROM_SERVER, 2},
    {SLICE_LIT("\x81\x85"
               "abcd"),
        WS_FROM_CLIENT, 6},
    {SLICE_LIT("\x82\x7e\x00\x7e"), WS_FROM_SERVER, 4},
    {SLICE_LIT("\x82\xfe\xff\xff"
               "abcd"),
        WS_FROM_CLIENT, 8},
    {SLICE_LIT("\x82\x7f\x00\x00\x00\x00\x00\x01\x00\x00"), WS_FROM_SERVER, 10},
    {SLICE_LIT("\x00\x00"), WS_FROM_SERVER, 2}, {SLICE_LIT("\x89\x7d"), WS_FROM_SERVER, 2},
    {SLICE_LIT(""), WS_FROM_SERVER, 0}, {SLICE_LIT("\x81"), WS_FROM_SERVER, 0},
    {SLICE_LIT("\x81\x85"
               "abc"),
        WS_FROM_CLIENT, 0},
    {SLICE_LIT("\x82\x7e\x00"), WS_FROM_SERVER, 0},
    {SLICE_LIT("\x81\x05"), WS_FROM_CLIENT, -1}, /* not masked */
    {SLICE_LIT("\x81\x85"
               "abcd"),
        WS_FROM_SERVER, -1},                     /* masked */
    {SLICE_LIT("\xc1\x05"), WS_FROM_SERVER, -1}, /* reserved bits */
    {SLICE_LIT("\xa1\x05"), WS_FROM_SERVER, -1}, {SLICE_LIT("\x91\x05"), WS_FROM_SERVER, -1},
    {SLICE_LIT("\x83\x00"), WS_FROM_SERVER, -1}, /* opcodes */
    {SLICE_LIT("\x8b\x00"), WS_FROM_SERVER, -1}, {SLICE_LIT("\x8f\x00"), WS_FROM_SERVER, -1},
    {SLICE_LIT("\x09\x00"), WS_FROM_SERVER, -1}, /* fragmented control */
    {SLICE_LIT("\x08\x00"), WS_FROM_SERVER, -1},
    {SLICE_LIT("\x89\x7e\x00\x7e"), WS_FROM_SERVER, -1}, /* long control */
    {SLICE_LIT("\x82\x7e\x00\x7d"), WS_FROM_SERVER, -1}, /* not minimal */
    {SLICE_LIT("\x82\x7f\x00\x00\x00\x00\x00\x00\xff\xff"), WS_FROM_SERVER, -1},
    {SLICE_LIT("\x82\x7f\x80\x00\x00\x00\x00\x00\x00\x00"), WS_FROM_SERVER, -1}, /* top bit */
};

static void test_parse(void **state)
{
    for (size_t i = 0; i < ARRAY_LEN(headers); i++) {
        struct ws_frame f;
        struct err e = {0};
        ssize_t n =
            ws_frame_parse(headers[i].bytes.p, headers[i].bytes.n, headers[i].sender, &f, &e);
        if (n != headers[i].result)
            fail_msg("row %zu: %zd", i, n);
        if (n < 0)
            assert_int_equal(e.kind, ERR_PROTOCOL);
    }
}

static void test_write_reads_back(void **state)
{
    static const uint64_t lengths[] = {0, 1, 125, 126, 127, 65535, 65536, 1u << 31, INT64_MAX};
    for (size_t i = 0; i < ARRAY_LEN(lengths); i++)
        for (int masked = 0; masked < 2; masked++) {
            struct ws_frame f = {.opcode = WS_OP_BINARY,
                .fin = i % 2 == 0,
                .masked = masked != 0,
                .mask = {1, 2, 3, 4},
                .length = lengths[i]};
            struct ws_frame back = {0};
            struct err e = {0};
            uint8_t head[WS_FRAME_HEAD_MAX];
            size_t n = ws_frame_write(&f, head);
            assert_int_equal(
                ws_frame_parse(head, n, masked ? WS_FROM_CLIENT : WS_FROM_SERVER, &back, &e), n);
            assert_true(back.length == f.length && back.fin == f.fin);
            assert_int_equal(back.opcode, WS_OP_BINARY);
            if (masked)
                assert_memory_equal(back.mask, f.mask, 4);
        }
}

static void test_mask(void **state)
{
    const uint8_t mask[4] = {0x11, 0x22, 0x33, 0x44};
    for (size_t offset = 0; offset < 9; offset++) {
        char text[40] = "the quick brown fox jumps over the dog";
        char want[40];
        for (size_t i = 0; i < sizeof text; i++)
            want[i] = (char)(text[i] ^ mask[(offset + i) % 4]);
        ws_mask(text, sizeof text, mask, offset);
        assert_memory_equal(text, want, sizeof text);
    }
}

static bool utf8_in_pieces(const char *s, size_t n, size_t piece)
{
    struct ws_utf8 u = {0};
    for (size_t at = 0; at < n; at += piece)
        if (!ws_utf8_feed(&u, s + at, n - at < piece ? n - at : piece))
            return false;
    return u.need == 0;
}

static void test_utf8(void **state)
{
    /* every sequence of three bytes of interest, against the function for whole texts */
    static const uint8_t bytes[] = {0x00, 0x41, 0x7f, 0x80, 0x8f, 0x90, 0x9f, 0xa0, 0xbf, 0xc0,
        0xc1, 0xc2, 0xdf, 0xe0, 0xe1, 0xed, 0xee, 0xef, 0xf0, 0xf1, 0xf3, 0xf4, 0xf5, 0xff};
    size_t k = ARRAY_LEN(bytes);
    for (size_t i = 0; i < k * k * k * k; i++) {
        const char s[4] = {(char)bytes[i % k], (char)bytes[i / k % k], (char)bytes[i / k / k % k],
            (char)bytes[i / k / k / k]};
        bool want = utf8_valid(s, 4);
        if (utf8_in_pieces(s, 4, 4) != want || utf8_in_pieces(s, 4, 1) != want)
            fail_msg("%02x %02x %02x %02x", s[0] & 255, s[1] & 255, s[2] & 255, s[3] & 255);
    }
}

static int feed(struct ws_assembly *a, enum ws_opcode op, bool fin, const char *text, struct err *e)
{
    struct ws_frame f = {.opcode = op, .fin = fin, .length = strlen(text)};
    if (ws_assembly_frame(a, &f, 10, e) < 0)
        return -1;
    return ws_is_control(op) ? 0 : ws_assembly_data(a, text, strlen(text), fin, e);
}

static void test_assembly(void **state)
{
    struct ws_assembly a = {0};
    struct err e = {0};
    assert_int_equal(feed(&a, WS_OP_TEXT, false, "a\xe2\x82", &e), 0); /* a euro sign, cut */
    assert_int_equal(feed(&a, WS_OP_PING, true, "p", &e), 0);
    assert_int_equal(feed(&a, WS_OP_CONTINUATION, true, "\xac", &e), 0);
    assert_false(a.open);
    assert_int_equal(feed(&a, WS_OP_CONTINUATION, true, "x", &e), -1);
    assert_int_equal(e.kind, ERR_PROTOCOL);
    assert_int_equal(feed(&a, WS_OP_BINARY, false, "\xff", &e), 0);
    assert_int_equal(feed(&a, WS_OP_TEXT, true, "x", &e), -1);
    assert_int_equal(e.kind, ERR_PROTOCOL);
    a = (struct ws_assembly){0};
    assert_int_equal(feed(&a, WS_OP_TEXT, false, "12345", &e), 0);
    assert_int_equal(feed(&a, WS_OP_CONTINUATION, false, "12345", &e), 0);
    assert_int_equal(feed(&a, WS_OP_CONTINUATION, true, "6", &e), -1);
    assert_int_equal(e.kind, ERR_TOO_LARGE);
    assert_int_equal(ws_code_of(&e), WS_CODE_TOO_BIG);
    a = (struct ws_assembly){0};
    assert_int_equal(feed(&a, WS_OP_TEXT, true, "\xe2\x82", &e), -1); /* ends inside */
    assert_int_equal(e.kind, ERR_INVALID);
    assert_int_equal(ws_code_of(&e), WS_CODE_NOT_UTF8);
    a = (struct ws_assembly){0};
    assert_int_equal(feed(&a, WS_OP_TEXT, false, "\xff", &e), -1); /* at once */
}

static void test_close(void **state)
{
    struct err e = {0};
    struct slice reason;
    unsigned code = 0;
    assert_int_equal(ws_close_parse(slice_of(NULL, 0), &code, &reason, &e), 0);
    assert_int_equal(code, WS_CODE_NO_STATUS);
    assert_int_equal(ws_close_parse(SLICE_LIT("\x0f\xa1paused"), &code, &reason, &e), 0);
    assert_int_equal(code, 4001);
    assert_true(slice_is(reason, "paused"));
    assert_int_equal(ws_close_parse(SLICE_LIT("\x03"), &code, &reason, &e), -1);
    assert_int_equal(ws_close_parse(SLICE_LIT("\x03\xed"), &code, &reason, &e), -1); /* 1005 */
    assert_int_equal(e.kind, ERR_PROTOCOL);
    assert_int_equal(ws_close_parse(SLICE_LIT("\x03\xe8\xff"), &code, &reason, &e), -1);
    assert_int_equal(e.kind, ERR_INVALID);
    static const unsigned bad[] = {0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65535};
    static const unsigned good[] = {1000, 1003, 1007, 1014, 3000, 4001, 4999};
    for (size_t i = 0; i < ARRAY_LEN(bad); i++)
        assert_false(ws_code_valid(bad[i]));
    for (size_t i = 0; i < ARRAY_LEN(good); i++)
        assert_true(ws_code_valid(good[i]));
}

static void test_handshake_values(void **state)
{
    char text[WS_ACCEPT_CHARS + 1];
    ws_accept_value(SLICE_LIT("dGhlIHNhbXBsZSBub25jZQ=="), text); /* the RFC's example */
    assert_string_equal(text, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    assert_true(ws_key_valid(SLICE_LIT("dGhlIHNhbXBsZSBub25jZQ==")));
    assert_false(ws_key_valid(SLICE_LIT("dGhlIHNhbXBsZSBub25jZQ")));
    assert_false(ws_key_valid(SLICE_LIT("dGhlIHNhbXBsZSBub25jZQ=!")));
    assert_false(ws_key_valid(SLICE_LIT("dGhlIHNhbXBsZSBub25jZSEh")));
    assert_false(ws_key_valid(slice_of(NULL, 0)));
}

static void test_sha1(void **state)
{
    static const struct {
        size_t n; /* that many 'a' */
        const char *hex;
    } rows[] = {
        {0, "da39a3ee5e6b4b0d3255bfef95601890afd80709"},
        {1, "86f7e437faa5a7fce15d1ddcb9eaeaea377667b8"},
        {55, "c1c8bbdc22796e28c0e15163d20899b65621d65a"},
        {56, "c2db330f6083854c99d4b5bfb6e8f29f201be699"},
        {64, "0098ba824b5c16427bd7a1122a5a442a25ec644d"},
        {119, "ee971065aaa017e0632a8ca6c77bb3bf8b1dfc56"},
        {120, "f34c1488385346a55709ba056ddd08280dd4c6d6"},
    };
    char text[128];
    char hex[2 * SHA1_BYTES + 1];
    uint8_t digest[SHA1_BYTES];
    memset(text, 'a', sizeof text);
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        sha1_digest(text, rows[i].n, digest);
        hex_encode(digest, sizeof digest, hex);
        assert_string_equal(hex, rows[i].hex);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_parse),
        cmocka_unit_test(test_write_reads_back),
        cmocka_unit_test(test_mask),
        cmocka_unit_test(test_utf8),
        cmocka_unit_test(test_assembly),
        cmocka_unit_test(test_close),
        cmocka_unit_test(test_handshake_values),
        cmocka_unit_test(test_sha1),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
