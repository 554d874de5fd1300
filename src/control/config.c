/* SPDX-License-Identifier: Apache-2.0 */
/* Settings from the environment. */
#include "control/control.h"

#include <arpa/inet.h>
#include <stdlib.h>
#include <string.h>

#include "base/slice.h"

static int required(const char *name, const char *what, const char **ret, struct err *e)
{
    const char *v = getenv(name);
    if (!v || !v[0])
        return err_field(e, name, "%s is not set: %s", name, what);
    *ret = v;
    return 0;
}

static int parse_listen(const char *text, struct control_config *c, struct err *e)
{
    const char *colon = strrchr(text, ':');
    struct in_addr addr;
    uint64_t port;
    if (!colon ||
        !slice_copy_cstr(
            slice_of(text, (size_t)(colon - text)), c->listen_ipv4, sizeof c->listen_ipv4) ||
        inet_pton(AF_INET, c->listen_ipv4, &addr) != 1 ||
        !slice_parse_u64(slice_cstr(colon + 1), &port) || port > UINT16_MAX)
        return err_field(e, "TORPOR_LISTEN",
            "TORPOR_LISTEN=%s: must be an IPv4 address and a port, like 127.0.0.1:8080", text);
    c->listen_port = (uint16_t)port;
    return 0;
}

static bool is_loopback(const char *ipv4)
{
    struct in_addr addr;
    return inet_pton(AF_INET, ipv4, &addr) == 1 && ntohl(addr.s_addr) >> 24 == 127;
}

static int check_exposure(const struct control_config *c, struct err *e)
{
    const char *v = getenv("TORPOR_INSECURE_HTTP");
    bool insecure = v && strcmp(v, "1") == 0;
    if (v && v[0] && !insecure && strcmp(v, "0") != 0)
        return err_field(e, "TORPOR_INSECURE_HTTP", "TORPOR_INSECURE_HTTP=%s: must be 0 or 1", v);
    if (!is_loopback(c->listen_ipv4) && !insecure)
        return err_field(e, "TORPOR_LISTEN",
            "TORPOR_LISTEN=%s:%u: API keys would cross the network in the clear; listen on "
            "127.0.0.1, or set TORPOR_INSECURE_HTTP=1 behind a proxy that does TLS",
            c->listen_ipv4, c->listen_port);
    return 0;
}

int control_config_from_env(struct control_config *ret, struct err *e)
{
    struct control_config c = {0};
    const char *listen = getenv("TORPOR_LISTEN");
    if (required("TORPOR_DIR", "the data folder", &c.dir, e) < 0 ||
        required("TORPOR_AGENT_SOCKET", "the socket of the host's agent", &c.agent_socket, e) < 0 ||
        parse_listen(listen && listen[0] ? listen : "127.0.0.1:0", &c, e) < 0 ||
        check_exposure(&c, e) < 0)
        return -1;
    *ret = c;
    return 0;
}
