/* SPDX-License-Identifier: Apache-2.0 */
/* Loading kernel modules in a written order. Needs no modprobe and no database: whoever packs the
 * initramfs has resolved the dependencies. */
#ifndef TORPOR_GUESTINIT_MODULES_H
#define TORPOR_GUESTINIT_MODULES_H

#include "base/err.h"

/* Loads every module that the file `dir`/order names: one file name of that folder a line, in this
 * order. A module that is loaded already is fine. The first that fails ends it, with its name.
 * Returns 0 or -1. */
int modules_load(const char *dir, struct err *e);

#endif
