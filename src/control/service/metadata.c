/* SPDX-License-Identifier: Apache-2.0 */
/* Merging metadata: old members keep their place, new ones go to the end. */
#include "control/service/metadata.h"

#include "json/json.h"
#include "proto/limits.h"

enum { /* the largest object that passes validation, each byte escaped as \u00NN */
    METADATA_TEXT_MAX =
        LIMIT_METADATA_MAX * (6 * (LIMIT_METADATA_KEY_MAX + LIMIT_METADATA_VALUE_MAX) + 8),
};

/* The last edit of that key wins; NULL if there is none. */
static const struct metadata_edit *find_edit(
    const struct metadata_edit *edits, size_t n, struct slice key)
{
    while (n-- > 0)
        if (slice_eq(edits[n].key, key))
            return &edits[n];
    return NULL;
}

static bool has_member(const struct json_value *object, struct slice key)
{
    for (const struct json_value *v = object ? object->first : NULL; v; v = v->next)
        if (slice_eq(v->key, key))
            return true;
    return false;
}

static size_t write_pair(struct json_writer *w, struct slice key, struct slice value)
{
    json_key_slice(w, key);
    json_string(w, value);
    return 1;
}

static size_t write_merged(struct json_writer *w, const struct json_value *old,
    const struct metadata_edit *edits, size_t n)
{
    size_t count = 0;
    json_object_begin(w);
    for (const struct json_value *v = old ? old->first : NULL; v; v = v->next) {
        const struct metadata_edit *edit = find_edit(edits, n, v->key);
        if (!edit)
            count += write_pair(w, v->key, v->string);
        else if (!edit->remove)
            count += write_pair(w, v->key, edit->value);
    }
    for (size_t i = 0; i < n; i++)
        if (!edits[i].remove && !has_member(old, edits[i].key) &&
            find_edit(edits, n, edits[i].key) == &edits[i])
            count += write_pair(w, edits[i].key, edits[i].value);
    json_object_end(w);
    return count;
}

int metadata_apply(struct slice old_text, const struct metadata_edit *edits, size_t n,
    struct arena *a, struct slice *ret, struct err *e)
{
    AUTO_BUF struct buf out = BUF_INIT(METADATA_TEXT_MAX);
    const struct json_value *old = NULL;
    struct json_writer w;
    char *text;
    if (old_text.n > 0 && json_parse(old_text, a, &old, e) < 0) {
        err_set(e, ERR_INTERNAL, "stored metadata is no JSON");
        return -1;
    }
    json_writer_init(&w, &out);
    if (write_merged(&w, old, edits, n) > LIMIT_METADATA_MAX)
        return err_field(e, "metadata", "at most %d keys", LIMIT_METADATA_MAX);
    text = out.failed ? NULL : arena_strndup(a, out.p, out.len);
    if (!text)
        return err_set(e, ERR_NOMEM, "out of memory");
    *ret = slice_of(text, out.len);
    return 0;
}
