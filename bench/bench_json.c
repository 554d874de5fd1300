/* SPDX-License-Identifier: Apache-2.0 */
/*
 * JSON parsed and written, against jansson, which is loaded at run time into a name space of its
 * own: both libraries have functions of the same names.
 */
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/arena.h"
#include "base/clock.h"
#include "bench.h"
#include "json/json.h"

enum {
    OBJECTS = 5000,
    TEXT_MAX = 4 << 20,
    ARENA_MAX = 64 << 20,
    RUNS = 41,
    JANSSON_REJECT_DUPLICATES = 1, /* what we do always */
    JANSSON_COMPACT = 0x20,
};

static struct {
    void *(*load)(const char *p, size_t n, size_t flags, void *error);
    char *(*dump)(const void *v, size_t flags);
    void (*free)(void *v);
} jansson;

static bool load_jansson(void)
{
    void *lib = dlopen("libjansson.so.4", RTLD_NOW | RTLD_LOCAL | RTLD_DEEPBIND);
    if (!lib)
        return false;
    *(void **)&jansson.load = dlsym(lib, "json_loadb");
    *(void **)&jansson.dump = dlsym(lib, "json_dumps");
    *(void **)&jansson.free = dlsym(lib, "json_delete");
    return jansson.load && jansson.dump && jansson.free;
}

/* About 200 bytes an object: what an API's list looks like. */
static void write_object(struct json_writer *w, int i)
{
    char name[64];
    (void)snprintf(name, sizeof name, "sandbox-%05d of the \"benchmark\" f\xc3\xbcr alle", i);
    json_object_begin(w);
    json_key(w, "id");
    json_int(w, 1000000 + i);
    json_key(w, "name");
    json_cstr(w, name);
    json_key(w, "state");
    json_cstr(w, i % 2 ? "running" : "paused");
    json_key(w, "ratio");
    json_double(w, i / 8.0);
    json_key(w, "ready");
    json_bool(w, i % 3 == 0);
    json_key(w, "reason");
    json_null(w);
    json_key(w, "tags");
    json_array_begin(w);
    json_cstr(w, "alpha");
    json_cstr(w, "line\nbreak");
    json_array_end(w);
    json_key(w, "created_at");
    json_cstr(w, "2026-01-02T03:04:05.123Z");
    json_object_end(w);
}

static void write_document(struct buf *text)
{
    struct json_writer w;
    json_writer_init(&w, text);
    json_array_begin(&w);
    for (int i = 0; i < OBJECTS; i++)
        write_object(&w, i);
    json_array_end(&w);
}

static int64_t time_ours(struct slice text)
{
    struct arena a;
    struct err e = {0};
    AUTO_BUF struct buf out = BUF_INIT(TEXT_MAX);
    struct json_writer w;
    const struct json_value *v;
    int64_t start = clock_mono_us();
    int64_t us;
    arena_init(&a, ARENA_MAX);
    if (json_parse(text, &a, &v, &e) < 0) {
        (void)fprintf(stderr, "bench: %s\n", e.msg);
        exit(1);
    }
    json_writer_init(&w, &out);
    json_value_write(&w, v);
    arena_done(&a);
    us = clock_mono_us() - start;
    if (!slice_eq(buf_slice(&out), text))
        (void)fprintf(stderr, "bench: the document did not come back\n");
    return us;
}

static int64_t time_jansson(struct slice text)
{
    int64_t start = clock_mono_us();
    void *v = jansson.load(text.p, text.n, JANSSON_REJECT_DUPLICATES, NULL);
    char *out = v ? jansson.dump(v, JANSSON_COMPACT) : NULL;
    if (!out) {
        (void)fprintf(stderr, "bench: jansson refuses the document\n");
        exit(1);
    }
    free(out);
    jansson.free(v);
    return clock_mono_us() - start;
}

void bench_json(void)
{
    static struct samples ours;
    static struct samples raw;
    const char *name = "JSON of 1 MB, 5000 objects, parsed and written, against jansson";
    AUTO_BUF struct buf text = BUF_INIT(TEXT_MAX);
    double ratio;
    if (!load_jansson()) {
        report_unmeasured(name, "libjansson4 is not installed");
        return;
    }
    write_document(&text);
    for (int i = 0; i < RUNS; i++) {
        samples_add(&ours, time_ours(buf_slice(&text)));
        samples_add(&raw, time_jansson(buf_slice(&text)));
    }
    report_ratio(name, &ours, &raw, 1 / 3.0);
    ratio = (double)samples_percentile(&raw, 50) / (double)samples_percentile(&ours, 50);
    printf("    %zu bytes; %.1f times as fast\n", text.len, ratio);
}
