/* SPDX-License-Identifier: Apache-2.0 */
/* Paths as clients write them: relative to a home, with '~' and dots. */
#ifndef TORPOR_ENVD_PATHS_H
#define TORPOR_ENVD_PATHS_H

#include "base/err.h"
#include "base/slice.h"

/* Makes `path` absolute and clean: "~" and "~/x" are in `home`, other relative ones too; ".", ".."
 * and doubled slashes are resolved by text, as E2B's envd does. `dst` needs PATH_MAX bytes.
 * Errors: ERR_INVALID for an empty path, one with a NUL byte, or one over LIMIT_PATH_MAX. Pure. */
int path_resolve(const char *home, struct slice path, char *dst, struct err *e);

/* The last component of a clean absolute path; "/" for the root. Points into `path`. */
const char *path_base(const char *path);

#endif
