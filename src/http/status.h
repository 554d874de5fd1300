/* SPDX-License-Identifier: Apache-2.0 */
/* The one table from error kind to HTTP status, and reason phrases. */
#ifndef TORPOR_HTTP_STATUS_H
#define TORPOR_HTTP_STATUS_H

#include "base/err.h"

enum {
    HTTP_OK = 200,
    HTTP_CREATED = 201,
    HTTP_NO_CONTENT = 204,
};

/* Kinds without a public meaning (I/O, memory, protocol) are 500. */
int http_status_from_kind(enum err_kind kind);
/* The kind that an answer of that status stands for; ERR_PROTOCOL for what no error has. */
enum err_kind http_kind_from_status(int status);
/* "Not Found"; "Unknown" for numbers without a registered phrase. Never NULL. */
const char *http_status_phrase(int status);

#endif
