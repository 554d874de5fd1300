/* SPDX-License-Identifier: Apache-2.0 */
/* Who may ask, and as which user of the guest an operation runs. */
#ifndef TORPOR_ENVD_ACCESS_H
#define TORPOR_ENVD_ACCESS_H

#include "base/err.h"

struct envd;
struct http_exchange;
struct user;

/* Judges the token of any request but /health and /init. ERR_UNAUTHORIZED with the texts of E2B's
 * envd, which its clients show. */
int access_check(struct envd *d, struct http_exchange *x, struct err *e);

/* The user of a REST operation (query `username`), the default user without one. Unknown users are
 * ERR_UNAUTHORIZED. */
int access_rest_user(struct envd *d, struct http_exchange *x, struct user *ret, struct err *e);
/* The user of an RPC (Authorization: Basic, the password does not count), likewise. */
int access_rpc_user(struct envd *d, struct http_exchange *x, struct user *ret, struct err *e);

#endif
