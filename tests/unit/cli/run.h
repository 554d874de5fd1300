/* SPDX-License-Identifier: Apache-2.0 */
/* Runs a command line in this process, with its streams in memory. */
#ifndef TORPOR_TEST_CLI_RUN_H
#define TORPOR_TEST_CLI_RUN_H

#include <stddef.h>

#include "cli/cli.h"

struct run {
    char *out, *err;
    size_t n_out, n_err;
    int status;
};

/* `argv` ends with NULL and begins behind "torpor". `input` is standard input; NULL: a terminal.
 * `is_tty`: standard output is a terminal of 80 columns. */
void run_torpor(struct run *r, const char *const *argv, const char *input, bool is_tty);
void run_done(struct run *r);
#define AUTO_RUN __attribute__((cleanup(run_done)))

#endif
