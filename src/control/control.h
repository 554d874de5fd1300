/* SPDX-License-Identifier: Apache-2.0 */
/* The control plane as a whole: settings, start, stop. */
#ifndef TORPOR_CONTROL_CONTROL_H
#define TORPOR_CONTROL_CONTROL_H

#include <stdint.h>

#include "base/err.h"

enum { CONTROL_IPV4_MAX = 16, CONTROL_URL_MAX = 64 };

struct control_config {
    const char *dir; /* data folder; made when missing */
    const char *agent_socket;
    char listen_ipv4[CONTROL_IPV4_MAX];
    uint16_t listen_port; /* 0: a free one */
    int poll_ms;          /* these four as in struct service_config; 0: its defaults */
    int gap_ms;
    int full_every_ms;
    int lock_wait_ms;
};

/*
 * From the environment:
 *   TORPOR_DIR            data folder, required
 *   TORPOR_AGENT_SOCKET   where the host's agent listens, required
 *   TORPOR_LISTEN         IPv4 address and port (127.0.0.1:0)
 *   TORPOR_INSECURE_HTTP  1 allows another address than loopback, behind a proxy that does TLS (0)
 * A bad value fails with its name, the value and what is allowed.
 */
int control_config_from_env(struct control_config *ret, struct err *e);

struct control;
/* Opens the data folder (which one control plane holds at a time) and serves. */
int control_start(const struct control_config *config, struct control **ret, struct err *e);
/* Lets requests under way end, writes what is gathered, frees. NULL is fine. Returns NULL. */
struct control *control_stop(struct control *c);
/* "http://127.0.0.1:4711" */
void control_url(const struct control *c, char dst[CONTROL_URL_MAX]);

#endif
