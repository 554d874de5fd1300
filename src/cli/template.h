/* SPDX-License-Identifier: Apache-2.0 */
/* Templates as the commands see them. */
#ifndef TORPOR_CLI_TEMPLATE_H
#define TORPOR_CLI_TEMPLATE_H

#include "cli/args.h"

/* Lists all of them, or those of a type ("snapshot"; NULL: all), in the form that -o says. */
int template_list(struct cli *c, const struct args *a, const char *type, struct err *e);

#endif
