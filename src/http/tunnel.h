/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Tunnels: bytes moved both ways between two stream sockets, many tunnels by one thread.
 *
 * Each direction holds at most one buffer of bytes that its receiver has not taken yet; until it
 * has, nothing more is read from the sender, so back-pressure is the socket and memory is constant.
 * An idle tunnel holds no buffer at all. The end of one direction is passed on (half-close), the
 * other goes on.
 */
#ifndef TORPOR_HTTP_TUNNEL_H
#define TORPOR_HTTP_TUNNEL_H

#include "base/err.h"
#include "base/slice.h"

struct tunnel_pump;

enum tunnel_end {
    TUNNEL_CLOSED,  /* both directions ended */
    TUNNEL_BROKEN,  /* a peer went away in the middle */
    TUNNEL_IDLE,    /* no byte for the idle time */
    TUNNEL_STOPPED, /* the pump was stopped */
    TUNNEL_END_COUNT
};

struct tunnel_result {
    enum tunnel_end why;
    uint64_t a_to_b; /* bytes delivered, early ones included */
    uint64_t b_to_a;
};
/* Told once for each tunnel, on the pump's thread or in tunnel_pump_stop, after both descriptors
 * were closed. Must not block, and not call the pump. */
typedef void tunnel_on_end(void *ctx, const struct tunnel_result *result);

struct tunnel_pump_config {
    size_t tunnels_max;  /* 0: 1024 */
    int idle_timeout_ms; /* without a byte either way; 0: 600000 */
};

struct tunnel_spec {
    int a; /* stream sockets; the pump makes them non-blocking */
    int b;
    struct slice a_early;  /* received from a already: goes to b first; copied */
    struct slice b_early;  /* and from b, to a */
    tunnel_on_end *on_end; /* NULL: nobody */
    void *ctx;
};

/* Starts the thread. */
struct tunnel_pump *tunnel_pump_start(const struct tunnel_pump_config *config, struct err *e);
/* Ends all tunnels and the thread, frees. NULL is fine. Stop the server that adds tunnels first. */
void tunnel_pump_stop(struct tunnel_pump *p);
/* Takes over both descriptors, also on failure (closed then, on_end not called). Any thread.
 * ERR_NO_CAPACITY beyond tunnels_max. */
int tunnel_add(struct tunnel_pump *p, const struct tunnel_spec *spec, struct err *e);
size_t tunnel_count(struct tunnel_pump *p);

#endif
