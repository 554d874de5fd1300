/* SPDX-License-Identifier: Apache-2.0 */
/* A server that answers by a script, and remembers what it was asked. */
#ifndef TORPOR_TEST_CLI_FAKE_API_H
#define TORPOR_TEST_CLI_FAKE_API_H

#include "base/buf.h"

/* One answer, for the first request that fits and has none yet. */
struct fake_answer {
    const char *request; /* "METHOD target" */
    int status;
    const char *body;
    const char *next_cursor; /* NULL: none */
    bool breaks;             /* the body stops half-way */
};

/* Starts it with the answers (at most 32; a request without one gets 500), and points TORPOR_URL
 * and TORPOR_API_KEY to it. */
void fake_api_start(const struct fake_answer *answers, size_t n);
void fake_api_stop(void);
/* The header Server-Timing of all answers from now on; NULL: none. */
void fake_api_timing(const char *text);
/* All requests so far: "METHOD target\nbody\n" each. */
const char *fake_api_log(void);
/* The last body as it was. */
const struct buf *fake_api_body(void);

#endif
