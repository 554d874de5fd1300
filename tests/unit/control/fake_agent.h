/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A host agent without a host: a real RPC server on a unix socket whose answers a test scripts. All
 * fields behind `mutex` are changed by fake_* functions or with the mutex held.
 */
#ifndef TORPOR_TESTS_CONTROL_FAKE_AGENT_H
#define TORPOR_TESTS_CONTROL_FAKE_AGENT_H

#include <pthread.h>

#include "control/service/agent.h"
#include "proto/sandbox.h"

enum { FAKE_SANDBOXES_MAX = 64, FAKE_TEXT_MAX = 256, FAKE_SNAPSHOTS_MAX = 16 };

struct fake_sandbox {
    char id[ID_TEXT_MAX + 1]; /* empty: free */
    char status[16];
    char reason[24];
    uint64_t revision;
    uint64_t changed_at; /* the host's revision then */
    int vcpus, memory_mb, timeout_sec;
};

struct fake_agent {
    pthread_mutex_t mutex;
    pthread_cond_t changed; /* a call came, waits or was let go */
    char path[128];
    struct http_server *server;

    char host_id[ID_TEXT_MAX + 1];
    const char *cluster_id;
    uint64_t epoch;
    uint64_t host_revision;
    struct fake_sandbox boxes[FAKE_SANDBOXES_MAX];
    bool waits;      /* lists wait for a change as long as they may */
    int in_wait;     /* lists that wait now */
    bool stopping;   /* nothing waits any more */
    bool incomplete; /* lists say that they are not full: a recovery is under way */
    bool building;   /* the template "base" is not there yet */
    char snapshots[FAKE_SNAPSHOTS_MAX][ID_TEXT_MAX + 1]; /* ids; empty: free */
    bool bad_snapshot;                 /* a snapshot is answered without its size */
    bool histograms;                   /* lists say how long things took */
    char auto_paused[ID_TEXT_MAX + 1]; /* named among the auto-paused, until acknowledged */
    uint64_t acked_revision;           /* of the last acknowledgement */
    int32_t wait_ms;                   /* that the last list asked for */

    bool lose[AGENT_METHOD_COUNT];       /* it is done, but what is heard is "unavailable" */
    struct err fail[AGENT_METHOD_COUNT]; /* kind ERR_NONE: it works */
    bool held[AGENT_METHOD_COUNT];       /* calls wait while set, before they do anything */
    int passes[AGENT_METHOD_COUNT];      /* held calls that may go on all the same */
    int calls[AGENT_METHOD_COUNT];       /* that came */
    int waiting[AGENT_METHOD_COUNT];     /* that are held now */

    /* What the last calls carried. */
    char created_id[ID_TEXT_MAX + 1];
    char created_from[FAKE_TEXT_MAX]; /* "template|snapshot id|vcpus|memory" */
    char resume_seen[FAKE_TEXT_MAX];  /* "timeout|from|mode" */
    char snapshot_id[ID_TEXT_MAX + 1];
    char created_env[FAKE_TEXT_MAX]; /* "A=1;B=2;" */
    char exec_seen[FAKE_TEXT_MAX];   /* "cmd|arg|arg|cwd|user|stdin|timeout" */
    char request_id[FAKE_TEXT_MAX];  /* header */
    /* What an exec answers. */
    struct agent_exec_response exec_answer;
    /* The one file there is. */
    char file_path[FAKE_TEXT_MAX];
    struct buf file;
    int file_mode; /* -1: not given */
    char file_user[FAKE_TEXT_MAX];
};

void fake_agent_start(struct fake_agent *a, const char *socket_path);
/* Stops listening; the state stays, and fake_agent_listen starts again. */
void fake_agent_close(struct fake_agent *a);
void fake_agent_listen(struct fake_agent *a);
void fake_agent_done(struct fake_agent *a);

void fake_fail(struct fake_agent *a, enum agent_method m, enum err_kind kind, const char *where);
void fake_hold(struct fake_agent *a, enum agent_method m, bool held);
/* Lets one held call go on. */
void fake_pass_one(struct fake_agent *a, enum agent_method m);
/* Waits until `n` calls of `m` are held, or have come. Fails the test after 20 s. */
void fake_wait_held(struct fake_agent *a, enum agent_method m, int n);
void fake_wait_calls(struct fake_agent *a, enum agent_method m, int n);
int fake_calls(struct fake_agent *a, enum agent_method m);
/* Waits until a poll that began after this call has been answered and dealt with. */
void fake_wait_polled(struct fake_agent *a);
/* Waits until a list waits for a change. */
void fake_wait_waiting(struct fake_agent *a);
/* Changes what the host says of a sandbox; a new one when the id is unknown. */
void fake_set(struct fake_agent *a, const char *id, const char *status, const char *reason);
/* The host forgets it. */
void fake_forget(struct fake_agent *a, const char *id);
/* Takes the step on the host and says "unavailable". */
void fake_lose(struct fake_agent *a, enum agent_method m, bool lose);
bool fake_has_snapshot(struct fake_agent *a, const char *id);
size_t fake_count_snapshots(struct fake_agent *a);
/* Waits until the host has exactly `n` snapshots. */
void fake_wait_snapshots(struct fake_agent *a, size_t n);
/* Waits until the host has it no more. */
void fake_wait_gone(struct fake_agent *a, const char *id);
bool fake_has(struct fake_agent *a, const char *id);

#endif
