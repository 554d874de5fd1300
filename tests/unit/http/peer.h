/* SPDX-License-Identifier: Apache-2.0 */
/* A raw peer for tests: sends and receives bytes as they are, with a deadline on everything. */
#ifndef TORPOR_TEST_HTTP_PEER_H
#define TORPOR_TEST_HTTP_PEER_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>
#include <errno.h>
#include <sys/socket.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/io.h"

enum { PEER_PATIENCE_MS = 20000 };

static inline void peer_send(int fd, const char *text)
{
    struct err e = {0};
    if (io_write_full(fd, text, strlen(text), deadline_in_ms(PEER_PATIENCE_MS), &e) < 0)
        fail_msg("send: %s", e.msg);
}

/* Receives until `end` has come (NULL: until the end of the connection). The caller frees. */
static inline char *peer_recv(int fd, const char *end)
{
    struct buf b = BUF_INIT(64u << 20);
    int64_t deadline = deadline_in_ms(PEER_PATIENCE_MS);
    for (;;) {
        char chunk[4096];
        struct err e = {0};
        ssize_t got;
        if (end && b.len > 0 && strstr(b.p, end))
            return b.p;
        /* byte by byte, so that nothing behind `end` is taken */
        got = io_read(fd, chunk, end ? 1 : sizeof chunk, deadline, &e);
        if (got < 0 && e.errnum != ECONNRESET)
            fail_msg("receive: %s, after \"%s\"", e.msg, b.p ? b.p : "");
        if (got <= 0 && end)
            fail_msg("the connection ended after \"%s\"", b.p ? b.p : "");
        if (got <= 0) {
            buf_append(&b, "", 0);
            return b.p;
        }
        buf_append(&b, chunk, (size_t)got);
        assert_false(b.failed);
    }
}

/* Receives until `end` and checks that `expected` is in it. */
static inline void peer_expect(int fd, const char *end, const char *expected)
{
    AUTO_FREE char *got = peer_recv(fd, end);
    if (!strstr(got, expected))
        fail_msg("\"%s\" is not in \"%s\"", expected, got);
}

static inline void peer_expect_end(int fd)
{
    AUTO_FREE char *rest = peer_recv(fd, NULL);
    assert_string_equal(rest, "");
}

#endif
