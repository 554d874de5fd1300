/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Whole files: POST files/write (multipart, the parts in any order) and files/read.
 *
 * The bytes pass through memory, so only a few large transfers run at once; others wait for their
 * turn. A write that is small by its declared length does not need one.
 */
#include "control/api/body.h"

#include <semaphore.h>
#include <time.h>

#include "base/clock.h"
#include "http/multipart.h"

enum {
    SMALL_BYTES = 1 << 20,
    FORM_OVERHEAD_BYTES = 64 * 1024, /* boundaries, part heads and the text parts */
    TRANSFER_WAIT_MS = 30000,
    MODE_MAX = 0777,
    READ_ARENA_BYTES = LIMIT_FILE_UNARY_BYTES + (1 << 20),
};

/* --- a turn for a large transfer --- */

static int turn_take(struct call *c, sem_t **ret, struct err *e)
{
    int64_t until = deadline_in_ms(TRANSFER_WAIT_MS);
    struct timespec ts = {.tv_sec = until / 1000, .tv_nsec = until % 1000 * 1000000};
    while (sem_clockwait(&c->api->transfers, CLOCK_MONOTONIC, &ts) < 0)
        if (errno != EINTR)
            return err_set(e, ERR_NO_CAPACITY, "too many large files are on their way");
    *ret = &c->api->transfers;
    return 0;
}

static void turn_end(sem_t *const *turn)
{
    if (*turn)
        (void)sem_post(*turn);
}
#define AUTO_TURN CLEANUP(turn_end) sem_t *

/* --- write --- */

struct write_form {
    struct buf path, user, mode, file;
    bool has_path, has_user, has_mode, has_file;
};

static void write_form_done(struct write_form *f)
{
    buf_done(&f->path);
    buf_done(&f->user);
    buf_done(&f->mode);
    buf_done(&f->file);
}

static ssize_t read_body(void *ctx, void *dst, size_t n, struct err *e)
{
    return http_body_read(ctx, dst, n, e);
}

static int read_part(struct call *c, struct multipart *m, const struct multipart_part *part,
    struct write_form *f, struct err *e)
{
    struct {
        const char *name;
        struct buf *dst;
        bool *has;
    } known[] = {{"path", &f->path, &f->has_path}, {"user", &f->user, &f->has_user},
        {"mode", &f->mode, &f->has_mode}, {"file", &f->file, &f->has_file}};
    for (size_t i = 0; i < ARRAY_LEN(known); i++) {
        if (strcmp(part->name, known[i].name) != 0)
            continue;
        if (*known[i].has)
            return field_error(c, e, part->name, NULL, "the part is there twice");
        *known[i].has = true;
        if (multipart_read_all(m, known[i].dst, e) == 0)
            return 0;
        if (e->kind == ERR_TOO_LARGE && known[i].dst != &f->file)
            return field_error(c, e, known[i].name, NULL, "%s is too long", known[i].name);
        return body_error(e);
    }
    return field_error(c, e, part->name, "path, file, user, mode", "unknown part");
}

static int read_parts(struct call *c, struct multipart *m, struct write_form *f, struct err *e)
{
    struct multipart_part part;
    int rc;
    while ((rc = multipart_next(m, &part, e)) == 1)
        if (read_part(c, m, &part, f, e) < 0)
            return -1;
    return rc < 0 ? body_error(e) : 0;
}

/* Octal digits, e.g. 0644. */
static bool parse_mode(struct slice s, unsigned *ret)
{
    unsigned v = 0;
    if (s.n == 0 || s.n > 4)
        return false;
    for (size_t i = 0; i < s.n; i++) {
        if (s.p[i] < '0' || s.p[i] > '7')
            return false;
        v = v * 8 + (unsigned)(s.p[i] - '0');
    }
    *ret = v;
    return v <= MODE_MAX;
}

static int check_form(
    struct call *c, const struct write_form *f, struct write_file_params *ret, struct err *e)
{
    struct write_file_params p = {
        .path = buf_slice(&f->path),
        .user = buf_slice(&f->user),
        .content = buf_slice(&f->file),
        .has_mode = f->has_mode,
    };
    if (!f->has_path)
        return field_error(c, e, "path", NULL, "the part path is missing");
    if (!f->has_file)
        return field_error(c, e, "file", NULL, "the part file is missing");
    if (!check_path(p.path) || !utf8_valid(p.path.p, p.path.n))
        return field_error(c, e, "path", path_allowed, "that is not a path");
    if (!check_user(p.user))
        return field_error(c, e, "user", user_pattern, "that is not a user's name");
    if (f->has_mode && !parse_mode(buf_slice(&f->mode), &p.mode))
        return field_error(c, e, "mode", "0000..0777, octal", "that is not a mode");
    *ret = p;
    return 0;
}

static bool is_large(const struct http_request_head *head)
{
    return head->framing != HTTP_BODY_LENGTH || head->content_length > SMALL_BYTES;
}

static int check_length(const struct http_request_head *head, struct err *e)
{
    if (head->framing == HTTP_BODY_LENGTH &&
        head->content_length > LIMIT_FILE_UNARY_BYTES + FORM_OVERHEAD_BYTES)
        return err_set(e, ERR_TOO_LARGE, "a file may have %u bytes here", LIMIT_FILE_UNARY_BYTES);
    return 0;
}

int file_write(struct call *c, struct err *e)
{
    CLEANUP(write_form_done)
    struct write_form form = {
        .path = BUF_INIT(LIMIT_PATH_MAX),
        .user = BUF_INIT(64),
        .mode = BUF_INIT(8),
        .file = BUF_INIT(LIMIT_FILE_UNARY_BYTES),
    };
    AUTO_TURN turn = NULL;
    const struct http_request_head *head = http_request(c->x);
    struct write_file_params p;
    struct multipart *m;
    int rc;
    if (check_length(head, e) < 0 || (is_large(head) && turn_take(c, &turn, e) < 0))
        return -1;
    m = multipart_open(http_request_header(c->x, "Content-Type"), read_body, c->x, e);
    if (!m)
        return -1;
    rc = read_parts(c, m, &form, e);
    (void)multipart_close(m);
    if (rc < 0 || check_form(c, &form, &p, e) < 0 ||
        service_write_file(c->service, &c->who, &c->id, &p, e) < 0)
        return -1;
    return reply_empty(c);
}

/* --- read --- */

struct read_body {
    struct slice path;
};

static const struct body_field read_fields[] = {
    {.name = "path",
        .kind = BODY_STRING,
        .offset = offsetof(struct read_body, path),
        .required = true,
        .valid = check_path,
        .allowed = path_allowed},
};

int file_read(struct call *c, struct err *e)
{
    CLEANUP(arena_done) struct arena arena = {0};
    AUTO_TURN turn = NULL;
    struct read_body b = {{NULL, 0}};
    struct slice bytes;
    arena_init(&arena, READ_ARENA_BYTES);
    if (body_read(c, read_fields, ARRAY_LEN(read_fields), &b, e) < 0 ||
        turn_take(c, &turn, e) < 0 ||
        service_read_file(c->service, &c->who, &c->id, b.path, &arena, &bytes, e) < 0)
        return -1;
    (void)reply_bytes(c, HTTP_OK, "application/octet-stream", bytes);
    return 0;
}
