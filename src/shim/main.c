/* SPDX-License-Identifier: Apache-2.0 */
/*
 * torpor-shim <sandbox id> <run folder>: parent of one VMM. Started by the agent only; the
 * arguments are for people and for an agent that looks for shims of its run folder. Descriptor 3
 * brings the launch plan (proto/shim.h); 0, 1 and 2 are /dev/null.
 */
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "shim/confine.h"
#include "shim/serve.h"

/* Restarting services, closing terminals and vanished peers must not end a VM. */
static void ignore_signals(void)
{
    static const int ignored[] = {
        SIGTERM, SIGINT, SIGHUP, SIGQUIT, SIGPIPE, SIGUSR1, SIGUSR2, SIGALRM, SIGTSTP};
    for (size_t i = 0; i < ARRAY_LEN(ignored); i++)
        (void)signal(ignored[i], SIG_IGN);
}

/* The descriptors that the VMM has, or that are of no more use, close with the plan. */
static int start(
    struct plan *p, struct memory *m, const char *id, struct serve_params *ret, struct err *e)
{
    struct launched vmm;
    if (plan_receive(SHIM_PLAN_FD, p, e) < 0)
        return -1;
    if (strcmp(p->head.id, id) != 0)
        return err_set(e, ERR_PROTOCOL, "the launch plan is for another sandbox");
    if (memory_prepare(m, p, e) < 0 || launch_vmm(p, m, SHIM_PLAN_FD, &vmm, e) < 0)
        return -1;
    *ret = (struct serve_params){
        .vmm = vmm,
        .memory = m,
        .id = id,
        .agent_fd = SHIM_PLAN_FD,
        .listen_fd = TAKE_FD(p->fds[SHIM_FD_LISTEN]),
        .console_dir = TAKE_FD(p->fds[SHIM_FD_CONSOLE_DIR]),
    };
    return 0;
}

static int run(const char *id, struct err *e)
{
    static struct memory memory;
    struct serve_params params;
    struct plan *p = plan_new();
    int rc;
    memory_init(&memory);
    if (chdir("/") < 0)
        rc = err_sys(e, errno, "enter the root folder");
    else
        rc =
            p ? start(p, &memory, id, &params, e) : err_set(e, ERR_NOMEM, "no memory for the plan");
    (void)plan_free(p);
    if (rc < 0)
        return -1;
    if (confine_shim(e) == 0 && serve(&params, e) == 0)
        return 0;
    launch_end(&params.vmm);
    return -1;
}

int main(int argc, char **argv)
{
    struct err e = {0};
    if (argc != 3) {
        (void)fprintf(
            stderr, "usage: torpor-shim SANDBOX_ID RUN_FOLDER (started by torpor-agent)\n");
        return 2;
    }
    ignore_signals();
    if (run(argv[1], &e) < 0) {
        serve_report_failure(SHIM_PLAN_FD, argv[1], &e);
        _exit(1);
    }
    _exit(0); /* no handlers: those of a sanitizer would make calls that the filter ends */
}
