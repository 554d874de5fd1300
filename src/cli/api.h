/* SPDX-License-Identifier: Apache-2.0 */
/* Calls to the public API. One connection, kept from call to call; one call at a time. */
#ifndef TORPOR_CLI_API_H
#define TORPOR_CLI_API_H

#include "base/arena.h"
#include "base/buf.h"
#include "cli/settings.h"
#include "http/client.h"
#include "json/json.h"

enum { API_TIMEOUT_MS = 90000, API_HEADERS_MAX = 4 };

struct progress;

struct api {
    struct settings settings;
    struct http_conn *conn;    /* NULL until the first call and after a broken one */
    struct progress *progress; /* moves while a call waits; NULL: none */
};

struct api_call {
    const char *method;
    const char *target;
    struct slice json;  /* the body, empty for none */
    int64_t timeout_ms; /* 0: API_TIMEOUT_MS */
};

/* A whole answer. Freed by api_answer_done. */
struct api_answer {
    struct buf body;
    struct arena arena;
    const struct json_value *json; /* NULL when there is no body */
    char next_cursor[256];
    char server_timing[2048]; /* "" when absent or longer */
};
#define AUTO_ANSWER __attribute__((cleanup(api_answer_done)))
void api_answer_done(struct api_answer *a);

/* Finds server and key. Nothing is connected. */
int api_open(struct api *a, struct err *e);
void api_close(struct api *a);
#define AUTO_API __attribute__((cleanup(api_close)))

/* One exchange. An answer that is no success is an error: its code's kind, its message, with field,
 * allowed values and (for failures of the server) the request id behind it. `where` is the field,
 * or the state of a sandbox that is in the wrong one. */
int api_call(struct api *a, const struct api_call *call, struct api_answer *ret, struct err *e);

/* The pieces of a call whose body or answer is streamed. api_begin connects and sends the head (and
 * `first`), with `content_type` and a body of `body_length` as in http/client.h; the caller sends
 * the rest on a->conn. Then api_head waits for a successful answer, or sets its error. */
int api_begin(struct api *a, const struct api_call *call, const char *content_type,
    struct slice first, int64_t body_length, struct err *e);
int api_head(
    struct api *a, const struct http_response_head **ret, int64_t timeout_ms, struct err *e);

/* Text of a member, "" when absent. Lives as long as the answer. */
const char *api_text(struct api_answer *a, const struct json_value *v, const char *key);
int64_t api_int(const struct json_value *v, const char *key, int64_t fallback);

#endif
