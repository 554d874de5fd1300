/* SPDX-License-Identifier: Apache-2.0 */
/* Snapshot templates on disk. */
#define LOG_MODULE "life"
#include "agent/life/snapshots.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/io.h"
#include "base/log.h"
#include "json/json.h"

enum { FORMAT = 1, FILE_BYTES_MAX = 4096, FILE_NAME_MAX = 40 };
static const char suffix[] = ".json";
static const char gone_suffix[] = ".gone";

static void file_name(const struct template_id *id, char dst[FILE_NAME_MAX])
{
    (void)snprintf(dst, FILE_NAME_MAX, "%s%s", id->text, suffix);
}

int snapshot_write(int dirfd, const struct snapshot *s, struct err *e)
{
    AUTO_BUF struct buf text = BUF_INIT(FILE_BYTES_MAX);
    char generation[UUID_TEXT + 1];
    char name[FILE_NAME_MAX];
    struct json_writer w;
    uuid_format(&s->generation, generation);
    json_writer_init(&w, &text);
    json_object_begin(&w);
    json_key(&w, "format");
    json_int(&w, FORMAT);
    json_key(&w, "id");
    json_cstr(&w, s->id.text);
    json_key(&w, "generation");
    json_cstr(&w, generation);
    json_key(&w, "vcpus");
    json_int(&w, s->vcpus);
    json_key(&w, "memory_mb");
    json_int(&w, s->memory_mb);
    json_key(&w, "size_bytes");
    json_int(&w, s->size_bytes);
    json_key(&w, "created_at_ms");
    json_int(&w, s->created_at_ms);
    json_key(&w, "default_user");
    json_cstr(&w, s->default_user);
    json_object_end(&w);
    buf_append_char(&text, '\n');
    if (text.failed)
        return err_set(e, ERR_NOMEM, "out of memory");
    file_name(&s->id, name);
    return io_replace_file(dirfd, name, text.p, text.len, 0600, e);
}

static bool take(const struct json_value *v, struct snapshot *ret)
{
    int64_t format;
    int64_t vcpus;
    int64_t memory_mb;
    if (!json_get_int(v, "format", FORMAT, FORMAT, &format) ||
        !json_get_int(v, "vcpus", 1, INT32_MAX, &vcpus) ||
        !json_get_int(v, "memory_mb", 1, INT32_MAX, &memory_mb) ||
        !json_get_int(v, "size_bytes", 0, INT64_MAX, &ret->size_bytes) ||
        !json_get_int(v, "created_at_ms", 0, INT64_MAX, &ret->created_at_ms) ||
        !template_id_parse(json_get_text(v, "id"), &ret->id) ||
        !uuid_parse(json_get_text(v, "generation"), &ret->generation) ||
        !slice_copy_cstr(
            json_get_text(v, "default_user"), ret->default_user, sizeof ret->default_user))
        return false;
    ret->vcpus = (int32_t)vcpus;
    ret->memory_mb = (int32_t)memory_mb;
    return true;
}

int snapshot_read(int dirfd, const struct template_id *id, struct snapshot *ret, struct err *e)
{
    AUTO_BUF struct buf text = BUF_INIT(FILE_BYTES_MAX);
    struct snapshot s = {0};
    char name[FILE_NAME_MAX];
    const struct json_value *v;
    struct arena arena;
    int rc;
    file_name(id, name);
    if (io_read_file(dirfd, name, &text, e) < 0)
        return e->kind == ERR_NOT_FOUND ? err_set(e, ERR_NOT_FOUND, "no snapshot %s", id->text)
                                        : -1;
    arena_init(&arena, (size_t)FILE_BYTES_MAX * 8);
    rc = json_parse(buf_slice(&text), &arena, &v, e);
    if (rc == 0 && (!take(v, &s) || strcmp(s.id.text, id->text) != 0))
        rc = err_set(e, ERR_INVALID, "not a snapshot of format %d", FORMAT);
    arena_done(&arena);
    if (rc < 0)
        return err_wrap(e, "snapshot %s", id->text);
    *ret = s;
    return 0;
}

/* Another name first, so that a removal that does not become durable can be taken back. */
int snapshot_remove(int dirfd, const struct template_id *id, struct err *e)
{
    char name[FILE_NAME_MAX];
    char gone[FILE_NAME_MAX + sizeof gone_suffix];
    file_name(id, name);
    (void)snprintf(gone, sizeof gone, "%s%s", name, gone_suffix);
    if (renameat(dirfd, name, dirfd, gone) < 0 && errno != ENOENT)
        return err_sys(e, errno, "remove snapshot %s", id->text);
    if (fsync(dirfd) < 0) {
        (void)err_sys(e, errno, "remove snapshot %s", id->text);
        (void)renameat(dirfd, gone, dirfd, name);
        return -1;
    }
    (void)unlinkat(dirfd, gone, 0);
    return 0;
}

/* What was cut off while it was written or removed. */
static bool is_leftover(const char *name)
{
    size_t n = strlen(name);
    size_t tail = sizeof gone_suffix - 1;
    return io_is_leftover(name) || (n > tail && strcmp(name + n - tail, gone_suffix) == 0);
}

static bool is_snapshot_name(const char *name, struct template_id *ret)
{
    size_t n = strlen(name);
    size_t tail = sizeof suffix - 1;
    return n > tail && strcmp(name + n - tail, suffix) == 0 &&
           template_id_parse(slice_of(name, n - tail), ret);
}

int snapshots_each(int dirfd, void (*each)(void *ctx, const struct snapshot *s), void *ctx,
    size_t *ret_damaged, struct err *e)
{
    int fd = openat(dirfd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *d = fd < 0 ? NULL : fdopendir(fd);
    struct dirent *ent;
    size_t damaged = 0;
    if (!d) {
        (void)err_sys(e, errno, "read the snapshots");
        if (fd >= 0)
            (void)close(fd);
        return -1;
    }
    while ((ent = readdir(d))) {
        struct template_id id;
        struct snapshot s;
        struct err one = {0};
        if (is_leftover(ent->d_name))
            (void)unlinkat(dirfd, ent->d_name, 0);
        if (!is_snapshot_name(ent->d_name, &id))
            continue;
        if (snapshot_read(dirfd, &id, &s, &one) == 0) {
            each(ctx, &s);
        } else {
            damaged++;
            log_err("cannot read a snapshot: %s", one.msg);
        }
    }
    (void)closedir(d);
    *ret_damaged = damaged;
    return 0;
}
