/* SPDX-License-Identifier: Apache-2.0 */
/* One exchange that streams both ways at once: far more bytes than memory. */
#include "fixture.h"

#include <poll.h>
#include <pthread.h>
#include <stdio.h>

#include "base/sock.h"

enum {
    TOTAL_BYTES = 200 << 20,
    BLOCK_BYTES = 128 * 1024,
    RSS_GROWTH_MAX_KIB = 24 * 1024, /* a sanitizer's bookkeeping included */
};

static long resident_kib(void)
{
    char line[256];
    long kib = 0;
    FILE *f = fopen("/proc/self/status", "re");
    assert_non_null(f);
    while (fgets(line, sizeof line, f))
        if (strncmp(line, "VmRSS:", 6) == 0)
            kib = strtol(line + 6, NULL, 10);
    (void)fclose(f);
    assert_true(kib > 0);
    return kib;
}

/* Reads the body while it writes the reply. */
static void handle_echo_blocks(struct http_exchange *x, void *ctx)
{
    AUTO_FREE char *block = malloc(BLOCK_BYTES);
    struct err e = {0};
    ssize_t n;
    assert_int_equal(http_reply_begin(x, 200, NULL, -1, &e), 0);
    while ((n = http_body_read(x, block, BLOCK_BYTES, &e)) > 0)
        if (http_reply_write(x, block, (size_t)n, &e) < 0)
            return;
    if (n == 0)
        (void)http_reply_end(x, &e);
}

static void *upload(void *arg)
{
    const int *fd = arg;
    AUTO_FREE char *block = malloc(BLOCK_BYTES);
    struct err e = {0};
    memset(block, 'b', BLOCK_BYTES);
    for (size_t at = 0; at < TOTAL_BYTES; at += BLOCK_BYTES)
        if (io_write_full(*fd, block, BLOCK_BYTES, deadline_in_ms(PEER_PATIENCE_MS), &e) < 0)
            return (void *)1;
    return NULL;
}

/* Counts body bytes until the last chunk; all must be what was sent. */
static uint64_t count_echo(int fd, long *ret_most_kib)
{
    AUTO_FREE char *block = malloc(BLOCK_BYTES);
    struct http_chunks chunks = {0};
    uint64_t total = 0;
    bool end = false;
    for (int i = 0; !end; i++) {
        struct err e = {0};
        ssize_t got = io_read(fd, block, BLOCK_BYTES, deadline_in_ms(PEER_PATIENCE_MS), &e);
        assert_true(got > 0);
        for (ssize_t at = 0; at < got && !end;) {
            struct slice run;
            ssize_t used =
                http_chunks_feed(&chunks, block + at, (size_t)(got - at), &run, &end, &e);
            assert_true(used >= 0);
            assert_true(run.n == 0 || (run.p[0] == 'b' && run.p[run.n - 1] == 'b'));
            total += run.n;
            at += used;
        }
        if (i % 64 == 0 && resident_kib() > *ret_most_kib)
            *ret_most_kib = resident_kib();
    }
    return total;
}

static void test_echo_of_200_mib(void **state)
{
    struct http_server_config config = {.handler = handle_echo_blocks};
    struct err e = {0};
    pthread_t sender;
    void *failed;
    long before;
    long most = 0;
    fixture_reset();
    config.listen_fd = sock_listen_tcp("127.0.0.1", 0, &e);
    fx.port = sock_local_port(config.listen_fd);
    fx.server = http_server_start(&config, &e);
    assert_non_null(fx.server);
    int fd = dial();
    char head[128];
    (void)snprintf(head, sizeof head, "POST /" HOST "Content-Length: %d\r\n\r\n", TOTAL_BYTES);
    peer_send(fd, head);
    peer_expect(fd, "\r\n\r\n", "Transfer-Encoding: chunked"); /* before a byte of the body */
    before = resident_kib();
    assert_int_equal(pthread_create(&sender, NULL, upload, &fd), 0);
    assert_int_equal(count_echo(fd, &most), TOTAL_BYTES);
    assert_int_equal(pthread_join(sender, &failed), 0);
    assert_null(failed);
    if (most - before > RSS_GROWTH_MAX_KIB)
        fail_msg("resident memory grew from %ld to %ld KiB", before, most);
    (void)close(fd);
}

/* Nobody reads the echo: the sender is held back, and neither side keeps what was sent. */
static void test_reader_stops(void **state)
{
    struct http_server_config config = {.handler = handle_echo_blocks};
    static char block[BLOCK_BYTES];
    struct pollfd fds;
    struct err e = {0};
    size_t sent = 0;
    fixture_reset();
    config.listen_fd = sock_listen_tcp("127.0.0.1", 0, &e);
    fx.port = sock_local_port(config.listen_fd);
    fx.server = http_server_start(&config, &e);
    assert_non_null(fx.server);
    AUTO_CLOSE int fd = dial();
    char head[128];
    (void)snprintf(head, sizeof head, "POST /" HOST "Content-Length: %d\r\n\r\n", TOTAL_BYTES);
    peer_send(fd, head);
    fds = (struct pollfd){.fd = fd, .events = POLLOUT};
    while (sent < TOTAL_BYTES && poll(&fds, 1, 300) > 0) {
        ssize_t put = send(fd, block, sizeof block, MSG_NOSIGNAL | MSG_DONTWAIT);
        sent += put > 0 ? (size_t)put : 0;
    }
    assert_true(sent < 64u << 20); /* what sockets hold, whatever their limits are here */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(test_echo_of_200_mib, stop_if_running),
        cmocka_unit_test_teardown(test_reader_stops, stop_if_running),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
