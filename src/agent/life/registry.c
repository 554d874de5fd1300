/* SPDX-License-Identifier: Apache-2.0 */
/* Table of this host's sandboxes. */
#include "agent/life/life_int.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include "agent/guest/guest.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "proto/limits.h"

/* FNV-1a, good enough for ids that are random already. */
static size_t bucket_of(const struct sandbox_id *id)
{
    uint32_t h = 2166136261u;
    for (const char *p = id->text; *p; p++)
        h = (h ^ (unsigned char)*p) * 16777619u;
    return h % REGISTRY_BUCKETS;
}

struct sandbox *sandbox_new(struct life *l, const struct sandbox_id *id)
{
    struct sandbox *s = calloc(1, sizeof *s);
    int64_t now = clock_real_ms();
    if (!s)
        return NULL;
    s->life = l;
    s->refs = 1;
    s->dir_fd = s->cancel_fd = -1;
    s->entry.id = *id;
    s->entry.state = (struct machine_state){.status = SANDBOX_PENDING, .revision = 1};
    s->entry.created_at_ms = s->entry.status_since_ms = s->entry.last_active_at_ms = now;
    return s;
}

static void sandbox_free(struct sandbox *s)
{
    s->guest = guest_free(s->guest);
    s->vmm = vmm_free(s->vmm);
    s->source = generation_close(s->source);
    if (s->dir_fd >= 0)
        (void)close(s->dir_fd);
    free(s);
}

void sandbox_unref(struct sandbox *s)
{
    bool last;
    if (!s)
        return;
    {
        MUTEX_GUARD(&s->life->lock);
        last = --s->refs == 0;
    }
    if (last)
        sandbox_free(s);
}

void registry_changed_locked(struct life *l, struct sandbox *s)
{
    l->host_revision++;
    if (s)
        s->host_revision = l->host_revision;
    (void)pthread_cond_broadcast(&l->changed);
}

static struct sandbox *find_locked(struct life *l, const struct sandbox_id *id)
{
    struct sandbox *s = l->buckets[bucket_of(id)];
    while (s && strcmp(s->entry.id.text, id->text) != 0)
        s = s->next;
    return s;
}

int registry_add(struct life *l, struct sandbox *s, struct sandbox **ret_other, struct err *e)
{
    size_t b = bucket_of(&s->entry.id);
    struct sandbox *other;
    MUTEX_GUARD(&l->lock);
    if (l->closing)
        return err_set(e, ERR_UNAVAILABLE, "the agent is stopping");
    other = find_locked(l, &s->entry.id);
    if (other) {
        other->refs++;
        *ret_other = other;
        return err_set(e, ERR_EXISTS, "a sandbox with this id exists");
    }
    s->next = l->buckets[b];
    l->buckets[b] = s;
    s->listed = true;
    s->refs++;
    registry_changed_locked(l, s);
    return 0;
}

void registry_remove(struct life *l, struct sandbox *s, bool unasked)
{
    {
        MUTEX_GUARD(&l->lock);
        struct sandbox **at = &l->buckets[bucket_of(&s->entry.id)];
        if (!s->listed)
            return;
        while (*at != s)
            at = &(*at)->next;
        *at = s->next;
        s->listed = false;
        registry_changed_locked(l, NULL);
        if (unasked)
            l->last_forgotten = l->host_revision;
    }
    sandbox_unref(s);
}

struct sandbox *registry_find(struct life *l, const struct sandbox_id *id, struct err *e)
{
    struct sandbox *s;
    MUTEX_GUARD(&l->lock);
    s = find_locked(l, id);
    if (s)
        s->refs++;
    else
        (void)err_set(e, ERR_NOT_FOUND, "no such sandbox on this host");
    return s;
}

struct sandbox **registry_all(struct life *l, size_t *ret_n, struct err *e)
{
    size_t n = 0;
    struct sandbox **all;
    MUTEX_GUARD(&l->lock);
    for (size_t b = 0; b < REGISTRY_BUCKETS; b++)
        for (struct sandbox *s = l->buckets[b]; s; s = s->next)
            n++;
    all = calloc(n + 1, sizeof(struct sandbox *));
    if (!all) {
        (void)err_set(e, ERR_NOMEM, "out of memory");
        return NULL;
    }
    n = 0;
    for (size_t b = 0; b < REGISTRY_BUCKETS; b++)
        for (struct sandbox *s = l->buckets[b]; s; s = s->next) {
            s->refs++;
            all[n++] = s;
        }
    *ret_n = n;
    return all;
}

int sandbox_lock(struct sandbox *s, struct err *e)
{
    struct life *l = s->life;
    struct timespec until;
    (void)clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += LIMIT_TRANSITION_WAIT_MS / 1000;
    MUTEX_GUARD(&l->lock);
    while (s->in_transition)
        if (pthread_cond_timedwait(&l->transition_ended, &l->lock, &until) == ETIMEDOUT &&
            s->in_transition)
            return err_set(e, ERR_CONFLICT, "another transition of this sandbox is under way");
    s->in_transition = true;
    return 0;
}

bool sandbox_trylock(struct sandbox *s)
{
    MUTEX_GUARD(&s->life->lock);
    if (s->in_transition)
        return false;
    s->in_transition = true;
    return true;
}

void sandbox_unlock(struct sandbox *s)
{
    MUTEX_GUARD(&s->life->lock);
    s->in_transition = false;
    (void)pthread_cond_broadcast(&s->life->transition_ended);
}

int sandbox_bad_state(enum sandbox_status status, const char *wanted, struct err *e)
{
    const char *name = sandbox_status_name(status);
    (void)err_set(e, ERR_BAD_STATE, "sandbox is %s, not %s", name, wanted);
    (void)snprintf(e->where, sizeof e->where, "%s", name);
    return -1;
}

int sandbox_unsupported(const struct sandbox *s, struct err *e)
{
    e->kind = ERR_BAD_STATE;
    (void)snprintf(e->where, sizeof e->where, "%s", sandbox_status_name(s->entry.state.status));
    return -1;
}

int sandbox_wait_calls(struct sandbox *s, struct err *e)
{
    struct life *l = s->life;
    struct timespec until;
    (void)clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += LIMIT_TRANSITION_WAIT_MS / 1000;
    MUTEX_GUARD(&l->lock);
    while (s->calls > 0)
        if (pthread_cond_timedwait(&l->transition_ended, &l->lock, &until) == ETIMEDOUT &&
            s->calls > 0)
            return err_set(e, ERR_CONFLICT, "calls into this sandbox do not end");
    return 0;
}

int sandbox_open_dir(struct sandbox *s, struct err *e)
{
    if (s->dir_fd >= 0)
        return 0;
    s->dir_fd = openat(s->life->host.sandboxes_fd, s->entry.id.text,
        O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
    return s->dir_fd < 0 ? err_sys(e, errno, "open the sandbox's folder") : 0;
}

void sandbox_cancel_pause(struct sandbox *s)
{
    MUTEX_GUARD(&s->life->lock);
    if (s->cancel_fd >= 0)
        (void)eventfd_write(s->cancel_fd, 1);
}

/* Who holds the transition sees all calls of this fail at once. Under life.lock. */
static void abandon_locked(struct sandbox *s)
{
    s->is_unwanted = true;
    if (s->cancel_fd >= 0)
        (void)eventfd_write(s->cancel_fd, 1);
    if (s->killable)
        vmm_kill(s->killable);
    if (s->guest)
        guest_close(s->guest);
}

int sandbox_lock_to_destroy(struct sandbox *s, uint64_t expected_revision, struct err *e)
{
    int rc;
    {
        MUTEX_GUARD(&s->life->lock);
        if (s->in_transition &&
            (expected_revision == 0 || expected_revision == s->entry.state.revision))
            abandon_locked(s);
    }
    rc = sandbox_lock(s, e);
    MUTEX_GUARD(&s->life->lock);
    s->is_unwanted = false;
    return rc;
}

int sandbox_set_vmm(struct sandbox *s, struct vmm *v, struct err *e)
{
    MUTEX_GUARD(&s->life->lock);
    s->killable = v;
    if (!v || !s->is_unwanted)
        return 0;
    return err_set(e, ERR_UNAVAILABLE, "the sandbox is being destroyed");
}

bool sandbox_event(
    struct sandbox *s, enum machine_event event, const char *message, struct machine_actions *ret)
{
    int64_t now = clock_real_ms();
    MUTEX_GUARD(&s->life->lock);
    if (!machine_next(&s->entry.state, event, ret))
        return false;
    (void)snprintf(s->entry.message, sizeof s->entry.message, "%s", message ? message : "");
    s->entry.status_since_ms = now;
    if (event == EVENT_CREATED || event == EVENT_RESUMED)
        s->entry.started_at_ms = s->entry.last_active_at_ms = now;
    if (s->entry.state.status == SANDBOX_STOPPED || s->entry.state.status == SANDBOX_PAUSED)
        s->host_ip[0] = '\0';
    registry_changed_locked(s->life, s);
    return true;
}

void sandbox_info(struct sandbox *s, struct life_info *ret)
{
    MUTEX_GUARD(&s->life->lock);
    ret->entry = s->entry;
    memcpy(ret->host_ip, s->host_ip, sizeof ret->host_ip);
}

static void set_owed(struct sandbox *s, bool owed)
{
    MUTEX_GUARD(&s->life->lock);
    s->journal_owed = owed;
}

int sandbox_journal(struct sandbox *s, struct err *e)
{
    struct life_info now;
    sandbox_info(s, &now);
    now.entry.secret[0] = now.entry.live[0] = '\0'; /* of a VM; they are of no use without it */
    if (sandbox_open_dir(s, e) < 0 ||
        journal_write(s->dir_fd, JOURNAL_STATE_FILE, &now.entry, e) < 0) {
        set_owed(s, true);
        return -1;
    }
    set_owed(s, false);
    if (!uuid_is_none(&s->doubtful)) {
        generation_unpin(s->life->generations, &s->doubtful);
        s->doubtful = (struct uuid){0};
    }
    return 0;
}

static void run_file_name(const struct sandbox *s, char dst[RUN_FILE_NAME_MAX])
{
    (void)snprintf(dst, RUN_FILE_NAME_MAX, "%s" JOURNAL_RUN_SUFFIX, s->entry.id.text);
}

int sandbox_note(struct sandbox *s, struct err *e)
{
    char name[RUN_FILE_NAME_MAX];
    struct life_info now;
    sandbox_info(s, &now);
    now.entry.slot = (int32_t)s->slot.index;
    run_file_name(s, name);
    return journal_write(s->life->host.run_fd, name, &now.entry, e);
}

int sandbox_unnote(struct sandbox *s, struct err *e)
{
    char name[RUN_FILE_NAME_MAX];
    run_file_name(s, name);
    if (unlinkat(s->life->host.run_fd, name, 0) < 0 && errno != ENOENT)
        return err_sys(e, errno, "remove %s", name);
    return 0;
}
