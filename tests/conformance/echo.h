/* SPDX-License-Identifier: Apache-2.0 */
/* The messages of echo.proto, and the service. */
#ifndef TORPOR_TESTS_CONFORMANCE_ECHO_H
#define TORPOR_TESTS_CONFORMANCE_ECHO_H

#include "rpc/message.h"

#define ECHO_PATH(method) "/conformance.Echo/" method

struct echo_request {
    struct slice text;
    struct slice data;
    int32_t count;
    int32_t size;
    int32_t delay_ms;
    struct slice code;
    struct slice tag;
    bool gated;
};
struct echo_response {
    struct slice text;
    struct slice data;
    int32_t index;
    int64_t size;
    int64_t timeout_ms;
    struct slice code;
};
extern const struct rpc_message echo_request_message, echo_response_message;

struct http_exchange;
/* Serves a call of the service; false, with nothing sent, for any other path. */
bool echo_serve(struct http_exchange *x);

/* What Release does, and a gated stream before its message `n` > 0: ERR_TIMEOUT after ten seconds.
 * Any thread. */
void echo_release(struct slice tag);
int echo_wait_released(struct slice tag, int n, struct err *e);

#endif
