/* SPDX-License-Identifier: Apache-2.0 */
/* The WebSockets of the conformance server. */
#ifndef TORPOR_TESTS_CONFORMANCE_SOCKETS_H
#define TORPOR_TESTS_CONFORMANCE_SOCKETS_H

#include <stdbool.h>

struct http_exchange;

/* Serves /ws and /ws-same-origin; false, with nothing sent, for any other path. */
bool sockets_serve(struct http_exchange *x);

#endif
