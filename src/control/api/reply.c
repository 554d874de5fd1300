/* SPDX-License-Identifier: Apache-2.0 */
/* Answers: errors in the one form, sandboxes, JSON. */
#include "control/api/api_int.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>

#define LOG_MODULE "api"
#include "base/clock.h"
#include "base/log.h"
#include "json/json.h"

enum {
    ERROR_BODY_MAX = 8192,
    SANDBOX_BODY_MAX = 1 << 20, /* metadata takes at most half of it */
};

static const char json_type[] = "application/json";

int reply_bytes(struct call *c, int status, const char *content_type, struct slice body)
{
    c->status = status;
    return http_reply(c->x, status, content_type, body);
}

/* Seconds after which asking again may help; 0 for kinds that carry no Retry-After. */
static int retry_after_sec(enum err_kind kind)
{
    switch (kind) {
    case ERR_IN_PROGRESS:
    case ERR_RATE_LIMITED:
    case ERR_UNAVAILABLE:
        return 1;
    case ERR_NO_CAPACITY:
    case ERR_TEMPLATE_BUILDING:
        return 5;
    case ERR_QUOTA:
        return 10;
    default:
        return 0;
    }
}

/* Code and text for the client. What has no public meaning is "internal error", and its text, which
 * may name things of this host, stays in the log. */
static void public_form(
    const struct err *e, int status, const char **ret_code, const char **ret_msg)
{
    *ret_code = err_kind_name(e->kind);
    *ret_msg = e->msg;
    if (e->kind == ERR_AGENT) {
        *ret_msg = "the host agent failed";
    } else if (status == http_status_from_kind(ERR_INTERNAL)) {
        *ret_code = err_kind_name(ERR_INTERNAL);
        *ret_msg = "internal error";
    } else if (http_status_from_kind(e->kind) == http_status_from_kind(ERR_INTERNAL) ||
               e->kind == ERR_UNSUPPORTED) {
        *ret_code = err_kind_name(ERR_INVALID); /* protocol errors of the client */
    }
}

static void write_details(struct json_writer *w, const struct call *c, const struct err *e)
{
    const char *key = e->kind == ERR_BAD_STATE ? "status" : "field";
    if (!e->where[0] || (e->kind != ERR_BAD_STATE && e->kind != ERR_INVALID &&
                            e->kind != ERR_NOT_FOUND && e->kind != ERR_TOO_LARGE))
        return;
    json_key(w, "details");
    json_object_begin(w);
    json_key(w, key);
    json_cstr(w, e->where);
    if (c->allowed) {
        json_key(w, "allowed");
        json_cstr(w, c->allowed);
    }
    if (c->met_tag.n > 0) {
        json_key(w, "pid");
        json_int(w, c->met_pid);
        json_key(w, "tag");
        json_string(w, c->met_tag);
    }
    json_object_end(w);
}

static void log_failure(const struct err *e, int status)
{
    if (status == http_status_from_kind(ERR_INTERNAL) || e->kind == ERR_AGENT)
        log_err("request failed status=%d kind=%s error=\"%s\"", status, err_kind_name(e->kind),
            e->msg);
    else if (status > http_status_from_kind(ERR_INTERNAL))
        log_warn_limited("request failed status=%d kind=%s error=\"%s\"", status,
            err_kind_name(e->kind), e->msg);
}

void reply_error(struct call *c, const struct err *e, int status)
{
    AUTO_BUF struct buf body = BUF_INIT(ERROR_BODY_MAX);
    const char *code, *msg;
    struct json_writer w;
    int retry = retry_after_sec(e->kind);
    log_failure(e, status);
    public_form(e, status, &code, &msg);
    json_writer_init(&w, &body);
    json_object_begin(&w);
    json_key(&w, "error");
    json_object_begin(&w);
    json_key(&w, "code");
    json_cstr(&w, code);
    json_key(&w, "message");
    json_cstr(&w, msg);
    json_key(&w, "request_id");
    json_cstr(&w, c->request_id);
    write_details(&w, c, e);
    json_object_end(&w);
    json_object_end(&w);
    if (retry > 0)
        http_reply_header(c->x, "Retry-After", "%d", retry);
    if (e->kind == ERR_UNAUTHORIZED)
        http_reply_header(c->x, "WWW-Authenticate", "Bearer");
    (void)reply_bytes(c, status, json_type, buf_slice(&body));
}

void reply_phases(struct call *c, const struct phase_list *phases)
{
    char text[PHASES_MAX * (PHASE_NAME_MAX + 32) + 1] = "";
    size_t n = 0;
    for (size_t i = 0; i < phases->n; i++)
        n += (size_t)snprintf(text + n, sizeof text - n, "%s%s;dur=%" PRId64 ".%03d", i ? ", " : "",
            phases->items[i].name, phases->items[i].duration_us / 1000,
            (int)(phases->items[i].duration_us % 1000));
    if (n > 0)
        http_reply_header(c->x, "Server-Timing", "%s", text);
}

int reply_json(struct call *c, int status, const struct buf *body, struct err *e)
{
    if (body->failed)
        return err_set(e, ERR_NOMEM, "the answer does not fit into memory");
    (void)reply_bytes(c, status, json_type, buf_slice(body));
    return 0;
}

int reply_empty(struct call *c)
{
    (void)reply_bytes(c, HTTP_NO_CONTENT, NULL, slice_of(NULL, 0));
    return 0;
}

int field_error(
    struct call *c, struct err *e, const char *field, const char *allowed, const char *fmt, ...)
{
    char msg[ERR_MSG_MAX];
    va_list ap;
    va_start(ap, fmt);
    (void)vsnprintf(msg, sizeof msg, fmt, ap);
    va_end(ap);
    c->allowed = allowed;
    return err_field(e, field, "%s", msg);
}

int body_error(struct err *e)
{
    if (e->kind == ERR_TOO_LARGE || e->kind == ERR_NOMEM)
        return -1;
    if (e->kind == ERR_TIMEOUT)
        return err_set(e, ERR_INVALID, "the body took too long to arrive");
    if (e->kind != ERR_INVALID && e->kind != ERR_MEDIA_TYPE)
        return err_set(e, ERR_INVALID, "the body ended early");
    return -1;
}

/* --- sandboxes --- */

void write_time(struct json_writer *w, const char *key, int64_t ms)
{
    char text[CLOCK_RFC3339_MAX];
    if (ms == 0)
        return;
    clock_format_rfc3339(ms, text);
    json_key(w, key);
    json_cstr(w, text);
}

void write_text(struct json_writer *w, const char *key, const char *text)
{
    if (!text[0])
        return;
    json_key(w, key);
    json_cstr(w, text);
}

static void write_number(struct json_writer *w, const char *key, int v)
{
    json_key(w, key);
    json_int(w, v);
}

int write_sandbox(
    struct json_writer *w, const struct sandbox_row *row, struct arena *a, struct err *e)
{
    const struct json_value *metadata;
    if (json_parse(row->metadata, a, &metadata, e) < 0)
        return err_set(e, ERR_INTERNAL, "stored metadata of %s is no JSON", row->id.text);
    json_object_begin(w);
    write_text(w, "id", row->id.text);
    write_text(w, "status", sandbox_status_name(row->status));
    write_text(w, "state_reason", sandbox_reason_name(row->reason));
    write_text(w, "state_message", row->message);
    write_time(w, "status_since", row->status_since_ms);
    write_text(w, "template", row->template);
    write_text(w, "template_id", row->template_id.text);
    write_number(w, "vcpus", row->vcpus);
    write_number(w, "memory_mb", row->memory_mb);
    write_number(w, "timeout_sec", row->timeout_sec);
    write_text(w, "host_ip", row->host_ip);
    json_key(w, "metadata");
    json_value_write(w, metadata);
    write_time(w, "created_at", row->created_at_ms);
    write_time(w, "started_at", row->started_at_ms);
    write_time(w, "last_active_at", row->last_active_at_ms);
    write_time(w, "last_updated", row->last_updated_ms);
    json_object_end(w);
    return 0;
}

int reply_sandbox(struct call *c, int status, const struct sandbox_row *row, struct err *e)
{
    AUTO_BUF struct buf body = BUF_INIT(SANDBOX_BODY_MAX);
    struct json_writer w;
    json_writer_init(&w, &body);
    if (write_sandbox(&w, row, c->arena, e) < 0)
        return -1;
    return reply_json(c, status, &body, e);
}
