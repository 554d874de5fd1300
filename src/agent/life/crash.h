/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Crash points: where tests let something die, on real VMs. Off unless TORPOR_CRASH is set in the
 * agent's environment, to "operation/step/victim" (create, undo; the step's name; agent, vmm, shim,
 * or stop, which stops the agent with SIGSTOP until the test lets it go on). It acts once.
 */
#ifndef TORPOR_AGENT_LIFE_CRASH_H
#define TORPOR_AGENT_LIFE_CRASH_H

struct sandbox;

/* Read once, before threads start. */
void crash_init(void);
void crash_point(const char *operation, const char *step, struct sandbox *s);

#endif
