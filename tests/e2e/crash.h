/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the tests that let something die share: one Torpor, a template whose guest holds a known
 * memory, two sandboxes that nobody touches and that must stay as they are, and what the host looks
 * like when nothing else is there.
 */
#ifndef TORPOR_TESTS_E2E_CRASH_H
#define TORPOR_TESTS_E2E_CRASH_H

#include "sleep.h"

/* Who is killed. VMM and shim only where the step has them. */
enum victim {
    VICTIM_AGENT,
    VICTIM_CONTROL, /* while the agent stands still */
    VICTIM_ALL,     /* VMM, shim, control plane, agent, in this order */
    VICTIM_VMM,
    VICTIM_SHIM,
    VICTIM_COUNT,
    VICTIMS_WITHOUT_VM = VICTIM_VMM,
};

#define CRASH_HELD "held" /* the template's name */

struct bystander {
    char id[32];
    char line[HOLD_LINE]; /* what its guest must see */
};

struct sweep {
    struct stack stack;
    const char *unavailable;
    unsigned points;  /* steps at which something died */
    unsigned crashes; /* how often */
    struct bystander runs;
    struct bystander sleeps;
    struct buf at_rest;     /* the host with nothing but those */
    struct buf descriptors; /* of the agent then, but for sockets */
    size_t sockets;
};
extern struct sweep sweep;

/* One crash. */
struct crash {
    const char *at; /* "operation/step" */
    enum victim victim;
    char text[96];        /* "operation/step/victim", for messages */
    char id[32];          /* the sandbox; "" before there is one */
    char last[HOLD_LINE]; /* memory of its last generation */
    char now[HOLD_LINE];  /* memory as it is */
    const char *method;   /* the call that meets the crash */
    char path[96];
    char body[160]; /* "" for none */
    int status;     /* its answer; 0: there was none */
};

/* An operation: its steps, and how it is prepared and looked at. */
struct operation {
    const char *const *steps; /* "operation/step", NULL at the end */
    size_t vm_from;           /* at [vm_from, vm_to) there is a VM */
    size_t vm_to;
    /* Makes what it needs and fills in the call. */
    void (*prepare)(struct crash *c);
    /* All programs serve again. Looks at what became of it, and removes it. */
    void (*check)(struct crash *c);
};

extern const struct operation crash_create;
extern const struct operation crash_spawn;
extern const struct operation crash_destroy;
extern const struct operation crash_pause;
extern const struct operation crash_resume;
extern const struct operation crash_snapshot;
extern const struct operation crash_overwrite;
extern const struct operation crash_merge;
/* A template whose sandboxes have generations to merge when they have been paused once. */
void crash_make_deep(void);
/* What nobody names any more is removed when an agent starts, and something dies in that. */
void crash_collect(void);

/* Skips the test where there is no stack. */
void sweep_needs_stack(void);
int sweep_setup(void **state);
int sweep_teardown(void **state);
/* Each step with a victim that is drawn, or with every one (TORPOR_CRASH_ALL). Afterwards the host
 * and the bystanders must be as before. */
void sweep_operation(const struct operation *op);

/* The bystander that slept all the while wakes as it was. */
void crash_check_sleeping(void);

/* --- the pieces --- */

void crash_name(struct crash *c, const char *at, enum victim victim);
/* Waits until its agent has died or stopped at the crash point, and does what follows. */
void crash_wait(struct crash *c);
/* Starts what does not run. */
void crash_start_again(void);
/* It died where it should, everything has come to rest, the host and the bystanders are as they
 * were at the beginning; or the test fails. */
void crash_check_rest(const struct crash *c);
/* Removes every sandbox but the bystanders. One that is said to run must answer. */
void crash_remove_others(const struct crash *c);

/* True when the crash takes the VM along. */
bool crash_kills_vm(const struct crash *c);
/* A sandbox of the template, which runs: its last generation holds `c->last`, it holds `c->now`. */
void crash_make_sleeper(struct crash *c);
/* Waits until it is running, paused or stopped, and says which. */
void crash_wait_settled(const struct crash *c, char status[16]);
/* Wakes it as far as it does not run: it must hold what it should, and be able to sleep. */
void crash_check_sleeper(const struct crash *c);

#endif
