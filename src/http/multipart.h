/* SPDX-License-Identifier: Apache-2.0 */
/* multipart/form-data (RFC 7578), read as a stream: constant memory whatever the parts' size. */
#ifndef TORPOR_HTTP_MULTIPART_H
#define TORPOR_HTTP_MULTIPART_H

#include <sys/types.h>

#include "base/buf.h"
#include "base/err.h"

/* Where the bytes come from; http_body_read fits through a small adapter. > 0, 0 at the end, -1. */
typedef ssize_t multipart_source(void *ctx, void *dst, size_t n, struct err *e);

enum { MULTIPART_NAME_MAX = 255, MULTIPART_FILENAME_MAX = 4095 };

struct multipart_part {
    char name[MULTIPART_NAME_MAX + 1];
    char filename[MULTIPART_FILENAME_MAX + 1];
    bool has_filename;
    char content_type[128]; /* "" when absent */
};

struct multipart;

/* `content_type` is the request's header; ERR_MEDIA_TYPE when it is no multipart/form-data with a
 * boundary of 1 to 70 allowed characters. */
struct multipart *multipart_open(
    struct slice content_type, multipart_source *source, void *ctx, struct err *e);
struct multipart *multipart_close(struct multipart *m); /* NULL is fine; returns NULL */
/* Skips to the next part. 1 with `ret` set, 0 behind the last, -1 with ERR_INVALID when malformed.
 */
int multipart_next(struct multipart *m, struct multipart_part *ret, struct err *e);
/* Bytes of the current part: > 0, 0 at its end, -1. */
ssize_t multipart_read(struct multipart *m, void *dst, size_t n, struct err *e);
/* Appends the whole part; ERR_TOO_LARGE beyond the buffer's bound. */
int multipart_read_all(struct multipart *m, struct buf *dst, struct err *e);

#endif
