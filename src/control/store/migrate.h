/* SPDX-License-Identifier: Apache-2.0 */
/* Schema migrations, in goose's file format and with goose's version table. */
#ifndef TORPOR_CONTROL_STORE_MIGRATE_H
#define TORPOR_CONTROL_STORE_MIGRATE_H

#include "base/err.h"
#include "base/slice.h"

struct migration {
    int64_t version;
    const unsigned char *bytes; /* the whole file, embedded at build time */
    const size_t *len;
};

/* All of them, ascending. */
extern const struct migration *const migrations;
extern const size_t n_migrations;

static inline struct slice migration_text(const struct migration *m)
{
    return slice_of((const char *)m->bytes, *m->len);
}

/* The statements behind "-- +goose Up" (`down` false) or "-- +goose Down", up to the next such
 * line. ERR_INVALID when the file has no such section. */
int migration_section(struct slice text, bool down, struct slice *ret, struct err *e);

#endif
