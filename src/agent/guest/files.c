/* SPDX-License-Identifier: Apache-2.0 */
/* Files of a guest, whole, over envd's /files. */
#include "agent/guest/guest_int.h"

#include <stdio.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "http/status.h"

enum { TARGET_MAX = 16 * 1024 };

static void append_encoded(struct buf *out, struct slice s)
{
    static const char unreserved[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~/";
    for (size_t i = 0; i < s.n; i++) {
        if (s.p[i] != '\0' && strchr(unreserved, s.p[i]))
            buf_append_char(out, s.p[i]);
        else
            buf_printf(out, "%%%02X", (unsigned char)s.p[i]);
    }
}

static int files_target(struct buf *out, struct slice path, struct slice user, struct err *e)
{
    buf_append_cstr(out, "/files?path=");
    append_encoded(out, path);
    if (user.n > 0) {
        buf_append_cstr(out, "&username=");
        append_encoded(out, user);
    }
    return out->failed ? err_field(e, "path", "too long") : 0;
}

/* Names the request's field that envd refused. */
static int files_error(struct err *e)
{
    if (e->kind == ERR_UNAUTHORIZED) {
        e->kind = ERR_INVALID;
        (void)snprintf(e->where, sizeof e->where, "user");
    } else if (e->kind == ERR_INVALID) {
        (void)snprintf(e->where, sizeof e->where, "path");
    }
    return -1;
}

int guest_read_file(
    struct guest *g, struct slice path, struct slice user, struct buf *dst, struct err *e)
{
    AUTO_BUF struct buf target = BUF_INIT(TARGET_MAX);
    const struct http_header headers[] = {
        {SLICE_LIT("X-Access-Token"), slice_cstr(guest_token(g))},
        {SLICE_LIT("Accept-Encoding"), SLICE_LIT("identity")},
    };
    int64_t deadline = deadline_in_ms(GUEST_FILE_MS);
    const struct http_response_head *head;
    struct http_conn *c;
    int rc;
    if (files_target(&target, path, user, e) < 0)
        return -1;
    c = guest_call_patiently(g,
        &(struct http_call){.method = "GET",
            .target = target.p,
            .host = "guest",
            .headers = headers,
            .n_headers = ARRAY_LEN(headers),
            .body_length = HTTP_BODY_IS_SLICE},
        &head, deadline, e);
    if (!c)
        return guest_explain(g, e);
    if (head->status == HTTP_OK) {
        rc = http_recv_body_all(c, dst, deadline, e);
    } else {
        (void)guest_answer_error(c, head, deadline, e);
        rc = files_error(e);
    }
    guest_conn_release(g, c);
    return rc < 0 ? guest_explain(g, e) : 0;
}

int guest_write_file(struct guest *g, const struct guest_write *w, struct err *e)
{
    AUTO_BUF struct buf target = BUF_INIT(TARGET_MAX);
    const struct http_header headers[] = {
        {SLICE_LIT("X-Access-Token"), slice_cstr(guest_token(g))},
        {SLICE_LIT("Content-Type"), SLICE_LIT("application/octet-stream")},
    };
    int64_t deadline = deadline_in_ms(GUEST_FILE_MS);
    const struct http_response_head *head;
    struct http_conn *c;
    int rc = 0;
    if (files_target(&target, w->path, w->user, e) < 0)
        return -1;
    if (w->has_mode)
        buf_printf(&target, "&mode=%o", w->mode & 07777);
    if (target.failed)
        return err_field(e, "path", "too long");
    c = guest_call_patiently(g,
        &(struct http_call){.method = "POST",
            .target = target.p,
            .host = "guest",
            .headers = headers,
            .n_headers = ARRAY_LEN(headers),
            .body = w->content,
            .body_length = HTTP_BODY_IS_SLICE},
        &head, deadline, e);
    if (!c)
        return guest_explain(g, e);
    if (head->status != HTTP_OK) {
        (void)guest_answer_error(c, head, deadline, e);
        rc = files_error(e);
    }
    guest_conn_release(g, c);
    return rc < 0 ? guest_explain(g, e) : 0;
}
