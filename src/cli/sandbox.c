/* SPDX-License-Identifier: Apache-2.0 */
/* Finding and listing sandboxes. */
#include "cli/sandbox.h"

#include <stdio.h>
#include <string.h>

#include "cli/cli.h"

enum {
    PREFIX_MIN = 3, /* "sb" alone says nothing */
    QUERY_MAX = 64 * 1024,
};

void sandbox_target(const struct sandbox_id *id, const char *suffix, char dst[TARGET_MAX])
{
    (void)snprintf(dst, TARGET_MAX, "/v1/sandboxes/%s%s", id->text, suffix);
}

static void append_encoded(struct buf *b, struct slice s)
{
    static const char plain[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~,";
    for (size_t i = 0; i < s.n; i++) {
        if (s.p[i] && strchr(plain, s.p[i]))
            buf_append_char(b, s.p[i]);
        else
            buf_printf(b, "%%%02X", (unsigned)(unsigned char)s.p[i]);
    }
}

void query_append(struct buf *query, const char *name, struct slice value)
{
    if (query->len > 0)
        buf_append_char(query, '&');
    append_encoded(query, slice_cstr(name));
    buf_append_char(query, '=');
    append_encoded(query, value);
}

static int each_of_page(struct api_answer *page, sandbox_each *each, void *ctx, struct err *e)
{
    if (!page->json || page->json->type != JSON_ARRAY)
        return err_set(e, ERR_PROTOCOL, "the server's list is no list");
    for (const struct json_value *v = page->json->first; v; v = v->next)
        if (each(ctx, page, v, e) < 0)
            return -1;
    return 0;
}

int sandbox_list(struct api *a, const char *query, sandbox_each *each, void *ctx, struct err *e)
{
    char cursor[sizeof((struct api_answer *)0)->next_cursor] = "";
    do {
        AUTO_ANSWER struct api_answer page = {0};
        AUTO_BUF struct buf target = BUF_INIT(QUERY_MAX);
        buf_printf(&target, "/v1/sandboxes?limit=1000%s%s", query[0] ? "&" : "", query);
        if (cursor[0])
            query_append(&target, "cursor", slice_cstr(cursor));
        if (target.failed)
            return err_set(e, ERR_TOO_LARGE, "the filters are too long");
        if (api_call(a, &(struct api_call){.method = "GET", .target = target.p}, &page, e) < 0 ||
            each_of_page(&page, each, ctx, e) < 0)
            return -1;
        memcpy(cursor, page.next_cursor, sizeof cursor);
    } while (cursor[0]);
    return 0;
}

struct search {
    const char *prefix;
    struct sandbox_id found;
    size_t n;
};

static int match(
    void *ctx, struct api_answer *page, const struct json_value *sandbox, struct err *e)
{
    struct search *s = ctx;
    const char *id = api_text(page, sandbox, "id");
    if (strncmp(id, s->prefix, strlen(s->prefix)) != 0)
        return 0;
    if (s->n++ == 0 && !sandbox_id_parse(slice_cstr(id), &s->found))
        return err_set(e, ERR_PROTOCOL, "the server listed a malformed id");
    return 0;
}

/* True when it could be the start of an id. */
static bool is_prefix(const char *text)
{
    size_t n = strlen(text);
    return n >= PREFIX_MIN && n < sizeof((struct sandbox_id *)0)->text &&
           strncmp(text, "sb", 2) == 0 && strspn(text, "abcdefghijklmnopqrstuvwxyz0123456789") == n;
}

int sandbox_find(struct api *a, const char *text, struct sandbox_id *ret, struct err *e)
{
    static const char *const queries[] = {"", "status=" SANDBOX_STATUSES_ALL};
    struct search s = {.prefix = text};
    if (sandbox_id_parse(slice_cstr(text), ret))
        return 0;
    if (!is_prefix(text))
        return err_set(e, ERR_INVALID,
            "'%.80s' is neither the id of a sandbox (sb and 20 characters) nor the start of one",
            text);
    for (size_t i = 0; i < 2 && s.n == 0; i++)
        if (sandbox_list(a, queries[i], match, &s, e) < 0)
            return -1;
    if (s.n == 0)
        return err_set(e, ERR_NOT_FOUND, "no sandbox has an id that begins with %s", text);
    if (s.n > 1)
        return err_set(e, ERR_INVALID, "%zu sandboxes have ids that begin with %s", s.n, text);
    *ret = s.found;
    return 0;
}
