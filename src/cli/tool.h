/* SPDX-License-Identifier: Apache-2.0 */
/* Running another program for what it prints. */
#ifndef TORPOR_CLI_TOOL_H
#define TORPOR_CLI_TOOL_H

#include "base/buf.h"
#include "base/err.h"

/* Runs argv[0], looked for in the usual folders, without input and with a plain environment, and
 * appends its standard output (not NULL). It gets 10 s. ERR_NOT_FOUND when there is no such
 * program, ERR_INTERNAL when it exited with something else than 0. */
int tool_run(const char *const *argv, struct buf *ret, struct err *e);
/* The path of a program in the usual folders below `root` (""); false when it is not there. */
bool tool_find(const char *root, const char *name, char *dst, size_t dst_size);

#endif
