/* SPDX-License-Identifier: Apache-2.0 */
/* What the server says of itself. */
#include "control/api/api_int.h"

#include "json/json.h"

/* Written by embed.py from openapi.yaml. */
extern const unsigned char openapi_yaml[];
extern const size_t openapi_yaml_len;

enum { META_BODY_MAX = 256 };

static int reply_pair(struct call *c, const char *key, const char *value, struct err *e)
{
    AUTO_BUF struct buf body = BUF_INIT(META_BODY_MAX);
    struct json_writer w;
    json_writer_init(&w, &body);
    json_object_begin(&w);
    json_key(&w, key);
    json_cstr(&w, value);
    json_object_end(&w);
    return reply_json(c, HTTP_OK, &body, e);
}

/* The process answers; says nothing of what is behind it. */
int meta_healthz(struct call *c, struct err *e)
{
    return reply_pair(c, "status", "ok", e);
}

int meta_readyz(struct call *c, struct err *e)
{
    if (service_ready(c->service, e) < 0)
        return -1;
    return reply_pair(c, "status", "ready", e);
}

int meta_version(struct call *c, struct err *e)
{
    return reply_pair(c, "version", TORPOR_VERSION, e);
}

int meta_openapi(struct call *c, struct err *e)
{
    struct slice text = slice_of((const char *)openapi_yaml, openapi_yaml_len);
    (void)reply_bytes(c, HTTP_OK, "application/yaml", text);
    return 0;
}
