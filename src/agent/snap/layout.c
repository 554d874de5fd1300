/* SPDX-License-Identifier: Apache-2.0 */
/* layout.json: which blobs hold a generation. */
#include <stdlib.h>

#include "agent/snap/generations_int.h"
#include "base/cleanup.h"
#include "base/io.h"
#include "json/json.h"

struct layout *layout_new(size_t n_memory, size_t n_layers, size_t n_state, struct err *e)
{
    size_t n = n_memory + n_layers + n_state;
    struct layout *l = calloc(1, sizeof *l + n * sizeof l->refs[0]);
    if (!l) {
        (void)err_set(e, ERR_NOMEM, "out of memory");
        return NULL;
    }
    l->n_memory = n_memory;
    l->n_layers = n_layers;
    l->n_state = n_state;
    return l;
}

static void write_refs(
    struct json_writer *w, const char *key, const struct blob_ref *refs, size_t n)
{
    json_key(w, key);
    json_array_begin(w);
    for (size_t i = 0; i < n; i++) {
        char id[UUID_TEXT + 1];
        char digest[2 * DIGEST_BYTES + 1];
        uuid_format(&refs[i].id, id);
        hex_encode(refs[i].sums_digest, DIGEST_BYTES, digest);
        json_object_begin(w);
        json_key(w, "blob");
        json_cstr(w, id);
        json_key(w, "bytes");
        json_uint(w, refs[i].bytes);
        json_key(w, "sums_sha256");
        json_cstr(w, digest);
        json_object_end(w);
    }
    json_array_end(w);
}

void layout_write(const struct layout *l, struct buf *dst)
{
    struct json_writer w;
    json_writer_init(&w, dst);
    json_object_begin(&w);
    json_key(&w, "format");
    json_int(&w, GENERATION_FORMAT);
    json_key(&w, "map");
    json_cstr(&w, l->map);
    write_refs(&w, "memory", l->refs, l->n_memory);
    write_refs(&w, "layers", layout_layers(l), l->n_layers);
    write_refs(&w, "state", l->refs + l->n_memory + l->n_layers, l->n_state);
    json_object_end(&w);
    buf_append_char(dst, '\n');
}

static int hex_value(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static bool parse_digest(const struct json_value *v, unsigned char dst[DIGEST_BYTES])
{
    if (!v || v->type != JSON_STRING || v->string.n != (size_t)2 * DIGEST_BYTES)
        return false;
    for (size_t i = 0; i < DIGEST_BYTES; i++) {
        int high = hex_value(v->string.p[2 * i]);
        int low = hex_value(v->string.p[2 * i + 1]);
        if (high < 0 || low < 0)
            return false;
        dst[i] = (unsigned char)(high << 4 | low);
    }
    return true;
}

static bool parse_ref(const struct json_value *v, struct blob_ref *ret)
{
    const struct json_value *id = json_get(v, "blob");
    const struct json_value *bytes = json_get(v, "bytes");
    if (!id || id->type != JSON_STRING || !uuid_parse(id->string, &ret->id) ||
        uuid_is_none(&ret->id))
        return false;
    if (!bytes || bytes->type != JSON_INT || bytes->integer < 0)
        return false;
    ret->bytes = (uint64_t)bytes->integer;
    return parse_digest(json_get(v, "sums_sha256"), ret->sums_digest);
}

static bool parse_refs(const struct json_value *array, struct blob_ref *refs)
{
    for (const struct json_value *v = array->first; v; v = v->next)
        if (!parse_ref(v, refs++))
            return false;
    return true;
}

/* "" or one path component that only a map has. */
static bool is_map_name(struct slice s, char dst[MAP_NAME_MAX])
{
    if (!slice_copy_cstr(s, dst, MAP_NAME_MAX) || strchr(dst, '/'))
        return false;
    return s.n == 0 || (s.n >= strlen("memory.map") && strncmp(dst, "memory", 6) == 0 &&
                           strcmp(dst + s.n - 4, ".map") == 0);
}

static bool is_array(const struct json_value *v, size_t max)
{
    return v && v->type == JSON_ARRAY && v->count <= max;
}

/* A blob has one place: no count may depend on how often it is named. */
static bool has_twins(const struct layout *l)
{
    for (size_t i = 0; i < layout_n_refs(l); i++)
        for (size_t j = 0; j < i; j++)
            if (uuid_equal(&l->refs[i].id, &l->refs[j].id))
                return true;
    return false;
}

static bool take(const struct json_value *v, struct layout *l)
{
    struct blob_ref *refs = l->refs;
    const struct json_value *map = json_get(v, "map");
    if (!map || map->type != JSON_STRING || !is_map_name(map->string, l->map))
        return false;
    if ((l->map[0] == '\0') != (l->n_state == 0) || (l->map[0] == '\0' && l->n_memory > 0))
        return false;
    return parse_refs(json_get(v, "memory"), refs) &&
           parse_refs(json_get(v, "layers"), refs + l->n_memory) &&
           parse_refs(json_get(v, "state"), refs + l->n_memory + l->n_layers) && !has_twins(l);
}

static int parse(struct slice text, struct arena *a, struct layout **ret, struct err *e)
{
    const struct json_value *v;
    const struct json_value *format;
    AUTO_FREE struct layout *l = NULL;
    if (json_parse(text, a, &v, e) < 0)
        return -1;
    format = json_get(v, "format");
    if (!format || format->type != JSON_INT)
        return err_set(e, ERR_INVALID, "no format");
    if (format->integer != GENERATION_FORMAT)
        return err_set(e, ERR_UNSUPPORTED, "format %lld, this program knows %d",
            (long long)format->integer, GENERATION_FORMAT);
    if (!is_array(json_get(v, "memory"), GENERATION_BLOBS_MAX) ||
        !is_array(json_get(v, "layers"), GENERATION_LAYERS_MAX) ||
        !is_array(json_get(v, "state"), 1))
        return err_set(e, ERR_INVALID, "a list is missing or too long");
    l = layout_new(
        json_get(v, "memory")->count, json_get(v, "layers")->count, json_get(v, "state")->count, e);
    if (!l)
        return -1;
    if (!take(v, l))
        return err_set(e, ERR_INVALID, "a member is missing or wrong");
    *ret = TAKE_PTR(l);
    return 0;
}

int layout_read(int dirfd, struct layout **ret, struct err *e)
{
    AUTO_BUF struct buf text = BUF_INIT(GENERATION_FILE_BYTES_MAX);
    struct arena arena;
    int rc;
    if (io_read_file(dirfd, "layout.json", &text, e) < 0)
        return -1;
    arena_init(&arena, (size_t)GENERATION_FILE_BYTES_MAX * 16);
    rc = parse(buf_slice(&text), &arena, ret, e);
    arena_done(&arena);
    return rc < 0 ? err_wrap(e, "layout.json") : 0;
}
