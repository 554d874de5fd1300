/* SPDX-License-Identifier: Apache-2.0 */
/* Sandboxes as the commands see them: found by the start of their id, listed over all pages. */
#ifndef TORPOR_CLI_SANDBOX_H
#define TORPOR_CLI_SANDBOX_H

#include "cli/api.h"
#include "proto/sandbox.h"

enum { TARGET_MAX = 160 }; /* a path of the API with an id in it */

/* The sandbox whose id is, or begins with, `text`. Without a whole id the server is asked: first
 * among those that are not over, then among all. ERR_NOT_FOUND; ERR_INVALID when several fit. */
int sandbox_find(struct api *a, const char *text, struct sandbox_id *ret, struct err *e);

/* Calls `each` for every sandbox of the list; `query` is percent-encoded and without '?'. `each`
 * returns -1 to stop with its error. */
typedef int sandbox_each(
    void *ctx, struct api_answer *page, const struct json_value *sandbox, struct err *e);
int sandbox_list(struct api *a, const char *query, sandbox_each *each, void *ctx, struct err *e);

/* "/v1/sandboxes/<id><suffix>" */
void sandbox_target(const struct sandbox_id *id, const char *suffix, char dst[TARGET_MAX]);

/* Appends "name=value", percent-encoded, with '&' before it where the query is not empty. */
void query_append(struct buf *query, const char *name, struct slice value);

/* What `ls` shows by default, and every status there is. */
#define SANDBOX_STATUSES_ALL "pending,running,pausing,paused,resuming,stopped,error"

#endif
