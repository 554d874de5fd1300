/* SPDX-License-Identifier: Apache-2.0 */
/* What the conformance server has for clients that speak plain HTTP. */
#ifndef TORPOR_TESTS_CONFORMANCE_PAGES_H
#define TORPOR_TESTS_CONFORMANCE_PAGES_H

struct http_exchange;

/* Answers any path; 404 for those that there are not. */
void pages_serve(struct http_exchange *x);

#endif
