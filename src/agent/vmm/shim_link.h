/* SPDX-License-Identifier: Apache-2.0 */
/* The agent's end of a shim's control connection, and ending shims. */
#ifndef TORPOR_AGENT_VMM_SHIM_LINK_H
#define TORPOR_AGENT_VMM_SHIM_LINK_H

#include "base/proc.h"
#include "proto/shim.h"

struct sandbox_id;

/* Waits for one message of a version that we know and checks that its strings end. The shim's end
 * is ERR_UNAVAILABLE, a version that is too new or too old ERR_UNSUPPORTED, anything else that is
 * wrong with it ERR_PROTOCOL. */
int shim_receive(int fd, int64_t deadline, struct shim_msg *ret, struct err *e);
/* As shim_receive for a message that has arrived, without taking it. ERR_IN_PROGRESS when none has.
 */
int shim_peek(int fd, struct shim_msg *ret, struct err *e);
/* Sends a request other than HELLO in the version that the connection has. */
int shim_send(
    int fd, unsigned version, enum shim_msg_type request, int64_t deadline, struct err *e);
struct shim_request {
    enum shim_msg_type type;
    uint32_t flags;
    const unsigned char *uuid; /* names a blob, NULL: none */
    const int *fds;
    size_t n_fds;
};
/* Sends a request of version 3 that carries descriptors. */
int shim_send_fds(int fd, const struct shim_request *r, struct err *e);
/* Sends HELLO with those flags of SHIM_HELLO_, for all versions that we know. */
int shim_send_hello(int fd, uint32_t flags, int64_t deadline, struct err *e);

/* Connects to the shim of sandbox `id` that listens at `path`, says HELLO with `flags` and stores
 * the answer: of that sandbox, from root, and where the shim can prove it (version 2) from the
 * process that it claims to be. Its version is the connection's from here on. Returns the
 * connection or -1: ERR_NOT_FOUND when nobody answers, ERR_CONFLICT when control was asked for and
 * refused, ERR_UNSUPPORTED, ERR_PROTOCOL. */
int shim_connect(const char *path, const struct sandbox_id *id, uint32_t flags, int64_t deadline,
    struct shim_msg *ret, struct err *e);

/* Appends "qemu exited with 1: <text>" or "qemu killed by SIGKILL" to `dst`, from a message with
 * `ended` set. */
void shim_format_exit(const struct shim_msg *m, char *dst, size_t dst_size);

/* Kills the processes behind the pidfds (-1: none) and waits until they are gone. Does both,
 * joins the errors. */
int shim_kill(int vmm_pidfd, int shim_pidfd, int64_t deadline, struct err *e);

/* Kills a shim whose VMM is not known, with its child if it has one, and waits until both are gone.
 * A shim that is gone already is fine. */
int shim_kill_family(const struct proc_id *shim, int64_t deadline, struct err *e);

#endif
