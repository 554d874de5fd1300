/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A host, a control plane and their clients under a simulated clock and disk.
 *
 * Theory of operation: what decides is the real code (machine_next, recover_decide,
 * reconcile_trust, reconcile_decide); what does is a model of it, in steps as short as those that a
 * crash can fall between. A task is one thread of one program: it runs a step, then waits for a
 * time, for a lock or for an answer. Who dies takes its tasks along. One seed draws every delay,
 * every fault and every wish of the clients, so a failing seed fails again.
 *
 * Memory of a guest is one number that each exec raises: what a sandbox wakes with must be what it
 * fell asleep with.
 */
#ifndef TORPOR_TESTS_SIM_H
#define TORPOR_TESTS_SIM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "agent/life/machine.h"
#include "control/service/decide.h"

enum { BOXES = 2, GENERATIONS = 16, TASKS = 64, TRACE_LINES = 400, TRACE_CHARS = 120 };

enum owner { OWNER_WORLD, OWNER_AGENT, OWNER_CONTROL, OWNER_COUNT };

/* What a call comes back with. */
enum outcome {
    DONE,
    REFUSED,   /* bad state or conflict: nothing was done */
    FAILED,    /* tried, and it did not work */
    NOT_FOUND, /* the host does not know it */
    UNKNOWN    /* no answer came */
};

struct said {
    bool named;
    bool auto_paused;
    struct machine_state state;
};

struct answer {
    enum outcome outcome;
    struct machine_state state; /* of the sandbox that was asked for, when DONE */
    uint32_t agent_epoch;       /* of a list, like all that follows */
    uint64_t host_revision;
    bool full;
    struct said said[BOXES];
};

enum wish { WISH_CREATE, WISH_PAUSE, WISH_RESUME, WISH_LAST, WISH_EXEC, WISH_DESTROY, WISH_LIST };

/* What the database has of a sandbox, as far as it matters here. */
struct row {
    struct machine_state state;
    int64_t since_ms;
};

struct sim;
struct task;
typedef void task_step(struct sim *sim, struct task *t);

struct task {
    task_step *run; /* NULL: free */
    uint32_t id;
    int64_t due_ms;
    enum owner owner;
    uint32_t life; /* of its owner; the task of an earlier one is dead */
    int stage;
    int box;
    enum wish wish;
    bool idle;      /* a pause that nobody asked for */
    bool full;      /* a list of everything */
    uint64_t since; /* likewise: what changed since */
    uint64_t acks[BOXES];
    int64_t gives_up_ms;
    uint32_t caller; /* the task that waits for the answer; 0: none */
    uint32_t call;   /* which of its calls */
    struct answer answer;
    struct row before;      /* when it began */
    int generation;         /* that it has written; -1: none */
    bool client_gone;       /* nobody is told how it ended */
    struct row rows[BOXES]; /* of a poll: before the question */
    bool has_row[BOXES];
};

/* What the agent has in its memory of one sandbox. */
struct known {
    struct machine_state state;
    int generation; /* -1: none */
};

struct sim_box {
    /* On disk: outlives everything but a DELETE. */
    bool folder;
    bool has_state;
    struct known state;
    /* In the run folder: outlives the agent. */
    bool has_run;
    struct known run;
    bool vm;
    bool vm_frozen;
    int content; /* of the VM, or of the last one */
    /* In the agent's memory. */
    bool listed;
    bool in_transition;
    bool cancel;  /* the auto-pause under way is to be broken off */
    bool watched; /* the end of the VM would be noticed */
    bool owed;    /* state.json may say something else */
    int doubtful; /* the generation that it may name; -1: none */
    struct known entry;
    uint64_t changed; /* host revision of the last change */
    uint64_t acknowledged;
    /* What was said to others. */
    int slept_with; /* content when it was last seen paused; -1: never */
};

struct sim_host {
    bool up;
    uint32_t life;
    uint64_t revision;
    uint64_t last_forgotten;
    struct sim_box boxes[BOXES];
    bool exists[GENERATIONS];
    int content[GENERATIONS];
};

struct sim_row {
    bool has_row; /* durable, like the row */
    struct row row;
    bool locked;
    bool removing; /* the remover has it */
    /* What clients know. */
    bool created;      /* they were told so */
    bool delete_asked; /* at least once */
};

struct sim_control {
    bool up;
    uint32_t life;
    struct sim_row boxes[BOXES];
    bool want_full;
    struct reconcile_seen seen;
    uint64_t acks[BOXES]; /* 0: none */
};

struct sim {
    uint64_t random;
    int64_t now_ms;
    uint32_t last_id;
    uint64_t events;
    bool calm; /* no more faults */
    struct task tasks[TASKS];
    struct sim_host host;
    struct sim_control control;
    bool failed;
    char failure[200];
    bool tracing;
    char trace[TRACE_LINES][TRACE_CHARS];
    unsigned n_trace;
};

/* --- sim.c --- */

void sim_init(struct sim *sim, uint64_t seed);
/* Runs until the time, or until something is wrong. */
void sim_run(struct sim *sim, int64_t until_ms);
uint32_t sim_below(struct sim *sim, uint32_t n);
/* True once in `n` times, never when it is calm. */
bool sim_fault(struct sim *sim, uint32_t n);
/* NULL with a failure when there are too many. Due at once. */
struct task *sim_task(struct sim *sim, enum owner owner, task_step *run, int box);
void sim_wait(struct sim *sim, struct task *t, int64_t ms);
void sim_park(struct task *t);
void sim_end(struct task *t);
struct task *sim_find(struct sim *sim, uint32_t id);
/* A message on its way: `t` is parked until the answer to its wish is there. */
void sim_call(struct sim *sim, struct task *t, enum wish wish, bool idle);
/* The agent's task `t` is done; what it answers may be lost. */
void sim_answer(struct sim *sim, struct task *t, enum outcome outcome);
/* Connections are gone: whoever waits for an answer gets none. */
void sim_break_calls(struct sim *sim);
/* All tasks of that owner are dead. */
void sim_kill_tasks(struct sim *sim, enum owner owner);
uint32_t sim_life(const struct sim *sim, enum owner owner);
void sim_fail(struct sim *sim, const char *format, ...) __attribute__((format(printf, 2, 3)));
void sim_trace(struct sim *sim, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* --- host.c --- */

/* The step of an agent's task, by its wish. */
task_step *host_step(enum wish wish);
/* Tasks of the world. */
void host_idle(struct sim *sim, struct task *t);
void host_faults(struct sim *sim, struct task *t);
void host_start(struct sim *sim);

/* --- control.c --- */

void control_start(struct sim *sim);
void control_faults(struct sim *sim, struct task *t);
/* A client's request for one sandbox. */
void control_request(struct sim *sim, int box, enum wish wish);
const char *wish_name(enum wish wish);

#endif
