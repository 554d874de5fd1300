/* SPDX-License-Identifier: Apache-2.0 */
/* How long the phases of a call took, from its header Server-Timing. */
#ifndef TORPOR_CLI_TIMING_H
#define TORPOR_CLI_TIMING_H

#include "cli/cli.h"

/* The row of -v for a command's options. */
#define TIMING_OPTION                                                                              \
    {                                                                                              \
        .name = "verbose", .letter = 'v', .help = "show how long each phase took"                  \
    }

/* Prints "quiesce;dur=1.2, save;dur=30" as a table with a line each; what is not of that form is
 * left out. Nothing for an empty text. */
void timing_print(struct cli *c, const char *server_timing);

#endif
