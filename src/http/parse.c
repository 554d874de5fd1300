/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Parsing of request and response heads.
 *
 * Theory of operation: stateless. A head is walked line by line from its start each time; a missing
 * line end means "more bytes needed". A caller that receives piecemeal calls again only when a line
 * feed arrived: there are at most HTTP_HEADERS_MAX + 4 of those in an acceptable head, so a peer
 * that drips bytes cannot make this quadratic. Lines end in CRLF and nothing else; everything that
 * two implementations could read differently (RFC 9112 section 11) is an error.
 */
#include "http/parse.h"

#include <stdio.h>

#include "http/http_int.h"

enum {
    TARGET_MAX = 8 * 1024, /* RFC 9112 section 3 asks for at least 8000 */
    METHOD_MAX = 32,       /* the longest registered one has 17 */
    LEADING_LINES_MAX = 2, /* empty lines before a request, RFC 9112 section 2.2 */
    REQUEST_LINE_MAX = METHOD_MAX + TARGET_MAX + 16,
};

struct cursor {
    const char *p;
    size_t n;
    size_t at;
};

/* What the headers say about the message's body and connection. */
struct facts {
    size_t n_content_length;
    size_t n_transfer_encoding;
    size_t n_host;
    uint64_t content_length;
    bool has_close;
    bool has_keep_alive;
};

static int refuse(struct err *e, enum err_kind kind, const char *where, const char *msg)
{
    err_set(e, kind, "%s", msg);
    (void)snprintf(e->where, sizeof e->where, "%s", where);
    return -1;
}

bool http_is_token_char(unsigned char c)
{
    if ((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9'))
        return true;
    return c != '\0' && strchr("!#$%&'*+-.^_`|~", c) != NULL;
}

bool http_is_field_char(unsigned char c)
{
    return (c >= ' ' && c != 0x7f) || c == '\t';
}

bool http_is_token(struct slice s)
{
    for (size_t i = 0; i < s.n; i++)
        if (!http_is_token_char((unsigned char)s.p[i]))
            return false;
    return s.n > 0;
}

bool http_is_field_value(struct slice s)
{
    for (size_t i = 0; i < s.n; i++)
        if (!http_is_field_char((unsigned char)s.p[i]))
            return false;
    return true;
}

static bool is_blank(char c)
{
    return c == ' ' || c == '\t';
}

struct slice http_trim(struct slice s)
{
    while (s.n > 0 && is_blank(s.p[0]))
        s = slice_of(s.p + 1, s.n - 1);
    while (s.n > 0 && is_blank(s.p[s.n - 1]))
        s.n--;
    return s;
}

bool http_cut(struct slice s, char sep, struct slice *ret_before, struct slice *ret_after)
{
    const char *at = s.n > 0 ? memchr(s.p, sep, s.n) : NULL;
    if (!at)
        return false;
    *ret_before = slice_of(s.p, (size_t)(at - s.p));
    *ret_after = slice_of(at + 1, s.n - ret_before->n - 1);
    return true;
}

/* 1: a line without its CRLF. 0: not complete. -1: a line feed without its carriage return. */
static int next_line(struct cursor *c, struct slice *ret, struct err *e)
{
    const char *from = c->p + c->at;
    const char *lf = c->at < c->n ? memchr(from, '\n', c->n - c->at) : NULL;
    if (!lf)
        return 0;
    if (lf == from || lf[-1] != '\r')
        return err_set(e, ERR_INVALID, "a line must end in CRLF");
    *ret = slice_of(from, (size_t)(lf - from) - 1);
    c->at += ret->n + 2;
    return 1;
}

int http_parse_field_line(struct slice line, struct http_header *ret, struct err *e)
{
    struct slice name;
    struct slice value;
    if (!http_cut(line, ':', &name, &value) || !http_is_token(name))
        return err_set(e, ERR_INVALID, "malformed header name");
    value = http_trim(value);
    if (!http_is_field_value(value))
        return err_set(e, ERR_INVALID, "control character in a header value");
    *ret = (struct http_header){name, value};
    return 0;
}

/* 1: all headers up to the empty line. 0: not complete. -1: refused. */
static int parse_headers(
    struct cursor *c, struct http_header *headers, size_t *ret_n, struct err *e)
{
    struct slice line;
    size_t n = 0;
    int rc;
    while ((rc = next_line(c, &line, e)) > 0) {
        if (line.n == 0) {
            *ret_n = n;
            return 1;
        }
        if (n == HTTP_HEADERS_MAX)
            return err_set(e, ERR_HEADERS_TOO_LARGE, "more than %d headers", HTTP_HEADERS_MAX);
        if (http_parse_field_line(line, &headers[n++], e) < 0)
            return -1;
    }
    return rc;
}

/* True when the comma-separated list holds that token, case ignored. */
static bool list_has(struct slice list, const char *token)
{
    struct slice item;
    while (http_cut(list, ',', &item, &list))
        if (slice_eq_nocase(http_trim(item), slice_cstr(token)))
            return true;
    return slice_eq_nocase(http_trim(list), slice_cstr(token));
}

static bool name_is(const struct http_header *h, const char *name)
{
    return slice_eq_nocase(h->name, slice_cstr(name));
}

static int collect_transfer_encoding(const struct http_header *h, struct facts *f, struct err *e)
{
    f->n_transfer_encoding++;
    if (!slice_eq_nocase(h->value, SLICE_LIT("chunked")))
        return refuse(e, ERR_UNSUPPORTED, "Transfer-Encoding", "only chunked is supported");
    return 0;
}

static int collect_content_length(const struct http_header *h, struct facts *f, struct err *e)
{
    f->n_content_length++;
    if (!slice_parse_u64(h->value, &f->content_length) || f->content_length > INT64_MAX)
        return refuse(e, ERR_INVALID, "Content-Length", "not a length");
    return 0;
}

static int collect_facts(
    const struct http_header *headers, size_t n, struct facts *f, struct err *e)
{
    for (size_t i = 0; i < n; i++) {
        const struct http_header *h = &headers[i];
        if (name_is(h, "Content-Length") && collect_content_length(h, f, e) < 0)
            return -1;
        if (name_is(h, "Transfer-Encoding") && collect_transfer_encoding(h, f, e) < 0)
            return -1;
        if (name_is(h, "Host"))
            f->n_host++;
        if (name_is(h, "Connection")) {
            f->has_close = f->has_close || list_has(h->value, "close");
            f->has_keep_alive = f->has_keep_alive || list_has(h->value, "keep-alive");
        }
    }
    if (f->n_content_length + f->n_transfer_encoding > 1)
        return err_set(e, ERR_INVALID, "more than one body length");
    return 0;
}

static bool facts_keep_alive(const struct facts *f, int minor)
{
    return !f->has_close && (minor == 1 || f->has_keep_alive);
}

/* "HTTP/1.0" or "HTTP/1.1"; other well-formed versions are ERR_UNSUPPORTED. */
static int parse_version(struct slice s, int *ret_minor, struct err *e)
{
    if (s.n != 8 || memcmp(s.p, "HTTP/", 5) != 0 || s.p[6] != '.' || s.p[5] < '0' || s.p[5] > '9' ||
        s.p[7] < '0' || s.p[7] > '9')
        return err_set(e, ERR_INVALID, "malformed HTTP version");
    if (s.p[5] != '1' || s.p[7] > '1')
        return refuse(e, ERR_UNSUPPORTED, "version", "only HTTP/1.0 and HTTP/1.1 are supported");
    *ret_minor = s.p[7] - '0';
    return 0;
}

static bool method_valid(struct slice s)
{
    for (size_t i = 0; i < s.n; i++)
        if ((s.p[i] < 'A' || s.p[i] > 'Z') && s.p[i] != '-')
            return false;
    return s.n > 0 && s.n <= METHOD_MAX;
}

static bool target_chars_valid(struct slice s)
{
    for (size_t i = 0; i < s.n; i++)
        if (s.p[i] < '!' || s.p[i] > '~' || s.p[i] == '#')
            return false;
    return s.n > 0;
}

/* Removes "http://authority" of an absolute-form target; false when it is neither that. */
static bool strip_authority(struct slice target, struct slice *ret)
{
    static const char *const schemes[] = {"http://", "https://"};
    for (size_t i = 0; i < 2; i++) {
        size_t len = strlen(schemes[i]);
        size_t at = len;
        if (target.n <= len || !slice_eq_nocase(slice_of(target.p, len), slice_cstr(schemes[i])))
            continue;
        while (at < target.n && target.p[at] != '/' && target.p[at] != '?')
            at++;
        *ret = slice_of(target.p + at, target.n - at);
        return at > len;
    }
    return false;
}

/* Splits the target's four forms (RFC 9112 section 3.2) into path and query. */
static int parse_target(struct http_request_head *ret, struct err *e)
{
    struct slice rest = ret->target;
    if (ret->target.n > TARGET_MAX)
        return refuse(e, ERR_TOO_LARGE, "target", "request target too long");
    if (!target_chars_valid(ret->target))
        return err_set(e, ERR_INVALID, "malformed request target");
    ret->query = slice_of(ret->target.p + ret->target.n, 0);
    if (slice_is(ret->method, "CONNECT") ||
        (slice_is(ret->method, "OPTIONS") && slice_is(ret->target, "*"))) {
        ret->path = ret->target;
        return 0;
    }
    if (rest.p[0] != '/' && !strip_authority(ret->target, &rest))
        return err_set(e, ERR_INVALID, "malformed request target");
    ret->path = rest;
    (void)http_cut(rest, '?', &ret->path, &ret->query);
    if (ret->path.n == 0)
        ret->path = SLICE_LIT("/");
    return 0;
}

static int parse_request_line(struct slice line, struct http_request_head *ret, struct err *e)
{
    struct slice rest;
    struct slice version;
    if (!http_cut(line, ' ', &ret->method, &rest) || !method_valid(ret->method) ||
        !http_cut(rest, ' ', &ret->target, &version))
        return err_set(e, ERR_INVALID, "malformed request line");
    if (parse_version(version, &ret->minor, e) < 0)
        return -1;
    return parse_target(ret, e);
}

static bool host_valid(struct slice s)
{
    for (size_t i = 0; i < s.n; i++)
        if (s.p[i] < '!' || s.p[i] > '~' || strchr("\"#,/<>?@\\^`{|}", s.p[i]))
            return false;
    return true;
}

static int check_host(const struct http_request_head *h, const struct facts *f, struct err *e)
{
    if (f->n_host > 1 || (f->n_host == 0 && h->minor == 1))
        return refuse(e, ERR_INVALID, "Host", "exactly one Host is needed");
    if (!host_valid(http_header_find(h->headers, h->n_headers, "Host")))
        return refuse(e, ERR_INVALID, "Host", "malformed Host");
    return 0;
}

static int set_request_framing(struct http_request_head *h, const struct facts *f, struct err *e)
{
    struct slice expect = http_header_find(h->headers, h->n_headers, "Expect");
    if (f->n_transfer_encoding > 0 && h->minor == 0)
        return err_set(e, ERR_INVALID, "Transfer-Encoding in an HTTP/1.0 request");
    h->framing = f->n_transfer_encoding > 0 ? HTTP_BODY_CHUNKED
                 : f->n_content_length > 0  ? HTTP_BODY_LENGTH
                                            : HTTP_BODY_NONE;
    h->content_length = f->content_length;
    h->keep_alive = facts_keep_alive(f, h->minor);
    if (expect.p && !slice_eq_nocase(expect, SLICE_LIT("100-continue")))
        return refuse(e, ERR_INVALID, "Expect", "only 100-continue can be expected");
    h->expect_continue = expect.p && h->minor == 1 && h->framing != HTTP_BODY_NONE;
    return 0;
}

/* Empty lines that some clients send behind the body of the request before. */
static int skip_leading_lines(struct cursor *c, struct slice *ret_line, struct err *e)
{
    int rc = 0;
    for (int i = 0; i <= LEADING_LINES_MAX; i++) {
        rc = next_line(c, ret_line, e);
        if (rc <= 0 || ret_line->n > 0)
            return rc;
    }
    return err_set(e, ERR_INVALID, "empty lines instead of a request");
}

/* What "more bytes needed" means once the bound is reached. */
static ssize_t need_more(size_t n, bool in_request_line, struct err *e)
{
    if (in_request_line && n > REQUEST_LINE_MAX)
        return refuse(e, ERR_TOO_LARGE, "target", "request target too long");
    if (n >= HTTP_HEAD_BYTES_MAX)
        return err_set(e, ERR_HEADERS_TOO_LARGE, "head longer than %d bytes", HTTP_HEAD_BYTES_MAX);
    return 0;
}

static struct cursor cursor_of(const char *p, size_t n)
{
    return (struct cursor){.p = p, .n = n < HTTP_HEAD_BYTES_MAX ? n : HTTP_HEAD_BYTES_MAX};
}

ssize_t http_parse_request(const char *p, size_t n, struct http_request_head *ret, struct err *e)
{
    struct cursor c = cursor_of(p, n);
    struct facts f = {0};
    struct slice line;
    int rc = skip_leading_lines(&c, &line, e);
    if (rc <= 0)
        return rc < 0 ? -1 : need_more(n, /* in_request_line= */ true, e);
    if (parse_request_line(line, ret, e) < 0)
        return -1;
    rc = parse_headers(&c, ret->headers, &ret->n_headers, e);
    if (rc <= 0)
        return rc < 0 ? -1 : need_more(n, /* in_request_line= */ false, e);
    if (collect_facts(ret->headers, ret->n_headers, &f, e) < 0 || check_host(ret, &f, e) < 0 ||
        set_request_framing(ret, &f, e) < 0)
        return -1;
    return (ssize_t)c.at;
}

/* "HTTP/1.1 200 OK"; the phrase may be empty, the blank before it may not be missing. */
static int parse_status_line(
    struct slice line, struct http_response_head *ret, int *ret_minor, struct err *e)
{
    struct slice version;
    struct slice rest;
    uint64_t status;
    if (!http_cut(line, ' ', &version, &rest))
        return err_set(e, ERR_INVALID, "malformed status line");
    if (parse_version(version, ret_minor, e) < 0)
        return -1;
    if (rest.n < 4 || rest.p[3] != ' ' || !slice_parse_u64(slice_of(rest.p, 3), &status) ||
        status < 100 || status > 599 || !http_is_field_value(rest))
        return err_set(e, ERR_INVALID, "malformed status line");
    ret->status = (int)status;
    return 0;
}

static void set_response_framing(struct http_response_head *h, const struct facts *f, int minor)
{
    h->content_length = f->content_length;
    h->keep_alive = facts_keep_alive(f, minor);
    if (h->status < 200 || h->status == 204 || h->status == 304)
        h->framing = HTTP_BODY_NONE;
    else if (f->n_transfer_encoding > 0)
        h->framing = HTTP_BODY_CHUNKED;
    else if (f->n_content_length > 0)
        h->framing = HTTP_BODY_LENGTH;
    else
        h->framing = HTTP_BODY_UNTIL_CLOSE;
    if (h->framing == HTTP_BODY_UNTIL_CLOSE)
        h->keep_alive = false;
}

ssize_t http_parse_response(const char *p, size_t n, struct http_response_head *ret, struct err *e)
{
    struct cursor c = cursor_of(p, n);
    struct facts f = {0};
    struct slice line;
    int minor = 1;
    int rc = next_line(&c, &line, e);
    if (rc <= 0)
        return rc < 0 ? -1 : need_more(n, /* in_request_line= */ false, e);
    if (parse_status_line(line, ret, &minor, e) < 0)
        return -1;
    rc = parse_headers(&c, ret->headers, &ret->n_headers, e);
    if (rc <= 0)
        return rc < 0 ? -1 : need_more(n, /* in_request_line= */ false, e);
    if (collect_facts(ret->headers, ret->n_headers, &f, e) < 0)
        return -1;
    if (f.n_transfer_encoding > 0 && minor == 0)
        return err_set(e, ERR_INVALID, "Transfer-Encoding in an HTTP/1.0 response");
    set_response_framing(ret, &f, minor);
    return (ssize_t)c.at;
}

struct slice http_header_find(const struct http_header *headers, size_t n, const char *name)
{
    for (size_t i = 0; i < n; i++)
        if (name_is(&headers[i], name))
            return headers[i].value;
    return slice_of(NULL, 0);
}

bool http_header_has(
    const struct http_header *headers, size_t n, const char *name, const char *token)
{
    for (size_t i = 0; i < n; i++)
        if (name_is(&headers[i], name) && list_has(headers[i].value, token))
            return true;
    return false;
}

static int hex_value(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

bool http_percent_decode(struct slice s, bool is_query, char *dst, size_t *ret_n)
{
    size_t n = 0;
    for (size_t i = 0; i < s.n; i++) {
        char c = s.p[i];
        if (c == '%') {
            int high = s.n - i > 2 ? hex_value(s.p[i + 1]) : -1;
            int low = s.n - i > 2 ? hex_value(s.p[i + 2]) : -1;
            if (high < 0 || low < 0)
                return false;
            c = (char)(high * 16 + low);
            i += 2;
        } else if (c == '+' && is_query) {
            c = ' ';
        }
        if (c == '\0')
            return false;
        dst[n++] = c;
    }
    dst[n] = '\0';
    *ret_n = n;
    return true;
}
