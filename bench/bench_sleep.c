/* SPDX-License-Identifier: Apache-2.0 */
/* Sleeping and waking: calls, their phases, and which figures there are. */
#include "bench_sleep.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/sock.h"
#include "bench_sleep_raw.h"
#include "http/client.h"

enum { CALL_MS = 120000, BODY_MAX = 1 << 20, RUNS = 15 };

/* --- calls --- */

static void die(const struct stack *s, const char *method, const char *path, const char *why)
{
    struct stack copy = *s;
    stack_show_logs(s);
    (void)fprintf(stderr, "bench: %s %s: %s\n", method, path, why);
    raw_done();
    stack_stop(&copy);
    exit(1);
}

static void take_text(struct slice text, char *dst, size_t n)
{
    (void)snprintf(dst, n, "%.*s", (int)text.n, text.p ? text.p : "");
}

static void take_id(const struct buf *body, char dst[32])
{
    struct arena arena;
    const struct json_value *v;
    const struct json_value *id;
    struct err e = {0};
    arena_init(&arena, (size_t)BODY_MAX * 4);
    if (body->len > 0 && json_parse(buf_slice(body), &arena, &v, &e) == 0 &&
        (id = json_get(v, "id")) && id->type == JSON_STRING)
        take_text(id->string, dst, 32);
    arena_done(&arena);
}

static int call(const struct stack *s, const struct http_call *request, struct timed *ret,
    struct buf *body, struct err *e)
{
    const struct http_response_head *head;
    int64_t deadline = deadline_in_ms(CALL_MS);
    int64_t began = clock_mono_us();
    int fd = sock_connect_tcp("127.0.0.1", (uint16_t)s->port, deadline, e);
    struct http_conn *c = fd < 0 ? NULL : http_conn_new(fd, e);
    int status = -1;
    if (c && http_send(c, request, deadline, e) == 0 &&
        http_recv_head(c, &head, deadline, e) == 0) {
        status = head->status;
        take_text(http_header_find(head->headers, head->n_headers, "Server-Timing"), ret->timing,
            sizeof ret->timing);
        if (http_recv_body_all(c, body, deadline, e) < 0)
            status = -1;
    }
    ret->us = clock_mono_us() - began;
    (void)http_conn_free(c);
    return status;
}

void timed_call(const struct stack *s, const char *method, const char *path, const char *body,
    struct timed *ret)
{
    const struct http_header headers[] = {
        {SLICE_LIT("X-API-Key"), slice_cstr(s->key)},
        {SLICE_LIT("Content-Type"), SLICE_LIT("application/json")},
    };
    AUTO_BUF struct buf answer = BUF_INIT(BODY_MAX);
    struct err e = {0};
    int status;
    *ret = (struct timed){0};
    status = call(s,
        &(struct http_call){.method = method,
            .target = path,
            .host = "127.0.0.1",
            .headers = headers,
            .n_headers = body ? 2 : 1,
            .body = slice_cstr(body),
            .body_length = HTTP_BODY_IS_SLICE},
        ret, &answer, &e);
    if (status < 200 || status > 299)
        die(s, method, path, status < 0 ? e.msg : answer.p ? answer.p : "an error without a body");
    take_id(&answer, ret->id);
}

void timed_create(const struct stack *s, const char *template, struct timed *ret)
{
    char body[128];
    (void)snprintf(
        body, sizeof body, "{\"template\":\"%s\",\"memory_mb\":%d}", template, SLEEP_MEMORY_MB);
    timed_call(s, "POST", "/v1/sandboxes", body, ret);
}

static void change(const struct stack *s, const char *id, const char *what, struct timed *ret)
{
    char path[96];
    (void)snprintf(path, sizeof path, "/v1/sandboxes/%s/%s", id, what);
    timed_call(s, "POST", path, /* body= */ NULL, ret);
}

void timed_pause(const struct stack *s, const char *id, struct timed *ret)
{
    change(s, id, "pause", ret);
}

void timed_resume(const struct stack *s, const char *id, struct timed *ret)
{
    change(s, id, "resume", ret);
}

int64_t timed_exec(const struct stack *s, const char *id, const char *body)
{
    char path[96];
    struct timed t;
    (void)snprintf(path, sizeof path, "/v1/sandboxes/%s/exec", id);
    timed_call(s, "POST", path, body, &t);
    return t.us;
}

void snapshot(const struct stack *s, const char *id, const char *name, struct timed *ret)
{
    char body[160];
    (void)snprintf(body, sizeof body, "{\"sandbox_id\":\"%s\",\"name\":\"%s\"}", id, name);
    timed_call(s, "POST", "/v1/snapshots", body, ret);
}

void snapshot_delete(const struct stack *s, const char *name)
{
    char path[96];
    struct timed t;
    (void)snprintf(path, sizeof path, "/v1/snapshots/%s", name);
    timed_call(s, "DELETE", path, /* body= */ NULL, &t);
}

void template_make(const struct stack *s, const char *name)
{
    struct timed t;
    struct timed made;
    timed_create(s, "minimal", &t);
    (void)timed_exec(s, t.id, "{\"cmd\":\"true\"}");
    snapshot(s, t.id, name, &made);
    delete_sandbox(s, t.id);
}

void agent_again(struct stack *s)
{
    (void)stack_end(&s->agent, SIGTERM);
    stack_start_agent(s);
}

#define FILL_IF "if=/dev/urandom"
#define FILL_OF "of=/dev/shm/written"

const char *const write_memory_argv[] = {
    "dd", FILL_IF, FILL_OF, "bs=65536", "count=320", "conv=notrunc", NULL};

void write_memory(const struct stack *s, const char *id)
{
    (void)timed_exec(s, id,
        "{\"cmd\":\"dd\",\"timeout_sec\":60,\"args\":[\"" FILL_IF "\",\"" FILL_OF
        "\",\"bs=65536\",\"count=320\",\"conv=notrunc\"]}");
}

/* --- phases --- */

static struct samples *phase_of(struct phase_samples *p, const char *name)
{
    for (size_t i = 0; i < p->n; i++)
        if (strcmp(p->names[i], name) == 0)
            return &p->samples[i];
    if (p->n == PHASES_KEPT)
        return NULL;
    (void)snprintf(p->names[p->n], sizeof p->names[0], "%s", name);
    return &p->samples[p->n++];
}

/* The next "name;dur=1.234" behind `text`; NULL when there is none. */
static const char *next_phase(const char *text, char name[24], int64_t *ret_us)
{
    double ms;
    int n = 0;
    text += strspn(text, ", ");
    if (sscanf(text, "%23[^;];dur=%lf%n", name, &ms, &n) != 2)
        return NULL;
    *ret_us = (int64_t)(ms * 1000);
    return text + n;
}

void phases_forget(struct phase_samples *p)
{
    p->n = 0;
    memset(p->samples, 0, sizeof p->samples);
}

void phases_add(struct phase_samples *p, const char *timing)
{
    char name[24];
    int64_t us;
    while ((timing = next_phase(timing, name, &us))) {
        struct samples *s = phase_of(p, name);
        if (s)
            samples_add(s, us);
    }
}

int64_t phases_sum(const char *timing, const char *first, const char *last)
{
    char name[24];
    bool counts = false;
    int64_t sum = 0;
    int64_t us;
    while ((timing = next_phase(timing, name, &us))) {
        counts |= strcmp(name, first) == 0;
        if (counts)
            sum += us;
        if (strcmp(name, last) == 0)
            break;
    }
    return sum;
}

void phases_print(const char *whose, struct phase_samples *p)
{
    printf("    phases of %s, p50 ms:", whose);
    for (size_t i = 0; i < p->n; i++)
        printf("%s %s %.2f", i ? "," : "", p->names[i],
            (double)samples_percentile(&p->samples[i], 50) / 1000);
    printf("\n");
    phases_forget(p);
}

/* --- the host --- */

size_t count_setting(const char *name, size_t value)
{
    const char *text = getenv(name);
    size_t n = text ? strtoul(text, NULL, 10) : 0;
    return n > 0 ? n : value;
}

size_t sleep_runs(void)
{
    size_t n = count_setting("TORPOR_BENCH_RUNS", RUNS);
    return n < SAMPLES_MAX ? n : SAMPLES_MAX;
}

/* --- which --- */

static const struct {
    const char *name;
    void (*run)(struct stack *s);
} figures[] = {
    {"sleep-resume", figure_resume},
    {"sleep-create", figure_create},
    {"sleep-uffd", figure_uffd},
    {"sleep-pause", figure_pause},
    {"sleep-large", figure_large},
    {"sleep-bytes", figure_bytes},
    {"sleep-snapshot", figure_snapshot},
    {"sleep-spawns", figure_spawns},
    {"sleep-private", figure_private},
    {"sleep-cycles", figure_cycles},
    {"sleep-paused", figure_paused},
};

void bench_sleep(struct stack *s, const char *only)
{
    raw_init(s);
    for (size_t i = 0; i < ARRAY_LEN(figures); i++)
        if (!only || strcmp(only, "sleep") == 0 || strcmp(only, figures[i].name) == 0)
            figures[i].run(s);
    raw_done();
}

bool bench_sleep_has(const char *name)
{
    for (size_t i = 0; i < ARRAY_LEN(figures); i++)
        if (strcmp(name, figures[i].name) == 0)
            return true;
    return strcmp(name, "sleep") == 0;
}
