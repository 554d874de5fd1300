/* SPDX-License-Identifier: Apache-2.0 */
/* torpor-control [--ready-fd N]: starts the control plane and stops it at SIGTERM or SIGINT. */
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define LOG_MODULE "control"
#include "base/alloc.h"
#include "base/clock.h"
#include "base/io.h"
#include "base/log.h"
#include "control/control.h"

enum { READY_TIMEOUT_MS = 5000, EXIT_USAGE = 2 };

/* The descriptor of --ready-fd, -1 without; exits on anything else. */
static int parse_args(int argc, char **argv)
{
    uint64_t fd;
    if (argc == 1)
        return -1;
    if (argc == 3 && strcmp(argv[1], "--ready-fd") == 0 &&
        slice_parse_u64(slice_cstr(argv[2]), &fd) && fd <= INT32_MAX)
        return (int)fd;
    (void)fprintf(stderr, "usage: torpor-control [--ready-fd N]\n");
    exit(EXIT_USAGE);
}

static int say_ready(int fd, const char *url, struct err *e)
{
    char line[CONTROL_URL_MAX + 16];
    int n = snprintf(line, sizeof line, "ready url=%s\n", url);
    int rc = fd < 0 ? 0 : io_write_full(fd, line, (size_t)n, deadline_in_ms(READY_TIMEOUT_MS), e);
    if (fd >= 0)
        (void)close(fd);
    return rc;
}

/* Serves until a signal of `stop` comes. */
static int run(int ready_fd, const sigset_t *stop, struct err *e)
{
    struct control_config config;
    struct control *control;
    char url[CONTROL_URL_MAX];
    int sig = 0;
    if (control_config_from_env(&config, e) < 0 || control_start(&config, &control, e) < 0)
        return -1;
    control_url(control, url);
    log_info("listening url=%s", url);
    if (say_ready(ready_fd, url, e) < 0) {
        (void)control_stop(control);
        return err_wrap(e, "--ready-fd");
    }
    (void)sigwait(stop, &sig);
    log_info("stopping signal=%d", sig);
    (void)control_stop(control);
    return 0;
}

int main(int argc, char **argv)
{
    struct err e = {0};
    sigset_t stop;
    int ready_fd = parse_args(argc, argv);
    alloc_init();
    (void)umask(077);
    (void)signal(SIGPIPE, SIG_IGN);
    /* Blocked before any thread starts, so that only sigwait gets them. */
    (void)sigemptyset(&stop);
    (void)sigaddset(&stop, SIGTERM);
    (void)sigaddset(&stop, SIGINT);
    (void)pthread_sigmask(SIG_BLOCK, &stop, NULL);
    if (run(ready_fd, &stop, &e) < 0) {
        log_err("%s", e.msg);
        return EXIT_FAILURE;
    }
    return EXIT_SUCCESS;
}
