/* SPDX-License-Identifier: Apache-2.0 */
/* Sockets: listening, connecting, passing descriptors, who the peer is. */
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/io.h"
#include "base/sock.h"

enum { PATIENCE_MS = 10000 };

static char folder[] = "/tmp/torpor-test-sock-XXXXXX";
static char path[64];

static int make_folder(void **state)
{
    (void)state;
    if (!mkdtemp(folder))
        return -1;
    (void)snprintf(path, sizeof path, "%s/socket", folder);
    return 0;
}

static int remove_folder(void **state)
{
    struct err e = {0};
    (void)state;
    return io_remove_tree(AT_FDCWD, folder, &e);
}

static void check_cloexec(int fd)
{
    assert_true(fd >= 0);
    assert_int_equal(fcntl(fd, F_GETFD) & FD_CLOEXEC, FD_CLOEXEC);
    assert_int_equal(fcntl(fd, F_GETFL) & O_NONBLOCK, 0);
}

static void unix_sockets_connect(void **state)
{
    struct err e = {0};
    AUTO_CLOSE int first = sock_listen_unix(path, 0600, &e);
    AUTO_CLOSE int second = -1;
    AUTO_CLOSE int client = -1;
    AUTO_CLOSE int served = -1;
    struct sock_peer peer;
    struct stat st;
    (void)state;
    check_cloexec(first);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 07777, 0600);
    second = sock_listen_unix(path, 0660, &e); /* replaces the file */
    check_cloexec(second);
    client = sock_connect_unix(path, &e);
    check_cloexec(client);
    served = accept4(second, NULL, NULL, SOCK_CLOEXEC);
    assert_true(served >= 0);
    assert_int_equal(sock_peer_get(served, &peer, &e), 0);
    assert_int_equal(peer.pid, getpid());
    assert_int_equal(peer.uid, getuid());
    assert_int_equal(peer.gid, getgid());
    assert_int_equal(sock_local_port(client), 0);
    assert_int_equal(unlink(path), 0);
}

static void nobody_listening_is_unavailable(void **state)
{
    char name[200];
    struct err e = {0};
    (void)state;
    (void)unlink(path);
    assert_int_equal(sock_connect_unix(path, &e), -1);
    assert_int_equal(e.kind, ERR_UNAVAILABLE);
    memset(name, 'x', sizeof name);
    name[sizeof name - 1] = '\0';
    assert_int_equal(sock_connect_unix(name, &e), -1);
    assert_int_equal(e.kind, ERR_INVALID);
    assert_int_equal(sock_listen_unix(name, 0600, &e), -1);
    assert_int_equal(e.kind, ERR_INVALID);
}

static void tcp_sockets_connect(void **state)
{
    struct err e = {0};
    AUTO_CLOSE int listening = sock_listen_tcp("127.0.0.1", 0, &e);
    AUTO_CLOSE int client = -1;
    uint16_t port = sock_local_port(listening);
    (void)state;
    check_cloexec(listening);
    assert_int_not_equal(port, 0);
    client = sock_connect_tcp("127.0.0.1", port, deadline_in_ms(PATIENCE_MS), &e);
    check_cloexec(client);
    assert_int_equal(sock_listen_tcp("127.0.0.1", port, &e), -1);
    assert_int_equal(e.errnum, EADDRINUSE);
    assert_int_equal(sock_listen_tcp("localhost", 0, &e), -1);
    assert_int_equal(e.kind, ERR_INVALID);
}

static void refused_connection_is_unavailable(void **state)
{
    struct err e = {0};
    /* Bound but not listening: nobody else gets the port, and connecting is refused. */
    AUTO_CLOSE int bound = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_in addr = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    (void)state;
    assert_int_equal(bind(bound, (struct sockaddr *)&addr, sizeof addr), 0);
    assert_int_equal(
        sock_connect_tcp("127.0.0.1", sock_local_port(bound), deadline_in_ms(PATIENCE_MS), &e), -1);
    assert_int_equal(e.kind, ERR_UNAVAILABLE);
}

/* --- descriptors --- */

static int pair[2];

static int make_pair(void **state)
{
    (void)state;
    return socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair);
}

static int close_pair(void **state)
{
    (void)state;
    (void)close(pair[0]);
    return close(pair[1]);
}

/* Number of open descriptors of this process. */
static int count_open(void)
{
    int n = 0;
    for (int fd = 0; fd < 256; fd++)
        if (fcntl(fd, F_GETFD) >= 0)
            n++;
    return n;
}

static void descriptors_are_passed(void **state)
{
    int sent[2];
    int got[4] = {-1, -1, -1, -1};
    size_t n_got = 99;
    char text[8] = "";
    struct err e = {0};
    (void)state;
    assert_int_equal(pipe2(sent, O_CLOEXEC), 0);
    assert_int_equal(sock_send_fds(pair[0], "hi", 2, sent, 2, &e), 0);
    assert_int_equal(sock_recv_fds(pair[1], text, sizeof text, got, 4, &n_got, &e), 2);
    assert_string_equal(text, "hi");
    assert_int_equal(n_got, 2);
    check_cloexec(got[0]);
    check_cloexec(got[1]);
    /* They are the same pipe. */
    assert_int_equal(write(got[1], "x", 1), 1);
    assert_int_equal(read(sent[0], text, 1), 1);
    assert_int_equal(text[0], 'x');
    for (int i = 0; i < 2; i++) {
        (void)close(sent[i]);
        (void)close(got[i]);
    }
}

static void messages_without_descriptors_pass(void **state)
{
    int got[1];
    size_t n_got = 99;
    char text[8] = "";
    struct err e = {0};
    (void)state;
    assert_int_equal(sock_send_fds(pair[0], "plain", 5, NULL, 0, &e), 0);
    assert_int_equal(sock_recv_fds(pair[1], text, sizeof text, got, 1, &n_got, &e), 5);
    assert_int_equal(n_got, 0);
    assert_int_equal(shutdown(pair[0], SHUT_WR), 0);
    assert_int_equal(sock_recv_fds(pair[1], text, sizeof text, got, 1, &n_got, &e), 0);
}

/* Too many for the receiver: refused, and none stays open. */
static void surplus_descriptors_are_closed(void **state)
{
    int sent[129];
    int got[4];
    size_t n_got = 99;
    char text[8];
    struct err e = {0};
    int open_before = count_open();
    (void)state;
    for (int i = 0; i < 129; i++)
        sent[i] = pair[0];
    assert_int_equal(sock_send_fds(pair[0], "x", 1, sent, 5, &e), 0);
    assert_int_equal(sock_recv_fds(pair[1], text, sizeof text, got, 4, &n_got, &e), -1);
    assert_int_equal(e.kind, ERR_PROTOCOL);
    assert_int_equal(n_got, 0);
    assert_int_equal(count_open(), open_before);
    assert_int_equal(sock_send_fds(pair[0], "x", 1, sent, 128, &e), 0);
    assert_int_equal(sock_recv_fds(pair[1], text, sizeof text, got, 0, &n_got, &e), -1);
    assert_int_equal(count_open(), open_before);
    assert_int_equal(sock_send_fds(pair[0], "x", 1, sent, 129, &e), -1);
    assert_int_equal(e.kind, ERR_INVALID);
}

static void sending_to_nobody_is_an_error_and_no_signal(void **state)
{
    struct err e = {0};
    AUTO_CLOSE int alone = -1;
    int fds[2];
    (void)state;
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
    alone = fds[0];
    (void)close(fds[1]);
    assert_int_equal(sock_send_fds(alone, "x", 1, &alone, 1, &e), -1);
    assert_int_equal(e.errnum, EPIPE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(unix_sockets_connect),
        cmocka_unit_test(nobody_listening_is_unavailable),
        cmocka_unit_test(tcp_sockets_connect),
        cmocka_unit_test(refused_connection_is_unavailable),
        cmocka_unit_test_setup_teardown(descriptors_are_passed, make_pair, close_pair),
        cmocka_unit_test_setup_teardown(messages_without_descriptors_pass, make_pair, close_pair),
        cmocka_unit_test_setup_teardown(surplus_descriptors_are_closed, make_pair, close_pair),
        cmocka_unit_test(sending_to_nobody_is_an_error_and_no_signal),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
