/* SPDX-License-Identifier: Apache-2.0 */
/*
 * PID 1.
 *
 * Theory of operation. The first thread sets the machine up, starts the service, and then only
 * waits for signals: SIGCHLD makes it reap orphans (who reaps what is told in spawn.c), SIGTERM and
 * ctrl-alt-del power off. It must not end, whatever fails: the kernel panics without PID 1.
 */
#include "envd/boot.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "envd/link.h"
#include "envd/mounts.h"
#include "envd/reaper.h"

#define LOG_MODULE "boot"
#include "base/log.h"

#define HOSTNAME_DEFAULT "sandbox" /* until the first /init */

/* Opens what the kernel or initramfs left closed, so that no file of ours becomes anyone's output,
 * and closes what else it left open, so that no process inherits it. */
static void fill_standard_fds(void)
{
    int fd;
    do
        fd = open("/dev/null", O_RDWR | O_CLOEXEC);
    while (fd >= 0 && fd <= STDERR_FILENO);
    (void)syscall(SYS_close_range, STDERR_FILENO + 1, ~0u, 0);
}

/* Only a whole machine out of memory ends us; what we start gets 100 (spawn.c). */
static void protect_from_oom(void)
{
    AUTO_CLOSE int fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
    if (fd < 0 || write(fd, "-1000", 5) != 5)
        log_warn("cannot lower oom_score_adj: %s", strerror(errno));
}

void boot_prepare(void)
{
    struct err e = {0};
    (void)umask(022);
    if (mounts_set_up(&e) < 0)
        log_err("%s", e.msg);
    fill_standard_fds();
    protect_from_oom();
    if (reboot(RB_DISABLE_CAD) < 0)
        log_warn("ctrl-alt-del will not be a signal: %s", strerror(errno));
    if (sethostname(HOSTNAME_DEFAULT, sizeof HOSTNAME_DEFAULT - 1) < 0)
        log_err("sethostname: %s", strerror(errno));
    if (link_set_up_loopback(&e) < 0)
        log_err("%s", e.msg);
}

void boot_signals(sigset_t *ret)
{
    (void)sigemptyset(ret);
    (void)sigaddset(ret, SIGCHLD);
    (void)sigaddset(ret, SIGTERM);
    (void)sigaddset(ret, SIGINT);
    (void)sigaddset(ret, SIGPIPE); /* never meant: writes say EPIPE */
}

void boot_run(const sigset_t *signals)
{
    for (;;) {
        int sig = sigwaitinfo(signals, NULL);
        if (sig == SIGCHLD) {
            (void)reaper_sweep();
        } else if (sig == SIGTERM || sig == SIGINT) {
            log_info("powering off signal=%d", sig);
            return;
        }
    }
}

void boot_power_off(void)
{
    sync();
    (void)reboot(RB_POWER_OFF);
    log_err("power off: %s", strerror(errno));
}
