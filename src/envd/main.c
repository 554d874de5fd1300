/* SPDX-License-Identifier: Apache-2.0 */
/* torpor-envd: PID 1 of a guest. */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/sock.h"
#include "envd/boot.h"
#include "envd/envd.h"
#include "envd/link.h"
#include "envd/system.h"
#include "proto/limits.h"

#define LOG_MODULE "envd"
#include "base/log.h"

#define GUEST_INTERFACE "eth0"

/* Listens first and configures the network last: see link_set_up_guest. Returns 0 or -1. */
static int serve(struct err *e)
{
    const struct envd_config config = {
        .listen_fd = sock_listen_tcp("0.0.0.0", GUEST_ENVD_PORT, e),
        .etc_dir = "/etc",
        .system = &system_ops_real,
    };
    if (config.listen_fd < 0 || !envd_start(&config, e))
        return -1;
    return link_set_up_guest(GUEST_INTERFACE, e);
}

int main(int argc, char **argv)
{
    struct err e = {0};
    sigset_t signals;
    if (getpid() != 1) {
        (void)fprintf(stderr, "torpor-envd is the first process of a Torpor guest "
                              "and does nothing elsewhere\n");
        return 2;
    }
    boot_signals(&signals);
    (void)sigprocmask(SIG_BLOCK, &signals, NULL);
    boot_prepare();
    if (serve(&e) < 0)
        log_err("%s", e.msg); /* the host gives up on us and says so; the console shows this */
    else
        log_info("ready port=%d", GUEST_ENVD_PORT);
    boot_run(&signals);
    boot_power_off();
    return 1;
}
