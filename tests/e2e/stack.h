/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A whole Torpor for one test program: agent and control plane as the build made them, in a data
 * folder of their own, over the kernel and image of TORPOR_TEST_DATA. Calls go to the public API.
 */
#ifndef TORPOR_TESTS_E2E_STACK_H
#define TORPOR_TESTS_E2E_STACK_H

#include <stdbool.h>
#include <sys/types.h>

#include "base/arena.h"
#include "base/buf.h"
#include "json/json.h"

struct stack {
    char root[64]; /* temporary; removed by stack_stop */
    char dir[96];  /* TORPOR_DIR */
    char run_base[96];
    char agent_socket[128];
    unsigned instance;
    int port;
    char key[64];
    pid_t agent;
    pid_t control;
    uid_t control_uid;
    const char *program;        /* the next agent's; NULL: this build's */
    const char *shim;           /* TORPOR_SHIM of that; NULL: this build's */
    const char *slots;          /* TORPOR_SLOTS of the next start of the agent; NULL: the default */
    const char *memory_mb;      /* TORPOR_MEMORY_MB likewise */
    const char *vcpus_per_core; /* TORPOR_VCPUS_PER_CORE likewise */
    const char *crash;          /* TORPOR_CRASH likewise (agent/life/crash.h) */
    const char *memory;         /* TORPOR_MEMORY likewise */
    const char *pagemap;        /* TORPOR_PAGEMAP likewise */
    const char *library;        /* TORPOR_MEMORY_LIBRARY likewise; NULL: ours */
    bool warm;                  /* TORPOR_WARM likewise */
    const char *qemu;           /* a program that the agent finds as the installed QEMU, likewise */
};

/* Why this machine cannot run it (not root, no data); NULL when it can. */
const char *stack_unavailable(void);
/* Starts both programs and waits until they serve. Fails the test when they do not. `s` is zeros,
 * but for TORPOR_SLOTS. */
void stack_start(struct stack *s);
void stack_start_agent(struct stack *s);
/* Starts one and does not wait until it serves: it may never do so. */
void stack_begin_agent(struct stack *s);
void stack_start_control(struct stack *s);
/* Runs `torpor-agent --stop-all` to its end; fails the test unless it succeeds. */
void stack_stop_all(struct stack *s);
/* Runs `torpor-agent --drain` to its end; returns its exit status. */
int stack_drain(struct stack *s);
/* Ends one program with a signal and waits for its end. Returns its wait status. */
int stack_end(pid_t *pid, int sig);
/* Prints what both programs have logged, for a person who wants to know why. */
void stack_show_logs(const struct stack *s);
/* Ends both, checks that they exited well, removes the folder. */
void stack_stop(struct stack *s);

/* An answer of the API. Freed by reply_done. */
struct reply {
    int status;
    struct buf body;
    struct arena arena;
    const struct json_value *json; /* NULL when the body is no JSON */
    char retry_after[16];
    char allow[64];
    char request_id[80];
    char next_cursor[256];
};
void reply_done(struct reply *r);
#define AUTO_REPLY __attribute__((cleanup(reply_done)))

/* One request with the stack's key; `body` NULL for none. Fails the test when there is no answer.
 */
void api(const struct stack *s, const char *method, const char *path, const char *body,
    struct reply *ret);
/* A request whose server may die meanwhile: the answer's status, 0 when there was none. */
int api_try(const struct stack *s, const char *method, const char *path, const char *body);
/* The same with everything said. `key` NULL sends none. */
struct api_request {
    const char *method;
    const char *path;
    const char *key;
    const char *content_type;
    struct slice body;
};
void api_send(const struct stack *s, const struct api_request *q, struct reply *ret);
/* The same, and -1 when there is no whole answer; `ret` may be reply_done either way. */
int api_ask(const struct stack *s, const struct api_request *q, struct reply *ret, struct err *e);

/* Text of a member of the answer, by a path such as "error.code"; "" when absent or no string. */
const char *reply_text(struct reply *r, const char *path);
long long reply_int(struct reply *r, const char *path); /* -999999 when absent or no integer */

/* Creates a sandbox and fails the test unless it answers 201; stores its id. */
void create_sandbox(const struct stack *s, const char *body, char ret_id[32]);
void delete_sandbox(const struct stack *s, const char *id);
/* POST exec; fails the test unless it answers 200. */
void exec_in(const struct stack *s, const char *id, const char *body, struct reply *ret);
/* Writes a file by multipart, fails the test unless it answers 204. */
void write_file(const struct stack *s, const char *id, const char *path, struct slice content);

/* The pid of the VMM of a sandbox, by its command line; 0 when there is none. */
pid_t find_vmm(const char *id);

pid_t parent_of(pid_t pid); /* 0 when there is no such process */

/* What the host has of this instance, as sorted text: links, namespaces, nft, processes, files of
 * the run folder. Two are equal when nothing leaked. */
void host_picture(const struct stack *s, struct buf *ret);
/* Appends what a program prints. */
void host_capture(const char *const *argv, struct buf *ret);

/* A stand-in for the internet on this host: `address` leads to a link whose other end is in a
 * namespace of its own, so that nothing leaves the machine. */
void internet_init(const char *address);
void internet_done(void);
/* A socket of that internet that listens on all its addresses. */
int internet_listen(unsigned port);

#endif
