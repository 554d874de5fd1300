/* SPDX-License-Identifier: Apache-2.0 */
/*
 * System call filter of the VMM.
 *
 * Theory of operation: a list of what is denied. The VMM is a large program whose calls change with
 * libraries and versions, and it adds its own filter on top; what stands here has no use in any VMM
 * and has been a way into kernels. A call that a library may try as a probe gets an errno, as on a
 * kernel without it; one that only an attacker makes ends the process. Calls of another ABI (32
 * bit, x32) end it too, since the numbers mean something else there. Arguments are compared as the
 * kernel reads them: an int is the low half of its register.
 */
#include "shim/syscall_filter.h"

#include <errno.h>
#include <linux/if_tun.h>
#include <linux/sockios.h>
#include <linux/userfaultfd.h>
#include <sched.h>
#include <seccomp.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include "base/cleanup.h"

#define KILL SCMP_ACT_KILL_PROCESS
#define REFUSE SCMP_ACT_ERRNO(EPERM)
#define ABSENT SCMP_ACT_ERRNO(ENOSYS)

struct denied {
    int call;
    uint32_t action;
};

static const struct denied denied_calls[] = {
    /* The mount tree: the way out of the jail. */
    {SCMP_SYS(mount), KILL},
    {SCMP_SYS(umount2), KILL},
    {SCMP_SYS(pivot_root), KILL},
    {SCMP_SYS(chroot), KILL},
    {SCMP_SYS(open_tree), KILL},
    {SCMP_SYS(move_mount), KILL},
    {SCMP_SYS(mount_setattr), KILL},
    {SCMP_SYS(fsopen), KILL},
    {SCMP_SYS(fsconfig), KILL},
    {SCMP_SYS(fsmount), KILL},
    {SCMP_SYS(fspick), KILL},
    /* Opens files by handle, past every path and mount. */
    {SCMP_SYS(open_by_handle_at), KILL},
    {SCMP_SYS(name_to_handle_at), REFUSE},
    /* Namespaces: new ones give capabilities over kernel code that is little tested. */
    {SCMP_SYS(setns), KILL},
    {SCMP_SYS(unshare), KILL},
    {SCMP_SYS(clone3), ABSENT}, /* its flags are in memory; libc falls back to clone */
    /* Other processes: their memory, registers, descriptors. */
    {SCMP_SYS(ptrace), KILL},
    {SCMP_SYS(process_vm_readv), KILL},
    {SCMP_SYS(process_vm_writev), KILL},
    {SCMP_SYS(process_madvise), REFUSE},
    {SCMP_SYS(pidfd_getfd), KILL},
    {SCMP_SYS(kcmp), REFUSE},
    {SCMP_SYS(move_pages), REFUSE},
    {SCMP_SYS(migrate_pages), REFUSE},
    /* Kernel interfaces that have been exploited again and again. */
    {SCMP_SYS(bpf), REFUSE},
    {SCMP_SYS(perf_event_open), REFUSE},
    {SCMP_SYS(userfaultfd), REFUSE}, /* holds the kernel inside a copy at will */
    {SCMP_SYS(io_uring_setup), ABSENT},
    {SCMP_SYS(io_uring_enter), ABSENT},
    {SCMP_SYS(io_uring_register), ABSENT},
    {SCMP_SYS(keyctl), REFUSE},
    {SCMP_SYS(add_key), REFUSE},
    {SCMP_SYS(request_key), REFUSE},
    {SCMP_SYS(modify_ldt), REFUSE},
    {SCMP_SYS(vmsplice), REFUSE},
    {SCMP_SYS(fanotify_init), REFUSE},
    {SCMP_SYS(lookup_dcookie), REFUSE},
    /* The machine: its code, clock, power, name, swap, accounting, log. */
    {SCMP_SYS(init_module), KILL},
    {SCMP_SYS(finit_module), KILL},
    {SCMP_SYS(delete_module), KILL},
    {SCMP_SYS(kexec_load), KILL},
    {SCMP_SYS(kexec_file_load), KILL},
    {SCMP_SYS(reboot), KILL},
    {SCMP_SYS(swapon), KILL},
    {SCMP_SYS(swapoff), KILL},
    {SCMP_SYS(acct), KILL},
    {SCMP_SYS(quotactl), KILL},
    {SCMP_SYS(quotactl_fd), KILL},
    {SCMP_SYS(iopl), KILL},
    {SCMP_SYS(ioperm), KILL},
    {SCMP_SYS(settimeofday), REFUSE},
    {SCMP_SYS(clock_settime), REFUSE},
    {SCMP_SYS(sethostname), REFUSE},
    {SCMP_SYS(setdomainname), REFUSE},
    {SCMP_SYS(syslog), REFUSE},
    {SCMP_SYS(vhangup), REFUSE},
};

/* Newer than the headers of some systems. */
#define UFFD_MOVE _IOC(_IOC_READ | _IOC_WRITE, UFFDIO, 0x05, 40)
#define UFFD_POISON _IOC(_IOC_READ | _IOC_WRITE, UFFDIO, 0x08, 32)

/* Requests on the TAP's descriptor that would change the device under the host, the one that types
 * on somebody's terminal, and those that end a fault in the VMM's memory: only the shim may. */
static const uint64_t denied_ioctls[] = {TUNSETIFF, TUNSETPERSIST, TUNSETOWNER, TUNSETGROUP,
    TUNSETLINK, TUNSETQUEUE, TUNSETDEBUG, TUNSETSTEERINGEBPF, TUNSETFILTEREBPF, TUNATTACHFILTER,
    SIOCSIFHWADDR, TIOCSTI, UFFDIO_UNREGISTER, UFFDIO_WAKE, UFFDIO_COPY, UFFDIO_ZEROPAGE,
    UFFDIO_WRITEPROTECT, UFFDIO_CONTINUE, UFFD_MOVE, UFFD_POISON};

static const uint64_t denied_clone_flags[] = {CLONE_NEWNS, CLONE_NEWCGROUP, CLONE_NEWUTS,
    CLONE_NEWIPC, CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET};

static int add_calls(scmp_filter_ctx ctx)
{
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < ARRAY_LEN(denied_calls); i++)
        rc = seccomp_rule_add(ctx, denied_calls[i].action, denied_calls[i].call, 0);
    return rc;
}

static int add_arguments(scmp_filter_ctx ctx)
{
    /* Only local sockets: netlink, packet, inet and the rest have no use in here. */
    int rc = seccomp_rule_add(ctx, REFUSE, SCMP_SYS(socket), 1, SCMP_A0(SCMP_CMP_NE, AF_UNIX, 0));
    /* Asking for the personality is fine, changing it weakens address randomisation. */
    if (rc == 0)
        rc = seccomp_rule_add(
            ctx, REFUSE, SCMP_SYS(personality), 1, SCMP_A0(SCMP_CMP_NE, 0xffffffff, 0));
    for (size_t i = 0; rc == 0 && i < ARRAY_LEN(denied_clone_flags); i++)
        rc = seccomp_rule_add(ctx, KILL, SCMP_SYS(clone), 1,
            SCMP_A0(SCMP_CMP_MASKED_EQ, denied_clone_flags[i], denied_clone_flags[i]));
    for (size_t i = 0; rc == 0 && i < ARRAY_LEN(denied_ioctls); i++)
        rc = seccomp_rule_add(ctx, REFUSE, SCMP_SYS(ioctl), 1,
            SCMP_A1(SCMP_CMP_MASKED_EQ, 0xffffffff, denied_ioctls[i]));
    return rc;
}

int syscall_filter_install(struct err *e)
{
    int rc;
    scmp_filter_ctx ctx = seccomp_init(SCMP_ACT_ALLOW);
    if (!ctx)
        return err_sys(e, ENOMEM, "system call filter");
    rc = seccomp_attr_set(ctx, SCMP_FLTATR_ACT_BADARCH, KILL);
    if (rc == 0)
        rc = add_calls(ctx);
    if (rc == 0)
        rc = add_arguments(ctx);
    if (rc == 0)
        rc = seccomp_load(ctx);
    seccomp_release(ctx);
    return rc < 0 ? err_sys(e, -rc, "system call filter") : 0;
}
