/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The agent's own test at its start: can a machine be saved and restored here, and how?
 *
 * Theory of operation: a thread of its own gives the trial (agent/vmm/trial.h) a network slot and a
 * folder, both gone afterwards, and settles vmm_host by what comes of it. Nothing waits for it but
 * who starts a VM: that is rarely within the first moments of an agent, and what a VM would be
 * started with is not known before. So an agent serves as soon as without it.
 *
 * The outcome is noted in <dir>/memory.json, for people (torpor doctor), when nothing of the trial
 * is left. While there is no such file, it goes on.
 *
 * When neither way works, the host is left as it is: whatever is wrong, a sandbox's own start says
 * it better.
 */
#define LOG_MODULE "trial"
#include "agent/life/life_int.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent/disk/disk.h"
#include "agent/vmm/trial.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/io.h"
#include "base/log.h"
#include "json/json.h"

enum {
    SLOT_WAIT_MS = 10000,
    DISK_BYTES = 1 << 20,
    FILE_BYTES_MAX = 8192,
    FORMAT = 1,
};

static const char folder_name[] = "trial";
static const char note_name[] = "memory.json";

struct trial {
    struct life *life;
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t ended;
    bool has_ended; /* lock; what it settles of vmm_host is constant from then on */
};

/* --- outcome --- */

static const char *way_name(const struct vmm_trial *t)
{
    return t->is_private ? "private" : t->is_copied ? "copied" : "none";
}

/* `way` is "unknown" when nothing could be tried. */
static void write_outcome(
    const struct life *l, const char *way, const struct vmm_trial *t, struct buf *dst)
{
    struct json_writer w;
    json_writer_init(&w, dst);
    json_object_begin(&w);
    json_key(&w, "format");
    json_int(&w, FORMAT);
    json_key(&w, "way");
    json_cstr(&w, way);
    json_key(&w, "page_faults");
    json_bool(&w, t->has_uffd);
    json_key(&w, "reason");
    json_cstr(&w, t->reason);
    json_key(&w, "vmm");
    json_cstr(&w, l->vmm_host.facts.version);
    json_key(&w, "tried_at_ms");
    json_int(&w, clock_real_ms());
    json_object_end(&w);
    buf_append_char(dst, '\n');
}

static void note_outcome(const struct life *l, const char *way, const struct vmm_trial *t)
{
    AUTO_BUF struct buf text = BUF_INIT(FILE_BYTES_MAX);
    struct err e = {0};
    int rc;
    write_outcome(l, way, t, &text);
    rc = text.failed ? err_set(&e, ERR_NOMEM, "out of memory")
                     : io_replace_file(l->host.dir_fd, note_name, text.p, text.len, 0644, &e);
    if (rc < 0)
        log_warn("the outcome could not be noted: %s", e.msg);
}

static void settle(struct life *l, const struct vmm_trial *t, int64_t ms)
{
    if (t->is_private && t->reason[0]) {
        l->vmm_host.has_uffd = false;
        log_warn("no page faults can be served: %s", t->reason);
    }
    if (t->is_private) {
        log_info("memory is saved and restored ms=%lld page_faults=%d", (long long)ms, t->has_uffd);
    } else if (t->is_copied) {
        l->vmm_host.copies_memory = true;
        log_warn("the preloaded library does not take hold in the VMM, so that memory is copied: "
                 "sandboxes wake slower: %s",
            t->reason);
    } else {
        log_err("no machine can be saved and restored here: %s; without the library: %s", t->reason,
            t->reason_copied);
    }
}

/* --- the place --- */

/* The folder, with a base image and an overlay of `uid`. */
static int make_folder(const struct life *l, uid_t uid, struct err *e)
{
    AUTO_CLOSE int dir = -1;
    AUTO_CLOSE int base = -1;
    if (mkdirat(l->host.dir_fd, folder_name, 0700) < 0)
        return err_sys(e, errno, "make %s", folder_name);
    dir = openat(l->host.dir_fd, folder_name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    base = dir < 0 ? -1 : openat(dir, "base.img", O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (base < 0 || ftruncate(base, DISK_BYTES) < 0)
        return err_sys(e, errno, "make the disk of the trial");
    return disk_overlay_create(dir, "disk.qcow2", DISK_BYTES, uid, e);
}

static void remove_folder(const struct life *l)
{
    struct err e = {0};
    if (io_remove_tree(l->host.dir_fd, folder_name, &e) < 0)
        log_warn("the trial's folder stays: %s", e.msg);
}

static int run_in(struct life *l, const struct net_slot *slot, struct vmm_trial *ret, struct err *e)
{
    char dir[HOST_PATH_MAX + 16];
    char base[HOST_PATH_MAX + 32];
    char overlay[HOST_PATH_MAX + 32];
    const struct vmm_trial_place place = {
        .dir = dir, .base_image = base, .overlay = overlay, .netns = slot->netns, .uid = slot->uid};
    (void)snprintf(dir, sizeof dir, "%s/%s", l->host.dir, folder_name);
    (void)snprintf(base, sizeof base, "%s/base.img", dir);
    (void)snprintf(overlay, sizeof overlay, "%s/disk.qcow2", dir);
    remove_folder(l); /* an earlier agent's that was killed */
    if (make_folder(l, slot->uid, e) < 0) {
        remove_folder(l);
        return -1;
    }
    vmm_try_memory(&l->vmm_host, &place, ret);
    remove_folder(l);
    return 0;
}

static int run(struct life *l, struct vmm_trial *ret, struct err *e)
{
    struct net_slot slot;
    struct err release = {0};
    int rc;
    if (net_slot_acquire(l->net, deadline_in_ms(SLOT_WAIT_MS), &slot, e) < 0)
        return -1;
    rc = run_in(l, &slot, ret, e);
    if (net_slot_release(l->net, slot.index, &release) < 0)
        log_warn("the trial's network slot stays: %s", release.msg);
    return rc;
}

/* --- the thread --- */

static void *run_trial(void *arg)
{
    struct trial *t = arg;
    struct vmm_trial outcome = {0};
    struct err e = {0};
    int64_t started_ms = clock_mono_ms();
    if (run(t->life, &outcome, &e) < 0) {
        log_warn("saving and restoring could not be tried: %s", e.msg);
        memcpy(outcome.reason, e.msg, sizeof outcome.reason);
        note_outcome(t->life, "unknown", &outcome);
    } else {
        settle(t->life, &outcome, clock_mono_ms() - started_ms);
        note_outcome(t->life, way_name(&outcome), &outcome);
    }
    MUTEX_GUARD(&t->lock);
    t->has_ended = true;
    (void)pthread_cond_broadcast(&t->ended);
    return NULL;
}

struct trial *trial_start(struct life *l, struct err *e)
{
    struct trial *t = calloc(1, sizeof *t);
    int rc;
    if (!t) {
        (void)err_set(e, ERR_NOMEM, "out of memory");
        return NULL;
    }
    (void)unlinkat(l->host.dir_fd, note_name, 0);
    t->life = l;
    (void)pthread_mutex_init(&t->lock, NULL);
    (void)pthread_cond_init(&t->ended, NULL);
    rc = pthread_create(&t->thread, NULL, run_trial, t);
    if (rc == 0)
        return t;
    (void)err_sys(e, rc, "start a thread");
    free(t);
    return NULL;
}

void trial_await(struct trial *t)
{
    if (!t)
        return;
    MUTEX_GUARD(&t->lock);
    while (!t->has_ended)
        (void)pthread_cond_wait(&t->ended, &t->lock);
}

void trial_end(struct trial *t)
{
    if (!t)
        return;
    (void)pthread_join(t->thread, NULL);
    (void)pthread_mutex_destroy(&t->lock);
    (void)pthread_cond_destroy(&t->ended);
    free(t);
}
