/* SPDX-License-Identifier: Apache-2.0 */
/* The orphans' half of the reaping; the theory is in spawn.c. */
#include "envd/reaper.h"

#include <errno.h>
#include <sys/wait.h>

size_t reaper_sweep(void)
{
    size_t n = 0;
    for (;;) {
        pid_t pid = waitpid(-1, NULL, WNOHANG | __WNOTHREAD);
        if (pid > 0)
            n++;
        else if (pid == 0 || errno != EINTR)
            return n;
    }
}
