/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An installation on this host: its folders, and the two processes that were noted in it.
 *
 * In <home>, which is TORPOR_DIR:
 *   env          TORPOR_URL and TORPOR_API_KEY for people and programs, mode 0600
 *   log/         what the programs write to standard error
 *   run/         one file for each process, the lock that keeps two of `up` and `down` apart, and
 *                the agent's settings, so that `down` speaks of the same thing
 *   location     the path of <data>, where that is another folder
 * In <data>, which is <home> unless the control plane's user cannot get there:
 *   kernels/ images/ sandboxes/ ...   the agent's
 *   control/     the control plane's: database, first API key
 *   bin/         the programs as they were installed; nothing runs from the build folders
 *
 * A process is known by its pid, its start time and the boot it belongs to.
 */
#ifndef TORPOR_CLI_HOME_H
#define TORPOR_CLI_HOME_H

#include <limits.h>

#include "base/proc.h"

enum { HOME_WORDS_MAX = 512, HOME_BOOT_ID_MAX = 40 };

struct home {
    char home[PATH_MAX / 2];
    char data[PATH_MAX / 2];
    int fd;      /* of <home>; -1 until home_open */
    int lock_fd; /* held from home_open to home_close */
};

/* Where it is; nothing has to be there, nothing is made. */
int home_find(struct home *ret, struct err *e);
/* Finds it and makes its folder, and takes the lock. `waiting` is called once when somebody has it.
 */
int home_open(struct home *ret, void (*waiting)(void *ctx), void *ctx, struct err *e);
void home_close(struct home *h);
#define AUTO_HOME __attribute__((cleanup(home_close)))
/* Takes another data folder, and remembers it in `location`. */
int home_move_data(struct home *h, const char *data, struct err *e);

/* What was noted of a process. */
struct note {
    struct proc_id id;
    char boot[HOME_BOOT_ID_MAX];
    char words[HOME_WORDS_MAX]; /* name=value, with blanks between */
};

/* Notes a process of this boot. */
int home_note(
    struct home *h, const char *name, const struct proc_id *id, const char *words, struct err *e);
/* False when nothing was noted. */
bool home_noted(const struct home *h, const char *name, struct note *ret);
void home_forget(struct home *h, const char *name);
/* True when the noted process runs. */
bool note_is_alive(const struct note *n);
/* True when the machine has not been started anew since. */
bool note_is_of_this_boot(const struct note *n);
/* The value of a word; false when it is not there or does not fit. */
bool note_word(const struct note *n, const char *name, char *dst, size_t dst_size);

#endif
