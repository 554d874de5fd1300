/* SPDX-License-Identifier: Apache-2.0 */
/* Touching files as a user, on the calling thread only. */
#ifndef TORPOR_ENVD_IDENTITY_H
#define TORPOR_ENVD_IDENTITY_H

#include "envd/users.h"

/* From here to identity_leave, the kernel judges this thread's file accesses as if `u` made them.
 * A process that is not root may only act as itself. Errors: ERR_FORBIDDEN, system errors; then
 * nothing has changed. Does not nest. */
int identity_enter(const struct user *u, struct err *e);
/* Back to our own identity; harmless without identity_enter. */
void identity_leave(void);

#endif
