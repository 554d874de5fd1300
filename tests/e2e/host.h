/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the host and the agent hold beyond stack.h's host_picture, as sorted lines, so that two
 * pictures can be compared.
 */
#ifndef TORPOR_TESTS_E2E_HOST_H
#define TORPOR_TESTS_E2E_HOST_H

#include "stack.h"

/* Appends the mounts and loop devices of this stack, and every element of its nft tables. */
void host_kernel_picture(const struct stack *s, struct buf *ret);
/* Appends what the agent's descriptors refer to, but for sockets, of which there are more or fewer
 * with each connection that is kept for the next call. */
void agent_descriptors(const struct stack *s, struct buf *ret);
/* How many sockets the agent has. */
size_t agent_sockets(const struct stack *s);
/* Prints the lines that one of both texts has more often than the other. */
void print_difference(const char *before, const char *now);
/* Removes the files "<id>.json" of a folder whose id is not in `listed`. Returns how many. */
unsigned remove_unlisted(const char *folder, const struct buf *listed);

#endif
