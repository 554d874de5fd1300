/* SPDX-License-Identifier: Apache-2.0 */
/* The error type: setting, wrapping, and the errno-to-kind table. */
#include "base/err.h"

#include <assert.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static const char *const kind_names[] = {
    [ERR_NONE] = "none",
    [ERR_INVALID] = "invalid_request",
    [ERR_UNAUTHORIZED] = "unauthorized",
    [ERR_FORBIDDEN] = "forbidden",
    [ERR_NOT_FOUND] = "not_found",
    [ERR_METHOD] = "method_not_allowed",
    [ERR_EXISTS] = "already_exists",
    [ERR_BAD_STATE] = "invalid_state",
    [ERR_CONFLICT] = "conflict",
    [ERR_IN_PROGRESS] = "in_progress",
    [ERR_TOO_LARGE] = "too_large",
    [ERR_MEDIA_TYPE] = "unsupported_media_type",
    [ERR_RANGE] = "range_not_satisfiable",
    [ERR_HEADERS_TOO_LARGE] = "headers_too_large",
    [ERR_RATE_LIMITED] = "rate_limited",
    [ERR_QUOTA] = "quota_exceeded",
    [ERR_INTERNAL] = "internal_error",
    [ERR_AGENT] = "agent_error",
    [ERR_UNAVAILABLE] = "agent_unavailable",
    [ERR_NO_CAPACITY] = "no_capacity",
    [ERR_TEMPLATE_BUILDING] = "template_building",
    [ERR_TIMEOUT] = "timeout",
    [ERR_NO_SPACE] = "insufficient_storage",
    [ERR_CANCELED] = "canceled",
    [ERR_UNSUPPORTED] = "unsupported",
    [ERR_PROTOCOL] = "protocol_error",
    [ERR_IO] = "io_error",
    [ERR_NOMEM] = "out_of_memory",
};
static_assert(sizeof kind_names / sizeof kind_names[0] == ERR_KIND_COUNT, "a name for each kind");

static const struct {
    int errnum;
    enum err_kind kind;
} errno_kinds[] = {
    {ENOENT, ERR_NOT_FOUND},
    {ENOTDIR, ERR_NOT_FOUND},
    {EEXIST, ERR_EXISTS},
    {EINVAL, ERR_INVALID},
    {ENAMETOOLONG, ERR_INVALID},
    {EACCES, ERR_FORBIDDEN},
    {EPERM, ERR_FORBIDDEN},
    {ENOSPC, ERR_NO_SPACE},
    {EDQUOT, ERR_NO_SPACE},
    {ENOMEM, ERR_NOMEM},
    {ETIMEDOUT, ERR_TIMEOUT},
    {ECANCELED, ERR_CANCELED},
    {ECONNREFUSED, ERR_UNAVAILABLE},
    {EHOSTUNREACH, ERR_UNAVAILABLE},
    {ENETUNREACH, ERR_UNAVAILABLE},
    {EMFILE, ERR_NO_CAPACITY},
    {ENFILE, ERR_NO_CAPACITY},
    {EAGAIN, ERR_NO_CAPACITY},
    {EOPNOTSUPP, ERR_UNSUPPORTED},
    {ENOSYS, ERR_UNSUPPORTED},
};

static void set_message(struct err *e, const char *fmt, va_list ap)
{
    (void)vsnprintf(e->msg, sizeof e->msg, fmt, ap);
}

int err_set(struct err *e, enum err_kind kind, const char *fmt, ...)
{
    va_list ap;
    assert(kind != ERR_NONE && kind < ERR_KIND_COUNT);
    e->kind = kind;
    e->errnum = 0;
    e->where[0] = '\0';
    va_start(ap, fmt);
    set_message(e, fmt, ap);
    va_end(ap);
    return -1;
}

int err_field(struct err *e, const char *field, const char *fmt, ...)
{
    va_list ap;
    e->kind = ERR_INVALID;
    e->errnum = 0;
    (void)snprintf(e->where, sizeof e->where, "%s", field);
    va_start(ap, fmt);
    set_message(e, fmt, ap);
    va_end(ap);
    return -1;
}

int err_sys(struct err *e, int errnum, const char *fmt, ...)
{
    va_list ap;
    size_t len;
    e->kind = err_kind_from_errno(errnum);
    e->errnum = errnum;
    e->where[0] = '\0';
    va_start(ap, fmt);
    set_message(e, fmt, ap);
    va_end(ap);
    len = strlen(e->msg);
    (void)snprintf(e->msg + len, sizeof e->msg - len, ": %s", strerror(errnum));
    return -1;
}

int err_wrap(struct err *e, const char *fmt, ...)
{
    char old[ERR_MSG_MAX];
    va_list ap;
    size_t len;
    memcpy(old, e->msg, sizeof old);
    va_start(ap, fmt);
    set_message(e, fmt, ap);
    va_end(ap);
    len = strlen(e->msg);
    (void)snprintf(e->msg + len, sizeof e->msg - len, ": %s", old);
    return -1;
}

int err_join(struct err *e, const struct err *more)
{
    size_t len;
    if (more->kind == ERR_NONE)
        return -1;
    if (e->kind == ERR_NONE) {
        *e = *more;
        return -1;
    }
    len = strlen(e->msg);
    (void)snprintf(e->msg + len, sizeof e->msg - len, "; %s", more->msg);
    return -1;
}

enum err_kind err_kind_from_errno(int errnum)
{
    for (size_t i = 0; i < sizeof errno_kinds / sizeof errno_kinds[0]; i++)
        if (errno_kinds[i].errnum == errnum)
            return errno_kinds[i].kind;
    return ERR_IO;
}

const char *err_kind_name(enum err_kind kind)
{
    assert(kind < ERR_KIND_COUNT);
    return kind_names[kind];
}

enum err_kind err_kind_from_name(const char *name, size_t len)
{
    for (size_t i = 1; i < ERR_KIND_COUNT; i++)
        if (strlen(kind_names[i]) == len && memcmp(kind_names[i], name, len) == 0)
            return (enum err_kind)i;
    return ERR_NONE;
}
