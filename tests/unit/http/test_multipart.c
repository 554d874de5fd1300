/* SPDX-License-Identifier: Apache-2.0 */
/* multipart/form-data, fed in pieces of every size. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <cmocka.h>

#include "base/cleanup.h"
#include "http/multipart.h"

struct feed {
    const char *p;
    size_t n;
    size_t piece; /* at most this many bytes a call */
    bool fails;   /* at the end: an error instead */
};

static ssize_t feed_source(void *ctx, void *dst, size_t n, struct err *e)
{
    struct feed *f = ctx;
    assert_true(n > 0);
    if (n > f->piece)
        n = f->piece;
    if (n > f->n)
        n = f->n;
    if (n == 0 && f->fails)
        return err_set(e, ERR_TIMEOUT, "no more");
    memcpy(dst, f->p, n);
    f->p += n;
    f->n -= n;
    return (ssize_t)n;
}

static struct feed feed_of(const char *text, size_t piece)
{
    return (struct feed){.p = text, .n = strlen(text), .piece = piece};
}

#define TYPE SLICE_LIT("multipart/form-data; boundary=XbX")

/* Writes "name|filename|type|data\n" for each part; the error's kind at the end, if any. */
static void describe(struct slice type, struct feed *f, size_t read_piece, struct buf *out)
{
    struct err e = {0};
    struct multipart_part part;
    struct multipart *m = multipart_open(type, feed_source, f, &e);
    int rc = m ? 1 : -1;
    while (m && (rc = multipart_next(m, &part, &e)) > 0) {
        char piece[64];
        ssize_t n;
        buf_printf(out, "%s|%s|%s|", part.name, part.has_filename ? part.filename : "-",
            part.content_type);
        while ((n = multipart_read(m, piece, read_piece, &e)) > 0)
            buf_append(out, piece, (size_t)n);
        if ((rc = (int)n) < 0)
            break;
        buf_append_char(out, '\n');
    }
    if (rc < 0)
        buf_printf(out, "!%s", err_kind_name(e.kind));
    (void)multipart_close(m);
}

static void assert_described(struct slice type, const char *body, const char *expected)
{
    static const size_t read_pieces[] = {1, 7, 64};
    for (size_t piece = 1; piece <= strlen(body) + 1; piece++)
        for (size_t i = 0; i < ARRAY_LEN(read_pieces); i++) {
            AUTO_BUF struct buf out = BUF_INIT(1 << 20);
            struct feed f = feed_of(body, piece);
            describe(type, &f, read_pieces[i], &out);
            assert_string_equal(out.p ? out.p : "", expected);
        }
}

#define CD "Content-Disposition: form-data; "

static void test_good(void **state)
{
    static const struct {
        const char *body;
        const char *expected;
    } cases[] = {
        {"--XbX--", ""},
        {"--XbX--\r\nepilogue --XbX", ""},
        {"--XbX\r\n" CD "name=a\r\n\r\nv\r\n--XbX--\r\n", "a|-||v\n"},
        {"--XbX\r\n" CD "name=\"a\"\r\n\r\n\r\n--XbX--", "a|-||\n"},
        {"preamble\r\n--XbX\r\n" CD "name=a\r\n\r\nv\r\n--XbX--", "a|-||v\n"},
        {"--XbX\r\n" CD
         "name=\"a b\"; filename=\"C:\\x\\\"y\\\\.txt\"\r\nContent-Type: text/plain\r\n"
         "\r\none\r\ntwo\r\n\r\n--XbX\r\ncontent-disposition:form-data;filename=\"\";name=c\r\n"
         "Content-Transfer-Encoding: binary\r\nX-Other: 1\r\n\r\n--XbX\r\n-\r\n--Xb\r\r\n--XbX--",
            "a b|C:\\x\"y\\.txt|text/plain|one\r\ntwo\r\n\nc|||--XbX\r\n-\r\n--Xb\r\n"},
        {"--XbX\r\n" CD "name=f; filename=\"x\"; filename*=utf-8''%C3%A9%20z\r\n\r\n\r\n--XbX--",
            "f|\xc3\xa9 z||\n"},
        {"--XbX\r\n" CD "name=f; filename*=UTF-8''y; filename=\"x\"\r\n\r\n\r\n--XbX--", "f|y||\n"},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++)
        assert_described(TYPE, cases[i].body, cases[i].expected);
}

static void test_malformed(void **state)
{
    static const struct {
        const char *body;
        const char *expected;
    } cases[] = {
        {"", "!invalid_request"},
        {"no boundary at all", "!invalid_request"},
        {"--XbX", "!invalid_request"},
        {"--XbX-", "!invalid_request"},
        {"--XbX \r\n", "!invalid_request"},
        {"--XbXy\r\n", "!invalid_request"},
        {"--XbX\n" CD "name=a\n\nv\n--XbX--", "!invalid_request"},
        {"--XbX\r\n\r\nv\r\n--XbX--", "!invalid_request"},
        {"--XbX\r\n" CD "name=a", "!invalid_request"},
        {"--XbX\r\n" CD "name=a\r\n\r\nv", "a|-||v!invalid_request"},
        {"--XbX\r\n" CD "name=a\r\n\r\nv--XbX--", "a|-||v--XbX--!invalid_request"},
        {"--XbX\r\n" CD "name=a\r\n\r\nv\r\n--XbX", "a|-||v!invalid_request"},
        {"--XbX\r\n" CD "name=a\r\n\r\nv\r\n--XbX--XbX", "a|-||v\n"},
        {"--XbX\r\n" CD "name=a; name=b\r\n\r\n", "!invalid_request"},
        {"--XbX\r\n" CD "name=a; filename=b; filename=c\r\n\r\n", "!invalid_request"},
        {"--XbX\r\n" CD "filename=b\r\n\r\n", "!invalid_request"},
        {"--XbX\r\n" CD "name=\"a\r\n\r\n", "!invalid_request"},
        {"--XbX\r\n" CD "name=\r\n\r\n", "!invalid_request"},
        {"--XbX\r\n" CD "name=a b\r\n\r\n", "!invalid_request"},
        {"--XbX\r\n" CD "name=a;\r\n\r\n", "!invalid_request"},
        {"--XbX\r\n" CD "name=a\r\n" CD "name=a\r\n\r\n", "!invalid_request"},
        {"--XbX\r\nContent-Disposition: attachment; name=a\r\n\r\n", "!invalid_request"},
        {"--XbX\r\n" CD "name=a\r\nbad header\r\n\r\n", "!invalid_request"},
        {"--XbX\r\n" CD "name=a\r\nContent-Transfer-Encoding: base64\r\n\r\n", "!invalid_request"},
        {"--XbX\r\n" CD "name=a; filename*=latin1''x\r\n\r\n", "!invalid_request"},
        {"--XbX\r\n" CD "name=a; filename*=utf-8''%00\r\n\r\n", "!invalid_request"},
        {"--XbX\r\n" CD "name=a; filename*=utf-8''%FF\r\n\r\n", "!invalid_request"},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++)
        assert_described(TYPE, cases[i].body, cases[i].expected);
}

static void test_content_types(void **state)
{
    static const struct {
        const char *type;
        bool good;
    } cases[] = {
        {"multipart/form-data; boundary=XbX", true},
        {"Multipart/Form-Data;charset=utf-8 ; BOUNDARY=\"XbX\"", true},
        {"multipart/form-data", false},
        {"multipart/form-data; boundary=", false},
        {"multipart/form-data; boundary=\"\"", false},
        {"multipart/form-data; boundary=\"XbX", false},
        {"multipart/form-data; boundary=\"XbX \"", false},
        {"multipart/form-data; boundary=\"X{b\"", false},
        {"multipart/form-data; boundary=XbX; boundary=XbX", false},
        {"multipart/form-data boundary=XbX", false},
        {"multipart/mixed; boundary=XbX", false},
        {"application/json", false},
        {"", false},
        /* 70 characters, 71 characters */
        {"multipart/form-data; boundary="
         "0123456789012345678901234567890123456789012345678901234567890123456789",
            true},
        {"multipart/form-data; boundary="
         "01234567890123456789012345678901234567890123456789012345678901234567890",
            false},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct feed f = feed_of("", 1);
        struct err e = {0};
        struct multipart *m = multipart_open(slice_cstr(cases[i].type), feed_source, &f, &e);
        assert_int_equal(m != NULL, cases[i].good);
        if (!m)
            assert_int_equal(e.kind, ERR_MEDIA_TYPE);
        (void)multipart_close(m);
    }
    struct err e = {0};
    assert_null(multipart_open(slice_of(NULL, 0), feed_source, NULL, &e));
}

/* Names at and over their bounds, heads that never end. */
static void test_head_bounds(void **state)
{
    static const struct {
        const char *before;
        size_t pad;
        const char *after;
        bool good;
    } cases[] = {
        {CD "name=", MULTIPART_NAME_MAX, "", true},
        {CD "name=", MULTIPART_NAME_MAX + 1, "", false},
        {CD "name=a; filename=", MULTIPART_FILENAME_MAX, "", true},
        {CD "name=a; filename=", MULTIPART_FILENAME_MAX + 1, "", false},
        {CD "name=a\r\nContent-Type: ", 127, "", true},
        {CD "name=a\r\nContent-Type: ", 128, "", false},
        {CD "name=a\r\nX: ", 8000, "", true},
        {CD "name=a\r\nX: ", 20000, "", false},
        {CD "name=a\r\nX: ", 1000000, "", false},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        AUTO_BUF struct buf body = BUF_INIT(2 << 20);
        AUTO_BUF struct buf out = BUF_INIT(2 << 20);
        struct feed f;
        buf_printf(&body, "--XbX\r\n%s", cases[i].before);
        for (size_t n = 0; n < cases[i].pad; n++)
            buf_append_char(&body, 'n');
        buf_printf(&body, "%s\r\n\r\ndata\r\n--XbX--", cases[i].after);
        f = feed_of(body.p, 4000);
        describe(TYPE, &f, 64, &out);
        assert_int_equal(strstr(out.p, "|data\n") != NULL, cases[i].good);
        assert_int_equal(strstr(out.p, "!invalid_request") == NULL, cases[i].good);
    }
}

static void test_many_headers(void **state)
{
    AUTO_BUF struct buf body = BUF_INIT(1 << 20);
    AUTO_BUF struct buf out = BUF_INIT(1 << 20);
    struct feed f;
    buf_append_cstr(&body, "--XbX\r\n" CD "name=a\r\n");
    for (int i = 0; i < 16; i++)
        buf_append_cstr(&body, "A: b\r\n");
    buf_append_cstr(&body, "\r\n\r\n--XbX--");
    f = feed_of(body.p, 100);
    describe(TYPE, &f, 64, &out);
    assert_string_equal(out.p, "!invalid_request");
}

/* Data much larger than the window, full of almost-delimiters, and reading whole parts. */
static void test_large_part(void **state)
{
    AUTO_BUF struct buf data = BUF_INIT(4 << 20);
    AUTO_BUF struct buf body = BUF_INIT(4 << 20);
    struct multipart_part part;
    struct err e = {0};
    while (data.len < 1000000)
        buf_printf(&data, "\r\n--Xb%zu\r\r\n-\n\r\n--XBX", data.len);
    buf_printf(&body,
        "--XbX\r\n" CD "name=a\r\n\r\n%s\r\n--XbX\r\n" CD "name=b\r\n\r\nsmall\r\n--XbX--", data.p);
    for (int bounded = 0; bounded < 2; bounded++) {
        AUTO_BUF struct buf got = BUF_INIT(bounded ? data.len - 1 : data.len);
        struct feed f = feed_of(body.p, 3001);
        struct multipart *m = multipart_open(TYPE, feed_source, &f, &e);
        assert_non_null(m);
        assert_int_equal(multipart_next(m, &part, &e), 1);
        if (bounded) {
            assert_int_equal(multipart_read_all(m, &got, &e), -1);
            assert_int_equal(e.kind, ERR_TOO_LARGE);
        } else {
            assert_int_equal(multipart_read_all(m, &got, &e), 0);
            assert_int_equal(got.len, data.len);
            assert_memory_equal(got.p, data.p, data.len);
        }
        /* also what was not read is skipped */
        assert_int_equal(multipart_next(m, &part, &e), 1);
        assert_string_equal(part.name, "b");
        assert_int_equal(multipart_next(m, &part, &e), 0);
        assert_int_equal(multipart_next(m, &part, &e), 0);
        (void)multipart_close(m);
    }
}

/* An error of the source comes through and stays. */
static void test_source_error(void **state)
{
    struct feed f = feed_of("--XbX\r\n" CD "name=a\r\n\r\nv", 100);
    struct multipart_part part;
    struct err e = {0};
    char byte[2];
    struct multipart *m = multipart_open(TYPE, feed_source, &f, &e);
    f.fails = true;
    assert_int_equal(multipart_next(m, &part, &e), 1);
    assert_int_equal(multipart_read(m, byte, 2, &e), 1);
    assert_int_equal(multipart_read(m, byte, 2, &e), -1);
    assert_int_equal(e.kind, ERR_TIMEOUT);
    assert_int_equal(multipart_read(m, byte, 2, &e), -1);
    assert_int_equal(multipart_next(m, &part, &e), -1);
    (void)multipart_close(m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_good),
        cmocka_unit_test(test_malformed),
        cmocka_unit_test(test_content_types),
        cmocka_unit_test(test_head_bounds),
        cmocka_unit_test(test_many_headers),
        cmocka_unit_test(test_large_part),
        cmocka_unit_test(test_source_error),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
