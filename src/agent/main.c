/* SPDX-License-Identifier: Apache-2.0 */
/* torpor-agent: owns the sandboxes of one host. */
#define LOG_MODULE "agent"
#include <getopt.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/agent.h"
#include "agent/net/net.h"
#include "base/alloc.h"
#include "base/log.h"

static const char usage[] =
    "Usage: torpor-agent [--ready-fd N | --drain | --stop-all]\n"
    "Serves the sandboxes of this host over a unix socket. Settings come from the environment;\n"
    "TORPOR_DIR is the data folder. SIGTERM ends the agent only: VMs run on, and the next agent\n"
    "of the same folder adopts them. Once it has ended, --drain puts all to sleep and stops\n"
    "nothing (exit status 1 when one runs on); --stop-all also stops what cannot sleep, and\n"
    "removes all of it from the host.\n";

struct options {
    int ready_fd;              /* -1: none */
    int (*end)(struct err *e); /* NULL: it serves */
};

static bool parse_options(int argc, char **argv, struct options *ret)
{
    static const struct option options[] = {{"ready-fd", required_argument, NULL, 'r'},
        {"stop-all", no_argument, NULL, 's'}, {"drain", no_argument, NULL, 'd'},
        {"help", no_argument, NULL, 'h'}, {0}};
    *ret = (struct options){.ready_fd = -1};
    for (int c; (c = getopt_long(argc, argv, "h", options, NULL)) != -1;) {
        char *end = NULL;
        if ((c == 's' || c == 'd') && !ret->end)
            ret->end = c == 's' ? agent_stop_all : agent_drain;
        else if (c != 'r')
            return false;
        else if ((ret->ready_fd = (int)strtol(optarg, &end, 10)) < 3 || *end)
            return false;
    }
    return optind == argc;
}

/* Serves nobody. */
static int end_all(int (*end)(struct err *e))
{
    struct err e = {0};
    if (end(&e) == 0)
        return 0;
    log_err("not all was done: %s", e.msg);
    return 1;
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
    struct options options;
    struct agent *a;
    sigset_t set;
    if (argc > 1 && strcmp(argv[1], "net-helper") == 0)
        return net_helper_main(argc, argv);
    if (!parse_options(argc, argv, &options)) {
        (void)fputs(usage, stderr);
        return 2;
    }
    alloc_init();
    /* Before any thread starts, so that all inherit it and only sigwait takes these. */
    (void)sigemptyset(&set);
    (void)sigaddset(&set, SIGTERM);
    (void)sigaddset(&set, SIGINT);
    (void)pthread_sigmask(SIG_BLOCK, &set, NULL);
    (void)signal(SIGPIPE, SIG_IGN);
    if (options.end)
        return end_all(options.end);
    a = agent_start(options.ready_fd, &e);
    if (!a) {
        log_err("cannot start: %s", e.msg);
        return 1;
    }
    log_info("serving");
    wait_for_stop(&set);
    if (agent_stop(a, &e) < 0) {
        log_err("could not leave cleanly: %s", e.msg);
        return 1;
    }
    return 0;
}
