/* SPDX-License-Identifier: Apache-2.0 */
/* Metadata of a sandbox: a JSON object of strings, stored as text. */
#ifndef TORPOR_CONTROL_SERVICE_METADATA_H
#define TORPOR_CONTROL_SERVICE_METADATA_H

#include "base/arena.h"
#include "base/err.h"

struct json_value;

/* One wish: set `key` to `value`, or remove it. */
struct metadata_edit {
    struct slice key;
    struct slice value;
    bool remove;
};

/* The stored text with the edits applied, in the arena. `old` may be empty. ERR_INVALID on the
 * field "metadata" when the result has more than LIMIT_METADATA_MAX keys. */
int metadata_apply(struct slice old, const struct metadata_edit *edits, size_t n, struct arena *a,
    struct slice *ret, struct err *e);

#endif
