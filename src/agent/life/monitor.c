/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One thread that notices VMMs which end by themselves.
 *
 * Theory of operation: the event descriptor of every running VMM is in one epoll set, one-shot, its
 * datum the sandbox's watch key: a number that is never used twice, so that an event that was
 * already under way for a sandbox that has gone finds nothing. An event means: take the transition
 * lock, and if that watch is still the sandbox's, apply EVENT_VM_EXITED, release the host's
 * resources, write the journal. Who ends a VMM on purpose forgets the watch first, so the lock is
 * free but for races.
 */
#define LOG_MODULE "monitor"
#include "agent/life/life_int.h"

#include <errno.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/log.h"

enum { EVENTS_AT_ONCE = 16, WAKE_KEY = 0 };

int monitor_watch(struct sandbox *s, struct err *e)
{
    struct life *l = s->life;
    struct epoll_event ev = {.events = EPOLLIN | EPOLLONESHOT};
    {
        MUTEX_GUARD(&l->lock);
        s->watch_key = ev.data.u64 = ++l->last_watch_key;
    }
    if (epoll_ctl(l->epoll_fd, EPOLL_CTL_ADD, vmm_event_fd(s->vmm), &ev) < 0)
        return err_sys(e, errno, "watch the VMM");
    return 0;
}

void monitor_forget(struct sandbox *s)
{
    MUTEX_GUARD(&s->life->lock);
    if (s->watch_key == WAKE_KEY)
        return;
    (void)epoll_ctl(s->life->epoll_fd, EPOLL_CTL_DEL, vmm_event_fd(s->vmm), NULL);
    s->watch_key = WAKE_KEY;
}

/* The watched sandbox, with a reference; NULL when it is no longer watched. */
static struct sandbox *find_watched(struct life *l, uint64_t key)
{
    MUTEX_GUARD(&l->lock);
    for (size_t b = 0; b < REGISTRY_BUCKETS; b++)
        for (struct sandbox *s = l->buckets[b]; s; s = s->next)
            if (s->watch_key == key) {
                s->refs++;
                return s;
            }
    return NULL;
}

/* Holder of the transition. */
static void handle_exit(struct sandbox *s)
{
    struct machine_actions actions;
    struct err e = {0};
    const char *text = vmm_exit_text(s->vmm);
    if (!sandbox_event(s, EVENT_VM_EXITED, text, &actions))
        return;
    log_warn("sandbox stopped reason=vm_exited detail=\"%s\"", text);
    /* The journal first: the run folder's file goes with the slot, and without both a restarted
     * agent could not tell that this sandbox ran. */
    if (actions.write_journal && sandbox_journal(s, &e) < 0)
        log_err("journal after the VM's exit failed: %s", e.msg);
    if (actions.release_host && resources_release(s, &e) < 0)
        log_err("release after the VM's exit failed: %s", e.msg);
}

static void rearm(struct sandbox *s, uint64_t key)
{
    struct epoll_event ev = {.events = EPOLLIN | EPOLLONESHOT, .data.u64 = key};
    MUTEX_GUARD(&s->life->lock);
    if (s->watch_key == key)
        (void)epoll_ctl(s->life->epoll_fd, EPOLL_CTL_MOD, vmm_event_fd(s->vmm), &ev);
}

static void handle_event(struct life *l, uint64_t key)
{
    struct err e = {0};
    struct sandbox *s = find_watched(l, key);
    if (!s)
        return;
    log_context_set(NULL, s->entry.id.text);
    if (sandbox_lock(s, &e) < 0) {
        rearm(s, key);
    } else {
        if (s->watch_key == key)
            handle_exit(s);
        sandbox_unlock(s);
    }
    sandbox_unref(s);
    log_context_set(NULL, NULL);
}

static void *run(void *arg)
{
    struct life *l = arg;
    for (;;) {
        struct epoll_event events[EVENTS_AT_ONCE];
        int n = epoll_wait(l->epoll_fd, events, EVENTS_AT_ONCE, -1);
        for (int i = 0; i < n; i++) {
            if (events[i].data.u64 == WAKE_KEY)
                return NULL;
            handle_event(l, events[i].data.u64);
        }
    }
}

int monitor_start(struct life *l, struct err *e)
{
    struct epoll_event ev = {.events = EPOLLIN, .data.u64 = WAKE_KEY};
    int rc;
    l->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    l->wake_fd = eventfd(0, EFD_CLOEXEC);
    if (l->epoll_fd < 0 || l->wake_fd < 0 ||
        epoll_ctl(l->epoll_fd, EPOLL_CTL_ADD, l->wake_fd, &ev) < 0)
        return err_sys(e, errno, "monitor");
    rc = pthread_create(&l->monitor, NULL, run, l);
    if (rc != 0)
        return err_sys(e, rc, "monitor thread");
    l->monitoring = true;
    return 0;
}

void monitor_stop(struct life *l)
{
    if (l->monitoring) {
        (void)eventfd_write(l->wake_fd, 1);
        (void)pthread_join(l->monitor, NULL);
        l->monitoring = false;
    }
    if (l->epoll_fd >= 0)
        (void)close(TAKE_FD(l->epoll_fd));
    if (l->wake_fd >= 0)
        (void)close(TAKE_FD(l->wake_fd));
}
