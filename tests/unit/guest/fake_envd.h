/* SPDX-License-Identifier: Apache-2.0 */
/* A torpor-envd that behaves as told, well or badly, on a loopback address of its own. */
#ifndef TORPOR_TESTS_GUEST_FAKE_ENVD_H
#define TORPOR_TESTS_GUEST_FAKE_ENVD_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>

enum fake_start {
    START_ECHO,      /* stdout: the command; stderr: its input; exits with 3 */
    START_SIGNALLED, /* ends by SIGSEGV */
    START_TIMED_OUT, /* some output, then the deadline */
    START_LARGE,     /* 17 MiB of output */
    START_NO_END,    /* the stream ends without an end event */
    START_BAD_CWD,   /* refused before it starts */
    START_BAD_USER,
    START_PAUSED, /* stdout: the command; then a pause meets it */
    START_HANGS,  /* says start, then nothing until fake_release */
    START_LATE,   /* nothing until fake_release, then start and as START_ECHO */
    START_REFUSED /* nothing until fake_release, then 503; the next one as START_ECHO */
};

struct fake_envd {
    enum fake_start start;
    int health_status;
    int init_status;
    int prepare_status;
    int files_status;
    size_t files_bytes;
    bool close_after_each; /* the connection, without saying so before */
    char last_body[4096];
    char last_target[1024];
    char last_token[80];
    char last_secret[80];
    char last_tag[64];
    char last_user_header[128];
    int requests;
    atomic_int connections;
};
extern struct fake_envd fake;

/* Listens on `ret_ip` at envd's port. */
void fake_start(char ret_ip[16]);
void fake_stop(void);
/* Lets a hanging start go on; waits for it to have begun with fake_wait_hanging. */
void fake_release(void);
int fake_wait_hanging(void);

#endif
