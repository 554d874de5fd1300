/* SPDX-License-Identifier: Apache-2.0 */
/*
 * torpor up: starts what does not run, restarts what has changed, leaves the rest alone.
 *
 * Order: user and folders, programs, agent, control plane, the env file, a first sandbox. What was
 * started stays when a later step fails; the next `up` goes on from there and `down` ends it.
 */
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli/args.h"
#include "cli/first.h"
#include "cli/programs.h"
#include "cli/up.h"

/* --- the two daemons --- */

static int stop_changed(struct host_run *r, const char *name, bool changed, struct err *e)
{
    enum daemon_end end;
    struct note note;
    if (!changed || !daemon_is_up(r, name, &note))
        return 0;
    host_say(r, "torpor-%s has changed: restarting it", name);
    return daemon_stop(r, name, &end, e);
}

static int install(struct host_run *r, struct err *e)
{
    struct programs p;
    if (programs_find(r, &p, e) < 0)
        return -1;
    if (!p.any_changed)
        return 0;
    if (stop_changed(r, "control", p.control_changed, e) < 0 ||
        stop_changed(r, "agent", p.agent_changed, e) < 0)
        return -1;
    return programs_install(r, &p, e);
}

static int agent_up(struct host_run *r, struct err *e)
{
    struct note note;
    if (daemon_is_up(r, "agent", &note)) {
        host_say(r, "torpor-agent is running (pid %d)", (int)note.id.pid);
        return 0;
    }
    host_say(r, "starting torpor-agent");
    if (daemon_start_agent(r, e) == 0)
        return 0;
    daemon_show_log(r, "agent");
    return -1;
}

/* --- all of it --- */

static void say_up(struct host_run *r)
{
    const char *home = r->home.home;
    (void)fprintf(r->cli->out,
        "\nTorpor is up.\n"
        "  address  %s\n"
        "  API key  %s\n"
        "  both in  %s/env\n"
        "  logs     %s/log/agent.log, %s/log/control.log\n"
        "  data     %s\n"
        "Try      %s/bin/torpor create; torpor down stops all and keeps the data.\n",
        r->url, r->key, home, home, home, r->home.data, r->home.data);
}

static void say_waiting(void *ctx)
{
    host_say(ctx, "waiting for another torpor up or down");
}

/* Makes user and folders only, and prints the data folder. */
static int prepare_only(struct host_run *r)
{
    (void)fprintf(r->cli->out, "%s\n", r->home.data);
    return EXIT_OK;
}

static int run_up(struct cli *c, const struct args *a, struct err *e)
{
    struct host_run r = {.cli = c, .verb = "up", .home = {.fd = -1, .lock_fd = -1}};
    struct cli quiet = *c;
    const char *user = getenv("TORPOR_USER");
    int rc = -1;
    (void)umask(022);
    if (geteuid() != 0)
        return err_set(e, ERR_FORBIDDEN,
            "needs root: it makes network devices and starts VMs under users of their own");
    (void)snprintf(r.user, sizeof r.user, "%s", user && user[0] ? user : "torpor");
    if (args_flag(a, "prepare")) {
        quiet.out = c->err; /* the result alone is on standard output */
        r.cli = &quiet;
    }
    if (home_open(&r.home, say_waiting, &r, e) < 0)
        return -1;
    if (up_user(&r, e) == 0 && up_data(&r, e) == 0)
        rc = 0;
    if (rc == 0 && args_flag(a, "prepare")) {
        r.cli = c;
        rc = prepare_only(&r);
    } else if (rc == 0) {
        rc = install(&r, e) < 0 || agent_up(&r, e) < 0 || up_control(&r, e) < 0 ||
                     up_env(&r, e) < 0 || (!args_flag(a, "no-sandbox") && first_sandbox(&r, e) < 0)
                 ? -1
                 : EXIT_OK;
        if (rc == EXIT_OK)
            say_up(&r);
    }
    home_close(&r.home);
    return rc;
}

static const struct cli_option up_options[] = {
    {.name = "no-sandbox", .help = "do not run a first sandbox"},
    {.name = "prepare", .help = "only make user and folders, and print the data folder"}, {0}};

const struct cli_command command_up = {.name = "up",
    .arguments = "",
    .summary = "start Torpor on this host (as root)",
    .about =
        "Starts agent and control plane in the background and runs a first sandbox. Run again, it\n"
        "leaves alone what runs, and restarts what has changed. Kernel and images must be there\n"
        "(make up makes them). Settings from the environment:\n"
        "  TORPOR_DIR       the installation's folder, default ./var when it is there, else\n"
        "                   /var/lib/torpor\n"
        "  TORPOR_LISTEN    HOST:PORT of the API; default a free port of 127.0.0.1, kept from then "
        "on\n"
        "  TORPOR_USER      whom the control plane runs as, default torpor\n"
        "  TORPOR_PROGRAMS  a folder with the programs, default that of this one\n"
        "All other TORPOR_ settings are handed to the two.",
    .example = "TORPOR_DIR=/srv/torpor TORPOR_LISTEN=127.0.0.1:8080 torpor up",
    .options = up_options,
    .run = run_up};
