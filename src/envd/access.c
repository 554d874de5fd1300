/* SPDX-License-Identifier: Apache-2.0 */
/* Access: the one place that judges tokens of ordinary requests and finds their users. */
#include "envd/access.h"

#include <string.h>

#include "envd/envd_int.h"
#include "envd/settings.h"
#include "envd/users.h"
#include "http/server.h"

enum { CREDENTIALS_MAX = 512 };

int access_check(struct envd *d, struct http_exchange *x, struct err *e)
{
    struct slice token = http_request_header(x, "X-Access-Token");
    enum settings_access access = settings_check_token(d->settings, token);
    if (access == SETTINGS_GRANTED)
        return 0;
    if (access == SETTINGS_DENIED && slice_is(http_request(x)->path, "/files"))
        return err_set(e, ERR_UNAUTHORIZED,
            token.p ? "access token present in header but does not match"
                    : "missing signature query parameter");
    return err_set(e, ERR_UNAUTHORIZED,
        "unauthorized access, please provide a valid access token or method signing if supported");
}

/* Looks up `name`, the default user when it is empty. */
static int find_user(struct envd *d, struct slice name, struct user *ret, struct err *e)
{
    char fallback[SETTINGS_USER_MAX + 1];
    if (name.n == 0) {
        settings_default_user(d->settings, fallback);
        name = slice_cstr(fallback);
    }
    return user_lookup(d->etc_dir, name, ret, e);
}

static int shown_len(struct slice name)
{
    return (int)(name.n < USER_NAME_MAX ? name.n : USER_NAME_MAX);
}

int access_rest_user(struct envd *d, struct http_exchange *x, struct user *ret, struct err *e)
{
    struct slice name = {0};
    (void)http_request_query(x, "username", &name);
    if (find_user(d, name, ret, e) == 0)
        return 0;
    if (e->kind != ERR_NOT_FOUND || e->errnum != 0)
        return err_wrap(e, "look up the user");
    return err_set(e, ERR_UNAUTHORIZED, "error looking up user '%.*s': no such user",
        shown_len(name), name.p ? name.p : "");
}

/* The user name in an Authorization header's value; decoded into `dst`. */
static bool parse_basic(struct slice value, char dst[CREDENTIALS_MAX], struct slice *ret)
{
    const struct slice scheme = SLICE_LIT("Basic ");
    const char *colon;
    long n;
    if (value.n < scheme.n || !slice_eq_nocase(slice_of(value.p, scheme.n), scheme))
        return false;
    value = slice_of(value.p + scheme.n, value.n - scheme.n);
    if (value.n / 4 * 3 + 3 > CREDENTIALS_MAX)
        return false;
    n = base64_decode(value.p, value.n, dst);
    colon = n > 0 ? memchr(dst, ':', (size_t)n) : NULL;
    if (!colon)
        return false;
    *ret = slice_of(dst, (size_t)(colon - dst));
    return true;
}

int access_rpc_user(struct envd *d, struct http_exchange *x, struct user *ret, struct err *e)
{
    struct slice header = http_request_header(x, "Authorization");
    char credentials[CREDENTIALS_MAX];
    struct slice name = {0};
    if (header.p && !parse_basic(header, credentials, &name))
        return err_set(e, ERR_UNAUTHORIZED, "the Authorization header is not Basic user:password");
    if (find_user(d, name, ret, e) == 0)
        return 0;
    if (e->kind != ERR_NOT_FOUND || e->errnum != 0)
        return err_wrap(e, "look up the user");
    return err_set(
        e, ERR_UNAUTHORIZED, "invalid username: '%.*s'", shown_len(name), name.p ? name.p : "");
}
