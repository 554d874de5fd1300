/* SPDX-License-Identifier: Apache-2.0 */
/* The service process.Process (proto/process.proto). */
#ifndef TORPOR_ENVD_PROCESS_H
#define TORPOR_ENVD_PROCESS_H

#include <stdbool.h>

struct envd;
struct gate_pass;
struct http_exchange;

/* Answers the exchange when its path is one of the service's methods; false, with nothing sent, for
 * any other. Access has been checked. A Start holds the thread until its process is over, and the
 * pass as long as its stream. */
bool process_serve(struct envd *d, struct http_exchange *x, struct gate_pass *pass);

#endif
