/* SPDX-License-Identifier: Apache-2.0 */
/* Handlers of /v1/sandboxes and /v1/sandboxes/{id}. */
#include "control/api/body.h"
#include "control/api/query.h"

#include "json/json.h"
#include "rpc/message.h"

enum {
    VCPUS_DEFAULT = 1,
    MEMORY_MB_DEFAULT = 512,
    LIST_ARENA_BYTES = 256 << 20, /* a page of 1000 with the largest metadata, twice */
    LIST_BODY_MAX = 512 << 20,
};

struct create_body {
    struct slice template;
    int vcpus, memory_mb, timeout_sec;
    struct body_list env;
    struct body_list metadata;
};

static const struct body_field create_fields[] = {
    {.name = "template",
        .kind = BODY_STRING,
        .offset = offsetof(struct create_body, template),
        .valid = template_name_valid,
        .allowed = template_pattern},
    {.name = "vcpus",
        .kind = BODY_INT,
        .offset = offsetof(struct create_body, vcpus),
        .min = LIMIT_VCPUS_MIN,
        .max = LIMIT_VCPUS_MAX},
    {.name = "memory_mb",
        .kind = BODY_INT,
        .offset = offsetof(struct create_body, memory_mb),
        .min = LIMIT_MEMORY_MB_MIN,
        .max = LIMIT_MEMORY_MB_MAX},
    {.name = "timeout_sec",
        .kind = BODY_INT,
        .offset = offsetof(struct create_body, timeout_sec),
        .min = 0,
        .max = LIMIT_TIMEOUT_SEC_MAX},
    {.name = "env",
        .kind = BODY_ENV,
        .offset = offsetof(struct create_body, env),
        .count_max = LIMIT_ENV_MAX},
    {.name = "metadata",
        .kind = BODY_METADATA,
        .offset = offsetof(struct create_body, metadata),
        .count_max = LIMIT_METADATA_MAX},
};

/* True when nobody is there for the answer. A server that stops looks like a client that left, so
 * then only the answer itself can tell. */
static bool client_gone(struct call *c)
{
    return !__atomic_load_n(&c->api->stopping, __ATOMIC_ACQUIRE) && http_peer_gone(c->x) &&
           !__atomic_load_n(&c->api->stopping, __ATOMIC_ACQUIRE);
}

static int reply_created(struct call *c, const struct sandbox_row *row, struct err *e)
{
    AUTO_BUF struct buf body = BUF_INIT(1 << 20);
    struct json_writer w;
    json_writer_init(&w, &body);
    if (write_sandbox(&w, row, c->arena, e) < 0)
        return -1;
    if (body.failed)
        return err_set(e, ERR_NOMEM, "the answer does not fit into memory");
    if (client_gone(c) || reply_bytes(c, HTTP_CREATED, "application/json", buf_slice(&body)) < 0)
        service_undo_create(c->service, &row->id);
    return 0;
}

int sandbox_create(struct call *c, struct err *e)
{
    struct create_body b = {
        .template = SLICE_LIT("minimal"), .vcpus = VCPUS_DEFAULT, .memory_mb = MEMORY_MB_DEFAULT};
    struct create_params p;
    struct sandbox_row row;
    if (body_read(c, create_fields, ARRAY_LEN(create_fields), &b, e) < 0)
        return -1;
    p = (struct create_params){
        .template = b.template,
        .vcpus = b.vcpus,
        .memory_mb = b.memory_mb,
        .timeout_sec = b.timeout_sec,
        .env = b.env.items,
        .n_env = b.env.n,
        .metadata = b.metadata.items,
        .n_metadata = b.metadata.n,
    };
    if (service_create(c->service, &c->who, &p, c->arena, &row, e) < 0)
        return -1;
    return reply_created(c, &row, e);
}

static int write_list(
    struct buf *body, const struct sandbox_list *list, struct arena *a, struct err *e)
{
    struct json_writer w;
    json_writer_init(&w, body);
    json_array_begin(&w);
    for (size_t i = 0; i < list->n; i++)
        if (write_sandbox(&w, &list->rows[i], a, e) < 0)
            return -1;
    json_array_end(&w);
    return 0;
}

int sandbox_list(struct call *c, struct err *e)
{
    AUTO_BUF struct buf body = BUF_INIT(LIST_BODY_MAX);
    CLEANUP(arena_done) struct arena arena = {0};
    struct sandbox_query q = {0};
    struct sandbox_list list;
    char cursor[CURSOR_MAX];
    arena_init(&arena, LIST_ARENA_BYTES);
    if (query_read_list(c, &q, e) < 0 ||
        service_list(c->service, &c->who, &q, &arena, &list, e) < 0 ||
        write_list(&body, &list, &arena, e) < 0)
        return -1;
    if (list.more) {
        query_write_cursor(&list.rows[list.n - 1], cursor);
        http_reply_header(c->x, "X-Next-Cursor", "%s", cursor);
    }
    return reply_json(c, HTTP_OK, &body, e);
}

int sandbox_get(struct call *c, struct err *e)
{
    struct sandbox_row row;
    if (service_get(c->service, &c->who, &c->id, c->arena, &row, e) < 0)
        return -1;
    return reply_sandbox(c, HTTP_OK, &row, e);
}

int sandbox_delete(struct call *c, struct err *e)
{
    return service_destroy(c->service, &c->who, &c->id, e) < 0 ? -1 : reply_empty(c);
}

struct patch_body {
    struct body_list metadata;
    int timeout_sec;
    bool has_timeout_sec;
};

static const struct body_field patch_fields[] = {
    {.name = "timeout_sec",
        .kind = BODY_INT,
        .offset = offsetof(struct patch_body, timeout_sec),
        .presence = offsetof(struct patch_body, has_timeout_sec),
        .min = 0,
        .max = LIMIT_TIMEOUT_SEC_MAX},
    {.name = "metadata",
        .kind = BODY_METADATA,
        .offset = offsetof(struct patch_body, metadata),
        .count_max = 2 * LIMIT_METADATA_MAX,
        .removes = true},
};

int sandbox_patch(struct call *c, struct err *e)
{
    struct patch_body b = {0};
    struct update_params p;
    struct sandbox_row row;
    if (body_read(c, patch_fields, ARRAY_LEN(patch_fields), &b, e) < 0)
        return -1;
    p = (struct update_params){
        .has_timeout_sec = b.has_timeout_sec,
        .timeout_sec = b.timeout_sec,
        .metadata = b.metadata.items,
        .n_metadata = b.metadata.n,
    };
    if (service_update(c->service, &c->who, &c->id, &p, c->arena, &row, e) < 0)
        return -1;
    return reply_sandbox(c, HTTP_OK, &row, e);
}

int sandbox_ping(struct call *c, struct err *e)
{
    return service_ping(c->service, &c->who, &c->id, e) < 0 ? -1 : reply_empty(c);
}
