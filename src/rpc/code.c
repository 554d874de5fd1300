/* SPDX-License-Identifier: Apache-2.0 */
/* Connect's error codes: their names, their HTTP statuses, and our kinds to and from them. */
#include "rpc/message.h"

#include <assert.h>

/* connectrpc.com/docs/protocol, "Error Codes". The kind is what a caller gets for a code that came
 * without Torpor-Error, so from a peer that is not ours. */
static const struct {
    const char *name;
    int http_status;
    enum err_kind kind;
} codes[] = {
    {"canceled", 499, ERR_CANCELED},
    {"unknown", 500, ERR_INTERNAL},
    {"invalid_argument", 400, ERR_INVALID},
    {"deadline_exceeded", 504, ERR_TIMEOUT},
    {"not_found", 404, ERR_NOT_FOUND},
    {"already_exists", 409, ERR_EXISTS},
    {"permission_denied", 403, ERR_FORBIDDEN},
    {"resource_exhausted", 429, ERR_QUOTA},
    {"failed_precondition", 400, ERR_BAD_STATE},
    {"aborted", 409, ERR_CONFLICT},
    {"out_of_range", 400, ERR_RANGE},
    {"unimplemented", 501, ERR_UNSUPPORTED},
    {"internal", 500, ERR_INTERNAL},
    {"unavailable", 503, ERR_UNAVAILABLE},
    {"data_loss", 500, ERR_IO},
    {"unauthenticated", 401, ERR_UNAUTHORIZED},
};

static const char *const kind_codes[] = {
    [ERR_NONE] = "unknown",
    [ERR_INVALID] = "invalid_argument",
    [ERR_UNAUTHORIZED] = "unauthenticated",
    [ERR_FORBIDDEN] = "permission_denied",
    [ERR_NOT_FOUND] = "not_found",
    [ERR_METHOD] = "unimplemented",
    [ERR_EXISTS] = "already_exists",
    [ERR_BAD_STATE] = "failed_precondition",
    [ERR_CONFLICT] = "aborted",
    [ERR_IN_PROGRESS] = "aborted",
    [ERR_TOO_LARGE] = "resource_exhausted",
    [ERR_MEDIA_TYPE] = "invalid_argument",
    [ERR_RANGE] = "out_of_range",
    [ERR_HEADERS_TOO_LARGE] = "resource_exhausted",
    [ERR_RATE_LIMITED] = "resource_exhausted",
    [ERR_QUOTA] = "resource_exhausted",
    [ERR_INTERNAL] = "internal",
    [ERR_AGENT] = "internal",
    [ERR_UNAVAILABLE] = "unavailable",
    [ERR_NO_CAPACITY] = "unavailable",
    [ERR_TEMPLATE_BUILDING] = "failed_precondition",
    [ERR_TIMEOUT] = "deadline_exceeded",
    [ERR_NO_SPACE] = "resource_exhausted",
    [ERR_CANCELED] = "canceled",
    [ERR_UNSUPPORTED] = "unimplemented",
    [ERR_PROTOCOL] = "internal",
    [ERR_IO] = "internal",
    [ERR_NOMEM] = "resource_exhausted",
};
static_assert(sizeof kind_codes / sizeof kind_codes[0] == ERR_KIND_COUNT, "a code for each kind");

const char *rpc_code_from_kind(enum err_kind kind)
{
    assert(kind < ERR_KIND_COUNT);
    return kind_codes[kind];
}

enum err_kind rpc_kind_from_code(struct slice code)
{
    for (size_t i = 0; i < sizeof codes / sizeof codes[0]; i++)
        if (slice_is(code, codes[i].name))
            return codes[i].kind;
    return ERR_INTERNAL;
}

int rpc_http_status_from_code(const char *code)
{
    for (size_t i = 0; i < sizeof codes / sizeof codes[0]; i++)
        if (strcmp(code, codes[i].name) == 0)
            return codes[i].http_status;
    return 500;
}
