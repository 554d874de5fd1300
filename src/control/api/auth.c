/* SPDX-License-Identifier: Apache-2.0 */
/* Who asks: an API key in X-API-Key, or as a bearer token. */
#include "control/api/api_int.h"

enum { SCHEME_LEN = 7 };

/* The token behind "Bearer ", p NULL for another scheme. */
static struct slice bearer_token(struct slice header)
{
    if (header.n <= SCHEME_LEN ||
        !slice_eq_nocase(slice_of(header.p, SCHEME_LEN), SLICE_LIT("Bearer ")))
        return slice_of(NULL, 0);
    return slice_of(header.p + SCHEME_LEN, header.n - SCHEME_LEN);
}

int auth_check(struct call *c, struct err *e)
{
    struct slice key = http_request_header(c->x, "X-API-Key");
    if (!key.p)
        key = bearer_token(http_request_header(c->x, "Authorization"));
    if (!key.p)
        return err_set(e, ERR_UNAUTHORIZED, "an API key is needed: X-API-Key, or a bearer token");
    return service_authenticate(c->service, key, &c->who, e);
}
