/* SPDX-License-Identifier: Apache-2.0 */
/* Memory that the VMM maps by itself, without the library (SHIM_MEMORY_COPIED). */
#ifndef TORPOR_SHIM_COPIED_H
#define TORPOR_SHIM_COPIED_H

#include "shim/memory.h"

/* Looks for the memory among the VMM's mappings and stores where it lies. ERR_NOT_FOUND when there
 * is no mapping like it, or more than one; ERR_IO. The VMM has answered its monitor, so that it has
 * mapped its memory. */
int copied_find(struct memory *m, struct err *e);

/* Writes everything that the source has and that is not zeros into the memory, which has been found
 * and is as the VMM mapped it: zeros. ERR_IO when a blob or the VMM cannot take it. Holds the
 * caller up for as long as that much copying takes. */
int copied_fill(struct memory *m, struct err *e);

#endif
