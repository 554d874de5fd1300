/* SPDX-License-Identifier: Apache-2.0 */
/* Query parameters of the sandbox list. */
#ifndef TORPOR_CONTROL_API_QUERY_H
#define TORPOR_CONTROL_API_QUERY_H

#include "control/api/api_int.h"

enum { CURSOR_MAX = 64 };

/* Fills what the request's query says: status, template, metadata.<key>, limit, cursor. */
int query_read_list(struct call *c, struct sandbox_query *ret, struct err *e);
/* The cursor for the rows behind `last`. */
void query_write_cursor(const struct sandbox_row *last, char dst[CURSOR_MAX]);

#endif
