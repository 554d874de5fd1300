/* SPDX-License-Identifier: Apache-2.0 */
/* The route table; openapi.yaml lists the same, and a test holds them against each other. */
#include "control/api/api_int.h"

#include <stdio.h>

static const struct route table[] = {
    {"GET", "/healthz", true, WORK_HEALTH, meta_healthz},
    {"GET", "/readyz", true, WORK_HEALTH, meta_readyz},
    {"GET", "/version", true, WORK_HEALTH, meta_version},
    {"GET", "/openapi.yaml", true, WORK_SHORT, meta_openapi},
    {"GET", "/metrics", false, WORK_SHORT, meta_metrics},
    {"GET", "/v1/snapshots", false, WORK_SHORT, snapshot_list},
    {"POST", "/v1/snapshots", false, WORK_LIFE, snapshot_create},
    {"GET", "/v1/snapshots/{name}", false, WORK_SHORT, snapshot_get},
    {"DELETE", "/v1/snapshots/{name}", false, WORK_SHORT, snapshot_delete},
    {"POST", "/v1/sandboxes", false, WORK_LIFE, sandbox_create},
    {"GET", "/v1/sandboxes", false, WORK_SHORT, sandbox_list},
    {"GET", "/v1/sandboxes/{id}", false, WORK_SHORT, sandbox_get},
    {"DELETE", "/v1/sandboxes/{id}", false, WORK_LIFE, sandbox_delete},
    {"PATCH", "/v1/sandboxes/{id}", false, WORK_LIFE, sandbox_patch},
    {"POST", "/v1/sandboxes/{id}/ping", false, WORK_SHORT, sandbox_ping},
    {"POST", "/v1/sandboxes/{id}/pause", false, WORK_LIFE, sandbox_pause},
    {"POST", "/v1/sandboxes/{id}/resume", false, WORK_LIFE, sandbox_resume},
    {"POST", "/v1/sandboxes/{id}/exec", false, WORK_EXEC, exec_run},
    {"POST", "/v1/sandboxes/{id}/files/write", false, WORK_FILES, file_write},
    {"POST", "/v1/sandboxes/{id}/files/read", false, WORK_FILES, file_read},
};
const struct route *const api_routes = table;
const size_t n_api_routes = ARRAY_LEN(table);

/* Matches byte for byte; "{id}" or "{name}" takes everything up to the next slash. */
static bool path_matches(const char *pattern, struct slice path, struct slice *ret_id)
{
    const char *hole = strchr(pattern, '{');
    size_t before, id_len = 0;
    if (!hole) {
        *ret_id = slice_of(NULL, 0);
        return slice_is(path, pattern);
    }
    before = (size_t)(hole - pattern);
    if (path.n < before || memcmp(path.p, pattern, before) != 0)
        return false;
    while (before + id_len < path.n && path.p[before + id_len] != '/')
        id_len++;
    *ret_id = slice_of(path.p + before, id_len);
    return slice_is(
        slice_of(path.p + before + id_len, path.n - before - id_len), strchr(hole, '}') + 1);
}

static void add_allowed(char allow[ALLOW_MAX], const char *method)
{
    size_t n = strlen(allow);
    (void)snprintf(allow + n, ALLOW_MAX - n, "%s%s%s", n ? ", " : "", method,
        strcmp(method, "GET") == 0 ? ", HEAD" : "");
}

const struct route *route_find(
    struct slice method, struct slice path, struct slice *ret_id, char allow[ALLOW_MAX])
{
    const char *name = slice_is(method, "HEAD") ? "GET" : NULL;
    allow[0] = '\0';
    for (size_t i = 0; i < n_api_routes; i++) {
        const struct route *r = &table[i];
        if (!path_matches(r->path, path, ret_id))
            continue;
        if (name ? strcmp(r->method, name) == 0 : slice_is(method, r->method))
            return r;
        add_allowed(allow, r->method);
    }
    return NULL;
}
