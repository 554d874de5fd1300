/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Limits, ids, capabilities, death signal.
 *
 * Order matters: the bounding set needs CAP_SETPCAP, so it goes before the uid; a change of uid
 * clears the death signal, so that comes after; the filter forbids what the steps before it do, so
 * it is last.
 */
#include "shim/confine.h"

#include <errno.h>
#include <grp.h>
#include <linux/capability.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "shim/syscall_filter.h"

enum {
    FILES_MAX = 256,   /* QEMU holds about 20 */
    THREADS_MAX = 256, /* 32 vcpus, up to 64 block workers, a few more */
};

/* Lowers a limit; where the host's is lower already, that one stays (raising needs a capability).
 */
static int lower_limit(int resource, rlim_t value, struct err *e)
{
    struct rlimit now;
    struct rlimit want = {value, value};
    if (getrlimit((__rlimit_resource_t)resource, &now) < 0)
        return err_sys(e, errno, "read a resource limit");
    if (now.rlim_max < value)
        want.rlim_cur = want.rlim_max = now.rlim_max;
    if (setrlimit((__rlimit_resource_t)resource, &want) < 0)
        return err_sys(e, errno, "set a resource limit");
    return 0;
}

/* No core, which would hold the guest's memory; the overlay cannot grow beyond what its disk needs.
 */
static int set_limits(uint64_t fsize_bytes, struct err *e)
{
    if (lower_limit(RLIMIT_CORE, 0, e) < 0 || lower_limit(RLIMIT_NOFILE, FILES_MAX, e) < 0 ||
        lower_limit(RLIMIT_NPROC, THREADS_MAX, e) < 0 ||
        lower_limit(RLIMIT_FSIZE, (rlim_t)fsize_bytes, e) < 0)
        return -1;
    return 0;
}

static int drop_bounding_set(struct err *e)
{
    for (int cap = 0; prctl(PR_CAPBSET_READ, cap, 0, 0, 0) >= 0; cap++)
        if (prctl(PR_CAPBSET_DROP, cap, 0, 0, 0) < 0)
            return err_sys(e, errno, "drop capability %d from the bounding set", cap);
    return 0;
}

/* Permitted and effective become `mask`, inheritable and ambient empty. */
static int set_capabilities(uint64_t mask, struct err *e)
{
    struct __user_cap_header_struct head = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct data[2] = {
        {.effective = (uint32_t)mask, .permitted = (uint32_t)mask},
        {.effective = (uint32_t)(mask >> 32), .permitted = (uint32_t)(mask >> 32)},
    };
    if (prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) < 0)
        return err_sys(e, errno, "clear ambient capabilities");
    if (syscall(SYS_capset, &head, data) < 0)
        return err_sys(e, errno, "set capabilities");
    return 0;
}

static int set_ids(uid_t uid, struct err *e)
{
    gid_t gid = (gid_t)uid;
    if (setgroups(0, NULL) < 0)
        return err_sys(e, errno, "drop groups");
    if (setresgid(gid, gid, gid) < 0)
        return err_sys(e, errno, "set gid %u", (unsigned)gid);
    if (setresuid(uid, uid, uid) < 0)
        return err_sys(e, errno, "set uid %u", (unsigned)uid);
    return 0;
}

/* getppid() cannot tell here: the parent is outside of this pid namespace and reads as 0. */
static int die_with_parent(int alive_fd, struct err *e)
{
    struct pollfd p = {.fd = alive_fd};
    if (prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) < 0)
        return err_sys(e, errno, "set the death signal");
    if (poll(&p, 1, 0) < 0)
        return err_sys(e, errno, "look for the parent");
    return p.revents & POLLERR ? err_set(e, ERR_CANCELED, "the shim has ended") : 0;
}

static int no_new_privileges(struct err *e)
{
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
        return err_sys(e, errno, "no new privileges");
    return 0;
}

int confine_vmm(uid_t uid, uint64_t fsize_bytes, int alive_fd, struct err *e)
{
    if (set_limits(fsize_bytes, e) < 0 || drop_bounding_set(e) < 0 || set_ids(uid, e) < 0 ||
        set_capabilities(0, e) < 0 || die_with_parent(alive_fd, e) < 0 ||
        no_new_privileges(e) < 0 || syscall_filter_install(e) < 0)
        return err_wrap(e, "confine");
    return 0;
}

int confine_shim(struct err *e)
{
    if (drop_bounding_set(e) < 0 || set_capabilities(1ull << CAP_KILL, e) < 0 ||
        no_new_privileges(e) < 0)
        return err_wrap(e, "confine the shim");
    return 0;
}
