/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Running nft(8): the rules on its standard input, no shell, what it complains about in our error.
 * Both are memory files, so that neither side ever waits for the other.
 */
#include "agent/net/net_int.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/io.h"
#include "base/proc.h"

enum { NFT_TIMEOUT_MS = 10000, NFT_COMPLAINT_MAX = 160 };

static int held_fd = -1;

void net_nft_hold(int fd)
{
    held_fd = fd;
}

static const char *find_nft(void)
{
    static const char *const places[] = {"/usr/sbin/nft", "/sbin/nft", "/usr/bin/nft"};
    for (size_t i = 0; i < ARRAY_LEN(places); i++)
        if (access(places[i], X_OK) == 0)
            return places[i];
    return NULL;
}

/* Waits for the end with a deadline; past it nft is killed. Our own child keeps its pid until it is
 * reaped, so the pid is enough to open it. */
static int wait_for_nft(pid_t pid, int *ret_status, struct err *e)
{
    struct err late = {0};
    AUTO_CLOSE int pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
    int rc = pidfd < 0 ? err_sys(&late, errno, "pidfd_open")
                       : proc_wait_gone(pidfd, deadline_in_ms(NFT_TIMEOUT_MS), &late);
    if (rc < 0)
        (void)kill(pid, SIGKILL);
    if (proc_reap(pid, ret_status, e) < 0)
        return -1;
    if (rc < 0) {
        *e = late;
        return err_wrap(e, "nft");
    }
    return 0;
}

static int nft_failed(int complaint_fd, int status, struct err *e)
{
    char text[NFT_COMPLAINT_MAX + 1];
    ssize_t n = pread(complaint_fd, text, NFT_COMPLAINT_MAX, 0);
    text[n > 0 ? n : 0] = 0;
    text[strcspn(text, "\n")] = 0;
    return err_set(e, ERR_IO, "nft ended with status %#x: %s", (unsigned)status, text);
}

int net_nft_load(const struct buf *rules, struct err *e)
{
    const char *nft = find_nft();
    char *argv[] = {(char *)"nft", (char *)"-f", (char *)"-", NULL};
    int status;
    pid_t pid;
    if (rules->failed)
        return err_set(e, ERR_NOMEM, "no memory for the nft rules");
    if (!nft)
        return err_set(e, ERR_UNSUPPORTED, "nft is missing: install the package nftables");
    AUTO_CLOSE int in = memfd_create("nft-rules", MFD_CLOEXEC);
    AUTO_CLOSE int out = memfd_create("nft-output", MFD_CLOEXEC);
    if (in < 0 || out < 0)
        return err_sys(e, errno, "memfd");
    if (io_write_full(in, rules->p, rules->len, DEADLINE_NEVER, e) < 0)
        return err_wrap(e, "nft rules");
    if (lseek(in, 0, SEEK_SET) < 0)
        return err_sys(e, errno, "nft rules");
    const int fds[] = {in, out, out, held_fd};
    const struct proc_spawn spawn = {
        .path = nft, .argv = argv, .fds = fds, .n_fds = held_fd < 0 ? 3 : 4};
    if (proc_spawn(&spawn, &pid, e) < 0 || wait_for_nft(pid, &status, e) < 0)
        return -1;
    return status == 0 ? 0 : nft_failed(out, status, e);
}
