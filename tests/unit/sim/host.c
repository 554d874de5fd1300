/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The agent and its host: the order of steps of life/transitions.c, pause.c, resume.c, monitor.c
 * and recover.c. A change of that order there belongs here, too.
 */
#include <stdio.h>
#include <string.h>

#include "sim.h"

enum { STEP_MS = 15, LOCK_MS = 3000, RESTART_MS = 1500, IDLE_MS = 4000, NONE = -1 };

static struct sim_box *box_of(struct sim *sim, const struct task *t)
{
    return &sim->host.boxes[t->box];
}

static void next(struct sim *sim, struct task *t)
{
    t->stage++;
    sim_wait(sim, t, sim_below(sim, STEP_MS));
}

/* --- memory and disk --- */

static void changed(struct sim *sim, struct sim_box *b)
{
    b->changed = ++sim->host.revision;
}

static bool event(struct sim *sim, struct task *t, enum machine_event what)
{
    struct sim_box *b = box_of(sim, t);
    struct machine_actions actions;
    if (!machine_next(&b->entry.state, what, &actions))
        return false;
    changed(sim, b);
    sim_trace(sim, "agent: %d is %s revision=%llu", t->box,
        sandbox_status_name(b->entry.state.status), (unsigned long long)b->entry.state.revision);
    return true;
}

/* A write that fails may have left what was there, or not. */
static bool journal_as(struct sim *sim, struct sim_box *b, const struct known *entry)
{
    bool fails = sim_fault(sim, 40);
    if (fails && sim_below(sim, 2) == 0)
        return false;
    b->has_state = true;
    b->state = *entry;
    return !fails;
}

static void unpin(struct sim *sim, int g);

static bool journal(struct sim *sim, struct sim_box *b)
{
    b->owed = !journal_as(sim, b, &b->entry);
    if (!b->owed)
        unpin(sim, b->doubtful);
    if (!b->owed)
        b->doubtful = NONE;
    return !b->owed;
}

static bool note(struct sim *sim, struct sim_box *b)
{
    if (sim_fault(sim, 60))
        return false;
    b->has_run = true;
    b->run = b->entry;
    return true;
}

static bool is_named(const struct sim *sim, int g)
{
    for (size_t i = 0; i < BOXES; i++) {
        const struct sim_box *b = &sim->host.boxes[i];
        if ((b->listed && (b->entry.generation == g || b->doubtful == g)) ||
            (b->folder && b->has_state && b->state.generation == g))
            return true;
    }
    return false;
}

/* The last pin goes, and with it the generation: nothing may still need it. */
static void unpin(struct sim *sim, int g)
{
    if (g == NONE)
        return;
    sim_trace(sim, "agent: generation %d goes", g);
    sim->host.exists[g] = false;
}

static void notice_exit(struct sim *sim, struct task *t);

/* A VM that has ended already is noticed at once. */
static void watch(struct sim *sim, int box)
{
    struct sim_box *b = &sim->host.boxes[box];
    b->watched = true;
    if (!b->vm)
        (void)sim_task(sim, OWNER_AGENT, notice_exit, box);
}

static void end_vm(struct sim_box *b)
{
    b->vm = b->vm_frozen = b->watched = false;
}

/* --- the lock --- */

/* True when `t` has it; else it comes back, or has answered. */
static bool lock(struct sim *sim, struct task *t)
{
    struct sim_box *b = box_of(sim, t);
    if (t->gives_up_ms == 0)
        t->gives_up_ms = sim->now_ms + LOCK_MS;
    if (!b->listed && t->wish != WISH_CREATE) {
        if (t->wish == WISH_DESTROY)
            sim_answer(sim, t, DONE);
        else
            sim_answer(sim, t, NOT_FOUND);
        return false;
    }
    if (b->in_transition) {
        if (sim->now_ms >= t->gives_up_ms)
            sim_answer(sim, t, REFUSED);
        else
            sim_wait(sim, t, 5 + sim_below(sim, 20));
        return false;
    }
    b->in_transition = true;
    return true;
}

static void unlock(struct sim *sim, struct task *t, enum outcome outcome)
{
    struct sim_box *b = box_of(sim, t);
    b->in_transition = false;
    t->answer.state = b->entry.state;
    sim_answer(sim, t, outcome);
}

/* --- create --- */

static void forget(struct sim *sim, struct sim_box *b)
{
    b->listed = false;
    sim->host.last_forgotten = ++sim->host.revision;
}

static void remove_files(struct sim *sim, struct sim_box *b)
{
    unpin(sim, b->entry.generation);
    unpin(sim, b->doubtful);
    b->entry.generation = b->doubtful = NONE;
    b->folder = b->has_state = false;
}

static void create_failed(struct sim *sim, struct task *t)
{
    struct sim_box *b = box_of(sim, t);
    end_vm(b);
    b->has_run = false;
    remove_files(sim, b);
    (void)event(sim, t, EVENT_CREATE_FAILED);
    forget(sim, b);
    unlock(sim, t, FAILED);
}

static void create(struct sim *sim, struct task *t)
{
    struct sim_box *b = box_of(sim, t);
    if (t->stage == 0) {
        if (b->listed || b->in_transition) {
            sim_answer(sim, t, REFUSED);
            return;
        }
        b->in_transition = b->listed = true;
        b->entry = (struct known){.state = {SANDBOX_PENDING, REASON_NONE, 0}, .generation = NONE};
        b->acknowledged = 0;
        b->slept_with = b->doubtful = NONE;
        b->owed = false;
        changed(sim, b);
    } else if (t->stage <= 5 && (sim_fault(sim, 40) || (t->stage > 3 && !b->vm))) {
        create_failed(sim, t);
        return;
    } else if (t->stage == 1) {
        b->folder = true;
    } else if (t->stage == 2 && !note(sim, b)) {
        create_failed(sim, t);
        return;
    } else if (t->stage == 3) {
        b->vm = true;
        b->content = 0;
    } else if (t->stage == 4 && !journal(sim, b)) {
        create_failed(sim, t);
        return;
    } else if (t->stage == 5) {
        watch(sim, t->box);
        (void)event(sim, t, EVENT_CREATED);
        if (!note(sim, b)) {
            create_failed(sim, t);
            return;
        }
    } else if (t->stage == 6) {
        unlock(sim, t, DONE);
        return;
    }
    next(sim, t);
}

/* --- pause --- */

static void stop_gone(struct sim *sim, struct task *t)
{
    struct sim_box *b = box_of(sim, t);
    if (!event(sim, t, EVENT_VM_EXITED))
        return;
    (void)journal(sim, b);
    end_vm(b);
    b->has_run = false;
}

/* The guest goes on, if it is there. */
static void run_on(struct sim *sim, struct task *t, bool canceled)
{
    struct sim_box *b = box_of(sim, t);
    b->vm_frozen = false;
    if (!b->vm) {
        stop_gone(sim, t);
    } else {
        (void)event(sim, t, canceled ? EVENT_PAUSE_CANCELED : EVENT_PAUSE_FAILED);
        (void)journal(sim, b);
        (void)note(sim, b);
        watch(sim, t->box);
    }
    unpin(sim, t->generation);
    unlock(sim, t, canceled ? REFUSED : FAILED);
}

static int write_generation(struct sim *sim, int content)
{
    for (int g = 0; g < GENERATIONS; g++) {
        if (sim->host.exists[g] || is_named(sim, g))
            continue;
        sim->host.exists[g] = true;
        sim->host.content[g] = content;
        return g;
    }
    sim_fail(sim, "generations pile up");
    return NONE;
}

static bool commit_pause(struct sim *sim, struct task *t)
{
    struct sim_box *b = box_of(sim, t);
    struct known paused = {b->entry.state, t->generation};
    struct machine_actions actions;
    (void)machine_next(&paused.state, EVENT_PAUSED, &actions);
    return journal_as(sim, b, &paused);
}

/* From here on it sleeps, whatever happens. */
static void asleep(struct sim *sim, struct task *t)
{
    struct sim_box *b = box_of(sim, t);
    int former = b->entry.generation;
    b->entry.generation = t->generation;
    t->generation = former; /* goes in the end */
    (void)event(sim, t, EVENT_PAUSED);
    b->slept_with = b->content;
}

static void pause(struct sim *sim, struct task *t)
{
    struct sim_box *b = box_of(sim, t);
    bool canceled = t->idle && b->cancel;
    if (t->stage == 0) {
        if (!lock(sim, t))
            return;
        t->generation = NONE;
        if (b->owed && !journal(sim, b)) {
            unlock(sim, t, FAILED);
            return;
        }
        if (!event(sim, t, t->idle ? EVENT_IDLE : EVENT_PAUSE)) {
            unlock(sim, t, REFUSED);
            return;
        }
        b->watched = false;
        b->cancel = false;
        if (!note(sim, b)) {
            run_on(sim, t, false);
            return;
        }
    } else if (t->stage <= 3 && (canceled || !b->vm || sim_fault(sim, 30))) {
        run_on(sim, t, canceled);
        return;
    } else if (t->stage == 1) {
        b->vm_frozen = true;
    } else if (t->stage == 3) {
        t->generation = write_generation(sim, b->content);
    } else if (t->stage == 4 && canceled) {
        run_on(sim, t, canceled);
        return;
    } else if (t->stage == 4 && !commit_pause(sim, t)) {
        b->doubtful = t->generation;
        t->generation = NONE;
        run_on(sim, t, false);
        return;
    } else if (t->stage == 5) {
        asleep(sim, t);
    } else if (t->stage == 6) {
        end_vm(b);
        b->has_run = false;
    } else if (t->stage == 7) {
        unpin(sim, t->generation);
        unlock(sim, t, DONE);
        return;
    }
    next(sim, t);
}

/* --- resume --- */

static void resume_failed(struct sim *sim, struct task *t)
{
    struct sim_box *b = box_of(sim, t);
    (void)event(sim, t, EVENT_RESUME_FAILED);
    (void)journal(sim, b);
    end_vm(b);
    b->has_run = false;
    unlock(sim, t, FAILED);
}

static bool can_resume(const struct sim_box *b, const struct task *t)
{
    if (b->entry.state.status == SANDBOX_PAUSED)
        return true;
    return b->entry.state.status == SANDBOX_STOPPED && t->wish == WISH_LAST &&
           b->entry.generation != NONE;
}

/* It wakes with what it fell asleep with. */
static void check_memory(struct sim *sim, const struct task *t)
{
    const struct sim_box *b = &sim->host.boxes[t->box];
    if (b->slept_with != NONE && b->content != b->slept_with)
        sim_fail(sim, "%d slept with %d and woke with %d", t->box, b->slept_with, b->content);
}

static void begin_resume(struct sim *sim, struct task *t)
{
    struct sim_box *b = box_of(sim, t);
    b->cancel = true; /* an auto-pause under way */
    if (!lock(sim, t))
        return;
    b->cancel = false;
    if (!can_resume(b, t)) {
        unlock(sim, t, REFUSED);
        return;
    }
    if (!sim->host.exists[b->entry.generation]) {
        sim_fail(sim, "generation %d of %d is gone", b->entry.generation, t->box);
        return;
    }
    (void)note(sim, b);
    (void)event(sim, t, b->entry.state.status == SANDBOX_PAUSED ? EVENT_RESUME : EVENT_RESTORE);
    next(sim, t);
}

static void resume(struct sim *sim, struct task *t)
{
    struct sim_box *b = box_of(sim, t);
    if (t->stage == 0) {
        begin_resume(sim, t);
        return;
    }
    if (t->stage <= 4 && (sim_fault(sim, 40) || (t->stage > 2 && !b->vm))) {
        resume_failed(sim, t);
        return;
    }
    if (t->stage == 1 && !note(sim, b)) {
        resume_failed(sim, t);
        return;
    } else if (t->stage == 2) {
        b->vm = true;
        b->content = sim->host.content[b->entry.generation];
        check_memory(sim, t);
    } else if (t->stage == 3 && !journal(sim, b)) {
        resume_failed(sim, t);
        return;
    } else if (t->stage == 4) {
        (void)event(sim, t, EVENT_RESUMED);
        (void)note(sim, b);
    } else if (t->stage == 5) {
        watch(sim, t->box);
        unlock(sim, t, DONE);
        return;
    }
    next(sim, t);
}

/* --- the rest --- */

static void exec(struct sim *sim, struct task *t)
{
    struct sim_box *b = box_of(sim, t);
    bool works = b->listed && b->entry.state.status == SANDBOX_RUNNING && b->vm && !b->vm_frozen;
    if (b->entry.state.status == SANDBOX_PAUSING)
        b->cancel = true;
    if (works)
        b->content++;
    sim_answer(sim, t, works ? DONE : REFUSED);
}

static void destroy(struct sim *sim, struct task *t)
{
    struct sim_box *b = box_of(sim, t);
    if (t->stage == 0) {
        b->cancel = true;
        if (!lock(sim, t))
            return;
        b->watched = false;
        if (b->entry.state.reason != REASON_DESTROYED)
            (void)event(sim, t, EVENT_DESTROY);
    } else if (t->stage == 1) {
        end_vm(b);
        b->has_run = false;
    } else if (sim_fault(sim, 20)) {
        unlock(sim, t, FAILED);
        return;
    } else {
        remove_files(sim, b);
        b->listed = false;
        changed(sim, b);
        unlock(sim, t, DONE);
        return;
    }
    next(sim, t);
}

static void list(struct sim *sim, struct task *t)
{
    struct sim_host *h = &sim->host;
    struct answer *a = &t->answer;
    uint64_t since = t->since < h->last_forgotten ? 0 : t->since;
    for (size_t i = 0; i < BOXES; i++)
        if (h->boxes[i].listed && h->boxes[i].acknowledged < t->acks[i])
            h->boxes[i].acknowledged = t->acks[i];
    a->agent_epoch = h->life;
    a->host_revision = h->revision;
    a->full = since == 0;
    for (size_t i = 0; i < BOXES; i++) {
        const struct sim_box *b = &h->boxes[i];
        const struct machine_state *s = &b->entry.state;
        if (!b->listed || b->changed <= since)
            continue;
        a->said[i].named = true;
        a->said[i].state = *s;
        a->said[i].auto_paused = s->status == SANDBOX_PAUSED && s->reason == REASON_IDLE &&
                                 b->acknowledged < s->revision;
    }
    sim_answer(sim, t, DONE);
}

task_step *host_step(enum wish wish)
{
    static task_step *const steps[] = {[WISH_CREATE] = create,
        [WISH_PAUSE] = pause,
        [WISH_RESUME] = resume,
        [WISH_LAST] = resume,
        [WISH_EXEC] = exec,
        [WISH_DESTROY] = destroy,
        [WISH_LIST] = list};
    return steps[wish];
}

/* --- a new agent --- */

static struct task as_task(int box)
{
    return (struct task){.box = box};
}

static void recover_stop(struct sim *sim, int box)
{
    struct sim_box *b = &sim->host.boxes[box];
    struct task t = as_task(box);
    if (event(sim, &t, EVENT_AGENT_STARTED))
        (void)journal(sim, b);
    b->listed = true;
}

/* The journals' word becomes the sandbox's. */
static enum recovery read_journals(struct sim_box *b)
{
    enum recovery what = recover_decide(b->has_state ? &b->state.state : NULL,
        /* state_damaged= */ false, b->has_run ? &b->run.state : NULL);
    if (what == RECOVER_ADOPT)
        b->entry = b->run;
    else if (b->has_state)
        b->entry = b->state;
    else
        b->entry.generation = NONE;
    if (what == RECOVER_ADOPT && !b->vm)
        what = RECOVER_STOP;
    return what;
}

static void recover_one(struct sim *sim, int box)
{
    struct sim_box *b = &sim->host.boxes[box];
    struct task t = as_task(box);
    bool unsaid = b->has_run;
    enum recovery what = read_journals(b);
    if (what != RECOVER_ADOPT) {
        end_vm(b);
        b->has_run = false;
    }
    b->listed = what != RECOVER_UNDO && what != RECOVER_STOP;
    changed(sim, b);
    if (what == RECOVER_UNDO) {
        remove_files(sim, b);
    } else if (what == RECOVER_STOP) {
        recover_stop(sim, box);
    } else if (what == RECOVER_KEEP && unsaid) {
        b->entry.state.revision += MACHINE_UNJOURNALLED_MAX;
        (void)journal(sim, b);
    } else if (what == RECOVER_BACK) {
        b->entry.state.status = SANDBOX_RESUMING;
        b->entry.state.revision += MACHINE_UNJOURNALLED_MAX;
        (void)event(sim, &t, EVENT_RESUME_FAILED);
        (void)journal(sim, b);
    } else if (what == RECOVER_ADOPT) {
        b->vm_frozen = false;
        if (b->entry.state.status == SANDBOX_PAUSING && event(sim, &t, EVENT_PAUSE_CANCELED)) {
            (void)journal(sim, b);
            (void)note(sim, b);
        }
        watch(sim, box);
    }
}

/* A pause may have been committed and nobody told. */
static void check_paused(struct sim *sim, int box)
{
    struct sim_box *b = &sim->host.boxes[box];
    int g = b->entry.generation;
    if (b->entry.state.status != SANDBOX_PAUSED)
        return;
    if (g == NONE || !sim->host.exists[g])
        sim_fail(sim, "%d sleeps in generation %d, which is gone", box, g);
    else if (sim->host.content[g] == b->content || b->owed)
        b->slept_with = sim->host.content[g];
    else if (sim->host.content[g] != b->slept_with)
        sim_fail(sim, "%d sleeps with %d", box, sim->host.content[g]);
}

static void collect(struct sim *sim)
{
    for (int g = 0; g < GENERATIONS; g++)
        if (sim->host.exists[g] && !is_named(sim, g))
            unpin(sim, g);
}

void host_start(struct sim *sim)
{
    struct sim_host *h = &sim->host;
    h->up = true;
    h->life++;
    h->revision = h->last_forgotten = 0;
    sim_trace(sim, "agent starts");
    for (int i = 0; i < BOXES; i++) {
        struct sim_box *b = &h->boxes[i];
        b->listed = b->in_transition = b->cancel = b->watched = false;
        b->acknowledged = 0;
        b->doubtful = NONE;
        if (b->folder)
            recover_one(sim, i);
        if (b->listed)
            check_paused(sim, i);
        b->owed = false;
    }
    collect(sim);
}

/* --- what befalls it --- */

static void start_again(struct sim *sim, struct task *t)
{
    host_start(sim);
    sim_end(t);
}

static void die(struct sim *sim)
{
    struct task *t = sim_task(sim, OWNER_WORLD, start_again, 0);
    sim_trace(sim, "agent dies");
    sim->host.up = false;
    sim_kill_tasks(sim, OWNER_AGENT);
    sim_break_calls(sim);
    for (size_t i = 0; i < BOXES; i++)
        sim->host.boxes[i].listed = sim->host.boxes[i].in_transition = false;
    if (t)
        sim_wait(sim, t, 50 + sim_below(sim, RESTART_MS));
}

static void lose_power(struct sim *sim)
{
    sim_trace(sim, "power is gone");
    die(sim);
    for (size_t i = 0; i < BOXES; i++) {
        end_vm(&sim->host.boxes[i]);
        sim->host.boxes[i].has_run = false;
    }
}

/* The monitor, once it has the lock. */
static void notice_exit(struct sim *sim, struct task *t)
{
    struct sim_box *b = box_of(sim, t);
    if (b->listed && b->in_transition) {
        sim_wait(sim, t, 5 + sim_below(sim, 20));
        return;
    }
    if (b->listed && b->watched && !b->vm)
        stop_gone(sim, t);
    sim_end(t);
}

static void kill_vm(struct sim *sim, int box)
{
    struct sim_box *b = &sim->host.boxes[box];
    if (!b->vm)
        return;
    sim_trace(sim, "VM of %d dies", box);
    b->vm = b->vm_frozen = false;
    if (sim->host.up)
        (void)sim_task(sim, OWNER_AGENT, notice_exit, box);
}

void host_faults(struct sim *sim, struct task *t)
{
    if (sim->calm) {
        sim_end(t);
        return;
    }
    sim_wait(sim, t, 20 + sim_below(sim, 2500));
    switch (sim_below(sim, 6)) {
    case 0:
    case 1:
        if (sim->host.up)
            die(sim);
        break;
    case 2:
        if (sim->host.up)
            lose_power(sim);
        break;
    case 3:
        kill_vm(sim, (int)sim_below(sim, BOXES));
        break;
    default:
        break;
    }
}

/* The reaper: what has run for long is idle. */
void host_idle(struct sim *sim, struct task *t)
{
    int box = (int)sim_below(sim, BOXES);
    struct sim_box *b = &sim->host.boxes[box];
    struct task *p;
    sim_wait(sim, t, 100 + sim_below(sim, IDLE_MS));
    for (size_t i = 0; i < BOXES && sim->host.up; i++)
        if (sim->host.boxes[i].listed && sim->host.boxes[i].owed &&
            !sim->host.boxes[i].in_transition)
            (void)journal(sim, &sim->host.boxes[i]);
    if (sim->calm || !sim->host.up || !b->listed || b->in_transition ||
        b->entry.state.status != SANDBOX_RUNNING)
        return;
    p = sim_task(sim, OWNER_AGENT, pause, box);
    if (p) {
        p->wish = WISH_PAUSE;
        p->idle = true;
    }
}
