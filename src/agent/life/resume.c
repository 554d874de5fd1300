/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Pausing, resuming and snapshots as asked for: locks, checks, and what a failure leaves.
 *
 * A resume that fails undoes all it made: the sandbox sleeps on in its generation, which nothing
 * here writes to. Until a resume has been acknowledged its VM counts for nothing.
 */
#define LOG_MODULE "life"
#include "agent/life/life_int.h"

#include <stdio.h>
#include <string.h>

#include "agent/life/crash.h"
#include "agent/life/phases.h"
#include "agent/life/snapshots.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/log.h"

/* Finds the sandbox and takes its transition, breaking off a pause that nobody asked for when
 * `needs_it`. NULL on failure; otherwise to be given back with change_end. */
static struct sandbox *change_begin(
    struct life *l, const struct life_change *c, bool needs_it, struct err *e)
{
    struct sandbox *s = registry_find(l, &c->id, e);
    if (!s)
        return NULL;
    log_context_set(log_context_request_id(), s->entry.id.text);
    if (needs_it)
        sandbox_cancel_pause(s);
    if (sandbox_lock(s, e) == 0) {
        if (!s->listed)
            (void)err_set(e, ERR_NOT_FOUND, "no such sandbox on this host");
        else if (c->expected_revision != 0 && s->entry.state.revision != c->expected_revision)
            (void)err_set(e, ERR_CONFLICT, "the sandbox is at revision %llu",
                (unsigned long long)s->entry.state.revision);
        else
            return s;
        sandbox_unlock(s);
    }
    sandbox_unref(s);
    return NULL;
}

static void change_end(struct sandbox *s, struct life_info *ret)
{
    s->operation = NULL;
    s->phases = NULL;
    sandbox_info(s, ret);
    sandbox_unlock(s);
    sandbox_unref(s);
}

static bool is_repeated(const struct sandbox *s, const struct life_change *c)
{
    return c->request_id.n > 0 && slice_is(c->request_id, s->last_request);
}

static void note_request(struct sandbox *s, const struct life_change *c)
{
    (void)slice_copy_cstr(c->request_id, s->last_request, sizeof s->last_request);
}

static int check_request(const struct life_change *c, struct err *e)
{
    if (c->request_id.n > LIMIT_REQUEST_ID_MAX)
        return err_field(e, "request_id", "longer than %d bytes", LIMIT_REQUEST_ID_MAX);
    return 0;
}

static int pause_locked(
    struct sandbox *s, const struct life_change *c, struct phases *phases, struct err *e)
{
    if (s->entry.state.status == SANDBOX_PAUSED && is_repeated(s, c))
        return 0;
    s->operation = "pause";
    if (pause_sandbox(s, PAUSE_REQUESTED, phases, e) < 0)
        return -1;
    note_request(s, c);
    return 0;
}

int life_pause(struct life *l, const struct life_change *c, struct life_info *ret,
    struct phases *phases, struct err *e)
{
    struct sandbox *s;
    int rc;
    phases_begin(phases);
    if (check_request(c, e) < 0)
        return -1;
    s = change_begin(l, c, /* needs_it= */ false, e);
    if (!s)
        return -1;
    phases_begin(phases);
    rc = pause_locked(s, c, phases, e);
    change_end(s, ret);
    return rc;
}

/* --- resume --- */

static int check_resume(const struct sandbox *s, const struct life_resume *r, struct err *e)
{
    enum sandbox_status status = s->entry.state.status;
    bool stopped = status == SANDBOX_STOPPED && s->entry.state.reason != REASON_DESTROYED;
    if (status == SANDBOX_PAUSED)
        return 0;
    if (!stopped)
        return sandbox_bad_state(status, "paused", e);
    if (!r->from_last && !r->disk_only)
        return err_set(e, ERR_BAD_STATE,
            "sandbox is stopped, not paused: only its last generation, or its disk, can be "
            "started");
    if (r->from_last && !s->entry.owns_generation)
        return err_set(e, ERR_BAD_STATE, "the sandbox was never paused: it has no generation");
    return 0;
}

/* A stopped sandbox that boots from its disk keeps what it wrote there. */
static bool keeps_disk(const struct sandbox *s, const struct life_resume *r)
{
    return s->entry.state.status == SANDBOX_STOPPED && r->disk_only && !r->from_last;
}

static int prepare_disk(struct sandbox *s, bool keep, struct err *e)
{
    if (s->entry.state.status == SANDBOX_PAUSED)
        return overlays_keep_aside(s, e) < 0 ? -1 : overlays_remove(s, e);
    if (overlays_put_back(s, e) < 0)
        return -1;
    return keep ? overlays_settle(s, e) : overlays_put_aside(s, e);
}

/* With all the layers that there may be it could never sleep again: they are merged first. Usually
 * that was done while it slept. */
static int open_with_room(struct sandbox *s, struct err *e)
{
    struct err tidy = {0};
    bool did = false;
    if (source_open(s, e) < 0)
        return -1;
    if (s->source->n_layers < GENERATION_LAYERS_MAX ||
        generation_pins(s->life->generations, &s->source->manifest.id) != 1)
        return 0;
    if (generation_tidy(s->life->generations, &s->source->manifest.id, &did, &tidy) < 0)
        log_warn("a generation is not merged: %s", tidy.msg);
    return did ? source_open(s, e) : 0;
}

/* What must be known before anything is touched. */
static int open_source(struct sandbox *s, const struct life_resume *r, struct err *e)
{
    struct vmm_facts facts;
    if (sandbox_open_dir(s, e) < 0 || sandbox_wait_calls(s, e) < 0)
        return -1;
    if (!s->entry.generation[0])
        return host_image_find(&s->life->host, s->entry.image_digest, &s->template, e);
    if (open_with_room(s, e) < 0)
        return -1;
    if (r->disk_only)
        return 0;
    if (!s->source->manifest.has_memory)
        return err_set(e, ERR_BAD_STATE, "the generation has a disk only (mode disk)");
    source_to_facts(&s->source->manifest.machine, &facts);
    return vmm_can_restore(&s->life->vmm_host, &facts, e);
}

static void set_resume(struct sandbox *s, const struct life_resume *r)
{
    MUTEX_GUARD(&s->life->lock);
    if (r->has_timeout_sec)
        s->entry.timeout_sec = r->timeout_sec;
    s->entry.disk_only = r->disk_only;
    s->failures = 0;
    s->retry_ms = 0;
}

static int resume_error(const struct sandbox *s, struct err *e)
{
    char step[ERR_WHERE_MAX];
    memcpy(step, e->where, sizeof step);
    if (e->errnum == 0 && (e->kind == ERR_NO_CAPACITY || e->kind == ERR_TIMEOUT))
        return -1;
    if (e->kind == ERR_UNSUPPORTED)
        return sandbox_unsupported(s, e);
    if (e->kind == ERR_BAD_STATE || e->kind == ERR_CONFLICT)
        return -1;
    if (e->kind == ERR_NO_SPACE)
        return err_set(e, ERR_NO_CAPACITY, "no space left on the host for the %s", step);
    return err_set(e, ERR_INTERNAL, "the host could not restore the %s; its log says why",
        step[0] ? step : "sandbox");
}

/* `before`: what the request has changed is as it was. */
static void resume_failed(
    struct sandbox *s, const struct journal_entry *before, const struct err *why)
{
    struct machine_actions actions;
    struct err e = {0};
    {
        MUTEX_GUARD(&s->life->lock);
        s->entry.timeout_sec = before->timeout_sec;
        s->entry.disk_only = before->disk_only;
    }
    (void)sandbox_event(s, EVENT_RESUME_FAILED, why->msg, &actions);
    if (sandbox_journal(s, &e) < 0)
        log_err("journal after a resume that failed: %s", e.msg);
    if (resources_release(s, &e) < 0 || sandbox_unnote(s, &e) < 0)
        log_err("release after a resume that failed: %s", e.msg);
    else if (overlays_put_back(s, &e) < 0)
        log_err("the disk from before a restore that failed: %s", e.msg);
}

static void after_wake(struct sandbox *s, bool had_hints, struct phases *phases)
{
    char text[384];
    phases_format(phases, text, sizeof text);
    log_info("sandbox resumed slot=%u %s", s->slot.index, text);
    histograms_add(&s->life->histograms, "resume", phases);
    if (s->source && !had_hints && !s->entry.disk_only)
        source_record_hints(s);
}

static int wake(struct sandbox *s, bool keep_disk, struct phases *phases, struct err *e)
{
    struct machine_actions actions;
    bool had_hints = s->source && s->source->hints_fd >= 0;
    if (resources_resume(s, keep_disk, e) < 0)
        return -1;
    (void)sandbox_event(s, EVENT_RESUMED, NULL, &actions);
    if (sandbox_note(s, e) < 0) /* goes on to run for this agent; a later one would take it back */
        log_err("cannot note that a sandbox runs: %s", e->msg);
    crash_point("resume", "noted", s);
    if (overlays_keep_aside(s, e) < 0)
        log_err("the disk from before a restore: %s", e->msg);
    after_wake(s, had_hints, phases);
    if (monitor_watch(s, e) < 0)
        log_err("the end of a VM will not be noticed: %s", e->msg);
    return 0;
}

static int resume_locked(
    struct sandbox *s, const struct life_resume *r, struct phases *phases, struct err *e)
{
    const struct journal_entry before = s->entry;
    struct machine_actions actions;
    bool keep;
    if (s->entry.state.status == SANDBOX_RUNNING && is_repeated(s, &r->change))
        return 0;
    if (check_resume(s, r, e) < 0)
        return -1;
    keep = keeps_disk(s, r);
    if (open_source(s, r, e) < 0 || prepare_disk(s, keep, e) < 0) {
        source_close(s);
        log_err("cannot resume: %s", e->msg);
        return resume_error(s, e);
    }
    phases_end(phases, "open");
    s->operation = "resume";
    s->phases = phases;
    set_resume(s, r);
    /* That a new revision may have been seen must not be forgotten with this agent. */
    if (sandbox_note(s, e) < 0)
        log_err("cannot note that a sandbox is being woken: %s", e->msg);
    (void)sandbox_event(
        s, s->entry.state.status == SANDBOX_PAUSED ? EVENT_RESUME : EVENT_RESTORE, NULL, &actions);
    if (wake(s, keep, phases, e) < 0) {
        log_err("resume failed: %s", e->msg);
        resume_failed(s, &before, e);
        return resume_error(s, e);
    }
    note_request(s, &r->change);
    return 0;
}

int life_resume(struct life *l, const struct life_resume *r, struct life_info *ret,
    struct phases *phases, struct err *e)
{
    struct sandbox *s;
    int rc;
    phases_begin(phases);
    if (check_request(&r->change, e) < 0)
        return -1;
    if (r->has_timeout_sec && (r->timeout_sec < 0 || r->timeout_sec > LIMIT_TIMEOUT_SEC_MAX))
        return err_field(e, "timeout_sec", "must be between 0 and %d", LIMIT_TIMEOUT_SEC_MAX);
    s = change_begin(l, &r->change, /* needs_it= */ true, e);
    if (!s)
        return -1;
    phases_begin(phases);
    rc = resume_locked(s, r, phases, e);
    change_end(s, ret);
    return rc;
}

/* --- snapshots --- */

/* A template's generation is never merged, and what is spawned from it adds a layer. */
static int pin_merged(struct life *l, const struct uuid *id, struct err *e)
{
    struct err tidy = {0};
    bool ignored;
    if (generation_pins(l->generations, id) == 1 &&
        generation_tidy(l->generations, id, &ignored, &tidy) < 0)
        log_warn("a generation is not merged: %s", tidy.msg);
    return generation_pin(l->generations, id, e);
}

/* A pinned generation to make a template of. */
static int snapshot_generation(
    struct sandbox *s, struct uuid *ret, struct phases *phases, struct err *e)
{
    switch (s->entry.state.status) {
    case SANDBOX_RUNNING:
        s->operation = "snapshot";
        return pause_snapshot(s, ret, phases, e);
    case SANDBOX_PAUSED:
        if (!uuid_parse(slice_cstr(s->entry.generation), ret))
            return err_set(e, ERR_INTERNAL, "the sandbox's generation is damaged");
        return pin_merged(s->life, ret, e);
    default:
        return sandbox_bad_state(s->entry.state.status, "running or paused", e);
    }
}

static int make_snapshot(struct sandbox *s, const struct template_id *id, struct snapshot *ret,
    struct phases *phases, struct err *e)
{
    struct life *l = s->life;
    struct generation_manifest m;
    struct snapshot t = {.id = *id,
        .vcpus = s->entry.vcpus,
        .memory_mb = s->entry.memory_mb,
        .created_at_ms = clock_real_ms()};
    struct err undo = {0};
    uint64_t bytes;
    if (snapshot_generation(s, &t.generation, phases, e) < 0)
        return -1;
    if (generation_read(l->generations, &t.generation, &m, e) == 0 &&
        generation_size(l->generations, &t.generation, &bytes, e) == 0) {
        t.size_bytes = (int64_t)bytes;
        memcpy(t.default_user, m.default_user, sizeof t.default_user);
        if (snapshot_write(l->templates_fd, &t, e) == 0) {
            crash_point("snapshot", "template", s);
            *ret = t;
            log_info("snapshot made snapshot_id=%s bytes=%lld", id->text, (long long)bytes);
            return 0;
        }
    }
    log_err("snapshot failed: %s", e->msg);
    /* A write that failed may have left it, and who asks again is told what it is. */
    if (snapshot_remove(l->templates_fd, id, &undo) == 0)
        generation_unpin(l->generations, &t.generation);
    else
        log_err("a snapshot that failed may be there: %s", undo.msg);
    return err_set(e, ERR_INTERNAL, "the host could not keep the snapshot; its log says why");
}

int life_snapshot(struct life *l, const struct life_change *c, const struct template_id *id,
    struct snapshot *ret, struct life_info *ret_sandbox, struct phases *phases, struct err *e)
{
    struct sandbox *s;
    struct err absent = {0};
    int rc;
    phases_begin(phases);
    if (check_request(c, e) < 0)
        return -1;
    s = change_begin(l, c, /* needs_it= */ true, e);
    if (!s)
        return -1;
    phases_begin(phases);
    rc = snapshot_read(l->templates_fd, id, ret, &absent);
    if (rc < 0)
        rc = make_snapshot(s, id, ret, phases, e);
    change_end(s, ret_sandbox);
    return rc;
}

int life_snapshot_delete(struct life *l, const struct template_id *id, struct err *e)
{
    struct snapshot s;
    MUTEX_GUARD(&l->snapshots_lock); /* two deletes take one pin away */
    if (snapshot_read(l->templates_fd, id, &s, e) < 0) {
        if (e->kind != ERR_NOT_FOUND)
            return -1;
        *e = (struct err){0};
        return snapshot_remove(l->templates_fd, id, e); /* an earlier one may not be durable */
    }
    if (snapshot_remove(l->templates_fd, id, e) < 0)
        return -1;
    crash_point("forget", "name", /* s= */ NULL);
    generation_unpin(l->generations, &s.generation);
    crash_point("forget", "bytes", /* s= */ NULL);
    log_info("snapshot deleted snapshot_id=%s", id->text);
    return 0;
}

void life_histograms(
    struct life *l, void (*each)(void *ctx, const struct histogram *histogram), void *ctx)
{
    histograms_each(&l->histograms, each, ctx);
}
