/* SPDX-License-Identifier: Apache-2.0 */
/* JSON bodies described by a table of fields: one place that refuses what is unknown, missing, of
 * the wrong type or out of range. */
#ifndef TORPOR_CONTROL_API_BODY_H
#define TORPOR_CONTROL_API_BODY_H

#include "control/api/api_int.h"

enum body_kind {
    BODY_INT,     /* int */
    BODY_STRING,  /* struct slice */
    BODY_STRINGS, /* struct body_list of struct slice */
    BODY_ENV,     /* struct body_list of struct rpc_entry */
    BODY_METADATA /* struct body_list of struct metadata_edit */
};

struct body_list {
    void *items; /* in the call's arena */
    size_t n;
};

struct body_field {
    const char *name;
    enum body_kind kind;
    size_t offset;
    size_t presence; /* offset of a bool that says whether it was there; 0: nobody asks */
    bool required;
    int min; /* BODY_INT */
    int max;
    bool (*valid)(struct slice s); /* strings, or each of them; NULL: any */
    const char *allowed;           /* what `valid` takes, for people */
    size_t count_max;              /* of a list */
    bool removes;                  /* BODY_METADATA: null removes a key */
};

/* Reads the request's body into `out`, whose fields keep their values when absent. */
int body_read(
    struct call *c, const struct body_field *fields, size_t n_fields, void *out, struct err *e);
/* Likewise, but no body at all is as good as "{}". */
int body_read_optional(
    struct call *c, const struct body_field *fields, size_t n_fields, void *out, struct err *e);

#endif
