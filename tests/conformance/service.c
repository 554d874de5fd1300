/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The Echo service (echo.proto).
 *
 * Theory of operation. Tests need to know how a call ended in the server after its client has left,
 * and to decide when a stream goes on. Both happen through `notes`: one entry a tag, made by
 * whoever names the tag first, never removed; all waiting is on one condition with a deadline.
 */
#include <pthread.h>
#include <stdio.h>
#include <time.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "echo.h"
#include "http/server.h"
#include "rpc/server.h"

enum {
    NOTES_MAX = 256,
    TAG_MAX = 63,
    WAIT_MS = 10000,
    MESSAGE_BYTES_MAX = 8 << 20,
    STREAM_ARENA_BYTES = 32 << 20, /* of one received message */
};

struct note {
    char tag[TAG_MAX + 1];
    int released; /* by how many messages */
    bool begun;
    bool ended;
    enum err_kind kind;
    int messages; /* sent or received */
};

static struct {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    struct note list[NOTES_MAX];
    size_t n;
} notes = {.lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER};

/* The tag's entry. Under the lock. */
static struct note *note_of(struct slice tag)
{
    struct note *note;
    for (size_t i = 0; i < notes.n; i++)
        if (slice_is(tag, notes.list[i].tag))
            return &notes.list[i];
    note = &notes.list[notes.n < NOTES_MAX - 1 ? notes.n++ : notes.n];
    *note = (struct note){0};
    (void)slice_copy_cstr(tag, note->tag, sizeof note->tag);
    return note;
}

/* Writes down how a tagged call ended. Returns `rc`. */
static int note_end(struct slice tag, int messages, int rc, const struct err *e)
{
    MUTEX_GUARD(&notes.lock);
    struct note *note = note_of(tag);
    note->ended = true;
    note->messages = messages;
    note->kind = rc < 0 ? e->kind : ERR_NONE;
    pthread_cond_broadcast(&notes.changed);
    return rc;
}

/* Writes down that a tagged call goes on, and how far it is. */
static void note_progress(struct slice tag, int messages)
{
    MUTEX_GUARD(&notes.lock);
    struct note *note = note_of(tag);
    note->begun = true;
    note->messages = messages;
    pthread_cond_broadcast(&notes.changed);
}

typedef bool condition(const struct note *note, int n);

static bool has_begun(const struct note *note, int n)
{
    return note->begun && note->messages >= n;
}

static bool has_ended(const struct note *note, int n)
{
    (void)n;
    return note->ended;
}

static bool is_released(const struct note *note, int n)
{
    return note->released >= n;
}

/* Under the lock. */
static int wait_until(condition *is_true, struct note *note, int n, struct err *e)
{
    struct timespec until;
    (void)clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += WAIT_MS / 1000;
    while (!is_true(note, n))
        if (pthread_cond_timedwait(&notes.changed, &notes.lock, &until) != 0)
            return err_set(e, ERR_TIMEOUT, "nothing happened to the call \"%s\"", note->tag);
    return 0;
}

void echo_release(struct slice tag)
{
    MUTEX_GUARD(&notes.lock);
    note_of(tag)->released++;
    pthread_cond_broadcast(&notes.changed);
}

int echo_wait_released(struct slice tag, int n, struct err *e)
{
    MUTEX_GUARD(&notes.lock);
    return wait_until(is_released, note_of(tag), n, e);
}

static int fail_with(struct slice code, struct err *e)
{
    return err_set(e, rpc_kind_from_code(code), "as asked: %.*s", (int)code.n, code.p);
}

/* Metadata both ways: what comes as X-Echo goes back as X-Echo-Reply. */
static void reply_metadata(struct rpc_call *call)
{
    struct slice value = http_request_header(call->x, "X-Echo");
    if (value.p)
        http_reply_header(call->x, "X-Echo-Reply", "%.*s", (int)value.n, value.p);
}

static int unary(struct rpc_call *call, const void *req, void *resp, struct err *e)
{
    const struct echo_request *in = req;
    struct echo_response *out = resp;
    int rc = 0;
    reply_metadata(call);
    note_progress(in->tag, /* messages= */ 0);
    out->timeout_ms = call->deadline == DEADLINE_NEVER ? -1 : call->deadline - clock_mono_ms();
    if (in->delay_ms > 0)
        rc = rpc_wait(call, /* fd= */ -1, /* events= */ 0, deadline_in_ms(in->delay_ms), e);
    if (rc == 0 && in->code.n > 0)
        rc = fail_with(in->code, e);
    out->text = in->text;
    out->data = in->data;
    out->size = (int64_t)in->data.n;
    return note_end(in->tag, /* messages= */ 0, rc, e);
}

/* What Repeat does before every message but the first. */
static int pace(struct rpc_call *call, const struct echo_request *in, int index, struct err *e)
{
    if (in->gated)
        return echo_wait_released(in->tag, index, e);
    if (in->delay_ms > 0)
        return rpc_wait(call, /* fd= */ -1, /* events= */ 0, deadline_in_ms(in->delay_ms), e);
    return rpc_check(call, e);
}

static int send_messages(
    struct rpc_call *call, const struct echo_request *in, int *ret_sent, struct err *e)
{
    struct echo_response out = {.text = in->text};
    char *data = arena_alloc(call->arena, (size_t)in->size);
    if (!data)
        return err_set(e, ERR_TOO_LARGE, "no memory for %d bytes", in->size);
    out.data = slice_of(data, (size_t)in->size);
    for (*ret_sent = 0; *ret_sent < in->count; ++*ret_sent) {
        out.index = *ret_sent;
        if (*ret_sent > 0 && pace(call, in, *ret_sent, e) < 0)
            return -1;
        if (rpc_send(call, &echo_response_message, &out, e) < 0)
            return -1;
    }
    return in->code.n > 0 ? fail_with(in->code, e) : 0;
}

static int repeat(struct rpc_call *call, const void *req, struct err *e)
{
    const struct echo_request *in = req;
    int sent = 0;
    int rc;
    if (in->size < 0)
        return err_field(e, "size", "size must not be negative");
    reply_metadata(call);
    rc = send_messages(call, in, &sent, e);
    return note_end(in->tag, sent, rc, e);
}

/* Takes one message; 1, 0 at the end, -1. */
static int take(
    struct rpc_call *call, struct arena *a, struct echo_response *out, char *tag, struct err *e)
{
    struct echo_request in;
    int rc = rpc_receive(call, a, &in, e);
    if (rc <= 0)
        return rc;
    out->index++;
    out->size += (int64_t)in.data.n;
    if (in.tag.n > 0)
        (void)slice_copy_cstr(in.tag, tag, TAG_MAX + 1);
    note_progress(slice_cstr(tag), out->index);
    return in.code.n > 0 ? fail_with(in.code, e) : 1;
}

static int collect(struct rpc_call *call, void *resp, struct err *e)
{
    struct echo_response *out = resp;
    char tag[TAG_MAX + 1] = "";
    struct arena a;
    int rc;
    reply_metadata(call);
    arena_init(&a, STREAM_ARENA_BYTES);
    do {
        rc = take(call, &a, out, tag, e);
        arena_done(&a);
    } while (rc > 0);
    return note_end(slice_cstr(tag), out->index, rc, e);
}

static int begun(struct rpc_call *call, const void *req, void *resp, struct err *e)
{
    const struct echo_request *in = req;
    MUTEX_GUARD(&notes.lock);
    (void)call;
    (void)resp;
    return wait_until(has_begun, note_of(in->tag), in->count, e);
}

static int outcome(struct rpc_call *call, const void *req, void *resp, struct err *e)
{
    const struct echo_request *in = req;
    struct echo_response *out = resp;
    MUTEX_GUARD(&notes.lock);
    struct note *note = note_of(in->tag);
    (void)call;
    if (wait_until(has_ended, note, /* n= */ 0, e) < 0)
        return -1;
    out->index = note->messages;
    if (note->kind != ERR_NONE)
        out->code = slice_cstr(rpc_code_from_kind(note->kind));
    return 0;
}

static int release(struct rpc_call *call, const void *req, void *resp, struct err *e)
{
    const struct echo_request *in = req;
    (void)call;
    (void)resp;
    (void)e;
    echo_release(in->tag);
    return 0;
}

#define METHOD(name, kind, fn)                                                                     \
    {                                                                                              \
        .path = ECHO_PATH(name), .request = &echo_request_message,                                 \
        .response = &echo_response_message, .kind = (fn)                                           \
    }
static const struct rpc_method methods[] = {
    METHOD("Unary", unary, unary),
    METHOD("Repeat", stream, repeat),
    METHOD("Collect", client_stream, collect),
    METHOD("Begun", unary, begun),
    METHOD("Outcome", unary, outcome),
    METHOD("Release", unary, release),
};

bool echo_serve(struct http_exchange *x)
{
    return rpc_serve(x, methods, ARRAY_LEN(methods), MESSAGE_BYTES_MAX, /* ctx= */ NULL);
}
