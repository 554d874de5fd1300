/* SPDX-License-Identifier: Apache-2.0 */
/* What the handshake hands to the connection. */
#ifndef TORPOR_HTTP_WS_INT_H
#define TORPOR_HTTP_WS_INT_H

#include "http/websocket.h"

struct ws_open {
    int fd;
    bool owns_fd;
    bool is_client;
    size_t message_max;
    struct slice early; /* received behind the handshake; copied */
};
/* NULL with ERR_NOMEM; the descriptor is the caller's then. */
struct ws *ws_new(const struct ws_open *open, struct err *e);

#endif
