/* SPDX-License-Identifier: Apache-2.0 */
/* Create and destroy. */
#define LOG_MODULE "life"
#include "agent/life/life_int.h"

#include <stdio.h>
#include <string.h>

#include "agent/life/crash.h"
#include "agent/life/snapshots.h"
#include "base/clock.h"
#include "base/log.h"
#include "proto/limits.h"
#include "rpc/message.h"

static int check_range(const char *field, int32_t v, int32_t min, int32_t max, struct err *e)
{
    if (v < min || v > max)
        return err_field(e, field, "must be between %d and %d", min, max);
    return 0;
}

static int check_env(const struct life_create *c, struct err *e);

/* The control plane has checked all this; what reaches root is checked again. */
static int check_create(const struct life_create *c, struct err *e)
{
    bool frozen = c->snapshot_id.n > 0;
    if ((!frozen && check_range("vcpus", c->vcpus, LIMIT_VCPUS_MIN, LIMIT_VCPUS_MAX, e) < 0) ||
        (!frozen && check_range("memory_mb", c->memory_mb, LIMIT_MEMORY_MB_MIN, LIMIT_MEMORY_MB_MAX,
                        e) < 0) ||
        check_range("timeout_sec", c->timeout_sec, 0, LIMIT_TIMEOUT_SEC_MAX, e) < 0)
        return -1;
    if (c->request_id.n > LIMIT_REQUEST_ID_MAX)
        return err_field(e, "request_id", "longer than %d bytes", LIMIT_REQUEST_ID_MAX);
    return check_env(c, e);
}

static int check_env(const struct life_create *c, struct err *e)
{
    if (c->n_env > LIMIT_ENV_MAX)
        return err_field(e, "env", "more than %d variables", LIMIT_ENV_MAX);
    for (size_t i = 0; i < c->n_env; i++) {
        struct slice k = c->env[i].key;
        struct slice v = c->env[i].value;
        if (k.n == 0 || k.n > LIMIT_ENV_KEY_MAX || memchr(k.p, '=', k.n) || memchr(k.p, '\0', k.n))
            return err_field(e, "env", "a name is empty, too long, or holds '='");
        if (v.n > LIMIT_ENV_VALUE_MAX || (v.n > 0 && memchr(v.p, '\0', v.n)))
            return err_field(e, "env", "a value is longer than %d bytes", LIMIT_ENV_VALUE_MAX);
    }
    return 0;
}

/* A failure of the host is not the caller's: an ENOENT here must not become a 404, and what the
 * host is made of is for its log only. */
static int create_error(struct err *e)
{
    char step[ERR_WHERE_MAX];
    bool callers = e->errnum == 0 && (e->kind == ERR_NO_CAPACITY || e->kind == ERR_TIMEOUT);
    memcpy(step, e->where, sizeof step);
    if (callers)
        return -1;
    if (e->kind == ERR_NO_SPACE)
        return err_set(e, ERR_NO_CAPACITY, "no space left on the host for the %s", step);
    return err_set(e, ERR_INTERNAL, "the host could not make the %s; its log says why", step);
}

static void log_phases(const struct sandbox *s, int64_t began_us)
{
    log_info("sandbox running template=%s vcpus=%d memory_mb=%d slot=%u ms=%lld", s->entry.template,
        s->entry.vcpus, s->entry.memory_mb, s->slot.index,
        (long long)((clock_mono_us() - began_us) / 1000));
}

/* Takes back a create that failed after its resources were made. */
static void take_back(struct sandbox *s, struct err *e)
{
    struct err cleanup = {0};
    if (resources_release(s, &cleanup) < 0)
        (void)err_join(e, &cleanup);
    if (resources_remove_files(s, &cleanup) < 0)
        (void)err_join(e, &cleanup);
}

/* A warm start is a shortcut: one that does not work is forgotten, and the guest is booted. */
static int make_somehow(struct sandbox *s, struct err *e)
{
    bool warm = s->source && !s->entry.snapshot_id[0];
    if (resources_make(s, e) == 0)
        return 0;
    if (!warm || e->kind == ERR_NO_CAPACITY)
        return -1;
    log_warn("a warm start does not work, booting: %s", e->msg);
    warm_forget(s->life->warm, s);
    *e = (struct err){0};
    return resources_make(s, e);
}

/* Holder of the transition. What is noted last, that it runs, is what a restarted agent goes by. */
static int boot(struct sandbox *s, const struct life_create *c, struct err *e)
{
    struct machine_actions actions;
    int64_t began = clock_mono_us();
    bool records = s->source && s->source->hints_fd < 0;
    s->create = c;
    s->operation = s->entry.snapshot_id[0] ? "spawn" : "create";
    if (make_somehow(s, e) == 0) {
        if (records && s->source)
            source_record_hints(s);
        if (monitor_watch(s, e) == 0) {
            (void)sandbox_event(s, EVENT_CREATED, NULL, &actions);
            if (sandbox_note(s, e) == 0) {
                crash_point(s->operation, "noted", s);
                s->create = NULL;
                s->operation = NULL;
                log_phases(s, began);
                return 0;
            }
        }
        take_back(s, e);
    }
    s->create = NULL;
    s->operation = NULL;
    (void)sandbox_event(s, EVENT_CREATE_FAILED, e->msg, &actions);
    log_err("create failed: %s", e->msg);
    registry_remove(s->life, s, /* unasked= */ true);
    return create_error(e);
}

/* The machine of a template is as it was frozen. Pins its generation for the sandbox. */
static int find_snapshot(struct sandbox *s, const struct life_create *c, struct err *e)
{
    struct life *l = s->life;
    struct template_id id;
    struct snapshot t;
    if (!template_id_parse(c->snapshot_id, &id))
        return err_field(e, "snapshot_id", "not the id of a template");
    if (snapshot_read(l->templates_fd, &id, &t, e) < 0 ||
        generation_pin(l->generations, &t.generation, e) < 0)
        return -1;
    uuid_format(&t.generation, s->entry.generation);
    (void)snprintf(s->entry.snapshot_id, sizeof s->entry.snapshot_id, "%s", id.text);
    if (source_open(s, e) < 0) {
        source_unpin(s);
        return -1;
    }
    s->entry.vcpus = t.vcpus;
    s->entry.memory_mb = t.memory_mb;
    return 0;
}

/* What it is made of: a template's generation, a warm start, or an image that is booted. */
static int find_origin(struct sandbox *s, const struct life_create *c, struct err *e)
{
    if (c->snapshot_id.n > 0)
        return find_snapshot(s, c, e);
    if (host_template_find(&s->life->host, c->template, &s->template, e) < 0)
        return -1;
    s->entry.vcpus = c->vcpus;
    s->entry.memory_mb = c->memory_mb;
    warm_use(s->life->warm, s);
    return 0;
}

static void fill_entry(struct sandbox *s, const struct life_create *c)
{
    struct journal_entry *entry = &s->entry;
    (void)snprintf(entry->template, sizeof entry->template, "%s", s->template.name);
    (void)snprintf(entry->image_digest, sizeof entry->image_digest, "%s", s->template.digest);
    (void)slice_copy_cstr(c->request_id, entry->request_id, sizeof entry->request_id);
    entry->timeout_sec = c->timeout_sec;
}

/* The same create again: waits for the first one and gives its answer. */
static int join_create(
    struct sandbox *other, const struct life_create *c, struct life_info *ret, struct err *e)
{
    int rc = -1;
    if (c->request_id.n == 0 || !slice_is(c->request_id, other->entry.request_id)) {
        (void)err_set(e, ERR_EXISTS, "a sandbox with this id exists");
    } else if (sandbox_lock(other, e) == 0) {
        sandbox_info(other, ret);
        sandbox_unlock(other);
        rc = ret->entry.state.status == SANDBOX_RUNNING
                 ? 0
                 : err_set(e, ERR_BAD_STATE, "the sandbox is %s",
                       sandbox_status_name(ret->entry.state.status));
    }
    sandbox_unref(other);
    return rc;
}

int life_create(struct life *l, const struct life_create *c, struct life_info *ret, struct err *e)
{
    struct sandbox *other = NULL;
    struct sandbox *s;
    int rc;
    if (check_create(c, e) < 0)
        return -1;
    s = sandbox_new(l, &c->id);
    if (!s)
        return err_set(e, ERR_NOMEM, "out of memory");
    if (find_origin(s, c, e) < 0) {
        sandbox_unref(s);
        return -1;
    }
    fill_entry(s, c);
    s->in_transition = true; /* nobody else knows it yet */
    if (registry_add(l, s, &other, e) < 0) {
        source_close(s);
        source_unpin(s);
        sandbox_unlock(s);
        sandbox_unref(s);
        return other ? join_create(other, c, ret, e) : -1;
    }
    rc = boot(s, c, e);
    if (rc == 0)
        sandbox_info(s, ret);
    sandbox_unlock(s);
    sandbox_unref(s);
    return rc;
}

/* Holder of the transition. */
static int destroy(
    struct sandbox *s, uint64_t expected_revision, uint64_t *ret_revision, struct err *e)
{
    struct machine_actions actions;
    struct err files = {0};
    int rc;
    if (expected_revision != 0 && s->entry.state.revision != expected_revision)
        return err_set(e, ERR_CONFLICT, "the sandbox is at revision %llu",
            (unsigned long long)s->entry.state.revision);
    if (s->entry.state.reason != REASON_DESTROYED)
        (void)sandbox_event(s, EVENT_DESTROY, NULL, &actions);
    rc = resources_release(s, e);
    if (resources_remove_files(s, &files) < 0)
        rc = err_join(e, &files);
    if (rc < 0) {
        /* It stays in the table, so that another DELETE tries again. */
        log_err("destroy failed: %s", e->msg);
        e->kind = ERR_INTERNAL;
        return -1;
    }
    *ret_revision = s->entry.state.revision;
    registry_remove(s->life, s, /* unasked= */ false);
    log_info("sandbox destroyed");
    return 0;
}

int life_destroy(struct life *l, const struct sandbox_id *id, uint64_t expected_revision,
    uint64_t *ret_revision, struct err *e)
{
    struct sandbox *s = registry_find(l, id, e);
    int rc;
    if (!s) {
        *ret_revision = 0;
        return 0;
    }
    rc = sandbox_lock_to_destroy(s, expected_revision, e);
    if (rc == 0) {
        if (s->listed)
            rc = destroy(s, expected_revision, ret_revision, e);
        else
            *ret_revision = s->entry.state.revision;
        sandbox_unlock(s);
    }
    sandbox_unref(s);
    return rc;
}
