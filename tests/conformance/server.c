/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Conformance server: our http and rpc libraries on a free loopback port, for clients that others
 * wrote. Prints "listening PORT" on its output when it serves, and ends when its input does, so it
 * never outlives the test that started it.
 */
#include <stdio.h>
#include <unistd.h>

#include "base/sock.h"
#include "echo.h"
#include "http/server.h"
#include "pages.h"
#include "sockets.h"

enum { ARENA_BYTES = 64 << 20, STACK_BYTES = 1 << 20 };

static void handle(struct http_exchange *x, void *ctx)
{
    (void)ctx;
    if (!echo_serve(x) && !sockets_serve(x))
        pages_serve(x);
}

static void wait_for_end_of_input(void)
{
    char sink[256];
    while (read(STDIN_FILENO, sink, sizeof sink) > 0)
        ;
}

int main(void)
{
    struct http_server_config config = {
        .handler = handle, .arena_bytes_max = ARENA_BYTES, .stack_bytes = STACK_BYTES};
    struct http_server *server = NULL;
    struct err e = {0};
    uint16_t port;
    config.listen_fd = sock_listen_tcp("127.0.0.1", 0, &e);
    port = config.listen_fd < 0 ? 0 : sock_local_port(config.listen_fd);
    if (config.listen_fd >= 0)
        server = http_server_start(&config, &e);
    if (!server) {
        (void)fprintf(stderr, "conformance server: %s\n", e.msg);
        return 1;
    }
    (void)printf("listening %u\n", port);
    (void)fflush(stdout);
    wait_for_end_of_input();
    http_server_stop(server);
    return 0;
}
