/* SPDX-License-Identifier: Apache-2.0 */
/* Query parameters of the sandbox list. */
#include "control/api/query.h"

#include <inttypes.h>
#include <stdio.h>

#include "json/json.h"

#define METADATA_PREFIX "metadata."
enum {
    METADATA_PREFIX_LEN = sizeof METADATA_PREFIX - 1,
    FILTER_MAX = 128 * 1024, /* of the metadata filter as JSON */
    CURSOR_ID_SEPARATOR = '.',
};
static const char parameters[] = "status, template, limit, cursor, metadata.<key>";
static const char statuses[] = "pending, running, pausing, paused, resuming, stopped, error";

/* What has been read so far. */
struct list_reader {
    struct call *call;
    struct sandbox_query *q;
    struct json_writer metadata;
    struct buf metadata_text;
    size_t n_metadata;
    bool seen_status, seen_template, seen_limit, seen_cursor;
};

static int read_statuses(struct list_reader *r, struct slice value, struct err *e)
{
    memset(r->q->statuses, 0, sizeof r->q->statuses);
    for (;;) {
        const char *comma = value.n ? memchr(value.p, ',', value.n) : NULL;
        size_t n = comma ? (size_t)(comma - value.p) : value.n;
        enum sandbox_status status;
        if (!sandbox_status_parse(slice_of(value.p, n), &status))
            return field_error(r->call, e, "status", statuses, "there is no such status");
        r->q->statuses[status] = true;
        if (!comma)
            return 0;
        value = slice_of(comma + 1, value.n - n - 1);
    }
}

static int read_template(struct list_reader *r, struct slice value, struct err *e)
{
    if (!template_name_valid(value))
        return field_error(
            r->call, e, "template", template_pattern, "that is not the name of a template");
    r->q->template = value;
    return 0;
}

static int read_limit(struct list_reader *r, struct slice value, struct err *e)
{
    uint64_t limit;
    if (!slice_parse_u64(value, &limit) || limit < 1 || limit > LIMIT_LIST_MAX)
        return field_error(
            r->call, e, "limit", "1..1000", "limit must be from 1 to %d", LIMIT_LIST_MAX);
    r->q->limit = (size_t)limit;
    return 0;
}

/* "<created_at in ms>.<id>" of the last row that the client has. */
static int read_cursor(struct list_reader *r, struct slice value, struct err *e)
{
    const char *dot = value.n ? memchr(value.p, CURSOR_ID_SEPARATOR, value.n) : NULL;
    size_t n = dot ? (size_t)(dot - value.p) : 0;
    uint64_t ms;
    if (!dot || !slice_parse_u64(slice_of(value.p, n), &ms) || ms == 0 || ms > INT64_MAX ||
        !sandbox_id_parse(slice_of(dot + 1, value.n - n - 1), &r->q->before_id))
        return field_error(r->call, e, "cursor", NULL, "the cursor is not one of X-Next-Cursor");
    r->q->before_created_ms = (int64_t)ms;
    return 0;
}

static int read_metadata(struct list_reader *r, struct slice key, struct slice value, struct err *e)
{
    if (!check_metadata_key(key) || !utf8_valid(key.p, key.n) || !check_metadata_value(value) ||
        !utf8_valid(value.p, value.n))
        return field_error(r->call, e, "metadata", "keys of 1 to 63 bytes, values of at most 1024",
            "not a metadata filter");
    if (++r->n_metadata > LIMIT_METADATA_MAX)
        return field_error(r->call, e, "metadata", "0..64 filters", "too many metadata filters");
    json_key_slice(&r->metadata, key);
    json_string(&r->metadata, value);
    return 0;
}

static int once(struct list_reader *r, bool *seen, const char *name, struct err *e)
{
    if (*seen)
        return field_error(r->call, e, name, NULL, "%s is given twice", name);
    *seen = true;
    return 0;
}

static int read_pair(struct list_reader *r, struct slice key, struct slice value, struct err *e)
{
    if (key.n > METADATA_PREFIX_LEN && memcmp(key.p, METADATA_PREFIX, METADATA_PREFIX_LEN) == 0)
        return read_metadata(
            r, slice_of(key.p + METADATA_PREFIX_LEN, key.n - METADATA_PREFIX_LEN), value, e);
    if (slice_is(key, "status"))
        return once(r, &r->seen_status, "status", e) < 0 ? -1 : read_statuses(r, value, e);
    if (slice_is(key, "template"))
        return once(r, &r->seen_template, "template", e) < 0 ? -1 : read_template(r, value, e);
    if (slice_is(key, "limit"))
        return once(r, &r->seen_limit, "limit", e) < 0 ? -1 : read_limit(r, value, e);
    if (slice_is(key, "cursor"))
        return once(r, &r->seen_cursor, "cursor", e) < 0 ? -1 : read_cursor(r, value, e);
    return field_error(r->call, e, "query", parameters, "unknown query parameter");
}

static int decode(struct call *c, struct slice s, struct slice *ret, struct err *e)
{
    char *dst = arena_alloc(c->arena, s.n + 1);
    size_t n;
    if (!dst)
        return err_set(e, ERR_TOO_LARGE, "the query is too large");
    if (!http_percent_decode(s, /* is_query= */ true, dst, &n))
        return field_error(c, e, "query", parameters, "malformed percent-encoding");
    *ret = slice_of(dst, n);
    return 0;
}

static int read_pairs(struct list_reader *r, struct slice query, struct err *e)
{
    while (query.n > 0) {
        const char *amp = memchr(query.p, '&', query.n);
        size_t n = amp ? (size_t)(amp - query.p) : query.n;
        const char *eq = n ? memchr(query.p, '=', n) : NULL;
        size_t n_key = eq ? (size_t)(eq - query.p) : n;
        struct slice key, value;
        if (decode(r->call, slice_of(query.p, n_key), &key, e) < 0 ||
            decode(r->call, eq ? slice_of(eq + 1, n - n_key - 1) : slice_of("", 0), &value, e) < 0)
            return -1;
        if (n > 0 && read_pair(r, key, value, e) < 0)
            return -1;
        query = slice_of(query.p + n + (amp ? 1 : 0), query.n - n - (amp ? 1 : 0));
    }
    return 0;
}

int query_read_list(struct call *c, struct sandbox_query *ret, struct err *e)
{
    struct list_reader r = {.call = c, .q = ret, .metadata_text = BUF_INIT(FILTER_MAX)};
    int rc;
    for (int i = 0; i < SANDBOX_STATUS_COUNT; i++)
        ret->statuses[i] = i != SANDBOX_STOPPED && i != SANDBOX_ERROR;
    ret->limit = LIMIT_LIST_DEFAULT;
    json_writer_init(&r.metadata, &r.metadata_text);
    json_object_begin(&r.metadata);
    rc = read_pairs(&r, http_request(c->x)->query, e);
    json_object_end(&r.metadata);
    if (rc == 0 && r.n_metadata > 0) {
        size_t n = r.metadata_text.len;
        char *text = r.metadata_text.failed ? NULL : arena_strndup(c->arena, r.metadata_text.p, n);
        if (text)
            ret->metadata = slice_of(text, n);
        else
            rc = err_set(e, ERR_TOO_LARGE, "the query is too large");
    }
    buf_done(&r.metadata_text);
    return rc;
}

void query_write_cursor(const struct sandbox_row *last, char dst[CURSOR_MAX])
{
    (void)snprintf(dst, CURSOR_MAX, "%" PRId64 "%c%s", last->created_at_ms, CURSOR_ID_SEPARATOR,
        last->id.text);
}
