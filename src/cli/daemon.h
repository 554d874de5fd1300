/* SPDX-License-Identifier: Apache-2.0 */
/* Agent and control plane of an installation: starting them in the background and stopping them. */
#ifndef TORPOR_CLI_DAEMON_H
#define TORPOR_CLI_DAEMON_H

#include "cli/cli.h"
#include "cli/home.h"

enum { DAEMON_READY_MS = 60000, DAEMON_STOP_MS = 60000, DAEMON_USER_MAX = 64 };

/* What `up` and `down` work with. */
struct host_run {
    struct cli *cli;
    const char *verb; /* "up" or "down", before what is said */
    struct home home;
    char user[DAEMON_USER_MAX]; /* whom the control plane runs as */
    char key[256];              /* the API key, once control is up */
    char url[256];
};

/* "up: ..." on standard output. */
void host_say(struct host_run *r, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* The end of torpor-<name>'s log on standard error, for a person who wants to know why. */
void daemon_show_log(struct host_run *r, const char *name);

/* Starts it and waits until it serves; notes it with what it said. On failure nothing runs. */
int daemon_start_agent(struct host_run *r, struct err *e);
/* `listen` is HOST:PORT. The agent must be noted. */
int daemon_start_control(struct host_run *r, const char *listen, struct err *e);

/* True, and `ret` set, when the noted process runs. */
bool daemon_is_up(const struct host_run *r, const char *name, struct note *ret);

enum daemon_end { DAEMON_ENDED, DAEMON_KILLED, DAEMON_WAS_GONE };
/* SIGTERM, and SIGKILL when it has not ended in DAEMON_STOP_MS. -1 only when it cannot be killed.
 * The note stays. */
int daemon_stop(struct host_run *r, const char *name, enum daemon_end *ret, struct err *e);

/* torpor-agent --stop-all with the settings of the last start: ends all VMs of the data folder
 * and removes what is left of the instance. The agent must not run. */
int daemon_stop_all(struct host_run *r, struct err *e);

/* Runs a program to its end as the control plane's user, without privilege and without a way to get
 * one. True when it exited with 0. */
bool daemon_user_can(struct host_run *r, const char *program, const char *arg1, const char *arg2);

#endif
