/* SPDX-License-Identifier: Apache-2.0 */
/* The page faults of a VM in SHIM_MEMORY_UFFD. */
#ifndef TORPOR_SHIM_FAULTS_H
#define TORPOR_SHIM_FAULTS_H

#include "shim/memory.h"

/* Serves the faults that wait now. An error means that a page could not be served: the VMM must
 * end. Its end is no error. Never blocks. */
int faults_serve(struct memory *m, struct err *e);

/* Copies in what m->hints_fd names and closes it. Hints that are damaged or of another machine are
 * left alone. Errors as above. */
int faults_copy_ahead(struct memory *m, struct err *e);

#endif
