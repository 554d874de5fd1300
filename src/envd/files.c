/* SPDX-License-Identifier: Apache-2.0 */
/*
 * GET and POST /files.
 *
 * Theory of operation. A download is opened as the user and then read as ourselves: the descriptor
 * carries the right. Its first chunk is read before the answer begins. If the file ends within it,
 * its length is what was read, whatever stat(2) says, so that files of procfs and sysfs, whose size
 * is 0 or 4096 by convention, come whole. A larger one is sent with the size it had when it was
 * opened; if it shrinks meanwhile the connection is cut, so that nobody takes it for whole. Only a
 * file that is longer than its size says is sent chunked, to its end. Memory is one chunk.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/io.h"
#include "envd/access.h"
#include "envd/envd_int.h"
#include "envd/identity.h"
#include "envd/paths.h"
#include "envd/upload.h"
#include "envd/users.h"
#include "http/multipart.h"
#include "http/server.h"
#include "http/status.h"
#include "json/json.h"

enum {
    CHUNK_BYTES = 64 * 1024,
    FILE_MODE = 0644,
    MODE_DIGITS_MAX = 5, /* 07777: the user may set these bits by chmod too */
    PARTS_MAX = 1000,    /* of one multipart upload; their names are kept for the answer */
    ANSWER_BYTES_MAX = 8 << 20
};

/* One request. */
struct files {
    struct envd *envd;
    struct http_exchange *x;
    struct user user;
    char *chunk; /* CHUNK_BYTES */
};

/* --- download --- */

static int open_file(const struct files *f, const char *path, struct stat *ret_st, struct err *e)
{
    AUTO_CLOSE int fd = -1;
    if (identity_enter(&f->user, e) < 0)
        return -1;
    fd = open(path, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    if (fd < 0)
        err_sys(e, errno, "open '%s'", path);
    identity_leave();
    if (fd < 0)
        return e->kind == ERR_NOT_FOUND
                   ? err_set(e, ERR_NOT_FOUND, "path '%s' does not exist", path)
                   : -1;
    if (fstat(fd, ret_st) < 0)
        return err_sys(e, errno, "stat '%s'", path);
    if (S_ISDIR(ret_st->st_mode))
        return err_field(e, "path", "path '%s' is a directory", path);
    if (!S_ISREG(ret_st->st_mode))
        return err_field(e, "path", "path '%s' is not a regular file", path);
    return TAKE_FD(fd);
}

/* Reads until the chunk is full or the file ends. Returns the count or -1. */
static ssize_t read_chunk(int fd, char *chunk, struct err *e)
{
    size_t n = 0;
    while (n < CHUNK_BYTES) {
        ssize_t got = io_read(fd, chunk + n, CHUNK_BYTES - n, DEADLINE_NEVER, e);
        if (got < 0)
            return -1;
        if (got == 0)
            break;
        n += (size_t)got;
    }
    return (ssize_t)n;
}

/* Sends the chunk of `n` bytes that is read already and then the file up to `length` bytes in all,
 * or to its end when that is negative. */
static int send_rest(const struct files *f, int fd, ssize_t n, int64_t length, struct err *e)
{
    int64_t left = length;
    while (n > 0) {
        if (length >= 0 && n > left)
            n = (ssize_t)left;
        if (http_reply_write(f->x, f->chunk, (size_t)n, e) < 0)
            return -1;
        left -= n;
        if (left == 0)
            break;
        n = read_chunk(fd, f->chunk, e);
    }
    if (n < 0)
        return -1;
    if (length >= 0 && left > 0)
        return err_set(e, ERR_IO, "the file became shorter while it was sent");
    return http_reply_end(f->x, e);
}

static int send_file(const struct files *f, int fd, const struct stat *st, struct err *e)
{
    const char *type = "application/octet-stream";
    int64_t length = st->st_size > CHUNK_BYTES ? (int64_t)st->st_size : -1;
    ssize_t n = read_chunk(fd, f->chunk, e);
    if (n < 0)
        return err_wrap(e, "read");
    if (n < CHUNK_BYTES) {
        (void)http_reply(f->x, HTTP_OK, type, slice_of(f->chunk, (size_t)n));
        return 0;
    }
    if (st->st_size == CHUNK_BYTES)
        length = CHUNK_BYTES;
    if (http_reply_begin(f->x, HTTP_OK, type, length, e) < 0)
        return -1;
    return send_rest(f, fd, n, length, e);
}

static int get_path(const struct files *f, char dst[PATH_MAX], struct err *e)
{
    struct slice path = {0};
    if (!http_request_query(f->x, "path", &path))
        return err_field(e, "path", "the query has no valid path");
    return path_resolve(f->user.home, path, dst, e);
}

static int download(const struct files *f, struct err *e)
{
    char path[PATH_MAX];
    struct stat st;
    AUTO_CLOSE int fd = -1;
    if (get_path(f, path, e) < 0)
        return -1;
    fd = open_file(f, path, &st, e);
    return fd < 0 ? -1 : send_file(f, fd, &st, e);
}

/* --- upload --- */

/* Query `mode`: octal permission bits of new files. */
static int get_mode(const struct files *f, mode_t *ret, struct err *e)
{
    struct slice text;
    mode_t mode = 0;
    *ret = FILE_MODE;
    if (!http_request_query(f->x, "mode", &text))
        return 0;
    for (size_t i = 0; i < text.n; i++) {
        if (text.n > MODE_DIGITS_MAX || text.p[i] < '0' || text.p[i] > '7')
            return err_field(e, "mode", "mode is not octal");
        mode = mode * 8 + (mode_t)(text.p[i] - '0');
    }
    if (text.n == 0 || mode > 07777)
        return err_field(e, "mode", "mode is not octal up to 07777");
    *ret = mode;
    return 0;
}

static ssize_t read_body(void *ctx, void *dst, size_t n, struct err *e)
{
    return http_body_read(ctx, dst, n, e);
}

static ssize_t read_part(void *ctx, void *dst, size_t n, struct err *e)
{
    return multipart_read(ctx, dst, n, e);
}

static void answer_entry(struct json_writer *w, const char *path)
{
    json_object_begin(w);
    json_key(w, "name");
    json_cstr(w, path_base(path));
    json_key(w, "path");
    json_cstr(w, path);
    json_key(w, "type");
    json_cstr(w, "file");
    json_object_end(w);
}

/* One upload of a request: the parameters they share, and the answer so far. */
struct uploads {
    const struct files *files;
    struct upload_params params; /* but for path, source and ctx */
    struct json_writer *answer;
    size_t n;
};

static int upload_one(
    struct uploads *u, const char *path, upload_source *source, void *ctx, struct err *e)
{
    struct upload_params p = u->params;
    p.path = path;
    p.source = source;
    p.ctx = ctx;
    if (upload_file(&p, e) < 0)
        return -1;
    u->n++;
    answer_entry(u->answer, path);
    return 0;
}

static int upload_body(struct uploads *u, struct err *e)
{
    char path[PATH_MAX];
    if (get_path(u->files, path, e) < 0)
        return -1;
    return upload_one(u, path, read_body, u->files->x, e);
}

/* The query's path is the destination of a single part; else the part's file name is. */
static int part_path(
    const struct uploads *u, const struct multipart_part *part, char dst[PATH_MAX], struct err *e)
{
    struct slice path;
    if (http_request_query(u->files->x, "path", &path)) {
        if (u->n > 0)
            return err_field(e, "path", "path is given but there are several files");
        return path_resolve(u->files->user.home, path, dst, e);
    }
    if (!part->has_filename)
        return err_field(e, "path", "a file has no name and the query no path");
    return path_resolve(u->files->user.home, slice_cstr(part->filename), dst, e);
}

static int upload_parts(struct uploads *u, struct multipart *m, struct err *e)
{
    struct multipart_part *part = arena_alloc(http_arena(u->files->x), sizeof *part);
    char path[PATH_MAX];
    int rc;
    if (!part)
        return err_set(e, ERR_NOMEM, "no memory for the parts");
    while ((rc = multipart_next(m, part, e)) > 0) {
        if (strcmp(part->name, "file") != 0)
            continue;
        if (u->n == PARTS_MAX)
            return err_set(e, ERR_TOO_LARGE, "more than %d files", PARTS_MAX);
        if (part_path(u, part, path, e) < 0 || upload_one(u, path, read_part, m, e) < 0)
            return -1;
    }
    if (rc == 0 && u->n == 0)
        return err_field(e, "file", "the form has no field 'file'");
    return rc;
}

static int upload_form(struct uploads *u, struct err *e)
{
    struct http_exchange *x = u->files->x;
    struct multipart *m;
    int rc;
    m = multipart_open(http_request_header(x, "Content-Type"), read_body, x, e);
    if (!m)
        return -1;
    rc = upload_parts(u, m, e);
    (void)multipart_close(m);
    return rc;
}

static bool is_octet_stream(struct slice content_type)
{
    const struct slice type = SLICE_LIT("application/octet-stream");
    return content_type.n >= type.n && slice_eq_nocase(slice_of(content_type.p, type.n), type) &&
           (content_type.n == type.n || content_type.p[type.n] == ';' ||
               content_type.p[type.n] == ' ');
}

static int upload(const struct files *f, struct err *e)
{
    AUTO_BUF struct buf body = BUF_INIT(ANSWER_BYTES_MAX);
    struct json_writer w;
    struct uploads u = {
        .files = f,
        .params = {.user = &f->user, .chunk = f->chunk, .chunk_bytes = CHUNK_BYTES},
        .answer = &w,
    };
    int rc;
    if (get_mode(f, &u.params.mode, e) < 0)
        return -1;
    json_writer_init(&w, &body);
    json_array_begin(&w);
    rc = is_octet_stream(http_request_header(f->x, "Content-Type")) ? upload_body(&u, e)
                                                                    : upload_form(&u, e);
    if (rc < 0)
        return -1;
    json_array_end(&w);
    if (body.failed)
        return err_set(e, ERR_NOMEM, "no memory for the answer");
    (void)http_reply(f->x, HTTP_OK, "application/json; charset=utf-8", buf_slice(&body));
    return 0;
}

/* --- both --- */

static int handle(struct files *f, struct err *e)
{
    struct slice method = http_request(f->x)->method;
    bool is_get = slice_is(method, "GET");
    if (!is_get && !slice_is(method, "POST")) {
        http_reply_header(f->x, "Allow", "GET, POST");
        return err_set(e, ERR_METHOD, "/files takes GET and POST");
    }
    if (access_rest_user(f->envd, f->x, &f->user, e) < 0)
        return -1;
    f->chunk = arena_alloc(http_arena(f->x), CHUNK_BYTES);
    if (!f->chunk)
        return err_set(e, ERR_NOMEM, "no memory for the transfer");
    return is_get ? download(f, e) : upload(f, e);
}

void files_handle(struct envd *d, struct http_exchange *x)
{
    struct files f = {.envd = d, .x = x};
    struct err e = {0};
    if (handle(&f, &e) < 0)
        envd_reply_error(x, &e);
}
