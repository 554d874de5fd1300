/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Base templates start warm: after the second create of a size (image, vcpus, memory) a generation
 * is made of a guest whose envd has just become ready and knows nothing yet; later creates of that
 * size restore it instead of booting.
 *
 * Theory of operation: a table of sizes, most of them only counted. One thread makes generations,
 * one at a time, never within a create: it boots a sandbox that is in no table, has no state.json
 * (so that an agent that ends meanwhile leaves an unfinished create, which the next one undoes),
 * and is taken apart afterwards. What is kept is <dir>/warm/<digest>-<vcpus>-<memory>.json, whose
 * time of change is its last use. At most PER_IMAGE sizes an image, and all together at most a
 * twentieth of the disk: the least recently used goes. A warm start of another set of VMM files
 * than today's goes at the start: it is only a shortcut.
 */
#define LOG_MODULE "warm"
#include "agent/life/life_int.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "agent/life/phases.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/io.h"
#include "base/log.h"
#include "json/json.h"

enum {
    SIZES_MAX = 256, /* counted; beyond, the oldest count is forgotten */
    PER_IMAGE = 8,
    DISK_SHARE = 20, /* one part of so many */
    CREATES_BEFORE = 2,
    FILE_BYTES_MAX = 1024,
    FILE_NAME_MAX = JOURNAL_DIGEST_MAX + 40,
    FORMAT = 1,
};

struct size {
    char digest[JOURNAL_DIGEST_MAX]; /* of the image */
    int32_t vcpus;
    int32_t memory_mb;
    unsigned creates;
    bool wanted;            /* to be made, or being made */
    bool failed;            /* not tried again by this agent */
    struct uuid generation; /* none: not warm */
    int64_t used_ms;
};

struct warm {
    struct life *life;
    pthread_mutex_t lock;
    pthread_cond_t wake;
    bool ending;
    struct size sizes[SIZES_MAX];
    size_t n;
    pthread_t maker;
    bool making;
};

/* --- files --- */

static void file_name(const struct size *z, char dst[FILE_NAME_MAX])
{
    (void)snprintf(dst, FILE_NAME_MAX, "%s-%d-%d.json", z->digest, z->vcpus, z->memory_mb);
}

static int size_write(const struct life *l, const struct size *z, struct err *e)
{
    AUTO_BUF struct buf text = BUF_INIT(FILE_BYTES_MAX);
    char generation[UUID_TEXT + 1];
    char name[FILE_NAME_MAX];
    struct json_writer w;
    uuid_format(&z->generation, generation);
    json_writer_init(&w, &text);
    json_object_begin(&w);
    json_key(&w, "format");
    json_int(&w, FORMAT);
    json_key(&w, "image_digest");
    json_cstr(&w, z->digest);
    json_key(&w, "vcpus");
    json_int(&w, z->vcpus);
    json_key(&w, "memory_mb");
    json_int(&w, z->memory_mb);
    json_key(&w, "generation");
    json_cstr(&w, generation);
    json_object_end(&w);
    if (text.failed)
        return err_set(e, ERR_NOMEM, "out of memory");
    file_name(z, name);
    return io_replace_file(l->warm_fd, name, text.p, text.len, 0600, e);
}

static bool take_number(const struct json_value *v, const char *key, int32_t *ret)
{
    int64_t n;
    if (!json_get_int(v, key, 1, INT32_MAX, &n))
        return false;
    *ret = (int32_t)n;
    return true;
}

static bool take_size(const struct json_value *v, struct size *ret)
{
    int32_t format;
    return take_number(v, "format", &format) && format == FORMAT &&
           take_number(v, "vcpus", &ret->vcpus) && take_number(v, "memory_mb", &ret->memory_mb) &&
           slice_copy_cstr(json_get_text(v, "image_digest"), ret->digest, sizeof ret->digest) &&
           uuid_parse(json_get_text(v, "generation"), &ret->generation);
}

static int size_read(const struct life *l, const char *name, struct size *ret, struct err *e)
{
    AUTO_BUF struct buf text = BUF_INIT(FILE_BYTES_MAX);
    struct size z = {.creates = CREATES_BEFORE};
    const struct json_value *v;
    struct arena arena;
    struct stat st;
    int rc;
    if (io_read_file(l->warm_fd, name, &text, e) < 0)
        return -1;
    if (fstatat(l->warm_fd, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
        return err_sys(e, errno, "stat %s", name);
    z.used_ms = (int64_t)st.st_mtim.tv_sec * 1000 + st.st_mtim.tv_nsec / 1000000;
    arena_init(&arena, (size_t)FILE_BYTES_MAX * 8);
    rc = json_parse(buf_slice(&text), &arena, &v, e);
    if (rc == 0 && !take_size(v, &z))
        rc = err_set(e, ERR_INVALID, "not a warm start of format %d", FORMAT);
    arena_done(&arena);
    if (rc == 0)
        *ret = z;
    return rc;
}

/* --- the table; under the lock --- */

static struct size *find(struct warm *w, const char *digest, int32_t vcpus, int32_t memory_mb)
{
    for (size_t i = 0; i < w->n; i++) {
        struct size *z = &w->sizes[i];
        if (z->vcpus == vcpus && z->memory_mb == memory_mb && strcmp(z->digest, digest) == 0)
            return z;
    }
    return NULL;
}

/* The one that has been used least recently, among those for which `digest` (NULL: any). */
static struct size *least_used(struct warm *w, const char *digest, bool warm)
{
    struct size *least = NULL;
    for (size_t i = 0; i < w->n; i++) {
        struct size *z = &w->sizes[i];
        if (uuid_is_none(&z->generation) == warm || z->wanted ||
            (digest && strcmp(z->digest, digest) != 0))
            continue;
        if (!least || z->used_ms < least->used_ms)
            least = z;
    }
    return least;
}

static struct size *add(struct warm *w, const char *digest, int32_t vcpus, int32_t memory_mb)
{
    struct size *z = w->n < SIZES_MAX ? &w->sizes[w->n++] : least_used(w, NULL, /* warm= */ false);
    if (!z)
        return NULL;
    *z = (struct size){.vcpus = vcpus, .memory_mb = memory_mb};
    (void)snprintf(z->digest, sizeof z->digest, "%s", digest);
    return z;
}

static void cool(struct warm *w, struct size *z)
{
    char name[FILE_NAME_MAX];
    file_name(z, name);
    /* A name that comes back with the power would name nothing; the next start sees to that. */
    (void)unlinkat(w->life->warm_fd, name, 0);
    (void)fsync(w->life->warm_fd);
    generation_unpin(w->life->generations, &z->generation);
    z->generation = (struct uuid){0};
    z->creates = 0;
    log_info("warm start removed size=%s", name);
}

static uint64_t bytes_of_all(struct warm *w)
{
    uint64_t sum = 0;
    for (size_t i = 0; i < w->n; i++) {
        uint64_t bytes;
        struct err ignored = {0};
        if (!uuid_is_none(&w->sizes[i].generation) &&
            generation_size(w->life->generations, &w->sizes[i].generation, &bytes, &ignored) == 0)
            sum += bytes;
    }
    return sum;
}

static size_t count_of(struct warm *w, const char *digest)
{
    size_t n = 0;
    for (size_t i = 0; i < w->n; i++)
        n += !uuid_is_none(&w->sizes[i].generation) && strcmp(w->sizes[i].digest, digest) == 0;
    return n;
}

static void keep_bounds(struct warm *w, const char *digest)
{
    struct statvfs fs;
    struct size *least;
    while (count_of(w, digest) > PER_IMAGE && (least = least_used(w, digest, /* warm= */ true)))
        cool(w, least);
    if (fstatvfs(w->life->warm_fd, &fs) < 0)
        return;
    while (bytes_of_all(w) > (uint64_t)fs.f_blocks * fs.f_frsize / DISK_SHARE &&
           (least = least_used(w, NULL, /* warm= */ true)))
        cool(w, least);
}

/* --- use --- */

/* The warm generation of that size, pinned; none (and counted) when there is none. */
static bool pin_warm(struct warm *w, const struct sandbox *s, struct uuid *ret)
{
    struct err ignored = {0};
    char name[FILE_NAME_MAX];
    struct size *z;
    MUTEX_GUARD(&w->lock);
    z = find(w, s->template.digest, s->entry.vcpus, s->entry.memory_mb);
    if (!z)
        z = add(w, s->template.digest, s->entry.vcpus, s->entry.memory_mb);
    if (!z)
        return false;
    z->creates++;
    z->used_ms = clock_real_ms();
    if (uuid_is_none(&z->generation)) {
        if (z->creates >= CREATES_BEFORE && !z->failed) {
            z->wanted = true;
            (void)pthread_cond_signal(&w->wake);
        }
        return false;
    }
    file_name(z, name);
    (void)utimensat(w->life->warm_fd, name, NULL, 0);
    *ret = z->generation;
    return generation_pin(w->life->generations, ret, &ignored) == 0;
}

void warm_use(struct warm *w, struct sandbox *s)
{
    struct uuid id;
    struct err e = {0};
    if (!w || !pin_warm(w, s, &id))
        return;
    uuid_format(&id, s->entry.generation);
    if (source_open(s, &e) < 0) {
        log_warn("warm start is not used: %s", e.msg);
        source_unpin(s);
        warm_forget(w, s);
    }
}

void warm_forget(struct warm *w, const struct sandbox *s)
{
    struct size *z;
    if (!w)
        return;
    MUTEX_GUARD(&w->lock);
    z = find(w, s->template.digest, s->entry.vcpus, s->entry.memory_mb);
    if (z && !uuid_is_none(&z->generation))
        cool(w, z);
}

/* --- making --- */

/* Boots a sandbox of that size that nobody knows, and puts its machine on disk. */
static int make_generation(struct warm *w, const struct size *z, struct uuid *ret, struct err *e)
{
    struct sandbox_id id;
    struct err cleanup = {0};
    struct sandbox *s;
    int rc = -1;
    sandbox_id_new(&id);
    s = sandbox_new(w->life, &id);
    if (!s)
        return err_set(e, ERR_NOMEM, "out of memory");
    s->hidden = true;
    s->entry.vcpus = z->vcpus;
    s->entry.memory_mb = z->memory_mb;
    if (host_image_find(&w->life->host, z->digest, &s->template, e) == 0 &&
        resources_make(s, e) == 0) {
        rc = pause_hidden(s, ret, e);
        if (resources_release(s, &cleanup) < 0 || resources_remove_files(s, &cleanup) < 0)
            log_err("taking the sandbox of a warm start apart: %s", cleanup.msg);
    }
    sandbox_unref(s);
    return rc;
}

static void make(struct warm *w, const struct size *wanted)
{
    struct uuid generation = {0};
    struct err e = {0};
    int rc = make_generation(w, wanted, &generation, &e);
    struct size *z;
    MUTEX_GUARD(&w->lock);
    z = find(w, wanted->digest, wanted->vcpus, wanted->memory_mb);
    if (rc == 0 && z) {
        z->generation = generation;
        rc = size_write(w->life, z, &e);
    }
    if (z)
        z->wanted = false;
    if (rc < 0) {
        log_warn(
            "no warm start of vcpus=%d memory_mb=%d: %s", wanted->vcpus, wanted->memory_mb, e.msg);
        if (!uuid_is_none(&generation))
            generation_unpin(w->life->generations, &generation);
        if (z) {
            z->generation = (struct uuid){0};
            z->creates = 0;
            z->failed = e.kind != ERR_NO_CAPACITY;
        }
        return;
    }
    log_info("warm start made vcpus=%d memory_mb=%d", wanted->vcpus, wanted->memory_mb);
    keep_bounds(w, wanted->digest);
}

/* The next size to be made; false when it is to end. */
static bool take_wanted(struct warm *w, struct size *ret)
{
    MUTEX_GUARD(&w->lock);
    for (;;) {
        if (w->ending)
            return false;
        for (size_t i = 0; i < w->n; i++)
            if (w->sizes[i].wanted) {
                *ret = w->sizes[i];
                return true;
            }
        (void)pthread_cond_wait(&w->wake, &w->lock);
    }
}

static void *run(void *arg)
{
    struct warm *w = arg;
    struct size wanted;
    while (take_wanted(w, &wanted))
        make(w, &wanted);
    return NULL;
}

/* --- start and stop --- */

static bool is_current(struct warm *w, const struct size *z)
{
    struct generation_manifest m;
    struct err e = {0};
    return generation_read(w->life->generations, &z->generation, &m, &e) == 0 &&
           strcmp(m.machine.vmm_digest, w->life->vmm_host.facts.digest) == 0;
}

static void load_one(struct warm *w, const char *name)
{
    struct size z;
    struct err e = {0};
    if (w->n == SIZES_MAX || size_read(w->life, name, &z, &e) < 0) {
        if (e.kind != ERR_NONE)
            log_warn("warm start %s left out: %s", name, e.msg);
        return;
    }
    if (generation_pin(w->life->generations, &z.generation, &e) < 0) {
        log_warn("warm start %s left out: %s", name, e.msg);
        (void)unlinkat(w->life->warm_fd, name, 0);
        return;
    }
    w->sizes[w->n++] = z;
}

void warm_drop_stale(struct warm *w)
{
    MUTEX_GUARD(&w->lock);
    for (size_t i = 0; i < w->n; i++)
        if (!is_current(w, &w->sizes[i]))
            cool(w, &w->sizes[i]);
}

static int load_all(struct warm *w, struct err *e)
{
    int fd = openat(w->life->warm_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *d = fd < 0 ? NULL : fdopendir(fd);
    struct dirent *ent;
    if (!d) {
        (void)err_sys(e, errno, "read the warm starts");
        if (fd >= 0)
            (void)close(fd);
        return -1;
    }
    while ((ent = readdir(d)))
        if (io_is_leftover(ent->d_name))
            (void)unlinkat(w->life->warm_fd, ent->d_name, 0);
        else if (ent->d_name[0] != '.')
            load_one(w, ent->d_name);
    (void)closedir(d);
    return 0;
}

struct warm *warm_open(struct life *l, struct err *e)
{
    struct warm *w = calloc(1, sizeof *w);
    if (!w) {
        (void)err_set(e, ERR_NOMEM, "out of memory");
        return NULL;
    }
    w->life = l;
    (void)pthread_mutex_init(&w->lock, NULL);
    (void)pthread_cond_init(&w->wake, NULL);
    if (load_all(w, e) == 0)
        return w;
    warm_stop(w);
    return NULL;
}

int warm_start(struct warm *w, struct err *e)
{
    int rc = pthread_create(&w->maker, NULL, run, w);
    w->making = rc == 0;
    return rc == 0 ? 0 : err_sys(e, rc, "thread of warm starts");
}

void warm_stop(struct warm *w)
{
    if (!w)
        return;
    {
        MUTEX_GUARD(&w->lock);
        w->ending = true;
        (void)pthread_cond_signal(&w->wake);
    }
    if (w->making)
        (void)pthread_join(w->maker, NULL);
    (void)pthread_cond_destroy(&w->wake);
    (void)pthread_mutex_destroy(&w->lock);
    free(w);
}
