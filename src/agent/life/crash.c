/* SPDX-License-Identifier: Apache-2.0 */
/* Crash points. */
#define LOG_MODULE "crash"
#include "agent/life/crash.h"

#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "agent/life/life_int.h"
#include "base/log.h"

static char wanted[64]; /* "create/network slot/" */
static char victim[16];
static atomic_bool armed;

void crash_init(void)
{
    const char *text = getenv("TORPOR_CRASH");
    const char *last = text ? strrchr(text, '/') : NULL;
    if (!last || (size_t)(last - text) >= sizeof wanted || strlen(last + 1) >= sizeof victim)
        return;
    (void)snprintf(wanted, sizeof wanted, "%.*s", (int)(last - text), text);
    (void)snprintf(victim, sizeof victim, "%s", last + 1);
    atomic_store(&armed, true);
}

static void kill_pid(pid_t pid)
{
    if (pid > 0)
        (void)kill(pid, SIGKILL);
}

void crash_point(const char *operation, const char *step, struct sandbox *s)
{
    char here[64];
    if (!atomic_load(&armed))
        return;
    (void)snprintf(here, sizeof here, "%s/%s", operation, step);
    if (strcmp(here, wanted) != 0 || !atomic_exchange(&armed, false))
        return;
    log_warn("crash point at=\"%s\" victim=%s", here, victim);
    if (strcmp(victim, "agent") == 0)
        kill_pid(getpid());
    else if (strcmp(victim, "stop") == 0)
        (void)raise(SIGSTOP);
    else if (s->vmm)
        kill_pid(strcmp(victim, "vmm") == 0 ? vmm_pid(s->vmm) : vmm_shim_pid(s->vmm));
}
