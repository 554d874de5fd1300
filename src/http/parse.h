/* SPDX-License-Identifier: Apache-2.0 */
/*
 * HTTP/1.1 heads and chunked framing (RFC 9110, RFC 9112), as pure functions: bytes in, slices out.
 * Strict: what is ambiguous is refused, nothing is repaired. Slices point into the caller's bytes.
 */
#ifndef TORPOR_HTTP_PARSE_H
#define TORPOR_HTTP_PARSE_H

#include <sys/types.h>

#include "base/err.h"
#include "base/slice.h"

enum { HTTP_HEADERS_MAX = 64, HTTP_HEAD_BYTES_MAX = 32 * 1024 };

struct http_header {
    struct slice name;  /* a token, case as sent */
    struct slice value; /* without surrounding blanks */
};

enum http_framing { HTTP_BODY_NONE, HTTP_BODY_LENGTH, HTTP_BODY_CHUNKED, HTTP_BODY_UNTIL_CLOSE };

struct http_request_head {
    struct slice method;
    struct slice target; /* as sent */
    struct slice path;   /* of the target, percent-encoding untouched; "*" for OPTIONS * */
    struct slice query;  /* behind '?', may be empty */
    struct http_header headers[HTTP_HEADERS_MAX];
    size_t n_headers;
    enum http_framing framing;
    uint64_t content_length;
    int minor; /* HTTP/1.minor: 0 or 1 */
    bool keep_alive;
    bool expect_continue;
};

struct http_response_head {
    int status;
    struct http_header headers[HTTP_HEADERS_MAX];
    size_t n_headers;
    enum http_framing
        framing; /* of a response to a request that allows a body; HEAD: see client.h */
    uint64_t content_length;
    bool keep_alive;
};

/* Parses one head at the start of `p`. Returns its length in bytes (> 0), 0 when more bytes are
 * needed, -1 with ERR_INVALID, ERR_TOO_LARGE (target), ERR_HEADERS_TOO_LARGE or ERR_UNSUPPORTED
 * (version, transfer coding). `where` of the error is "target", "version" or the header it is
 * about. `ret` is meaningful only after a length was returned. */
ssize_t http_parse_request(const char *p, size_t n, struct http_request_head *ret, struct err *e);
ssize_t http_parse_response(const char *p, size_t n, struct http_response_head *ret, struct err *e);

/* The first header of that name (case ignored); the empty slice with p == NULL when absent. */
struct slice http_header_find(const struct http_header *headers, size_t n, const char *name);

/* True when a header of that name, a comma-separated list, has the token (case ignored). */
bool http_header_has(
    const struct http_header *headers, size_t n, const char *name, const char *token);

/* Chunked decoding in place of reads: feed bytes, get runs of body bytes. */
struct http_chunks {
    int state; /* private */
    uint64_t left;
    uint64_t size;
    size_t line; /* bytes of the current size line or of the trailers, bounded */
};
/* Consumes from `p`: sets `ret_data` to a run of body bytes inside it (maybe empty) and returns how
 * many bytes were consumed (>= the run; 0: needs more). `ret_end` is set when the body has ended,
 * trailers included. -1 with ERR_INVALID when malformed. */
ssize_t http_chunks_feed(struct http_chunks *c, const char *p, size_t n, struct slice *ret_data,
    bool *ret_end, struct err *e);

/* Percent-decodes into `dst` (at least s.n + 1 bytes, NUL added). '+' becomes a blank only in a
 * query. False when malformed or when it decodes to a NUL byte. Returns the length by `ret_n`. */
bool http_percent_decode(struct slice s, bool is_query, char *dst, size_t *ret_n);

#endif
