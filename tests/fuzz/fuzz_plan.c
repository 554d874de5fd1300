/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The launch plan as torpor-shim decodes it, head and body. What passes must keep the promises that
 * jail and exec rely on: bounds, ids, and paths that lead nowhere else. Descriptors do not come
 * with it; shim_test.c sends wrong ones.
 */
#include <assert.h>
#include <stdint.h>
#include <string.h>

#include "shim/plan.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static bool is_inside(const struct plan *p, const char *s)
{
    return s >= p->body && s + strlen(s) < p->body + p->head.body_bytes;
}

/* Absolute, without empty parts, "." or "..". */
static bool is_plain(const char *path)
{
    char text[2048];
    size_t n = strlen(path);
    if (path[0] != '/' || n + 2 > sizeof text)
        return false;
    memcpy(text, path, n);
    memcpy(text + n, "/", 2);
    return !strstr(text, "//") && !strstr(text, "/./") && !strstr(text, "/../");
}

static void check_plan(const struct plan *p)
{
    assert(p->head.uid >= SHIM_UID_MIN && p->head.uid != UINT32_MAX);
    assert(plan_fd_count(p) <= SHIM_FDS_MAX);
    assert(
        p->head.memory == SHIM_MEMORY_STOCK ? p->head.memory_bytes == 0 : p->head.memory_bytes > 0);
    assert(p->head.n_args > 0 && p->head.n_args <= SHIM_ARGS_MAX);
    assert(p->head.n_files > 0 && p->head.n_files <= SHIM_FILES_MAX);
    assert(memchr(p->head.id, '\0', sizeof p->head.id) && !strchr(p->head.id, '/'));
    assert(memchr(p->head.tap, '\0', sizeof p->head.tap) && !strchr(p->head.tap, '%'));
    for (unsigned i = 0; i < p->head.n_args; i++)
        assert(is_inside(p, p->argv[i]));
    assert(!p->argv[p->head.n_args] && is_plain(p->argv[0]));
    for (unsigned i = 0; i < p->head.n_files; i++) {
        const struct plan_file *f = &p->files[i];
        assert(is_inside(p, f->source) && is_inside(p, f->target));
        assert(f->source[0] == '/' && is_plain(f->target) && strncmp(f->target, "/dev/", 5) != 0);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct plan *p;
    struct err e = {0};
    if (!p)
        p = plan_new();
    if (!p || size < sizeof p->head)
        return 0;
    memcpy(&p->head, data, sizeof p->head);
    if (plan_check_head(p, &e) < 0) {
        assert(e.kind == ERR_PROTOCOL);
        return 0;
    }
    if (p->head.body_bytes != size - sizeof p->head) {
        /* Most changes make it longer or shorter; a peer may well say the right number. */
        size_t rest = size - sizeof p->head;
        if (rest == 0 || rest > SHIM_BODY_MAX)
            return 0;
        p->head.body_bytes = (uint32_t)rest;
    }
    memset(p->body, 'x', sizeof p->body);
    memcpy(p->body, data + sizeof p->head, p->head.body_bytes);
    if (plan_parse_body(p, &e) == 0)
        check_plan(p);
    else
        assert(e.kind == ERR_PROTOCOL);
    return 0;
}
