/* SPDX-License-Identifier: Apache-2.0 */
/* torpor-agent: owns the sandboxes of one host. */
#define LOG_MODULE "agent"
#include <getopt.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/agent.h"
#include "agent/net/net.h"
#include "base/log.h"

static const char usage[] =
    "Usage: torpor-agent [--ready-fd N]\n"
    "Serves the sandboxes of this host over a unix socket. Settings come from the environment;\n"
    "TORPOR_DIR is the data folder. SIGTERM stops every VM and removes what it made of the host.\n";

/* The descriptor of --ready-fd, -1 without; -2 for a bad command line. */
static int parse_options(int argc, char **argv)
{
    static const struct option options[] = {
        {"ready-fd", required_argument, NULL, 'r'}, {"help", no_argument, NULL, 'h'}, {0}};
    int ready_fd = -1;
    for (int c; (c = getopt_long(argc, argv, "h", options, NULL)) != -1;) {
        char *end;
        if (c != 'r')
            return -2;
        ready_fd = (int)strtol(optarg, &end, 10);
        if (*end || ready_fd < 3)
            return -2;
    }
    return optind == argc ? ready_fd : -2;
}

static void wait_for_stop(const sigset_t *set)
{
    int sig = 0;
    (void)sigwait(set, &sig);
    log_info("stopping signal=%s", strsignal(sig));
}

int main(int argc, char **argv)
{
    struct err e = {0};
    struct agent *a;
    sigset_t set;
    int ready_fd;
    if (argc > 1 && strcmp(argv[1], "net-helper") == 0)
        return net_helper_main(argc, argv);
    ready_fd = parse_options(argc, argv);
    if (ready_fd == -2) {
        (void)fputs(usage, stderr);
        return 2;
    }
    /* Before any thread starts, so that all inherit it and only sigwait takes these. */
    (void)sigemptyset(&set);
    (void)sigaddset(&set, SIGTERM);
    (void)sigaddset(&set, SIGINT);
    (void)pthread_sigmask(SIG_BLOCK, &set, NULL);
    (void)signal(SIGPIPE, SIG_IGN);
    a = agent_start(ready_fd, &e);
    if (!a) {
        log_err("cannot start: %s", e.msg);
        return 1;
    }
    log_info("serving");
    wait_for_stop(&set);
    if (agent_stop(a, &e) < 0) {
        log_err("could not remove everything: %s", e.msg);
        return 1;
    }
    return 0;
}
