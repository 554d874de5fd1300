/* SPDX-License-Identifier: Apache-2.0 */
/*
 * torpor down: stops what `up` started and leaves nothing of it on the host.
 *
 * The control plane ends first, then the agent, which leaves VMs running; then the agent's
 * --stop-all ends these and removes all of the instance, also where the agent had crashed.
 */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/io.h"
#include "cli/args.h"
#include "cli/daemon.h"
#include "cli/leftovers.h"

enum { LEFT_MAX = 64 * 1024 };

static int stop_control(struct host_run *r, struct err *e)
{
    enum daemon_end end;
    struct note note;
    if (!home_noted(&r->home, "control", &note))
        return 0;
    if (daemon_stop(r, "control", &end, e) < 0)
        return -1;
    home_forget(&r->home, "control");
    return 0;
}

static int check_nothing_left(struct host_run *r, const struct note *note, struct err *e)
{
    AUTO_BUF struct buf left = BUF_INIT(LEFT_MAX);
    char instance[16];
    if (!note_word(note, "instance", instance, sizeof instance))
        return 0;
    if (leftovers_find((unsigned)strtoul(instance, NULL, 10), &left, e) < 0)
        return -1;
    if (left.len == 0)
        return 0;
    daemon_show_log(r, "agent");
    (void)fprintf(r->cli->err, "Still there:\n%s", left.p);
    return err_set(e, ERR_INTERNAL, "something is left on the host, see above");
}

/* The socket that a killed agent could not remove, and its folder where nothing else is in it. */
static void remove_socket(const struct note *note)
{
    char path[HOME_WORDS_MAX];
    char *slash;
    if (!note_word(note, "socket", path, sizeof path) || path[0] != '/')
        return;
    (void)unlink(path);
    slash = strrchr(path, '/');
    *slash = '\0';
    (void)rmdir(path);
}

static int stop_agent(struct host_run *r, const struct note *note, struct err *e)
{
    enum daemon_end end;
    if (daemon_stop(r, "agent", &end, e) < 0)
        return -1;
    if (!note_is_of_this_boot(note)) {
        host_say(r, "the machine was started anew since then: nothing can be left");
        return 0;
    }
    host_say(r, "stopping the virtual machines");
    if (daemon_stop_all(r, e) < 0) {
        daemon_show_log(r, "agent");
        return err_wrap(e, "what it made of this host is still there");
    }
    remove_socket(note);
    return check_nothing_left(r, note, e);
}

static void say_waiting(void *ctx)
{
    host_say(ctx, "waiting for another torpor up or down");
}

static int stop_both(struct host_run *r, struct err *e)
{
    struct note agent, control;
    bool has_agent = home_noted(&r->home, "agent", &agent);
    if (!has_agent && !home_noted(&r->home, "control", &control)) {
        host_say(r, "nothing is running; the data is in %s", r->home.data);
        return EXIT_OK;
    }
    if (stop_control(r, e) < 0 || (has_agent && stop_agent(r, &agent, e) < 0))
        return -1;
    home_forget(&r->home, "agent");
    host_say(r, "stopped; the data stays in %s", r->home.data);
    return EXIT_OK;
}

static int run_down(struct cli *c, const struct args *a, struct err *e)
{
    struct host_run r = {.cli = c, .verb = "down"};
    const char *user = getenv("TORPOR_USER");
    char path[PATH_MAX];
    int rc;
    if (geteuid() != 0)
        return err_set(
            e, ERR_FORBIDDEN, "needs root: it stops processes of root and removes network devices");
    (void)snprintf(r.user, sizeof r.user, "%s", user && user[0] ? user : "torpor");
    if (home_find(&r.home, e) < 0)
        return -1;
    (void)snprintf(path, sizeof path, "%s/run", r.home.home);
    if (access(path, F_OK) < 0) {
        host_say(&r, "nothing was ever started in %s", r.home.home);
        return EXIT_OK;
    }
    if (home_open(&r.home, say_waiting, &r, e) < 0)
        return -1;
    rc = stop_both(&r, e);
    home_close(&r.home);
    return rc;
}

const struct cli_command command_down = {.name = "down",
    .arguments = "",
    .summary = "stop Torpor on this host (as root)",
    .about =
        "Stops control plane, agent and all VMs of the installation in TORPOR_DIR, and removes\n"
        "what they made of the host: no process, namespace, network device or rule is left. Data,\n"
        "logs and the env file stay.",
    .example = "TORPOR_DIR=/srv/torpor torpor down",
    .run = run_down};
