/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Waiting for a block device by the kernel's device events.
 *
 * Theory of operation: the socket is subscribed first and the node looked for afterwards, so a
 * device that appears in between is seen by one of the two. An event only ends the waiting early:
 * what counts is that the node is there, so a lost event (the socket's buffer overran) costs a
 * second look and nothing else.
 */
#include "guestinit/uevent.h"

#include <errno.h>
#include <linux/netlink.h>
#include <poll.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "base/io.h"

enum {
    UEVENT_BYTES_MAX = 4096, /* the kernel's own bound is 2048 for the variables */
    UEVENT_GROUP_KERNEL = 1, /* multicast group of the events as the kernel sends them */
    DEVICE_PATH_MAX = 64,
};

int uevent_open(struct err *e)
{
    struct sockaddr_nl addr = {.nl_family = AF_NETLINK, .nl_groups = UEVENT_GROUP_KERNEL};
    AUTO_CLOSE int fd =
        socket(AF_NETLINK, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, NETLINK_KOBJECT_UEVENT);
    if (fd < 0)
        return err_sys(e, errno, "socket for device events");
    if (bind(fd, (struct sockaddr *)&addr, sizeof addr) < 0)
        return err_sys(e, errno, "subscribe to device events");
    return TAKE_FD(fd);
}

/* The first string of `s` up to a NUL or the end; `s` moves behind it. */
static struct slice next_string(struct slice *s)
{
    const char *nul = memchr(s->p, '\0', s->n);
    struct slice head = slice_of(s->p, nul ? (size_t)(nul - s->p) : s->n);
    size_t used = head.n + (nul ? 1 : 0);
    *s = slice_of(s->p + used, s->n - used);
    return head;
}

/* True when `s` is KEY=value, with both as given. */
static bool is_variable(struct slice s, struct slice key_eq, const char *value)
{
    return s.n > key_eq.n && memcmp(s.p, key_eq.p, key_eq.n) == 0 &&
           slice_is(slice_of(s.p + key_eq.n, s.n - key_eq.n), value);
}

bool uevent_adds_block(struct slice event, const char *name)
{
    bool add = false, block = false, named = false;
    while (event.n > 0) {
        struct slice s = next_string(&event);
        add = add || is_variable(s, SLICE_LIT("ACTION="), "add");
        block = block || is_variable(s, SLICE_LIT("SUBSYSTEM="), "block");
        named = named || is_variable(s, SLICE_LIT("DEVNAME="), name);
    }
    return add && block && named;
}

/* Reads all waiting events; returns 1 when one adds the device, 0 when none does, -1 on error. */
static int drain(int fd, const char *name, struct err *e)
{
    char event[UEVENT_BYTES_MAX];
    int found = 0;
    for (;;) {
        ssize_t n = recv(fd, event, sizeof event, 0);
        if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
            return found;
        if (n < 0 && errno == ENOBUFS)
            return 1; /* some were lost: have a look at the node */
        if (n < 0 && errno != EINTR)
            return err_sys(e, errno, "read device events");
        if (n > 0 && uevent_adds_block(slice_of(event, (size_t)n), name))
            found = 1;
    }
}

static bool is_block(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 && S_ISBLK(st.st_mode);
}

int uevent_wait_block(int fd, const char *name, int64_t deadline, struct err *e)
{
    char path[DEVICE_PATH_MAX];
    int seen = 1;
    if (snprintf(path, sizeof path, "/dev/%s", name) >= (int)sizeof path)
        return err_set(e, ERR_INVALID, "device name too long");
    while (!seen || !is_block(path)) {
        if (io_wait(fd, POLLIN, deadline, e) < 0)
            return err_wrap(e, "wait for %s", path);
        seen = drain(fd, name, e);
        if (seen < 0)
            return -1;
    }
    return 0;
}
