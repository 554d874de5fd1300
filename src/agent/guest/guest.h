/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The host's side of one guest's torpor-envd: readiness, the init handshake, exec, files.
 *
 * Theory of operation: a guest is HTTP over TCP to its slot's host address. Connections are kept
 * open between calls (at most IDLE_MAX); each call uses one alone. Any thread may call; guest_close
 * makes every call under way fail at once, so that a sandbox that goes away keeps nobody waiting.
 * Everything a guest sends is hostile: bounded, decoded strictly, never logged.
 */
#ifndef TORPOR_AGENT_GUEST_GUEST_H
#define TORPOR_AGENT_GUEST_GUEST_H

#include "base/arena.h"
#include "base/buf.h"
#include "base/err.h"

struct agent_exec_request;
struct agent_exec_response;
struct guest;

enum { GUEST_TOKEN_CHARS = 64 };

/* `host_ip` reaches the guest's ports; `token` opens its envd after the init handshake. NULL when
 * out of memory. */
struct guest *guest_new(const char *host_ip, const char token[GUEST_TOKEN_CHARS + 1]);
/* Ends all calls under way and refuses further ones with ERR_UNAVAILABLE. */
void guest_close(struct guest *g);
/* Nobody may be inside a call. NULL is fine; returns NULL. */
struct guest *guest_free(struct guest *g);

/* Waits until envd answers. `abort_fd` becoming readable (the VMM has ended) gives up with
 * ERR_UNAVAILABLE; ERR_TIMEOUT at the deadline. */
int guest_wait_ready(struct guest *g, int abort_fd, int64_t deadline, struct err *e);

struct guest_identity {
    const char *sandbox_id; /* also the host name */
    const char *template;
    const char *default_user;
    const struct rpc_entry *env;
    size_t n_env;
    bool keeps_env;     /* env is what the guest has already */
    bool keeps_machine; /* host name and machine id too: it is the sandbox that went to sleep */
    const char *secret; /* of guest_prepare, for the first init after it; NULL: none */
};
/* The init handshake: token, clock, fresh entropy, host name, machine id, environment. Returns when
 * the guest has acknowledged all of it. */
int guest_init(
    struct guest *g, const struct guest_identity *identity, int64_t deadline, struct err *e);

/* Before a snapshot: envd writes the file systems out, ends its streams with "paused", closes its
 * connections and then waits for an init that carries `secret` (GUEST_TOKEN_CHARS of lower-case
 * hex); until then it answers nothing else, and calls fail with ERR_UNAVAILABLE. After an error it
 * is unknown whether the guest has done it: guest_init with the secret is right in both cases.
 *
 * With `keep`, for a machine that goes on at once, nothing ends: what is open stays open, and calls
 * that come before guest_init wait for it, at most 5 s and their own timeout. What is open ends
 * where the snapshot wakes. */
int guest_prepare(struct guest *g, const char secret[GUEST_TOKEN_CHARS + 1], bool keep,
    int64_t deadline, struct err *e);

/* After a restore, instead of guest_wait_ready and guest_init: connects as soon as the machine
 * answers and wakes it, one request on one connection. `abort_fd` and `deadline` as for
 * guest_wait_ready. */
int guest_wake(struct guest *g, const struct guest_identity *identity, int abort_fd,
    int64_t deadline, struct err *e);

/* Runs a command to its end. When a pause meets it, the command goes on in the guest: 0, with
 * `resp->paused`, its pid and its tag. Output beyond LIMIT_EXEC_OUTPUT_BYTES is dropped and said.
 * The result lives in `out` (one buffer for both streams; resp points into it). A program that
 * cannot be started is ERR_INVALID with `where` "cmd"; bad cwd and user likewise. */
int guest_exec(struct guest *g, const struct agent_exec_request *req, struct buf *out_stdout,
    struct buf *out_stderr, struct agent_exec_response *resp, struct err *e);

/* Appends the file's bytes. ERR_NOT_FOUND, ERR_INVALID (`where` "path" or "user"), ERR_TOO_LARGE.
 */
int guest_read_file(
    struct guest *g, struct slice path, struct slice user, struct buf *dst, struct err *e);
struct guest_write {
    struct slice path;
    struct slice user; /* empty: the default user */
    struct slice content;
    bool has_mode;
    uint32_t mode;
};
/* Replaces or makes the file, whole or not at all. */
int guest_write_file(struct guest *g, const struct guest_write *w, struct err *e);

#endif
