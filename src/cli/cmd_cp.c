/* SPDX-License-Identifier: Apache-2.0 */
/*
 * torpor cp: one file into a sandbox or out of it, streamed: the whole file is never in memory.
 *
 * Out of one, the bytes go into a temporary file beside the target, which takes its name when all
 * have come. A transfer that breaks leaves the target as it was.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/io.h"
#include "base/rand.h"
#include "cli/body.h"
#include "cli/progress.h"
#include "cli/sandbox.h"
#include "proto/limits.h"

enum {
    BLOCK_BYTES = 256 * 1024,
    STALL_MS = 60000, /* without a byte moving */
    FORM_MAX = 16 * 1024,
    BOUNDARY_CHARS = 40,
};

/* One end of a copy. */
struct place {
    char sandbox[64]; /* "" for a local path */
    const char *path;
};

/* "ID:PATH", where the id has no slash: ./a:b is a local file. "-" is a stream. */
static void parse_place(const char *text, struct place *ret)
{
    const char *colon = strchr(text, ':');
    size_t n = colon ? (size_t)(colon - text) : 0;
    *ret = (struct place){.path = text};
    if (n == 0 || memchr(text, '/', n) ||
        !slice_copy_cstr(slice_of(text, n), ret->sandbox, sizeof ret->sandbox))
        return;
    ret->path = colon + 1;
}

static const char *base_name(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

/* --- into a sandbox --- */

struct upload {
    int fd;
    bool is_stream;
    int64_t size;
    char mode[8]; /* octal, "" when it has none */
};

static int open_source(struct cli *c, const char *path, struct upload *u, struct err *e)
{
    struct stat st;
    bool is_stdin = strcmp(path, "-") == 0;
    u->fd = is_stdin ? fcntl(c->in_fd, F_DUPFD_CLOEXEC, 3) : open(path, O_RDONLY | O_CLOEXEC);
    if (u->fd < 0 || fstat(u->fd, &st) < 0) {
        (void)err_sys(e, errno, "%s", path);
        e->kind = ERR_IO; /* "not found" is for what the sandbox lacks */
        return -1;
    }
    if (S_ISDIR(st.st_mode))
        return err_set(e, ERR_INVALID, "%s is a folder; cp copies single files", path);
    u->is_stream = is_stdin || !S_ISREG(st.st_mode);
    u->size = st.st_size;
    if (!u->is_stream)
        (void)snprintf(u->mode, sizeof u->mode, "%04o", (unsigned)st.st_mode & 0777);
    if (!u->is_stream && u->size > (int64_t)LIMIT_FILE_UNARY_BYTES)
        return err_set(e, ERR_TOO_LARGE, "%s is larger than %u MiB, the most that can be copied",
            path, LIMIT_FILE_UNARY_BYTES >> 20);
    return 0;
}

static void form_text(struct buf *b, const char *boundary, const char *name, const char *value)
{
    if (value && value[0])
        buf_printf(b, "--%s\r\nContent-Disposition: form-data; name=\"%s\"\r\n\r\n%s\r\n", boundary,
            name, value);
}

/* Path in the sandbox: one that ends in '/' or is empty gets the file's own name. */
static int remote_path(
    const struct place *from, const struct place *to, struct buf *ret, struct err *e)
{
    size_t n = strlen(to->path);
    buf_append_cstr(ret, to->path);
    if (n == 0 || to->path[n - 1] == '/') {
        if (strcmp(from->path, "-") == 0)
            return err_set(e, ERR_INVALID, "a name is needed for what comes from standard input");
        buf_append_cstr(ret, base_name(from->path));
    }
    if (ret->failed)
        return err_set(e, ERR_INVALID, "the path is longer than %d bytes", LIMIT_PATH_MAX);
    return 0;
}

/* Sends the file. 0, 1 when the server has answered before its end (the answer says why), -1. */
static int send_file(struct api *api, const struct upload *u, struct err *e)
{
    AUTO_FREE char *block = malloc(BLOCK_BYTES);
    int64_t sent = 0;
    int64_t limit = u->is_stream ? INT64_MAX : u->size;
    if (!block)
        return err_set(e, ERR_NOMEM, "out of memory");
    while (sent < limit) {
        size_t want = limit - sent < BLOCK_BYTES ? (size_t)(limit - sent) : BLOCK_BYTES;
        ssize_t n = io_read(u->fd, block, want, DEADLINE_NEVER, e);
        if (n < 0)
            return -1;
        if (n == 0)
            break;
        if (http_send_body(api->conn, block, (size_t)n, deadline_in_ms(STALL_MS), e) < 0)
            return e->kind == ERR_UNAVAILABLE ? 1 : -1;
        sent += n;
        api->progress->bytes = sent;
        (void)progress_tick(api->progress);
    }
    if (!u->is_stream && sent < u->size)
        return err_set(e, ERR_IO, "the file became shorter while it was read");
    return 0;
}

static int send_form(struct api *api, const char *target, const struct upload *u,
    const struct buf *head, const char *boundary, struct err *e)
{
    char type[BOUNDARY_CHARS + 64];
    char tail[BOUNDARY_CHARS + 16];
    const struct http_response_head *answer;
    int n = snprintf(tail, sizeof tail, "\r\n--%s--\r\n", boundary);
    int64_t length = u->is_stream ? HTTP_BODY_STREAM : (int64_t)head->len + u->size + n;
    int rc;
    (void)snprintf(type, sizeof type, "multipart/form-data; boundary=%s", boundary);
    if (api_begin(api, &(struct api_call){.method = "POST", .target = target}, type,
            buf_slice(head), length, e) < 0)
        return -1;
    rc = send_file(api, u, e);
    if (rc == 0)
        rc = http_send_body(api->conn, tail, (size_t)n, deadline_in_ms(STALL_MS), e);
    if (rc == 0)
        rc = http_send_end(api->conn, deadline_in_ms(STALL_MS), e);
    if (rc < 0 && e->kind != ERR_UNAVAILABLE)
        return -1;
    return api_head(api, &answer, STALL_MS, e);
}

static int upload(struct cli *c, const struct args *a, struct api *api, const struct place *from,
    const struct place *to, struct err *e)
{
    struct upload u = {.fd = -1};
    AUTO_BUF struct buf path = BUF_INIT(LIMIT_PATH_MAX);
    AUTO_BUF struct buf head = BUF_INIT(FORM_MAX);
    char boundary[BOUNDARY_CHARS + 1];
    char target[TARGET_MAX];
    struct sandbox_id id;
    const char *mode = args_value(a, "mode");
    int rc = -1;
    if (open_source(c, from->path, &u, e) == 0 && remote_path(from, to, &path, e) == 0 &&
        sandbox_find(api, to->sandbox, &id, e) == 0) {
        rand_base32(boundary, BOUNDARY_CHARS);
        form_text(&head, boundary, "path", path.p);
        form_text(&head, boundary, "user", args_value(a, "user"));
        form_text(&head, boundary, "mode", mode ? mode : u.mode);
        buf_printf(&head,
            "--%s\r\nContent-Disposition: form-data; name=\"file\"; filename=\"file\"\r\n"
            "Content-Type: application/octet-stream\r\n\r\n",
            boundary);
        sandbox_target(&id, "/files/write", target);
        rc = head.failed ? err_set(e, ERR_INVALID, "path or user is too long")
                         : send_form(api, target, &u, &head, boundary, e);
    }
    if (u.fd >= 0)
        (void)close(u.fd);
    return rc;
}

/* --- out of a sandbox --- */

static int receive_file(struct api *api, int fd, struct err *e)
{
    AUTO_FREE char *block = malloc(BLOCK_BYTES);
    if (!block)
        return err_set(e, ERR_NOMEM, "out of memory");
    api->progress->bytes = 0;
    for (;;) {
        ssize_t n = http_recv_body(api->conn, block, BLOCK_BYTES, deadline_in_ms(STALL_MS), e);
        if (n < 0)
            return err_wrap(e, "the transfer broke");
        if (n == 0)
            return 0;
        if (io_write_full(fd, block, (size_t)n, DEADLINE_NEVER, e) < 0)
            return err_wrap(e, "writing");
        api->progress->bytes += n;
        (void)progress_tick(api->progress);
    }
}

static int request_file(
    struct api *api, const struct sandbox_id *id, const char *path, struct err *e)
{
    AUTO_BUF struct buf body = BUF_INIT(LIMIT_BODY_JSON_BYTES);
    const struct http_response_head *head;
    struct json_writer w;
    char target[TARGET_MAX];
    if (!utf8_valid(path, strlen(path)))
        return err_set(e, ERR_INVALID, "the path is not UTF-8");
    json_writer_init(&w, &body);
    json_object_begin(&w);
    body_write_text(&w, "path", path);
    json_object_end(&w);
    sandbox_target(id, "/files/read", target);
    if (api_begin(api, &(struct api_call){.method = "POST", .target = target}, "application/json",
            buf_slice(&body), HTTP_BODY_IS_SLICE, e) < 0)
        return -1;
    return api_head(api, &head, STALL_MS, e);
}

/* The local path: a folder gets the file's own name. */
static int local_path(
    const struct place *from, const struct place *to, char dst[PATH_MAX], struct err *e)
{
    struct stat st;
    size_t n = strlen(to->path);
    bool is_folder =
        n == 0 || to->path[n - 1] == '/' || (stat(to->path, &st) == 0 && S_ISDIR(st.st_mode));
    const char *slash = n == 0 || to->path[n - 1] == '/' ? "" : "/";
    if (is_folder && !base_name(from->path)[0])
        return err_set(e, ERR_INVALID, "%s names no file", from->path);
    if (snprintf(dst, PATH_MAX, "%s%s%s", to->path, is_folder ? slash : "",
            is_folder ? base_name(from->path) : "") >= PATH_MAX - 32)
        return err_set(e, ERR_INVALID, "the local path is too long");
    return 0;
}

/* Makes a file of another name beside `path`. Returns its descriptor. */
static int open_aside(const char *path, char dst[PATH_MAX], struct err *e)
{
    int n = (int)(base_name(path) - path);
    char random[9];
    int fd;
    rand_base32(random, sizeof random - 1);
    (void)snprintf(dst, PATH_MAX, "%.*s.torpor-cp.%s", n, path, random);
    fd = open(dst, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    return fd < 0 ? err_sys(e, errno, "%s", path) : fd;
}

static int receive_aside(struct api *api, const char *path, struct err *e)
{
    char aside[PATH_MAX];
    AUTO_CLOSE int fd = open_aside(path, aside, e);
    struct stat st;
    int rc;
    if (fd < 0)
        return -1;
    rc = receive_file(api, fd, e);
    /* What is replaced keeps its mode. */
    if (rc == 0 && stat(path, &st) == 0 && fchmod(fd, st.st_mode & 07777) < 0)
        rc = err_sys(e, errno, "%s", path);
    if (rc == 0 && rename(aside, path) < 0)
        rc = err_sys(e, errno, "%s", path);
    if (rc < 0)
        (void)unlink(aside);
    return rc;
}

static int download(
    struct cli *c, struct api *api, const struct place *from, const struct place *to, struct err *e)
{
    char path[PATH_MAX];
    struct sandbox_id id;
    bool is_stdout = strcmp(to->path, "-") == 0;
    if ((!is_stdout && local_path(from, to, path, e) < 0) ||
        sandbox_find(api, from->sandbox, &id, e) < 0 || request_file(api, &id, from->path, e) < 0)
        return -1;
    if (!is_stdout)
        return receive_aside(api, path, e);
    (void)fflush(c->out);
    return receive_file(api, fileno(c->out), e);
}

static int run_cp(struct cli *c, const struct args *a, struct err *e)
{
    AUTO_API struct api api = {0};
    struct progress progress;
    struct place from, to;
    int rc;
    parse_place(a->operands[0], &from);
    parse_place(a->operands[1], &to);
    if (!from.sandbox[0] == !to.sandbox[0])
        return cli_usage_error(c, e, "one of the two must be ID:PATH, the other a local path");
    if (api_open(&api, e) < 0)
        return -1;
    progress_start(&progress, c, "copying");
    api.progress = &progress;
    if (to.sandbox[0])
        rc = upload(c, a, &api, &from, &to, e);
    else
        rc = download(c, &api, &from, &to, e);
    progress_end(&progress);
    return rc;
}

static const struct cli_option cp_options[] = {
    {.name = "user", .letter = 'u', .value = "NAME", .help = "into a sandbox: whose file it is"},
    {.name = "mode",
        .value = "OCTAL",
        .help = "of a new file in the sandbox, default the local one's"},
    {0}};

const struct cli_command command_cp = {.name = "cp",
    .arguments = "LOCAL ID:PATH | ID:PATH LOCAL",
    .summary = "copy a file into a sandbox or out of it",
    .about =
        "Copies one file of at most 100 MiB. It appears whole or not at all. LOCAL may be - for "
        "standard\ninput or output. A PATH that is relative begins in the user's home; one that "
        "ends in / gets\nthe file's own name.",
    .example = "torpor cp main.py sbq3:/root/ && torpor cp sbq3:/root/out.csv -",
    .options = cp_options,
    .words = "@sandbox @file",
    .args_min = 2,
    .args_max = 2,
    .run = run_cp};
