/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Byte ranges and entity tags (RFC 9110 sections 8.8.3, 13 and 14), as pure functions.
 *
 * One range is served as 206. Several ranges in one request are answered with the whole body, which
 * section 14.2 allows: multipart/byteranges is not worth its code. What is malformed is ignored, as
 * that section says: the whole body again.
 */
#ifndef TORPOR_HTTP_RANGE_H
#define TORPOR_HTTP_RANGE_H

#include "base/slice.h"

struct http_range {
    uint64_t first;  /* offset of the first byte */
    uint64_t length; /* > 0 */
};

enum http_range_answer {
    HTTP_RANGE_WHOLE,        /* 200 with everything */
    HTTP_RANGE_PART,         /* 206 with Content-Range */
    HTTP_RANGE_UNSATISFIABLE /* 416 with Content-Range of the size alone */
};

/* What to answer to the `Range` header's value (p == NULL: absent) for a body of `size` bytes.
 * `ret` is set for HTTP_RANGE_PART only, and lies inside the body. */
enum http_range_answer http_range_choose(struct slice value, uint64_t size, struct http_range *ret);

#define HTTP_CONTENT_RANGE_MAX 80
/* The value of Content-Range: of a part, or, with `range` NULL, of an answer 416. */
void http_range_format(
    const struct http_range *range, uint64_t size, char dst[HTTP_CONTENT_RANGE_MAX]);

/* An entity tag as sent: "..." or W/"...". */
bool http_etag_valid(struct slice s);
/* If-Range: true when the range may be used because the tag is the current one, strongly compared.
 * Absent (p == NULL) is true. A date is never a match: we compare tags only. */
bool http_if_range_holds(struct slice value, struct slice etag);
/* True when the list (If-Match, If-None-Match) is "*" or names the tag. `weak`: W/ does not count
 * in the comparison, as If-None-Match wants it; If-Match wants a strong one. A malformed list
 * matches nothing. */
bool http_etag_in_list(struct slice list, struct slice etag, bool weak);

#endif
