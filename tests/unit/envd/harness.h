/* SPDX-License-Identifier: Apache-2.0 */
/* What the tests of envd share: a scratch folder, the service on a loopback port, a small client.
 */
#ifndef TORPOR_TEST_ENVD_HARNESS_H
#define TORPOR_TEST_ENVD_HARNESS_H

#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/buf.h"
#include "base/err.h"

#define TOKEN "token-of-the-test"
#define WITH_TOKEN "X-Access-Token: " TOKEN "\r\n"

enum { ANSWER_BYTES_MAX = 64 << 20, SCRATCH_MAX = 256, TEXT_MAX = 1024 };

/* Everything the tests do has this much time; then they fail instead of hanging. */
enum { TEST_DEADLINE_MS = 20000 };

/* Skips the test and says why. */
#define skip_because(reason)                                                                       \
    do {                                                                                           \
        print_message("skipped: %s\n", reason);                                                    \
        skip();                                                                                    \
    } while (0)

/* What the faked machine was told. */
struct machine {
    int64_t real_ns;
    char entropy[1024];
    size_t entropy_len;
    char hostname[64];
    int syncs; /* calls */
    int drops;
    const char *fails; /* "clock", "entropy", "hostname", "drop" or NULL */
};

struct harness {
    char dir[SCRATCH_MAX]; /* scratch folder; the home of `me` is dir/home, /etc is dir/etc */
    char home[SCRATCH_MAX];
    char etc[SCRATCH_MAX];
    struct machine machine;
    struct envd *envd;
    uint16_t port;
};

/* cmocka set-up and tear-down: the service, with user `me` (who runs the test), `user` (uid 1000,
 * groups 1000, 50, 60; home dir/user) and root. Without and with a first /init that sets TOKEN. */
int harness_set_up(void **state);
int harness_set_up_initialised(void **state);
int harness_tear_down(void **state);

/* Writes a file below the scratch folder. */
void harness_write(struct harness *h, const char *name, const char *text);
/* Reads one; NULL when absent. The caller frees. */
char *harness_read(struct harness *h, const char *name);
/* How many names, but dots, the folder has. */
size_t harness_count(struct harness *h, const char *name);

struct answer {
    int status;
    struct buf raw;
    struct buf body; /* without chunked framing */
    struct buf head;
    bool complete; /* the body came to its proper end */
};
void answer_done(struct answer *a);
#define AUTO_ANSWER __attribute__((cleanup(answer_done)))

/* Connects, sends a request and reads the answer to the end of the connection. `headers` are whole
 * lines. */
struct answer harness_ask(struct harness *h, const char *method, const char *target,
    const char *headers, struct slice body);
/* Its parts, for broken requests. */
int harness_connect(struct harness *h);
void harness_send(int fd, struct slice bytes);
struct answer harness_answer(int fd);

/* POST /init with a JSON body and, if not NULL, header lines. Returns the status. */
int harness_init(struct harness *h, const char *json, const char *headers);

/* The value of a string field in a JSON error body equals `want`? */
void assert_message(const struct answer *a, const char *want);

#endif
