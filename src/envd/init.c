/* SPDX-License-Identifier: Apache-2.0 */
/*
 * POST /init: the host tells the guest the time, fresh entropy, its identity, environment and
 * token.
 *
 * Theory of operation. The body is checked as a whole before anything is changed. Then each part is
 * applied in the order of how soon it matters: entropy and clock, names, at last the settings with
 * the token. An error names the part; parts before it stay applied, the token does not, so the host
 * may simply call again. The call without a token in force is open to whoever comes first: that is
 * the host, because no process of the guest runs before. Every part may be sent again after a
 * resume, also a new token by whoever has the one in force.
 *
 * While the gate of a pause is closed no token counts: the header X-Snapshot-Secret must be the
 * secret that closed it, and the call that succeeds opens it. With "wake" that call also ends the
 * connections of the machine's former life, its own clients' before the settings change, so that
 * none of them meets those; without, the machine was never away.
 */
#include <string.h>

#include "base/cleanup.h"
#include "envd/envd_int.h"
#include "envd/etc.h"
#include "envd/gate.h"
#include "envd/settings.h"
#include "envd/system.h"
#include "envd/timestamp.h"
#include "http/server.h"
#include "http/status.h"
#include "json/json.h"
#include "proto/limits.h"

#define LOG_MODULE "init"
#include "base/log.h"

enum {
    BODY_BYTES_MAX = 8 << 20, /* LIMIT_ENV_MAX values of LIMIT_ENV_VALUE_MAX, escaped */
    ENTROPY_BYTES_MIN = 32,
    HOSTNAME_MAX = 63,
    MACHINE_ID_LEN = 32
};

struct init_request {
    int64_t real_ns; /* 0: not sent */
    struct slice entropy;
    char hostname[HOSTNAME_MAX + 1];
    char machine_id[MACHINE_ID_LEN + 1];
    struct settings_change settings;
    bool wakes;
};

/* Gets a string member of at most `max` bytes without NUL; absent, null and "" leave `ret`. */
static int get_text(
    const struct json_value *body, const char *key, size_t max, struct slice *ret, struct err *e)
{
    const struct json_value *v = json_get(body, key);
    if (!v || v->type == JSON_NULL)
        return 0;
    if (v->type != JSON_STRING)
        return err_field(e, key, "%s is not a string", key);
    if (v->string.n == 0)
        return 0;
    if (v->string.n > max || memchr(v->string.p, '\0', v->string.n))
        return err_field(e, key, "%s is longer than %zu bytes or has a NUL byte", key, max);
    *ret = v->string;
    return 0;
}

static int get_timestamp(const struct json_value *body, int64_t *ret, struct err *e)
{
    struct slice text = {0};
    if (get_text(body, "timestamp", 64, &text, e) < 0)
        return -1;
    if (text.p && !timestamp_parse(text, ret))
        return err_field(e, "timestamp", "timestamp is no RFC 3339 time and no nanoseconds");
    return 0;
}

static int get_entropy(
    const struct json_value *body, struct arena *a, struct slice *ret, struct err *e)
{
    struct slice text = {0};
    char *bytes;
    long n;
    if (get_text(body, "entropy", SYSTEM_ENTROPY_MAX / 3 * 4, &text, e) < 0)
        return -1;
    if (!text.p)
        return 0;
    bytes = arena_alloc(a, text.n / 4 * 3 + 3);
    if (!bytes)
        return err_set(e, ERR_NOMEM, "no memory for the entropy");
    n = base64_decode(text.p, text.n, bytes);
    if (n < ENTROPY_BYTES_MIN || n > SYSTEM_ENTROPY_MAX)
        return err_field(e, "entropy", "entropy is not base64 of %d to %d bytes", ENTROPY_BYTES_MIN,
            SYSTEM_ENTROPY_MAX);
    *ret = slice_of(bytes, (size_t)n);
    return 0;
}

static bool is_lower_alnum(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9');
}

/* One or more labels of RFC 1123, lower case. */
static bool is_hostname(struct slice s)
{
    char before = '.';
    for (size_t i = 0; i < s.n; i++) {
        char c = s.p[i];
        bool inside = before != '.' && i + 1 < s.n && s.p[i + 1] != '.';
        if (!is_lower_alnum(c) && !(c == '-' && inside) && !(c == '.' && before != '.'))
            return false;
        before = c;
    }
    return s.n > 0 && before != '.';
}

static int get_hostname(const struct json_value *body, char dst[HOSTNAME_MAX + 1], struct err *e)
{
    struct slice text = {0};
    if (get_text(body, "hostname", HOSTNAME_MAX, &text, e) < 0)
        return -1;
    if (!text.p)
        return 0;
    if (!is_hostname(text))
        return err_field(e, "hostname", "hostname is not valid");
    (void)slice_copy_cstr(text, dst, HOSTNAME_MAX + 1);
    return 0;
}

static int get_machine_id(
    const struct json_value *body, char dst[MACHINE_ID_LEN + 1], struct err *e)
{
    struct slice text = {0};
    if (get_text(body, "machineId", MACHINE_ID_LEN, &text, e) < 0)
        return -1;
    for (size_t i = 0; i < text.n; i++)
        if (!memchr("0123456789abcdef", text.p[i], 16))
            return err_field(e, "machineId", "machineId is not lower-case hex");
    if (text.p && text.n != MACHINE_ID_LEN)
        return err_field(e, "machineId", "machineId has not %d digits", MACHINE_ID_LEN);
    if (text.p)
        (void)slice_copy_cstr(text, dst, MACHINE_ID_LEN + 1);
    return 0;
}

static int get_var(const struct json_value *v, struct settings_var *ret, struct err *e)
{
    if (v->key.n == 0 || v->key.n > LIMIT_ENV_KEY_MAX || memchr(v->key.p, '=', v->key.n) ||
        memchr(v->key.p, '\0', v->key.n))
        return err_field(e, "envVars", "envVars has a key that no variable may have");
    if (v->type != JSON_STRING || v->string.n > LIMIT_ENV_VALUE_MAX ||
        (v->string.n > 0 && memchr(v->string.p, '\0', v->string.n)))
        return err_field(e, "envVars", "envVars.%.*s is not a string, too long or has a NUL byte",
            (int)v->key.n, v->key.p);
    *ret = (struct settings_var){v->key, v->string};
    return 0;
}

static int get_vars(
    const struct json_value *body, struct arena *a, struct settings_change *ret, struct err *e)
{
    const struct json_value *object = json_get(body, "envVars");
    struct settings_var *vars;
    size_t n = 0;
    if (!object || object->type == JSON_NULL)
        return 0;
    if (object->type != JSON_OBJECT || object->count > LIMIT_ENV_MAX)
        return err_field(
            e, "envVars", "envVars is not an object of at most %d variables", LIMIT_ENV_MAX);
    vars = arena_calloc(a, object->count + 1, sizeof *vars);
    if (!vars)
        return err_set(e, ERR_NOMEM, "no memory for envVars");
    for (const struct json_value *v = object->first; v; v = v->next)
        if (get_var(v, &vars[n++], e) < 0)
            return -1;
    ret->replaces_vars = true;
    ret->vars = vars;
    ret->n_vars = n;
    return 0;
}

static int get_settings(
    const struct json_value *body, struct arena *a, struct settings_change *ret, struct err *e)
{
    if (get_text(body, "accessToken", SETTINGS_TOKEN_MAX, &ret->token, e) < 0 ||
        get_text(body, "defaultUser", SETTINGS_USER_MAX, &ret->default_user, e) < 0 ||
        get_text(body, "defaultWorkdir", SETTINGS_WORKDIR_MAX, &ret->default_workdir, e) < 0 ||
        get_text(body, "sandboxId", SETTINGS_ID_MAX, &ret->sandbox_id, e) < 0 ||
        get_text(body, "templateId", SETTINGS_ID_MAX, &ret->template_id, e) < 0)
        return -1;
    if (ret->default_workdir.p && ret->default_workdir.p[0] != '/')
        return err_field(e, "defaultWorkdir", "defaultWorkdir is not absolute");
    return get_vars(body, a, ret, e);
}

static int get_wake(const struct json_value *body, bool *ret, struct err *e)
{
    const struct json_value *v = json_get(body, "wake");
    if (!v || v->type == JSON_NULL)
        return 0;
    if (v->type != JSON_BOOL)
        return err_field(e, "wake", "wake is neither true nor false");
    *ret = v->boolean;
    return 0;
}

/* Reads and checks the whole body. What it refers to lives in the exchange's arena. */
static int parse_request(struct http_exchange *x, struct init_request *ret, struct err *e)
{
    AUTO_BUF struct buf text = BUF_INIT(BODY_BYTES_MAX);
    struct arena *a = http_arena(x);
    const struct json_value *body;
    if (http_body_read_all(x, &text, e) < 0 || json_parse(buf_slice(&text), a, &body, e) < 0)
        return -1;
    if (body->type != JSON_OBJECT)
        return err_set(e, ERR_INVALID, "the body is no JSON object");
    if (get_timestamp(body, &ret->real_ns, e) < 0 || get_entropy(body, a, &ret->entropy, e) < 0 ||
        get_hostname(body, ret->hostname, e) < 0 || get_machine_id(body, ret->machine_id, e) < 0 ||
        get_wake(body, &ret->wakes, e) < 0)
        return -1;
    return get_settings(body, a, &ret->settings, e);
}

static int apply_machine(struct envd *d, const struct init_request *r, struct err *e)
{
    const struct system_ops *sys = d->system;
    if (r->entropy.p && sys->add_entropy(sys->ctx, r->entropy, e) < 0)
        return err_wrap(e, "entropy");
    if (r->real_ns > 0 && sys->set_clock(sys->ctx, r->real_ns, e) < 0)
        return err_wrap(e, "timestamp");
    if (r->hostname[0] && (sys->set_hostname(sys->ctx, r->hostname, e) < 0 ||
                              etc_set_hostname(d->etc_dir, r->hostname, e) < 0))
        return err_wrap(e, "hostname");
    if (r->machine_id[0] && etc_set_machine_id(d->etc_dir, r->machine_id, e) < 0)
        return err_wrap(e, "machineId");
    return 0;
}

static int check_access(
    struct envd *d, struct http_exchange *x, const struct init_request *r, struct err *e)
{
    if (!gate_is_open(d->gate))
        return gate_check_secret(d->gate, http_request_header(x, "X-Snapshot-Secret"))
                   ? 0
                   : err_set(e, ERR_UNAUTHORIZED, "unauthorized access");
    switch (settings_check_token(d->settings, http_request_header(x, "X-Access-Token"))) {
    case SETTINGS_GRANTED:
        return 0;
    case SETTINGS_NO_TOKEN_YET:
        return r && !r->settings.token.p
                   ? err_field(e, "accessToken", "the first call must set accessToken")
                   : 0;
    case SETTINGS_DENIED:
        break;
    }
    return err_set(e, ERR_UNAUTHORIZED, "unauthorized access, please provide a valid access token");
}

/* The last step, which cannot fail: a kernel that cannot end the old connections leaves that to
 * their programs. */
static void wake(struct envd *d, const struct init_request *r)
{
    struct err e = {0};
    if (r->wakes && d->system->drop_connections(d->system->ctx, &e) < 0)
        log_warn("%s", e.msg);
    gate_open(d->gate);
}

/* Access is judged before the body is read, so that strangers cost nothing, and again under the
 * lock, because another call may have set the token meanwhile. */
static int handle(struct envd *d, struct http_exchange *x, struct err *e)
{
    struct init_request r = {0};
    if (check_access(d, x, NULL, e) < 0 || parse_request(x, &r, e) < 0)
        return -1;
    MUTEX_GUARD(&d->init_lock);
    if (check_access(d, x, &r, e) < 0 || apply_machine(d, &r, e) < 0)
        return -1;
    if (r.wakes)
        snapshot_end_former_life(d, x);
    if (settings_change(d->settings, &r.settings, e) < 0)
        return -1;
    if (!gate_is_open(d->gate))
        wake(d, &r);
    return 0;
}

void init_handle(struct envd *d, struct http_exchange *x)
{
    struct err e = {0};
    if (!slice_is(http_request(x)->method, "POST")) {
        err_set(&e, ERR_METHOD, "/init takes POST");
        http_reply_header(x, "Allow", "POST");
    } else if (handle(d, x, &e) == 0) {
        (void)http_reply(x, HTTP_NO_CONTENT, NULL, (struct slice){0});
        return;
    }
    envd_reply_error(x, &e);
}
