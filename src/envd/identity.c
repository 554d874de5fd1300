/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A thread's file-system identity.
 *
 * Theory of operation. Credentials belong to threads in Linux; "the process's user" is an illusion
 * that libc keeps up by signalling every thread (setuid(3), setgroups(3)). We want the opposite,
 * one thread being someone else while the others stay root, so the calls here are bare system
 * calls. fsuid and fsgid are what the kernel looks at for files, and with an fsuid other than 0 it
 * also takes the file capabilities (DAC_OVERRIDE, CHOWN, FOWNER, ...) out of the effective set and
 * puts them back when the fsuid is 0 again. Real and effective ids stay root's: the user's
 * processes can neither signal nor trace us meanwhile. Order in: groups, gid, uid; out: the
 * reverse, because only the return of the uid brings the capabilities back. What cannot be undone
 * ends the program: a thread with the wrong identity must serve nobody.
 */
#include "envd/identity.h"

#include <assert.h>
#include <errno.h>
#include <sys/syscall.h>
#include <unistd.h>

/* setfsuid and setfsgid return the former id and tell of no failure: asking for an id that does not
 * exist leaves it and returns the current one. */
static bool set_fs_id(long number, unsigned id)
{
    (void)syscall(number, id);
    return (unsigned)syscall(number, -1) == id;
}

int identity_enter(const struct user *u, struct err *e)
{
    if (geteuid() != 0)
        return u->uid == geteuid() ? 0 : err_set(e, ERR_FORBIDDEN, "cannot act as %s", u->name);
    if (u->uid == 0)
        return 0;
    if (syscall(SYS_setgroups, u->n_groups, u->groups) < 0)
        return err_sys(e, errno, "setgroups for %s", u->name);
    if (!set_fs_id(SYS_setfsgid, u->gid) || !set_fs_id(SYS_setfsuid, u->uid)) {
        identity_leave();
        return err_set(e, ERR_INTERNAL, "cannot act as %s", u->name);
    }
    return 0;
}

void identity_leave(void)
{
    bool back;
    if (geteuid() != 0)
        return;
    back = set_fs_id(SYS_setfsuid, 0) && set_fs_id(SYS_setfsgid, 0) &&
           syscall(SYS_setgroups, 0, NULL) == 0;
    assert(back);
}
