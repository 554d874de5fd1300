/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Crash points: where tests let something die, on real VMs. Off unless TORPOR_CRASH is set in the
 * agent's environment, to "operation/step/victim". It acts once, after that step was done.
 *
 *   operation  create, spawn, undo, pause, resume, snapshot, forget (of a template), merge, collect
 *   victim     agent, vmm, shim; stop, which stops the agent with SIGSTOP until the test lets it go
 *              on; all, which kills VMM and shim, and then stops the agent
 *
 * tests/e2e/crash_*.c name the steps of each, and fail when one is not reached.
 */
#ifndef TORPOR_AGENT_LIFE_CRASH_H
#define TORPOR_AGENT_LIFE_CRASH_H

struct sandbox;

/* Read once, before threads start. */
void crash_init(void);
/* `s`: whose VMM and shim may be the victims; NULL when there is no such sandbox. */
void crash_point(const char *operation, const char *step, struct sandbox *s);
/* The same, as the store of generations tells of its steps. */
void crash_point_of_store(const char *operation, const char *step);

#endif
