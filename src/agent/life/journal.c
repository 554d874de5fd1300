/* SPDX-License-Identifier: Apache-2.0 */
/* Journal files: JSON, replaced atomically. */
#include "agent/life/journal.h"

#include <stddef.h>

#include "base/cleanup.h"
#include "base/io.h"
#include "json/json.h"

enum { FORMAT = 1, FILE_BYTES_MAX = 16 * 1024 };

/* The plain members, in one table for both directions. */
static const struct {
    const char *key;
    size_t offset;
    size_t size;   /* of the array */
    bool optional; /* "" or 0 where a journal of an earlier agent has none */
} texts[] = {
#define TEXT(name, optional)                                                                       \
    {                                                                                              \
#name, offsetof(struct journal_entry, name), sizeof((struct journal_entry *)NULL)->name,   \
            optional                                                                               \
    }
    TEXT(message, false),
    TEXT(template, false),
    TEXT(image_digest, false),
    TEXT(request_id, false),
    TEXT(generation, true),
    TEXT(snapshot_id, true),
    TEXT(live, true),
    TEXT(secret, true),
    TEXT(vmm_digest, true),
    TEXT(vmm_version, true),
    TEXT(vmm_accel, true),
};
static const struct {
    const char *key;
    size_t offset;
    bool optional;
} ints32[] = {
    {"vcpus", offsetof(struct journal_entry, vcpus), false},
    {"memory_mb", offsetof(struct journal_entry, memory_mb), false},
    {"timeout_sec", offsetof(struct journal_entry, timeout_sec), false},
    {"slot", offsetof(struct journal_entry, slot), false},
    {"owns_generation", offsetof(struct journal_entry, owns_generation), true},
    {"vmm_tsc_khz", offsetof(struct journal_entry, vmm_tsc_khz), true},
    {"disk_only", offsetof(struct journal_entry, disk_only), true},
};
static const struct {
    const char *key;
    size_t offset;
} ints64[] = {
    {"created_at_ms", offsetof(struct journal_entry, created_at_ms)},
    {"started_at_ms", offsetof(struct journal_entry, started_at_ms)},
    {"status_since_ms", offsetof(struct journal_entry, status_since_ms)},
    {"last_active_at_ms", offsetof(struct journal_entry, last_active_at_ms)},
};

int journal_write(int dirfd, const char *name, const struct journal_entry *entry, struct err *e)
{
    AUTO_BUF struct buf text = BUF_INIT(FILE_BYTES_MAX);
    const char *base = (const char *)entry;
    struct json_writer w;
    json_writer_init(&w, &text);
    json_object_begin(&w);
    json_key(&w, "format");
    json_int(&w, FORMAT);
    json_key(&w, "id");
    json_cstr(&w, entry->id.text);
    json_key(&w, "status");
    json_cstr(&w, sandbox_status_name(entry->state.status));
    json_key(&w, "reason");
    json_cstr(&w, sandbox_reason_name(entry->state.reason));
    json_key(&w, "revision");
    json_uint(&w, entry->state.revision);
    for (size_t i = 0; i < ARRAY_LEN(texts); i++) {
        json_key(&w, texts[i].key);
        json_cstr(&w, base + texts[i].offset);
    }
    for (size_t i = 0; i < ARRAY_LEN(ints32); i++) {
        json_key(&w, ints32[i].key);
        json_int(&w, *(const int32_t *)(const void *)(base + ints32[i].offset));
    }
    for (size_t i = 0; i < ARRAY_LEN(ints64); i++) {
        json_key(&w, ints64[i].key);
        json_int(&w, *(const int64_t *)(const void *)(base + ints64[i].offset));
    }
    json_object_end(&w);
    buf_append_char(&text, '\n');
    if (text.failed)
        return err_set(e, ERR_NOMEM, "out of memory");
    return io_replace_file(dirfd, name, text.p, text.len, 0600, e);
}

static bool take_members(const struct json_value *v, struct journal_entry *ret)
{
    char *base = (char *)ret;
    int64_t n;
    for (size_t i = 0; i < ARRAY_LEN(texts); i++) {
        if (texts[i].optional && !json_get(v, texts[i].key))
            continue;
        if (!slice_copy_cstr(json_get_text(v, texts[i].key), base + texts[i].offset, texts[i].size))
            return false;
    }
    for (size_t i = 0; i < ARRAY_LEN(ints32); i++) {
        if (ints32[i].optional && !json_get(v, ints32[i].key))
            continue;
        if (!json_get_int(v, ints32[i].key, 0, INT32_MAX, &n))
            return false;
        *(int32_t *)(void *)(base + ints32[i].offset) = (int32_t)n;
    }
    for (size_t i = 0; i < ARRAY_LEN(ints64); i++)
        if (!json_get_int(
                v, ints64[i].key, 0, INT64_MAX, (int64_t *)(void *)(base + ints64[i].offset)))
            return false;
    return true;
}

static bool take(const struct json_value *v, struct journal_entry *ret)
{
    int64_t format;
    int64_t revision;
    if (!json_get_int(v, "format", FORMAT, FORMAT, &format) ||
        !json_get_int(v, "revision", 0, INT64_MAX, &revision) ||
        !sandbox_id_parse(json_get_text(v, "id"), &ret->id) ||
        !sandbox_status_parse(json_get_text(v, "status"), &ret->state.status) ||
        !sandbox_reason_parse(json_get_text(v, "reason"), &ret->state.reason))
        return false;
    ret->state.revision = (uint64_t)revision;
    return take_members(v, ret);
}

int journal_read(int dirfd, const char *name, struct journal_entry *ret, struct err *e)
{
    AUTO_BUF struct buf text = BUF_INIT(FILE_BYTES_MAX);
    struct journal_entry entry = {0};
    const struct json_value *v;
    struct arena arena;
    int rc;
    if (io_read_file(dirfd, name, &text, e) < 0)
        return -1;
    arena_init(&arena, FILE_BYTES_MAX * 8);
    rc = json_parse(buf_slice(&text), &arena, &v, e);
    if (rc == 0 && !take(v, &entry))
        rc = err_set(e, ERR_INVALID, "not a sandbox journal of format %d", FORMAT);
    arena_done(&arena);
    if (rc == 0)
        *ret = entry;
    return rc < 0 ? err_wrap(e, "%s", name) : 0;
}
