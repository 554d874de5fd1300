/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Streaming reader of multipart/form-data.
 *
 * Theory of operation: one window of fixed size slides over the body. Of its bytes the first
 * `clean` are known to be data of the current part: no delimiter begins in them. A delimiter is
 * CRLF, two dashes and the boundary; the CRLF that the very first one lacks is put in front of the
 * body, so that what comes before it is a part like any other, which multipart_next skips. Behind a
 * delimiter come CRLF and the next part's head, or two dashes and the end; anything else is
 * malformed. What follows the end is not read.
 */
#include "http/multipart.h"

#include <stdlib.h>

#include "http/http_int.h"

enum {
    BOUNDARY_MAX = 70,
    DELIMITER_MAX = 4 + BOUNDARY_MAX,
    WINDOW_BYTES = 16 * 1024,
    PART_HEAD_MAX = 8 * 1024,
    PART_HEADERS_MAX = 16,
    READ_ALL_BYTES = 16 * 1024,
};

enum multipart_state {
    IN_DATA, /* of a part or before the first one */
    AT_HEAD, /* behind a delimiter */
    AT_END,  /* behind the last delimiter */
    FAILED,
};

struct multipart {
    multipart_source *source;
    void *ctx;
    enum multipart_state state;
    bool source_ended;
    char delimiter[DELIMITER_MAX];
    size_t delimiter_n;
    size_t start; /* the window is [start, end) of `bytes` */
    size_t end;
    size_t clean;
    char bytes[WINDOW_BYTES];
};

static struct slice window(const struct multipart *m)
{
    return slice_of(m->bytes + m->start, m->end - m->start);
}

static int malformed(struct multipart *m, struct err *e, const char *what)
{
    m->state = FAILED;
    return err_set(e, ERR_INVALID, "malformed multipart body: %s", what);
}

/* Gets more bytes into the window; the end of the source is malformed here. */
static int fill(struct multipart *m, struct err *e)
{
    ssize_t got;
    if (m->start > 0) {
        memmove(m->bytes, m->bytes + m->start, m->end - m->start);
        m->end -= m->start;
        m->start = 0;
    }
    got = m->source(m->ctx, m->bytes + m->end, WINDOW_BYTES - m->end, e);
    if (got < 0) {
        m->state = FAILED;
        return -1;
    }
    if (got == 0)
        return malformed(m, e, "it ends too early");
    m->end += (size_t)got;
    return 0;
}

static void consume(struct multipart *m, size_t n)
{
    m->start += n;
    m->clean -= n < m->clean ? n : m->clean;
}

/* --- parameters of a header: "; name=token" and "; name="quoted"" --- */

static size_t token_length(struct slice s)
{
    size_t n = 0;
    while (n < s.n && http_is_token_char((unsigned char)s.p[n]))
        n++;
    return n;
}

static struct slice skip(struct slice s, size_t n)
{
    return n > 0 ? slice_of(s.p + n, s.n - n) : s;
}

/* Unquotes at the start of `rest`, behind the opening quote. A backslash only escapes a quote or a
 * backslash: browsers send those in file names as they are. */
static bool take_quoted(struct slice *rest, struct buf *value)
{
    for (size_t i = 0; i < rest->n; i++) {
        char c = rest->p[i];
        if (c == '"') {
            *rest = skip(*rest, i + 1);
            return !value->failed;
        }
        if (c == '\\' && i + 1 < rest->n && (rest->p[i + 1] == '"' || rest->p[i + 1] == '\\'))
            c = rest->p[++i];
        buf_append_char(value, c);
    }
    return false;
}

/* 1: a parameter, 0: none left, -1: malformed. `value` is emptied first. */
static int next_parameter(struct slice *rest, struct slice *ret_name, struct buf *value)
{
    struct slice s = http_trim(*rest);
    size_t n;
    buf_reset(value);
    if (s.n == 0)
        return 0;
    if (s.p[0] != ';')
        return -1;
    s = http_trim(skip(s, 1));
    n = token_length(s);
    if (n == 0 || n == s.n || s.p[n] != '=')
        return -1;
    *ret_name = slice_of(s.p, n);
    s = skip(s, n + 1);
    if (s.n > 0 && s.p[0] == '"') {
        s = skip(s, 1);
        *rest = s;
        return take_quoted(rest, value) ? 1 : -1;
    }
    n = token_length(s);
    buf_append(value, s.p, n);
    *rest = skip(s, n);
    return n > 0 && !value->failed ? 1 : -1;
}

/* Splits "first; parameters". */
static struct slice first_word(struct slice header, struct slice *ret_parameters)
{
    const char *semicolon = header.n > 0 ? memchr(header.p, ';', header.n) : NULL;
    size_t n = semicolon ? (size_t)(semicolon - header.p) : header.n;
    *ret_parameters = skip(header, n);
    return http_trim(slice_of(header.p, n));
}

/* bcharsnospace and blanks inside, RFC 2046 section 5.1.1. */
static bool boundary_valid(struct slice s)
{
    if (s.n == 0 || s.n > BOUNDARY_MAX || s.p[s.n - 1] == ' ')
        return false;
    for (size_t i = 0; i < s.n; i++) {
        char c = s.p[i];
        bool alnum = (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z');
        if (!alnum && (c == '\0' || !strchr("'()+_,-./:=? ", c)))
            return false;
    }
    return true;
}

/* The one boundary parameter; leaves it in `value`. */
static bool find_boundary(struct slice content_type, struct buf *value)
{
    AUTO_BUF struct buf scratch = BUF_INIT(PART_HEAD_MAX);
    struct slice rest;
    struct slice name;
    size_t found = 0;
    int rc;
    if (!slice_eq_nocase(first_word(content_type, &rest), SLICE_LIT("multipart/form-data")))
        return false;
    while ((rc = next_parameter(&rest, &name, &scratch)) > 0)
        if (slice_eq_nocase(name, SLICE_LIT("boundary"))) {
            buf_append_slice(value, buf_slice(&scratch));
            found++;
        }
    return rc == 0 && found == 1 && boundary_valid(buf_slice(value));
}

struct multipart *multipart_open(
    struct slice content_type, multipart_source *source, void *ctx, struct err *e)
{
    AUTO_BUF struct buf boundary = BUF_INIT(PART_HEAD_MAX);
    struct multipart *m;
    if (!find_boundary(content_type, &boundary)) {
        err_set(e, ERR_MEDIA_TYPE, "not multipart/form-data with a boundary");
        return NULL;
    }
    m = malloc(sizeof *m);
    if (!m) {
        err_set(e, ERR_NOMEM, "out of memory");
        return NULL;
    }
    m->source = source;
    m->ctx = ctx;
    m->state = IN_DATA;
    m->start = m->clean = 0;
    memcpy(m->bytes, "\r\n", 2);
    m->end = 2;
    memcpy(m->delimiter, "\r\n--", 4);
    memcpy(m->delimiter + 4, boundary.p, boundary.len);
    m->delimiter_n = 4 + boundary.len;
    return m;
}

struct multipart *multipart_close(struct multipart *m)
{
    free(m);
    return NULL;
}

/* How many bytes at the front of `s`, which holds no whole delimiter, cannot be part of one. */
static size_t clean_prefix(const struct multipart *m, struct slice s)
{
    size_t at = s.n < m->delimiter_n ? 0 : s.n - m->delimiter_n + 1;
    for (; at < s.n; at++)
        if (memcmp(s.p + at, m->delimiter, s.n - at) == 0)
            break;
    return at;
}

/* What stands behind a delimiter decides how it goes on. */
static int end_part(struct multipart *m, struct err *e)
{
    consume(m, m->delimiter_n);
    while (window(m).n < 2)
        if (fill(m, e) < 0)
            return -1;
    if (memcmp(window(m).p, "--", 2) == 0)
        m->state = AT_END;
    else if (memcmp(window(m).p, "\r\n", 2) == 0)
        m->state = AT_HEAD;
    else
        return malformed(m, e, "a boundary goes on");
    consume(m, 2);
    return 0;
}

/* 1: the window begins with m->clean > 0 bytes of data. 0: the part has ended. -1. */
static int find_data(struct multipart *m, struct err *e)
{
    while (m->state == IN_DATA && m->clean == 0) {
        struct slice have = window(m);
        const char *at = memmem(have.p, have.n, m->delimiter, m->delimiter_n);
        m->clean = at ? (size_t)(at - have.p) : clean_prefix(m, have);
        if (m->clean > 0)
            break;
        if (at ? end_part(m, e) < 0 : fill(m, e) < 0)
            return -1;
    }
    if (m->state == FAILED)
        return err_set(e, ERR_INVALID, "malformed multipart body");
    return m->state == IN_DATA;
}

ssize_t multipart_read(struct multipart *m, void *dst, size_t n, struct err *e)
{
    int rc = n > 0 ? find_data(m, e) : 0;
    if (rc <= 0)
        return rc;
    if (n > m->clean)
        n = m->clean;
    memcpy(dst, window(m).p, n);
    consume(m, n);
    return (ssize_t)n;
}

int multipart_read_all(struct multipart *m, struct buf *dst, struct err *e)
{
    int rc;
    while ((rc = find_data(m, e)) > 0) {
        size_t n = m->clean;
        buf_append(dst, window(m).p, n);
        if (dst->failed)
            return err_set(e, ERR_TOO_LARGE, "part longer than %zu bytes", dst->max);
        consume(m, n);
    }
    return rc;
}

/* --- a part's head --- */

/* Copies where a bound is part of the contract. */
static int copy_bounded(struct multipart *m, struct slice s, char *dst, size_t size, struct err *e)
{
    return slice_copy_cstr(s, dst, size) ? 0 : malformed(m, e, "a name is too long");
}

/* "UTF-8''percent-encoded" of RFC 8187, which some clients send for other than ASCII names. */
static int take_extended_filename(
    struct multipart *m, struct slice value, struct multipart_part *ret, struct err *e)
{
    char decoded[MULTIPART_FILENAME_MAX + 1];
    static const char charset[] = "UTF-8''";
    size_t n = sizeof charset - 1;
    if (value.n < n || value.n - n > MULTIPART_FILENAME_MAX ||
        !slice_eq_nocase(slice_of(value.p, n), SLICE_LIT(charset)) ||
        !http_percent_decode(skip(value, n), /* is_query= */ false, decoded, &n) ||
        !utf8_valid(decoded, n))
        return malformed(m, e, "bad filename*");
    memcpy(ret->filename, decoded, n + 1);
    return 0;
}

struct disposition {
    size_t n_name;
    size_t n_filename;
    size_t n_extended;
};

static int take_parameter(struct multipart *m, struct disposition *d, struct slice name,
    struct slice value, struct multipart_part *ret, struct err *e)
{
    if (slice_eq_nocase(name, SLICE_LIT("name"))) {
        d->n_name++;
        return copy_bounded(m, value, ret->name, sizeof ret->name, e);
    }
    if (slice_eq_nocase(name, SLICE_LIT("filename"))) {
        if (d->n_filename++ > 0 || d->n_extended > 0)
            return 0; /* the extended one wins; twice the same is refused below */
        return copy_bounded(m, value, ret->filename, sizeof ret->filename, e);
    }
    if (slice_eq_nocase(name, SLICE_LIT("filename*"))) {
        d->n_extended++;
        return take_extended_filename(m, value, ret, e);
    }
    return 0;
}

static int take_disposition(
    struct multipart *m, struct slice header, struct multipart_part *ret, struct err *e)
{
    AUTO_BUF struct buf value = BUF_INIT(PART_HEAD_MAX);
    struct disposition d = {0};
    struct slice rest;
    struct slice name;
    int rc;
    if (!slice_eq_nocase(first_word(header, &rest), SLICE_LIT("form-data")))
        return malformed(m, e, "a part is no form-data");
    while ((rc = next_parameter(&rest, &name, &value)) > 0)
        if (take_parameter(m, &d, name, buf_slice(&value), ret, e) < 0)
            return -1;
    if (rc < 0 || d.n_name != 1 || d.n_filename > 1 || d.n_extended > 1)
        return malformed(m, e, "bad Content-Disposition");
    ret->has_filename = d.n_filename + d.n_extended > 0;
    return 0;
}

/* The encodings that leave the bytes as they are. */
static bool is_identity(struct slice encoding)
{
    return slice_eq_nocase(encoding, SLICE_LIT("binary")) ||
           slice_eq_nocase(encoding, SLICE_LIT("8bit")) ||
           slice_eq_nocase(encoding, SLICE_LIT("7bit"));
}

static int take_header(struct multipart *m, const struct http_header *h, size_t *n_dispositions,
    struct multipart_part *ret, struct err *e)
{
    if (slice_eq_nocase(h->name, SLICE_LIT("Content-Disposition"))) {
        (*n_dispositions)++;
        return take_disposition(m, h->value, ret, e);
    }
    if (slice_eq_nocase(h->name, SLICE_LIT("Content-Type")))
        return copy_bounded(m, h->value, ret->content_type, sizeof ret->content_type, e);
    if (slice_eq_nocase(h->name, SLICE_LIT("Content-Transfer-Encoding")) && !is_identity(h->value))
        return malformed(m, e, "unsupported Content-Transfer-Encoding");
    return 0;
}

/* The next line of the head, without its CRLF. */
static int next_line(struct multipart *m, struct slice *ret, struct err *e)
{
    const char *crlf;
    while (!(crlf = memmem(window(m).p, window(m).n, "\r\n", 2))) {
        if (window(m).n > PART_HEAD_MAX)
            return malformed(m, e, "a part's head is too large");
        if (fill(m, e) < 0)
            return -1;
    }
    *ret = slice_of(window(m).p, (size_t)(crlf - window(m).p));
    return 0;
}

static int parse_head(struct multipart *m, struct multipart_part *ret, struct err *e)
{
    size_t n_dispositions = 0;
    for (size_t i = 0; i <= PART_HEADERS_MAX; i++) {
        struct http_header h;
        struct slice line;
        if (next_line(m, &line, e) < 0)
            return -1;
        if (line.n == 0) {
            consume(m, 2);
            return n_dispositions == 1 ? 0 : malformed(m, e, "a part without a name");
        }
        if (http_parse_field_line(line, &h, e) < 0)
            return malformed(m, e, "bad header");
        if (take_header(m, &h, &n_dispositions, ret, e) < 0)
            return -1;
        consume(m, line.n + 2);
    }
    return malformed(m, e, "too many headers");
}

int multipart_next(struct multipart *m, struct multipart_part *ret, struct err *e)
{
    int rc;
    while ((rc = find_data(m, e)) > 0)
        consume(m, m->clean);
    if (rc < 0)
        return -1;
    if (m->state == AT_END)
        return 0;
    memset(ret, 0, sizeof *ret);
    if (parse_head(m, ret, e) < 0)
        return -1;
    m->state = IN_DATA;
    return 1;
}
