/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The API's way in: request id, route, authentication, the sandbox's id, handler, error.
 *
 * In that order: an unknown route says so to anybody; what a route wants of its request is only
 * looked at for somebody who may call it. Handlers are not interrupted by a client that leaves.
 */
#include "control/api/api_int.h"

#include <assert.h>
#include <stdio.h>

#define LOG_MODULE "api"
#include "base/log.h"
#include "base/rand.h"

enum {
    THREADS_MAX = 1024,  /* an exec holds one for as long as it runs */
    WORK_LIFE_MAX = 256, /* creates wait for a boot slot of the host */
    WORK_EXEC_MAX = 512,
    WORK_FILES_MAX = 64, /* of which the small ones do not wait for TRANSFERS_MAX */
    STACK_BYTES = 256 * 1024,
    ARENA_BYTES_MAX = 16 << 20, /* a JSON body of 1 MiB as a tree */
    TRANSFERS_MAX = 16,         /* times twice 100 MiB */
    REQUEST_ID_CHARS = 20,
};

/* What is left of the threads is for short requests. */
static const struct http_class classes[] = {
    [WORK_SHORT] = {"short requests", 0},
    [WORK_LIFE] = {"changes of sandboxes", WORK_LIFE_MAX},
    [WORK_EXEC] = {"exec", WORK_EXEC_MAX},
    [WORK_FILES] = {"files", WORK_FILES_MAX},
};
static_assert(ARRAY_LEN(classes) == WORK_COUNT, "a bound for each");
static_assert((int)WORK_HEALTH == (int)HTTP_CLASS_RESERVED, "health is never refused");

static int classify(const struct http_request_head *head, void *ctx)
{
    char allow[ALLOW_MAX];
    struct slice id;
    const struct route *route = route_find(head->method, head->path, &id, allow);
    return route ? route->work : WORK_SHORT;
}

static bool request_id_valid(struct slice s)
{
    if (s.n == 0 || s.n > LIMIT_REQUEST_ID_MAX)
        return false;
    for (size_t i = 0; i < s.n; i++) {
        char ch = s.p[i];
        if (!((ch >= 'a' && ch <= 'z') || (ch >= 'A' && ch <= 'Z') || (ch >= '0' && ch <= '9') ||
                ch == '.' || ch == '_' || ch == '-'))
            return false;
    }
    return true;
}

/* Takes the client's request id, or makes one. It goes into the answer and every log line. */
static void call_init(struct call *c, struct http_exchange *x, struct api *api)
{
    struct slice id = http_request_header(x, "X-Request-Id");
    *c = (struct call){.x = x, .api = api, .service = api->service, .arena = http_arena(x)};
    if (!request_id_valid(id) || !slice_copy_cstr(id, c->request_id, sizeof c->request_id)) {
        memcpy(c->request_id, "req", 3);
        rand_base32(c->request_id + 3, REQUEST_ID_CHARS);
    }
    http_reply_header(x, "X-Request-Id", "%s", c->request_id);
    log_context_set(c->request_id, NULL);
}

/* "sb" and 20 lower-case letters and digits: what may be an id, even where our own never are. */
static bool looks_like_id(struct slice text)
{
    if (text.n != 2 + ID_RANDOM_CHARS || memcmp(text.p, "sb", 2) != 0)
        return false;
    for (size_t i = 2; i < text.n; i++)
        if (!((text.p[i] >= 'a' && text.p[i] <= 'z') || (text.p[i] >= '0' && text.p[i] <= '9')))
            return false;
    return true;
}

static int check_id(struct call *c, struct slice text, struct err *e)
{
    if (!text.p)
        return 0;
    if (!looks_like_id(text))
        return field_error(c, e, "id", "^sb[a-z0-9]{20}$", "that is not the id of a sandbox");
    if (!sandbox_id_parse(text, &c->id))
        return err_set(e, ERR_NOT_FOUND, "no sandbox %.*s", (int)text.n, text.p);
    log_context_set(c->request_id, c->id.text);
    return 0;
}

static int run_call(struct call *c, struct err *e)
{
    const struct http_request_head *head = http_request(c->x);
    char allow[ALLOW_MAX];
    struct slice id;
    const struct route *route = route_find(head->method, head->path, &id, allow);
    c->route = route;
    if (!route && allow[0]) {
        http_reply_header(c->x, "Allow", "%s", allow);
        return err_set(e, ERR_METHOD, "this route has %s", allow);
    }
    if (!route)
        return err_set(e, ERR_NOT_FOUND, "there is no such route");
    if (!route->open && auth_check(c, e) < 0)
        return -1;
    if (strstr(route->path, "{name}"))
        c->name = id;
    else if (check_id(c, id, e) < 0)
        return -1;
    return route->handler(c, e);
}

/* What was sent in pieces and broke off has no status that anybody saw. */
static void count_answer(const struct call *c)
{
    size_t route = c->route ? (size_t)(c->route - api_routes) : n_api_routes;
    int class = c->status / 100 - 1;
    if (class >= 0 && class < STATUS_CLASSES)
        (void)__atomic_fetch_add(&c->api->answers[route][class], 1, __ATOMIC_RELAXED);
}

static void handle(struct http_exchange *x, void *ctx)
{
    struct err e = {0};
    struct call c;
    call_init(&c, x, ctx);
    if (run_call(&c, &e) < 0) {
        if (http_reply_begun(x))
            http_reply_abort(x);
        else
            reply_error(&c, &e, http_status_from_kind(e.kind));
    }
    count_answer(&c);
    log_context_set(NULL, NULL);
}

static void handle_refused(struct http_exchange *x, const struct err *why, void *ctx)
{
    char allow[ALLOW_MAX];
    struct slice id;
    struct call c;
    call_init(&c, x, ctx);
    if (why->kind == ERR_NO_CAPACITY)
        c.route = route_find(http_request(x)->method, http_request(x)->path, &id, allow);
    reply_error(&c, why, http_error_status(x));
    count_answer(&c);
    log_context_set(NULL, NULL);
}

int api_start(int listen_fd, struct service *service, struct api **ret, struct err *e)
{
    struct api *api = calloc(1, sizeof *api);
    struct http_server_config config = {
        .listen_fd = listen_fd,
        .handler = handle,
        .on_error = handle_refused,
        .classify = classify,
        .classes = classes,
        .n_classes = WORK_COUNT,
        .ctx = api,
        .threads_max = THREADS_MAX,
        .stack_bytes = STACK_BYTES,
        .arena_bytes_max = ARENA_BYTES_MAX,
    };
    if (!api || !(api->answers = calloc(n_api_routes + 1, sizeof *api->answers))) {
        (void)close(listen_fd);
        free(api);
        return err_set(e, ERR_NOMEM, "out of memory");
    }
    api->service = service;
    (void)sem_init(&api->transfers, 0, TRANSFERS_MAX);
    api->server = http_server_start(&config, e);
    if (!api->server) {
        (void)sem_destroy(&api->transfers);
        free(api->answers);
        free(api);
        return -1;
    }
    *ret = api;
    return 0;
}

struct api *api_stop(struct api *api)
{
    if (!api)
        return NULL;
    __atomic_store_n(&api->stopping, 1, __ATOMIC_RELEASE);
    http_server_stop(api->server);
    (void)sem_destroy(&api->transfers);
    free(api->answers);
    free(api);
    return NULL;
}
