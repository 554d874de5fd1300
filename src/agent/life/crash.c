/* SPDX-License-Identifier: Apache-2.0 */
/* Crash points. */
#define LOG_MODULE "crash"
#include "agent/life/crash.h"

#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
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

static bool is_victim(const char *name)
{
    return strcmp(victim, name) == 0 || strcmp(victim, "all") == 0;
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
    if (s && s->vmm && is_victim("shim"))
        kill_pid(vmm_shim_pid(s->vmm));
    if (s && s->vmm && is_victim("vmm"))
        kill_pid(vmm_pid(s->vmm));
    if (is_victim("stop"))
        (void)raise(SIGSTOP);
}

void crash_point_of_store(const char *operation, const char *step)
{
    crash_point(operation, step, /* s= */ NULL);
}
