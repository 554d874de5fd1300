/* SPDX-License-Identifier: Apache-2.0 */
/* Heads, chunked framing, percent-encoding and status tables. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>

#include "base/cleanup.h"
#include "http/parse.h"
#include "http/status.h"
#include "../../vectors/http-requests.h"

/* Decodes a whole chunked body in pieces of `piece` bytes. True when it ended well, with nothing
 * left; the body goes to `dst` (at least n bytes). */
static bool decode_chunks(const char *p, size_t n, size_t piece, char *dst, size_t *ret_n)
{
    struct http_chunks c = {0};
    struct err e;
    bool end = false;
    size_t at = 0;
    *ret_n = 0;
    while (at < n && !end) {
        struct slice run;
        size_t give = n - at < piece ? n - at : piece;
        ssize_t used = http_chunks_feed(&c, p + at, give, &run, &end, &e);
        if (used < 0)
            return false;
        assert_true(used > 0 && (size_t)used <= give && run.n <= (size_t)used);
        memcpy(dst + *ret_n, run.p, run.n);
        *ret_n += run.n;
        at += (size_t)used;
    }
    return end && at == n;
}

/* True when the bytes are one acceptable request with all of its body. */
static bool accepts(const char *p, size_t n, size_t piece)
{
    struct http_request_head h;
    struct err e;
    ssize_t len = 0;
    char body[256];
    size_t body_n;
    for (size_t have = piece < n ? piece : n; len == 0; have += piece) {
        if (have > n)
            have = n;
        len = http_parse_request(p, have, &h, &e);
        if (have == n)
            break;
    }
    if (len <= 0)
        return false;
    if (h.framing == HTTP_BODY_CHUNKED)
        return decode_chunks(p + len, n - (size_t)len, piece, body, &body_n);
    return true;
}

static void test_vectors(void **state)
{
    int wrong = 0;
    for (size_t i = 0; i < ARRAY_LEN(V); i++) {
        bool once = accepts(V[i].s, V[i].l, V[i].l);
        bool dripped = accepts(V[i].s, V[i].l, 1);
        if (once == V[i].expect_reject || dripped == V[i].expect_reject) {
            print_error("wrong: %s (once %d, byte by byte %d)\n", V[i].n, once, dripped);
            wrong++;
        }
    }
    assert_int_equal(wrong, 0);
    assert_int_equal(ARRAY_LEN(V), 43);
}

static ssize_t parse(const char *text, struct http_request_head *ret, struct err *e)
{
    *e = (struct err){0};
    return http_parse_request(text, strlen(text), ret, e);
}

static void assert_slice(struct slice s, const char *expected)
{
    assert_int_equal(s.n, strlen(expected));
    assert_memory_equal(s.p, expected, s.n);
}

static void test_request_fields(void **state)
{
    struct http_request_head h;
    struct err e;
    const char *text = "\r\nPOST /a%20b?x=1&y HTTP/1.1\r\nHost: h:1\r\nX-A:\t v w \r\n"
                       "content-length: 12\r\nExpect: 100-Continue\r\nEmpty:\r\n\r\nbody";
    assert_int_equal(parse(text, &h, &e), strlen(text) - 4);
    assert_slice(h.method, "POST");
    assert_slice(h.target, "/a%20b?x=1&y");
    assert_slice(h.path, "/a%20b");
    assert_slice(h.query, "x=1&y");
    assert_int_equal(h.n_headers, 5);
    assert_slice(h.headers[1].name, "X-A");
    assert_slice(http_header_find(h.headers, h.n_headers, "x-a"), "v w");
    assert_int_equal(http_header_find(h.headers, h.n_headers, "Empty").n, 0);
    assert_non_null(http_header_find(h.headers, h.n_headers, "Empty").p);
    assert_null(http_header_find(h.headers, h.n_headers, "Absent").p);
    assert_int_equal(h.framing, HTTP_BODY_LENGTH);
    assert_int_equal(h.content_length, 12);
    assert_int_equal(h.minor, 1);
    assert_true(h.keep_alive);
    assert_true(h.expect_continue);
}

static void test_request_targets(void **state)
{
    static const struct {
        const char *line;
        const char *path;
        const char *query;
    } good[] = {
        {"GET / ", "/", ""},
        {"GET /? ", "/", ""},
        {"GET /a?b?c ", "/a", "b?c"},
        {"GET http://h ", "/", ""},
        {"GET HTTP://h?q ", "/", "q"},
        {"GET https://h:1/p?q ", "/p", "q"},
        {"OPTIONS * ", "*", ""},
        {"CONNECT h:80 ", "h:80", ""},
    };
    static const char *const bad[] = {"GET * ", "GET http:// ", "GET http:///p ", "GET a ",
        "GET /#f ", "GET ftp://h/ ", "GET ?q ", "OPTIONS ** "};
    struct http_request_head h;
    struct err e;
    char text[128];
    for (size_t i = 0; i < ARRAY_LEN(good); i++) {
        (void)snprintf(text, sizeof text, "%sHTTP/1.1\r\nHost: x\r\n\r\n", good[i].line);
        assert_true(parse(text, &h, &e) > 0);
        assert_slice(h.path, good[i].path);
        assert_slice(h.query, good[i].query);
    }
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        (void)snprintf(text, sizeof text, "%sHTTP/1.1\r\nHost: x\r\n\r\n", bad[i]);
        assert_int_equal(parse(text, &h, &e), -1);
        assert_int_equal(e.kind, ERR_INVALID);
    }
}

static void test_request_keep_alive(void **state)
{
    static const struct {
        const char *rest;
        bool keep;
    } cases[] = {
        {"1.1\r\nHost: x\r\n\r\n", true},
        {"1.1\r\nHost: x\r\nConnection: close\r\n\r\n", false},
        {"1.1\r\nHost: x\r\nConnection: x, CLOSE\r\n\r\n", false},
        {"1.1\r\nHost: x\r\nConnection: keep-alive\r\nConnection: close\r\n\r\n", false},
        {"1.1\r\nHost: x\r\nConnection: closed\r\n\r\n", true},
        {"1.0\r\n\r\n", false},
        {"1.0\r\nConnection: Keep-Alive\r\n\r\n", true},
    };
    struct http_request_head h;
    struct err e;
    char text[160];
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        (void)snprintf(text, sizeof text, "GET / HTTP/%s", cases[i].rest);
        assert_true(parse(text, &h, &e) > 0);
        assert_int_equal(h.keep_alive, cases[i].keep);
        assert_int_equal(h.framing, HTTP_BODY_NONE);
    }
}

/* What each refusal is called, so that the server can answer the right status. */
static void test_request_refusals(void **state)
{
    static const struct {
        const char *text;
        enum err_kind kind;
        const char *where;
    } cases[] = {
        {"GET / HTTP/2.0\r\nHost: x\r\n\r\n", ERR_UNSUPPORTED, "version"},
        {"GET / HTTQ/1.1\r\nHost: x\r\n\r\n", ERR_INVALID, ""},
        {"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n\r\n", ERR_UNSUPPORTED,
            "Transfer-Encoding"},
        {"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", ERR_INVALID, ""},
        {"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9223372036854775808\r\n\r\n", ERR_INVALID,
            "Content-Length"},
        {"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 01\r\n\r\n", ERR_INVALID, "Content-Length"},
        {"POST / HTTP/1.1\r\nHost: x\r\nContent-Length:\r\n\r\n", ERR_INVALID, "Content-Length"},
        {"GET / HTTP/1.1\r\nHost: a b\r\n\r\n", ERR_INVALID, "Host"},
        {"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", ERR_INVALID, "Host"},
        {"GET / HTTP/1.0\r\nHost: a\r\nHost: a\r\n\r\n", ERR_INVALID, "Host"},
        {"GET / HTTP/1.1\r\nHost: x\r\nExpect: magic\r\n\r\n", ERR_INVALID, "Expect"},
        {"GET / HTTP/1.1\r\nHost: x\r\nno colon\r\n\r\n", ERR_INVALID, ""},
        {"GET / HTTP/1.1\r\nHost: x\r\n: v\r\n\r\n", ERR_INVALID, ""},
        {"GET / HTTP/1.1\r\nHost: x\r\nA: \x7f\r\n\r\n", ERR_INVALID, ""},
        {"\r\n\r\n\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n", ERR_INVALID, ""},
        {"\r\n\r\n\r\n", ERR_INVALID, ""},
        {"\n", ERR_INVALID, ""},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct http_request_head h;
        struct err e;
        assert_int_equal(parse(cases[i].text, &h, &e), -1);
        assert_int_equal(e.kind, cases[i].kind);
        assert_string_equal(e.where, cases[i].where);
    }
}

/* A request of exactly `n` bytes whose target or one header is padded. */
static char *padded_request(size_t n, bool pad_target)
{
    static const char start[] = "GET /";
    static const char middle[] = " HTTP/1.1\r\nHost: x\r\nA: ";
    char *p = malloc(n + 1);
    size_t fixed = sizeof start - 1 + sizeof middle - 1 + 4;
    size_t pad = n - fixed;
    char *at = p;
    assert_non_null(p);
    at = mempcpy(at, start, sizeof start - 1);
    if (pad_target)
        at = (char *)memset(at, 'a', pad) + pad;
    at = mempcpy(at, middle, sizeof middle - 1);
    if (!pad_target)
        at = (char *)memset(at, 'a', pad) + pad;
    memcpy(at, "\r\n\r\n", 5);
    return p;
}

static void test_request_bounds(void **state)
{
    struct http_request_head h;
    struct err e;
    {
        AUTO_FREE char *fits = padded_request(HTTP_HEAD_BYTES_MAX, false);
        assert_int_equal(parse(fits, &h, &e), HTTP_HEAD_BYTES_MAX);
        assert_int_equal(http_parse_request(fits, HTTP_HEAD_BYTES_MAX - 1, &h, &e), 0);
    }
    {
        AUTO_FREE char *over = padded_request(HTTP_HEAD_BYTES_MAX + 1, false);
        assert_int_equal(parse(over, &h, &e), -1);
        assert_int_equal(e.kind, ERR_HEADERS_TOO_LARGE);
    }
    {
        AUTO_FREE char *target = padded_request(9000, true);
        assert_int_equal(parse(target, &h, &e), -1);
        assert_int_equal(e.kind, ERR_TOO_LARGE);
        assert_string_equal(e.where, "target");
        /* without its end it is refused as well, and not waited for */
        assert_int_equal(http_parse_request(target, 8900, &h, &e), -1);
        assert_int_equal(e.kind, ERR_TOO_LARGE);
    }
}

static void test_request_header_count(void **state)
{
    for (int extra = HTTP_HEADERS_MAX - 1; extra <= HTTP_HEADERS_MAX; extra++) {
        char text[1024] = "GET / HTTP/1.1\r\nHost: x\r\n";
        struct http_request_head h;
        struct err e;
        for (int i = 0; i < extra; i++)
            strcat(text, "a: b\r\n");
        strcat(text, "\r\n");
        if (extra < HTTP_HEADERS_MAX) {
            assert_int_equal(parse(text, &h, &e), strlen(text));
            assert_int_equal(h.n_headers, HTTP_HEADERS_MAX);
        } else {
            assert_int_equal(parse(text, &h, &e), -1);
            assert_int_equal(e.kind, ERR_HEADERS_TOO_LARGE);
        }
    }
}

static void test_response_good(void **state)
{
    static const struct {
        const char *text;
        int status;
        enum http_framing framing;
        uint64_t length;
        bool keep;
    } cases[] = {
        {"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n", 200, HTTP_BODY_LENGTH, 3, true},
        {"HTTP/1.1 200 \r\nTransfer-Encoding: Chunked\r\n\r\n", 200, HTTP_BODY_CHUNKED, 0, true},
        {"HTTP/1.1 200 OK\r\n\r\n", 200, HTTP_BODY_UNTIL_CLOSE, 0, false},
        {"HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n", 200, HTTP_BODY_LENGTH, 0, false},
        {"HTTP/1.1 204 No Content\r\n\r\n", 204, HTTP_BODY_NONE, 0, true},
        {"HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n", 304, HTTP_BODY_NONE, 9, true},
        {"HTTP/1.1 100 Continue\r\n\r\n", 100, HTTP_BODY_NONE, 0, true},
        {"HTTP/1.1 503 a \xc3\xa9\r\nConnection: close\r\nContent-Length: 1\r\n\r\n", 503,
            HTTP_BODY_LENGTH, 1, false},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct http_response_head h;
        struct err e;
        size_t n = strlen(cases[i].text);
        for (size_t have = 0; have < n; have++)
            assert_int_equal(http_parse_response(cases[i].text, have, &h, &e), 0);
        assert_int_equal(http_parse_response(cases[i].text, n, &h, &e), n);
        assert_int_equal(h.status, cases[i].status);
        assert_int_equal(h.framing, cases[i].framing);
        assert_int_equal(h.content_length, cases[i].length);
        assert_int_equal(h.keep_alive, cases[i].keep);
    }
}

static void test_response_refusals(void **state)
{
    static const char *const bad[] = {
        "HTTP/1.1 200\r\n\r\n",
        "HTTP/1.1  200 OK\r\n\r\n",
        "HTTP/1.1 099 OK\r\n\r\n",
        "HTTP/1.1 600 OK\r\n\r\n",
        "HTTP/1.1 20 OK\r\n\r\n",
        "HTTP/1.1 2000 OK\r\n\r\n",
        "HTTP/2.0 200 OK\r\n\r\n",
        "ICY 200 OK\r\n\r\n",
        "HTTP/1.1 200 OK\n\n",
        "HTTP/1.1 200 O\x01K\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
        "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        "HTTP/1.1 200 OK\r\nA : b\r\n\r\n",
        "\r\nHTTP/1.1 200 OK\r\n\r\n",
    };
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        struct http_response_head h;
        struct err e;
        assert_int_equal(http_parse_response(bad[i], strlen(bad[i]), &h, &e), -1);
    }
}

static void test_chunks_good(void **state)
{
    static const char text[] =
        "5\r\nhello\r\nA;x=\"y z\"\r\n0123456789\r\n000\r\nT: v\r\nU:\r\n\r\n";
    for (size_t piece = 1; piece <= sizeof text; piece++) {
        char body[sizeof text];
        size_t n;
        assert_true(decode_chunks(text, sizeof text - 1, piece, body, &n));
        assert_int_equal(n, 15);
        assert_memory_equal(body, "hello0123456789", 15);
    }
}

/* What follows the end belongs to the next message and is not touched. */
static void test_chunks_stop_at_end(void **state)
{
    struct http_chunks c = {0};
    struct slice run;
    struct err e;
    bool end;
    assert_int_equal(http_chunks_feed(&c, "0\r\n\r\nGET", 8, &run, &end, &e), 5);
    assert_true(end);
    assert_int_equal(run.n, 0);
    assert_int_equal(http_chunks_feed(&c, "GET", 3, &run, &end, &e), 0);
    assert_true(end);
}

static void test_chunks_refusals(void **state)
{
    static const char *const bad[] = {"\r\n", ";a\r\n", "g\r\n", "1 \r\nx", "-1\r\n", "0x1\r\n",
        "1\rx", "1\n", "1\r\nab", "1\r\na\n", "1\r\na\rx", "0\r\n\n", "0\r\n\rx", "0\r\n x: y\r\n",
        "0\r\nx\r\n", "0\r\nx: \x01\r\n", "0\r\nx: y\n", "8000000000000000\r\n",
        "00000000000000001\r\n", "1;a\x01\r\n"};
    char body[64];
    size_t n;
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        struct http_chunks c = {0};
        struct err e = {0};
        struct slice run;
        bool end = false;
        ssize_t used = 0;
        for (size_t at = 0; used >= 0 && at < strlen(bad[i]); at += (size_t)used)
            used = http_chunks_feed(&c, bad[i] + at, strlen(bad[i]) - at, &run, &end, &e);
        assert_int_equal(used, -1);
        assert_int_equal(e.kind, ERR_INVALID);
    }
    assert_false(decode_chunks("5\r\nhel", 6, 6, body, &n));
}

/* Endless extensions and trailers are cut off. */
static void test_chunks_bounds(void **state)
{
    static const char *const starts[] = {"1;", "0\r\nx:"};
    static const size_t bounds[] = {300, 9000};
    for (size_t i = 0; i < 2; i++) {
        struct http_chunks c = {0};
        struct err e;
        struct slice run;
        bool end;
        size_t fed = 0;
        assert_true(http_chunks_feed(&c, starts[i], strlen(starts[i]), &run, &end, &e) > 0);
        while (fed < bounds[i] && http_chunks_feed(&c, "a", 1, &run, &end, &e) == 1)
            fed++;
        assert_true(fed < bounds[i]);
    }
}

static void test_percent_decode(void **state)
{
    static const struct {
        const char *in;
        bool query;
        const char *out; /* NULL: refused */
    } cases[] = {
        {"", false, ""},
        {"a+b%2Bc", false, "a+b+c"},
        {"a+b%2Bc", true, "a b+c"},
        {"%C3%a9", false, "\xc3\xa9"},
        {"%", false, NULL},
        {"%4", false, NULL},
        {"%4g", false, NULL},
        {"%00", false, NULL},
        {"%%41", false, NULL},
        {"%2541", true, "%41"},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        char dst[32];
        size_t n = 99;
        bool ok = http_percent_decode(slice_cstr(cases[i].in), cases[i].query, dst, &n);
        assert_int_equal(ok, cases[i].out != NULL);
        if (ok) {
            assert_string_equal(dst, cases[i].out);
            assert_int_equal(n, strlen(cases[i].out));
        }
    }
}

static void test_status(void **state)
{
    assert_int_equal(http_status_from_kind(ERR_NOT_FOUND), 404);
    assert_int_equal(http_status_from_kind(ERR_BAD_STATE), 409);
    assert_int_equal(http_status_from_kind(ERR_HEADERS_TOO_LARGE), 431);
    assert_int_equal(http_status_from_kind(ERR_NO_SPACE), 507);
    for (int kind = 0; kind < ERR_KIND_COUNT; kind++) {
        int status = http_status_from_kind((enum err_kind)kind);
        assert_in_range(status, 400, 507);
        assert_string_not_equal(http_status_phrase(status), "Unknown");
    }
    assert_string_equal(http_status_phrase(404), "Not Found");
    assert_string_equal(http_status_phrase(299), "Unknown");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_vectors),
        cmocka_unit_test(test_request_fields),
        cmocka_unit_test(test_request_targets),
        cmocka_unit_test(test_request_keep_alive),
        cmocka_unit_test(test_request_refusals),
        cmocka_unit_test(test_request_bounds),
        cmocka_unit_test(test_request_header_count),
        cmocka_unit_test(test_response_good),
        cmocka_unit_test(test_response_refusals),
        cmocka_unit_test(test_chunks_good),
        cmocka_unit_test(test_chunks_stop_at_end),
        cmocka_unit_test(test_chunks_refusals),
        cmocka_unit_test(test_chunks_bounds),
        cmocka_unit_test(test_percent_decode),
        cmocka_unit_test(test_status),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
