/* SPDX-License-Identifier: Apache-2.0 */
/* A folder of its own for one test, removed at its end. */
#ifndef TORPOR_TESTS_CONTROL_TMPDIR_H
#define TORPOR_TESTS_CONTROL_TMPDIR_H

#include <assert.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/io.h"

enum { TMPDIR_PATH_MAX = 64 };

struct tmpdir {
    char path[TMPDIR_PATH_MAX];
};

static inline void tmpdir_make(struct tmpdir *t)
{
    (void)snprintf(t->path, sizeof t->path, "/tmp/torpor-control-XXXXXX");
    if (!mkdtemp(t->path))
        abort();
}

static inline void tmpdir_remove(struct tmpdir *t)
{
    struct err e = {0};
    if (io_remove_tree(AT_FDCWD, t->path, &e) < 0)
        abort();
}

/* `dst` must have TMPDIR_PATH_MAX + 32 bytes. */
static inline const char *tmpdir_file(const struct tmpdir *t, const char *name, char *dst)
{
    (void)snprintf(dst, TMPDIR_PATH_MAX + 32, "%s/%s", t->path, name);
    return dst;
}

#endif
