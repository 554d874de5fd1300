/* SPDX-License-Identifier: Apache-2.0 */
/* Pieces of JSON bodies, from options. */
#ifndef TORPOR_CLI_BODY_H
#define TORPOR_CLI_BODY_H

#include "cli/args.h"
#include "json/json.h"

/* A text member; nothing when `value` is NULL. */
void body_write_text(struct json_writer *w, const char *field, const char *value);
/* An object of all KEY=VALUE that an option was given; of equal keys the last one counts. Nothing
 * when it was not given. */
int body_write_pairs(struct cli *c, const struct args *a, const char *option, const char *field,
    struct json_writer *w, struct err *e);

#endif
