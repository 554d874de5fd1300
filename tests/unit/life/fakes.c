/* SPDX-License-Identifier: Apache-2.0 */
/* Link-time stand-ins for the mechanism folders. */
#include "fakes.h"
#include "fakes_memory.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

#include "agent/guest/guest.h"
#include "agent/net/net.h"
#include "agent/vmm/trial.h"
#include "agent/vmm/vmm.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/io.h"
#include "proto/limits.h"
#include "rpc/agent_v1.h"

enum { MACHINES = 64 };

struct fakes fakes;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

/* What the device state of a VM holds here. */
struct guest_state {
    char secret[GUEST_TOKEN_CHARS + 1]; /* opens its envd; "" when that is open */
    int count;                          /* that `count` gave out last */
    int pages[FAKE_PAGES];              /* what is in its memory: page 0 the saves, then counts */
};

/* What lives on when the agent's handle is gone. */
struct machine {
    struct sandbox_id id;
    unsigned slot;
    int event_fd;
    bool running;
    bool used;
    bool stands;
    bool killed;
    int32_t format; /* of its snapshots */
    struct guest_state guest;
    struct fake_memory memory; /* as it was restored, or as a save was committed */
    struct fake_memory saved;  /* as it was saved last */
};

/* What outlives the agent: in memory that a forked agent shares. */
static struct {
    struct machine machines[MACHINES];
    bool slot_used[NET_SLOTS_MAX];
} * lasting;

static void reopen(int *fd)
{
    if (*fd > 0)
        (void)close(*fd);
    *fd = eventfd(0, EFD_CLOEXEC | EFD_SEMAPHORE);
}

void fakes_reset(void)
{
    int fd = fakes.stopped_fd;
    fakes = (struct fakes){.stopped_fd = fd, .trial_gate = -1};
    reopen(&fakes.stopped_fd);
    if (!lasting)
        lasting =
            mmap(NULL, sizeof *lasting, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    memset(lasting, 0, sizeof *lasting);
}

void fakes_after_crash(void)
{
    fakes.vmms_running = fakes.vcpus_stand = 0;
    for (struct machine *m = lasting->machines; m < lasting->machines + MACHINES; m++) {
        if (!m->used)
            continue;
        m->event_fd = eventfd(0, EFD_CLOEXEC); /* the former is the dead agent's */
        fakes.vmms_running += m->running;
        fakes.vcpus_stand += m->stands;
    }
}

void fakes_kill_newest_vmm(void)
{
    MUTEX_GUARD(&lock);
    (void)eventfd_write(fakes.vm_event_fd, 1);
}

void fakes_forget_stops(void)
{
    reopen(&fakes.stopped_fd);
}

int fakes_wait_stop(void)
{
    struct err e = {0};
    eventfd_t v;
    if (io_wait(fakes.stopped_fd, POLLIN, deadline_in_ms(5000), &e) < 0)
        return -1;
    return eventfd_read(fakes.stopped_fd, &v);
}

bool fake_fails(enum fake_call call, struct err *e)
{
    if (fakes.fail != call && fakes.fail_too != call)
        return false;
    (void)err_sys(e, ENOENT, "open /secret/host/path");
    return true;
}

/* Waits for that descriptor when the call is to hang; a test can wait for it to be in there. */
static int hangs(enum fake_call call, int fd, struct err *e)
{
    if (fakes.hang != call)
        return 0;
    (void)eventfd_write(fakes.stopped_fd, 1);
    if (io_wait(fd, POLLIN, deadline_in_ms(2 * LIMIT_TRANSITION_WAIT_MS), e) < 0)
        return -1;
    return err_set(e, ERR_UNAVAILABLE, "it is over");
}

/* --- net --- */

struct net_pool {
    size_t slots;
};

struct net_pool *net_pool_open(const struct net_config *config, struct err *e)
{
    struct net_pool *p = calloc(1, sizeof *p);
    p->slots = config->slots;
    memset(lasting->slot_used, 0, sizeof lasting->slot_used);
    for (size_t i = 0; i < config->n_keep; i++)
        lasting->slot_used[config->keep[i]] = true;
    fakes.slots_taken = fakes.slots_kept = (int)config->n_keep;
    return p;
}

int net_pool_close(struct net_pool *p, struct err *e)
{
    free(p);
    return fakes.slots_taken ? err_set(e, ERR_INTERNAL, "slots are still taken") : 0;
}

int net_pool_leave(struct net_pool *p, struct err *e)
{
    free(p);
    return 0;
}

static void fill_slot(unsigned i, struct net_slot *ret)
{
    *ret = (struct net_slot){.index = i, .uid = geteuid()};
    (void)snprintf(ret->netns, sizeof ret->netns, "/run/netns/fake-%u", i);
    (void)snprintf(ret->host_ip, sizeof ret->host_ip, "10.11.0.%u", i * 4 + 2);
}

int net_slot_adopt(struct net_pool *p, unsigned index, struct net_slot *ret, struct err *e)
{
    if (fakes.slots_lost || !lasting->slot_used[index]) {
        lasting->slot_used[index] = false;
        fakes.slots_taken--;
        return err_set(e, ERR_NOT_FOUND, "slot %u is not whole", index);
    }
    fill_slot(index, ret);
    return 0;
}

int net_slot_acquire(struct net_pool *p, int64_t deadline, struct net_slot *ret, struct err *e)
{
    MUTEX_GUARD(&lock);
    if (fake_fails(FAKE_SLOT, e))
        return -1;
    for (unsigned i = 0; i < p->slots; i++) {
        if (lasting->slot_used[i])
            continue;
        lasting->slot_used[i] = true;
        fakes.slots_taken++;
        fakes.slots_acquired_ever++;
        fill_slot(i, ret);
        return 0;
    }
    return err_set(e, ERR_NO_CAPACITY, "all %zu slots are taken", p->slots);
}

int net_slot_release(struct net_pool *p, unsigned index, struct err *e)
{
    MUTEX_GUARD(&lock);
    if (fake_fails(FAKE_SLOT_RELEASE, e))
        return -1;
    if (lasting->slot_used[index])
        fakes.slots_taken--;
    lasting->slot_used[index] = false;
    return 0;
}

void net_pool_usage(struct net_pool *p, size_t *ret_total, size_t *ret_used)
{
    MUTEX_GUARD(&lock);
    *ret_total = p->slots;
    *ret_used = (size_t)fakes.slots_taken;
}

/* --- vmm --- */

struct vmm {
    struct machine *m;
};

int vmm_host_probe(const char *accel, struct vmm_host *ret, struct err *e)
{
    ret->qemu = "/usr/bin/false";
    ret->facts = (struct vmm_facts){.driver = "qemu", .digest = "fake", .snapshot_format = 1};
    return 0;
}

void vmm_host_done(struct vmm_host *host)
{
}

int32_t vmm_snapshot_format(const struct vmm *v)
{
    return v->m->format;
}

void vmm_try_memory(
    const struct vmm_host *host, const struct vmm_trial_place *place, struct vmm_trial *ret)
{
    char byte;
    while (fakes.trial_gate >= 0 && read(fakes.trial_gate, &byte, 1) < 0 && errno == EINTR)
        ;
    *ret = (struct vmm_trial){.is_private = !fakes.library_fails, .is_copied = fakes.library_fails};
    if (fakes.library_fails)
        (void)snprintf(ret->reason, sizeof ret->reason, "it was not found");
}

static void machine_end(struct machine *m)
{
    if (m->running)
        fakes.vmms_running--;
    if (m->stands)
        fakes.vcpus_stand--;
    m->running = m->stands = false;
}

static struct machine *machine_find(const struct sandbox_id *id)
{
    for (size_t i = 0; i < MACHINES; i++)
        if (lasting->machines[i].used && strcmp(lasting->machines[i].id.text, id->text) == 0)
            return &lasting->machines[i];
    return NULL;
}

int vmm_remove_leftovers(const struct vmm_host *host, vmm_keep *keep, void *ctx, struct err *e)
{
    for (size_t i = 0; i < MACHINES; i++) {
        struct machine *m = &lasting->machines[i];
        if (!m->used || (keep && keep(ctx, &m->id)))
            continue;
        machine_end(m);
        m->used = false;
        (void)close(m->event_fd);
        fakes.leftovers_ended++;
    }
    return 0;
}

static void set_stands(struct machine *m, bool stands)
{
    fakes.vcpus_stand += stands - m->stands;
    m->stands = stands;
}

static int check_disks(const struct vmm_boot *boot, struct err *e)
{
    AUTO_CLOSE int overlay = -1;
    if (!fakes.check_disk)
        return 0;
    for (size_t i = 0; i < boot->n_layers; i++)
        if (fakes.check_disk(boot->layer_fds[i], e) < 0)
            return err_wrap(e, "layer %zu", i);
    overlay = open(boot->overlay, O_RDONLY | O_CLOEXEC);
    if (overlay < 0)
        return err_sys(e, errno, "open the overlay");
    return fakes.check_disk(overlay, e) < 0 ? err_wrap(e, "overlay") : 0;
}

struct vmm *vmm_start(const struct vmm_host *host, const struct vmm_boot *boot, struct err *e)
{
    struct vmm *v;
    int event_fd;
    MUTEX_GUARD(&lock);
    if (fake_fails(FAKE_VMM, e) || check_disks(boot, e) < 0)
        return NULL;
    event_fd = eventfd(0, EFD_CLOEXEC);
    v = event_fd < 0 ? NULL : calloc(1, sizeof *v);
    if (!v) {
        (void)err_sys(e, errno, "a VM's process");
        if (event_fd >= 0)
            (void)close(event_fd);
        return NULL;
    }
    for (v->m = lasting->machines; v->m->used; v->m++)
        continue;
    *v->m = (struct machine){.id = boot->id, .used = true, .running = true, .event_fd = event_fd};
    v->m->slot = (unsigned)strtoul(strrchr(boot->netns, '-') + 1, NULL, 10);
    fakes.vm_event_fd = event_fd;
    if (boot->source && fake_memory_restore(&v->m->memory, boot->source, e) < 0) {
        v->m->used = false;
        (void)close(v->m->event_fd);
        free(v);
        return NULL;
    }
    fakes.vmms_running++;
    if (boot->source) {
        fakes.restores_ever++;
        fakes.memory = boot->source->memory;
        v->m->format = boot->source->facts->snapshot_format;
        set_stands(v->m, true);
    } else {
        fakes.boots_ever++;
        v->m->format = host->copies_memory ? VMM_SNAPSHOT_FORMAT_COPIED : VMM_SNAPSHOT_FORMAT;
    }
    fakes.format = v->m->format;
    return v;
}

struct vmm *vmm_adopt(const struct vmm_host *host, const struct sandbox_id *id, struct err *e)
{
    struct machine *m = machine_find(id);
    struct vmm *v;
    if (!m) {
        (void)err_set(e, ERR_NOT_FOUND, "no shim");
        return NULL;
    }
    v = calloc(1, sizeof *v);
    v->m = m;
    fakes.vm_event_fd = m->event_fd;
    return v;
}

int vmm_event_fd(const struct vmm *v)
{
    return v->m->event_fd;
}

pid_t vmm_pid(const struct vmm *v)
{
    return 0;
}

pid_t vmm_shim_pid(const struct vmm *v)
{
    return 0;
}

const char *vmm_exit_text(struct vmm *v)
{
    return "qemu killed by SIGKILL";
}

int vmm_stop(struct vmm *v, int64_t deadline, struct err *e)
{
    MUTEX_GUARD(&lock);
    if (fake_fails(FAKE_VMM_STOP, e))
        return -1;
    machine_end(v->m);
    (void)eventfd_write(fakes.stopped_fd, 1);
    return 0;
}

void vmm_kill(const struct vmm *v)
{
    MUTEX_GUARD(&lock);
    v->m->killed = true;
    (void)eventfd_write(v->m->event_fd, 1);
}

struct vmm *vmm_free(struct vmm *v)
{
    MUTEX_GUARD(&lock);
    if (v && !v->m->running) {
        (void)close(v->m->event_fd);
        v->m->used = false;
    }
    free(v);
    return NULL;
}

int vmm_can_restore(const struct vmm_host *host, const struct vmm_facts *saved, struct err *e)
{
    return fakes.fail == FAKE_CAN_RESTORE ? err_set(e, ERR_UNSUPPORTED, "another VMM") : 0;
}

int vmm_sets_collect(const struct vmm_host *host, bool (*is_used)(void *ctx, const char *digest),
    void *ctx, struct err *e)
{
    fakes.sets_collected = is_used(ctx, "fake") ? 1 : 2;
    return 0;
}

static int stand(struct vmm *v, bool stands, enum fake_call call, struct err *e)
{
    if (hangs(call, v->m->event_fd, e) < 0)
        return -1;
    MUTEX_GUARD(&lock);
    if (fake_fails(call, e))
        return -1;
    if (!v->m->running || v->m->killed)
        return err_set(e, ERR_UNAVAILABLE, "the VMM has ended");
    set_stands(v->m, stands);
    return 0;
}

int vmm_load(struct vmm *v, int state_fd, int64_t deadline, struct err *e)
{
    if (fake_read_at(state_fd, &v->m->guest, sizeof v->m->guest, 0, e) < 0)
        return -1;
    for (size_t i = 0; i < FAKE_PAGES; i++)
        if (v->m->memory.pages[i].number != v->m->guest.pages[i])
            return err_set(e, ERR_INTERNAL, "page %zu is not of the time of the state", i);
    return stand(v, /* stands= */ true, FAKE_LOAD, e);
}

int vmm_run(struct vmm *v, int64_t deadline, struct err *e)
{
    fakes.runs_ever++;
    return stand(v, /* stands= */ false, FAKE_RUN, e);
}

int vmm_pause(struct vmm *v, int64_t deadline, struct err *e)
{
    return stand(v, /* stands= */ true, FAKE_PAUSE, e);
}

int vmm_save_state(struct vmm *v, int state_fd, int64_t deadline, struct err *e)
{
    if (fake_fails(FAKE_SAVE_STATE, e))
        return -1;
    v->m->guest.pages[0]++;
    return io_write_full(state_fd, &v->m->guest, sizeof v->m->guest, DEADLINE_NEVER, e);
}

int vmm_save_memory(struct vmm *v, const struct vmm_save *save, struct vmm_saved *ret,
    int64_t deadline, struct err *e)
{
    if (fake_fails(FAKE_SAVE_MEMORY, e) || hangs(FAKE_SAVE_MEMORY, v->m->event_fd, e) < 0)
        return -1;
    if (fakes.save_waits) {
        (void)eventfd_write(fakes.stopped_fd, 1); /* a test waits for it */
        if (io_wait(save->cancel_fd, POLLIN, deadline_in_ms(10000), e) < 0)
            return -1;
        return err_set(e, ERR_CANCELED, "broken off");
    }
    *ret = (struct vmm_saved){.pages_stored = 1};
    v->m->saved = v->m->memory;
    return fake_memory_save(&v->m->saved, v->m->guest.pages, save, e);
}

int vmm_save_commit(struct vmm *v, int64_t deadline, struct err *e)
{
    fakes.saves_committed++;
    v->m->memory = v->m->saved;
    return 0;
}

int vmm_save_hints(struct vmm *v, int fd, uint64_t *ret_pages, int64_t deadline, struct err *e)
{
    *ret_pages = 0;
    return 0;
}

int vmm_swap_overlay(struct vmm *v, int overlay_fd, int64_t deadline, struct err *e)
{
    return fake_fails(FAKE_SWAP, e) ? -1 : 0;
}

void fakes_power_cut(void)
{
    for (size_t i = 0; i < MACHINES; i++)
        if (lasting->machines[i].used) {
            machine_end(&lasting->machines[i]);
            (void)close(lasting->machines[i].event_fd);
            lasting->machines[i].used = false;
        }
    memset(lasting->slot_used, 0, sizeof lasting->slot_used);
    fakes.slots_taken = 0;
}

/* --- guest --- */

struct guest {
    unsigned slot;
    int closed_fd; /* eventfd: it has been closed */
    bool closed;
};

struct guest *guest_new(const char *host_ip, const char token[GUEST_TOKEN_CHARS + 1])
{
    struct guest *g = calloc(1, sizeof *g);
    if (!g)
        return NULL;
    g->slot = (unsigned)strtoul(strrchr(host_ip, '.') + 1, NULL, 10) / 4;
    g->closed_fd = eventfd(0, EFD_CLOEXEC);
    return g;
}

void guest_close(struct guest *g)
{
    MUTEX_GUARD(&lock);
    g->closed = true;
    (void)eventfd_write(g->closed_fd, 1);
}

struct guest *guest_free(struct guest *g)
{
    if (g)
        (void)close(g->closed_fd);
    free(g);
    return NULL;
}

/* The state of a guest that can answer. Under the lock. */
static struct guest_state *reach(const struct guest *g, struct err *e)
{
    for (struct machine *m = lasting->machines; m < lasting->machines + MACHINES; m++)
        if (m->used && m->running && m->slot == g->slot && !m->stands && !g->closed)
            return &m->guest;
    (void)err_sys(e, ECONNREFUSED, "10.11.0.%u", g->slot * 4 + 2);
    return NULL;
}

static int unlock_guest(const struct guest *g, const char *secret, struct err *e)
{
    MUTEX_GUARD(&lock);
    struct guest_state *s = reach(g, e);
    if (!s)
        return -1;
    if (s->secret[0] && strcmp(s->secret, secret ? secret : "") != 0)
        return err_set(e, ERR_AGENT, "not the secret that it was prepared with");
    s->secret[0] = '\0';
    return 0;
}

int guest_wait_ready(struct guest *g, int abort_fd, int64_t deadline, struct err *e)
{
    if (hangs(FAKE_READY, abort_fd, e) < 0)
        return -1;
    return fake_fails(FAKE_READY, e) ? -1 : 0;
}

int guest_init(
    struct guest *g, const struct guest_identity *identity, int64_t deadline, struct err *e)
{
    return fake_fails(FAKE_INIT, e) ? -1 : unlock_guest(g, identity->secret, e);
}

int guest_prepare(struct guest *g, const char secret[GUEST_TOKEN_CHARS + 1], bool keep,
    int64_t deadline, struct err *e)
{
    struct guest_state *s;
    if (hangs(FAKE_PREPARE, g->closed_fd, e) < 0)
        return -1;
    MUTEX_GUARD(&lock);
    (void)snprintf(fakes.secret, sizeof fakes.secret, "%s", secret);
    s = reach(g, e);
    if (!s)
        return -1;
    if (s->secret[0])
        return err_set(e, ERR_AGENT, "it waits for another secret");
    (void)snprintf(s->secret, sizeof s->secret, "%s", secret);
    return fake_fails(FAKE_PREPARE, e) ? -1 : 0; /* a late failure: it has closed itself */
}

int guest_wake(struct guest *g, const struct guest_identity *identity, int abort_fd,
    int64_t deadline, struct err *e)
{
    fakes.wakes_ever++;
    fakes.keeps_names = identity->keeps_machine;
    (void)snprintf(
        fakes.woken_with, sizeof fakes.woken_with, "%s", identity->secret ? identity->secret : "");
    if (hangs(FAKE_WAKE, abort_fd, e) < 0)
        return -1;
    return fake_fails(FAKE_WAKE, e) ? -1 : unlock_guest(g, identity->secret, e);
}

/* "count" answers with how often it was asked: what a memory that sleeps must keep. */
int guest_exec(struct guest *g, const struct agent_exec_request *req, struct buf *out_stdout,
    struct buf *out_stderr, struct agent_exec_response *resp, struct err *e)
{
    struct guest_state *s;
    char text[16];
    MUTEX_GUARD(&lock);
    s = reach(g, e);
    if (!s)
        return -1;
    if (s->secret[0])
        return err_set(e, ERR_AGENT, "it is locked");
    (void)snprintf(text, sizeof text, "%d", s->count + 1);
    if (slice_is(req->cmd, "count")) {
        s->count++;
        s->pages[1 + s->count % (FAKE_PAGES - 1)] = s->count;
    }
    buf_append_slice(out_stdout, slice_is(req->cmd, "count") ? slice_cstr(text) : req->cmd);
    resp->stdout_bytes = buf_slice(out_stdout);
    return 0;
}

int guest_read_file(
    struct guest *g, struct slice path, struct slice user, struct buf *dst, struct err *e)
{
    return err_sys(e, ECONNRESET, "10.11.0.2");
}

int guest_write_file(struct guest *g, const struct guest_write *w, struct err *e)
{
    return 0;
}
