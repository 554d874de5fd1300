/* SPDX-License-Identifier: Apache-2.0 */
/* A file that appears whole or not at all. */
#ifndef TORPOR_ENVD_UPLOAD_H
#define TORPOR_ENVD_UPLOAD_H

#include <sys/types.h>

#include "base/err.h"

struct user;

/* Where the bytes come from: > 0, 0 at the end, -1 with an error. The shape of multipart_source. */
typedef ssize_t upload_source(void *ctx, void *dst, size_t n, struct err *e);

struct upload_params {
    const struct user *user;
    const char *path; /* clean and absolute */
    mode_t mode;      /* of a new file */
    upload_source *source;
    void *ctx;
    char *chunk; /* chunk_bytes of the caller for what is read */
    size_t chunk_bytes;
};

/* Reads the source to its end into a file beside `path`, then renames it there. Missing folders are
 * made. A new file and new folders belong to the user; a file that is replaced keeps owner and mode
 * (set-id bits only when root replaces it), but not its other hard links. On failure `path` is what
 * it was; folders that were made stay. The source is read under our own identity, files are touched
 * under the user's. Errors: ERR_INVALID when `path` is a folder, no regular file, or below a file;
 * ERR_FORBIDDEN; ERR_NO_SPACE; those of the source. */
int upload_file(const struct upload_params *p, struct err *e);

#endif
