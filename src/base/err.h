/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The one error type: always the caller's, never allocated, cannot fail to be set.
 *
 * A function that fails returns a negative number and fills `struct err`; it does not log.
 * Decide on `kind`, never on the text. Each kind has one public name (the API's error code).
 */
#ifndef TORPOR_BASE_ERR_H
#define TORPOR_BASE_ERR_H

#include <stddef.h>

enum err_kind {
    ERR_NONE = 0,
    ERR_INVALID,
    ERR_UNAUTHORIZED,
    ERR_FORBIDDEN,
    ERR_NOT_FOUND,
    ERR_METHOD,
    ERR_EXISTS,
    ERR_BAD_STATE,
    ERR_CONFLICT,
    ERR_IN_PROGRESS,
    ERR_TOO_LARGE,
    ERR_MEDIA_TYPE,
    ERR_RANGE,
    ERR_HEADERS_TOO_LARGE,
    ERR_RATE_LIMITED,
    ERR_QUOTA,
    ERR_INTERNAL,
    ERR_AGENT,
    ERR_UNAVAILABLE,
    ERR_NO_CAPACITY,
    ERR_TEMPLATE_BUILDING,
    ERR_TIMEOUT,
    ERR_NO_SPACE,
    ERR_CANCELED,
    ERR_UNSUPPORTED,
    ERR_PROTOCOL,
    ERR_IO,
    ERR_NOMEM,
    ERR_KIND_COUNT
};

#define ERR_WHERE_MAX 48
#define ERR_MSG_MAX 256

struct err {
    enum err_kind kind;
    int errnum;                /* the errno behind it, 0 if none */
    char where[ERR_WHERE_MAX]; /* the field or object it is about; may be empty */
    char msg[ERR_MSG_MAX];
};

/* Sets kind and message, clears errno and `where`. Returns -1, so that `return err_set(...)` fails.
 */
int err_set(struct err *e, enum err_kind kind, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/* Like err_set with ERR_INVALID, naming the request field that is wrong. Returns -1. */
int err_field(struct err *e, const char *field, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/* Kind from errno (err_kind_from_errno); appends ": strerror". Returns -1. */
int err_sys(struct err *e, int errnum, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

/* Puts "prefix: " before the message; kind, errno and `where` stay. Returns -1. */
int err_wrap(struct err *e, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* Adds a second failure to a first one ("first; second"), for removals that do every step.
 * On an empty `e` it copies `more`. Returns -1. */
int err_join(struct err *e, const struct err *more);

/* The errno-to-kind table. Unknown numbers are ERR_IO. */
enum err_kind err_kind_from_errno(int errnum);

/* The public name of a kind, e.g. "not_found". Never NULL. */
const char *err_kind_name(enum err_kind kind);

/* The kind with that public name, ERR_NONE if there is none. */
enum err_kind err_kind_from_name(const char *name, size_t len);

#endif
