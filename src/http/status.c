/* SPDX-License-Identifier: Apache-2.0 */
/* Status numbers: the table from error kinds, and the registered phrases. */
#include "http/status.h"

#include <assert.h>
#include <stddef.h>

static const short kind_status[] = {
    [ERR_NONE] = 500,
    [ERR_INVALID] = 400,
    [ERR_UNAUTHORIZED] = 401,
    [ERR_FORBIDDEN] = 403,
    [ERR_NOT_FOUND] = 404,
    [ERR_METHOD] = 405,
    [ERR_EXISTS] = 409,
    [ERR_BAD_STATE] = 409,
    [ERR_CONFLICT] = 409,
    [ERR_IN_PROGRESS] = 409,
    [ERR_TOO_LARGE] = 413,
    [ERR_MEDIA_TYPE] = 415,
    [ERR_RANGE] = 416,
    [ERR_HEADERS_TOO_LARGE] = 431,
    [ERR_RATE_LIMITED] = 429,
    [ERR_QUOTA] = 429,
    [ERR_INTERNAL] = 500,
    [ERR_AGENT] = 502,
    [ERR_UNAVAILABLE] = 503,
    [ERR_NO_CAPACITY] = 503,
    [ERR_TEMPLATE_BUILDING] = 503,
    [ERR_TIMEOUT] = 504,
    [ERR_NO_SPACE] = 507,
    [ERR_CANCELED] = 499,
    [ERR_UNSUPPORTED] = 501,
    [ERR_PROTOCOL] = 500,
    [ERR_IO] = 500,
    [ERR_NOMEM] = 500,
};
static_assert(
    sizeof kind_status / sizeof kind_status[0] == ERR_KIND_COUNT, "a status for each kind");

static const struct {
    short status;
    const char *phrase;
} phrases[] = {
    {100, "Continue"},
    {101, "Switching Protocols"},
    {200, "OK"},
    {201, "Created"},
    {202, "Accepted"},
    {204, "No Content"},
    {206, "Partial Content"},
    {301, "Moved Permanently"},
    {302, "Found"},
    {303, "See Other"},
    {304, "Not Modified"},
    {307, "Temporary Redirect"},
    {308, "Permanent Redirect"},
    {400, "Bad Request"},
    {401, "Unauthorized"},
    {403, "Forbidden"},
    {404, "Not Found"},
    {405, "Method Not Allowed"},
    {406, "Not Acceptable"},
    {408, "Request Timeout"},
    {409, "Conflict"},
    {410, "Gone"},
    {411, "Length Required"},
    {412, "Precondition Failed"},
    {413, "Content Too Large"},
    {414, "URI Too Long"},
    {415, "Unsupported Media Type"},
    {416, "Range Not Satisfiable"},
    {417, "Expectation Failed"},
    {422, "Unprocessable Content"},
    {426, "Upgrade Required"},
    {429, "Too Many Requests"},
    {431, "Request Header Fields Too Large"},
    {499, "Client Closed Request"}, /* not registered, but what proxies and Connect call it */
    {500, "Internal Server Error"},
    {501, "Not Implemented"},
    {502, "Bad Gateway"},
    {503, "Service Unavailable"},
    {504, "Gateway Timeout"},
    {505, "HTTP Version Not Supported"},
    {507, "Insufficient Storage"},
};

int http_status_from_kind(enum err_kind kind)
{
    assert((unsigned)kind < ERR_KIND_COUNT);
    return kind_status[kind];
}

enum err_kind http_kind_from_status(int status)
{
    if (status == kind_status[ERR_INTERNAL])
        return ERR_INTERNAL; /* not the first kind that happens to be a 500 */
    if (status == kind_status[ERR_BAD_STATE])
        return ERR_BAD_STATE;
    for (int k = ERR_NONE + 1; k < ERR_KIND_COUNT; k++)
        if (kind_status[k] == status)
            return (enum err_kind)k;
    return ERR_PROTOCOL;
}

const char *http_status_phrase(int status)
{
    for (size_t i = 0; i < sizeof phrases / sizeof phrases[0]; i++)
        if (phrases[i].status == status)
            return phrases[i].phrase;
    return "Unknown";
}
