/* SPDX-License-Identifier: Apache-2.0 */
/* The console log: what the guest's serial port and the VMM say, bounded. */
#ifndef TORPOR_SHIM_CONSOLE_H
#define TORPOR_SHIM_CONSOLE_H

#include <stdbool.h>
#include <stddef.h>

#include "base/err.h"
#include "proto/shim.h"

struct console {
    int dirfd; /* borrowed */
    int fd;    /* -1 while the file cannot be opened: output is dropped */
    size_t bytes;
};

/* Opens or goes on with console.log in the folder, which must outlive the console. */
int console_open(struct console *c, int dirfd, struct err *e);
/* Appends. At half of CONSOLE_BYTES_MAX the file becomes console.log.1 and a new one starts, so
 * both together hold at least the newest half and never more than the bound. What a full disk
 * refuses is dropped. */
void console_write(struct console *c, const char *p, size_t n);

/* The last line that is not empty, of a stream that comes in pieces. */
struct last_line {
    char now[SHIM_TEXT_BYTES];
    size_t len;
    char last[SHIM_TEXT_BYTES];
};
/* Characters that are not printable ASCII become '?', and what does not fit is cut. */
void last_line_feed(struct last_line *l, const char *p, size_t n);
/* The line under way if it has begun, else the last complete one; "" at first. */
const char *last_line_get(const struct last_line *l);

#endif
