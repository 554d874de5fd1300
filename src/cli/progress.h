/* SPDX-License-Identifier: Apache-2.0 */
/* A line on the terminal that moves while something takes its time, and goes away at the end. */
#ifndef TORPOR_CLI_PROGRESS_H
#define TORPOR_CLI_PROGRESS_H

#include <stdint.h>

#include "cli/cli.h"

struct progress {
    FILE *out; /* NULL: nobody looks, all calls do nothing */
    const char *what;
    int64_t began_ms;
    int64_t next_ms; /* when it moves next */
    int64_t bytes;   /* moved so far; -1: this is not about bytes */
    unsigned turn;
};

/* Shows nothing before half a second has passed, and never when standard error is no terminal. */
void progress_start(struct progress *p, const struct cli *c, const char *what);
/* Moves it when it is time. Returns when to call again (a monotonic deadline). */
int64_t progress_tick(struct progress *p);
/* Takes the line away. */
void progress_end(struct progress *p);

#endif
