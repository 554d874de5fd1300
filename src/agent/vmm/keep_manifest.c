/* SPDX-License-Identifier: Apache-2.0 */
/* The manifest of a kept set of files: written, read, checked. */
#include "agent/vmm/keep_manifest.h"

#include <fcntl.h>
#include <limits.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/io.h"
#include "json/json.h"

#define MANIFEST "manifest.json"

enum {
    FORMAT = 1,
    MANIFEST_BYTES_MAX = 512 << 10, /* SHIM_FILES_MAX files of 400 bytes, and long paths */
    TREE_BYTES_MAX = 16 * MANIFEST_BYTES_MAX,
    LINES_BYTES_MAX = MANIFEST_BYTES_MAX,
};

struct kept_source kept_source_of(const struct stat *st)
{
    return (struct kept_source){.device = (int64_t)st->st_dev,
        .inode = (int64_t)st->st_ino,
        .size = st->st_size,
        .mtime_ns = (int64_t)st->st_mtim.tv_sec * 1000000000 + st->st_mtim.tv_nsec};
}

bool kept_source_equal(const struct kept_source *a, const struct kept_source *b)
{
    return a->device == b->device && a->inode == b->inode && a->size == b->size &&
           a->mtime_ns == b->mtime_ns;
}

void kept_name(size_t i, char dst[KEPT_NAME_BYTES])
{
    (void)snprintf(dst, KEPT_NAME_BYTES, "%04u", (unsigned)i % 10000);
}

static bool is_digest(struct slice s)
{
    for (size_t i = 0; i < s.n; i++)
        if (!(s.p[i] >= '0' && s.p[i] <= '9') && !(s.p[i] >= 'a' && s.p[i] <= 'f'))
            return false;
    return s.n == KEPT_DIGEST_CHARS;
}

bool kept_digest_valid(const char *digest)
{
    return is_digest(slice_cstr(digest));
}

/* --- The digest --- */

static int compare_targets(const void *a, const void *b, void *items)
{
    const struct vmm_file *files = items;
    return strcmp(files[*(const size_t *)a].target, files[*(const size_t *)b].target);
}

int kept_set_digest(struct kept_set *set, struct err *e)
{
    AUTO_BUF struct buf lines = BUF_INIT(LINES_BYTES_MAX);
    struct vmm_file *items = set->files->items;
    size_t order[SHIM_FILES_MAX];
    unsigned char md[EVP_MAX_MD_SIZE];
    unsigned len;
    for (size_t i = 0; i < set->files->n; i++)
        order[i] = i;
    qsort_r(order, set->files->n, sizeof *order, compare_targets, items);
    for (size_t i = 0; i < set->files->n; i++)
        buf_printf(&lines, "%s %s %s\n", items[order[i]].target,
            items[order[i]].exec ? SHIM_FILE_EXEC : SHIM_FILE_READ, set->kept[order[i]].sha256);
    if (lines.failed)
        return err_set(e, ERR_TOO_LARGE, "the names of the VMM's files are too long");
    if (EVP_Digest(lines.p, lines.len, md, &len, EVP_sha256(), NULL) != 1)
        return err_set(e, ERR_INTERNAL, "SHA-256 failed");
    hex_encode(md, len, set->digest);
    return 0;
}

/* --- Writing --- */

static void write_member_int(struct json_writer *w, const char *key, int64_t v)
{
    json_key(w, key);
    json_int(w, v);
}

static void write_member_text(struct json_writer *w, const char *key, const char *s)
{
    json_key(w, key);
    json_cstr(w, s);
}

static void write_file(struct json_writer *w, const struct kept_set *set, size_t i)
{
    const struct kept_file *k = &set->kept[i];
    char name[KEPT_NAME_BYTES];
    kept_name(i, name);
    json_object_begin(w);
    write_member_text(w, "name", name);
    write_member_text(w, "target", set->files->items[i].target);
    json_key(w, "exec");
    json_bool(w, set->files->items[i].exec);
    write_member_text(w, "sha256", k->sha256);
    write_member_int(w, "size", k->size);
    json_key(w, "source");
    json_object_begin(w);
    write_member_int(w, "device", k->source.device);
    write_member_int(w, "inode", k->source.inode);
    write_member_int(w, "size", k->source.size);
    write_member_int(w, "mtime_ns", k->source.mtime_ns);
    json_object_end(w);
    json_object_end(w);
}

int kept_set_write(int dir_fd, const struct kept_set *set, struct err *e)
{
    AUTO_BUF struct buf text = BUF_INIT(MANIFEST_BYTES_MAX);
    struct json_writer w;
    json_writer_init(&w, &text);
    json_object_begin(&w);
    write_member_int(&w, "format", FORMAT);
    write_member_text(&w, "program", set->files->program);
    write_member_text(&w, "bios", set->files->bios);
    write_member_text(&w, "version", set->version);
    json_key(&w, "files");
    json_array_begin(&w);
    for (size_t i = 0; i < set->files->n; i++)
        write_file(&w, set, i);
    json_array_end(&w);
    json_object_end(&w);
    buf_append_char(&text, '\n');
    if (text.failed)
        return err_set(e, ERR_TOO_LARGE, "the manifest of the VMM's files is too long");
    return io_replace_file(dir_fd, MANIFEST, text.p, text.len, 0644, e);
}

/* --- Reading --- */

static int malformed(struct err *e, const char *what)
{
    return err_set(e, ERR_INVALID, MANIFEST ": %s is missing or malformed", what);
}

static int read_int(const struct json_value *v, const char *key, int64_t *ret, struct err *e)
{
    const struct json_value *m = json_get(v, key);
    if (!m || m->type != JSON_INT)
        return malformed(e, key);
    *ret = m->integer;
    return 0;
}

static int read_text(
    const struct json_value *v, const char *key, char *dst, size_t dst_size, struct err *e)
{
    const struct json_value *m = json_get(v, key);
    if (!m || m->type != JSON_STRING || !slice_copy_cstr(m->string, dst, dst_size))
        return malformed(e, key);
    return 0;
}

static int read_source(const struct json_value *v, struct kept_source *ret, struct err *e)
{
    const struct json_value *s = json_get(v, "source");
    if (!s)
        return malformed(e, "source");
    if (read_int(s, "device", &ret->device, e) < 0 || read_int(s, "inode", &ret->inode, e) < 0 ||
        read_int(s, "size", &ret->size, e) < 0 || read_int(s, "mtime_ns", &ret->mtime_ns, e) < 0)
        return -1;
    return 0;
}

/* Appends one file; its name must be that of its number, so that it is a file of this folder. */
static int read_file(
    const char *folder, const struct json_value *v, struct kept_set *set, struct err *e)
{
    char name[KEPT_NAME_BYTES];
    char said[KEPT_NAME_BYTES];
    char target[PATH_MAX];
    char source[PATH_MAX];
    size_t i = set->files->n;
    struct vmm_file file = {.source = source, .target = target};
    const struct json_value *exec = json_get(v, "exec");
    if (i == SHIM_FILES_MAX)
        return malformed(e, "the number of files");
    kept_name(i, name);
    if (read_text(v, "name", said, sizeof said, e) < 0 ||
        read_text(v, "target", target, sizeof target, e) < 0 ||
        read_text(v, "sha256", set->kept[i].sha256, sizeof set->kept[i].sha256, e) < 0 ||
        read_int(v, "size", &set->kept[i].size, e) < 0 ||
        read_source(v, &set->kept[i].source, e) < 0)
        return -1;
    if (!exec || exec->type != JSON_BOOL || strcmp(name, said) != 0 || target[0] != '/' ||
        !kept_digest_valid(set->kept[i].sha256))
        return malformed(e, name);
    file.exec = exec->boolean;
    if (snprintf(source, sizeof source, "%s/%s", folder, name) >= (int)sizeof source)
        return err_set(e, ERR_TOO_LARGE, "%s: the path is too long", folder);
    if (vmm_files_add(set->files, &file, e) < 0)
        return -1;
    return set->files->n == i + 1 ? 0 : malformed(e, target);
}

/* A path that the manifest names beside the list must be in it. */
static int read_target(const struct json_value *v, const char *key, struct kept_set *set,
    const char **ret, struct err *e)
{
    char target[PATH_MAX];
    const struct vmm_file *f;
    if (read_text(v, key, target, sizeof target, e) < 0)
        return -1;
    f = vmm_files_find(set->files, target);
    if (!f)
        return malformed(e, key);
    *ret = f->target;
    return 0;
}

static int decode(
    const char *folder, const struct json_value *v, struct kept_set *set, struct err *e)
{
    const struct json_value *files = json_get(v, "files");
    int64_t format = 0;
    if (read_int(v, "format", &format, e) < 0)
        return -1;
    if (format != FORMAT)
        return err_set(e, ERR_UNSUPPORTED, MANIFEST " has a format other than %d", FORMAT);
    if (!files || files->type != JSON_ARRAY)
        return malformed(e, "files");
    for (const struct json_value *m = files->first; m; m = m->next)
        if (read_file(folder, m, set, e) < 0)
            return -1;
    if (read_target(v, "program", set, &set->files->program, e) < 0 ||
        read_target(v, "bios", set, &set->files->bios, e) < 0)
        return -1;
    return read_text(v, "version", set->version, sizeof set->version, e);
}

static int check_sizes(int dir_fd, const struct kept_set *set, struct err *e)
{
    for (size_t i = 0; i < set->files->n; i++) {
        struct stat st;
        char name[KEPT_NAME_BYTES];
        kept_name(i, name);
        if (fstatat(dir_fd, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
            return err_set(
                e, ERR_IO, "%s, kept as %s, is missing", set->files->items[i].target, name);
        if (!S_ISREG(st.st_mode) || st.st_size != set->kept[i].size)
            return err_set(
                e, ERR_IO, "%s, kept as %s, has another size", set->files->items[i].target, name);
    }
    return 0;
}

static int load(const char *folder, int dir_fd, struct kept_set *set, struct err *e)
{
    AUTO_BUF struct buf text = BUF_INIT(MANIFEST_BYTES_MAX);
    struct arena arena;
    const struct json_value *v;
    int rc;
    if (io_read_file(dir_fd, MANIFEST, &text, e) < 0) {
        e->kind = ERR_IO; /* the folder is there: damage, whatever the reason */
        return -1;
    }
    arena_init(&arena, TREE_BYTES_MAX);
    rc = json_parse(buf_slice(&text), &arena, &v, e);
    if (rc == 0)
        rc = decode(folder, v, set, e);
    arena_done(&arena);
    return rc < 0 ? -1 : check_sizes(dir_fd, set, e);
}

/* The digest covers the manifest but for what is only of use to the next start. */
static int load_checked(const char *folder, int dir_fd, struct kept_set *set, struct err *e)
{
    const char *named = strrchr(folder, '/') + 1;
    if (load(folder, dir_fd, set, e) < 0 || kept_set_digest(set, e) < 0)
        return -1;
    return strcmp(set->digest, named) == 0 ? 0 : malformed(e, "the set's digest");
}

struct kept_set *kept_set_read(const char *keep_dir, const char *digest, struct err *e)
{
    AUTO_CLOSE int dir_fd = -1;
    char folder[PATH_MAX];
    struct kept_set *set;
    if (snprintf(folder, sizeof folder, "%s/%s", keep_dir, digest) >= (int)sizeof folder) {
        err_set(e, ERR_TOO_LARGE, "%s: the path is too long", keep_dir);
        return NULL;
    }
    dir_fd = open(folder, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (dir_fd < 0) {
        err_sys(e, errno, "open %s", folder);
        return NULL;
    }
    set = calloc(1, sizeof *set);
    if (!set) {
        err_sys(e, ENOMEM, "read %s", folder);
        return NULL;
    }
    set->files = vmm_files_new_empty(e);
    if (!set->files || load_checked(folder, dir_fd, set, e) < 0)
        return kept_set_free(set);
    return set;
}

struct kept_set *kept_set_free(struct kept_set *set)
{
    if (set)
        (void)vmm_files_free(set->files);
    free(set);
    return NULL;
}
