/* SPDX-License-Identifier: Apache-2.0 */
/* manifest.json: what a generation is, and what a restore must find again. */
#include <stddef.h>

#include "agent/snap/generations_int.h"
#include "base/cleanup.h"
#include "base/io.h"
#include "json/json.h"

#define MANIFEST_TEXT(member)                                                                      \
    {                                                                                              \
#member, offsetof(struct generation_manifest, member),                                     \
            sizeof(((struct generation_manifest *)0)->member)                                      \
    }
#define MACHINE_TEXT(member)                                                                       \
    {                                                                                              \
#member, offsetof(struct generation_manifest, machine.member),                             \
            sizeof(((struct generation_manifest *)0)->machine.member)                              \
    }
#define MACHINE_INT(member)                                                                        \
    {                                                                                              \
#member, offsetof(struct generation_manifest, machine.member), sizeof(uint32_t)            \
    }

/* The plain members, in one table for both directions. */
struct member {
    const char *key;
    size_t offset;
    size_t size; /* of the array, for texts */
};
static const struct member texts[] = {MANIFEST_TEXT(template), MANIFEST_TEXT(image_digest),
    MANIFEST_TEXT(kernel), MANIFEST_TEXT(envd_version), MANIFEST_TEXT(default_user)};
static const struct member machine_texts[] = {MACHINE_TEXT(driver), MACHINE_TEXT(version),
    MACHINE_TEXT(vmm_digest), MACHINE_TEXT(accel), MACHINE_TEXT(machine), MACHINE_TEXT(cpu),
    MACHINE_TEXT(cpu_flags)};
static const struct member machine_ints[] = {MACHINE_INT(tsc_khz), MACHINE_INT(snapshot_format),
    MACHINE_INT(guest_abi), MACHINE_INT(vcpus), MACHINE_INT(memory_mb)};

static void write_texts(
    struct json_writer *w, const struct generation_manifest *m, const struct member *t, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        json_key(w, t[i].key);
        json_cstr(w, (const char *)m + t[i].offset);
    }
}

static void write_id(struct json_writer *w, const char *key, const struct uuid *id)
{
    char text[UUID_TEXT + 1] = "";
    if (!uuid_is_none(id))
        uuid_format(id, text);
    json_key(w, key);
    json_cstr(w, text);
}

static void write_machine(struct json_writer *w, const struct generation_manifest *m)
{
    json_key(w, "machine");
    json_object_begin(w);
    write_texts(w, m, machine_texts, ARRAY_LEN(machine_texts));
    for (size_t i = 0; i < ARRAY_LEN(machine_ints); i++) {
        json_key(w, machine_ints[i].key);
        json_uint(w, *(const uint32_t *)(const void *)((const char *)m + machine_ints[i].offset));
    }
    json_object_end(w);
}

void manifest_write(const struct generation_manifest *m, struct buf *dst)
{
    struct json_writer w;
    json_writer_init(&w, dst);
    json_object_begin(&w);
    json_key(&w, "format");
    json_int(&w, GENERATION_FORMAT);
    write_id(&w, "id", &m->id);
    write_id(&w, "parent", &m->parent);
    json_key(&w, "has_memory");
    json_bool(&w, m->has_memory);
    json_key(&w, "created_at_ms");
    json_int(&w, m->created_at_ms);
    json_key(&w, "disk_bytes");
    json_uint(&w, m->disk_bytes);
    write_texts(&w, m, texts, ARRAY_LEN(texts));
    write_machine(&w, m);
    json_object_end(&w);
    buf_append_char(dst, '\n');
}

static bool get_int(const struct json_value *v, const char *key, int64_t max, int64_t *ret)
{
    const struct json_value *m = json_get(v, key);
    if (!m || m->type != JSON_INT || m->integer < 0 || m->integer > max)
        return false;
    *ret = m->integer;
    return true;
}

static bool get_text(const struct json_value *v, const char *key, struct slice *ret)
{
    const struct json_value *m = json_get(v, key);
    if (!m || m->type != JSON_STRING)
        return false;
    *ret = m->string;
    return true;
}

static bool take_texts(
    const struct json_value *v, const struct member *t, size_t n, struct generation_manifest *ret)
{
    for (size_t i = 0; i < n; i++) {
        struct slice s;
        if (!get_text(v, t[i].key, &s) || !slice_copy_cstr(s, (char *)ret + t[i].offset, t[i].size))
            return false;
    }
    return true;
}

static bool take_machine(const struct json_value *v, struct generation_manifest *ret)
{
    if (!take_texts(v, machine_texts, ARRAY_LEN(machine_texts), ret))
        return false;
    for (size_t i = 0; i < ARRAY_LEN(machine_ints); i++) {
        int64_t n;
        if (!get_int(v, machine_ints[i].key, i == 0 ? UINT32_MAX : INT32_MAX, &n))
            return false;
        *(uint32_t *)(void *)((char *)ret + machine_ints[i].offset) = (uint32_t)n;
    }
    return true;
}

static bool take_ids(const struct json_value *v, struct generation_manifest *ret)
{
    struct slice id;
    struct slice parent;
    if (!get_text(v, "id", &id) || !uuid_parse(id, &ret->id) || uuid_is_none(&ret->id) ||
        !get_text(v, "parent", &parent))
        return false;
    return parent.n == 0 || uuid_parse(parent, &ret->parent);
}

static bool take(const struct json_value *v, struct generation_manifest *ret)
{
    const struct json_value *has_memory = json_get(v, "has_memory");
    int64_t disk_bytes;
    if (!has_memory || has_memory->type != JSON_BOOL || !take_ids(v, ret) ||
        !get_int(v, "created_at_ms", INT64_MAX, &ret->created_at_ms) ||
        !get_int(v, "disk_bytes", INT64_MAX, &disk_bytes))
        return false;
    ret->has_memory = has_memory->boolean;
    ret->disk_bytes = (uint64_t)disk_bytes;
    return take_texts(v, texts, ARRAY_LEN(texts), ret) && take_machine(json_get(v, "machine"), ret);
}

static int parse(struct slice text, struct arena *a, struct generation_manifest *ret, struct err *e)
{
    const struct json_value *v;
    int64_t format;
    if (json_parse(text, a, &v, e) < 0)
        return -1;
    if (!get_int(v, "format", INT64_MAX, &format))
        return err_set(e, ERR_INVALID, "no format");
    if (format != GENERATION_FORMAT)
        return err_set(e, ERR_UNSUPPORTED, "format %lld, this program knows %d", (long long)format,
            GENERATION_FORMAT);
    return take(v, ret) ? 0 : err_set(e, ERR_INVALID, "a member is missing or wrong");
}

int manifest_read(int dirfd, struct generation_manifest *ret, struct err *e)
{
    AUTO_BUF struct buf text = BUF_INIT(GENERATION_FILE_BYTES_MAX);
    struct generation_manifest m = {0};
    struct arena arena;
    int rc;
    if (io_read_file(dirfd, "manifest.json", &text, e) < 0)
        return -1;
    arena_init(&arena, (size_t)GENERATION_FILE_BYTES_MAX * 8);
    rc = parse(buf_slice(&text), &arena, &m, e);
    arena_done(&arena);
    if (rc < 0)
        return err_wrap(e, "manifest.json");
    *ret = m;
    return 0;
}
