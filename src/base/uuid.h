/* SPDX-License-Identifier: Apache-2.0 */
/* Random names of things that are never named by people: blobs and generations. RFC 9562 version 4.
 */
#ifndef TORPOR_BASE_UUID_H
#define TORPOR_BASE_UUID_H

#include <stdbool.h>

#include "base/slice.h"

enum { UUID_BYTES = 16, UUID_TEXT = 36 };

struct uuid {
    unsigned char bytes[UUID_BYTES];
};

void uuid_new(struct uuid *ret);
/* Lower case, with hyphens. */
void uuid_format(const struct uuid *u, char dst[UUID_TEXT + 1]);
/* True for exactly that form. */
bool uuid_parse(struct slice s, struct uuid *ret);
bool uuid_equal(const struct uuid *a, const struct uuid *b);
/* All zeros stands for none. */
bool uuid_is_none(const struct uuid *u);

#endif
